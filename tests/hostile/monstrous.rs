//! Messages built to exhaust: memory, stack, time.

use std::time::{Duration, Instant};

use crate::support::{ByHand, Client, deliver, people};

/// Resident memory that no message may drive the daemon above, in KiB. A payload of the largest size is a part of it.
const PEAK_KIB_MAX: u64 = 512 << 10;

#[test]
fn monsters_are_refused_in_bounded_memory_and_time() {
    let mut pair = ByHand::start("monsters");
    let before = pair.tokyo.status()["contexts"].clone();
    let monsters: [(&str, Vec<u8>); 9] = [
        ("40,000 messages within messages", nested_messages(40_000)),
        ("20,000 multiparts within multiparts", nested_multiparts(20_000)),
        ("50,000 parts side by side", parts_side_by_side(50_000)),
        ("100,000 header fields", header_fields(100_000)),
        (
            "one header field of 2 MiB",
            [b"Subject: ".as_slice(), &[b'x'; 2 << 20], b"\r\n\r\nhello\r\n"].concat(),
        ),
        ("a header without an end", [b"X-A: b\r\n".as_slice(); 3].concat()),
        ("nothing at all", Vec::new()),
        ("all octets", (0..=255u8).filter(|b| !b"\r\n\0".contains(b)).collect()),
        ("base64 that never ends", never_ending_base64(8 << 20)),
    ];
    for (what, message) in &monsters {
        let began = Instant::now();
        let reply = deliver(&pair.tokyo, message);
        assert_eq!(reply.code / 100, 5, "{what}: {reply:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{what} took {:?}", began.elapsed());
        pair.tokyo.daemon().assert_alive();
        assert_eq!(pair.tokyo.status()["contexts"], before, "{what} changed the store");
    }
    let peak = pair.tokyo.daemon().peak_kib();
    assert!(peak < PEAK_KIB_MAX, "the daemon took {peak} KiB");
    pair.paris.import(&people(&pair.paris, 5));
    for mail in pair.intercept_from_paris() {
        deliver(&pair.tokyo, &mail.message).expect(250);
    }
    assert!(pair.tokyo.export(&pair.paris.context) == pair.paris.export(&pair.paris.context));
}

#[test]
fn a_message_larger_than_the_limit_is_refused_at_once_or_at_its_end() {
    let mut pair = ByHand::start("oversize");
    let mailbox = format!("<{}>", pair.tokyo.mailbox);
    let mut client = Client::greet(pair.tokyo.address);
    client.command("MAIL FROM:<a@outside.example> SIZE=99999999999").expect(552);

    // Undeclared: it may be cut off, but must never be accepted or kept in memory whole.
    client.command("MAIL FROM:<a@outside.example>").expect(250);
    client.command(&format!("RCPT TO:{mailbox}")).expect(250);
    client.command("DATA").expect(354);
    let line = [b"x".repeat(900).as_slice(), b"\r\n"].concat().repeat(1000);
    for _ in 0..120 {
        client.send(&line);
    }
    client.send(b".\r\n");
    client.reply().expect(552);
    pair.tokyo.daemon().assert_alive();
    let peak = pair.tokyo.daemon().peak_kib();
    assert!(peak < PEAK_KIB_MAX, "the daemon took {peak} KiB");
}

const TOP: &str =
    "From: a@outside.example\r\nTo: b@outside.example\r\nSubject: monster\r\nMIME-Version: 1.0\r\n";

fn nested_messages(depth: usize) -> Vec<u8> {
    let layer = "Content-Type: message/rfc822\r\n\r\n";
    format!("{TOP}{}hello\r\n", layer.repeat(depth)).into_bytes()
}

fn nested_multiparts(depth: usize) -> Vec<u8> {
    let layers: String = (0..depth)
        .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
        .collect();
    format!("{TOP}{layers}\r\nhello\r\n").into_bytes()
}

fn parts_side_by_side(count: usize) -> Vec<u8> {
    let part =
        "--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n";
    format!("{TOP}Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n", part.repeat(count))
        .into_bytes()
}

fn header_fields(count: usize) -> Vec<u8> {
    let fields: String = (0..count).map(|n| format!("X-{n}: v\r\n")).collect();
    format!("{TOP}{fields}\r\nhello\r\n").into_bytes()
}

fn never_ending_base64(length: usize) -> Vec<u8> {
    let line = format!("{}\r\n", "QUJD".repeat(19));
    let body = line.repeat(length / line.len());
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n";
    format!("{TOP}{head}{body}").into_bytes()
}
