//! An entry, its canonical octets, its hash, and the entryUUIDs of one batch.
//!
//! PROMISES
//!   Equal entries have equal octets, different entries different ones: `decode` accepts nothing
//!   but what `encode` writes. The DN is not in the entry, but its parent's entryUUID and its RDN: a moved
//!   subtree changes one entry.
//! STANDARDS
//!   RFC 8949 section 4.2.1 (CBOR, core deterministic encoding):
//!   `[uuid: bytes 16, parent: bytes 16, rdn: text, [[name: text, [value: bytes, ...]], ...]]`, names
//!   sorted by their octets with ASCII letters in lower case. FIPS 180-4: the hash is
//!   SHA-256("bridgehead entry 1" NUL, then these octets). RFC 9562 section 5.8 (UUID version 8); RFC 4530 (entryUUID).
//! LIMITS
//!   `ENTRY_BYTES_MAX` octets of canonical form.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uuid::Uuid;

pub use super::attributes::Attributes;
use super::attributes::{Attribute, AttributeError};
use super::dn::{DnError, Rdn};
use super::position::Digest;
use crate::limits::{ATTRIBUTES_MAX, ENTRY_BYTES_MAX};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub uuid: Uuid,
    /// entryUUID of the entry above; nil for the topmost entry of the naming context.
    pub parent: Uuid,
    pub rdn: Rdn,
    pub attributes: Attributes,
}

/// Whoever made the octets is at fault.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    #[error("the entry has more than {ENTRY_BYTES_MAX} octets")]
    TooLong,
    #[error("not an entry: {0}")]
    Malformed(String),
    #[error("not the canonical form of the entry")]
    NotCanonical,
    #[error("the entry's name: {0}")]
    Name(#[from] DnError),
    #[error(transparent)]
    Attributes(#[from] AttributeError),
}

impl Entry {
    /// The canonical octets.
    pub fn encode(&self) -> Vec<u8> {
        encode(self.uuid, self.parent, &self.rdn, &self.attributes)
    }

    /// From canonical octets of any origin.
    pub fn decode(octets: &[u8]) -> Result<Entry, EntryError> {
        if octets.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong);
        }
        let entry = read(octets)?;
        if entry.encode() == octets { Ok(entry) } else { Err(EntryError::NotCanonical) }
    }

    pub fn hash(&self) -> Digest {
        hash_of(&self.encode())
    }
}

/// The hash of the entry with these canonical octets.
pub fn hash_of(octets: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(HASH_DOMAIN);
    hash.update(octets);
    Digest(hash.finalize().into())
}

const HASH_DOMAIN: &[u8] = b"bridgehead entry 1\0";

/// The canonical octets of the entry with these parts.
pub(super) fn encode(uuid: Uuid, parent: Uuid, rdn: &Rdn, attributes: &Attributes) -> Vec<u8> {
    let mut octets = Vec::with_capacity(1024);
    // Writing to a Vec cannot fail.
    let _ = write(&mut Encoder::new(&mut octets), uuid, parent, rdn, attributes);
    octets
}

fn write(
    e: &mut Encoder<&mut Vec<u8>>,
    uuid: Uuid,
    parent: Uuid,
    rdn: &Rdn,
    attributes: &Attributes,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    e.array(4)?.bytes(uuid.as_bytes())?.bytes(parent.as_bytes())?.str(rdn.as_str())?;
    e.array(attributes.len() as u64)?;
    for attribute in attributes {
        e.array(2)?.str(attribute.name())?.array(attribute.values().len() as u64)?;
        for value in attribute.values() {
            e.bytes(value)?;
        }
    }
    Ok(())
}

/// The beginning of what [`write()`] wrote: entryUUID, parent, RDN.
pub(super) fn read_name(octets: &[u8]) -> Result<(Uuid, Uuid, &str), EntryError> {
    let mut d = Decoder::new(octets);
    array(&mut d, Some(4))?;
    Ok((uuid_from(&mut d)?, uuid_from(&mut d)?, d.str()?))
}

/// Reads what [`write()`] wrote; lengths are believed only as far as octets are there.
pub(super) fn read(octets: &[u8]) -> Result<Entry, EntryError> {
    let mut d = Decoder::new(octets);
    array(&mut d, Some(4))?;
    let uuid = uuid_from(&mut d)?;
    let parent = uuid_from(&mut d)?;
    let rdn = Rdn::parse(d.str()?)?;
    let count = array(&mut d, None)?;
    if count > ATTRIBUTES_MAX as u64 {
        return Err(AttributeError::TooMany.into());
    }
    let mut attributes = Vec::with_capacity(count as usize);
    for _ in 0..count {
        array(&mut d, Some(2))?;
        let name = d.str()?;
        let count = array(&mut d, None)?;
        // A value takes at least one octet.
        let mut values = Vec::with_capacity(count.min((octets.len() - d.position()) as u64) as usize);
        for _ in 0..count {
            if d.datatype()? != Type::Bytes {
                return Err(EntryError::Malformed("a value is not a byte string".into()));
            }
            values.push(d.bytes()?.to_vec());
        }
        attributes.push(Attribute { name: name.to_owned(), values });
    }
    if d.position() != octets.len() {
        return Err(EntryError::Malformed("octets follow the entry".into()));
    }
    Ok(Entry { uuid, parent, rdn, attributes: Attributes::from_attributes(attributes)? })
}

