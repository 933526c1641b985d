//! Single situations, by name. F-numbers are those of the failure catalogue of mail-based replication.

use bridgehead::directory::{Read, Table};
use bridgehead::replication::engine::hold::{HoldVerdict, holds};
use bridgehead::replication::engine::quarantine::kept;
use bridgehead::replication::engine::{Header, Input, Outcome, Refusal};
use bridgehead::replication::peer::Peer;
use bridgehead::replication::wire::Message;

use super::site::Crash;
use super::world::{DAY, HOUR, Knobs, World};
use super::{calm_knobs, finish};

/// Two sites that are equal and have nothing to say.
fn two_equal_sites(change: impl Fn(&mut Knobs)) -> World {
    let mut knobs = calm_knobs();
    change(&mut knobs);
    let mut world = World::new(1, knobs);
    finish(&mut world);
    world.mails.clear();
    world
}

fn peer(world: &World, n: usize, site: &str) -> Peer {
    Peer::load(&world.sites[n].store, site).unwrap().unwrap()
}

#[test]
fn a_change_costs_one_message_and_one_acknowledgement() {
    let mut world = two_equal_sites(|_| ());
    world.work(0, 0);
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    assert_eq!(world.mails, [(0, 1, true), (1, 0, false)]);
}

#[test]
fn a_change_does_not_wait_for_the_acknowledgement_of_the_one_before() {
    let mut world = two_equal_sites(|knobs| knobs.delay = (HOUR, HOUR));
    let begun = world.now;
    for _ in 0..5 {
        world.work(0, 0);
        world.run(world.now + 60_000, |_| false);
    }
    assert!(world.run(begun + HOUR + 10 * 60_000, World::equal), "five changes in one trip and a little");
}

#[test]
fn sync_proves_equality() {
    let mut world = two_equal_sites(|_| ());
    world.work(0, 0);
    let asked = world.now;
    world.input(1, Input::Sync { site: None }, Crash::No);
    assert!(peer(&world, 1, "s0").asked_at.is_some());
    let proved = world.run(world.now + HOUR, |world| peer(world, 1, "s0").asked_at.is_none());
    assert!(proved && world.equal());
    assert!(peer(&world, 1, "s0").equal_at.unwrap() >= asked);
    assert_eq!(world.observers.events["Equal"], 1);
}

/// `sync --wait` right after an import, while the sites are still greeting each other.
#[test]
fn sync_before_the_first_word_proves_nothing_too_early() {
    let mut world = World::new(2, calm_knobs());
    world.work(0, 0);
    let asked = world.now;
    world.input(0, Input::Sync { site: None }, Crash::No);
    let proved = |world: &World| {
        let peer = Peer::load(&world.sites[0].store, "s1").unwrap();
        peer.is_some_and(|peer| peer.equal_at.is_some_and(|at| at >= asked))
    };
    assert!(world.run(world.now + DAY, proved), "proved in the end");
    assert!(world.equal(), "and not before it is so");
}

#[test]
fn sync_is_not_answered_by_silence() {
    let mut world = two_equal_sites(|_| ());
    world.knobs.loss = 100;
    world.input(0, Input::Sync { site: Some("s1".into()) }, Crash::No);
    world.run(world.now + 10 * DAY, |_| false);
    assert!(peer(&world, 0, "s1").asked_at.is_some());
    assert!(world.mails.len() < 100, "{} messages into the void", world.mails.len());
    world.knobs.loss = 0;
    assert!(world.run(world.now + 3 * DAY, |world| peer(world, 0, "s1").asked_at.is_none()));
}

/// F18.
#[test]
fn a_site_that_never_answers_gets_hello_and_nothing_else() {
    let mut knobs = calm_knobs();
    knobs.loss = 100;
    let mut world = World::new(2, knobs);
    world.run(world.now + 30 * DAY, |_| false);
    // The observers check that they are hellos.
    assert!((10..60).contains(&world.mails.len()), "{} hellos in a month", world.mails.len());
}

