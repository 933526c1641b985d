//! The manual and the program say the same: every key is described, every described key is known.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use bridgehead::config::{self, bounds, partner};

/// Every key that the configuration's readers know, as their own hints list them.
fn known_keys() -> BTreeSet<String> {
    let text = "zzzzzz = 1\n[site]\nzzzzzz = 1\n[listen]\nzzzzzz = 1\n[listen.tls]\nzzzzzz = 1\n[listen.auth]\nzzzzzz = 1\n\
         [[listener]]\nzzzzzz = 1\n[[route]]\nzzzzzz = 1\n[limits]\nzzzzzz = 1\n[replication]\nzzzzzz = 1\n[log]\nzzzzzz = 1\n\
         [metrics]\nzzzzzz = 1\n[dns]\nzzzzzz = 1\n";
    let problems = config::parse(Path::new("f"), text).expect_err("unknown keys");
    let link = partner::parse(Path::new("f"), "zzzzzz = 1\n[link]\nzzzzzz = 1\n").expect_err("unknown keys");
    let hints = problems.0.into_iter().chain(link.0).filter_map(|problem| {
        problem
            .hint
            .strip_prefix("known here: ")
            .map(|keys| keys.split(", ").map(str::to_owned).collect::<Vec<_>>())
    });
    hints.flatten().collect()
}

fn described_keys() -> BTreeSet<String> {
    let manual =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/man/bridgehead.toml.5")).unwrap();
    let items = manual.lines().filter_map(|line| line.strip_prefix(".It Ic "));
    items.flat_map(|item| item.split(" , ").map(|key| key.trim().to_owned()).collect::<Vec<_>>()).collect()
}

#[test]
fn every_configuration_key_is_described_and_every_described_key_is_known() {
    // Tables have headings of their own in the manual.
    let tables =
        ["site", "listen", "listener", "route", "dns", "limits", "replication", "log", "metrics", "link"];
    let known: BTreeSet<String> =
        known_keys().into_iter().filter(|key| !tables.contains(&key.as_str())).collect();
    let mut described = described_keys();
    // Of `[metrics]`; there is a table of that name, too.
    described.remove("listen");
    assert!(known.len() > 40, "the readers list their keys: {known:?}");
    assert_eq!(known.difference(&described).collect::<Vec<_>>(), Vec::<&String>::new(), "not described");
    assert_eq!(described.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "not known");
}

#[test]
fn the_table_of_limits_is_that_of_the_program() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/man/bridgehead.toml.5");
    let text = fs::read_to_string(file).unwrap();
    let from = text.find("BRIDGEHEAD_REWRITE=1.\n").map(|at| at + "BRIDGEHEAD_REWRITE=1.\n".len()).unwrap();
    let to = text.find(".\\\" End of the table.").unwrap();
    let written = format!("{}{}{}", &text[..from], bounds::manual(), &text[to..]);
    if std::env::var_os("BRIDGEHEAD_REWRITE").is_some() {
        fs::write(file, &written).unwrap();
    } else {
        assert!(written == text, "BRIDGEHEAD_REWRITE=1 cargo test --test main cli::manual makes it anew");
    }
}

#[test]
fn every_key_of_the_section_limits_is_in_the_table() {
    let problems = config::parse(Path::new("f"), "[limits]\nzzzzzz = 1\n").expect_err("an unknown key");
    let known = problems.0.iter().filter_map(|problem| problem.hint.strip_prefix("known here: "));
    let keys = known
        .into_iter()
        .find(|keys: &&str| keys.contains("command_bytes"))
        .expect("the reader lists its keys");
    for key in keys.split(", ") {
        assert!(bounds::all().iter().any(|bound| bound.key == format!("limits.{key}")), "{key}");
    }
}

#[test]
fn the_man_page_is_what_the_program_generates() {
    let output = Command::new(env!("CARGO_BIN_EXE_bridgehead")).args(["generate", "man"]).output().unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/man/bridgehead.8");
    let shipped = fs::read_to_string(file).unwrap_or_default();
    let generated = String::from_utf8(output.stdout).unwrap();
    assert!(generated == shipped, "`bridgehead generate man > contrib/man/bridgehead.8` makes it anew");
}
