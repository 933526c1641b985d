//! `bridgehead explain`: where an entry came from, and in which message.

use std::fs;

use jiff::Timestamp;
use serde_json::Value;

use super::status;
use crate::support::{Direct, SOON, Site};

fn explained(site: &Site, dn: &str) -> Value {
    let output = site.run(&["explain", dn, "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{dn}: {e}: {output:?}"))
}

/// A time is told to the millisecond.
fn assert_between(shown: &Value, first: Timestamp, last: Timestamp) {
    let shown: Timestamp = shown.as_str().expect("a time").parse().expect("a time of RFC 3339");
    let between = first.as_millisecond()..=last.as_millisecond();
    assert!(between.contains(&shown.as_millisecond()), "{shown} is not between {first} and {last}");
}

#[test]
fn an_entry_is_traced_to_the_message_that_brought_it() {
    let mut pair = Direct::start("explain");
    let dn = "cn=Ada,ou=paris,o=Example";
    pair.paris.ok(&["entry", "add", "cn=Early,ou=paris,o=Example", "objectClass=person", "cn=Early", "sn=E"]);
    pair.paris.sync(SOON);
    let begun = Timestamp::now();
    pair.paris.ok(&["entry", "add", dn, "objectClass=person", "cn=Ada", "sn=Lovelace"]);
    pair.paris.sync(SOON);
    let added = Timestamp::now();
    pair.paris.ok(&["entry", "modify", dn, "telephoneNumber=1"]);
    pair.paris.sync(SOON);
    let changed = Timestamp::now();

    let here = explained(&pair.paris, dn);
    assert_eq!(here["context"]["own"], true);
    assert!(here["last_change"]["arrival"]["from"].is_null(), "{here:#}");
    assert!(pair.paris.ok(&["explain", dn]).contains(", mastered here\n"));
    let there = explained(&pair.tokyo, dn);
    assert_eq!(there["state"], "present");
    assert_eq!(there["context"]["master"], "paris");
    assert_eq!((&there["last_change"]["usn"], &there["added"]["usn"]), (&Value::from(3), &Value::from(2)));
    assert_eq!(there["attributes"][0]["name"], "telephoneNumber");
    let arrival = &there["last_change"]["arrival"];
    assert_eq!(arrival["from"], "paris");
    let mail = &arrival["named"][0];
    assert_between(&arrival["at"], added, changed);
    assert_between(&mail["received"], added, changed);
    assert_between(&there["added"]["arrival"]["at"], begun, added);
    let at = format!("received from paris at {}", arrival["at"].as_str().unwrap());
    let text = pair.tokyo.run(&["explain", dn]).stdout;
    assert!(String::from_utf8_lossy(&text).contains(&at), "for people, too: {at}");
    let (id, sequence) = (mail["message_id"].as_str().unwrap(), mail["sequence"].to_string());
    let sent = fs::read_to_string(pair.paris.log()).unwrap();
    assert!(sent.lines().any(|line| line.contains("message-sent") && line.contains(&sequence)), "{sequence}");
    assert!(id.ends_with("@repl.paris.example"), "{id}");
    assert_ne!(there["added"]["arrival"]["named"][0]["message_id"], mail["message_id"]);
    let early = explained(&pair.tokyo, "cn=Early,ou=paris,o=Example");
    assert_eq!(early["last_change"]["arrival"]["full"], true, "it came with the first load: {early:#}");
    assert!(early["added"].is_null(), "the log begins after it: {early:#}");

    // A name that was given up is still known, by whoever followed it there.
    pair.paris
        .import(format!("dn: {dn}\nchangetype: modrdn\nnewrdn: cn=Countess\ndeleteoldrdn: 1\n").as_bytes());
    pair.paris.sync(SOON);
    let renamed = explained(&pair.tokyo, dn);
    assert_eq!(
        (renamed["state"].as_str(), renamed["now"].as_str()),
        (Some("renamed"), Some("cn=Countess,ou=paris,o=Example"))
    );
    pair.paris.ok(&["entry", "delete", "cn=Countess,ou=paris,o=Example"]);
    pair.paris.sync(SOON);
    pair.tokyo.stop();
    let output = pair.tokyo.run(&["explain", "CN=countess, ou=Paris,o=example", "--json"]);
    assert_eq!(status(&output), 69);
    let deleted: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&deleted["state"], &deleted["last_change"]["usn"]),
        (&"deleted".into(), &5.into()),
        "{deleted:#}"
    );
    assert_eq!(deleted["nearest"], "ou=paris,o=Example");
    assert_eq!(explained(&pair.tokyo, "cn=x,cn=Early,ou=paris,o=Example")["state"], "unknown");
    let elsewhere = explained(&pair.tokyo, "dc=nowhere");
    assert_eq!(elsewhere["state"], "not-held");
    assert!(elsewhere["held"].to_string().contains("ou=tokyo,o=Example"));
    assert_eq!(status(&pair.tokyo.run(&["explain", "no DN"])), 65);
}
