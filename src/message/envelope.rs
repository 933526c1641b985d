//! The octets of a sealed message: the outer layout and the header inside.
//!
//! FORMAT
//!   Outside, in clear; integers big-endian:
//!
//!   ```text
//!   offset  octets
//!        0       8  magic 8B 42 48 4D 0D 0A 1A 0A   (an octet above 127, CR LF, LF: text conversion shows)
//!        8       1  version, 1
//!        9       8  id of the receiver's sealing key
//!       17       4  length of the ciphertext
//!       21      32  HPKE encapsulated key
//!       53       n  HPKE ciphertext, its 16 octets of tag included
//!   ```
//!
//!   Inside the ciphertext: 2 octets of header length, the header, the body, 64 octets of signature. The header is a CBOR
//!   map with integer keys: 0 from (text), 1 to (text), 2 sequence number, 3 time (milliseconds since 1970, UTC), 4 how
//!   the body holds the payload (0 as it is, 1 one zstd frame), 5 octets of the payload.
//!   Unknown keys are skipped; they are signed all the same.
//!
//! STANDARDS
//!   RFC 8949 (CBOR), RFC 8878 (zstd), RFC 9180 (HPKE base mode: X25519, HKDF-SHA256, ChaCha20Poly1305).

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use jiff::Timestamp;
use minicbor::{Decode, Encode};

use super::name::SITE_NAME_BYTES_MAX;
use crate::limits;

/// What every sealed message begins with.
pub const MAGIC: [u8; 8] = *b"\x8bBHM\r\n\x1a\n";
/// The version of the format that this program writes and reads.
pub const VERSION: u8 = 1;
/// Octets of the payload of one message.
pub const PAYLOAD_BYTES_MAX: usize = limits::REPLICATION_MESSAGE_BYTES_MAX;
/// Octets of the header.
pub const HEADER_BYTES_MAX: usize = 1024;

pub(super) const LENGTH_AT: usize = 17;
pub(super) const PREFIX_BYTES: usize = 21;
pub(super) const ENCAPSULATED_BYTES: usize = 32;
pub(super) const OUTER_BYTES: usize = PREFIX_BYTES + ENCAPSULATED_BYTES;
pub(super) const TAG_BYTES: usize = 16;
pub(super) const HEADER_LENGTH_BYTES: usize = 2;
pub(super) const SIGNATURE_BYTES: usize = 64;
pub(super) const INNER_BYTES_MIN: usize = HEADER_LENGTH_BYTES + SIGNATURE_BYTES;

pub(super) const KIND: &[u8] = b"bridgehead message 1\0";
pub(super) const INFO: &[u8] = b"bridgehead envelope 1\0";
pub(super) type Kem = hpke::kem::X25519HkdfSha256;
pub(super) type Kdf = HkdfSha256;
pub(super) type Aead = ChaCha20Poly1305;

// The longest header: map, five keys, two names with two octets of length, three full integers, one small.
const HEADER_BYTES_LONGEST: usize = 1 + 6 + 2 * (2 + SITE_NAME_BYTES_MAX) + 3 * 9 + 1;
const _: () = assert!(HEADER_BYTES_LONGEST <= HEADER_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX + SEALED_OVERHEAD_BYTES_MAX <= u32::MAX as usize);

/// Octets that sealing adds to a payload at most.
pub const SEALED_OVERHEAD_BYTES_MAX: usize =
    OUTER_BYTES + HEADER_LENGTH_BYTES + HEADER_BYTES_LONGEST + SIGNATURE_BYTES + TAG_BYTES;

/// What stands above the payload, signed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The site that sealed it.
    pub from: String,
    /// The site that it is sealed to.
    pub to: String,
    /// The sender's number of this mail, never used twice for one receiver; by it a repeated message is known.
    pub seq: u64,
    /// When it was sealed, by the sender's clock, in whole milliseconds.
    pub time: Timestamp,
}

/// The header as CBOR spells it.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SpelledHeader {
    #[n(0)]
    pub(super) from: String,
    #[n(1)]
    pub(super) to: String,
    #[n(2)]
    pub(super) seq: u64,
    #[n(3)]
    pub(super) time: i64,
    #[n(4)]
    pub(super) compression: u8,
    #[n(5)]
    pub(super) payload_bytes: u64,
}

pub(super) const COMPRESSION_NONE: u8 = 0;
pub(super) const COMPRESSION_ZSTD: u8 = 1;

/// The text that the signature covers: what is in clear, for whom it is, and all that is inside.
///
/// The receiver's key in it keeps a receiver from sealing the message again to a third site.
pub(super) fn signed_text(prefix: &[u8], receiver: &[u8; 32], inner: &[u8]) -> Vec<u8> {
    [prefix, receiver, inner].concat()
}

/// How many octets a sealed message has that begins with these, if they do begin one.
///
/// For whoever finds it among other octets, as in an attachment that something was appended to.
pub fn declared_bytes(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(&MAGIC) { declared_length(bytes) } else { None }
}

/// Whether version and length are those of a sealed message, whatever stands where the magic should.
///
/// Nobody opens one whose magic was altered on the way, but it is not called removed either.
pub fn is_but_for_magic(bytes: &[u8]) -> bool {
    bytes.get(MAGIC.len()) == Some(&VERSION) && declared_length(bytes) == Some(bytes.len())
}

fn declared_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(LENGTH_AT..PREFIX_BYTES)?.try_into().ok()?;
    OUTER_BYTES.checked_add(u32::from_be_bytes(length) as usize)
}
