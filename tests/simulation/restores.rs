//! Stores that are put back to an earlier day, lost, or copied (F9, F10).

use bridgehead::directory::context::contexts;
use bridgehead::directory::{
    Attributes, Change, Dn, Entry, Modification, Operation, Read, Table, Write, lookup,
};
use bridgehead::replication::engine::Input;
use bridgehead::replication::engine::hold::{HoldKind, HoldVerdict, holds};
use bridgehead::replication::engine::quarantine::kept;
use bridgehead::replication::status::{PeerState, status};
use bridgehead::replication::wire::{Message, Request, Standing, VectorItem};

use super::cases::{names, peer, two_equal_sites};
use super::dice::Dice;
use super::knobs::{Knobs, Topology};
use super::site::{Crash, Site};
use super::staff::Act;
use super::world::{Cut, DAY, HOUR, World};

/// Puts a site's store back to what it was.
pub fn restore(world: &mut World, n: usize, backup: &bridgehead::directory::memory::MemoryStore) {
    let workload = world.sites[n].workload.clone();
    world.restore(n, backup.clone(), workload);
}

/// The second site is about to ask the first one for everything.
fn wants_everything(world: &mut World, context: &str) {
    let mut hub = peer(world, 1, "s0");
    let link = hub.link(context);
    (link.ask_full, link.ask_at) = (true, Some(world.now));
    let mut tx = world.sites[1].store.begin();
    tx.put(Table::Peer, b"s0", &hub.encode()).unwrap();
    tx.commit();
    world.sites[1].restart();
    world.input(1, Input::Start, Crash::No);
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
    world.observers.restored(1, &world.sites[1]);
    assert!(!world.equal());
    world.input(1, Input::Start, Crash::No);
    assert!(world.run(world.now + 13 * HOUR, World::equal));
}

/// A site that lost its whole store is filled again.
#[test]
fn an_empty_store_is_filled_again() {
    let mut world = two_equal_sites(|_| ());
    let blank = World::new(1, Knobs::calm());
    world.traffic.lawless = true;
    world.sites[1].store = blank.sites[1].store.clone();
    world.sites[1].restart();
    world.observers.restored(1, &world.sites[1]);
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
        entries > 0 && world.observers.holds(1, 0, "ou=s0,o=Example")
    };
    assert!(world.run(world.now + DAY, full));
}

/// A change waits at the partner for what it is based on, which nobody has any more.
#[test]
fn what_waits_for_a_lost_base_goes_when_its_sender_has_lost_it_too() {
    let mut world = World::new(1, Knobs { commits: 0, ..Knobs::calm() });
    world.run(world.now + HOUR, |_| false);
    let backup = world.sites[0].store.clone();
    world.knobs.loss = 100;
    world.work(0, 0);
    world.run(world.now + 3_000, |_| false);
    world.knobs.loss = 0;
    world.work(0, 0);
    world.run(world.now + 6_000, |_| false);
    assert!(world.observers.leftovers(&world.sites[1..]).is_some(), "the second change waits for the first");
    restore(&mut world, 0, &backup);
    world.run(world.now + 13 * HOUR, |_| false);
    assert_eq!(world.sites[0].own().position.usn, 0);
    assert_eq!(world.observers.leftovers(&world.sites), None);
}

/// A replica holds more than what its master still sends it, and asks for everything, for what came did not fit.
#[test]
fn everything_is_what_there_is_now_and_not_what_was_under_way() {
    let mut world = two_equal_sites(|knobs| (knobs.bulk, knobs.part_bytes_max) = (200, 16 << 10));
    let context = "ou=s0,o=Example";
    let nothing =
        VectorItem { context: context.into(), position: None, digest: None, standing: Standing::Follows };
    let header = world.sites[1].header(world.now, world.now as u64);
    let payload = Message::new(vec![nothing]).encode();
    world.traffic.lawless = true;
    world.knobs.loss = 100;
    world.input(0, Input::Received { from: "s1".into(), header, payload }, Crash::No);
    world.run(world.now + 10_000, |_| false);
    assert!(peer(&world, 0, "s1").link(context).chain[0].parts > 1, "a full load is under way, and lost");
    world.knobs.loss = 0;
    world.work(0, 3);
    assert!(world.run(world.now + 60_000, World::equal));

    // Before it said so.
    wants_everything(&mut world, context);
    let satisfied = |world: &World| !peer(world, 1, "s0").link(context).ask_full;
    assert!(world.run(world.now + DAY, satisfied), "it got everything");
}

