//! The manifest of a transfer: what it takes a replica from, to what, and how much it would change.
//!
//! It rides in part 0 and is read before anything of the body is, so that a transfer that deletes too
//! much, starts from another base or is too big is seen before it costs anything.
//!
//! FORMAT
//!   One CBOR array: `[0 codec version, 1 signed checkpoint, 2 kind (0 full, 1 delta, 2 repair),
//!   3 base ([[invocation, USN], digest] or null), 4 octets of the body, 5 entries added, 6 entries changed,
//!   7 entries deleted, ?8 lineage, ?9 dictionary ([rank of the first entry, entries])]`; the lineage (see [`Lineage`])
//!   is there if the transfer leads from one invocation into another, and its digest is the one in the checkpoint.
//!   A reader skips elements that it does not know; whatever changes the meaning of the others raises the
//!   codec version.
//!
//! LIMITS
//!   [`MANIFEST_BYTES_MAX`] octets, so that it fits beside the first octets of the body in the smallest
//!   part.

use minicbor::{Decode, Encode};
use thiserror::Error;

use super::dictionary::Run;
use crate::directory::lineage::{END_BYTES_MAX, LINEAGE_TOLD_MAX};
use crate::directory::{Digest, Lineage, Position};
use crate::limits::{DN_BYTES_MAX, PART_BYTES_MIN};
use crate::replication::checkpoint::SignedCheckpoint;

/// What a transfer is: read before the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Where the replica stands afterwards, signed by the master.
    pub checkpoint: SignedCheckpoint,
    pub base: Base,
    /// Octets of the body, compressed.
    pub body_bytes: u64,
    /// Entries that the body adds, changes (renames included) and deletes.
    pub added: u64,
    pub changed: u64,
    pub deleted: u64,
    /// How the history came from the base to the checkpoint; empty within one invocation.
    pub lineage: Lineage,
    /// Entries of the base, none of which the transfer touches, that make the body's dictionary. Only of a delta.
    pub dictionary: Option<Run>,
}

/// What the replica must hold before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing: what it holds of the naming context is replaced.
    Nothing,
    /// Exactly the state at this position.
    At(Position, Digest),
    /// Any state whose other entries equal the master's; the body names entries by entryUUID.
    Repair,
}

/// The fault is the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ManifestError {
    #[error("the manifest of the transfer cannot be read")]
    Malformed,
    #[error("the transfer is coded in version {0}, newer than this program")]
    Version(u32),
    #[error("the manifest is {0} octets long, more than {MANIFEST_BYTES_MAX}")]
    TooLong(usize),
}

impl Manifest {
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        let (kind, base) = match self.base {
            Base::Nothing => (KIND_FULL, None),
            Base::At(position, digest) => (KIND_DELTA, Some((position, digest))),
            Base::Repair => (KIND_REPAIR, None),
        };
        let wire = Wire {
            codec: CODEC_VERSION,
            checkpoint: self.checkpoint.clone(),
            kind,
            base,
            body_bytes: self.body_bytes,
            added: self.added,
            changed: self.changed,
            deleted: self.deleted,
            lineage: Some(&self.lineage).filter(|lineage| !lineage.is_empty()).cloned(),
            dictionary: self.dictionary,
        };
        let bytes = minicbor::to_vec(&wire).map_err(|_| ManifestError::Malformed)?;
        match bytes.len() {
            0..=MANIFEST_BYTES_MAX => Ok(bytes),
            length => Err(ManifestError::TooLong(length)),
        }
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let version = decoder.array().and_then(|_| decoder.u32()).map_err(|_| ManifestError::Malformed)?;
        if version != CODEC_VERSION {
            return Err(ManifestError::Version(version));
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let wire: Wire = decoder.decode().map_err(|_| ManifestError::Malformed)?;
        if decoder.position() != bytes.len() {
            return Err(ManifestError::Malformed);
        }
        if wire.dictionary.is_some() && wire.kind != KIND_DELTA {
            return Err(ManifestError::Malformed);
        }
        let base = match (wire.kind, wire.base) {
            (KIND_FULL, None) => Base::Nothing,
            (KIND_DELTA, Some((position, digest))) => Base::At(position, digest),
            (KIND_REPAIR, None) => Base::Repair,
            _ => return Err(ManifestError::Malformed),
        };
        let lineage = wire.lineage.unwrap_or_default();
        if lineage.ends().len() > LINEAGE_TOLD_MAX {
            return Err(ManifestError::Malformed);
        }
        Ok(Manifest {
            checkpoint: wire.checkpoint,
            base,
            body_bytes: wire.body_bytes,
            added: wire.added,
            changed: wire.changed,
            deleted: wire.deleted,
            lineage,
            dictionary: wire.dictionary,
        })
    }
}

