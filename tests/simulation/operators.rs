//! What operators set and do: holds, pauses, removals, schedules, budgets, one-way links, verify.

use bridgehead::directory::context::context_of;
use bridgehead::directory::{Dn, Read, Table, Write};
use bridgehead::replication::engine::hold::{HoldVerdict, holds};
use bridgehead::replication::engine::quarantine::{kept, payload};
use bridgehead::replication::engine::{Header, Input};
use bridgehead::replication::peer::Peer;
use bridgehead::replication::status::status;

use super::cases::{names, peer, two_equal_sites};
use super::faults::Sabotage;
use super::knobs::{Knobs, Topology};
use super::site::Crash;
use super::staff::Act;
use super::world::{DAY, HOUR, World};

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

/// Approved at a hub, it is held again behind it: that hold, too, says whose deletions they are.
#[test]
fn a_hold_behind_a_hub_names_the_master() {
    let mut world = two_equal_sites(|knobs| {
        (knobs.sites, knobs.topology) = (3, Topology::Line);
        (knobs.bulk, knobs.delete_percent_max) = (60, 20);
    });
    world.delete_people(0, 40);
    world.run(world.now + HOUR, |_| false);
    let held = holds(&world.sites[1].store).unwrap();
    assert_eq!((held.len(), held[0].of().as_str()), (1, "s0"));
    world.input(1, Input::Hold { hold: held[0].id, approve: true }, Crash::No);
    world.run(world.now + HOUR, |_| false);
    let held = holds(&world.sites[2].store).unwrap();
    assert_eq!((held.len(), held[0].of().as_str()), (1, "s0 by way of s1"));
    let now = jiff::Timestamp::from_millisecond(world.now).unwrap();
    let status = status(&world.sites[2].store, &world.sites[2].config, now).unwrap();
    let reasons: Vec<_> = status.contexts.iter().filter_map(|context| context.reason.as_deref()).collect();
    assert!(reasons[0].starts_with("a transfer from s0 by way of s1 would delete 40 of "), "{reasons:?}");
}

/// What waited may be gone when the word comes: then it is asked for.
#[test]
fn an_approval_counts_though_what_waited_is_gone() {
    let mut world = two_equal_sites(|knobs| (knobs.bulk, knobs.delete_percent_max) = (60, 20));
    world.delete_people(0, 40);
    world.run(world.now + HOUR, |_| false);
    let mut tx = world.sites[1].store.begin();
    tx.delete_range(Table::Inbox, &[], &[0xff; 80]).unwrap();
    tx.commit();
    let held = holds(&world.sites[1].store).unwrap();
    world.input(1, Input::Hold { hold: held[0].id, approve: true }, Crash::No);
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    assert_eq!(world.observers.leftovers(&world.sites), None);
}

