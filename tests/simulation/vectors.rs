//! Vectors told as what changed: what they cost, and that nothing is lost with a message, a store or the truth.

use bridgehead::directory::{Digest, Position, Table, Write};
use bridgehead::replication::engine::{Header, Input};
use bridgehead::replication::wire::{CONTEXTS_MAX, Message, Standing, VectorItem};

use super::cases::peer;
use super::finish;
use super::knobs::{Knobs, Topology};
use super::site::Crash;
use super::world::{DAY, HOUR, Told, World};

/// A hub and eleven sites around it, equal, and each vector but the first was told as what changed.
fn star() -> World {
    let mut world =
        World::new(3, Knobs { sites: 12, topology: Topology::Star, commits: 20, ..Knobs::calm() });
    finish(&mut world);
    world.run(world.now + DAY, |_| false);
    world.told.clear();
    world
}

/// Sites whose partner's vector is not known to them in full.
fn unknown(world: &World) -> usize {
    let of = |n: usize, m: usize| peer(world, n, &world.sites[m].name.clone()).vector_at.is_some();
    let near = |n: usize| world.knobs.topology.neighbours(n, world.knobs.sites);
    (0..world.knobs.sites)
        .flat_map(|n| near(n).into_iter().map(move |m| (n, m)))
        .filter(|&(n, m)| of(n, m))
        .count()
}

fn whole(world: &World) -> usize {
    world.told.iter().filter(|told| told.whole).count()
}

#[test]
fn what_changed_is_all_that_is_told() {
    let mut world = star();
    world.run(world.now + DAY, |_| false);
    assert!(world.told.iter().all(|told| told.items == 0 && !told.whole), "{:?}", world.told);
    assert!(world.told.iter().all(|told| told.bytes < 64), "a heartbeat is small: {:?}", world.told);
    world.told.clear();
    world.work(5, 0);
    assert!(world.run(world.now + HOUR, World::equal));
    world.run(world.now + HOUR, |_| false);
    assert!(world.told.iter().all(|told| told.items == 1 && !told.whole), "{:?}", world.told);
    assert_eq!(world.told.len(), 2 * 11, "one message and one acknowledgement on each link");
}

#[test]
fn what_a_lost_message_said_is_said_again() {
    let mut world = star();
    world.knobs.loss = 100;
    world.work(5, 0);
    world.run(world.now + 10_000, |_| false);
    world.knobs.loss = 0;
    world.work(5, 0);
    world.work(0, 0);
    assert!(world.run(world.now + 2 * HOUR, World::equal));
    world.run(world.now + DAY, |_| false);
    assert!(world.told.iter().all(|told| !told.whole && !told.wanted), "{:?}", world.told);
    assert_eq!(unknown(&world), 0);
}

/// A site that was put back knows an older vector of the hub, and the hub a newer one of it.
#[test]
fn a_restored_store_costs_a_whole_vector_each_way() {
    for n in [0, 7] {
        let mut world = star();
        let (backup, workload) = (world.sites[n].store.clone(), world.sites[n].workload.clone());
        for master in [0, 7, 3] {
            world.work(master, 0);
            assert!(world.run(world.now + HOUR, World::equal));
        }
        world.run(world.now + DAY, |_| false);
        world.told.clear();
        world.restore(n, backup, workload);
        assert!(!world.equal());
        assert!(world.run(world.now + 13 * HOUR, World::equal), "equal after the next heartbeats");
        world.run(world.now + DAY, |_| false);
        let links = if n == 0 { 11 } else { 1 };
        assert!(world.told.iter().any(|told| told.wanted), "somebody asked");
        assert!((1..=6 * links).contains(&whole(&world)), "{} whole vectors", whole(&world));
        assert_eq!(unknown(&world), 0);
        world.told.clear();
        world.run(world.now + DAY, |_| false);
        assert_eq!(whole(&world), 0, "and then what changed again");
    }
}

