//! Replication mail as RFC 5322 messages: made here, found again there.
//!
//! [`compose()`] makes the smallest mail that says to a person what it is; [`extract()`] finds the sealed message in whatever
//! mail systems made of it. Both ends meet in a mark in the subject, by which a mail that lost its attachment is known.

mod compose;
mod extract;
mod walk;

pub use compose::{Letter, compose, message_bytes_max, payload_bytes_max};
pub(super) use extract::decode;
pub use extract::{Attachment, ExtractError, extract};
pub(super) use walk::{Encoding, Leaf, Walk, WalkError, parse, walk};

/// Stands in the subject of every replication mail, on one line and unencoded; once in a text beside the attachment.
pub(super) const MARK: &str = "bridgehead directory replication";
/// What our Message-IDs begin with; a token follows, then `@`.
pub(super) const MESSAGE_ID_PREFIX: &str = "bh.";