/// Whoever asked for everything takes what it holds for nothing until that came, however equal it seems: it asks on.
#[test]
fn everything_is_asked_for_until_it_came() {
    let mut world = two_equal_sites(|_| {});
    let context = "ou=s0,o=Example";
    world.traffic.lawless = true;
    world.knobs.loss = 100;
    let (position, digest) = peer(&world, 1, "s0").link(context).theirs.expect("both are equal");
    wants_everything(&mut world, context);
    world.run(world.now + 10_000, |_| false);
    let asked = world.observers.count("Requested");
    assert!(asked > 0, "and nothing of it arrives");
    let equal = VectorItem {
        context: context.into(),
        position: Some(position),
        digest: Some(digest),
        standing: Standing::Follows,
    };
    let header = world.sites[0].header(world.now, world.now as u64);
    let payload = Message::new(vec![equal]).encode();
    world.input(1, Input::Received { from: "s0".into(), header, payload }, Crash::No);
    world.run(world.now + 2 * DAY, |_| false);
    assert!(world.observers.count("Requested") > asked, "it asks on");
}

/// A master is given what it lost by a site that offers it nothing; what bounces for its size comes in smaller parts
/// without another question.
#[test]
fn what_a_master_asked_for_comes_though_it_was_too_large() {
    let mut world = two_equal_sites(|knobs| knobs.bulk = 800);
    let blank = World::new(1, Knobs::calm()).sites[0].store.clone();
    restore(&mut world, 0, &blank);
    world.knobs.passes_bytes_max = 40_000;
    assert!(world.run(world.now + DAY, |world| world.observers.count("Recovered") > 0));
    assert!(world.observers.count("PartsHalved") > 0, "it bounced");
    assert_eq!(world.observers.count("Requested"), 1);
}

