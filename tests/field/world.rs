//! Sites, each behind a Postfix of its own; whatever one Postfix has for another goes through one mangling hop.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bridgehead::directory::sqlite::SqliteReader;
use bridgehead::directory::{Read, Table};
use bridgehead::replication::engine::quarantine::{self, Kept};

use crate::support::{Faults, Mangler, Postfix, Scratch, Site, await_true, free_address};

/// Days of mail in seconds.
pub const FAST: &str = "batching = \"200ms\"\nacknowledgement = \"200ms\"\ngap = \"1s\"\nheartbeat = \"3s\"\n\
    retry_first = \"2s\"\nretry_min = \"1s\"\nretry_max = \"4s\"\n";

pub struct World {
    pub sites: Vec<Site>,
    pub mangler: Mangler,
    _postfixes: Vec<Postfix>,
    _scratch: Scratch,
}

impl World {
    /// Everybody knows everybody; nothing runs yet but the mail servers. `configuration` goes into `[replication]`.
    pub fn prepare(test: &str, names: &[&str], configuration: &str, seed: u64) -> World {
        let scratch = Scratch::new(test);
        let mangler = Mangler::start(seed, Faults::default());
        let mut sites = Vec::new();
        let mut postfixes = Vec::new();
        for name in names {
            let own = free_address();
            let mut plan = Postfix::plan(&scratch, name);
            plan.apply("replication-mail", own, free_address());
            for other in names.iter().filter(|other| *other != name) {
                plan.route(&format!("repl.{other}.example"), mangler.address);
            }
            mangler.route(&format!("repl.{name}.example"), plan.address);
            let site = Site::init(&scratch, name, own, plan.address);
            site.configure("[replication]", configuration, "");
            sites.push(site);
            postfixes.push(plan.start());
        }
        for (n, site) in sites.iter().enumerate() {
            sites[n + 1..].iter().for_each(|other| site.introduce(other));
        }
        World { sites, mangler, _postfixes: postfixes, _scratch: scratch }
    }

    pub fn start(test: &str, names: &[&str], configuration: &str, seed: u64) -> World {
        let mut world = World::prepare(test, names, configuration, seed);
        world.sites.iter_mut().for_each(Site::start);
        world
    }

    /// Whether every site exports every site's naming context in the same octets. One without entries is not sent.
    pub fn is_equal(&self) -> bool {
        let masters = self.sites.iter().map(|master| (master, master.export(&master.context)));
        masters.filter(|(_, own)| own.windows(4).any(|octets| octets == b"\ndn:")).all(|(master, own)| {
            self.sites.iter().all(|site| {
                let output = site.run(&["export", "--context", &master.context]);
                // A context that has not arrived at all is not known there.
                output.status.success() && output.stdout == own
            })
        })
    }

    pub fn await_equal(&self, limit: Duration) {
        let what = "byte-equal exports at every site";
        let mut pause = Duration::from_millis(200);
        await_true(what, limit, || {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
            self.is_equal()
        });
    }

    /// Ends the daemons and looks at what they leave on disk: the files that belong there, no parts of transfers
    /// that were applied, and a database that checks out.
    pub fn assert_nothing_left_lying(&mut self) {
        for site in &mut self.sites {
            site.stop();
            assert_data_is_clean(&site.directory.join("data"));
        }
    }
}

pub fn assert_data_is_clean(data: &Path) {
    let mut files: Vec<String> = fs::read_dir(data)
        .expect("the data directory")
        .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let known = |name: &String| matches!(name.as_str(), "lock" | "cards") || name.starts_with("directory.db");
    assert!(files.iter().all(known), "files that nobody expects: {files:?}");
    let mut reader = SqliteReader::open(data).expect("the store opens");
    let snapshot = reader.snapshot().expect("a snapshot");
    for table in [Table::Inbox, Table::Outbox, Table::Hold] {
        let mut left = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            left += 1;
            true
        };
        snapshot.scan(table, &[], &[0xff; 300], &mut count).expect("a scan");
        assert_eq!(left, 0, "records left in {table:?} of {}", data.display());
    }
}

/// What a site keeps of what it refused, oldest first.
pub fn kept(site: &Site) -> Vec<Kept> {
    let mut reader = SqliteReader::open(&site.directory.join("data")).expect("the store opens");
    quarantine::kept(&reader.snapshot().expect("a snapshot")).expect("the kept copies")
}

/// Open files of a process.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