/// F1: a queue full of repeated messages drains in linear time and makes no new ones.
#[test]
fn ten_thousand_queued_duplicates_are_harmless() {
    let mut world = two_equal_sites(|knobs| knobs.bulk = 100);
    let before = peer(&world, 0, "s1").sent_seq;
    world.work(0, 0);
    world.run(world.now + 3_000, |_| false);
    let letter = world.last_letter().expect("the change is on the way");
    assert!(letter.0.seq > before);
    let posted = world.mails.len();
    let begun = std::time::Instant::now();
    for n in 0..10_000 {
        // The same message ten thousand times, then the same content under new numbers.
        let seq = if n < 5_000 { letter.0.seq } else { letter.0.seq + n };
        let header = Header { seq, time: letter.0.time };
        let input = Input::Received { from: "s0".into(), header, payload: letter.1.clone() };
        world.input(1, input, Crash::No);
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    world.run(world.now + HOUR, |_| false);
    assert!(world.equal());
    assert!(world.mails.len() - posted < 5, "{} messages", world.mails.len() - posted);
}

/// F1: ten thousand questions get one answer.
#[test]
fn repeated_requests_coalesce() {
    let mut world = two_equal_sites(|knobs| knobs.bulk = 200);
    world.work(0, 50);
    world.knobs.loss = 100;
    world.run(world.now + 60_000, |_| false);
    world.knobs.loss = 0;
    let vector = world.vector_of(1, "s0");
    let first = vector.iter().find(|item| item.context.contains("s0")).expect("it is in the vector").clone();
    let posted = world.mails.len();
    for n in 1..=10_000 {
        let mut message = Message::new(vector.clone());
        message.requests.push(bridgehead::replication::wire::Request {
            context: first.context.clone(),
            base: first.position,
            base_digest: first.digest,
            transfer: None,
            missing: Vec::new(),
        });
        let seq = world.now as u64 + n;
        let header = Header { seq, time: world.sites[1].clock(world.now) };
        world.input(0, Input::Received { from: "s1".into(), header, payload: message.encode() }, Crash::No);
    }
    assert!(world.mails.len() - posted < 10, "{} answers", world.mails.len() - posted);
    assert!(world.run(world.now + HOUR, World::equal));
}

#[test]
fn only_missing_parts_are_sent_again() {
    let mut world = two_equal_sites(|knobs| knobs.part_bytes_max = 16 << 10);
    world.work(0, 400);
    world.lose_part = Some(7);
    assert!(world.run(world.now + 3 * DAY, World::equal));
    let parts = world.parts_posted;
    assert!(parts.0 > 15, "{} parts", parts.0);
    assert!(parts.1 <= 3, "{} parts sent again", parts.1);
}

/// F5.
#[test]
fn mail_that_is_too_large_is_cut_smaller() {
    let mut world = two_equal_sites(|knobs| knobs.passes_bytes_max = 50_000);
    world.work(0, 400);
    assert!(world.run(world.now + DAY, World::equal));
    assert!(world.observers.events["PartsHalved"] <= 6, "{:?}", world.observers.events);
}

/// F19.
#[test]
fn strangers_and_noise_are_refused() {
    let mut world = two_equal_sites(|_| ());
    let header = Header { seq: 1, time: world.sites[0].clock(world.now) };
    let mut refusal = |from: &str, payload: Vec<u8>| {
        let input = Input::Received { from: from.into(), header, payload };
        let site = &mut world.sites[0];
        site.handle(world.now, input, Crash::No).outcome
    };
    let stranger = refusal("s9", Message::new(Vec::new()).encode());
    assert_eq!(stranger, Some(Outcome::Refused(Refusal::NotAPartner { site: "s9".into() })));
    let noise = refusal("s1", b"not a message".to_vec());
    assert!(matches!(noise, Some(Outcome::Refused(Refusal::Malformed { .. }))), "{noise:?}");
}

/// A site that was put back to an earlier day gets what it lost (F10).
#[test]
fn a_replica_from_a_backup_catches_up() {
    let mut world = two_equal_sites(|_| ());
    let backup = world.sites[1].store.clone();
    world.work(0, 0);
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    world.sites[1].store = backup;
    world.sites[1].restart();
    world.observers.restored(&world.sites[1]);
    assert!(!world.equal());
    world.input(1, Input::Start, Crash::No);
    assert!(world.run(world.now + 13 * HOUR, World::equal));
}

/// A site that lost its whole store is filled again.
#[test]
fn an_empty_store_is_filled_again() {
    let mut world = two_equal_sites(|_| ());
    let blank = World::new(1, calm_knobs());
    world.sites[1].store = blank.sites[1].store.clone();
    world.sites[1].restart();
    world.observers.restored(&world.sites[1]);
    world.input(1, Input::Start, Crash::No);
    let full = |world: &World| {
        let mut entries = 0;
        world.sites[1]
            .store
            .scan(Table::Entry, &[], &[0xff; 21], &mut |_, _| {
                entries += 1;
                true
            })
            .unwrap();
        entries > 0 && world.observers.holds(&world.sites[1], "ou=s0,o=Example")
    };
    assert!(world.run(world.now + DAY, full));
}

/// What came from one site does not fit what another site signed.
#[test]
fn a_hub_cannot_alter_what_it_carries() {
    let mut world = two_equal_sites(|_| ());
    world.work(0, 0);
    world.tamper = true;
    world.run(world.now + 2 * DAY, |_| false);
    assert!(world.observers.events["NotApplied"] > 0);
    assert!(!world.equal(), "the observers check that nothing wrong is held");
    world.tamper = false;
    assert!(world.run(world.now + 3 * DAY, World::equal));
}

/// The names of all entries of `ou=s0,o=Example` at a site.
fn names(world: &World, n: usize) -> std::collections::BTreeSet<String> {
    let store = &world.sites[n].store;
    let all = bridgehead::directory::context::contexts(store).unwrap();
    let record = all.into_iter().find(|record| record.dn.to_string() == "ou=s0,o=Example").unwrap();
    let mut names = std::collections::BTreeSet::new();
    bridgehead::directory::lookup::scan_entries(store, record.number, &mut |entry| {
        names.insert(entry.rdn.as_str().to_owned());
        true
    })
    .unwrap();
    names
}

/// Puts a site's store back to what it was.
fn restore(world: &mut World, n: usize, backup: &bridgehead::directory::memory::MemoryStore) {
    let workload = world.sites[n].workload.clone();
    world.restore(n, backup.clone(), workload);
}

/// F9.
#[test]
fn a_master_from_a_backup_takes_back_what_it_lost() {
    let mut world = two_equal_sites(|_| ());
    let backup = world.sites[0].store.clone();
    world.work(0, 5);
    world.work(0, 5);
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    let before = names(&world, 0);
    restore(&mut world, 0, &backup);
    assert!(names(&world, 0).len() < before.len());
    assert!(world.run(world.now + 13 * HOUR, World::equal));
    assert_eq!(names(&world, 0), before);
    assert_eq!(world.observers.events["Recovered"], 1);
    let old = world.sites[0].own().position.invocation;
    world.work(0, 5);
    assert_ne!(world.sites[0].own().position.invocation, old, "what is committed now is of a new life");
    assert!(world.run(world.now + HOUR, World::equal));
}

/// F9: nobody noticed the restore before people went on working.
#[test]
fn a_master_from_a_backup_that_goes_on_keeps_both_old_and_new_changes() {
    let mut world = two_equal_sites(|_| ());
    let backup = world.sites[0].store.clone();
    world.work(0, 5);
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    let lost = names(&world, 0);
    restore(&mut world, 0, &backup);
    world.work(0, 3);
    let new = names(&world, 0);
    assert!(!lost.is_subset(&new));
    assert!(world.run(world.now + 13 * HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    assert_eq!(names(&world, 0), lost.union(&new).cloned().collect());
    assert_eq!(names(&world, 1), names(&world, 0));
    world.work(0, 1);
    assert!(world.run(world.now + HOUR, World::equal));
}

/// A master that lost its whole store has its naming context back from a partner.
#[test]
fn a_master_with_an_empty_store_gets_its_naming_context_back() {
    let mut world = two_equal_sites(|_| ());
    let before = names(&world, 0);
    let blank = World::new(1, Knobs { bulk: 0, ..calm_knobs() }).sites[0].store.clone();
    restore(&mut world, 0, &blank);
    assert!(world.run(world.now + DAY, |world| names(world, 0) == before));
    assert!(world.run(world.now + DAY, World::equal));
}

/// Two lives of one master: reported, and no longer merged.
#[test]
fn a_clone_that_lives_on_is_reported_as_a_fork() {
    let mut world = two_equal_sites(|_| ());
    let mut lives = [world.sites[0].store.clone(), world.sites[0].store.clone()];
    for turn in 0..12 {
        let life = lives[turn % 2].clone();
        restore(&mut world, 0, &life);
        world.work(0, 1);
        world.run(world.now + HOUR, |_| false);
        lives[turn % 2] = world.sites[0].store.clone();
    }
    assert!(
        world.observers.events.get("Forked").is_some_and(|count| *count > 0),
        "{:?}",
        world.observers.events
    );
}

/// F11, F20: a transfer that deletes too much waits for the operator.
#[test]
fn a_mass_deletion_waits_for_approval() {
    let mut world = two_equal_sites(|knobs| {
        knobs.bulk = 60;
        knobs.delete_percent_max = 20;
    });
    let before = names(&world, 1);
    world.delete_people(0, 40);
    world.run(world.now + 2 * DAY, |_| false);
    assert_eq!(names(&world, 1), before, "nothing is deleted yet");
    assert_eq!(world.observers.events["Held"], 1);
    let held = holds(&world.sites[1].store).unwrap();
    assert_eq!((held.len(), held[0].verdict), (1, HoldVerdict::Waiting));
    assert!(world.mails.len() < 40, "the sender does not repeat itself: {} messages", world.mails.len());
    // What comes later waits behind it.
    world.work(0, 1);
    world.run(world.now + DAY, |_| false);
    assert_eq!(names(&world, 1), before);
    world.input(1, Input::Hold { hold: held[0].id, approve: true }, Crash::No);
    assert!(world.run(world.now + 3 * DAY, World::equal));
    assert!(holds(&world.sites[1].store).unwrap().is_empty());
}

/// F20: a rejected hold stays as it is.
#[test]
fn a_rejected_mass_deletion_deletes_nothing() {
    let mut world = two_equal_sites(|knobs| {
        knobs.bulk = 60;
        knobs.delete_percent_max = 20;
    });
    let before = names(&world, 1);
    world.delete_people(0, 40);
    world.run(world.now + HOUR, |_| false);
    let held = holds(&world.sites[1].store).unwrap();
    world.input(1, Input::Hold { hold: held[0].id, approve: false }, Crash::No);
    world.work(0, 1);
    world.run(world.now + 3 * DAY, |_| false);
    assert_eq!(names(&world, 1), before);
}

#[test]
fn a_paused_site_gets_nothing_until_it_is_resumed() {
    let mut world = two_equal_sites(|_| ());
    world.input(0, Input::Pause { site: "s1".into(), paused: true }, Crash::No);
    world.work(0, 3);
    world.run(world.now + 2 * DAY, |_| false);
    assert!(world.mails.iter().all(|mail| mail.0 != 0), "{:?}", world.mails);
    assert!(!world.equal());
    world.input(0, Input::Pause { site: "s1".into(), paused: false }, Crash::No);
    assert!(world.run(world.now + HOUR, World::equal));
}

/// F11: what a site masters is deleted only by purge, and only what it masters.
#[test]
fn a_site_is_removed_in_steps_that_can_be_looked_at() {
    let mut world = two_equal_sites(|_| ());
    let held = names(&world, 1);
    for (dry_run, left) in [(true, true), (false, false)] {
        world.input(1, Input::Detach { site: "s0".into(), dry_run }, Crash::No);
        assert_eq!(names(&world, 1), held, "detach keeps what is held");
        world.input(1, Input::Purge { site: "s0".into(), dry_run }, Crash::No);
        let all = bridgehead::directory::context::contexts(&world.sites[1].store).unwrap();
        assert_eq!(all.iter().any(|record| record.master == "s0"), left);
        assert!(all.iter().any(|record| record.master == "s1"));
    }
}

/// F16: mail leaves in the windows of the link only.
#[test]
fn mail_keeps_to_the_schedule() {
    let mut world = two_equal_sites(|knobs| knobs.schedule = "Mon-Sun 02:00-03:00 UTC".parse().unwrap());
    for _ in 0..3 {
        world.work(0, 1);
        world.run(world.now + DAY, |_| false);
    }
    assert!(world.equal());
    assert!(world.posted_at.iter().all(|at| at.rem_euclid(DAY) / HOUR == 2), "{:?}", world.posted_at);
    assert!(world.posted_at.len() > 5);
}

#[test]
fn a_byte_budget_spreads_a_load_over_days() {
    let mut world = two_equal_sites(|knobs| {
        knobs.part_bytes_max = 16 << 10;
        knobs.day_bytes_max = Some(100_000);
    });
    let begun = (world.now, world.bytes);
    world.work(0, 600);
    assert!(world.run(world.now + 20 * DAY, World::equal));
    let (days, bytes) = ((world.now - begun.0) / DAY, world.bytes - begun.1);
    assert!(bytes > 350_000, "{bytes}");
    assert!((2..=6).contains(&days), "{bytes} bytes in {days} days");
}

/// Two replicas that differ at one position find the entry and repair it, and nothing else.
#[test]
fn verify_finds_and_repairs_only_what_differs() {
    let mut world = two_equal_sites(|knobs| knobs.bulk = 300);
    let before = names(&world, 1);
    world.spoil(1, "ou=s0,o=Example");
    assert_ne!(names(&world, 1), before);
    world.input(1, Input::Sync { site: None }, Crash::No);
    world.run(world.now + HOUR, |_| false);
    assert!(world.observers.events["Differs"] > 0);
    assert_ne!(names(&world, 1), before, "a difference is reported; it is repaired when asked");
    let (mails, bytes) = (world.mails.len(), world.bytes);
    world.input(1, Input::Verify { site: Some("s0".into()) }, Crash::No);
    assert!(world.run(world.now + HOUR, |world| names(world, 1) == before));
    world.run(world.now + HOUR, |_| false);
    assert!(world.mails.len() - mails <= 8, "{} messages", world.mails.len() - mails);
    assert!(world.bytes - bytes < 40_000, "{} bytes", world.bytes - bytes);
}

/// A link on which nothing comes back still carries everything, and heals what was lost.
#[test]
fn a_one_way_link_repeats_itself() {
    let mut knobs = calm_knobs();
    knobs.one_way = true;
    let mut world = World::new(3, knobs);
    world.work(0, 5);
    let there = |world: &World| world.observers.holds(&world.sites[1], "ou=s0,o=Example");
    assert!(world.run(world.now + HOUR, there));
    world.knobs.loss = 100;
    world.work(0, 5);
    world.run(world.now + DAY, |_| false);
    assert!(!there(&world));
    world.knobs.loss = 0;
    assert!(world.run(world.now + 8 * DAY, there), "within the period of repetition");
    assert!(world.mails.iter().all(|mail| mail.0 == 0), "nothing goes back");
    assert!(world.mails.len() < 60, "{} messages", world.mails.len());
}

/// F7: what is refused is kept, within bounds.
#[test]
fn refused_messages_are_kept_within_bounds() {
    let mut world = two_equal_sites(|_| ());
    for n in 0..300u64 {
        let header = Header { seq: n + 1, time: world.sites[0].clock(world.now) };
        let payload = format!("not a message {}", n / 2).into_bytes();
        world.now += 1000;
        world.input(0, Input::Received { from: "s1".into(), header, payload }, Crash::No);
    }
    let copies = kept(&world.sites[0].store).unwrap();
    assert_eq!(copies.len(), 100);
    assert!(copies.last().unwrap().payload.starts_with(b"not a message 149"));
    assert!(copies.iter().all(|copy| copy.site == "s1" && !copy.reason.is_empty()));
}
