//! Changes that a site's people make in rounds, and what must be there afterwards.
//!
//! A round is one import: it adds entries, changes some of the round before and deletes some of the one before that. It
//! is there whole or not at all; which, is known for certain once its import has said so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Stdio};

use crate::support::{Entries, Site, path_text, read_independently};

/// Entries added in a round.
pub const ADDED: usize = 60;
const CHANGED: usize = 20;
const DELETED: usize = 10;

/// One site's history.
#[derive(Default)]
pub struct Workload {
    rounds: u32,
    /// Rounds that took place.
    done: Vec<u32>,
    /// Names of entries and their descriptions.
    model: BTreeMap<String, String>,
    /// A round under way, and the model if it takes place.
    begun: Option<(u32, BTreeMap<String, String>)>,
}

impl Workload {
    /// Starts the import of another round.
    pub fn begin(&mut self, site: &Site) -> Child {
        assert!(self.begun.is_none(), "the round before was not settled");
        let round = self.rounds;
        self.rounds += 1;
        let (ldif, model) = self.round(round, &site.context);
        let file = site.directory.join(format!("round-{round}.ldif"));
        fs::write(&file, ldif).expect("an LDIF file");
        self.begun = Some((round, model));
        let mut command = site.command(&["import", path_text(&file)]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the bridgehead binary")
    }

    /// After the import ended, and the daemon runs again: what it said, or where it said nothing, what is there.
    pub fn settle(&mut self, site: &Site, said_done: bool) {
        let (round, model) = self.begun.take().expect("a round was begun");
        let probe = format!("cn=r{round}-{},{}", ADDED - 1, site.context);
        let is_there = site.run(&["entry", "show", &probe]).status.success();
        assert!(is_there || !said_done, "round {round} of {} was acknowledged and is not there", site.name);
        if is_there {
            self.model = model;
            self.done.push(round);
        }
    }

    pub fn run(&mut self, site: &Site) {
        let mut import = self.begin(site);
        let done = import.wait().expect("wait for the import").success();
        assert!(done, "an import at {} with nothing in its way", site.name);
        self.settle(site, done);
    }

    pub fn rounds_done(&self) -> usize {
        self.done.len()
    }

    /// Nothing lost, nothing half there, nothing that was deleted, at the master.
    pub fn check(&self, site: &Site) {
        let file = site.directory.join("check.ldif");
        fs::write(&file, site.export(&site.context)).expect("an LDIF file");
        let found = found(&read_independently(&file));
        let lost: Vec<_> = self.model.iter().filter(|(name, text)| found.get(*name) != Some(text)).collect();
        assert!(lost.is_empty(), "{} lost {} entries or changes: {:?}", site.name, lost.len(), lost.first());
        let extra: Vec<_> = found.keys().filter(|name| !self.model.contains_key(*name)).collect();
        assert!(extra.is_empty(), "{} has entries that are not to be there: {extra:?}", site.name);
    }

    fn round(&self, round: u32, context: &str) -> (String, BTreeMap<String, String>) {
        let mut ldif = "version: 1\n".to_owned();
        let mut model = self.model.clone();
        let mut before = self.done.iter().rev();
        for n in before.next().into_iter().flat_map(|last| (0..CHANGED).map(move |n| format!("r{last}-{n}")))
        {
            let text = format!("changed in {round}");
            let _ = write!(
                ldif,
                "\ndn: cn={n},{context}\nchangetype: modify\nreplace: description\ndescription: {text}\n-\n"
            );
            model.insert(n, text);
        }
        for n in before.next().into_iter().flat_map(|last| (0..DELETED).map(move |n| format!("r{last}-{n}")))
        {
            let _ = write!(ldif, "\ndn: cn={n},{context}\nchangetype: delete\n");
            model.remove(&n);
        }
        for n in (0..ADDED).map(|n| format!("r{round}-{n}")) {
            let text = format!("added in {round}, {}", "and described at length ".repeat(3));
            let text = text.trim_end();
            let _ = write!(
                ldif,
                "\ndn: cn={n},{context}\nchangetype: add\nobjectClass: person\ncn: {n}\nsn: {n}\ndescription: {text}\n"
            );
            model.insert(n, text.to_owned());
        }
        (ldif, model)
    }
}

/// The rounds' entries in an export, with their descriptions.
fn found(entries: &Entries) -> BTreeMap<String, String> {
    use base64::Engine as _;
    let own = entries.iter().filter_map(|(dn, attributes)| {
        let name = dn.strip_prefix("cn=")?.split(',').next()?;
        let is_of_a_round = name.starts_with('r') && name.contains('-');
        let text = attributes.get("description")?.first()?;
        let text = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        is_of_a_round.then(|| (name.to_owned(), String::from_utf8_lossy(&text).into_owned()))
    });
    own.collect()
}
