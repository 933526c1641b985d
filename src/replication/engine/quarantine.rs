//! Kept copies of what was received and took no effect, for an operator to look at.
//!
//! PROMISES
//!   Nothing is dropped without an event and a copy, and the copies stay within bounds: the oldest go
//!   first. An equal copy is kept once. What anybody can send never displaces what a connected site sent.
//!
//! LIMITS
//!   [`COPIES_MAX`] copies of what connected sites sent, [`COPY_BYTES_MAX`] bytes of each; of mail that nobody proved to
//!   have sent, [`UNPROVED_COPIES_MAX`] and [`UNPROVED_COPY_BYTES_MAX`].

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::turn::Turn;
use super::{Event, Header, Outcome};
use crate::directory::{Read, StoreError, Table};
use crate::replication::peer::Millis;

/// One kept copy.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Kept {
    /// Milliseconds since 1970, UTC.
    #[n(0)]
    pub at: Millis,
    /// The connected site that sent it, or the reverse path of a mail that nobody proved to have sent.
    #[n(1)]
    pub site: String,
    #[n(2)]
    pub reason: String,
    /// The payload of the opened message, or the mail as it came; as much of it as is kept.
    #[n(3)]
    pub payload: ByteVec,
    /// Its length before it was cut.
    #[n(4)]
    pub bytes: u64,
    /// A connected site is proved to have sent it; `payload` is then what its message said, else a mail as it came.
    #[n(5)]
    pub proved: bool,
    /// By which people name it: hexadecimal.
    #[n(6)]
    pub id: String,
}

impl Kept {
    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.payload.len() as u64 == self.bytes
    }
}

pub const COPIES_MAX: usize = 100;
pub const COPY_BYTES_MAX: usize = 256 << 10;
pub const UNPROVED_COPIES_MAX: usize = 50;
pub const UNPROVED_COPY_BYTES_MAX: usize = 64 << 10;

/// A key is the time, 8 octets of the copy's hash, and whose it is.
const KEY_END: [u8; 18] = [0xff; 18];
const PROVED: u8 = 0;
const UNPROVED: u8 = 1;

/// All copies, oldest first.
///
/// # Errors
/// The store's.
pub fn kept(read: &dyn Read) -> Result<Vec<Kept>, StoreError> {
    let mut found = Vec::new();
    read.scan(Table::Quarantine, &[], &KEY_END, &mut |_, value| {
        found.push(
            minicbor::decode(value).map_err(|error| StoreError::Damaged(format!("a kept copy: {error}"))),
        );
        true
    })?;
    found.into_iter().collect()
}

/// How many copies are kept.
///
/// # Errors
/// The store's.
pub fn count(read: &dyn Read) -> Result<u64, StoreError> {
    let mut copies = 0;
    read.scan(Table::Quarantine, &[], &[0xff; 17], &mut |_, _| {
        copies += 1;
        true
    })?;
    Ok(copies)
}

impl Turn<'_> {
    /// Keeps what a connected site sent.
    pub(super) fn keep_copy(&mut self, site: &str, reason: &str, payload: &[u8]) -> Result<(), StoreError> {
        self.keep(PROVED, site, reason, payload, (COPIES_MAX, COPY_BYTES_MAX))
    }

    /// Keeps a mail that was refused before its sender was proved, or as a whole.
    pub(super) fn keep_unproved(&mut self, from: &str, reason: &str, mail: &[u8]) -> Result<(), StoreError> {
        self.keep(UNPROVED, from, reason, mail, (UNPROVED_COPIES_MAX, UNPROVED_COPY_BYTES_MAX))
    }

    fn keep(
        &mut self,
        class: u8,
        site: &str,
        reason: &str,
        payload: &[u8],
        (copies_max, bytes_max): (usize, usize),
    ) -> Result<(), StoreError> {
        let hash = Sha256::digest(payload);
        let name = [&hash[..8], &[class]].concat();
        let mut keys = Vec::new();
        self.tx.scan(Table::Quarantine, &[], &KEY_END, &mut |key, _| {
            if key.ends_with(&[class]) {
                keys.push(key.to_vec());
            }
            true
        })?;
        if keys.iter().any(|key| key.ends_with(&name)) {
            return Ok(());
        }
        for key in keys.iter().take((keys.len() + 1).saturating_sub(copies_max)) {
            self.tx.delete(Table::Quarantine, key)?;
        }
        let copy = Kept {
            at: self.now,
            site: site.to_owned(),
            reason: reason.to_owned(),
            payload: payload[..payload.len().min(bytes_max)].to_vec().into(),
            bytes: payload.len() as u64,
            proved: class == PROVED,
            id: shown(&name[..8]),
        };
        let key = [&self.now.max(0).to_be_bytes()[..], &name].concat();
        let value = minicbor::to_vec(&copy).expect("writing to memory does not fail");
        self.tx.put(Table::Quarantine, &key, &value)?;
        let Kept { id, site, reason, bytes, .. } = copy;
        self.event(Event::Kept { id, site, reason, bytes });
        Ok(())
    }

    /// Forgets copies, by their names.
    pub(super) fn forget_copies(&mut self, ids: &[String]) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        self.tx.scan(Table::Quarantine, &[], &KEY_END, &mut |key, _| {
            keys.push(key.to_vec());
            true
        })?;
        for key in keys {
            let id = key.get(8..16).map(shown).unwrap_or_default();
            if ids.contains(&id) {
                self.tx.delete(Table::Quarantine, &key)?;
                self.event(Event::Forgotten { id });
            }
        }
        Ok(())
    }

    /// Takes what a connected site sent once more, as something that was overtaken: its parts count, nothing else
    /// of it. The copy goes if it was understood; if it is refused again, there will be another.
    pub(super) fn take_again(&mut self, id: &str) -> Result<Outcome, StoreError> {
        let again = |copy: &Kept| copy.id == id && copy.proved && copy.is_whole();
        let Some(copy) = kept(self.tx.as_read())?.into_iter().find(again) else {
            return Ok(Outcome::Repeated);
        };
        self.forget_copies(&[copy.id])?;
        let header = Header { seq: 0, time: jiff::Timestamp::UNIX_EPOCH, message_id: None };
        self.receive(&copy.site, header, &copy.payload)
    }
}

/// The name of a copy, from its hash.
fn shown(hash: &[u8]) -> String {
    hash.iter().map(|octet| format!("{octet:02x}")).collect()
}
