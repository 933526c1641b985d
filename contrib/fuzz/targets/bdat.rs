//! A message by BDAT or DATA, in chunks cut anywhere: what the next hop takes is what was sent, or it is refused for a
//! reason that a naive reading of the rules also finds.
//!
//! Input: flags, by which way and how it is cut, then the message.
#![no_main]

use bridgehead_fuzz::{Setting, Step, play};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [flags, how, rest @ ..] = data else { return };
    let (cuts, message) = rest.split_at(4.min(rest.len()));
    // No PROXY header, no small bounds: every sound message passes.
    let setting = Setting { flags: flags & (4 | 8 | 16 | 32 | 64), whims: Vec::new() };
    let with_bdat = how & 1 == 0;
    let chunks = cut(message, cuts);
    let mut steps = vec![Step::Await];
    let mut say = |octets: &[u8]| {
        steps.push(Step::Send(octets.to_vec()));
        if how & 2 == 0 {
            steps.push(Step::Await);
        }
    };
    if how & 2 == 0 {
        say(b"EHLO c\r\n");
        say(b"MAIL FROM:<a@b>\r\n");
        say(b"RCPT TO:<c@d>\r\n");
    } else {
        say(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    }
    if with_bdat {
        for (i, chunk) in chunks.iter().enumerate() {
            let last = if i + 1 == chunks.len() { " LAST" } else { "" };
            let mut octets = format!("BDAT {}{last}\r\n", chunk.len()).into_bytes();
            octets.extend_from_slice(chunk);
            say(&octets);
        }
    } else {
        steps.extend([Step::Await, Step::Send(b"DATA\r\n".to_vec()), Step::Await]);
        for stretch in cut(&stuffed(message), cuts) {
            steps.extend([Step::Send(stretch), Step::Await]);
        }
    }
    steps.push(Step::Await);
    let outcome = play(&setting, &steps);

    let normalize = setting.flags >> 2 & 3 == 1;
    let pass = setting.flags >> 2 & 3 == 2;
    let mut expected = if normalize { normalized(message) } else { message.to_vec() };
    // DATA cannot do without a last line end; BDAT to BDAT can.
    let lines = expected.split(|octet| *octet == b'\n').any(|line| line.len() > 998 + 1);
    let faulty = if with_bdat { is_bare(message) } else { is_bare(&stuffed(message)) };
    let dot_nul = !with_bdat && (message.starts_with(b".\0") || memchr(message, b"\r\n.\0"));
    let may_refuse =
        (faulty && !pass && !normalize) || lines || dot_nul || message.len() > 100_000 || loops(message);
    match outcome.taken.as_slice() {
        [] => assert!(may_refuse, "refused: {:?}", outcome.replies.last()),
        [taken] => {
            let at = trace_end(taken);
            let taken = &taken[at..];
            if taken != expected {
                // The one liberty that there is.
                expected.extend_from_slice(b"\r\n");
                assert!(taken == expected, "{:?} is not {:?}", show(taken), show(&expected));
            }
            assert!(!faulty || pass || normalize, "a fault was passed on");
            assert_eq!(outcome.counters.messages, 1, "taken, but not said so");
        }
        _ => panic!("one message became several"),
    }
});

fn cut(message: &[u8], cuts: &[u8]) -> Vec<Vec<u8>> {
    let (mut chunks, mut rest) = (Vec::new(), message);
    for size in cuts {
        let (chunk, later) = rest.split_at(usize::from(*size).min(rest.len()));
        chunks.push(chunk.to_vec());
        rest = later;
    }
    chunks.push(rest.to_vec());
    chunks
}

/// With a dot before each dot that follows CRLF, and the end of data.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, octet) in message.iter().enumerate() {
        if *octet == b'.' && (i == 0 || message[..i].ends_with(b"\r\n")) {
            out.push(b'.');
        }
        out.push(*octet);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

fn is_bare(message: &[u8]) -> bool {
    (0..message.len()).any(|i| match message[i] {
        b'\n' => i == 0 || message[i - 1] != b'\r',
        b'\r' => message.get(i + 1) != Some(&b'\n'),
        _ => false,
    })
}

fn normalized(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, octet) in message.iter().enumerate() {
        match octet {
            b'\r' => out.extend_from_slice(b"\r\n"),
            b'\n' if i > 0 && message[i - 1] == b'\r' => {}
            b'\n' => out.extend_from_slice(b"\r\n"),
            other => out.push(*other),
        }
    }
    out
}

fn loops(message: &[u8]) -> bool {
    message.windows(9).filter(|w| w.eq_ignore_ascii_case(b"received:")).count() > 50
        || memchr(message, b"bh-")
}

fn memchr(message: &[u8], what: &[u8]) -> bool {
    message.windows(what.len()).any(|window| window == what)
}

/// Where our trace field ends, which has four lines.
fn trace_end(message: &[u8]) -> usize {
    let ends = message.windows(2).enumerate().filter(|(_, w)| *w == b"\r\n");
    ends.map(|(at, _)| at + 2).nth(3).expect("a whole trace field")
}

fn show(octets: &[u8]) -> String {
    octets.escape_ascii().to_string()
}
