//! The test vectors of the message format, for whoever implements bridgehead-replication(7).
//!
//! `tests/vectors/README` says what each file is. `BRIDGEHEAD_REWRITE=1` writes them anew, which is right only when the
//! format changed on purpose. `tests/vectors/open.py` opens them with nothing of ours but the specification.

use std::path::PathBuf;
use std::process::{Command, Output};

use bridgehead::directory::{Digest, Position};
use bridgehead::message::bundle;
use bridgehead::message::card::{Card, CardFields};
use bridgehead::message::introduction::Introduction;
use bridgehead::message::keyfile;
use bridgehead::message::keys::SiteKey;
use bridgehead::message::open::{OpenError, open};
use bridgehead::message::random::Seeded;
use bridgehead::message::seal::{Header, seal};
use bridgehead::message::token;
use bridgehead::replication::vector::{digest, stand};
use bridgehead::replication::wire::{Message, Standing, VectorItem};

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", name].iter().collect()
}

/// Compares a file with what is made now, or writes it.
fn settle(name: &str, made: &[u8]) {
    if std::env::var_os("BRIDGEHEAD_REWRITE").is_some() {
        std::fs::write(path(name), made).unwrap();
    }
    assert!(vector(name) == made, "{name} is no longer what this program makes");
}

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text(name: &str) -> String {
    String::from_utf8(vector(name)).unwrap()
}

fn key(name: &str) -> SiteKey {
    keyfile::parse(&text(name)).unwrap()
}

fn card(name: &str) -> Card {
    Card::parse_verified(&text(name)).unwrap()
}

fn fields(name: &str, serial: u64) -> CardFields {
    CardFields {
        name: name.to_owned(),
        organization: "Größe & Söhne".to_owned(),
        mailbox: format!("bridgehead@repl.{name}.example"),
        contexts: vec![format!("ou={name},o=Example"), format!("ou={name} rooms,o=Example")],
        address_spaces: vec![format!("{name}.example")],
        part_bytes_max: 1 << 20,
        serial,
        issued: "2026-11-22T14:00:00Z".parse().unwrap(),
    }
}

fn header(seq: u64) -> Header {
    let time = "2026-11-22T14:00:00.123Z".parse().unwrap();
    Header { from: "alpha".to_owned(), to: "beta".to_owned(), seq, time }
}

const PLAIN: &[u8] = b"\xa1\x00\x66vector";

/// Repeated, so that it travels compressed.
fn repeated() -> Vec<u8> {
    b"repeated ".repeat(50)
}

