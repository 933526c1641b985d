//! A checkpoint: the master's signed word on what its naming context holds at one position.
//!
//! PROMISES
//!   Whoever holds a checkpoint that verifies under the master's key can prove a replica equal to the
//!   master's state at that position, whichever site carried it, and that this state follows on every end of an
//!   earlier invocation that the lineage digest names, and on no other.
//!
//! FORMAT
//!   The signed bytes are one CBOR array (RFC 8949, definite lengths):
//!   `[0 version = 1, 1 context DN (text), 2 invocation (16 octets), 3 USN, 4 state digest (32 octets),
//!   5 entries, 6 time (seconds since 1970, UTC), ?7 lineage digest (32 octets)]`, without the
//!   last if this is the master's first invocation (see [`Lineage`](crate::directory::Lineage)).
//!   The signature is Ed25519 (RFC 8032) by the master's signing key over
//!   `"bridgehead checkpoint 1" 0x00` followed by those bytes. On the wire a signed checkpoint is
//!   `[0 bytes, 1 signature (64 octets)]`.
//!
//! STANDARDS
//!   RFC 8949 (CBOR), RFC 8032 (Ed25519; strict verification: no small-order keys, one encoding).
//!
//! LIMITS
//!   [`CHECKPOINT_BYTES_MAX`] octets signed, [`USN_MAX`]. Time is kept in whole seconds.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use jiff::Timestamp;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use thiserror::Error;
use uuid::Uuid;

use crate::directory::dn::Dn;
use crate::directory::{ContextRecord, Digest, Position};

/// What a naming context holds at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The root of the naming context, as its master spells it.
    pub context: Dn,
    pub position: Position,
    pub digest: Digest,
    pub entries: u64,
    /// When the master signed it, by the master's clock, in whole seconds.
    pub time: Timestamp,
    /// Where the earlier invocations of this history ended, as the digest of them all.
    pub lineage: Digest,
}

/// A checkpoint as signed: the exact bytes, never encoded again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SignedCheckpoint {
    #[n(0)]
    bytes: ByteVec,
    #[n(1)]
    signature: ByteArray<64>,
}

/// The fault is the signer's or the carrier's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    #[error("the checkpoint is not signed by the master of its naming context")]
    Signature,
    #[error("the checkpoint cannot be read")]
    Malformed,
    #[error("the checkpoint is of version {0}, newer than this program")]
    Version(u32),
}

impl Checkpoint {
    /// Where a naming context stands, as of `time`.
    pub fn of(context: &ContextRecord, time: Timestamp) -> Checkpoint {
        Checkpoint {
            context: context.dn.clone(),
            position: context.position,
            digest: context.digest,
            entries: context.entries,
            time,
            lineage: context.lineage.digest(),
        }
    }

    pub fn sign(&self, key: &SigningKey) -> SignedCheckpoint {
        let wire = Wire {
            version: VERSION,
            context: self.context.to_string(),
            invocation: self.position.invocation.into_bytes().into(),
            usn: self.position.usn,
            digest: self.digest,
            entries: self.entries,
            time: self.time.as_second(),
            lineage: Some(self.lineage).filter(|lineage| *lineage != Digest::EMPTY),
        };
        let bytes = minicbor::to_vec(&wire).unwrap_or_default();
        let signature = key.sign(&signed_message(&bytes)).to_bytes();
        SignedCheckpoint { bytes: bytes.into(), signature: signature.into() }
    }
}

