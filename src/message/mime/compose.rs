//! Composing a replication mail.
//!
//! PROMISES
//!   Equal input, equal octets. Lines end in CRLF and none is longer than 78 octets but where a name or an address makes
//!   it so. All is 7-bit, so that no mail system has a reason to re-encode it. No name can add a header.
//!   The body is the sealed message and nothing else, as that of S/MIME mail is: a text beside it would be a
//!   third of the mail of one change. What a person needs to know is the subject.
//!
//! STANDARDS
//!   RFC 5322, RFC 2045 to 2049, RFC 3834 (Auto-Submitted).
//!
//! LIMITS
//!   Headers of usual names take less than 420 octets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::{MARK, MESSAGE_ID_PREFIX};
use crate::message::envelope::SEALED_OVERHEAD_BYTES_MAX;
use crate::message::name::{self, NameError};

/// Octets in one base64 line of 76 characters (RFC 2045 section 6.8).
const LINE_OCTETS: usize = 57;
/// A line of base64 with its CRLF.
const LINE_BYTES: usize = 78;
/// Everything but the attachment, for the longest names and mailboxes.
const FRAME_BYTES_MAX: usize = 2400;

/// What a mail is made of.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Replication mailbox of this site.
    pub from: &'a str,
    /// Replication mailbox of the receiving site.
    pub to: &'a str,
    /// The token of this mail ([`crate::message::keys::SiteKey::make_token`]); it becomes the Message-ID.
    pub token: &'a str,
    pub time: Timestamp,
    /// The sealed message.
    pub sealed: &'a [u8],
}

/// The whole mail, as it goes after DATA (dots not yet stuffed).
pub fn compose(letter: &Letter) -> Result<Vec<u8>, NameError> {
    let Letter { from, to, token, time, sealed } = *letter;
    let (_, domain) = name::split_mailbox(from)?;
    name::split_mailbox(to)?;
    debug_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric()), "tokens are base32");
    // Years before 1 have no RFC 5322 date; a clock that wrong is shown as 1970.
    let date =
        rfc2822::DateTimePrinter::new().timestamp_to_string(&time).unwrap_or_else(|_| EPOCH.to_owned());

    let head = format!(
        "From: {from}\r\n\
         To: {to}\r\n\
         Date: {date}\r\n\
         Subject: {MARK}, for programs to read\r\n\
         Message-ID: <{MESSAGE_ID_PREFIX}{token}@{domain}>\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: application/octet-stream; name=directory.bhm\r\n\
         Content-Transfer-Encoding: base64\r\n\
         \r\n"
    );
    let mut message = Vec::with_capacity(head.len() + message_bytes_max(sealed.len()) - FRAME_BYTES_MAX + 16);
    message.extend_from_slice(head.as_bytes());
    let mut line = [0; LINE_BYTES - 2];
    for octets in sealed.chunks(LINE_OCTETS) {
        // 57 octets always fit 76 characters.
        let length = BASE64.encode_slice(octets, &mut line).unwrap_or_default();
        message.extend_from_slice(&line[..length]);
        message.extend_from_slice(b"\r\n");
    }
    Ok(message)
}

/// Octets of a mail at most that carries a sealed message of `sealed_bytes`.
pub const fn message_bytes_max(sealed_bytes: usize) -> usize {
    FRAME_BYTES_MAX + sealed_bytes.div_ceil(LINE_OCTETS) * LINE_BYTES
}

/// Octets of payload that surely fit into a mail of `mail_bytes`; trace headers added on the way not counted.
pub const fn payload_bytes_max(mail_bytes: usize) -> usize {
    let sealed = mail_bytes.saturating_sub(FRAME_BYTES_MAX) / LINE_BYTES * LINE_OCTETS;
    sealed.saturating_sub(SEALED_OVERHEAD_BYTES_MAX)
}

const EPOCH: &str = "Thu, 1 Jan 1970 00:00:00 -0000";

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(sealed: &[u8]) -> Letter<'_> {
        Letter {
            from: "bridgehead@alpha.example.org",
            to: "bridgehead@beta.example.org",
            token: "abcdefghijklmnopqrst",
            time: "2026-11-22T14:00:00Z".parse().unwrap(),
            sealed,
        }
    }

    #[test]
    fn a_mail_is_small_and_seven_bit_and_its_lines_are_short() {
        let message = compose(&letter(&[0xff; 200])).unwrap();
        let text = String::from_utf8(message).unwrap();
        assert!(text.is_ascii());
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        assert!(text.lines().all(|line| line.len() <= 78), "{text}");
        let frame = compose(&letter(b"")).unwrap().len();
        assert!(frame < 420, "{frame}");
        assert!(text.contains("Date: Sun, 22 Nov 2026 14:00:00 -0000\r\n"), "{text}");
        assert!(text.contains("\r\nMessage-ID: <bh.abcdefghijklmnopqrst@alpha.example.org>\r\n"));
        assert!(text.contains(MARK));
    }

    #[test]
    fn bounds_hold_for_the_longest_names() {
        let mailbox = format!("{}@{}", "m".repeat(32), vec!["d".repeat(62); 4].join(".") + ".x");
        let token = "t".repeat(29);
        for octets in [0, 1, 57, 58, 5000] {
            let sealed = vec![1; octets];
            let longest = Letter { from: &mailbox, to: &mailbox, token: &token, ..letter(&sealed) };
            let length = compose(&longest).unwrap().len();
            assert!(length <= message_bytes_max(octets), "{octets}: {length}");
        }
        for mail in [0, 16 << 10, 1 << 20] {
            let sealed = payload_bytes_max(mail) + SEALED_OVERHEAD_BYTES_MAX;
            assert!(message_bytes_max(sealed) <= mail || payload_bytes_max(mail) == 0);
        }
        assert!(payload_bytes_max(16 << 10) > 9000);
    }

    #[test]
    fn no_name_adds_a_header() {
        for bad in ["a\r\nBcc: x@y", "a@b>\r\nX: y", "", "a b"] {
            assert!(compose(&Letter { from: bad, ..letter(b"") }).is_err());
            assert!(compose(&Letter { to: bad, ..letter(b"") }).is_err());
        }
    }
}
