//! What scanners, gateways and lists do to a message with an attachment, as functions of its octets.
//!
//! Each is what some product does. They work on mail in the form that bridgehead composes, an attachment in base64 that is the
//! whole body or a part of multipart/mixed; on anything else they change nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One habit of a mail system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// A tag before the subject.
    Tag,
    /// Header fields of its own, and others folded.
    Headers,
    /// A disclaimer as one more part, in a multipart made for it if there is none.
    Footer,
    /// A warning above the attachment's base64, as if that were text.
    Above,
    /// A disclaimer below it.
    Below,
    /// Base64 in lines of another length.
    Rewrap,
    /// Base64 in one line, as long as it may be.
    LongLines,
    /// Another transfer encoding.
    QuotedPrintable,
    /// Another type and name for the attachment.
    Retype,
    /// The whole message as an attachment of another.
    Forward,
    /// Octets behind the attachment's own.
    Append,
    /// The attachment replaced by a note.
    Strip,
    /// The attachment there, with nothing in it.
    Empty,
    /// The second half of the message gone, as if it had ended there.
    Truncate,
    /// Decoded and sent as text in 8 bits, line ends made uniform.
    EightBit,
    /// One octet of the attachment changed.
    Damage,
}

impl Rewrite {
    /// After these the sealed message is still there.
    pub const HARMLESS: [Rewrite; 11] = [
        Rewrite::Tag,
        Rewrite::Headers,
        Rewrite::Footer,
        Rewrite::Rewrap,
        Rewrite::LongLines,
        Rewrite::QuotedPrintable,
        Rewrite::Retype,
        Rewrite::Forward,
        Rewrite::Append,
        Rewrite::Above,
        Rewrite::Below,
    ];

    /// After these it is not.
    pub const HARMFUL: [Rewrite; 5] =
        [Rewrite::Strip, Rewrite::Empty, Rewrite::Truncate, Rewrite::EightBit, Rewrite::Damage];

    pub fn apply(self, message: &[u8]) -> Vec<u8> {
        match self {
            Rewrite::Tag => {
                change_text(message, |text| text.replacen("\r\nSubject: ", "\r\nSubject: [EXTERN] ", 1))
            }
            Rewrite::Headers => change_text(message, |text| {
                let added = "X-Spam-Status: No, score=-1.9 required=5.0\r\n\ttests=BAYES_00,\r\n\tRCVD_IN_DNSWL\r\n\
                    X-Virus-Scanned: by a scanner at mx.example\r\n";
                format!("{added}{}", text.replacen("; name=", ";\r\n\tname=", 1))
            }),
            Rewrite::Footer => change_text(message, footer),
            Rewrite::Rewrap => {
                attachment(message, |a| a.encoded("base64", &lines(&STANDARD.encode(&a.octets), 60)))
            }
            Rewrite::LongLines => {
                attachment(message, |a| a.encoded("base64", &lines(&STANDARD.encode(&a.octets), 996)))
            }
            Rewrite::QuotedPrintable => {
                attachment(message, |a| a.encoded("quoted-printable", &quoted_printable(&a.octets)))
            }
            Rewrite::Retype => change_text(message, |text| {
                text.replace("application/octet-stream", "text/plain")
                    .replace("name=directory.bhm", "name=\"ATT00001.txt\"")
            }),
            Rewrite::Above => attachment(message, |a| {
                let encoded = lines(&STANDARD.encode(&a.octets), 76);
                a.encoded("base64", &format!("Caution: this message is from outside.\r\n\r\n{encoded}"))
            }),
            Rewrite::Below => attachment(message, |a| {
                let encoded = lines(&STANDARD.encode(&a.octets), 76);
                a.encoded("base64", &format!("{encoded}\r\n\r\n{DISCLAIMER}"))
            }),
            Rewrite::Forward => forward(message),
            Rewrite::Append => attachment(message, |a| {
                let more = [&a.octets[..], b"\r\nchecked by a scanner\r\n"].concat();
                a.encoded("base64", &lines(&STANDARD.encode(more), 76))
            }),
            Rewrite::Strip => attachment(message, |a| {
                let note =
                    "Content-Type: text/plain\r\n\r\nAn attachment was removed, for its type is not allowed.";
                [a.before_header, note.as_bytes(), a.after].concat()
            }),
            Rewrite::Empty => attachment(message, |a| a.encoded("base64", "")),
            Rewrite::Truncate => attachment(message, |a| {
                let encoded = lines(&STANDARD.encode(&a.octets[..a.octets.len() / 2]), 76);
                a.encoded("base64", &encoded)
            }),
            Rewrite::EightBit => attachment(message, |a| a.raw("8bit", &uniform_lines(&a.octets))),
            Rewrite::Damage => attachment(message, |a| {
                let mut octets = a.octets.clone();
                let middle = octets.len() / 2;
                // Another rewrite may have left nothing of it.
                octets.iter_mut().skip(middle).take(1).for_each(|octet| *octet ^= 0x20);
                a.encoded("base64", &lines(&STANDARD.encode(octets), 76))
            }),
        }
    }
}

