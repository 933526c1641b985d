//! What is left to a person: holds, and removing a site in steps.

use std::fmt::Write as _;
use std::fs;

use super::{said, status};
use crate::support::{Direct, SOON, await_true, path_text};

fn people(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        write!(text, "dn: cn=p{n},ou=paris,o=Example\nobjectClass: person\ncn: p{n}\nsn: p\n\n").unwrap();
    }
    text
}

fn entries(pair: &Direct) -> u64 {
    let context = pair.tokyo.context_status("ou=paris,o=Example");
    context.and_then(|context| context["entries"].as_u64()).unwrap_or(0)
}

#[test]
fn a_mass_deletion_waits_for_a_person() {
    let mut pair = Direct::prepare("hold");
    let file = pair.tokyo.directory.join("sites.d/paris.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[link]", "[link]\nhold_deletions_percent = 20")).unwrap();
    pair.paris.start();
    pair.tokyo.start();
    pair.paris.import(people(60).as_bytes());
    pair.paris.sync(SOON);
    assert_eq!(entries(&pair), 61);

    let mut deletions = String::new();
    for n in 0..40 {
        write!(deletions, "dn: cn=p{n},ou=paris,o=Example\nchangetype: delete\n\n").unwrap();
    }
    pair.paris.import(deletions.as_bytes());
    pair.paris.ok(&["sync"]);
    await_true("a hold", SOON, || pair.tokyo.ok(&["hold", "list"]).contains("40 of 61 entries"));
    assert_eq!(entries(&pair), 61, "nothing was deleted");
    let counted = |site: &crate::support::Site| site.status()["daemon"]["replication"].clone();
    assert_eq!(counted(&pair.tokyo)["events"]["transfer-held"], 1);
    assert!(counted(&pair.paris)["parts_sent"].as_u64().unwrap() >= 2);
    assert!(counted(&pair.tokyo)["mail"]["taken"].as_u64().unwrap() >= 2);
    assert_eq!(status(&pair.paris.run(&["verify", "--wait", "1"])), 1);
    let listed: serde_json::Value =
        serde_json::from_str(&pair.tokyo.ok(&["hold", "list", "--json"])).unwrap();
    let id = listed[0]["id"].to_string();
    assert_eq!(status(&pair.tokyo.run(&["hold", "approve", "999"])), 69);
    assert!(pair.tokyo.ok(&["hold", "show", &id]).contains("40 of 61 entries"));
    assert!(pair.tokyo.ok(&["hold", "approve", &id, "--dry-run"]).contains("40 of 61"));
    assert!(pair.tokyo.ok(&["hold", "reject", &id, "--dry-run"]).contains("stays as it is"));
    assert_eq!(entries(&pair), 61, "a dry run decides nothing");
    let context = pair.tokyo.context_status("ou=paris,o=Example").unwrap();
    assert_eq!(context["standing"], "held");
    assert!(context["next"].as_str().unwrap().contains(&format!("hold show {id}")), "{context:#}");
    assert_eq!(pair.tokyo.status()["waits"]["holds"], 1);
    assert!(pair.tokyo.ok(&["status"]).contains("1 to be approved or rejected: `bridgehead hold list`"));
    let there = pair.paris.ok(&["status"]);
    assert!(there.contains("ou=paris,o=Example: held there: its administrator"), "{there}");
    let here = pair.tokyo.ok(&["status"]);
    assert!(here.contains(&format!("ou=paris,o=Example: held here: `bridgehead hold show {id}`")), "{here}");
    pair.tokyo.ok(&["hold", "reject", &id]);
    assert!(pair.tokyo.ok(&["status"]).contains("it was rejected; `bridgehead hold approve"));
    assert_eq!(pair.tokyo.status()["waits"]["holds"], 0);
    pair.tokyo.ok(&["hold", "approve", &id]);
    pair.paris.sync(SOON);
    assert_eq!(entries(&pair), 21);
    assert!(pair.tokyo.ok(&["hold", "list"]).contains("nothing waits"));
}