fn array(d: &mut Decoder<'_>, expected: Option<u64>) -> Result<u64, EntryError> {
    match (d.array()?, expected) {
        (Some(n), None) => Ok(n),
        (Some(n), Some(m)) if n == m => Ok(n),
        _ => Err(EntryError::Malformed("an array of another length was expected".into())),
    }
}

fn uuid_from(d: &mut Decoder<'_>) -> Result<Uuid, EntryError> {
    Uuid::from_slice(d.bytes()?).map_err(|_| EntryError::Malformed("an entryUUID has 16 octets".into()))
}

impl From<minicbor::decode::Error> for EntryError {
    fn from(error: minicbor::decode::Error) -> EntryError {
        EntryError::Malformed(error.to_string())
    }
}

/// Odd, so that multiplication by it can be undone, and near the golden ratio, so that consecutive
/// ordinals spread evenly over the first nibbles.
const SPREAD: u32 = 0x9E37_79B1;
const UNSPREAD: u32 = {
    // Newton's iteration doubles the number of right bits: 3, 6, 12, 24, 48.
    let mut inverse = SPREAD;
    let mut i = 0;
    while i < 4 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(SPREAD.wrapping_mul(inverse)));
        i += 1;
    }
    inverse
};
const _: () = assert!(SPREAD.wrapping_mul(UNSPREAD) == 1);

/// The entryUUID of entry `ordinal` of a batch: UUID version 8, first the ordinal spread over 32 bits,
/// then the batch. Six bits of the batch give way to the version and the variant.
pub fn uuid_in_batch(batch: [u8; 12], ordinal: u32) -> Uuid {
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&ordinal.wrapping_mul(SPREAD).to_be_bytes());
    octets[4..].copy_from_slice(&batch);
    octets[6] = octets[6] & 0x0f | 0x80;
    octets[8] = octets[8] & 0x3f | 0x80;
    Uuid::from_bytes(octets)
}

/// Batch and ordinal of any UUID, whoever made it; `from_batch` is the inverse for all of them, and
/// `uuid_in_batch` for those that it made.
pub fn batch_of(uuid: Uuid) -> ([u8; 12], u32) {
    let octets = uuid.as_bytes();
    let spread = u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]);
    let mut batch = [0; 12];
    batch.copy_from_slice(&octets[4..]);
    (batch, spread.wrapping_mul(UNSPREAD))
}

/// The UUID that [`batch_of`] took apart.
pub fn from_batch(batch: [u8; 12], ordinal: u32) -> Uuid {
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&ordinal.wrapping_mul(SPREAD).to_be_bytes());
    octets[4..].copy_from_slice(&batch);
    Uuid::from_bytes(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ada() -> Entry {
        Entry {
            uuid: uuid_in_batch([7; 12], 1),
            parent: Uuid::nil(),
            rdn: Rdn::parse("cn=Ada").unwrap(),
            attributes: Attributes::from_pairs([("cn", b"Ada".to_vec()), ("Mail", b"ada@x".to_vec())])
                .unwrap(),
        }
    }

    #[test]
    fn octets_and_hash_do_not_change_between_versions() {
        let octets: String = ada().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            octets,
            "84509e3779b1070787078707070707070707500000000000000000000000000000000066636e3d4164618282\
             62636e81434164618264\
             4d61696c81456164614078"
                .replace(' ', "")
        );
        assert_eq!(ada().hash(), hash_of(&ada().encode()));
        assert_ne!(
            ada().hash().0,
            <[u8; 32]>::from(Sha256::digest(ada().encode())),
            "the domain is part of it"
        );
    }

    #[test]
    fn decode_accepts_only_the_canonical_form() {
        let octets = ada().encode();
        assert_eq!(Entry::decode(&octets), Ok(ada()));
        for cut in 0..octets.len() {
            assert!(Entry::decode(&octets[..cut]).is_err(), "{cut}");
        }
        let mut longer = octets.clone();
        longer.push(0);
        assert!(Entry::decode(&longer).is_err());
        // The array's length in two octets instead of one.
        let mut wide = vec![0x98, 4];
        wide.extend_from_slice(&octets[1..]);
        assert_eq!(Entry::decode(&wide), Err(EntryError::NotCanonical));
        // An array that claims 2^60 elements costs nothing.
        let mut bomb = octets[..octets.iter().position(|&b| b == 0x82).unwrap()].to_vec();
        bomb.extend_from_slice(&[0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        assert!(Entry::decode(&bomb).is_err());
    }

    #[test]
    fn consecutive_ordinals_spread_over_the_first_nibbles() {
        let mut count = [0; 256];
        for ordinal in 0..4096 {
            count[uuid_in_batch([0; 12], ordinal).as_bytes()[0] as usize] += 1;
        }
        assert!(count.iter().all(|n| (14..=18).contains(n)), "{count:?}");
    }

    proptest! {
        #[test]
        fn batches_can_be_taken_apart(batch: [u8; 12], ordinal: u32, any: u128) {
            let uuid = uuid_in_batch(batch, ordinal);
            prop_assert_eq!((uuid.get_version_num(), uuid.get_variant()), (8, uuid::Variant::RFC4122));
            let (found, found_ordinal) = batch_of(uuid);
            prop_assert_eq!(found_ordinal, ordinal);
            prop_assert_eq!(uuid_in_batch(found, ordinal), uuid);
            let (batch, ordinal) = batch_of(Uuid::from_u128(any));
            prop_assert_eq!(from_batch(batch, ordinal), Uuid::from_u128(any));
        }

        #[test]
        fn garbage_is_refused(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(entry) = Entry::decode(&octets) {
                prop_assert_eq!(entry.encode(), octets);
            }
        }
    }
}
