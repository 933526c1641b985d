//! Finding the sealed message in what mail systems made of our mail.
//!
//! PROMISES
//!   The attachment is known by its content, not by its name, type or place: footers, subject tags, another transfer
//!   encoding or line width, wrapping in further parts or messages, even the base64 left as plain text do not hide it.
//!   When it is not there, the error says what happened to it. Bounded: see `walk.rs`; one part is decoded at a time.
//!
//! FAILURE
//!   [`ExtractError::refusal`] is the reply; the sender's postmaster reads there what to exempt from scanning.

use std::borrow::Cow;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use memchr::memmem;
use thiserror::Error;

use super::{Encoding, Leaf, MARK, MESSAGE_ID_PREFIX, Walk, WalkError, walk};
use crate::limits::REPLICATION_MESSAGE_BYTES_MAX;
use crate::message::envelope::{MAGIC, declared_bytes, is_but_for_magic};
use crate::message::{Fault, Refusal};

/// The base64 of [`MAGIC`], but for the last character, which depends on what follows.
const MAGIC_BASE64: &[u8] = b"i0JITQ0KGg";

/// A sealed message, cut out of its mail at exactly its own length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub sealed: Vec<u8>,
    /// The Message-ID of the mail, without angle brackets, for the log.
    pub message_id: Option<String>,
}

/// Why there is no sealed message in a mail.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExtractError {
    #[error("the mail has {0} octets, more than a replication message may")]
    TooLarge(usize),
    #[error("the mail has too many parts, too deeply nested parts or endless headers")]
    TooComplex,
    #[error("the mail is a delivery report")]
    Report,
    #[error("the attachment was removed from the mail on the way")]
    Stripped,
    #[error(
        "the mail was cut off on the way: {present} octets of the attachment are there, {expected} were sent"
    )]
    Truncated { expected: usize, present: usize },
    #[error("the mail was cut off on the way, before the attachment")]
    TruncatedBefore,
    #[error("the attachment was converted on the way as if it were text")]
    Converted,
    #[error("the attachment was altered on the way: it does not begin as it was sent")]
    Altered,
    #[error("the mail is not from bridgehead: somebody wrote to the replication mailbox")]
    UserMail,
    #[error("the mail cannot be parsed")]
    Unreadable,
}

/// Finds the sealed message in a mail.
pub fn extract(mail: &[u8]) -> Result<Attachment, ExtractError> {
    if mail.len() > REPLICATION_MESSAGE_BYTES_MAX {
        return Err(ExtractError::TooLarge(mail.len()));
    }
    // Reading headers is foreign code that meets foreign input: a panic there must not end the session.
    catch_unwind(AssertUnwindSafe(|| search(mail))).unwrap_or(Err(ExtractError::Unreadable))
}

fn search(mail: &[u8]) -> Result<Attachment, ExtractError> {
    let walk = walk(mail).map_err(|error| match error {
        WalkError::TooDeep | WalkError::TooManyParts | WalkError::HeaderTooLong => ExtractError::TooComplex,
    })?;
    // A report may hold what we sent, whole; it is not for us to open.
    if walk.is_report {
        return Err(ExtractError::Report);
    }
    let mut first_error = None;
    for leaf in &walk.leaves {
        match look_into(leaf) {
            Ok(Some(sealed)) => return Ok(Attachment { sealed, message_id: message_id(&walk) }),
            Ok(None) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| why_missing(mail, &walk)))
}

fn message_id(walk: &Walk) -> Option<String> {
    let id = walk.messages.first()?.message_id()?;
    Some(id.trim().trim_start_matches('<').trim_end_matches('>').chars().take(250).collect())
}

/// The sealed message in one part, however it is encoded.
fn look_into(leaf: &Leaf) -> Result<Option<Vec<u8>>, ExtractError> {
    let content = content(leaf);
    if let Some(place) = find_sealed(&content)? {
        return Ok(Some(cut_out(content, place)));
    }
    // The encoding may have been forgotten, or applied twice, or a text put above what is encoded.
    let encoded = [&content[..], leaf.body]
        .into_iter()
        .find_map(|text| find_line(text, MAGIC_BASE64).map(|at| &text[at..]));
    if let Some(text) = encoded {
        let content = decode_base64(text);
        return Ok(find_sealed(&content)?.map(|place| cut_out(content.into(), place)));
    }
    let converted = memmem::find(&content, b"BHM\r\n\x1a").or(memmem::find(&content, b"BHM\n\x1a"));
    if converted.is_some() { Err(ExtractError::Converted) } else { Ok(None) }
}