/// With a connection goes what waited of it; made anew, it is looked at anew.
#[test]
fn a_hold_goes_with_its_connection() {
    let mut world = two_equal_sites(|knobs| (knobs.bulk, knobs.delete_percent_max) = (60, 20));
    world.delete_people(0, 40);
    world.run(world.now + HOUR, |_| false);
    assert_eq!(holds(&world.sites[1].store).unwrap().len(), 1);
    world.operate(1, Act::Detach { site: 0, purge: false });
    assert_eq!(holds(&world.sites[1].store).unwrap(), []);
    world.operate(1, Act::Know(0));
    world.run(world.now + DAY, |_| false);
    let held = holds(&world.sites[1].store).unwrap();
    assert_eq!((held.len(), held[0].verdict), (1, HoldVerdict::Waiting));
    world.input(1, Input::Hold { hold: held[0].id, approve: true }, Crash::No);
    assert!(world.run(world.now + HOUR, World::equal));
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

/// One part got lost and is not asked for yet.
#[test]
fn status_says_how_much_of_a_load_is_here() {
    let mut world = two_equal_sites(|knobs| knobs.part_bytes_max = 16 << 10);
    let received = |world: &World| {
        let now = jiff::Timestamp::from_millisecond(world.now).unwrap();
        let status = status(&world.sites[1].store, &world.sites[1].config, now).unwrap();
        let mut contexts = status.partners.into_iter().flat_map(|partner| partner.contexts);
        contexts.find(|context| context.context == "ou=s0,o=Example").expect("it is shared").received
    };
    assert_eq!(received(&world), None);
    let posted = world.parts_posted.0;
    world.work(0, 400);
    world.lose_part = Some(7);
    world.run(world.now + 8_000, |_| false);
    let parts = (world.parts_posted.0 - posted) as u32;
    assert!(parts > 10, "{parts} parts");
    assert_eq!(received(&world), Some((parts - 1, parts)));
    assert!(world.run(world.now + DAY, World::equal));
    assert_eq!(received(&world), None, "nothing comes in any more");
}

/// A link on which nothing comes back still carries everything, and heals what was lost.
#[test]
fn a_one_way_link_repeats_itself() {
    let mut knobs = Knobs::calm();
    knobs.one_way = true;
    let mut world = World::new(3, knobs);
    world.work(0, 5);
    let there = |world: &World| world.observers.holds(1, 0, "ou=s0,o=Example");
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
        let header = Header { seq: n + 1, time: world.sites[0].clock(world.now), message_id: None };
        let payload = format!("not a message {}", n / 2).into_bytes();
        world.now += 1000;
        world.input(0, Input::Received { from: "s1".into(), header, payload }, Crash::No);
    }
    let copies = kept(&world.sites[0].store).unwrap();
    assert_eq!(copies.len(), 100);
    assert!(payload(&world.sites[0].store, copies.last().unwrap()).unwrap() == b"not a message 149");
    assert_eq!(world.observers.events.get("Forgotten"), Some(&50), "each that was let go was told");
    assert!(copies.iter().all(|copy| copy.site == "s1" && !copy.reason.is_empty()));
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

/// What is held does not have its own digest, though its record says so: no more is sent than what was altered.
#[test]
fn verify_repairs_what_does_not_have_its_digest() {
    let mut world = two_equal_sites(|knobs| (knobs.bulk, knobs.part_bytes_max) = (800, 16 << 10));
    world.traffic.lawless = true;
    world.observers.spoiled = true;
    Sabotage::SkippedDigest.after_apply(&mut world.sites[1]);
    let posted = world.parts_posted.0;
    world.input(1, Input::Verify { site: Some("s0".into()) }, Crash::No);
    world.run(world.now + DAY, |_| false);
    assert_eq!(world.observers.count("Damaged"), 1);
    assert_eq!(world.parts_posted.0, posted + 1, "one part, where all would be many");
    assert_eq!(world.observers.audit(&world.sites[1]), None);
    assert!(world.equal());
    assert_eq!(world.observers.leftovers(&world.sites), None);
}

/// `verify` asks all; who does not send what is compared says nothing, and is not asked for ever.
#[test]
fn verify_ends_where_another_site_repaired() {
    let mut world = two_equal_sites(|knobs| (knobs.sites, knobs.topology) = (3, Topology::Mesh));
    world.traffic.lawless = true;
    world.observers.spoiled = true;
    Sabotage::SkippedDigest.after_apply(&mut world.sites[1]);
    world.input(1, Input::Verify { site: None }, Crash::No);
    world.run(world.now + DAY, |_| false);
    assert!(world.equal());
    assert!(peer(&world, 1, "s2").links.iter().all(|link| link.verify_at.is_none()));
}

/// A hub that cannot read an entry passes all else on, and that naming context once it was repaired.
#[test]
fn a_hub_that_cannot_read_an_entry_goes_on_once_verify_repaired_it() {
    let knobs = Knobs { sites: 3, topology: Topology::Star, bulk: 60, ..Knobs::calm() };
    let mut world = World::new(1, knobs);
    world.run(world.now + 2 * DAY, |_| false);
    assert!(world.equal());
    (world.traffic.lawless, world.observers.spoiled) = (true, true);
    unreadable(&mut world, 0, "ou=s1,o=Example");
    let blank = World::new(1, Knobs { sites: 3, topology: Topology::Star, ..Knobs::calm() });
    world.sites[2].store = blank.sites[2].store.clone();
    world.sites[2].restart();
    world.observers.restored(2, &world.sites[2]);
    world.input(2, Input::Start, Crash::No);
    world.work(0, 0);
    world.run(world.now + DAY, |_| false);
    assert!(world.observers.holds(2, 0, "ou=s0,o=Example"), "another naming context");
    assert!(!world.observers.holds(2, 1, "ou=s1,o=Example"));
    let told = world.observers.count("Damaged");
    assert!((1..=2).contains(&told), "{told} times");
    world.input(0, Input::Verify { site: Some("s1".into()) }, Crash::No);
    assert!(world.run(world.now + HOUR, |world| world.observers.holds(2, 1, "ou=s1,o=Example")));
}

/// The last entry of what a site holds of a naming context is no entry any more.
fn unreadable(world: &mut World, n: usize, context: &str) {
    let store = &mut world.sites[n].store;
    let number = context_of(store, &Dn::parse(context).unwrap()).unwrap().unwrap().number;
    let mut tx = store.begin();
    let mut last = None;
    let visit = &mut |key: &[u8], _: &[u8]| {
        last = Some(key.to_vec());
        false
    };
    tx.scan_back(Table::Entry, &number.to_be_bytes(), &(number + 1).to_be_bytes(), visit).unwrap();
    tx.put(Table::Entry, &last.unwrap(), b"\xff no entry").unwrap();
    tx.commit();
}

/// A site whose file was taken away by hand is forgotten with all that was under way.
#[test]
fn who_is_not_configured_any_more_leaves_nothing() {
    let mut world = two_equal_sites(|_| {});
    world.knobs.loss = 100;
    world.work(0, 0);
    world.run(world.now + 10_000, |_| false);
    assert!(world.observers.leftovers(&world.sites).is_some(), "the change is on its way");
    world.sites[0].unknown.insert("s1".into());
    world.sites[0].configure();
    world.input(0, Input::Start, Crash::No);
    assert_eq!(world.observers.count("Detached"), 1);
    assert_eq!(world.observers.leftovers(&world.sites), None);
    assert_eq!(Peer::all_sites(&world.sites[0].store).unwrap(), Vec::<String>::new());
    assert_eq!(Peer::all_sites(&world.sites[1].store).unwrap(), ["s0"]);
}

/// On a link in one direction nothing is due for a naming context that is not there any more.
#[test]
fn a_purge_leaves_nothing_due_on_a_link_in_one_direction() {
    let knobs = Knobs { sites: 3, topology: Topology::Star, one_way: true, ..Knobs::calm() };
    let mut world = World::new(1, knobs);
    world.run(world.now + DAY, |_| false);
    assert!(world.observers.holds(2, 1, "ou=s1,o=Example"), "the hub passes it on");
    world.operate(0, Act::Detach { site: 1, purge: true });
    // Longer than until everything is repeated; the world fails where it does not come to rest.
    world.run(world.now + 8 * DAY, |_| false);
}

/// F5: nobody says on such a link what did not arrive.
#[test]
fn mail_that_is_too_large_is_cut_smaller_on_a_link_in_one_direction() {
    let mut world = two_equal_sites(|knobs| (knobs.one_way, knobs.passes_bytes_max) = (true, 50_000));
    world.work(0, 400);
    let there = |world: &World| world.observers.holds(1, 0, "ou=s0,o=Example");
    assert!(world.run(world.now + HOUR, there), "well before everything is repeated");
    assert!(world.observers.events["PartsHalved"] <= 6, "{:?}", world.observers.events);
}

/// F19: nobody says on such a link by which key the site goes.
#[test]
fn keys_are_renewed_on_a_link_in_one_direction() {
    let mut world = two_equal_sites(|knobs| (knobs.one_way, knobs.rolls) = (true, 1));
    for _ in 0..2 {
        world.operate(0, Act::Roll);
        world.work(0, 0);
        assert!(world.run(world.now + HOUR, World::equal), "without anybody's word");
    }
    // However long ago that was: the far side may have heard nothing since.
    world.knobs.loss = 100;
    world.operate(0, Act::Roll);
    world.run(world.now + 60 * DAY, |_| false);
    world.knobs.loss = 0;
    assert!(world.run(world.now + 9 * DAY, World::equal), "the link was cut for two months");
    world.mails.clear();
    world.run(world.now + 8 * DAY, |_| false);
    let mails = world.mails.iter().filter(|(_, to, _)| *to == 1).count();
    assert!(mails <= 42, "{mails} mails in eight days: four heartbeats a day, and hello under four keys");
}
