//! kill -9 of each daemon in a loop, under load, with Postfix and the mangler between, and a disk that is full at times.

use std::env;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::workload::Workload;
use super::world::{FAST, World, open_files};
use crate::support::{Faults, Site, SmallDisk, path_text, people};

/// How long a storm lasts: some seconds, or as many minutes as `BRIDGEHEAD_STORM_MINUTES` says (contrib/test/nightly).
fn duration(usual: Duration) -> Duration {
    let minutes = env::var("BRIDGEHEAD_STORM_MINUTES").ok().and_then(|text| text.parse::<u64>().ok());
    minutes.map_or(usual, |minutes| Duration::from_secs(60 * minutes))
}

/// The seed of the mangler: the same in every run unless `BRIDGEHEAD_SEED` says otherwise.
fn seed(usual: u64) -> u64 {
    env::var("BRIDGEHEAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn two_daemons_that_are_killed_under_load_end_equal() {
    storm("storm-two", &["paris", "tokyo"], 1_500, "512 KiB", seed(4));
}

#[test]
fn three_daemons_that_are_killed_under_load_end_equal() {
    storm("storm-three", &["paris", "tokyo", "oslo"], 500, "16 KiB", seed(5));
}

fn storm(test: &str, names: &[&str], people_each: u32, part: &str, seed: u64) {
    let configuration = format!("{FAST}part_bytes = \"{part}\"\n");
    let mut world = World::prepare(test, names, &configuration, seed);
    let disk = SmallDisk::mount(&world.sites[1].directory.join("data"), "96m");
    world.sites.iter_mut().for_each(Site::start);
    world.mangler.set(Faults::everything());
    let mut workloads: Vec<Workload> = names.iter().map(|_| Workload::default()).collect();
    for site in &world.sites {
        site.import(&people(site, people_each));
    }
    let large = world.sites[1].directory.join("large.ldif");
    let end = Instant::now() + duration(Duration::from_secs(12));
    let mut round: usize = 0;
    while Instant::now() < end || round < 8 {
        let is_full = round % 4 == 1;
        let (master, victim) = (round % names.len(), (round / 2) % names.len());
        let mut import = workloads[master].begin(&world.sites[master]);
        if is_full {
            disk.fill();
        }
        if round == 1 {
            // More than the database's journal has room for from before.
            let site = &world.sites[1];
            let photo = STANDARD.encode(vec![7; 14 << 20]);
            let dn = format!("cn=large,{}", site.context);
            let ldif = format!("dn: {dn}\nobjectClass: person\ncn: large\nsn: x\njpegPhoto:: {photo}\n");
            fs::write(&large, ldif).expect("an LDIF file");
            let refused = site.run(&["import", path_text(&large)]);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains("space"), "there was no room for it: {said}");
        }
        sleep(moment(round));
        if is_full {
            disk.free();
        }
        world.sites[victim].kill();
        let done = import.wait().expect("wait for the import").success();
        world.sites[victim].start();
        workloads[master].settle(&world.sites[master], done);
        round += 1;
    }
    // Everybody's last word, then mail as bad as before until they agree.
    for (workload, site) in workloads.iter_mut().zip(&world.sites) {
        workload.run(site);
        assert!(workload.rounds_done() > 1, "the storm left {} nothing to compare", site.name);
    }
    world.await_equal(Duration::from_secs(180));
    let tally = world.mangler.tally();
    println!("{round} kills; {tally:?}");
    for what in ["dropped", "repeated", "Footer", "delivered"] {
        assert!(tally.contains_key(what), "the mangler never did this: {what}; {tally:?}");
    }
    for (workload, site) in workloads.iter().zip(&world.sites) {
        workload.check(site);
    }
    // In good weather the rest is settled: every link says so, nothing stays in a queue or on disk.
    world.mangler.set(Faults::default());
    for site in &world.sites {
        site.sync(Duration::from_secs(120));
    }
    for site in &mut world.sites {
        let pid = site.daemon().pid();
        assert!(open_files(pid) < 60, "{} holds {} open files", site.name, open_files(pid));
    }
    world.assert_nothing_left_lying();
}

/// Between the beginning of a round and the kill: another moment each time, the same in every run.
fn moment(round: usize) -> Duration {
    let scattered = (round as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    Duration::from_millis(scattered % 700)
}