impl SignedCheckpoint {
    /// The checkpoint, once proved to be the word of the holder of `key`.
    pub fn verify(&self, key: &VerifyingKey) -> Result<Checkpoint, CheckpointError> {
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&signed_message(&self.bytes), &signature)
            .map_err(|_| CheckpointError::Signature)?;
        self.claimed()
    }

    /// What it says, unproved: enough to choose the key to verify it with, and for the log.
    pub fn claimed(&self) -> Result<Checkpoint, CheckpointError> {
        if self.bytes.len() > CHECKPOINT_BYTES_MAX {
            return Err(CheckpointError::Malformed);
        }
        let version = minicbor::Decoder::new(&self.bytes)
            .array()
            .ok()
            .and_then(|_| minicbor::Decoder::new(self.bytes.get(1..)?).u32().ok())
            .ok_or(CheckpointError::Malformed)?;
        if version != VERSION {
            return Err(CheckpointError::Version(version));
        }
        let mut decoder = minicbor::Decoder::new(&self.bytes);
        let wire: Wire = decoder.decode().map_err(|_| CheckpointError::Malformed)?;
        if decoder.position() != self.bytes.len() || wire.usn > USN_MAX {
            return Err(CheckpointError::Malformed);
        }
        Ok(Checkpoint {
            context: Dn::parse(&wire.context).map_err(|_| CheckpointError::Malformed)?,
            position: Position { invocation: Uuid::from_bytes(*wire.invocation), usn: wire.usn },
            digest: wire.digest,
            entries: wire.entries,
            time: Timestamp::from_second(wire.time).map_err(|_| CheckpointError::Malformed)?,
            lineage: wire.lineage.unwrap_or(Digest::EMPTY),
        })
    }

    /// For Table::Checkpoint: CBOR of the bytes and the signature.
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`SignedCheckpoint::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedCheckpoint, CheckpointError> {
        minicbor::decode(bytes).map_err(|_| CheckpointError::Malformed)
    }
}

/// Most octets of the signed bytes: a DN may be long, the rest is about 80.
pub const CHECKPOINT_BYTES_MAX: usize = 16 << 10;

/// So that there is always a next one, whatever a master signs.
pub const USN_MAX: u64 = u64::MAX >> 1;

const VERSION: u32 = 1;
const DOMAIN: &[u8] = b"bridgehead checkpoint 1\0";

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    version: u32,
    #[n(1)]
    context: String,
    #[n(2)]
    invocation: ByteArray<16>,
    #[n(3)]
    usn: u64,
    #[n(4)]
    digest: Digest,
    #[n(5)]
    entries: u64,
    #[n(6)]
    time: i64,
    #[n(7)]
    lineage: Option<Digest>,
}

fn signed_message(bytes: &[u8]) -> Vec<u8> {
    [DOMAIN, bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            context: Dn::parse("ou=paris,o=example").unwrap(),
            position: Position { invocation: Uuid::from_u128(7), usn: 42 },
            digest: Digest([3; 32]),
            entries: 100_000,
            time: Timestamp::from_second(1_700_000_000).unwrap(),
            lineage: Digest([8; 32]),
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn is_read_back_by_the_holder_of_the_masters_key() {
        let signed = checkpoint().sign(&key(1));
        let carried = SignedCheckpoint::from_bytes(&signed.to_bytes()).unwrap();
        assert_eq!(carried.verify(&key(1).verifying_key()), Ok(checkpoint()));
        assert_eq!(carried.claimed(), Ok(checkpoint()));
        let first = Checkpoint { lineage: Digest::EMPTY, ..checkpoint() };
        assert_eq!(first.sign(&key(1)).claimed(), Ok(first.clone()));
        assert!(
            first.sign(&key(1)).bytes.len() < signed.bytes.len() - 32,
            "a first life has no lineage to tell"
        );
    }

    #[test]
    fn another_sites_signature_is_refused() {
        let signed = checkpoint().sign(&key(2));
        assert_eq!(signed.verify(&key(1).verifying_key()), Err(CheckpointError::Signature));
    }

    #[test]
    fn no_octet_can_be_altered() {
        let signed = checkpoint().sign(&key(1));
        for index in 0..signed.bytes.len() {
            let mut altered = signed.clone();
            altered.bytes[index] ^= 1;
            assert_eq!(altered.verify(&key(1).verifying_key()), Err(CheckpointError::Signature));
        }
    }

    /// Its master signed it: nothing is wrong with it but the version.
    #[test]
    fn a_downgrade_of_the_checkpoint_is_refused() {
        let signed_as = |version: u8| {
            let mut bytes = checkpoint().sign(&key(1)).bytes;
            bytes[1] = version;
            let signature = key(1).sign(&signed_message(&bytes)).to_bytes().into();
            SignedCheckpoint { bytes, signature }.verify(&key(1).verifying_key())
        };
        assert_eq!(signed_as(VERSION as u8), Ok(checkpoint()));
        assert_eq!(signed_as(0), Err(CheckpointError::Version(0)));
    }

    #[test]
    fn a_usn_has_a_next_one() {
        let at = |usn| {
            let position = Position { usn, ..checkpoint().position };
            Checkpoint { position, ..checkpoint() }.sign(&key(1)).verify(&key(1).verifying_key())
        };
        assert_eq!(at(u64::MAX), Err(CheckpointError::Malformed));
        assert_eq!(at(1 << 63), Err(CheckpointError::Malformed));
        assert_eq!(at((1 << 63) - 1).map(|said| said.position.usn), Ok((1 << 63) - 1));
    }

    #[test]
    fn a_newer_version_and_trailing_octets_are_told_apart_from_noise() {
        let mut newer = checkpoint().sign(&key(1));
        newer.bytes[1] = 9;
        assert_eq!(newer.claimed(), Err(CheckpointError::Version(9)));
        let mut longer = checkpoint().sign(&key(1));
        longer.bytes.push(0);
        assert_eq!(longer.claimed(), Err(CheckpointError::Malformed));
        let noise = SignedCheckpoint { bytes: vec![0xff; 40].into(), signature: [0; 64].into() };
        assert_eq!(noise.claimed(), Err(CheckpointError::Malformed));
    }
}
