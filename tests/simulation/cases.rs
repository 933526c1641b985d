//! Single situations, by name. F-numbers are those of the failure catalogue of mail-based replication.

use std::cmp::Reverse;

use bridgehead::replication::engine::{Header, Input, Outcome, Refusal, Timing};
use bridgehead::replication::peer::{Link, Peer};
use bridgehead::replication::wire::{Message, Standing, VectorItem};

use super::finish;
use super::knobs::{Knobs, Topology};
use super::site::Crash;
use super::staff::Act;
use super::world::{DAY, HOUR, Happening, World};

/// Two sites that are equal and have nothing to say.
pub fn two_equal_sites(change: impl Fn(&mut Knobs)) -> World {
    let mut knobs = Knobs::calm();
    change(&mut knobs);
    let mut world = World::new(1, knobs);
    finish(&mut world);
    world.mails.clear();
    world
}

pub fn peer(world: &World, n: usize, site: &str) -> Peer {
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

/// Two hubs stand between the ends of the line, and the second one is new to the naming context as well.
#[test]
fn the_first_change_of_a_naming_context_crosses_hubs_at_once() {
    let line = Knobs { sites: 4, topology: Topology::Line, commits: 0, ..Knobs::calm() };
    let batching = Timing::default().batching.as_millis() as i64;
    let on_the_way = 3 * (batching + line.delay.1);
    let mut world = World::new(3, line);
    world.run(world.now + DAY, |_| false);
    assert_eq!(world.sites[0].own().position.usn, 0, "nothing in it so far");
    world.mails.clear();
    world.work(0, 0);
    assert_eq!(world.sites[0].own().position.usn, 1);
    assert!(world.run(world.now + on_the_way, World::equal), "equal without a heartbeat");
    let changes = world.mails.iter().filter(|(_, _, more)| *more);
    assert_eq!(changes.copied().collect::<Vec<_>>(), [(0, 1, true), (1, 2, true), (2, 3, true)]);
}

/// Every way leads in a circle: what comes a second time goes no further.
#[test]
fn a_change_crosses_each_link_of_a_circle_once_and_comes_to_rest() {
    for sites in [3, 5] {
        let mut world = two_equal_sites(|knobs| (knobs.sites, knobs.circles) = (sites, true));
        world.run(world.now + DAY, |_| false);
        for n in 0..2 {
            world.mails.clear();
            world.work(n, 0);
            assert!(world.run(world.now + HOUR, World::equal));
            world.run(world.now + HOUR, |_| false);
            let mut changes: Vec<_> = world.mails.iter().filter(|(_, _, more)| *more).collect();
            let carried = changes.len();
            println!("{sites} sites: {carried} mails with the change of {}", world.mails.len());
            changes.sort();
            changes.dedup();
            assert_eq!(changes.len(), carried, "over no link twice");
            assert!(world.mails.len() <= 2 * sites * (sites - 1), "{} mails", world.mails.len());
        }
    }
}

/// Whatever was held before goes by the new name, also behind a hub.
#[test]
fn who_holds_something_of_a_renamed_site_takes_it_for_the_master() {
    for n in 0..3 {
        let mut world = two_equal_sites(|knobs| (knobs.sites, knobs.topology) = (3, Topology::Star));
        world.rename(n);
        for m in (0..3).filter(|m| *m != n) {
            world.plan(world.now + HOUR, Happening::Operate(m, Act::Know(n)));
        }
        world.run(world.now + DAY, |_| false);
        world.work(n, 0);
        finish(&mut world);
    }
}

/// A hub that fell behind its master's log; the site behind it stands where the hub stood.
#[test]
fn a_full_load_that_a_hub_takes_goes_on_as_one_and_what_follows_as_increments() {
    let line = Knobs { sites: 3, topology: Topology::Line, commits: 0, ..Knobs::calm() };
    let mut world = World::new(3, line);
    // With so short a log the full loads of its master are due, which the observers do not know.
    world.traffic.lawless = true;
    world.sites[0].whole.timing.log_commits_max = 4;
    world.sites[0].configure();
    world.input(0, Input::Start, Crash::No);
    world.work(0, 0);
    assert!(world.run(world.now + DAY, World::equal));
    world.run(world.now + HOUR, |_| false);
    let carried = |world: &mut World, commits: usize| {
        world.input(0, Input::Pause { site: "s1".into(), paused: true }, Crash::No);
        (0..commits).for_each(|_| world.work(0, 0));
        world.trace.clear();
        world.input(0, Input::Pause { site: "s1".into(), paused: false }, Crash::No);
        assert!(world.run(world.now + DAY, World::equal));
        let parts = world.trace.iter().filter(|line| line.contains(" part 0/1 "));
        parts.map(|line| line.contains(" nothing->")).collect::<Vec<bool>>()
    };
    assert_eq!(carried(&mut world, 20), [true, true], "over both links everything");
    assert_eq!(carried(&mut world, 1), [false, false], "and then what changes");
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
    let mut world = World::new(2, Knobs::calm());
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
    let mut knobs = Knobs::calm();
    knobs.loss = 100;
    let mut world = World::new(2, knobs);
    world.run(world.now + 30 * DAY, |_| false);
    // The observers check that they are hellos.
    assert!((10..60).contains(&world.mails.len()), "{} hellos in a month", world.mails.len());
}

/// Whoever is installed first finds that the mail system of the other, or his own, is not there yet.
#[test]
fn a_hello_that_the_next_hop_refuses_is_repeated_soon() {
    let mut world = World::new(2, Knobs { commits: 0, refuse: 100, ..Knobs::calm() });
    world.refusal = Some(421);
    let begun = world.now;
    world.run(begun + 120_000, |_| false);
    // At once, then after 5, 5, 10, 20, 40 s and so on.
    assert!((10..=16).contains(&world.mails.len()), "{} tries of two sites", world.mails.len());
    world.knobs.refuse = 0;
    let met = |world: &World| world.observers.count("SiteUp") == 2;
    assert!(world.run(world.now + 130_000, met), "as long again at most");
}

#[test]
fn an_answer_that_the_next_hop_refuses_is_repeated_soon() {
    let mut world = World::new(2, Knobs { commits: 0, ..Knobs::calm() });
    world.queue.clear();
    world.input(0, Input::Sync { site: None }, Crash::No);
    (world.knobs.refuse, world.refusal) = (100, Some(450));
    world.run(world.now + 20_000, |_| false);
    assert_eq!(world.observers.count("SiteUp"), 1, "the hello was on its way already");
    world.knobs.refuse = 0;
    assert!(world.run(world.now + 30_000, |world| world.observers.count("SiteUp") == 2));
}

/// What is refused for long is tried as seldom as what is lost.
#[test]
fn a_hello_that_is_refused_for_a_month_makes_no_storm() {
    let mut world = World::new(2, Knobs { refuse: 100, ..Knobs::calm() });
    world.refusal = Some(421);
    world.run(world.now + 30 * DAY, |_| false);
    assert!((20..90).contains(&world.mails.len()), "{} tries in a month", world.mails.len());
}

/// F1: a queue full of repeated messages drains in linear time and makes no new ones.
#[test]
fn ten_thousand_queued_duplicates_are_harmless() {
    let (some, many) = (work_of_duplicates(1_000), work_of_duplicates(10_000));
    assert!(many < 12 * some, "{} times the work for ten times the mail", many / some);
}

/// What the store had to do for so many. A count, for how long it takes is up to the machine.
fn work_of_duplicates(count: u64) -> u64 {
    let mut world = two_equal_sites(|knobs| knobs.bulk = 100);
    let before = peer(&world, 0, "s1").sent_seq;
    world.work(0, 0);
    world.run(world.now + 3_000, |_| false);
    let letter = last_letter(&world).expect("the change is on the way");
    assert!(letter.0.seq > before);
    let posted = world.mails.len();
    let done = world.sites[1].work;
    for n in 0..count {
        // The same message again and again, then the same content under new numbers.
        let seq = if n < count / 2 { letter.0.seq } else { letter.0.seq + n };
        let header = Header { seq, time: letter.0.time, message_id: None };
        let input = Input::Received { from: "s0".into(), header, payload: letter.1.clone() };
        world.input(1, input, Crash::No);
    }
    let work = world.sites[1].work - done;
    world.run(world.now + HOUR, |_| false);
    assert!(world.equal());
    assert!(world.mails.len() - posted < 5, "{} messages", world.mails.len() - posted);
    work
}

/// F1: ten thousand questions get one answer.
#[test]
fn repeated_requests_coalesce() {
    let mut world = two_equal_sites(|knobs| knobs.bulk = 200);
    world.work(0, 50);
    world.knobs.loss = 100;
    world.run(world.now + 60_000, |_| false);
    world.knobs.loss = 0;
    let vector = vector_of(&world, 1, "s0");
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
        let header = Header { seq, time: world.sites[1].clock(world.now), message_id: None };
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

/// The next heartbeat would show what is missing, too, hours later.
#[test]
fn a_change_that_got_lost_is_sent_again_before_the_next_heartbeat() {
    let mut world = two_equal_sites(|_| ());
    world.work(0, 0);
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + 60_000, |_| false);
    world.knobs.loss = 100;
    world.work(0, 0);
    world.run(world.now + 10_000, |_| false);
    assert!(!world.equal());
    world.knobs.loss = 0;
    assert!(world.run(world.now + 10 * 60_000, World::equal), "nobody sent it again");
}

#[test]
fn a_change_that_nobody_acknowledges_makes_no_storm() {
    let mut world = two_equal_sites(|_| ());
    world.knobs.loss = 100;
    world.work(0, 0);
    world.run(world.now + 3 * DAY, |_| false);
    assert!((20..60).contains(&world.mails.len()), "{} messages of both", world.mails.len());
}

/// Its own word shows that an increment would not begin with what it holds.
#[test]
fn a_site_that_holds_something_else_gets_everything_at_once() {
    let mut world = two_equal_sites(|knobs| knobs.bulk = 20);
    world.spoil(1, "ou=s0,o=Example");
    world.input(1, Input::Sync { site: None }, Crash::No);
    world.run(world.now + HOUR, |_| false);
    world.work(0, 0);
    assert!(world.run(world.now + HOUR, World::equal));
    assert_eq!(world.observers.count("NotApplied"), 0, "an increment in vain");
}

/// A sender that waited too briefly says again, under another number, what was applied meanwhile. Without part 0 nobody
/// can tell by the part alone; it would be kept until the next vector, and the rest of it asked for.
#[test]
fn a_part_that_comes_once_more_after_its_transfer_was_applied_is_not_kept() {
    let mut world = two_equal_sites(|knobs| knobs.part_bytes_max = 16 << 10);
    world.work(0, 400);
    world.run(world.now + 3_000, |_| false);
    let (header, payload) = last_letter(&world).expect("the last parts are on the way");
    let message = Message::decode(&payload).unwrap();
    assert!(message.parts.iter().all(|item| item.part.index > 0) && !message.parts.is_empty());
    assert!(world.run(world.now + DAY, World::equal));
    world.run(world.now + DAY, |_| false);
    // Overtaken by the last heartbeat: its vector does not count.
    let seq = peer(&world, 1, "s0").window.highest().unwrap() - 1;
    let input = Input::Received { from: "s0".into(), header: Header { seq, ..header }, payload };
    assert_eq!(world.input(1, input, Crash::No), Some(Outcome::Taken));
    assert_eq!(world.observers.leftovers(&world.sites), None, "it is kept");
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
    let header = Header { seq: 1, time: world.sites[0].clock(world.now), message_id: None };
    let mut refusal = |from: &str, payload: Vec<u8>| {
        let input = Input::Received { from: from.into(), header: header.clone(), payload };
        let site = &mut world.sites[0];
        site.handle(world.now, input, Crash::No).outcome
    };
    let stranger = refusal("s9", Message::new(Vec::new()).encode());
    assert_eq!(stranger, Some(Outcome::Refused(Refusal::NotAPartner { site: "s9".into() })));
    let noise = refusal("s1", b"not a message".to_vec());
    assert!(matches!(noise, Some(Outcome::Refused(Refusal::Malformed { .. }))), "{noise:?}");
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
pub fn names(world: &World, n: usize) -> std::collections::BTreeSet<String> {
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

/// What is planned to arrive last: its header and its payload.
fn last_letter(world: &World) -> Option<(Header, Vec<u8>)> {
    let letters = world.queue.iter().filter_map(|Reverse(planned)| match &planned.2 {
        Happening::Deliver(letter) => Some((planned.0, letter)),
        _ => None,
    });
    let (_, letter) = letters.max_by_key(|(at, _)| *at)?;
    Some((letter.header.clone(), letter.payload.to_vec()))
}

/// What the site would say of itself to another.
fn vector_of(world: &World, n: usize, to: &str) -> Vec<VectorItem> {
    let peer = Peer::load(&world.sites[n].store, to).unwrap().unwrap_or_default();
    let all = bridgehead::directory::context::contexts(&world.sites[n].store).unwrap();
    let item = |link: &Link| {
        let own = all.iter().find(|record| record.dn.to_string() == link.context);
        let own = own.filter(|record| record.position.usn > 0);
        VectorItem {
            context: link.context.clone(),
            position: own.map(|record| record.position),
            digest: own.map(|record| record.digest),
            standing: Standing::Follows,
        }
    };
    peer.links.iter().map(item).collect()
}