#[test]
fn keys_and_statements_are_as_they_were() {
    let (alpha, beta, gamma) = (
        SiteKey::generate(&mut Seeded::new(1)),
        SiteKey::generate(&mut Seeded::new(2)),
        SiteKey::generate(&mut Seeded::new(3)),
    );
    let renewed = alpha.renew(&mut Seeded::new(4));
    for (name, key) in [("alpha", &alpha), ("beta", &beta), ("gamma", &gamma), ("alpha-renewed", &renewed)] {
        settle(&format!("{name}.key"), keyfile::print(key).as_bytes());
    }
    for (name, key) in [("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)] {
        settle(&format!("{name}.card"), Card::issue(key, &fields(name, 1)).unwrap().as_bytes());
    }
    let successor = Card::issue_successor(&renewed, &fields("alpha", 2)).unwrap();
    settle("alpha-renewed.card", successor.as_bytes());
    assert_eq!(card("alpha.card").succeeded_by(&successor).unwrap().public, renewed.public());

    let issued = "2026-11-22T15:00:00Z".parse().unwrap();
    let introduction = Introduction::issue(&alpha, "alpha", issued, &text("gamma.card")).unwrap();
    settle("gamma-by-alpha.introduction", introduction.as_bytes());
    let read = Introduction::parse_verified(&introduction, |_| Some(card("alpha.card"))).unwrap();
    assert_eq!(read.card, card("gamma.card"));

    let lines =
        [0, 1, 255, 256, 4711, u64::MAX].map(|mail| format!("{mail} {}\n", alpha.make_token("beta", mail)));
    settle("alpha.tokens", lines.concat().as_bytes());
    let token = alpha.make_token("beta", 4711);
    let path = token::return_path("bridgehead@repl.alpha.example", &token);
    assert_eq!(token::split_return_path("bridgehead@repl.alpha.example", &path), Some(Some(token.as_str())));
}

#[test]
fn messages_are_as_they_were() {
    let (alpha, beta) = (key("alpha.key"), card("beta.card"));
    let plain = seal(&alpha, &beta, &header(1), PLAIN, &mut Seeded::new(11)).unwrap();
    settle("plain.bhm", &plain);
    // Another release of zstd may compress otherwise; that must open, and need not be made again.
    if std::env::var_os("BRIDGEHEAD_REWRITE").is_some() {
        let made = seal(&alpha, &beta, &header(2), &repeated(), &mut Seeded::new(12)).unwrap();
        std::fs::write(path("zstd.bhm"), made).unwrap();
    }
    let forged = seal(&key("gamma.key"), &beta, &header(3), PLAIN, &mut Seeded::new(13)).unwrap();
    settle("forged.bhm", &forged);
    let misdirected = Header { to: "gamma".to_owned(), ..header(4) };
    let misdirected_to = Card { fields: fields("gamma", 1), public: beta.public.clone() };
    let misdirected = seal(&alpha, &misdirected_to, &misdirected, PLAIN, &mut Seeded::new(14)).unwrap();
    settle("misdirected.bhm", &misdirected);

    let mut bundle =
        bundle::Writer::new(Vec::new(), std::str::from_utf8(&vector("alpha.card")).unwrap()).unwrap();
    bundle.push(&plain).unwrap();
    bundle.push(&vector("zstd.bhm")).unwrap();
    settle("both.bhb", &bundle.finish().unwrap());
}

#[test]
fn messages_open_as_they_did() {
    let opened = |name| open(&key("beta.key"), "beta", |_| Some(card("alpha.card")), &vector(name));
    let plain = opened("plain.bhm").unwrap();
    assert_eq!((plain.header, &plain.payload[..]), (header(1), PLAIN));
    let zstd = opened("zstd.bhm").unwrap();
    assert_eq!((zstd.header, zstd.payload), (header(2), repeated()));
    assert_eq!(opened("forged.bhm"), Err(OpenError::Forged("alpha".into())));
    assert_eq!(opened("misdirected.bhm"), Err(OpenError::OtherSite("gamma".into())));
    let bundle = vector("both.bhb");
    let bundle = bundle::Reader::new(&bundle[..]).unwrap();
    assert_eq!(bundle.cards().as_bytes(), vector("alpha.card"));
    let bundled: Vec<_> = bundle.map(Result::unwrap).collect();
    assert_eq!(bundled, [vector("plain.bhm"), vector("zstd.bhm")]);
}

/// Runs open.py on a message to beta.
fn open_py(message: &str, sender: &str) -> Output {
    let args = ["open.py", "beta.key", "beta.card", sender, message].map(path);
    Command::new("python3")
        .args(args)
        .output()
        .expect("python3 runs; the README names the packages that tests need")
}

#[test]
fn another_implementation_opens_them() {
    let run = |message, sender| {
        let output = open_py(message, sender);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.code().is_some_and(|code| code < 2),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), said)
    };
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let expected = format!(
        "from alpha\nto beta\nseq 1\ntime 1795356000123\ncompression 0\npayload_bytes {}\nbody {}\n",
        PLAIN.len(),
        hex(PLAIN)
    );
    assert_eq!(run("plain.bhm", "alpha.card"), (true, expected));

    let (opened, said) = run("zstd.bhm", "alpha.card");
    assert!(opened, "{said}");
    let body = said.lines().find_map(|line| line.strip_prefix("body ")).unwrap();
    let octets: Vec<u8> =
        (0..body.len()).step_by(2).map(|at| u8::from_str_radix(&body[at..at + 2], 16).unwrap()).collect();
    assert_eq!(zstd::bulk::decompress(&octets, 1000).unwrap(), repeated());

    assert_eq!(
        run("forged.bhm", "alpha.card"),
        (false, "refused: the signature is not alpha's\n".to_owned())
    );
    assert_eq!(run("misdirected.bhm", "alpha.card"), (false, "refused: addressed to gamma\n".to_owned()));
    assert_eq!(run("plain.bhm", "gamma.card"), (false, "refused: sent by alpha\n".to_owned()));
    let (opened, said) = run("both.bhb", "alpha.card");
    assert!(!opened && said == "refused: no sealed message\n", "{said}");
}