/// The content of a part; none where that is the body as it stands.
pub fn decode(leaf: &Leaf) -> Option<Vec<u8>> {
    match leaf.encoding {
        Encoding::Identity => None,
        Encoding::QuotedPrintable => quoted_printable_decode(leaf.body),
        Encoding::Base64 => Some(decode_base64(leaf.body)),
    }
}

/// The same, or the body as it stands.
fn content<'a>(leaf: &Leaf<'a>) -> Cow<'a, [u8]> {
    decode(leaf).map_or(Cow::Borrowed(leaf.body), Cow::Owned)
}

/// Where the sealed message is: as long as it declares, so that what was appended does no harm.
fn find_sealed(content: &[u8]) -> Result<Option<Range<usize>>, ExtractError> {
    let Some(at) = memmem::find(content, &MAGIC) else { return Ok(None) };
    let present = content.len() - at;
    let expected = declared_bytes(&content[at..]).ok_or(ExtractError::TruncatedBefore)?;
    if present < expected {
        Err(ExtractError::Truncated { expected, present })
    } else {
        Ok(Some(at..at + expected))
    }
}

/// Takes what is at `place`, in place if it can: messages are large.
fn cut_out(content: Cow<'_, [u8]>, place: Range<usize>) -> Vec<u8> {
    match content {
        Cow::Borrowed(content) => content[place].to_vec(),
        Cow::Owned(mut content) => {
            content.truncate(place.end);
            content.drain(..place.start);
            content
        }
    }
}

/// The first line that begins with `start`, quoting marks and blanks aside.
fn find_line(content: &[u8], start: &[u8]) -> Option<usize> {
    memmem::find_iter(content, start).find(|at| {
        let near = &content[at.saturating_sub(80)..*at];
        let line = near.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        line.len() < 80 && line.iter().all(|byte| b" \t>".contains(byte))
    })
}

/// Decodes as far as it is base64: blanks, line ends and quoting marks are passed over, anything else ends it.
fn decode_base64(text: &[u8]) -> Vec<u8> {
    let mut digits = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => digits.push(*byte),
            b' ' | b'\t' | b'\r' | b'\n' | b'>' => {}
            _ => break,
        }
    }
    // One digit beyond whole groups decodes to nothing.
    if digits.len() % 4 == 1 {
        digits.pop();
    }
    LENIENT.decode(&digits).unwrap_or_default()
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What became of the attachment, judged by what is left of the mail.
fn why_missing(mail: &[u8], walk: &Walk) -> ExtractError {
    let mut ids = walk.messages.iter().filter_map(|message| message.message_id());
    let is_ours = ids.any(|id| id.trim_start_matches('<').starts_with(MESSAGE_ID_PREFIX))
        || memmem::find(mail, MARK.as_bytes()).is_some();
    let is_altered = |leaf: &Leaf| is_but_for_magic(&content(leaf));
    match (is_ours, walk.is_complete) {
        (true, true) if walk.leaves.iter().any(is_altered) => ExtractError::Altered,
        (true, true) => ExtractError::Stripped,
        (true, false) => ExtractError::TruncatedBefore,
        (false, _) => ExtractError::UserMail,
    }
}

impl ExtractError {
    /// Whose fault it is, as far as can be told.
    pub fn fault(&self) -> Fault {
        match self {
            ExtractError::Stripped
            | ExtractError::Truncated { .. }
            | ExtractError::TruncatedBefore
            | ExtractError::Converted
            | ExtractError::Altered => Fault::Transit,
            ExtractError::TooLarge(_)
            | ExtractError::TooComplex
            | ExtractError::Report
            | ExtractError::UserMail
            | ExtractError::Unreadable => Fault::Sender,
        }
    }

    /// What to answer to the mail.
    pub fn refusal(&self) -> Refusal {
        let (code, enhanced, text) = match self {
            ExtractError::TooLarge(_) => (552, "5.3.4", "message too large for directory replication"),
            ExtractError::TooComplex => {
                (554, "5.6.0", "message structure too complex for directory replication")
            }
            ExtractError::Report => (550, "5.6.0", "delivery report about nothing that was sent from here"),
            ExtractError::Stripped => {
                (554, "5.6.1", "attachment removed on the way: exempt this mailbox from attachment filtering")
            }
            ExtractError::Truncated { .. } | ExtractError::TruncatedBefore => {
                (554, "5.6.0", "message cut off on the way")
            }
            ExtractError::Converted => (554, "5.6.1", "attachment converted on the way as if it were text"),
            ExtractError::Altered => (554, "5.6.1", "attachment altered on the way"),
            ExtractError::UserMail => (
                550,
                "5.7.1",
                "this mailbox is for directory replication, no person reads it; write to postmaster",
            ),
            ExtractError::Unreadable => (554, "5.6.0", "message cannot be parsed"),
        };
        Refusal { code, enhanced, text: text.to_owned() }
    }
}
