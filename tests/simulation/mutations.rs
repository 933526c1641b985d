//! The observers at work: an engine that is broken on purpose does not pass.

use super::faults::Sabotage;
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
