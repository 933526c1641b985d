//! The parts of a message, found without recursion and within bounds.
//!
//! PROMISES
//!   Time grows with the size of the message times [`DEPTH_MAX`]; memory with its number of parts, which is bounded;
//!   the stack not at all. Nothing is decoded here.
//!
//! mail-parser reads headers, and only those: its own walk over nested messages descends on the stack, and a mail of a
//! megabyte made of nested messages ends the process.
//!
//! STANDARDS
//!   RFC 2045, RFC 2046 (multipart, section 5.1; message/rfc822, section 5.2.1), read leniently: a missing last
//!   boundary ends with the message, line ends may be LF.
//!
//! LIMITS
//!   [`DEPTH_MAX`], [`PARTS_MAX`], [`HEADER_BYTES_MAX`].
//!
//! BUGS
//!   A nested message with a transfer encoding, which RFC 2046 forbids, is a leaf.

use mail_parser::{HeaderName, Message, MessageParser, MimeHeaders};
use memchr::{memchr, memmem};

/// Levels of nesting; a mail gains one or two by a mailing list and a scanner.
pub const DEPTH_MAX: usize = 10;
/// Parts of a message, the nested ones included.
pub const PARTS_MAX: usize = 100;
/// Octets of the headers of one part.
pub const HEADER_BYTES_MAX: usize = 256 << 10;
/// RFC 2046 section 5.1.1 allows 70.
const BOUNDARY_BYTES_MAX: usize = 200;

/// The sender's fault, or that of the mail systems between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    TooDeep,
    TooManyParts,
    HeaderTooLong,
}

/// A message taken apart.
#[derive(Debug)]
pub struct Walk<'a> {
    /// The headers of the message itself, then those of nested messages in order of appearance.
    pub messages: Vec<Message<'a>>,
    /// The parts that hold something, in order of appearance.
    pub leaves: Vec<Leaf<'a>>,
    /// Whether it holds a delivery report (RFC 6522).
    pub is_report: bool,
    /// Whether every multipart had its last boundary; if not, the message was probably cut off.
    pub is_complete: bool,
}

/// A part that is neither multipart nor a nested message.
#[derive(Debug)]
pub struct Leaf<'a> {
    /// `type/subtype` in lower case.
    pub kind: String,
    pub encoding: Encoding,
    pub body: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 7bit, 8bit, binary, and whatever is not known.
    Identity,
    QuotedPrintable,
    Base64,
}

/// What is still to be looked at: octets that begin with headers.
struct Pending<'a> {
    bytes: &'a [u8],
    depth: usize,
    is_message: bool,
}

/// Takes a message apart.
pub fn walk(message: &[u8]) -> Result<Walk<'_>, WalkError> {
    let mut walk = Walk { messages: Vec::new(), leaves: Vec::new(), is_report: false, is_complete: true };
    let mut pending = vec![Pending { bytes: message, depth: 0, is_message: true }];
    let mut parts = 0;
    while let Some(Pending { bytes, depth, is_message }) = pending.pop() {
        parts += 1;
        if parts > PARTS_MAX {
            return Err(WalkError::TooManyParts);
        }
        if depth > DEPTH_MAX {
            return Err(WalkError::TooDeep);
        }
        let (head, body) = split_head(bytes)?;
        let headers = parse(head);
        let kind = headers.as_ref().map_or_else(|| "text/plain".to_owned(), kind);
        let encoding = headers.as_ref().map_or(Encoding::Identity, encoding);
        walk.is_report |= kind == "multipart/report";
        match headers.as_ref().and_then(boundary) {
            Some(boundary) if kind.starts_with("multipart/") => {
                let (inside, is_closed) = split_multipart(body, &boundary)?;
                walk.is_complete &= is_closed;
                let inside =
                    inside.into_iter().map(|bytes| Pending { bytes, depth: depth + 1, is_message: false });
                pending.extend(inside.rev());
            }
            _ if encoding == Encoding::Identity && (kind == "message/rfc822" || kind == "message/global") => {
                pending.push(Pending { bytes: body, depth: depth + 1, is_message: true });
            }
            _ => walk.leaves.push(Leaf { kind, encoding, body }),
        }
        if is_message {
            walk.messages.extend(headers);
        }
    }
    Ok(walk)
}

