//! What a partner with a real key can do to memory, time and disk: nothing beyond bounds that are measured here.

use std::time::{Duration, Instant};

use bridgehead::directory::Digest;
use bridgehead::replication::parts::{Part, TransferId};
use bridgehead::replication::transfer::{Base, Manifest};
use bridgehead::replication::wire::{Message, PartItem, Standing, VectorItem};

use super::insider::{Held, Insider};
use crate::support::{Reply, SOON, await_true};

/// What refusing any one message may cost, in KiB of resident memory above what the daemon has at rest. The largest
/// payload, the largest chunk and the largest entry are below it.
const COST_KIB_MAX: u64 = 200 << 10;

impl Insider {
    /// What Tokyo holds of Paris, and of its own.
    fn held(&self) -> Vec<serde_json::Value> {
        let status = self.tokyo.status();
        let contexts = status["contexts"].as_array().expect("`contexts` is an array").iter();
        contexts.filter(|context| context["entries"] != 0).cloned().collect()
    }

    /// Does something bad; it must cost no more than the bound, leave the directory as it is, be told in the log with
    /// these words, and be kept.
    #[track_caller]
    fn attempt(&mut self, what: &str, code: u16, words: &str, attack: impl FnOnce(&mut Insider) -> Reply) {
        let contexts = self.held();
        let (kept, logged) = (self.kept().len(), self.log().len());
        let pid = self.tokyo.daemon().pid();
        // proc(5): forget the peak so far.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the tests run as root");
        let rest = self.tokyo.daemon().peak_kib();
        let began = Instant::now();
        let reply = attack(self);
        let took = began.elapsed();
        let cost = self.tokyo.daemon().peak_kib().saturating_sub(rest);
        println!("{what}: {} {cost} KiB, {took:?}", reply.code);
        assert_eq!(reply.code, code, "{what}: {reply:?}");
        assert!(cost < COST_KIB_MAX, "{what}: {cost} KiB above {rest} KiB");
        assert!(took < Duration::from_secs(20), "{what} took {took:?}");
        self.tokyo.daemon().assert_alive();
        assert_eq!(self.held(), contexts, "{what} changed the directory");
        let log = self.log();
        assert!(log[logged..].contains(words), "{what}: no {words:?} in the log:\n{}", &log[logged..]);
        let told = log[logged..].matches("message-refused").count();
        assert!(told <= 1, "{what} is told {told} times:\n{}", &log[logged..]);
        await_true(&format!("a copy of {what}"), SOON, || self.kept().len() == kept + 1);
    }
}

/// Zeros that compress to almost nothing, in one frame.
fn zeros(bytes: usize) -> Vec<u8> {
    let mut frame = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("an encoder");
    let piece = vec![0; 1 << 20];
    (0..bytes >> 20).for_each(|_| std::io::Write::write_all(&mut frame, &piece).expect("to memory"));
    frame.finish().expect("to memory")
}

