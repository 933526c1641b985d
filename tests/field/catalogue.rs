//! contrib/notes/failures.md names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_failure_has_its_line_and_every_test_in_it_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("contrib/notes/failures.md")).expect("the table");
    let mut tests = BTreeSet::new();
    for directory in ["tests", "src"] {
        gather(&root.join(directory), &mut tests);
    }
    assert!(tests.len() > 300, "{} tests were found", tests.len());
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| F"))
        .map(|line| line.split(" | ").collect())
        .collect();
    for (row, number) in rows.iter().zip(1..) {
        assert_eq!(row.len(), 4, "{row:?}");
        assert_eq!(row[0], format!("| F{number}"), "the rows are in order, none is missing");
        let named: Vec<&str> = row[3].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "F{number} names no test");
        for name in named {
            assert!(tests.contains(name), "F{number} names {name}, which is no test");
        }
    }
    assert_eq!(rows.len(), 20);
    // And none that says so itself is forgotten.
    for name in tests.iter().filter(|name| name.len() > 3 && is_numbered(name)) {
        assert!(table.contains(&format!("`{name}`")), "{name} is not in the table");
    }
}

fn is_numbered(name: &str) -> bool {
    let name = name.as_bytes();
    name[0] == b'f' && name[1].is_ascii_digit() && name[2].is_ascii_digit() && name[3] == b'_'
}

/// The names of functions below `#[test]`.
fn gather(directory: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            gather(&entry, tests);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).expect("a source file");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line == "#[test]" || line == "#[tokio::test]";
                let Some(rest) = line.strip_prefix("fn ").or(line.strip_prefix("async fn ")) else {
                    continue;
                };
                if std::mem::take(&mut is_test) {
                    tests.extend(rest.split('(').next().map(str::to_owned));
                }
            }
        }
    }
}