/// Reads the headers that a walk needs.
pub fn parse(head: &[u8]) -> Option<Message<'_>> {
    MessageParser::new()
        .with_mime_headers()
        .header_text(HeaderName::MessageId)
        .header_text(HeaderName::Subject)
        .header_address(HeaderName::From)
        .default_header_ignore()
        .parse_headers(head)
        .filter(|headers| !headers.parts.is_empty())
}

fn kind(headers: &Message) -> String {
    // RFC 2045 section 5.2: without Content-Type it is text.
    headers.content_type().map_or_else(
        || "text/plain".to_owned(),
        |kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default()).to_ascii_lowercase(),
    )
}

fn boundary(headers: &Message) -> Option<Vec<u8>> {
    let boundary = headers.content_type()?.attribute("boundary")?.trim_end().as_bytes();
    (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()).then(|| boundary.to_vec())
}

fn encoding(headers: &Message) -> Encoding {
    match headers.content_transfer_encoding().map(str::trim) {
        Some(encoding) if encoding.eq_ignore_ascii_case("base64") => Encoding::Base64,
        Some(encoding) if encoding.eq_ignore_ascii_case("quoted-printable") => Encoding::QuotedPrintable,
        _ => Encoding::Identity,
    }
}

/// Splits at the first empty line, which stays with the headers.
fn split_head(bytes: &[u8]) -> Result<(&[u8], &[u8]), WalkError> {
    let mut at = 0;
    while let Some(end) = memchr(b'\n', &bytes[at..bytes.len().min(HEADER_BYTES_MAX)]) {
        let is_empty = matches!(&bytes[at..at + end], b"" | b"\r");
        at += end + 1;
        if is_empty {
            return Ok(bytes.split_at(at));
        }
        if at >= HEADER_BYTES_MAX {
            return Err(WalkError::HeaderTooLong);
        }
    }
    // No empty line: all of it is headers, unless they are endless.
    if bytes.len() <= HEADER_BYTES_MAX { Ok((bytes, &[])) } else { Err(WalkError::HeaderTooLong) }
}

/// The parts between the boundary lines, and whether the last one was seen.
fn split_multipart<'a>(body: &'a [u8], boundary: &[u8]) -> Result<(Vec<&'a [u8]>, bool), WalkError> {
    let delimiter = [b"--", boundary].concat();
    let mut parts = Vec::new();
    let mut begun = None;
    for at in memmem::find_iter(body, &delimiter) {
        let starts_line = at == 0 || body[at - 1] == b'\n';
        let after = &body[at + delimiter.len()..];
        // A boundary line is short; the bound keeps a body of boundaries without line ends linear.
        let after = &after[..after.len().min(BOUNDARY_BYTES_MAX)];
        let line = &after[..memchr(b'\n', after).unwrap_or(after.len())];
        let is_last = line.starts_with(b"--");
        let blank = if is_last { &line[2..] } else { line };
        // Else it is the boundary of another multipart that begins alike, or text.
        if !starts_line || !blank.iter().all(|byte| b" \t\r".contains(byte)) {
            continue;
        }
        if let Some(from) = begun {
            parts.push(part(body, from, at));
            if parts.len() > PARTS_MAX {
                return Err(WalkError::TooManyParts);
            }
        }
        if is_last {
            return Ok((parts, true));
        }
        begun = Some((at + delimiter.len() + line.len() + 1).min(body.len()));
    }
    if let Some(from) = begun {
        parts.push(&body[from..]);
    }
    Ok((parts, false))
}