fn leb(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn stream(octets: &[u8]) -> Vec<u8> {
    [&leb(octets.len() as u64)[..], octets].concat()
}

/// A frame with chunks of these kinds and octets, and the end.
fn body(chunks: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let octets: Vec<u8> =
        chunks.iter().flat_map(|(kind, chunk)| [&[*kind][..], &stream(chunk)].concat()).collect();
    zstd::bulk::compress(&[&octets[..], &[0, 0]].concat(), 3).expect("compression")
}

#[test]
fn sealed_bombs_cost_no_more_than_a_payload_may() {
    let mut insider = Insider::start("bomb-sealed");
    insider.attempt("64 MiB of zeros, announced", 554, "message-refused", |insider| {
        insider.send_sealed(&zeros(64 << 20), Held::Zstd, 64 << 20)
    });
    insider.attempt("1 GiB, announced as 100 octets", 550, "does not decompress", |insider| {
        insider.send_sealed(&zeros(1 << 30), Held::Zstd, 100)
    });
    insider.attempt("1 GiB, announced", 552, "larger than allowed", |insider| {
        insider.send_sealed(&zeros(1 << 30), Held::Zstd, 1 << 30)
    });
    insider.attempt("a frame within a frame", 554, "message-refused", |insider| {
        let nested = zstd::bulk::compress(&zeros(1 << 30), 3).expect("compression");
        let length = zeros(1 << 30).len() as u64;
        insider.send_sealed(&nested, Held::Zstd, length)
    });
    insider.attempt("less than was announced", 550, "does not decompress", |insider| {
        insider.send_sealed(b"short", Held::Plain, 1000)
    });
}

#[test]
fn malformed_payloads_are_refused_before_they_are_believed() {
    let mut insider = Insider::start("bomb-cbor");
    let counts: [(&str, &[u8]); 7] = [
        // Key 3, an array of 2^32 - 1, 2^64 - 1 vector items; of parts; of notices.
        ("2^32 vector items", b"\xa2\x00\x01\x03\x9a\xff\xff\xff\xff"),
        ("2^64 vector items", b"\xa2\x00\x01\x03\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("2^64 parts", b"\xa3\x00\x01\x03\x80\x05\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("2^64 keys", b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00\x01"),
        ("a text of 2^63 octets", b"\xa2\x00\x01\x03\x81\xa1\x00\x7b\x7f\xff\xff\xff\xff\xff\xff\xff"),
        ("an indefinite array without an end", b"\xa2\x00\x01\x03\x9f"),
        ("an unknown tag", b"\xa2\x00\x01\x18\x63\xc6\xc6\xc6"),
    ];
    for (what, payload) in counts {
        insider.attempt(what, 554, "message-refused", |insider| insider.send_payload(payload));
    }
    insider.attempt("a million arrays within arrays", 554, "message-refused", |insider| {
        insider.send_payload(&[&b"\xa2\x00\x01\x03"[..], &vec![0x81; 1 << 20], b"\x80"].concat())
    });
    insider.attempt("4 million empty notices of 20 million", 554, "message-refused", |insider| {
        let mut payload = b"\xa3\x00\x01\x03\x80\x07\x9a".to_vec();
        payload.extend_from_slice(&(20u32 << 20).to_be_bytes());
        payload.extend(std::iter::repeat_n(*b"\xa2\x00\x00\x02\x60", 4 << 20).flatten());
        insider.send_payload(&payload)
    });
    // Under a key that this version does not know, anything may stand; it is stepped over, not stepped into.
    let unknown = [&b"\xa3\x00\x01\x03\x80\x18\x63"[..], &vec![0x81; 1 << 20], b"\x80"].concat();
    insider.send_payload(&unknown).expect(250);
    insider.tokyo.daemon().assert_alive();
}

#[test]
fn transfers_that_expand_beyond_bounds_are_not_applied() {
    let mut insider = Insider::start("bomb-transfer");
    let full = |insider: &Insider, body: &[u8]| insider.manifest(1, 1000, Base::Nothing, body);
    let context = insider.context.clone();
    let mut attack = |what: &str, body: Vec<u8>| {
        let context = context.clone();
        insider.attempt(what, 250, "transfer-not-applied", |insider| {
            let manifest = full(insider, &body);
            insider.send_transfer(&manifest, &body, &context)
        });
    };
    attack("1 GiB of zeros", zeros(1 << 30));
    attack("one chunk of 1 GiB", {
        let mut frame = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("an encoder");
        std::io::Write::write_all(&mut frame, &[&[5][..], &leb(1 << 30)].concat()).expect("to memory");
        let piece = vec![0; 1 << 20];
        (0..1024).for_each(|_| std::io::Write::write_all(&mut frame, &piece).expect("to memory"));
        frame.finish().expect("to memory")
    });
    attack("the largest chunk, of zeros", body(&[(5, vec![0; 132 << 20])]));
    attack("2^63 records", body(&[(4, leb(1 << 63))]));
    attack("8192 names of a megabyte each", {
        // One pattern of a megabyte, used by 8192 names.
        let text = stream(&vec![b'x'; 1 << 20]);
        let forms: Vec<u8> = std::iter::once(1).chain(std::iter::repeat_n(3, 8191)).collect();
        let column = [&[0, 0b111][..], &stream(&forms), &stream(&leb(1 << 20)), &text].concat();
        let batches = [&leb(1)[..], &[9; 12], &stream(&[0; 8192]), &stream(&[0; 8192])].concat();
        body(&[(4, [&batches[..], &stream(&[0; 8192]), &column, &column].concat())])
    });
    attack("no frame at all", b"not a frame".to_vec());
    attack("a frame of nothing", zstd::bulk::compress(b"", 3).expect("compression"));
    attack("a window of a gigabyte", {
        let mut frame = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
        frame.set_parameter(zstd::stream::raw::CParameter::WindowLog(27)).expect("a parameter");
        std::io::Write::write_all(&mut frame, &vec![0; 1 << 20]).expect("to memory");
        frame.finish().expect("to memory")
    });
}

#[test]
fn transfers_that_name_what_is_not_there_are_not_applied() {
    let mut insider = Insider::start("bomb-ranks");
    let context = insider.context.clone();
    let numbers = |number: u64| [&leb(1)[..], &stream(&leb(number << 1))].concat();
    let contents = |number: u64| [&numbers(number)[..], &[0, 1, 0], &stream(&[0]), &stream(&[])].concat();
    let bodies = [
        ("an entry deleted of an empty base", body(&[(2, numbers(0))])),
        ("rank 2^62 deleted", body(&[(2, numbers(1 << 62))])),
        ("contents for rank 2^62", body(&[(5, contents(1 << 62))])),
        ("contents for rank 0 of nothing", body(&[(5, contents(0))])),
        ("bases in a full load", body(&[(1, vec![1; 16])])),
        ("bases of 15 octets", body(&[(1, vec![1; 15])])),
        ("an unknown kind", body(&[(77, vec![1])])),
        ("chunks out of order", body(&[(5, contents(0)), (2, numbers(0))])),
        ("a chunk without records", body(&[(2, [&leb(0)[..], &stream(&[])].concat())])),
        ("octets left over", body(&[(2, [&numbers(0)[..], b"more"].concat())])),
        ("nothing at all, for a thousand entries", body(&[])),
    ];
    for (what, body) in &bodies {
        insider.attempt(what, 250, "transfer-not-applied", |insider| {
            let manifest = insider.manifest(1, 1000, Base::Nothing, body);
            insider.send_transfer(&manifest, body, &context)
        });
    }
    insider.attempt("a manifest of another length", 250, "transfer-not-applied", |insider| {
        let body = body(&[]);
        let manifest = Manifest { body_bytes: 7, ..insider.manifest(1, 0, Base::Nothing, &body) };
        insider.send_transfer(&manifest, &body, &context)
    });
    insider.attempt("a naming context of Tokyo's own", 250, "transfer-not-applied", |insider| {
        let body = body(&[]);
        let mut checkpoint = insider.checkpoint(1, 0);
        checkpoint.context = bridgehead::directory::Dn::parse("ou=tokyo,o=Example").expect("a DN");
        let manifest = Manifest {
            checkpoint: insider.sign(&checkpoint),
            ..insider.manifest(1, 0, Base::Nothing, &body)
        };
        insider.send_transfer(&manifest, &body, "ou=tokyo,o=Example")
    });
    insider.attempt(
        "a part that is of another context than its manifest",
        250,
        "transfer-not-applied",
        |insider| {
            let body = body(&[]);
            let manifest = insider.manifest(1, 0, Base::Nothing, &body);
            insider.send_transfer(&manifest, &body, "ou=tokyo,o=Example")
        },
    );
}

/// Parts of transfers that never become whole fill neither the disk nor the time of every later message.
#[test]
fn transfers_that_never_become_whole_are_bounded() {
    let mut insider = Insider::start("bomb-parts");
    let context = insider.context.clone();
    for round in 0..20u128 {
        // It stands where Tokyo does not, so the parts may lead somewhere.
        let position = Some(insider.checkpoint(9, 0).position);
        let item = VectorItem {
            context: context.clone(),
            position,
            digest: Some(Digest::EMPTY),
            standing: Standing::Follows,
        };
        let mut message = Message::new(vec![item]);
        for n in 0..200u128 {
            let transfer = TransferId((round * 1000 + n).to_be_bytes());
            let part =
                Part { transfer, index: 1, count: 131_072, manifest: Vec::new(), bytes: vec![n as u8; 4096] };
            message.parts.push(PartItem { context: context.clone(), part });
        }
        let began = Instant::now();
        insider.send(&message).expect(250);
        assert!(began.elapsed() < Duration::from_secs(5), "round {round} took {:?}", began.elapsed());
    }
    let size = std::fs::metadata(insider.tokyo.directory.join("data/directory.db")).expect("the store").len();
    println!("the store has {size} octets after 4,000 transfers begun");
    assert!(size < 16 << 20, "the store grew to {size} octets");
    assert!(insider.log().contains("transfer-not-applied"), "and that is told");
}
