//! kill -9 in a loop. What a command acknowledged is there after the restart, whole; what it did not acknowledge is there
//! whole or not at all; and the replicas become equal by themselves.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::{Direct, Entries, Site, path_text, people, read_independently};

const ROUNDS: u32 = 12;
const BATCH: usize = 150;
const LONG: Duration = Duration::from_secs(240);

#[test]
fn imports_are_whole_or_absent_and_what_was_acknowledged_stays() {
    let mut pair = Direct::start("kill-import");
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let file = pair.paris.directory.join("batch.ldif");
        fs::write(&file, batch(&pair.paris, round)).expect("an LDIF file");
        let mut import = quiet(pair.paris.command(&["import", path_text(&file)]));
        let mut import = import.spawn().expect("the bridgehead binary");
        sleep(moment(round, 120));
        pair.paris.kill();
        if round % 2 == 1 {
            let _ = import.kill();
        }
        if import.wait().expect("wait for the import").success() {
            acknowledged.insert(round);
        }
        pair.paris.start();
        assert_whole(&entries_of(&pair.paris, &pair), round + 1, &acknowledged);
    }
    // Something must be there to compare, whatever the moments were.
    pair.paris.import(batch(&pair.paris, ROUNDS).as_bytes());
    acknowledged.insert(ROUNDS);
    pair.paris.sync(LONG);
    assert_whole(&entries_of(&pair.tokyo, &pair), ROUNDS + 1, &acknowledged);
    assert_equal(&pair);
}

#[test]
fn a_replica_that_is_killed_while_it_applies_becomes_equal_by_itself() {
    let mut pair = Direct::start("kill-apply");
    pair.paris.import(&people(&pair.paris, 3_000));
    for round in 0..ROUNDS {
        quietly_sync(&pair.paris);
        sleep(moment(round, 400));
        pair.tokyo.kill();
        pair.tokyo.start();
        let change = batch(&pair.paris, round);
        pair.paris.import(change.as_bytes());
    }
    pair.paris.sync(LONG);
    assert_equal(&pair);
    pair.tokyo.ok(&["verify", "paris"]);
}

#[test]
fn a_sender_that_is_killed_while_it_sends_goes_on_where_it_was() {
    let mut pair = Direct::start("kill-send");
    pair.paris.import(&people(&pair.paris, 3_000));
    for round in 0..ROUNDS {
        quietly_sync(&pair.paris);
        sleep(moment(round, 400));
        pair.paris.kill();
        pair.paris.start();
    }
    pair.paris.sync(LONG);
    assert_equal(&pair);
}

/// A different moment each round, over the whole span, the same in every run.
fn moment(round: u32, span_ms: u64) -> Duration {
    let scattered = u64::from(round).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    Duration::from_millis(scattered % span_ms)
}

/// Entries that are told by their round: one import, so one commit.
fn batch(site: &Site, round: u32) -> String {
    (0..BATCH)
        .map(|n| {
            let name = format!("r{round}-{n}");
            let context = &site.context;
            format!("dn: cn={name},{context}\nobjectClass: person\ncn: {name}\nsn: {n}\n\n")
        })
        .collect()
}

fn entries_of(site: &Site, pair: &Direct) -> Entries {
    let file = pair.scratch.write("now.ldif", site.export(&pair.paris.context));
    read_independently(&file)
}

fn assert_whole(entries: &Entries, rounds: u32, acknowledged: &BTreeSet<u32>) {
    for round in 0..rounds {
        let prefix = format!("cn=r{round}-");
        let present = entries.keys().filter(|dn| dn.starts_with(&prefix)).count();
        if acknowledged.contains(&round) {
            assert_eq!(present, BATCH, "import {round} was acknowledged");
        } else {
            assert!(present == 0 || present == BATCH, "import {round} is there in part: {present}");
        }
    }
}

fn assert_equal(pair: &Direct) {
    let context = &pair.paris.context;
    let (here, there) = (pair.paris.export(context), pair.tokyo.export(context));
    assert!(here == there, "the replicas differ ({} and {} bytes)", here.len(), there.len());
    assert!(here.len() > 1000, "there is something to compare");
}

/// Asks for an exchange and does not mind if the other side is away.
fn quietly_sync(site: &Site) {
    let _ = quiet(site.command(&["sync"])).status();
}

fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
