//! Kept copies of what was received and took no effect, for an operator to look at.
//!
//! PROMISES
//!   Nothing is dropped without an event and a copy, and the copies stay within bounds: the oldest go
//!   first. An equal copy is kept once.
//!
//! LIMITS
//!   [`COPIES_MAX`] copies, [`COPY_BYTES_MAX`] bytes of each.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::turn::Turn;
use crate::directory::{Read, StoreError, Table};
use crate::replication::peer::Millis;

/// One kept copy.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Kept {
    /// Milliseconds since 1970, UTC.
    #[n(0)]
    pub at: Millis,
    #[n(1)]
    pub site: String,
    #[n(2)]
    pub reason: String,
    /// The opened message, or as much of it as is kept.
    #[n(3)]
    pub payload: ByteVec,
    /// Its length before it was cut.
    #[n(4)]
    pub bytes: u64,
}

pub const COPIES_MAX: usize = 100;
pub const COPY_BYTES_MAX: usize = 256 << 10;

/// All copies, oldest first.
///
/// # Errors
/// The store's.
pub fn kept(read: &dyn Read) -> Result<Vec<Kept>, StoreError> {
    let mut found = Vec::new();
    read.scan(Table::Quarantine, &[], &[0xff; 17], &mut |_, value| {
        found.push(
            minicbor::decode(value).map_err(|error| StoreError::Damaged(format!("a kept copy: {error}"))),
        );
        true
    })?;
    found.into_iter().collect()
}

impl Turn<'_> {
    pub(super) fn keep_copy(&mut self, site: &str, reason: &str, payload: &[u8]) -> Result<(), StoreError> {
        let name: [u8; 8] = Sha256::digest(payload)[..8].try_into().unwrap_or_default();
        let mut keys = Vec::new();
        self.tx.scan(Table::Quarantine, &[], &[0xff; 17], &mut |key, _| {
            keys.push(key.to_vec());
            true
        })?;
        if keys.iter().any(|key| key.ends_with(&name)) {
            return Ok(());
        }
        for key in keys.iter().take((keys.len() + 1).saturating_sub(COPIES_MAX)) {
            self.tx.delete(Table::Quarantine, key)?;
        }
        let copy = Kept {
            at: self.now,
            site: site.to_owned(),
            reason: reason.to_owned(),
            payload: payload[..payload.len().min(COPY_BYTES_MAX)].to_vec().into(),
            bytes: payload.len() as u64,
        };
        let key = [&self.now.max(0).to_be_bytes()[..], &name].concat();
        let value = minicbor::to_vec(&copy).expect("writing to memory does not fail");
        self.tx.put(Table::Quarantine, &key, &value)
    }
}
