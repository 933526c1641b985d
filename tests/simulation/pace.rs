//! How mail leaves: what goes together, what goes first, how much at a time, how often.
//!
//! PROMISES
//!   Commits that follow one another closely leave as one. What is small does not wait behind what is
//!   large. Of a load nothing goes again that arrived, whoever begins anew meanwhile. No more is on its
//!   way than the window takes, and nothing leaves more often than the schedule says.
//!   A value of any size arrives, however many parts it takes and get lost.

use std::collections::{BTreeMap, BTreeSet};

use bridgehead::directory::{Attributes, Change, Dn};
use bridgehead::replication::engine::{Input, Timing};
use bridgehead::replication::parts::Assembly;
use bridgehead::replication::wire::{Message, RANGES_MAX};

use super::cases::two_equal_sites;
use super::dice::Dice;
use super::knobs::{Knobs, Topology};
use super::restores::entry;
use super::site::Crash;
use super::world::{DAY, HOUR, Happening, Letter, World};

/// The smallest parts that there are.
const PART: u64 = 16 << 10;

/// A new process with the configuration as it is now.
fn begin_anew(world: &mut World, n: usize) {
    world.sites[n].configure();
    world.input(n, Input::Start, Crash::No);
}

/// What is on its way.
fn letters(world: &World) -> impl Iterator<Item = &Letter> {
    world.queue.iter().filter_map(|planned| match &planned.0.2 {
        Happening::Deliver(letter) => Some(letter),
        _ => None,
    })
}

fn add(rdn: &str, attribute: &str, value: Vec<u8>) -> Change {
    let pairs = [("objectClass", b"device".to_vec()), (attribute, value)];
    let attributes = Attributes::from_pairs(pairs).unwrap();
    Change::Add { dn: Dn::parse(&format!("{rdn},ou=s0,o=Example")).unwrap(), uuid: None, attributes }
}

#[test]
fn commits_that_follow_closely_leave_together_once_the_first_has_waited() {
    let mut world = two_equal_sites(|_| ());
    world.posted_at.clear();
    world.parts_posted = (0, 0);
    let (begun, usn) = (world.now, world.sites[0].own().position.usn);
    world.change(0, &[add("cn=one", "cn", b"one".to_vec())]);
    world.run(begun + 500, |_| false);
    world.change(0, &[add("cn=two", "cn", b"two".to_vec())]);
    assert_eq!(world.sites[0].own().position.usn, usn + 2);
    assert!(world.run(begun + HOUR, World::equal));
    world.run(begun + HOUR, |_| false);
    assert_eq!(world.mails, [(0, 1, true), (1, 0, false)]);
    assert_eq!(world.parts_posted, (1, 0), "one transfer over both");
    let batching = Timing::default().batching.as_millis() as i64;
    assert_eq!(world.posted_at[0] - begun, batching, "neither sooner nor put off by the second");
}

/// Whichever of the two naming contexts comes first in the hub's vector.
#[test]
fn what_is_small_leaves_before_the_rest_of_what_is_large() {
    for (bulk, small) in [(0, 1), (1, 0)] {
        let line = Knobs { sites: 3, topology: Topology::Line, commits: 0, ..Knobs::calm() };
        let mut world = World::new(3, Knobs { part_bytes_max: PART, ..line });
        (0..3).for_each(|n| world.work(n, 1));
        assert!(world.run(world.now + HOUR, World::equal));
        let partners = &mut world.sites[1].whole.partners;
        partners.iter_mut().for_each(|partner| {
            partner.day_bytes_max = (partner.site == "s2").then_some(60_000);
        });
        begin_anew(&mut world, 1);
        world.run(world.now + HOUR, |_| false);

        world.parts.clear();
        world.work(bulk, 300);
        world.run(world.now + HOUR, |_| false);
        assert!(world.parts.iter().any(|part| part.to == 2), "some of the load left before");
        world.parts.clear();
        world.work(small, 1);
        world.run(world.now + DAY, |_| false);
        let passed: Vec<&str> = world
            .parts
            .iter()
            .filter(|part| (part.from, part.to) == (1, 2))
            .map(|part| part.context.as_str())
            .collect();
        let (bulk, small) = (format!("ou=s{bulk},o=Example"), format!("ou=s{small},o=Example"));
        assert!(!world.equal() && passed.len() > 1, "some of the rest goes the next day: {passed:?}");
        assert_eq!(passed[0], small, "{passed:?}");
        assert!(passed[1..].iter().all(|context| *context == bulk), "{passed:?}");
        assert!(world.run(world.now + 10 * DAY, World::equal));
    }
}

