//! `bridgehead bundle`: a first load by disk, from which mail goes on.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use bridgehead::message::bundle::{Reader, Writer};
use bridgehead::message::card::Card;
use bridgehead::message::keys::SiteKey;
use bridgehead::message::random::Seeded;

use super::{said, status};
use crate::support::{Direct, SOON, Site, path_text};

const PEOPLE: usize = 10_000;

fn people(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        write!(
            text,
            "dn: cn=p{n},ou=paris,o=Example\nobjectClass: person\ncn: p{n}\nsn: n{}\n\n",
            n * 7919 % 10_007
        )
        .unwrap();
    }
    text
}

fn create(pair: &Direct, name: &str) -> PathBuf {
    let file = pair.scratch.join(name);
    pair.paris.ok(&["bundle", "create", "tokyo", path_text(&file)]);
    file
}

/// Octets of mail that a site has sent, by its log.
fn sent_octets(site: &Site) -> u64 {
    let log = fs::read_to_string(site.log()).unwrap();
    let octets = |line: &str| line.split("bytes=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    log.lines().filter(|line| line.contains("message-sent")).filter_map(octets).sum()
}

#[test]
fn ten_thousand_entries_go_by_file_and_a_change_after_them_by_a_small_mail() {
    let mut pair = Direct::prepare("bundle");
    pair.paris.import(people(PEOPLE).as_bytes());
    let file = create(&pair, "first.bundle");
    pair.paris.start();
    pair.tokyo.start();
    // They know each other by mail before the file has come, and nothing of it is sent.
    pair.paris.ok(&["sync"]);
    pair.paris.ok(&["entry", "modify", "cn=p7,ou=paris,o=Example", "title=changed meanwhile"]);
    let waiting = pair.tokyo.run(&["sync", "paris", "--wait", "3"]);
    assert_eq!(status(&waiting), 1, "the file is not there yet");
    let reason = pair.paris.status()["partners"][0]["reason"].to_string();
    assert!(reason.contains("by file"), "{reason}");
    assert!(sent_octets(&pair.paris) < 20_000, "{} octets", sent_octets(&pair.paris));

    let applied = pair.tokyo.ok(&["bundle", "apply", path_text(&file)]);
    assert!(applied.contains("10001 added"), "{applied}");
    pair.paris.sync(SOON);
    assert_eq!(pair.tokyo.export(&pair.paris.context), pair.paris.export(&pair.paris.context));
    assert!(sent_octets(&pair.paris) < 30_000, "{} octets", sent_octets(&pair.paris));
    let again = pair.tokyo.ok(&["bundle", "apply", path_text(&file)]);
    assert!(again.contains("nothing changed"), "{again}");
    assert_eq!(pair.tokyo.export(&pair.paris.context), pair.paris.export(&pair.paris.context));
}

#[test]
fn a_bundle_that_is_cut_altered_or_for_another_site_changes_nothing() {
    let mut pair = Direct::prepare("bundle-damage");
    pair.paris.import(people(50).as_bytes());
    let file = create(&pair, "good.bundle");
    assert_eq!(status(&pair.paris.run(&["bundle", "create", "tokyo", path_text(&file)])), 73, "it is there");
    assert_eq!(status(&pair.paris.run(&["bundle", "create", "oslo", "x"])), 69);
    let nothing = pair.scratch.join("nothing.bundle");
    assert_eq!(status(&pair.tokyo.run(&["bundle", "create", "paris", path_text(&nothing)])), 69);
    assert!(!nothing.exists(), "nothing to send leaves no file");

    let good = fs::read(&file).unwrap();
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    let damaged: [(&str, Vec<u8>, &str); 4] = [
        ("cut", good[..good.len() - 20].to_vec(), "cut off"),
        ("altered", altered, "message 1"),
        ("text", b"dn: o=x\n".to_vec(), "no bridgehead bundle"),
        ("longer", [&good[..], b"x"].concat(), "damaged"),
    ];
    for running in [false, true] {
        if running {
            pair.tokyo.start();
        }
        for (name, octets, reason) in &damaged {
            let bad = pair.scratch.write(name, octets);
            let output = pair.tokyo.run(&["bundle", "apply", path_text(&bad)]);
            assert_eq!(status(&output), 65, "{name}: {}", said(&output));
            assert!(said(&output).contains(reason), "{name}: {}", said(&output));
            assert!(pair.tokyo.context_status(&pair.paris.context).is_none(), "{name}");
        }
    }
    let for_another = pair.paris.run(&["bundle", "apply", path_text(&file)]);
    assert_eq!(status(&for_another), 65);
    assert!(said(&for_another).contains("the bundle is for site tokyo"), "{}", said(&for_another));
    pair.paris.ok(&["site", "detach", "tokyo"]);
    let of_nobody = pair.paris.run(&["bundle", "apply", path_text(&file)]);
    assert!(said(&of_nobody).contains("not ours"), "{}", said(&of_nobody));
    pair.tokyo.stop();
    assert!(pair.tokyo.ok(&["bundle", "apply", path_text(&file)]).contains("51 added"));
    assert_eq!(pair.tokyo.export(&pair.paris.context), pair.paris.export(&pair.paris.context));
}

/// Nothing of the renewals comes by mail: the file alone says which key signed it.
#[test]
fn a_bundle_made_after_keys_were_renewed_is_taken_by_who_knows_a_former_one() {
    for running in [false, true] {
        let mut pair = Direct::prepare(if running { "bundle-roll-run" } else { "bundle-roll" });
        pair.paris.import(people(50).as_bytes());
        pair.paris.ok(&["key", "roll"]);
        pair.paris.ok(&["card", "move", "--mailbox", "new@repl.paris.example"]);
        pair.paris.ok(&["key", "roll"]);
        let file = create(&pair, "renewed.bundle");
        if running {
            pair.tokyo.start();
        }
        assert!(pair.tokyo.ok(&["bundle", "apply", path_text(&file)]).contains("51 added"));
        assert_eq!(pair.tokyo.export(&pair.paris.context), pair.paris.export(&pair.paris.context));
        let present = Card::parse_verified(&pair.paris.ok(&["card"])).unwrap();
        assert!(pair.tokyo.ok(&["site", "list"]).contains(&present.fingerprint()), "the new card is pinned");
        assert!(pair.tokyo.ok(&["bundle", "apply", path_text(&file)]).contains("nothing changed"));
        if !running {
            pair.tokyo.start();
        }
        pair.paris.start();
        pair.paris.ok(&["entry", "modify", "cn=p7,ou=paris,o=Example", "title=by mail"]);
        pair.paris.sync(SOON);
        assert_eq!(pair.tokyo.export(&pair.paris.context), pair.paris.export(&pair.paris.context));
    }
}

/// The cards in a bundle count no more than those that come by mail.
#[test]
fn the_cards_in_a_bundle_are_taken_by_rule_and_policy() {
    let pair = Direct::prepare("bundle-cards");
    pair.paris.import(people(5).as_bytes());
    pair.paris.ok(&["key", "roll"]);
    let file = create(&pair, "renewed.bundle");
    let known = pair.tokyo.directory.join("sites.d/paris.toml");
    let before = fs::read_to_string(&known).unwrap();
    let refused = |file: &std::path::Path, reason: &str| {
        let known_before = fs::read_to_string(&known).unwrap();
        let output = pair.tokyo.run(&["bundle", "apply", path_text(file)]);
        assert_eq!(status(&output), 65, "{reason}: {}", said(&output));
        assert!(said(&output).contains(reason), "{reason}: {}", said(&output));
        assert!(pair.tokyo.context_status(&pair.paris.context).is_none(), "{reason}");
        assert_eq!(fs::read_to_string(&known).unwrap(), known_before, "{reason}");
    };
    let good = fs::read(&file).unwrap();
    let with_cards = |name: &str, cards: &str| {
        let mut writer = Writer::new(Vec::new(), cards).unwrap();
        Reader::new(&good[..]).unwrap().for_each(|message| writer.push(&message.unwrap()).unwrap());
        pair.scratch.write(name, writer.finish().unwrap())
    };
    let cards = Reader::new(&good[..]).unwrap().cards().to_owned();
    let (first, present) = cards.split_once("# ---\n").unwrap();
    let mut fields = Card::parse_verified(present).unwrap().fields;
    fields.serial += 1;
    let thief = SiteKey::generate(&mut Seeded::new(5)).renew(&mut Seeded::new(6));
    let stolen = Card::issue_successor(&thief, &fields).unwrap();
    refused(&with_cards("thief", &stolen), "did not endorse it");
    refused(&with_cards("behind", &format!("{cards}# ---\n{stolen}")), "did not endorse it");
    refused(&with_cards("left-out", first), "message 1");
    refused(&with_cards("none", ""), "the cards in the bundle");
    // Rightful cards before a message that is not: the card is not pinned, for nothing of the file was taken.
    let mut altered = good.clone();
    altered[good.len() - 30] ^= 1;
    refused(&pair.scratch.write("altered", altered), "message 1");

    fs::write(&known, before.replace("[link]\n", "[link]\nsuccessors = \"off\"\n")).unwrap();
    refused(&file, "message 1");
    fs::write(&known, before.replace("[link]\n", "[link]\nsuccessors = \"ask\"\n")).unwrap();
    refused(&file, "message 1");
    pair.tokyo.ok(&["site", "approve", "paris"]);
    assert!(pair.tokyo.ok(&["bundle", "apply", path_text(&file)]).contains("6 added"));
}

#[test]
fn a_first_load_goes_by_mail_after_all_when_the_operator_says_so() {
    let mut pair = Direct::prepare("bundle-lost");
    pair.paris.import(people(20).as_bytes());
    fs::remove_file(create(&pair, "lost.bundle")).unwrap();
    pair.paris.start();
    pair.tokyo.start();
    assert_eq!(status(&pair.tokyo.run(&["sync", "paris", "--wait", "2"])), 1);
    pair.paris.ok(&["site", "resume", "tokyo"]);
    pair.paris.sync(SOON);
    assert_eq!(pair.tokyo.export(&pair.paris.context), pair.paris.export(&pair.paris.context));
}

#[test]
fn over_a_link_in_one_direction_a_bundle_comes_first_and_mail_goes_on() {
    let mut pair = Direct::prepare("bundle-diode");
    let one_way = pair.paris.directory.join("sites.d/tokyo.toml");
    let text = fs::read_to_string(&one_way).unwrap();
    fs::write(&one_way, text.replace("[link]", "[link]\none_way = true")).unwrap();
    let silent = pair.tokyo.directory.join("sites.d/paris.toml");
    let text = fs::read_to_string(&silent).unwrap();
    fs::write(&silent, text.replace("[link]", "[link]\npaused = true")).unwrap();
    pair.paris.import(people(300).as_bytes());
    let file = create(&pair, "diode.bundle");
    assert!(pair.tokyo.ok(&["bundle", "apply", path_text(&file)]).contains("301 added"));
    pair.tokyo.start();
    pair.paris.start();
    pair.paris.ok(&["entry", "modify", "cn=p7,ou=paris,o=Example", "title=over the diode"]);
    crate::support::await_true("the change", SOON, || {
        pair.tokyo.export(&pair.paris.context) == pair.paris.export(&pair.paris.context)
    });
    assert_eq!(sent_octets(&pair.tokyo), 0, "nothing goes back");
}