#[test]
fn a_site_is_removed_in_steps_and_only_the_last_deletes() {
    let pair = Direct::start("detach");
    pair.paris.import(people(5).as_bytes());
    pair.paris.sync(SOON);
    assert_eq!(status(&pair.tokyo.run(&["site", "purge", "paris"])), 69, "still connected");
    assert!(pair.tokyo.ok(&["site", "pause", "paris", "--dry-run"]).contains("would be"));
    assert_ne!(pair.tokyo.status()["partners"][0]["state"], "paused");
    assert!(pair.tokyo.ok(&["refresh", "paris", "--dry-run"]).contains("nothing to do"), "they are equal");
    assert_eq!(status(&pair.tokyo.run(&["refresh", "nowhere"])), 69);
    for other in ["nowhere", "tokyo"] {
        assert_eq!(status(&pair.tokyo.run(&["site", "purge", other, "--dry-run"])), 69, "{other}");
    }
    let is_shown = || pair.tokyo.ok(&["site", "list"]).contains("paris.example, paused; ");
    assert!(!is_shown());
    pair.tokyo.ok(&["site", "pause", "paris"]);
    assert_eq!(pair.tokyo.status()["partners"][0]["state"], "paused");
    assert!(is_shown());
    assert!(pair.tokyo.ok(&["site", "resume", "paris", "--dry-run"]).contains("would be resumed"));
    assert_eq!(pair.tokyo.status()["partners"][0]["state"], "paused", "a dry run resumes nothing");
    pair.tokyo.ok(&["site", "resume", "paris"]);
    assert_ne!(pair.tokyo.status()["partners"][0]["state"], "paused");

    assert!(pair.tokyo.ok(&["site", "detach", "paris", "--dry-run"]).contains("would be"));
    assert_eq!(pair.tokyo.status()["partners"].as_array().unwrap().len(), 1);
    pair.tokyo.ok(&["site", "detach", "paris"]);
    assert_eq!(pair.tokyo.status()["partners"].as_array().unwrap().len(), 0);
    assert_eq!(entries(&pair), 6, "the entries stay");

    assert!(pair.tokyo.ok(&["site", "purge", "paris", "--dry-run"]).contains("would be"));
    assert_eq!(entries(&pair), 6);
    pair.tokyo.ok(&["site", "purge", "paris"]);
    assert!(pair.tokyo.context_status("ou=paris,o=Example").is_none());
    let gone = pair.tokyo.run(&["site", "detach", "paris"]);
    assert_eq!(status(&gone), 69, "{}", said(&gone));
    let log = fs::read_to_string(pair.tokyo.log()).unwrap();
    for event in ["site-detached", "context-purged"] {
        let lines = log.matches(&format!("event=\"{event}\"")).count();
        assert_eq!(lines, 1, "a dry run of {event} is no event");
    }
}

#[test]
fn a_pause_in_the_site_s_file_is_not_resumed_by_command() {
    let pair = Direct::start("paused");
    let file = pair.tokyo.directory.join("sites.d/paris.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[link]", "[link]\npaused = true")).unwrap();
    pair.tokyo.ok(&["reload"]);
    assert_eq!(pair.tokyo.status()["partners"][0]["state"], "paused");
    let output = pair.tokyo.run(&["site", "resume", "paris"]);
    assert_eq!(status(&output), 69);
    assert!(said(&output).contains("sites.d/paris.toml"), "{}", said(&output));
}

#[test]
fn a_load_of_many_parts_says_how_far_it_is() {
    let mut pair = Direct::prepare("progress");
    let file = pair.paris.directory.join("sites.d/tokyo.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[link]", "[link]\npart_bytes = \"16 KiB\"")).unwrap();
    let mut ldif = String::new();
    let mut noise = 7u64;
    for n in 0..400 {
        write!(ldif, "dn: cn=p{n},ou=paris,o=Example\nobjectClass: person\ncn: p{n}\nsn: s\ndescription: ")
            .unwrap();
        for _ in 0..60 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            write!(ldif, "{noise:016x}").unwrap();
        }
        ldif += "\n\n";
    }
    pair.paris.start();
    pair.tokyo.start();
    pair.paris.import(ldif.as_bytes());
    pair.paris.sync(SOON);
    assert_eq!(entries(&pair), 401);
    let log = fs::read_to_string(pair.tokyo.log()).unwrap();
    let told = log.lines().filter(|line| line.contains("transfer-coming")).count();
    assert!((5..=10).contains(&told), "{told} lines, one a tenth at most");
    assert!(log.contains("percent=100"), "the last of them");
    // Nobody looks at a pipe: no bar in it.
    let output = pair.paris.run(&["export"]);
    assert!(output.stderr.is_empty(), "{}", said(&output));
}

#[test]
fn status_says_that_no_daemon_runs() {
    let mut pair = Direct::prepare("stopped");
    let early = pair.paris.run(&["status"]);
    assert_eq!(status(&early), 69);
    assert!(said(&early).contains("nothing is stored in"), "{}", said(&early));
    let own = pair.paris.directory.join("own.card");
    fs::write(&own, pair.paris.ok(&["card"])).unwrap();
    let mistaken = pair.paris.run(&["site", "add", path_text(&own)]);
    assert_eq!(status(&mistaken), 65);
    assert!(said(&mistaken).contains("this site itself"), "{}", said(&mistaken));
    pair.paris.start();
    assert!(!pair.paris.ok(&["status"]).contains("does not run"));
    let unread = pair.paris.run(&["import", path_text(&pair.paris.directory)]);
    assert_eq!(status(&unread), 74);
    assert!(
        said(&unread).contains("directory") && said(&unread).contains("nothing was imported"),
        "{}",
        said(&unread)
    );
    pair.paris.stop();
    assert!(pair.paris.ok(&["status"]).contains("The daemon does not run: nothing is sent or taken"));
}