/// Parts that the second site lacks of the one transfer that has begun to arrive.
fn lacking(world: &World) -> BTreeSet<u32> {
    let begun = Assembly::all_from(&world.sites[1].store, "s0").unwrap();
    assert_eq!(begun.len(), 1, "one transfer");
    begun[0].missing(RANGES_MAX).into_iter().flatten().collect()
}

/// Some parts are lost and some late when both sides stop.
#[test]
fn a_load_goes_on_where_it_was_when_both_sides_begin_anew() {
    let mut world = two_equal_sites(|knobs| knobs.part_bytes_max = PART);
    let encoded = world.observers.count("TransferSent");
    world.parts.clear();
    world.work(0, 600);
    world.knobs.loss = 30;
    world.run(world.now + 4_000, |_| false);
    world.knobs.loss = 0;
    let all: BTreeSet<u32> = world.parts.iter().map(|part| part.index).collect();
    let transfer = world.parts[0].transfer;
    let late: BTreeSet<u32> = letters(&world)
        .flat_map(|letter| Message::decode(&letter.payload).unwrap().parts)
        .map(|item| item.part.index)
        .collect();
    let lacking = lacking(&world);
    let lost: Vec<u32> = lacking.difference(&late).copied().collect();
    assert!(all.len() > 20 && lacking.len() < all.len(), "{} of {}", lacking.len(), all.len());
    assert!(lost.len() > 3 && late.len() > 3, "lost {lost:?}, late {late:?}");

    world.parts.clear();
    (0..2).for_each(|n| begin_anew(&mut world, n));
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    assert!(world.parts.iter().all(|part| part.transfer == transfer), "another transfer");
    let again: Vec<u32> = world.parts.iter().map(|part| part.index).collect();
    assert_eq!(again, lost, "what was lost, once");
    assert_eq!(world.observers.count("TransferSent"), encoded + 1, "nothing is encoded anew");
}

/// Octets of one transfer that left and of which its sender was not told, by the mail between both.
#[derive(Default)]
struct Unacknowledged {
    /// What questions on their way say is missing.
    asked: BTreeMap<u64, Vec<(u32, u32)>>,
    told: BTreeSet<u32>,
    most: usize,
}

impl Unacknowledged {
    fn look(&mut self, world: &World) {
        let mut asked = BTreeMap::new();
        for letter in letters(world).filter(|letter| letter.from == 1) {
            let requests = Message::decode(&letter.payload).unwrap().requests;
            let missing = requests.into_iter().find(|request| request.transfer.is_some());
            asked.extend(missing.map(|request| (letter.mail, request.missing)));
        }
        let sent: BTreeMap<u32, usize> = world.parts.iter().map(|part| (part.index, part.bytes)).collect();
        for (mail, missing) in std::mem::replace(&mut self.asked, asked) {
            let is_missing =
                |index: &u32| missing.iter().any(|(first, last)| (first..=last).contains(&index));
            // It was taken, for it is not on its way any more.
            if !self.asked.contains_key(&mail) {
                self.told.extend(sent.keys().filter(|index| !is_missing(index)));
            }
        }
        let open = sent.iter().filter(|(index, _)| !self.told.contains(index));
        self.most = self.most.max(open.map(|(_, bytes)| bytes).sum());
    }
}

/// Of the first site.
const WINDOW: u64 = 64 << 10;

/// Two equal sites, and nothing on its way.
fn two_with_a_window() -> World {
    let mut world = two_equal_sites(|knobs| knobs.part_bytes_max = PART);
    world.sites[0].whole.timing.window_bytes = WINDOW;
    begin_anew(&mut world, 0);
    world.run(world.now + HOUR, |_| false);
    world.parts.clear();
    world
}

