//! The manual of events and the program say the same: every name with its levels, in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LEVELS: [&str; 4] = ["error!(", "warn!(", "info!(", "debug!("];

type Events = BTreeMap<String, BTreeSet<String>>;

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for file in fs::read_dir(directory).unwrap().flatten() {
        let path = file.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What the program logs: names that stand in the call, and those that the relay chooses beforehand.
fn logged() -> Events {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut events = Events::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (at, key) in text.match_indices("event = \"") {
            let name = text[at + key.len()..].split('"').next().unwrap();
            let before = LEVELS.iter().filter_map(|level| Some((text[..at].rfind(level)?, level)));
            let (_, level) = before.max().unwrap_or_else(|| panic!("{}: {name}", file.display()));
            events.entry(name.to_owned()).or_default().insert(level.trim_end_matches("!(").to_owned());
        }
    }
    let relay = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/listen/body.rs")).unwrap();
    for name in relay.split('"').filter(|text| text.starts_with("message-")) {
        events.entry(name.to_owned()).or_default().insert("info".to_owned());
    }
    events
}

fn described() -> Events {
    let manual =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/man/bridgehead-events.7")).unwrap();
    let items = manual.lines().filter_map(|line| line.strip_prefix(".It Ic ")?.split_once(" Pq "));
    items.map(|(name, levels)| (name.to_owned(), levels.split(", ").map(str::to_owned).collect())).collect()
}

#[test]
fn every_event_is_described_with_its_level_and_no_other() {
    let (logged, described) = (logged(), described());
    assert!(logged.len() > 50 && logged.contains_key("message-relayed"), "{logged:?}");
    let missing: Vec<_> =
        logged.iter().filter(|(name, levels)| described.get(*name) != Some(levels)).collect();
    assert!(missing.is_empty(), "contrib/man/bridgehead-events.7 lacks or belies {missing:?}");
    let gone: Vec<_> = described.keys().filter(|name| !logged.contains_key(*name)).collect();
    assert!(gone.is_empty(), "nothing logs {gone:?}");
}