/// RFC 2046 section 5.1.1: the line end before a boundary belongs to it, not to the part.
fn part(body: &[u8], from: usize, to: usize) -> &[u8] {
    let part = &body[from..to.max(from)];
    part.strip_suffix(b"\r\n").or(part.strip_suffix(b"\n")).unwrap_or(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(message: &[u8]) -> Vec<String> {
        walk(message).unwrap().leaves.into_iter().map(|leaf| leaf.kind).collect()
    }

    #[test]
    fn parts_are_found_in_order_with_their_exact_bodies() {
        let message = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\npreamble\r\n\
            --a\r\n\r\nfirst\r\n--ab\r\n\
            --a \r\nContent-Type: multipart/alternative; boundary=\"ab\"\r\n\r\n\
            --ab\r\nContent-Type: text/html\r\n\r\nsecond\r\n--ab--\r\n\
            --a\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <inner@x>\r\n\r\nthird\r\n--a--\r\nepilogue\r\n";
        let walk = walk(message).unwrap();
        let bodies: Vec<_> = walk.leaves.iter().map(|leaf| leaf.body).collect();
        assert_eq!(bodies, [&b"first\r\n--ab"[..], b"second", b"third"]);
        assert_eq!(kinds(message), ["text/plain", "text/html", "text/plain"]);
        assert_eq!(walk.messages.len(), 2);
        assert_eq!(walk.messages[1].message_id(), Some("<inner@x>"));
        assert!(walk.is_complete && !walk.is_report);
    }

    #[test]
    fn damage_is_read_leniently() {
        let bare = b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\nfirst\n--a\n\nsecond";
        let walk = walk(bare).unwrap();
        assert_eq!(walk.leaves.iter().map(|leaf| leaf.body).collect::<Vec<_>>(), [&b"first"[..], b"second"]);
        assert!(!walk.is_complete);
        assert_eq!(kinds(b""), ["text/plain"]);
        assert_eq!(kinds(b"\r\nbody"), ["text/plain"]);
        assert_eq!(kinds(b"Content-Type: multipart/mixed\r\n\r\nno boundary"), ["multipart/mixed"]);
    }

    #[test]
    fn nesting_by_the_ten_thousand_is_refused_quickly() {
        let messages = b"Content-Type: message/rfc822\r\n\r\n".repeat(50_000);
        assert_eq!(walk(&messages).unwrap_err(), WalkError::TooDeep);
        let digests = b"Content-Type: multipart/digest; boundary=a\r\n\r\n--a\r\n\r\n".repeat(50_000);
        assert!(walk(&digests).is_err());
        let mut multiparts = Vec::new();
        for level in 0..50_000 {
            let nested = format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n");
            multiparts.extend(nested.into_bytes());
        }
        assert_eq!(walk(&multiparts).unwrap_err(), WalkError::TooDeep);
        let head = &b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"[..];
        let flat = [head, &b"--a\r\n\r\n".repeat(50_000)].concat();
        assert_eq!(walk(&flat).unwrap_err(), WalkError::TooManyParts);
        let some = "Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned()
            + &"--b\r\n\r\n".repeat(PARTS_MAX / 2);
        let often = [head, format!("--a\r\n{some}\r\n").repeat(3).as_bytes()].concat();
        assert_eq!(walk(&often).unwrap_err(), WalkError::TooManyParts);
        assert_eq!(walk(&b"X: y\r\n".repeat(100_000)).unwrap_err(), WalkError::HeaderTooLong);
        assert_eq!(walk(&vec![b'x'; 1 << 20]).unwrap_err(), WalkError::HeaderTooLong);
        assert_eq!(walk(&[head, &b"--a".repeat(1 << 20)].concat()).unwrap().leaves.len(), 0);
    }

    proptest! {
        #[test]
        fn any_octets_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = walk(&bytes);
        }

        #[test]
        fn anything_like_mime_is_no_panic(
            pieces in proptest::collection::vec(prop::sample::select(vec![
                "Content-Type: ", "multipart/mixed", "message/rfc822", "; boundary=", "a", "\"", "\r\n", "\n", "--a",
                "--", "--a--", " ", "Content-Transfer-Encoding: base64", "=?utf-8?q?", "(", ";", "x",
            ]), 0..60)
        ) {
            let _ = walk(pieces.concat().as_bytes());
        }
    }
}
