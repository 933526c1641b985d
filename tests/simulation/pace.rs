//! How mail leaves: what goes together, how much of it, how often.
//!
//! PROMISES
//!   Commits that follow one another closely leave as one. Nothing leaves more often than the schedule says.
//!   A value of any size arrives, however many parts it takes and get lost.

use bridgehead::directory::{Attributes, Change, Dn};
use bridgehead::replication::engine::Timing;

use super::cases::two_equal_sites;
use super::dice::Dice;
use super::knobs::Knobs;
use super::restores::entry;
use super::world::{DAY, HOUR, World};

/// The smallest parts that there are.
const PART: u64 = 16 << 10;

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