fn item(name: &str, usn: u64, standing: Standing) -> VectorItem {
    let held = usn > 0;
    VectorItem {
        context: format!("ou={name},o=Example"),
        position: held.then_some(Position { invocation: uuid::Uuid::from_u128(0xA1FA), usn }),
        digest: held.then_some(Digest([usn as u8; 32])),
        standing,
    }
}

#[test]
fn vectors_are_put_together_by_another_implementation_too() {
    let mut vector = vec![
        item("alpha", 300, Standing::Follows),
        item("alpha rooms", 2, Standing::Held),
        item("Großbeta", 70_000, Standing::Follows),
        item("gamma", 0, Standing::Follows),
    ];
    let digest = |vector: &[VectorItem]| digest(vector.iter().map(stand));
    let whole = Message::new(vector.clone());
    settle("whole.payload", &whole.encode());
    let first = digest(&vector);
    vector[2] = item("GROßbeta", 70_001, Standing::Follows);
    vector[3] = item("gamma", 1, Standing::Recovering);
    let mut difference = Message::new(vector[2..].to_vec());
    difference.vector_digest = Some(digest(&vector));
    settle("difference.payload", &difference.encode());
    vector[0] = item("alpha", 301, Standing::Follows);
    let missed = digest(&vector);
    vector[1] = item("alpha rooms", 2, Standing::Follows);
    let mut later = Message::new(vec![vector[1].clone()]);
    (later.vector_digest, later.vector_wanted) = (Some(digest(&vector)), true);
    settle("later.payload", &later.encode());

    let files = ["vector.py", "whole.payload", "difference.payload", "later.payload"].map(path);
    let output = Command::new("python3").args(files).output().expect("python3 runs");
    let said = String::from_utf8(output.stdout).unwrap();
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let put = |usns: [&str; 4]| {
        let [alpha, rooms, beta, gamma] = usns;
        format!(
            "ou=alpha rooms,o=example {rooms}\nou=alpha,o=example {alpha}\nou=gamma,o=example {gamma}\n\
             ou=großbeta,o=example {beta}\n"
        )
    };
    let heads: Vec<&str> = said.split_inclusive('\n').collect();
    assert_eq!(heads.len(), 18, "{said}");
    let block = |n: usize| heads[6 * n..6 * n + 6].concat();
    let expected = put(["300 0", "2 1", "70000 0", "nothing 0"]);
    assert_eq!(block(0), format!("whole\n{expected}{}\n", hex(&first[..])));
    let expected = put(["300 0", "2 1", "70001 0", "1 3"]);
    let second = difference.vector_digest.unwrap();
    assert_eq!(block(1), format!("known\n{expected}{}\n", hex(&second[..])));
    let expected = put(["300 0", "2 0", "70001 0", "1 3"]);
    assert!(block(2).starts_with(&format!("vector wanted\n{expected}")), "{said}");
    assert_ne!(heads[17].trim(), hex(&missed[..]));
}
