//! The observers at work: an engine that is broken on purpose does not pass.

use bridgehead::directory::{Read, Table, Write};
use bridgehead::replication::engine::quarantine::COPIES_MAX;

use super::cases::two_equal_sites;
use super::faults::Sabotage;
use super::faulty::{Faulty, Written};
use super::finish;
use super::knobs::Knobs;
use super::world::{DAY, World};

/// The complaint about a world with this sabotage.
fn complaint(change: impl Fn(&mut Knobs)) -> String {
    let mut knobs = Knobs::calm();
    knobs.bulk = 100;
    knobs.part_bytes_max = 16 << 10;
    change(&mut knobs);
    let outcome = std::panic::catch_unwind(|| {
        let mut world = World::new(5, knobs);
        finish(&mut world);
    });
    match outcome {
        Ok(()) => "nothing".into(),
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    }
}

#[test]
fn a_sound_engine_passes() {
    assert_eq!(complaint(|_| ()), "nothing");
}

#[test]
fn a_skipped_digest_check_is_noticed() {
    let said = complaint(|knobs| knobs.sabotage = Sabotage::SkippedDigest);
    assert!(said.contains("not what its master held"), "{said}");
}

#[test]
fn a_forgotten_deletion_is_noticed() {
    let said = complaint(|knobs| knobs.sabotage = Sabotage::ForgottenDeletion);
    assert!(said.contains("not what its master held"), "{said}");
}

#[test]
fn an_ignored_part_is_noticed() {
    let said = complaint(|knobs| knobs.sabotage = Sabotage::IgnoredPart);
    assert!(said.contains("not equal although mail flows"), "{said}");
}

#[test]
fn a_mass_deletion_that_nobody_approved_is_noticed() {
    let said = complaint(|knobs| {
        knobs.sabotage = Sabotage::NoHolds;
        knobs.delete_percent_max = 5;
        knobs.commits = 60;
    });
    assert!(said.contains("and nobody approved"), "{said}");
}

#[test]
fn resending_without_back_off_is_noticed() {
    let said = complaint(|knobs| {
        knobs.sabotage = Sabotage::NoBackOff;
        knobs.loss = 100;
        knobs.busy = 3 * DAY;
    });
    assert!(said.contains("silent hours"), "{said}");
}

#[test]
fn a_reused_invocation_id_is_noticed() {
    let outcome = std::panic::catch_unwind(|| {
        let mut world = World::new(6, Knobs::calm());
        finish(&mut world);
        let backup = world.sites[0].store.clone();
        let workload = world.sites[0].workload.clone();
        world.work(0, 0);
        world.sites[0].store = backup;
        world.sites[0].workload = workload;
        world.work(0, 3);
    });
    let said = outcome.expect_err("noticed").downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(said.contains("a second time"), "{said}");
}

/// A step of the second of two equal sites that writes this, and nothing else.
fn step(world: &mut World, write: impl Fn(&mut Faulty)) -> Written {
    let mut tx = Faulty::new(world.sites[1].store.begin(), u64::MAX);
    write(&mut tx);
    tx.commit()
}

/// The step that did it is enough; no position moves, and no audit comes.
#[test]
fn an_entry_that_is_altered_where_it_stands_is_noticed_at_once() {
    let mut world = two_equal_sites(|knobs| knobs.bulk = 20);
    let nothing = step(&mut world, |_| ());
    assert_eq!(world.observers.after(1, &world.sites[1], &[], &nothing), None);
    let written = step(&mut world, |tx| {
        let mut found = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            true
        };
        tx.scan(Table::Entry, &[], &[0xff; 20], visit).expect("the store is sound");
        let (key, mut entry) = found.pop().expect("it has entries");
        *entry.last_mut().expect("no entry is empty") ^= 1;
        tx.put(Table::Entry, &key, &entry).expect("nothing is refused");
    });
    let said = world.observers.after(1, &world.sites[1], &[], &written).expect("noticed");
    assert!(said.contains("not what its master held"), "{said}");
}

#[test]
fn a_table_without_bound_is_noticed_at_once() {
    let mut world = two_equal_sites(|_| ());
    let written = step(&mut world, |tx| {
        for n in 0..=4 * COPIES_MAX as u64 {
            tx.put(Table::Quarantine, &n.to_be_bytes(), &[]).expect("nothing is refused");
        }
    });
    let said = world.observers.bounded(&world.sites[1], 2, &written).expect("noticed");
    assert!(said.contains("in Quarantine"), "{said}");
}