/// A hub that was put back to an earlier day is asked by a site that is ahead of it, and sends what it has.
#[test]
fn a_site_ahead_of_its_hub_gets_what_follows_once_the_hub_knows_more() {
    let mut world = two_equal_sites(|knobs| {
        (knobs.sites, knobs.topology) = (3, Topology::Line);
        // A full load is of several parts.
        (knobs.bulk, knobs.part_bytes_max) = (200, 16 << 10);
    });
    let backup = world.sites[1].store.clone();
    // Another life of the master, which the hub does not know afterwards.
    world.sites[0].restart();
    world.input(0, Input::Start, Crash::No);
    world.work(0, 3);
    assert!(world.run(world.now + HOUR, World::equal));
    let ahead = world.sites[0].own();
    restore(&mut world, 1, &backup);
    world.input(0, Input::Pause { site: "s1".into(), paused: true }, Crash::No);
    let asks = Request {
        context: ahead.dn.to_string(),
        base: Some(ahead.position),
        base_digest: Some(ahead.digest),
        transfer: None,
        missing: Vec::new(),
    };
    let standing = Standing::Follows;
    let held = (Some(ahead.position), Some(ahead.digest));
    let mut message = Message::new(vec![VectorItem {
        context: asks.context.clone(),
        position: held.0,
        digest: held.1,
        standing,
    }]);
    message.requests.push(asks);
    let header = world.sites[2].header(world.now, world.now as u64);
    world.input(1, Input::Received { from: "s2".into(), header, payload: message.encode() }, Crash::No);
    world.input(0, Input::Pause { site: "s1".into(), paused: false }, Crash::No);
    world.work(0, 3);
    assert!(world.run(world.now + DAY, World::equal));
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

/// F9: a second life went on, and partners hold it as far as each heard of it. Its USNs were taken here, too.
#[test]
fn two_points_of_a_second_life_are_merged_and_nothing_of_ours_goes_away() {
    let mut world = two_equal_sites(|knobs| (knobs.sites, knobs.topology) = (3, Topology::Star));
    let backup = world.sites[0].store.clone();
    let pause = |world: &mut World, site: &str, paused: bool| {
        world.input(0, Input::Pause { site: site.into(), paused }, Crash::No);
    };
    world.work(0, 3);
    world.run(world.now + HOUR, |_| false);
    pause(&mut world, "s1", true);
    world.work(0, 3);
    world.run(world.now + HOUR, |_| false);
    let mut all = names(&world, 2);
    assert_ne!(names(&world, 1), all, "s1 heard of its first commit only");

    restore(&mut world, 0, &backup);
    pause(&mut world, "s2", true);
    (0..4).for_each(|_| world.work(0, 2));
    all.extend(names(&world, 0));
    assert!(world.run(world.now + DAY, |world| world.observers.count("Recovered") == 1));
    let before = names(&world, 0);
    assert_ne!(before, all, "what only s2 holds is still missed");
    // Also what the first merge brought.
    let own = world.sites[0].own();
    let site = &mut world.sites[0];
    site.workload.learn(&site.store, &own);
    world.delete_people(0, 100);
    let after = names(&world, 0);
    all.retain(|name| after.contains(name) || !before.contains(name));
    pause(&mut world, "s2", false);
    assert!(world.run(world.now + DAY, |world| world.observers.count("Recovered") == 2));
    assert!(all.len() > after.len());
    assert_eq!(names(&world, 0), all, "what both lives added is there, and what was deleted stays deleted");
}

/// A master that lost its whole store has its naming context back from a partner.
#[test]
fn a_master_with_an_empty_store_gets_its_naming_context_back() {
    let mut world = two_equal_sites(|_| ());
    let before = names(&world, 0);
    let blank = World::new(1, Knobs { bulk: 0, ..Knobs::calm() }).sites[0].store.clone();
    restore(&mut world, 0, &blank);
    assert!(world.run(world.now + DAY, |world| names(world, 0) == before));
    assert!(world.run(world.now + DAY, World::equal));
}

/// Two machines go on from one store, and commit at the same millisecond.
#[test]
fn two_lives_at_one_millisecond_are_two() {
    let mut world = two_equal_sites(|_| ());
    let site = &world.sites[0];
    let mut copy = Site::new(site.config.clone(), site.store.clone(), site.workload.clone(), site.skew);
    world.sites[0].restart();
    let (now, mut dice) = (world.now, Dice::new(1));
    for site in [&mut world.sites[0], &mut copy] {
        site.handle(now, Input::Start, Crash::No);
        site.commit(now, &mut dice, 5, Crash::No).expect("something is new");
    }
    let (one, other) = (world.sites[0].own(), copy.own());
    assert_ne!(one.digest, other.digest);
    assert_eq!(one.position.usn, other.position.usn);
    assert_ne!(one.position.invocation, other.position.invocation);
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
    // It is his to decide, however long he takes.
    let merges = world.observers.count("Recovered");
    for verdict in [HoldVerdict::Waiting, HoldVerdict::Rejected] {
        world.run(world.now + 3 * DAY, |_| false);
        let found = holds(&world.sites[0].store).unwrap();
        assert_eq!((found.len(), found[0].kind, found[0].verdict), (1, HoldKind::Fork, verdict));
        world.input(0, Input::Hold { hold: found[0].id, approve: false }, Crash::No);
    }
    assert_eq!(world.observers.count("Recovered"), merges, "nothing is taken back without his word");
    assert!(!world.equal());
    // The operator ended the other life, and has what it did taken back.
    let hold = holds(&world.sites[0].store).unwrap()[0].id;
    world.input(0, Input::Hold { hold, approve: true }, Crash::No);
    assert!(world.run(world.now + HOUR, World::equal));
    assert_eq!(holds(&world.sites[0].store).unwrap(), []);
}

/// F9: all mail to the site goes to the first of two machines, so that the other one hears nothing and gives up nothing.
#[test]
fn a_copy_that_hears_nothing_is_reported_to_both_sites() {
    let mut world = two_equal_sites(|knobs| knobs.deaf = true);
    world.operate(0, Act::Copy);
    for _ in 0..4 {
        for machine in [0, 2] {
            world.work(machine, 1);
            world.run(world.now + HOUR, |_| false);
        }
    }
    let told = ["Twins", "Noticed"].map(|event| world.observers.count(event));
    assert_eq!(told, [1, 1], "once a day, at the partner and at the first machine");
    let now = jiff::Timestamp::from_millisecond(world.now).unwrap();
    let shown = status(&world.sites[1].store, &world.sites[1].config, now).unwrap();
    assert_eq!(shown.partners[0].state, PeerState::Twice, "{}", shown.partners[0].reason);
    let kept = kept(&world.sites[1].store).unwrap();
    assert!(kept.iter().any(|copy| copy.reason.contains("another way")), "what only the copy has is kept");
    // The copy is stopped, and was all that was wrong.
    world.calm();
    assert!(world.run(world.now + DAY, World::equal));
    world.run(world.now + 2 * DAY, |_| false);
    assert_eq!(world.observers.count("Twins"), 1);
    let now = jiff::Timestamp::from_millisecond(world.now).unwrap();
    let shown = status(&world.sites[1].store, &world.sites[1].config, now).unwrap();
    assert_eq!(shown.partners[0].state, PeerState::Up);
}

/// A store that is put back is one machine, also when it was the wrong backup, and the right one is put back the same day.
#[test]
fn a_master_that_is_put_back_twice_is_not_taken_for_two() {
    let mut world = two_equal_sites(|_| ());
    let wrong = world.sites[0].store.clone();
    for _ in 0..2 {
        world.work(0, 2);
        world.run(world.now + HOUR, |_| false);
        let right = world.sites[0].store.clone();
        // Before it learns from the partner what it lost.
        let (begin, end) = (world.now, world.now + HOUR);
        world.cuts.push(Cut { from: 1, to: 0, begin, end, queues: false });
        restore(&mut world, 0, &wrong);
        world.work(0, 1);
        world.run(world.now + HOUR, |_| false);
        restore(&mut world, 0, &right);
        world.run(world.now + HOUR, |_| false);
    }
    assert!(world.run(world.now + DAY, World::equal));
    assert_eq!(world.observers.count("Twins"), 0);
}

/// The entry of this RDN in `ou=s0,o=Example` at a site.
pub fn entry(world: &World, n: usize, rdn: &str) -> Entry {
    let store = &world.sites[n].store;
    let record = world.sites[0].own();
    let here = contexts(store).unwrap().into_iter().find(|here| here.dn == record.dn).unwrap();
    let name = Dn::parse(&format!("{rdn},{}", record.dn)).unwrap();
    lookup::entry_at(store, &here, &name).unwrap().unwrap_or_else(|| panic!("no {name} at s{n}"))
}

fn add(rdn: &str, pairs: &[(&str, &str)]) -> Change {
    let pairs = pairs.iter().map(|(name, value)| (*name, value.as_bytes().to_vec()));
    let attributes = Attributes::from_pairs(pairs).unwrap();
    Change::Add { dn: Dn::parse(&format!("{rdn},ou=s0,o=Example")).unwrap(), uuid: None, attributes }
}

fn modify(rdn: &str, operation: Operation, attribute: &str, value: &str) -> Change {
    let values = vec![value.as_bytes().to_vec()];
    let modifications = vec![Modification { operation, attribute: attribute.into(), values }];
    Change::Modify { dn: Dn::parse(&format!("{rdn},ou=s0,o=Example")).unwrap(), modifications }
}

/// F9, F14: what was lost and what was done since concern the same entries.
#[test]
fn what_a_restored_master_lost_of_entries_that_were_touched_since_comes_back() {
    use Operation::{Add, Delete, Replace};
    let mut world = two_equal_sites(|_| ());
    let members: Vec<String> = (0..60).map(|n| format!("cn=Member {n}")).collect();
    let mut group = vec![("objectClass", "groupOfNames"), ("cn", "all")];
    group.extend(members.iter().map(|member| ("member", member.as_str())));
    let person = |name| add(&format!("cn={name}"), &[("objectClass", "person"), ("cn", name), ("sn", "X")]);
    world.change(0, &[add("cn=all", &group), person("Ada"), person("Bob"), person("Eve"), person("Joe")]);
    assert!(world.run(world.now + HOUR, World::equal));
    let backup = world.sites[0].store.clone();
    world.change(
        0,
        &[
            modify("cn=Ada", Replace, "telephoneNumber", "1"),
            modify("cn=all", Add, "member", "cn=Lost"),
            modify("cn=all", Delete, "member", "cn=Member 7"),
            modify("cn=Joe", Replace, "title", "lost"),
            Change::Delete { dn: Dn::parse("cn=Bob,ou=s0,o=Example").unwrap() },
            Change::Delete { dn: Dn::parse("cn=Eve,ou=s0,o=Example").unwrap() },
        ],
    );
    assert!(world.run(world.now + HOUR, World::equal));
    restore(&mut world, 0, &backup);
    world.change(
        0,
        &[
            modify("cn=Ada", Replace, "title", "new"),
            modify("cn=all", Add, "member", "cn=New"),
            modify("cn=Joe", Replace, "title", "new"),
            modify("cn=Bob", Replace, "title", "new"),
        ],
    );
    assert!(world.run(world.now + 13 * HOUR, World::equal));
    assert_eq!(world.observers.count("Recovered"), 1);
    for n in 0..2 {
        let ada = entry(&world, n, "cn=Ada").attributes;
        assert_eq!((ada.text("title"), ada.text("telephoneNumber")), (Some("new"), Some("1")));
        let group = entry(&world, n, "cn=all").attributes;
        let has = |member: &str| group.values("member").contains(&member.as_bytes().to_vec());
        assert!(has("cn=New") && has("cn=Lost") && !has("cn=Member 7") && has("cn=Member 8"));
        assert_eq!(entry(&world, n, "cn=Joe").attributes.text("title"), Some("new"));
        assert_eq!(entry(&world, n, "cn=Bob").attributes.text("title"), Some("new"));
        assert!(!names(&world, n).contains("cn=Eve"), "nobody touched it: the deletion is taken back");
    }
    let said = |dn: &str, reason: &str| {
        let line = format!("dn: \"{dn},ou=s0,o=Example\", reason: \"{reason}");
        world.trace.iter().any(|said| said.contains("Conflict ") && said.contains(&line))
    };
    assert!(said("cn=Joe", "changed here: title") && said("cn=Bob", "changed here, deleted there"));
    // It says so too where only this life has a title, for the log does not know what was there.
    assert!(said("cn=Ada", "changed here: title\"") && !said("cn=all", ""));
}

/// F9: the operator imports what was lost, before a partner answers. All names are taken, by entries with other entryUUIDs.
#[test]
fn an_import_that_was_repeated_after_a_restore_stops_nothing() {
    let mut world = two_equal_sites(|_| ());
    let backup = world.sites[0].store.clone();
    let person = |n: u32| {
        let name = format!("Imported {n}");
        add(&format!("cn={name}"), &[("objectClass", "person"), ("cn", &name), ("sn", "X")])
    };
    let import: Vec<Change> = (0..150).map(person).collect();
    world.change(0, &import);
    world.change(0, &[person(777)]);
    assert!(world.run(world.now + HOUR, World::equal));
    restore(&mut world, 0, &backup);
    world.change(0, &import);
    let imported = entry(&world, 0, "cn=Imported 3").uuid;
    assert!(world.run(world.now + 13 * HOUR, World::equal), "the naming context goes on");
    assert_eq!(world.observers.count("Recovered"), 1);
    assert_eq!((world.observers.count("Conflict"), world.observers.count("Conflicts")), (20, 1));
    for n in 0..2 {
        assert_eq!(entry(&world, n, "cn=Imported 3").uuid, imported);
        entry(&world, n, "cn=Imported 777");
    }
    world.change(0, &[modify("cn=Imported 3", Operation::Replace, "title", "later")]);
    assert!(world.run(world.now + HOUR, World::equal));
}

/// Both lives did the same, in one commit here and in two there: nothing changes, and where that leads is a point of our history.
#[test]
fn a_merge_that_changes_nothing_is_on_record() {
    let mut world = two_equal_sites(|_| ());
    world.change(0, &[add("cn=Ada", &[("objectClass", "person"), ("cn", "Ada"), ("sn", "X")])]);
    assert!(world.run(world.now + HOUR, World::equal));
    let backup = world.sites[0].store.clone();
    let title = |title| [modify("cn=Ada", Operation::Replace, "title", title)];
    for said in ["Clerk", "Judge", "Chancellor"] {
        world.change(0, &title(said));
    }
    assert!(world.run(world.now + HOUR, World::equal));
    restore(&mut world, 0, &backup);
    world.change(0, &title("Chancellor"));
    assert!(world.run(world.now + 13 * HOUR, World::equal));
    world.run(world.now + DAY, |_| false);
    assert_eq!((world.observers.count("Recovered"), world.observers.count("Lost")), (1, 1));
    world.sites[0].restart();
    world.input(0, Input::Start, Crash::No);
    world.change(0, &title("Emperor"));
    assert!(world.run(world.now + HOUR, World::equal));
    assert_eq!(world.observers.count("Lost"), 1, "the partner stands on our history");
}

/// Mail takes up to three days, and a heartbeat leaves every six hours: nearly each question is overtaken by what left later.
#[test]
fn what_a_master_lost_comes_back_though_each_question_is_overtaken() {
    for seed in 0..20 {
        let mut world = World::new(seed, Knobs::calm());
        world.work(0, 1);
        assert!(world.run(world.now + HOUR, World::equal));
        let backup = world.sites[0].store.clone();
        world.work(0, 5);
        assert!(world.run(world.now + HOUR, World::equal));
        world.knobs.delay = (HOUR, 3 * DAY);
        restore(&mut world, 0, &backup);
        world.work(0, 1);
        assert!(world.run(world.now + 10 * DAY, World::equal), "seed {seed}");
    }
}

/// Each partner had got a little further than the one that is heard before it, and people go on working: that is one restore,
/// and no fork.
#[test]
fn partners_that_hold_more_and_more_are_no_second_life() {
    let mut world = two_equal_sites(|knobs| (knobs.sites, knobs.topology) = (7, Topology::Star));
    world.work(0, 1);
    world.run(world.now + HOUR, |_| false);
    let backup = world.sites[0].store.clone();
    for n in 1..7 {
        world.work(0, 2);
        assert!(world.run(world.now + HOUR, World::equal) || n > 1);
        world.run(world.now + HOUR, |_| false);
        world.input(0, Input::Pause { site: format!("s{n}"), paused: true }, Crash::No);
    }
    let all = names(&world, 6);
    let begin = world.now;
    let after = |hours: usize| begin + hours as i64 * HOUR;
    world.cuts.extend((1..7).map(|n| Cut { from: n, to: 0, begin, end: after(n), queues: true }));
    restore(&mut world, 0, &backup);
    world.work(0, 1);
    assert!(world.run(world.now + DAY, World::equal), "{:?}", world.observers.events);
    assert_eq!(world.observers.count("Forked"), 0);
    assert!(names(&world, 0).is_superset(&all));
}

/// One partner had got further than the other before the restore. Whoever is heard first, what became of an entry last counts.
#[test]
fn a_partner_that_had_got_less_far_undoes_nothing() {
    let title = |value: &str| modify("cn=Ada", Operation::Replace, "title", value);
    let person =
        |name: &str| add(&format!("cn={name}"), &[("objectClass", "person"), ("cn", name), ("sn", "X")]);
    for first in [1, 2] {
        let mut world = two_equal_sites(|knobs| (knobs.sites, knobs.topology) = (3, Topology::Star));
        world.change(0, &[person("Ada")]);
        assert!(world.run(world.now + HOUR, World::equal));
        let backup = world.sites[0].store.clone();
        world.change(0, &[title("one"), person("Bob")]);
        world.run(world.now + HOUR, |_| false);
        world.input(0, Input::Pause { site: "s1".into(), paused: true }, Crash::No);
        let bob = Dn::parse("cn=Bob,ou=s0,o=Example").unwrap();
        world.change(0, &[title("two"), Change::Delete { dn: bob }]);
        world.run(world.now + HOUR, |_| false);
        let (begin, end) = (world.now, world.now + HOUR);
        world.cuts.push(Cut { from: 3 - first, to: 0, begin, end, queues: true });
        restore(&mut world, 0, &backup);
        world.change(0, &[person("Eve")]);
        assert!(world.run(world.now + DAY, World::equal));
        let merges = if first == 1 { 2 } else { 1 };
        assert_eq!((world.observers.count("Recovered"), world.observers.count("Conflict")), (merges, 0));
        for n in 0..3 {
            assert_eq!(entry(&world, n, "cn=Ada").attributes.text("title"), Some("two"), "s{first} first");
            let names = names(&world, n);
            assert!(names.contains("cn=Eve") && !names.contains("cn=Bob"), "s{first} first: {names:?}");
        }
    }
}

/// What was lost is typed in again after the restore, so the first merge changes nothing and takes no USN. What stands at
/// that USN was done here, whatever the other partner brings.
#[test]
fn a_merge_that_changes_nothing_is_not_taken_for_what_was_done_here() {
    let mut world = two_equal_sites(|knobs| (knobs.sites, knobs.topology) = (3, Topology::Star));
    let person =
        |name: &str| add(&format!("cn={name}"), &[("objectClass", "person"), ("cn", name), ("sn", "X")]);
    let backup = world.sites[0].store.clone();
    world.change(0, &[person("Ada")]);
    world.run(world.now + HOUR, |_| false);
    world.input(0, Input::Pause { site: "s1".into(), paused: true }, Crash::No);
    world.change(0, &[person("Bob")]);
    world.run(world.now + HOUR, |_| false);
    let (begin, end) = (world.now, world.now + HOUR);
    world.cuts.push(Cut { from: 2, to: 0, begin, end, queues: true });
    restore(&mut world, 0, &backup);
    world.change(0, &[person("Ada")]);
    let again = entry(&world, 0, "cn=Ada").uuid;
    assert!(world.run(world.now + DAY, World::equal));
    assert_eq!((world.observers.count("Recovered"), world.observers.count("Conflict")), (2, 2));
    assert_eq!(entry(&world, 2, "cn=Ada").uuid, again);
    entry(&world, 1, "cn=Bob");
}

/// Who held what we lost is no partner any more before it could be asked.
#[test]
fn what_nobody_holds_any_more_is_not_waited_for() {
    let mut world = two_equal_sites(|_| ());
    let backup = world.sites[0].store.clone();
    world.work(0, 5);
    assert!(world.run(world.now + HOUR, World::equal));
    restore(&mut world, 0, &backup);
    let recovers = |world: &World| {
        let now = jiff::Timestamp::from_millisecond(world.now).unwrap();
        let said = status(&world.sites[0].store, &world.sites[0].config, now).unwrap();
        said.contexts.iter().any(|context| context.standing == "recovering")
    };
    assert!(world.run(world.now + 13 * HOUR, recovers), "the partner shows what we lost");
    world.input(0, Input::Detach { site: "s1".into(), dry_run: false }, Crash::No);
    world.input(0, Input::Tick, Crash::No);
    assert!(!recovers(&world));
}

/// The store was put back for the sake of what a script deleted; people go on working before a partner answers, or do not.
#[test]
fn a_mass_deletion_that_was_undone_by_a_restore_does_not_come_back() {
    undo_a_mass_deletion(&[777]);
    undo_a_mass_deletion(&[]);
}

fn undo_a_mass_deletion(since: &[u32]) {
    let mut world = two_equal_sites(|knobs| knobs.delete_percent_max = 20);
    let person = |n: u32| {
        let name = format!("Person {n}");
        add(&format!("cn={name}"), &[("objectClass", "person"), ("cn", &name), ("sn", "X")])
    };
    world.change(0, &(0..100).map(person).collect::<Vec<_>>());
    assert!(world.run(world.now + HOUR, World::equal));
    let backup = world.sites[0].store.clone();
    let delete =
        |n: u32| Change::Delete { dn: Dn::parse(&format!("cn=Person {n},ou=s0,o=Example")).unwrap() };
    world.change(0, &(0..60).map(delete).chain([person(600)]).collect::<Vec<_>>());
    assert!(world.run(world.now + HOUR, |world| world.observers.count("Held") == 1));
    let id = holds(&world.sites[1].store).unwrap()[0].id;
    world.input(1, Input::Hold { hold: id, approve: true }, Crash::No);
    assert!(world.run(world.now + HOUR, World::equal));
    restore(&mut world, 0, &backup);
    if !since.is_empty() {
        world.change(0, &since.iter().map(|&n| person(n)).collect::<Vec<_>>());
    }
    assert!(world.run(world.now + 13 * HOUR, World::equal));
    assert_eq!((world.observers.count("Recovered"), world.observers.count("Conflicts")), (1, 1));
    assert!(holds(&world.sites[0].store).unwrap().is_empty());
    for n in 0..2 {
        let names = names(&world, n);
        assert!(
            (0..100)
                .chain([600])
                .chain(since.iter().copied())
                .all(|n| names.contains(&format!("cn=Person {n}")))
        );
    }
}

/// Both partners hold more than the restored master, the second more than the first; the first question to it gets lost.
#[test]
fn what_another_partner_holds_is_asked_for_on() {
    let mut world = two_equal_sites(|knobs| (knobs.sites, knobs.topology) = (3, Topology::Star));
    let backup = world.sites[0].store.clone();
    world.work(0, 3);
    world.run(world.now + HOUR, |_| false);
    world.input(0, Input::Pause { site: "s1".into(), paused: true }, Crash::No);
    world.work(0, 3);
    world.run(world.now + HOUR, |_| false);
    let all = names(&world, 2);
    assert_ne!(names(&world, 1), all);
    restore(&mut world, 0, &backup);
    // Behind its hello.
    let (begin, end) = (world.now + 1, world.now + 60_000);
    world.cuts.push(Cut { from: 0, to: 2, begin, end, queues: false });
    assert!(world.run(world.now + HOUR, |world| names(world, 0) == all), "without a heartbeat");
    assert_eq!(world.observers.count("Lost"), 2);
    assert!(world.run(world.now + HOUR, World::equal));
}