/// Whatever is forgotten of what was said, the whole vector says it again.
#[test]
fn a_site_that_forgot_what_it_said_says_everything() {
    let mut world = star();
    let mut hub = peer(&world, 0, "s4");
    hub.said.forget();
    let mut tx = world.sites[0].store.begin();
    tx.put(Table::Peer, b"s4", &hub.encode()).unwrap();
    tx.commit();
    world.run(world.now + DAY, |_| false);
    assert_eq!(world.told.iter().filter(|told| told.whole).map(|told| told.to).collect::<Vec<_>>(), [4]);
    assert!(world.told.iter().all(|told| !told.wanted));
}

#[test]
fn a_site_that_cannot_ask_any_more_is_told_everything() {
    let mut world = star();
    world.sites[0].config.partners[3].one_way = true;
    world.sites[0].restart();
    world.input(0, Input::Start, Crash::No);
    world.work(0, 0);
    world.run(world.now + DAY, |_| false);
    let to = |told: &&Told| (told.from, told.to) == (0, 4);
    assert!(world.told.iter().any(|told| to(&told)));
    assert!(world.told.iter().filter(to).all(|told| told.whole), "{:?}", world.told);
}

fn says(world: &mut World, seq: u64, message: &Message) -> Vec<Told> {
    let before = world.told.len();
    let header = Header { seq, time: world.sites[4].clock(world.now), message_id: None };
    let input = Input::Received { from: "s4".into(), header, payload: message.encode() };
    world.input(0, input, Crash::No);
    world.told[before..].to_vec()
}

fn item(n: usize) -> VectorItem {
    VectorItem {
        context: format!("ou=nobody's {n},o=Example"),
        position: Some(Position { invocation: uuid::Uuid::from_u128(n as u128), usn: 7 }),
        digest: Some(Digest([3; 32])),
        standing: Standing::Follows,
    }
}

/// A site that tells wrong digests forever, and ever other naming contexts.
#[test]
fn lying_digests_cost_ever_less_mail_and_bounded_memory() {
    let mut world = star();
    world.knobs.loss = 100;
    let mut seq = peer(&world, 0, "s4").window.highest().unwrap();
    for n in 0..600 {
        let count = if n < 6 { 1000 } else { 1 };
        let mut lie = Message::new((0..count).map(|at| item(n * 1000 + at)).collect());
        lie.vector_digest = Some([1; 16].into());
        seq += 1;
        says(&mut world, seq, &lie);
        let until = world.now + 10 * 60_000;
        world.run(until, |_| false);
    }
    let to_liar: Vec<&Told> = world.told.iter().filter(|told| (told.from, told.to) == (0, 4)).collect();
    let asked = to_liar.iter().filter(|told| told.wanted).count();
    assert!((3..=16).contains(&asked), "asked {asked} times in {} hours", 600 / 6);
    assert!(to_liar.len() < 60, "{} messages in four days", to_liar.len());
    let record = peer(&world, 0, "s4");
    assert!(record.links.len() <= CONTEXTS_MAX, "{} naming contexts", record.links.len());
    assert!(record.vector_at.is_some());
}

/// Asking for the whole vector again and again costs no more than asking for answers.
#[test]
fn whole_vectors_are_sent_as_often_as_somebody_asks() {
    let mut world = star();
    let mut seq = peer(&world, 0, "s4").window.highest().unwrap();
    let vector_digest = peer(&world, 0, "s4").vector_digest();
    for _ in 0..20 {
        let mut asks = Message::new(Vec::new());
        (asks.vector_digest, asks.vector_wanted) = (Some(vector_digest), true);
        seq += 1;
        let told = says(&mut world, seq, &asks);
        assert_eq!(told.iter().map(|told| (told.to, told.whole)).collect::<Vec<_>>(), [(4, true)]);
        assert!(says(&mut world, seq, &asks).is_empty(), "a repeated message has no effect");
    }
}