/// Most octets of an encoded manifest.
pub const MANIFEST_BYTES_MAX: usize = DN_BYTES_MAX + (LINEAGE_TOLD_MAX + 1) * END_BYTES_MAX + (1 << 10);

const _: () = assert!(MANIFEST_BYTES_MAX < PART_BYTES_MIN);

/// The version of the body's format that this program writes and the only one that it reads.
pub const CODEC_VERSION: u32 = 1;

const KIND_FULL: u8 = 0;
const KIND_DELTA: u8 = 1;
const KIND_REPAIR: u8 = 2;

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    codec: u32,
    #[n(1)]
    checkpoint: SignedCheckpoint,
    #[n(2)]
    kind: u8,
    #[n(3)]
    base: Option<(Position, Digest)>,
    #[n(4)]
    body_bytes: u64,
    #[n(5)]
    added: u64,
    #[n(6)]
    changed: u64,
    #[n(7)]
    deleted: u64,
    #[n(8)]
    lineage: Option<Lineage>,
    #[n(9)]
    dictionary: Option<Run>,
}

#[cfg(test)]
pub(crate) mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::replication::checkpoint::Checkpoint;

    pub(crate) fn manifest(base: Base) -> Manifest {
        let checkpoint = Checkpoint {
            context: crate::directory::dn::Dn::parse("ou=paris,o=example").unwrap(),
            position: Position { invocation: Uuid::from_u128(7), usn: 42 },
            digest: Digest([3; 32]),
            entries: 100_000,
            time: jiff::Timestamp::from_second(1_700_000_000).unwrap(),
            lineage: Digest::EMPTY,
        };
        let checkpoint = checkpoint.sign(&ed25519_dalek::SigningKey::from_bytes(&[1; 32]));
        Manifest {
            checkpoint,
            base,
            body_bytes: 1000,
            added: 1,
            changed: 2,
            deleted: 3,
            lineage: Lineage::default(),
            dictionary: None,
        }
    }

    #[test]
    fn is_read_back_for_every_base() {
        let position = Position { invocation: Uuid::from_u128(9), usn: 41 };
        for base in [Base::Nothing, Base::At(position, Digest([4; 32])), Base::Repair] {
            let bytes = manifest(base).to_bytes().unwrap();
            assert!(bytes.len() < 280, "{} octets", bytes.len());
            assert_eq!(Manifest::from_bytes(&bytes), Ok(manifest(base)));
            let dictionary = Some(Run { first: 100_000, entries: 32 });
            let bytes = Manifest { dictionary, ..manifest(base) }.to_bytes().unwrap();
            let read = Manifest::from_bytes(&bytes);
            assert_eq!(read.is_ok(), matches!(base, Base::At(..)), "only a delta has a base to draw from");
            assert!(read.is_err() || read.unwrap().dictionary == dictionary);
        }
    }

    #[test]
    fn a_base_that_does_not_fit_the_kind_is_malformed() {
        let mut bytes = manifest(Base::Nothing).to_bytes().unwrap();
        let kind = bytes.len() - 8;
        assert_eq!(bytes[kind], KIND_FULL, "the test looks at the wrong octet");
        bytes[kind] = KIND_DELTA;
        assert_eq!(Manifest::from_bytes(&bytes), Err(ManifestError::Malformed));
    }

    #[test]
    fn a_downgrade_of_the_codec_is_refused() {
        let mut bytes = manifest(Base::Nothing).to_bytes().unwrap();
        assert_eq!(u32::from(bytes[1]), CODEC_VERSION, "the test looks at the wrong octet");
        bytes[1] = 0;
        assert_eq!(Manifest::from_bytes(&bytes), Err(ManifestError::Version(0)));
    }

    #[test]
    fn a_newer_codec_is_told_apart_from_noise() {
        let mut bytes = manifest(Base::Nothing).to_bytes().unwrap();
        bytes[1] = 2;
        assert_eq!(Manifest::from_bytes(&bytes), Err(ManifestError::Version(2)));
        assert_eq!(Manifest::from_bytes(b"\xff\xff"), Err(ManifestError::Malformed));
        assert_eq!(Manifest::from_bytes(&[0; 50_000]), Err(ManifestError::TooLong(50_000)));
    }
}
