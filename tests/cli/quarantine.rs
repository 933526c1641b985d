//! `bridgehead inspect` and `bridgehead quarantine`: messages looked into, kept and taken again.

use std::fs;

use bridgehead::message::{keyfile, token};
use serde_json::Value;

use super::{said, status};
use crate::support::{ByHand, Client, SOON, Site, await_true, deliver, path_text};

fn inspected(site: &Site, mail: &[u8], more: &[&str]) -> (i32, String, String) {
    let file = site.directory.join("message.eml");
    fs::write(&file, mail).unwrap();
    let output = site.run(&[&["inspect", path_text(&file)], more].concat());
    (status(&output), String::from_utf8_lossy(&output.stdout).into_owned(), said(&output))
}

fn copies(site: &Site) -> Vec<Value> {
    serde_json::from_str(&site.ok(&["quarantine", "list", "--json"])).unwrap()
}

#[test]
fn a_message_is_looked_into_and_not_applied() {
    let mut pair = ByHand::start("inspect");
    let dn = |n: u32| format!("cn=p{n},ou=paris,o=Example");
    let mut ldif = String::new();
    for n in 0..30 {
        ldif += &format!("dn: {}\nobjectClass: person\ncn: p{n}\nsn: s\n\n", dn(n));
    }
    pair.paris.import(ldif.as_bytes());
    let load = pair.intercept_from_paris().pop().expect("the first load").message;
    let (code, shown, error) = inspected(&pair.tokyo, &load, &[]);
    assert_eq!(code, 0, "{error}");
    for expected in
        ["from paris to tokyo", "would add 31", "ou=paris,o=Example", "11 more", "signed by the site"]
    {
        assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
    }
    assert!(inspected(&pair.tokyo, &load, &["--all"]).1.contains(&dn(29)));
    assert!(pair.tokyo.context_status("ou=paris,o=Example").is_none(), "it was not applied");
    deliver(&pair.tokyo, &load).expect(250);
    pair.carry_for(std::time::Duration::from_secs(2));

    pair.paris.ok(&["entry", "modify", &dn(3), "title=Dr", "sn=t"]);
    pair.paris.ok(&["entry", "delete", &dn(4)]);
    let change = pair.intercept_from_paris().pop().expect("a change").message;
    let export = pair.tokyo.export("ou=paris,o=Example");
    for running in [true, false] {
        let (code, shown, error) = inspected(&pair.tokyo, &change, &["--json"]);
        assert_eq!(code, 0, "{error}");
        let seen: Value = serde_json::from_str(&shown).unwrap();
        let lines = seen["transfers"][0]["changes"].to_string();
        assert!(lines.contains(&dn(3)) && lines.contains("title"), "{seen:#}");
        assert!(lines.contains(&dn(4)), "{seen:#}");
        if running {
            pair.tokyo.stop();
        }
    }
    assert_eq!(pair.tokyo.export("ou=paris,o=Example"), export);

    let text = String::from_utf8(change.clone()).unwrap();
    let at = text.find("Content-Type: application/octet-stream").unwrap();
    let stripped = format!("{}Content-Type: text/plain\r\n\r\n(removed)\r\n", &text[..at]);
    for (mail, reason) in [
        (stripped.as_bytes(), "removed from the mail"),
        (&change[..change.len() - 300], "cut off"),
        (b"From: a@b\r\nSubject: x\r\n\r\nhello\r\n", "not from bridgehead"),
    ] {
        let (code, _, error) = inspected(&pair.tokyo, mail, &[]);
        assert_eq!(code, 65, "{reason}");
        assert!(error.contains(reason), "{reason}: {error}");
    }
    let (code, _, error) = inspected(&pair.paris, &change, &[]);
    assert_eq!(code, 65);
    assert!(error.contains("not ours"), "{error}");
}

