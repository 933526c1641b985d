//! The data phase, in stretches cut anywhere, against naive readings of RFC 5321 section 4.5.2: where a message ends, its
//! faults, un-stuffing, stuffing, normalizing.
//!
//! Input: eight sizes of stretches, then what comes over the wire.
#![no_main]

use bridgehead::smtp::data::{DataScanner, LineEndFault, LineEndScanner, Normalizer, Stuffer, Unstuffer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (sizes, wire) = data.split_at(8.min(data.len()));
    scanned(sizes, wire);
    stuffed_and_back(sizes, wire);
    normalized(sizes, wire);
});

/// The sizes in turn, then the rest at once.
fn stretches<'a>(sizes: &[u8], octets: &'a [u8]) -> Vec<&'a [u8]> {
    let (mut all, mut rest) = (Vec::new(), octets);
    for size in sizes {
        let (now, later) = rest.split_at(usize::from(*size).min(rest.len()));
        all.push(now);
        rest = later;
    }
    all.push(rest);
    all
}

fn scanned(sizes: &[u8], wire: &[u8]) {
    let (mut scanner, mut pending, mut content, mut plain) =
        (DataScanner::new(20), Vec::new(), Vec::new(), Vec::new());
    let (mut unstuffer, mut over) = (Unstuffer::default(), None);
    for stretch in stretches(sizes, wire) {
        pending.extend_from_slice(stretch);
        if over.is_some() {
            continue;
        }
        let scan = scanner.scan(&pending);
        unstuffer.push(&pending[..scan.content], &mut plain);
        content.extend(pending.drain(..scan.content));
        if scan.end {
            pending.drain(..3);
            over = Some(());
        } else {
            assert!(pending.len() <= 2, "more than CRLF is held back");
        }
    }
    let end = naive_end(wire);
    assert_eq!(over.is_some(), end.is_some(), "the end of data");
    let Some(end) = end else { return assert!(wire.starts_with(&content)) };
    assert_eq!(content, &wire[..end]);
    assert_eq!(pending, &wire[end + 3..]);
    assert_eq!(plain, naive_unstuffed(&content));
    assert_eq!(content.len() as u64 - scanner.stuffed(), plain.len() as u64);
    let dot_nul = naive_lines(&content).any(|line| line.starts_with(b".\0"));
    let bare_lf = (0..content.len()).any(|i| content[i] == b'\n' && (i == 0 || content[i - 1] != b'\r'));
    let bare_cr = (0..content.len()).any(|i| content[i] == b'\r' && content.get(i + 1) != Some(&b'\n'));
    assert_eq!(scanner.fault().is_some(), dot_nul || bare_lf || bare_cr);
    match scanner.fault() {
        Some(LineEndFault::BareLf) => assert!(bare_lf),
        Some(LineEndFault::BareCr) => assert!(bare_cr),
        Some(LineEndFault::DotNul) => assert!(dot_nul),
        None => {}
    }
    assert_eq!(scanner.line_too_long(), naive_lines(&content).any(|line| line.len() > 20));
}

fn stuffed_and_back(sizes: &[u8], message: &[u8]) {
    let (mut stuffer, mut wire) = (Stuffer::default(), Vec::new());
    for stretch in stretches(sizes, message) {
        stuffer.push(stretch, &mut wire);
    }
    stuffer.finish(&mut wire);
    let end = naive_end(&wire).expect("an end of data");
    assert_eq!(end + 3, wire.len(), "an end of data within the message");
    let back = naive_unstuffed(&wire[..end]);
    let mut expected = message.to_vec();
    if !expected.is_empty() && !expected.ends_with(b"\r\n") {
        expected.extend_from_slice(b"\r\n");
    }
    assert_eq!(back, expected);
}

fn normalized(sizes: &[u8], message: &[u8]) {
    let (mut normalizer, mut scanner, mut out) = (Normalizer::default(), LineEndScanner::new(20), Vec::new());
    for stretch in stretches(sizes, message) {
        normalizer.push(stretch, &mut out);
        scanner.scan(stretch);
    }
    normalizer.finish(&mut out);
    let mut expected = Vec::new();
    let mut at = 0;
    let mut sound = true;
    while at < message.len() {
        let crlf = message[at..].starts_with(b"\r\n");
        if crlf || matches!(message[at], b'\r' | b'\n') {
            sound &= crlf;
            at += usize::from(crlf);
            expected.extend_from_slice(b"\r\n");
        } else {
            expected.push(message[at]);
        }
        at += 1;
    }
    assert_eq!(out, expected);
    assert_eq!(scanner.finish().is_none(), sound);
    // A CR at the very end may still turn out to end its line.
    let ended = message.strip_suffix(b"\r").unwrap_or(message);
    assert_eq!(scanner.line_too_long(), naive_lines(ended).any(|line| line.len() > 20));
}

fn naive_end(wire: &[u8]) -> Option<usize> {
    (0..wire.len()).find(|i| wire[*i..].starts_with(b".\r\n") && (*i == 0 || wire[..*i].ends_with(b"\r\n")))
}

/// Lines that end in CRLF, without it.
fn naive_lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(content);
    std::iter::from_fn(move || {
        let line = rest?;
        match line.windows(2).position(|window| window == b"\r\n") {
            Some(end) => {
                rest = Some(&line[end + 2..]);
                Some(&line[..end])
            }
            None => {
                rest = None;
                Some(line)
            }
        }
    })
}

fn naive_unstuffed(content: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> =
        naive_lines(content).map(|line| line.strip_prefix(b".").unwrap_or(line)).collect();
    lines.join(&b"\r\n"[..])
}
