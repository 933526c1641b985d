//! What the mail of many sites amounts to: messages a day when nothing happens, messages for one change.
//!
//! `contrib/bench/messages` runs this for 1,000 sites; `BRIDGEHEAD_TREE` says how many. Octets are those of payloads,
//! before a mail is made of them. Set beside it is what
//! Exchange 5.5 sent by its own formula, N x 2(N-1) x F x 2 messages a day with F = 8 activations, whether or
//! not anything changed.

use std::collections::HashMap;

use bridgehead::directory::{Digest, Position};
use bridgehead::replication::engine::Timing;
use bridgehead::replication::wire::{Message, Standing, VectorItem};

use super::knobs::{Knobs, Topology};
use super::world::{DAY, HOUR, World};

struct Counts {
    idle_messages: usize,
    idle_bytes: u64,
    change_messages: usize,
    change_bytes: u64,
    minutes: i64,
}

fn count(sites: usize, topology: Topology) -> Counts {
    let vector_whole_max = Timing::default().vector_whole_max;
    let knobs = Knobs { sites, topology, commits: 10, busy: HOUR, vector_whole_max, ..Knobs::calm() };
    let mut world = World::new(7, knobs);
    world.run(world.now + DAY, |_| false);
    assert!(world.equal(), "equal after a day");
    world.mails.clear();
    world.told.clear();
    let bytes = world.bytes;
    world.run(world.now + DAY, |_| false);
    let (idle_messages, idle_bytes) = (world.mails.len(), world.bytes - bytes);
    let mut seen = HashMap::new();
    world.mails.iter().for_each(|(from, to, _)| *seen.entry((*from, *to)).or_insert(0) += 1);
    assert!(seen.values().all(|count| *count <= 4), "a heartbeat every six hours");

    world.mails.clear();
    let (begun, bytes) = (world.now, world.bytes);
    world.work(sites - 1, 0);
    // No heartbeat helps: it is the first change of a naming context that was empty so far, or a later one.
    if !world.run(begun + 5 * 60_000, World::equal) {
        world.fail("not equal five minutes after the change");
    }
    let minutes = (world.now - begun) / 60_000;
    world.run(world.now + 60_000, |_| false);
    let change_messages = world.mails.len();
    assert!(world.told.iter().all(|told| !told.wanted), "everybody knows every vector");
    Counts { idle_messages, idle_bytes, change_messages, change_bytes: world.bytes - bytes, minutes }
}

/// Octets of a message in which every one of so many naming contexts has a position.
fn vector_bytes(contexts: usize) -> usize {
    let item = |n: usize| {
        let n = n as u128;
        let invocation = uuid::Uuid::from_u128(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
        VectorItem {
            context: format!("ou=s{n},o=Example"),
            position: Some(Position { invocation, usn: 100_000 + n as u64 }),
            digest: Some(Digest([0xA5; 32])),
            standing: Standing::Follows,
        }
    };
    Message::new((0..contexts).map(item).collect()).encode().len()
}

fn row(name: &str, sites: usize, counts: &Counts) -> String {
    let exchange = sites * 2 * (sites - 1) * 8 * 2;
    format!(
        "| {name} | {sites} | {} | {exchange} | {} | {} | {} | {} | {:.1} |",
        counts.idle_messages,
        counts.idle_bytes / 1000,
        counts.change_messages,
        counts.change_bytes / 1000,
        counts.minutes,
        vector_bytes(sites) as f64 / 1e3,
    )
}

#[test]
fn messages_a_day_and_for_a_change() {
    let star = count(10, Topology::Star);
    assert!(star.idle_messages <= 9 * 2 * 4, "{} messages", star.idle_messages);
    assert!(star.change_messages <= 9 * 4, "{} messages", star.change_messages);
    let sites = std::env::var("BRIDGEHEAD_TREE").ok().and_then(|sites| sites.parse().ok()).unwrap_or(30);
    let tree = count(sites, Topology::Wide);
    let links = sites - 1;
    assert!(tree.idle_messages <= links * 2 * 4, "{} messages", tree.idle_messages);
    assert!(tree.change_messages <= links * 4, "{} messages", tree.change_messages);
    // A heartbeat has the digest of its vector alone, a change one item each way beside what changed.
    assert!(tree.idle_bytes <= 64 * tree.idle_messages as u64, "{} octets", tree.idle_bytes);
    assert!(tree.change_bytes <= 1000 * links as u64, "{} octets", tree.change_bytes);
    println!(
        "| sites in a | sites | messages a day, idle | Exchange 5.5 | kB a day \
         | messages for a change | kB | minutes | kB of a whole vector, all in use |\n|---|---|---|---|---|---|---|---|---|\n{}\n{}",
        row("star", 10, &star),
        row("tree of ten", sites, &tree)
    );
}