#[test]
fn a_mail_that_was_refused_is_kept_and_taken_once_its_sender_is_known() {
    let mut pair = ByHand::start("quarantine");
    // Tokyo forgets Paris, refuses what comes, and learns of it again.
    let file = pair.tokyo.directory.join("sites.d/paris.toml");
    let aside = pair.tokyo.directory.join("paris.aside");
    fs::rename(&file, &aside).unwrap();
    pair.tokyo.ok(&["reload"]);
    pair.paris.ok(&["entry", "add", "cn=a,ou=paris,o=Example", "objectClass=person", "cn=a", "sn=a"]);
    for mail in pair.intercept_from_paris() {
        deliver(&pair.tokyo, &mail.message).expect(550);
    }
    await_true("copies", SOON, || !copies(&pair.tokyo).is_empty());
    let kept = copies(&pair.tokyo);
    assert!(kept.iter().all(|copy| copy["reason"].as_str().unwrap().contains("not known")), "{kept:?}");
    let id = kept.last().unwrap()["id"].as_str().unwrap().to_owned();
    let refused = pair.tokyo.run(&["quarantine", "release", &id]);
    assert_eq!(status(&refused), 65, "still not known: {}", said(&refused));
    assert!(pair.tokyo.ok(&["quarantine", "show", &id[..6]]).contains("cannot be opened"));
    fs::rename(&aside, &file).unwrap();
    pair.tokyo.ok(&["reload"]);
    assert!(pair.tokyo.ok(&["quarantine", "show", &id]).contains("would add 2"));
    let raw = pair.tokyo.ok_bytes(&["quarantine", "show", "--raw", &id]);
    assert!(inspected(&pair.tokyo, &raw, &[]).1.contains("would add 2"));
    pair.tokyo.ok(&["quarantine", "release", &id]);
    assert_eq!(pair.tokyo.export("ou=paris,o=Example"), pair.paris.export("ou=paris,o=Example"));
    assert!(!copies(&pair.tokyo).iter().any(|copy| copy["id"] == id.as_str()), "it was let go");
    assert_eq!(status(&pair.tokyo.run(&["quarantine", "show", &id])), 69);

    deliver(&pair.tokyo, b"From: a@b\r\nSubject: hi\r\n\r\nhello\r\n").expect(550);
    await_true("a copy", SOON, || !copies(&pair.tokyo).is_empty());
    pair.tokyo.stop();
    pair.tokyo.ok(&["quarantine", "delete", "--all"]);
    assert!(copies(&pair.tokyo).is_empty());
}

/// Whatever takes no effect can be looked at as it came, or says how much of it is left.
#[test]
fn mail_of_any_size_and_reports_about_nothing_are_kept() {
    let pair = ByHand::start("kept-whole");
    let large = ["From: a@b\r\nSubject: hi\r\n\r\n", &"0123456789abcdef\r\n".repeat(20_000)].concat();
    deliver(&pair.tokyo, large.as_bytes()).expect(550);
    let kept = copies(&pair.tokyo);
    assert_eq!((kept.len(), &kept[0]["bytes"]), (1, &kept[0]["kept"]), "{kept:?}");
    let id = kept[0]["id"].as_str().unwrap();
    let raw = pair.tokyo.ok_bytes(&["quarantine", "show", "--raw", id]);
    assert!(raw.ends_with(large.as_bytes()) && raw.len() as u64 == kept[0]["bytes"].as_u64().unwrap());
    assert_eq!(status(&pair.tokyo.run(&["quarantine", "delete"])), 2, "which one?");
    pair.tokyo.ok(&["quarantine", "delete", "--all"]);

    pair.tokyo.configure("[replication]", "quarantine_bytes = \"1 MiB\"", "");
    pair.tokyo.ok(&["reload"]);
    deliver(&pair.tokyo, large.as_bytes()).expect(550);
    let kept = copies(&pair.tokyo);
    assert_eq!(kept[0]["kept"], 131_072);
    assert!(kept[0]["bytes"].as_u64().unwrap() > 360_000, "{kept:?}");
    let id = kept[0]["id"].as_str().unwrap();
    assert!(pair.tokyo.ok(&["quarantine", "list"]).contains("the first 131072 kept"));
    assert!(pair.tokyo.ok(&["quarantine", "show", id]).contains("cannot be taken again"));
    assert_eq!(status(&pair.tokyo.run(&["quarantine", "release", id])), 65);
    pair.tokyo.ok(&["quarantine", "delete", id]);

    let report = "From: MAILER-DAEMON@b\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=a\r\n\r\n\
        --a\r\n\r\nno\r\n--a\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; b\r\n\r\n\
        Final-Recipient: rfc822; x@y\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--a--\r\n";
    let mailbox = format!("<{}>", pair.tokyo.mailbox);
    Client::greet(pair.tokyo.address).transact("<>", &[&mailbox], report.as_bytes()).expect(250);
    let kept = copies(&pair.tokyo);
    assert!(kept[0]["reason"].as_str().unwrap().contains("nothing that this site sent"), "{kept:?}");
    assert!(fs::read_to_string(pair.tokyo.log()).unwrap().contains("bounce-ignored"));

    // About mail of ours: what was never sent, and what was heard since.
    let key = keyfile::read(&pair.tokyo.directory.join("site.key")).unwrap();
    for (number, event, more) in [(u64::MAX >> 1, "bounce-ignored", 1), (1, "bounce-overtaken", 0)] {
        let before = (copies(&pair.tokyo).len(), fs::read_to_string(pair.tokyo.log()).unwrap().len());
        let mailbox = token::return_path(&pair.tokyo.mailbox, &key.make_token("paris", number));
        let report = report.replace("\r\nno\r\n", &format!("\r\n{number}\r\n"));
        let mailbox = format!("<{mailbox}>");
        Client::greet(pair.tokyo.address).transact("<>", &[&mailbox], report.as_bytes()).expect(250);
        assert_eq!(copies(&pair.tokyo).len(), before.0 + more, "{event}");
        let log = fs::read_to_string(pair.tokyo.log()).unwrap();
        assert_eq!(log[before.1..].matches(event).count(), 1, "{}", &log[before.1..]);
    }
}
