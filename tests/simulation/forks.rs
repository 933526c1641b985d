//! Histories that went two ways: what waits for the operator, what his word does, and when it is over (F9).

use bridgehead::directory::context::contexts;
use bridgehead::replication::engine::hold::{Hold, HoldKind, HoldVerdict, holds};
use bridgehead::replication::engine::{Input, Passage};

use super::cases::{names, peer, two_equal_sites};
use super::knobs::Topology;
use super::restores::restore;
use super::site::Crash;
use super::world::{Cut, DAY, HOUR, World};

const CONTEXT: &str = "ou=s0,o=Example";

fn held(world: &World, n: usize) -> Vec<Hold> {
    holds(&world.sites[n].store).unwrap()
}

fn decide(world: &mut World, n: usize, hold: u64, approve: bool) {
    world.input(n, Input::Hold { hold, approve }, Crash::No);
}

/// Nothing that the second site sends to the first arrives for so long.
fn cut(world: &mut World, from: usize, to: usize, long: i64, queues: bool) {
    let (begin, end) = (world.now, world.now + long);
    world.cuts.push(Cut { from, to, begin, end, queues });
}

/// A master and the hub before it were put back together, and the site behind the hub goes on with the other life. At the hub
/// that is a fork, which waits for its operator.
fn parted_line(people: u64, part_bytes_max: u64, delete_percent_max: u8) -> World {
    let mut world = two_equal_sites(|knobs| {
        (knobs.sites, knobs.topology, knobs.commits) = (3, Topology::Line, 0);
        (knobs.bulk, knobs.part_bytes_max) = (people, part_bytes_max);
        knobs.delete_percent_max = delete_percent_max;
    });
    world.traffic.lawless = true;
    let backups = [0, 1].map(|n| (world.sites[n].store.clone(), world.sites[n].workload.clone()));
    world.work(0, 3);
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    cut(&mut world, 2, 1, HOUR, false);
    for (n, (store, workload)) in backups.into_iter().enumerate() {
        world.restore(n, store, workload);
    }
    world.work(0, 2);
    world.run(world.now + 13 * HOUR, |_| false);
    let found = held(&world, 1);
    assert_eq!((found.len(), found[0].kind, found[0].site.as_str()), (1, HoldKind::Fork, "s2"));
    world
}

#[test]
fn a_fork_of_many_parts_waits_without_a_storm_of_mail() {
    let mut world = parted_line(1500, 16 << 10, 100);
    world.mails.clear();
    world.run(world.now + DAY, |_| false);
    assert!(world.mails.len() < 100, "{} mails in a day", world.mails.len());
    let hold = held(&world, 1)[0].id;
    world.observers.gives_up(1, CONTEXT);
    decide(&mut world, 1, hold, true);
    assert!(world.run(world.now + DAY, World::equal), "what is approved comes all the same");
}

/// The operator approves a fork by its number, after a mass deletion came to wait in the same naming context.
#[test]
fn the_word_on_a_fork_is_none_on_a_deletion() {
    let mut world = parted_line(60, 1 << 20, 20);
    let fork = held(&world, 1)[0].id;
    decide(&mut world, 1, fork, false);
    let before = names(&world, 1);
    world.delete_people(0, 50);
    world.run(world.now + HOUR, |_| false);
    let deletion = held(&world, 1)[0].clone();
    assert_eq!((deletion.kind, deletion.verdict), (HoldKind::Deletions, HoldVerdict::Waiting));
    decide(&mut world, 1, fork, true);
    world.run(world.now + HOUR, |_| false);
    assert_eq!(names(&world, 1), before);
    decide(&mut world, 1, deletion.id, true);
    assert!(world.run(world.now + HOUR, |world| names(world, 1).len() < before.len()));
}

#[test]
fn no_hold_has_the_number_of_another() {
    let mut world = two_equal_sites(|knobs| (knobs.bulk, knobs.delete_percent_max) = (60, 20));
    let mut numbers = Vec::new();
    for _ in 0..2 {
        world.work(0, 60);
        world.run(world.now + HOUR, |_| false);
        world.delete_people(0, 50);
        world.run(world.now + HOUR, |_| false);
        numbers.extend(held(&world, 1).iter().map(|hold| hold.id));
        decide(&mut world, 1, numbers[numbers.len() - 1], true);
        world.run(world.now + HOUR, |_| false);
        assert_eq!(held(&world, 1), []);
    }
    assert_eq!(numbers, [1, 2]);
}

/// That what is held is given up for what one site sends does not let others delete it.
#[test]
fn an_approved_fork_is_no_word_on_what_others_delete() {
    let mut world = parted_line(60, 1 << 20, 20);
    let fork = held(&world, 1)[0].id;
    cut(&mut world, 2, 1, 10 * DAY, false);
    decide(&mut world, 1, fork, true);
    world.run(world.now + DAY, |_| false);
    let (before, told) = (names(&world, 1), world.observers.count("Held"));
    world.delete_people(0, 50);
    world.run(world.now + HOUR, |_| false);
    assert_eq!(names(&world, 1), before);
    assert_eq!(world.observers.count("Held"), told + 1);
}

