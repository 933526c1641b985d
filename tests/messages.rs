//! Replication mail as real mail systems leave it: what survives, what is lost and how it is named, and their reports.
//!
//! `tests/messages/README` says how each sample was made. With `BRIDGEHEAD_REWRITE=1` the sample that this program
//! composes itself is written anew; the others derive from it and have to be made anew by hand then.

use std::path::PathBuf;

use bridgehead::message::card::{Card, CardFields};
use bridgehead::message::keys::SiteKey;
use bridgehead::message::mime::{Letter, compose};
use bridgehead::message::random::{Rng, Seeded};
use bridgehead::message::seal::{Header, seal};

fn sample(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "messages", name].iter().collect()
}

fn site(name: &str, seed: u64) -> (SiteKey, Card) {
    let key = SiteKey::generate(&mut Seeded::new(seed));
    let fields = CardFields {
        name: name.to_owned(),
        organization: "Example".to_owned(),
        mailbox: format!("bridgehead@{name}.example"),
        contexts: vec![format!("ou={name},o=Example")],
        address_spaces: vec![format!("{name}.example")],
        part_bytes_max: 1 << 20,
        serial: 1,
        issued: "2026-11-22T14:00:00Z".parse().unwrap(),
    };
    let card = Card::parse_verified(&Card::issue(&key, &fields).unwrap()).unwrap();
    (key, card)
}

/// The payload of the samples: of every octet, so that no conversion leaves it alone, and not compressible.
fn payload() -> Vec<u8> {
    let mut octets = vec![0; 700];
    Seeded::new(3).fill_bytes(&mut octets);
    octets
}

fn sealed() -> Vec<u8> {
    let time = "2026-11-22T14:00:00Z".parse().unwrap();
    let header = Header { from: "alpha".to_owned(), to: "beta".to_owned(), seq: 7, time };
    seal(&site("alpha", 1).0, &site("beta", 2).1, &header, &payload(), &mut Seeded::new(4)).unwrap()
}

fn token() -> String {
    site("alpha", 1).0.make_token(7)
}

fn as_sent() -> Vec<u8> {
    let letter = Letter {
        from: ("alpha", "bridgehead@alpha.example"),
        to: ("beta", "bridgehead@beta.example"),
        token: &token(),
        time: "2026-11-22T14:00:00Z".parse().unwrap(),
        sealed: &sealed(),
    };
    compose(&letter).unwrap()
}

#[test]
fn what_is_sent_stays_as_it_is() {
    if std::env::var_os("BRIDGEHEAD_REWRITE").is_some() {
        std::fs::write(path("as-sent.eml"), as_sent()).unwrap();
    }
    assert_eq!(String::from_utf8(as_sent()), String::from_utf8(sample("as-sent.eml")));
}