/// A message around its attachment.
struct Attachment<'m> {
    /// Up to its own header fields.
    before_header: &'m [u8],
    header: &'m str,
    octets: Vec<u8>,
    /// From the line end before the next boundary or the end of the message.
    after: &'m [u8],
}

const DISCLAIMER: &str = "This message is confidential and intended for its addressee only.\r\n";
const ENCODING: &str = "Content-Transfer-Encoding: base64\r\n";

impl<'m> Attachment<'m> {
    fn find(message: &'m [u8]) -> Option<Attachment<'m>> {
        let text = std::str::from_utf8(message).ok()?;
        let marker = text.rfind(ENCODING)?;
        let header_at = text[..marker].rfind("\r\nContent-Type: ")? + 2;
        let body_at = marker + text[marker..].find("\r\n\r\n")? + 4;
        let last = text.trim_end_matches("\r\n").len().max(body_at);
        let end = text[body_at..].find("\r\n--").map_or(last, |at| body_at + at);
        let octets = STANDARD.decode(text[body_at..end].replace("\r\n", "")).ok()?;
        Some(Attachment {
            before_header: &message[..header_at],
            header: &text[header_at..body_at],
            octets,
            after: &message[end..],
        })
    }

    fn encoded(&self, encoding: &str, body: &str) -> Vec<u8> {
        self.raw(encoding, body.as_bytes())
    }

    fn raw(&self, encoding: &str, body: &[u8]) -> Vec<u8> {
        let header = self.header.replace(ENCODING, &format!("Content-Transfer-Encoding: {encoding}\r\n"));
        [self.before_header, header.as_bytes(), body, self.after].concat()
    }
}

fn attachment(message: &[u8], change: impl FnOnce(&Attachment) -> Vec<u8>) -> Vec<u8> {
    Attachment::find(message).map_or_else(|| message.to_vec(), |found| change(&found))
}

fn change_text(message: &[u8], change: impl FnOnce(&str) -> String) -> Vec<u8> {
    std::str::from_utf8(message).map_or_else(|_| message.to_vec(), |text| change(text).into_bytes())
}

fn footer(text: &str) -> String {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return text.to_owned() };
    let part = |boundary: &str| {
        format!("--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{DISCLAIMER}--{boundary}--")
    };
    if let Some((_, rest)) = head.split_once("boundary=") {
        let boundary = rest.split("\r\n").next().unwrap_or_default().trim_matches('"');
        return text.replace(&format!("--{boundary}--"), &part(boundary));
    }
    // The fields about the body go with it.
    let (mut above, mut below, mut goes) = (String::new(), String::new(), false);
    for line in head.split("\r\n") {
        goes = if line.starts_with(['\t', ' ']) { goes } else { line.starts_with("Content-") };
        let side = if goes { &mut below } else { &mut above };
        side.push_str(line);
        side.push_str("\r\n");
    }
    let kind = "Content-Type: multipart/mixed; boundary=\"footer\"";
    format!("{above}{kind}\r\n\r\n--footer\r\n{below}\r\n{body}{}\r\n", part("footer"))
}

fn forward(message: &[u8]) -> Vec<u8> {
    let outer = b"From: <scanner@mx.example>\r\nSubject: [checked]\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=outer\r\n\r\n--outer\r\nContent-Type: text/plain\r\n\r\n\
        The scanner wrapped this message.\r\n--outer\r\nContent-Type: message/rfc822\r\n\r\n";
    [&outer[..], message, b"\r\n--outer--\r\n"].concat()
}

fn lines(encoded: &str, width: usize) -> String {
    // Base64 is ASCII: every octet is a character.
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(width).filter_map(|l| std::str::from_utf8(l).ok()).collect();
    lines.join("\r\n")
}

/// RFC 2045, 6.7, with everything encoded that could be harmed.
fn quoted_printable(octets: &[u8]) -> String {
    let mut out = String::new();
    let mut width = 0;
    for octet in octets {
        let word = match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(*octet).to_string(),
            other => format!("={other:02X}"),
        };
        if width + word.len() > 75 {
            out.push_str("=\r\n");
            width = 0;
        }
        width += word.len();
        out.push_str(&word);
    }
    out
}

/// Any line end becomes CRLF, NUL a blank, and lines are cut where RFC 5321 allows no more.
fn uniform_lines(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut width = 0;
    let mut before = 0;
    for &octet in octets {
        match octet {
            b'\n' if before == b'\r' => {}
            b'\r' | b'\n' => {
                out.extend_from_slice(b"\r\n");
                width = 0;
            }
            _ => {
                if width == 990 {
                    out.extend_from_slice(b"\r\n");
                    width = 0;
                }
                out.push(if octet == 0 { b' ' } else { octet });
                width += 1;
            }
        }
        before = octet;
    }
    out
}