#[test]
fn no_more_is_under_way_than_the_window_takes() {
    let mut world = two_with_a_window();
    world.work(0, 600);
    let mut open = Unacknowledged::default();
    assert!(world.run(world.now + HOUR, |world| {
        open.look(world);
        world.equal()
    }));
    let (most, parts) = (open.most as u64, world.parts.len());
    assert!(most >= WINDOW, "the window is made use of: {most} octets");
    assert!(most <= WINDOW + PART, "{most} octets under way");
    assert!(parts > 20 && world.parts_posted.1 == 0, "{parts} parts, {:?}", world.parts_posted);
}

#[test]
fn bursts_are_as_far_apart_as_the_schedule_says() {
    let period = 4 * HOUR;
    let every = "every 4h".parse().unwrap();
    let mut world = World::new(1, Knobs { commits: 0, schedule: every, ..Knobs::calm() });
    for n in 0..120 {
        world.run(world.now + 25 * 60_000, |_| false);
        world.work(n % 2, 1);
    }
    let delay = world.knobs.delay.1;
    assert!(world.run(world.now + period + delay, World::equal), "the next burst brings everything");
    for from in 0..2 {
        let sent = world.mails.iter().zip(&world.posted_at).filter(|(mail, _)| mail.0 == from);
        let mut bursts: Vec<i64> = Vec::new();
        for (_, at) in sent {
            // What was begun is brought to its end within a minute.
            if bursts.last().is_none_or(|begun| at - begun > 60_000) {
                bursts.push(*at);
            }
        }
        let apart: Vec<i64> = bursts.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(apart.iter().all(|time| *time >= period), "s{from} speaks after {apart:?} ms");
        assert!((10..=14).contains(&bursts.len()), "{} bursts in 50 hours", bursts.len());
    }
}

/// A photograph, say: nothing makes it smaller.
#[test]
fn one_huge_value_crosses_a_bad_link_in_many_parts() {
    let mut dice = Dice::new(7);
    let noise: Vec<u8> = (0..1 << 20).map(|_| dice.next() as u8).collect();
    let mut world = two_equal_sites(|knobs| knobs.part_bytes_max = PART);
    world.parts_posted = (0, 0);
    world.knobs.loss = 20;
    world.change(0, &[add("cn=huge", "jpegPhoto", noise.clone())]);
    assert!(world.run(world.now + DAY, World::equal));
    let held = entry(&world, 1, "cn=huge").attributes;
    assert!(held.values("jpegPhoto") == [noise]);
    let (parts, again) = world.parts_posted;
    assert!(parts > 64, "{parts} parts");
    assert!((1..parts).contains(&again), "{again} of {parts} parts again");
}

/// RFC 6298: how long a change goes unanswered before it is sent again is what the way takes, not what a program believes.
#[test]
fn a_change_that_got_lost_is_sent_again_after_the_time_that_the_way_takes() {
    let repeated_after = |delay: i64| {
        let mut world = two_equal_sites(|knobs| knobs.delay = (delay, delay));
        for _ in 0..8 {
            world.work(0, 1);
            world.run(world.now + 3 * delay + HOUR, |_| false);
        }
        assert!(world.equal());
        world.knobs.loss = 100;
        (world.posted_at, world.parts_posted) = (Vec::new(), (0, 0));
        world.work(0, 1);
        assert!(world.run(world.now + 10 * DAY, |world| world.parts_posted.1 > 0));
        world.now - world.posted_at[0]
    };
    let (near, far) = (repeated_after(5_000), repeated_after(3 * HOUR));
    assert!((10_000..120_000).contains(&near), "{near} ms, where a round trip takes ten seconds");
    assert!((6 * HOUR..24 * HOUR).contains(&far), "{far} ms, where it takes six hours");
}

/// All of a window got lost, and what the second site asks says that it holds nothing of it.
#[test]
fn a_window_of_which_nothing_arrived_stays_full() {
    let mut world = two_with_a_window();
    world.knobs.loss = 100;
    world.work(0, 600);
    let mut open = Unacknowledged::default();
    world.run(world.now + 30_000, |world| {
        open.look(world);
        false
    });
    world.knobs.loss = 0;
    world.input(1, Input::Sync { site: None }, Crash::No);
    assert!(world.run(world.now + HOUR, |world| {
        open.look(world);
        world.equal()
    }));
    let most = open.most as u64;
    assert!(most <= WINDOW + PART, "{most} octets under way");
}