#[test]
fn a_fork_with_a_site_that_is_not_listened_to_any_more_is_over() {
    let mut world = parted_line(5, 1 << 20, 100);
    let partners = &mut world.sites[1].whole.partners;
    partners
        .iter_mut()
        .filter(|partner| partner.site == "s2")
        .for_each(|partner| partner.inbound = Passage::Own);
    world.sites[1].configure();
    world.input(1, Input::Start, Crash::No);
    assert_eq!(held(&world, 1), []);
}

#[test]
fn what_was_approved_and_then_rejected_takes_no_effect() {
    let mut world = parted_line(5, 1 << 20, 100);
    let before = names(&world, 1);
    let fork = held(&world, 1)[0].id;
    cut(&mut world, 2, 1, DAY, true);
    decide(&mut world, 1, fork, true);
    world.run(world.now + HOUR, |_| false);
    decide(&mut world, 1, fork, false);
    world.run(world.now + 3 * DAY, |_| false);
    assert_eq!(names(&world, 1), before);
    assert!(!peer(&world, 1, "s2").link(CONTEXT).refresh);
    assert_eq!(held(&world, 1)[0].verdict, HoldVerdict::Rejected);
}

/// The leaf gave up the other life, and follows some commits behind, for people go on working.
#[test]
fn a_fork_is_over_when_the_other_site_follows_again() {
    let mut world = parted_line(5, 1 << 20, 100);
    world.knobs.delay = (HOUR, 2 * HOUR);
    world.observers.gives_up(2, CONTEXT);
    world.input(2, Input::Refresh { site: Some("s1".into()), context: None, dry_run: false }, Crash::No);
    for _ in 0..72 {
        world.work(0, 1);
        world.run(world.now + HOUR / 3, |_| false);
    }
    let at = |n: usize| {
        contexts(&world.sites[n].store).unwrap().into_iter().find(|held| held.master == "s0").unwrap()
    };
    assert!(at(1).is_on_history(&at(2).position) && at(1).position != at(2).position, "it is behind");
    assert_eq!(held(&world, 1), []);
}

/// What a copy did is to be thrown away: the master's operator rejects it, those of the replicas refresh, one after the other.
#[test]
fn what_was_rejected_is_not_merged_when_the_first_partner_gives_it_up() {
    let mut world = two_equal_sites(|knobs| {
        (knobs.sites, knobs.topology, knobs.commits) = (3, Topology::Star, 0);
    });
    world.work(0, 5);
    assert!(world.run(world.now + HOUR, World::equal));
    let mut lives = [world.sites[0].store.clone(), world.sites[0].store.clone()];
    for turn in 0..24 {
        if !held(&world, 0).is_empty() {
            break;
        }
        let life = lives[turn % 2].clone();
        restore(&mut world, 0, &life);
        world.work(0, 1);
        world.run(world.now + HOUR, |_| false);
        lives[turn % 2] = world.sites[0].store.clone();
    }
    let fork = held(&world, 0)[0].clone();
    decide(&mut world, 0, fork.id, false);
    let (ours, merges) = (names(&world, 0), world.observers.count("Recovered"));
    world.run(world.now + 3 * DAY, |_| false);
    let first = if fork.site == "s1" { 1 } else { 2 };
    for n in [first, 3 - first] {
        world.observers.gives_up(n, CONTEXT);
        let refresh = Input::Refresh { site: Some("s0".into()), context: None, dry_run: false };
        world.input(n, refresh, Crash::No);
        world.run(world.now + DAY, |_| false);
        assert_eq!((&names(&world, 0), world.observers.count("Recovered")), (&ours, merges));
    }
    assert!(world.equal());
    assert_eq!(held(&world, 0), []);
}

/// A partner was away while the master was started more often than its history can tell, or than it remembers. That undoes
/// nothing at the master, and the partner follows as soon as its operator says so.
#[test]
fn who_was_away_for_too_long_waits_for_a_word_and_undoes_nothing() {
    for starts in [90, 260] {
        let mut world = two_equal_sites(|knobs| (knobs.bulk, knobs.commits) = (20, 0));
        world.traffic.lawless = true;
        world.sites[0].whole.timing.log_commits_max = 100;
        world.sites[0].configure();
        world.input(0, Input::Start, Crash::No);
        world.run(world.now + DAY, |_| false);
        let long = (i64::from(starts) + 1) * DAY;
        cut(&mut world, 0, 1, long, false);
        cut(&mut world, 1, 0, long, false);
        world.delete_people(0, 10);
        for _ in 0..starts {
            world.sites[0].restart();
            world.input(0, Input::Start, Crash::No);
            world.work(0, 1);
            world.run(world.now + DAY, |_| false);
        }
        let before = names(&world, 0);
        assert!(!names(&world, 1).is_subset(&before));
        world.run(world.now + 5 * DAY, |_| false);
        assert_eq!(names(&world, 0), before, "after {starts} starts");
        assert_eq!((world.observers.count("Lost"), world.observers.count("Recovered")), (0, 0));
        let hold = held(&world, 1)[0].id;
        let told = "its master began anew more than 80 times since";
        assert!(world.trace.iter().any(|line| line.contains(told)));
        world.observers.gives_up(1, "ou=s0,o=Example");
        decide(&mut world, 1, hold, true);
        assert!(world.run(world.now + DAY, World::equal), "after {starts} starts");
        assert!(held(&world, 1).is_empty());
    }
}
