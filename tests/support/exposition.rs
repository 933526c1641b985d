//! A strict reader of OpenMetrics text, as far as counters and gauges go.

use std::collections::{BTreeMap, BTreeSet};

/// Every sample with its labels, as written; fails the test on anything that OpenMetrics 1.0 does not allow.
#[track_caller]
pub fn exposition(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("the page ends with its mark");
    let (mut samples, mut kinds, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut family = String::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("words of help");
            assert!(helped.insert(name.to_owned()), "help for {name} twice");
            assert!(words.ends_with('.') && words.len() > 8, "{line}");
            family = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert!(name == family && kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) = match sample.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
                None => (sample, ""),
            };
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && name.starts_with("bridgehead_")
            );
            let expected = match kinds.get(&family).map(String::as_str) {
                Some("counter") => format!("{family}_total"),
                _ => family.clone(),
            };
            assert!(name == expected, "{line} is within the family {family}");
            check_labels(labels);
            assert!(samples.insert(sample.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    assert_eq!(helped.len(), kinds.len(), "each family has help and a type");
    samples
}

/// `name="value",…`, quotes and backslashes within escaped.
#[track_caller]
fn check_labels(labels: &str) {
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{labels}"));
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{labels}");
        let mut escaped = false;
        let end = after.bytes().position(|b| {
            let ends = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            ends
        });
        rest = &after[end.unwrap_or_else(|| panic!("{labels}")) + 1..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').unwrap_or_else(|| panic!("{labels}"));
        }
    }
}
