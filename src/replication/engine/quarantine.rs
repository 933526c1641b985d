//! Kept copies of what was received and took no effect, for an operator to look at.
//!
//! PROMISES
//!   What is refused is told by an event and kept as a copy, and the copies stay within bounds: the oldest go
//!   first, each with an event. An equal copy is kept once, however often the same comes. What anybody can send never
//!   displaces what a connected site sent.
//!   Of a transfer of many parts one is kept: part 0, which says what it is and who signed it, or the first that is here;
//!   where a part shows that they do not belong together, that one.
//!   Of what is let go without having been refused no copy is kept: it is asked for again where it found no room (`inbox-full`),
//!   or where its sender gave it up (`transfer-given-up`); what is here already has had its effect.
//!
//! LIMITS
//!   [`COPIES_MAX`] copies of what connected sites sent, and as many of mail that nobody proved to have sent; each kind
//!   within half of `quarantine_bytes`, and one copy within [`copy_bytes_max`]: of a larger message only the first
//!   octets are kept, and it says so.

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
    /// Octets that are kept, which [`payload`] reads: the payload of the opened message, or the mail as it came.
    #[n(3)]
    pub kept: u64,
    /// Octets received.
    #[n(4)]
    pub bytes: u64,
    /// A connected site is proved to have sent it; its payload is then what its message said, else a mail as it came.
    #[n(5)]
    pub proved: bool,
    /// By which people name it: hexadecimal.
    #[n(6)]
    pub id: String,
}

impl Kept {
    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.kept == self.bytes && self.bytes > 0
    }
}

pub const COPIES_MAX: usize = 100;

/// Of one message so many octets are kept at the most, where all copies may take `quarantine_bytes`.
pub fn copy_bytes_max(quarantine_bytes: u64) -> usize {
    usize::try_from(quarantine_bytes / 8).unwrap_or(usize::MAX)
}

/// A key of the list is whose copy it is, the time, and 8 octets of the copy's hash; a key of what was kept is
/// [`PAYLOAD`], whose it is, and those 8 octets.
const PROVED: u8 = 0;
const UNPROVED: u8 = 1;
const PAYLOAD: u8 = 2;

/// All copies, oldest first.
///
/// # Errors
/// The store's.
pub fn kept(read: &dyn Read) -> Result<Vec<Kept>, StoreError> {
    let mut found: Vec<Kept> =
        list(read, PROVED)?.into_iter().chain(list(read, UNPROVED)?).map(|(_, copy)| copy).collect();
    found.sort_by_key(|copy| copy.at);
    Ok(found)
}

/// What is kept of a copy.
///
/// # Errors
/// The store's.
pub fn payload(read: &dyn Read, copy: &Kept) -> Result<Vec<u8>, StoreError> {
    let class = if copy.proved { PROVED } else { UNPROVED };
    let hash: Option<Vec<u8>> =
        (0..8).map(|at| u8::from_str_radix(copy.id.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    let key = hash.map(|hash| payload_key(class, &hash));
    let found = key.map(|key| read.get(Table::Quarantine, &key)).transpose()?.flatten();
    found.ok_or_else(|| StoreError::Damaged(format!("of the kept copy {} nothing is there", copy.id)))
}

fn payload_key(class: u8, hash: &[u8]) -> Vec<u8> {
    [&[PAYLOAD, class], hash].concat()
}

/// The copies of a class, oldest first, with their keys.
fn list(read: &dyn Read, class: u8) -> Result<Vec<(Vec<u8>, Kept)>, StoreError> {
    let mut found = Vec::new();
    read.scan(Table::Quarantine, &[class], &[class + 1], &mut |key, value| {
        let copy = minicbor::decode(value).unwrap_or_else(|error| unreadable(class, key, &error));
        found.push((key.to_vec(), copy));
        true
    })?;
    Ok(found)
}

/// Stands in for a copy of which nothing can be said any more, until it is released or makes room: what is kept for people to
/// look at must not keep mail from being taken.
fn unreadable(class: u8, key: &[u8], error: &minicbor::decode::Error) -> Kept {
    Kept {
        at: 0,
        site: String::new(),
        reason: format!("what was noted of this copy cannot be read: {error}"),
        kept: 0,
        bytes: 0,
        proved: class == PROVED,
        id: hexadecimal(key.last_chunk::<8>().unwrap_or(&[0; 8])),
    }
}

fn hexadecimal(hash: &[u8]) -> String {
    hash.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// How many copies are kept.
///
/// # Errors
/// The store's.
pub fn count(read: &dyn Read) -> Result<u64, StoreError> {
    Ok(kept(read)?.len() as u64)
}

impl Turn<'_> {
    /// Keeps what a connected site sent.
    pub(super) fn keep_copy(&mut self, site: &str, reason: &str, payload: &[u8]) -> Result<(), StoreError> {
        self.keep(PROVED, site, reason, payload, payload.len() as u64)
    }

    /// Keeps a mail that was refused before its sender was proved, or as a whole. `bytes` were received, of which
    /// `mail` may be only the first.
    pub(super) fn keep_unproved(
        &mut self,
        from: &str,
        reason: &str,
        mail: &[u8],
        bytes: u64,
    ) -> Result<(), StoreError> {
        self.keep(UNPROVED, from, reason, mail, bytes)
    }

    fn keep(
        &mut self,
        class: u8,
        site: &str,
        reason: &str,
        payload: &[u8],
        bytes: u64,
    ) -> Result<(), StoreError> {
        let room = self.config.timing.quarantine_bytes_max;
        let payload = &payload[..payload.len().min(copy_bytes_max(room))];
        let hash = &Sha256::new().chain_update(bytes.to_be_bytes()).chain_update(payload).finalize()[..8];
        let copies = list(self.tx.as_read(), class)?;
        if copies.iter().any(|(key, _)| key.ends_with(hash)) {
            return Ok(());
        }
        let mut copies = copies.into_iter();
        let mut taken =
            copies.as_slice().iter().map(|(_, copy)| copy.kept).sum::<u64>() + payload.len() as u64;
        while copies.len() >= COPIES_MAX || taken > room / 2 {
            let Some((key, oldest)) = copies.next() else { break };
            taken -= oldest.kept;
            self.forget(&key, oldest.id)?;
        }
        let copy = Kept {
            at: self.now,
            site: site.to_owned(),
            reason: reason.to_owned(),
            kept: payload.len() as u64,
            bytes,
            proved: class == PROVED,
            id: hexadecimal(hash),
        };
        let key = [&[class], &self.now.max(0).to_be_bytes()[..], hash].concat();
        let value = minicbor::to_vec(&copy).expect("writing to memory does not fail");
        self.tx.put(Table::Quarantine, &key, &value)?;
        self.tx.put(Table::Quarantine, &payload_key(class, hash), payload)?;
        let Kept { id, site, reason, bytes, kept, .. } = copy;
        self.event(Event::Kept { id, site, reason, bytes, kept });
        Ok(())
    }

    fn forget(&mut self, key: &[u8], id: String) -> Result<(), StoreError> {
        self.tx.delete(Table::Quarantine, key)?;
        if let [class, _, _, _, _, _, _, _, _, hash @ ..] = key {
            self.tx.delete(Table::Quarantine, &payload_key(*class, hash))?;
        }
        self.event(Event::Forgotten { id });
        Ok(())
    }

    /// Forgets copies, by their names.
    pub(super) fn forget_copies(&mut self, ids: &[String]) -> Result<(), StoreError> {
        for class in [PROVED, UNPROVED] {
            for (key, copy) in list(self.tx.as_read(), class)? {
                if ids.contains(&copy.id) {
                    self.forget(&key, copy.id)?;
                }
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
        let payload = payload(self.tx.as_read(), &copy)?;
        self.forget_copies(&[copy.id])?;
        let header = Header { seq: 0, time: jiff::Timestamp::UNIX_EPOCH, message_id: None };
        self.receive(&copy.site, header, &payload)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use jiff::Timestamp;

    use super::*;
    use crate::directory::Write;
    use crate::directory::memory::MemoryStore;
    use crate::replication::engine::{Engine, EngineConfig, Input, Output, Succession, Timing};

    fn engine(quarantine_bytes_max: u64) -> Engine {
        Engine::new(EngineConfig {
            site: "paris".into(),
            key: SigningKey::from_bytes(&[1; 32]),
            card: "paris".into(),
            succession: Succession::default(),
            known: Vec::new(),
            partners: Vec::new(),
            timing: Timing { quarantine_bytes_max, ..Timing::default() },
        })
    }

    #[test]
    fn copies_stay_within_their_room_and_say_what_is_missing() {
        let mut engine = engine(80_000);
        let mut store = MemoryStore::new();
        let mut keep = |n: u8, length: usize, bytes: u64| {
            let mut tx = store.begin();
            let now = Timestamp::from_second(1_800_000_000 + i64::from(n)).unwrap();
            let (from, mail) = ("<a@b>".to_owned(), vec![n; length]);
            engine.handle(&mut tx, now, Input::Refused { from, reason: "no".into(), mail, bytes }).unwrap();
            tx.commit();
            let gone = std::iter::from_fn(|| engine.output())
                .filter(|output| matches!(output, Output::Event(Event::Forgotten { .. })));
            (gone.count(), kept(&store).unwrap(), count(&store).unwrap())
        };
        // Half of the room for mail that nobody proved to have sent, an eighth for one of them.
        for n in 0..4 {
            let (gone, copies, _) = keep(n, 15_000, 15_000);
            assert_eq!((gone, copies.len()), (0, usize::from(n) + 1));
            assert!(
                copies.iter().all(|copy| !copy.is_whole() && (copy.kept, copy.bytes) == (10_000, 15_000))
            );
        }
        let (gone, copies, count) = keep(9, 400, 400);
        assert_eq!((gone, copies.len(), count), (1, 4, 4), "the oldest makes room");
        assert!(copies[3].is_whole());
        // The same first octets of another mail are another copy.
        assert_eq!(keep(9, 400, 500).1.len(), 5);
        assert_eq!(keep(9, 400, 500).1.len(), 5);
        let copies = kept(&store).unwrap();
        assert_eq!(payload(&store, &copies[0]).unwrap(), vec![1; 10_000]);
        let mut rows = 0;
        store
            .scan(Table::Quarantine, &[], &[0xff], &mut |_, _| {
                rows += 1;
                true
            })
            .unwrap();
        assert_eq!(rows, 10, "what was let go leaves nothing");
    }

    #[test]
    fn a_copy_that_cannot_be_read_keeps_nothing_from_being_kept_and_goes_first() {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        tx.put(Table::Quarantine, &[&[UNPROVED][..], &[0; 8], &[7; 8]].concat(), b"of another layout")
            .unwrap();
        tx.commit();
        let found = kept(&store).unwrap();
        assert_eq!((found.len(), found[0].is_whole()), (1, false));
        assert!(found[0].reason.contains("cannot be read") && found[0].id == "07".repeat(8));
        let mut engine = engine(80_000);
        for n in 0..COPIES_MAX as u8 {
            let mut tx = store.begin();
            let now = Timestamp::from_second(1_800_000_000).unwrap();
            let (from, mail) = ("<a@b>".to_owned(), vec![n; 10]);
            engine
                .handle(&mut tx, now, Input::Refused { from, reason: "no".into(), mail, bytes: 10 })
                .unwrap();
            tx.commit();
        }
        let found = kept(&store).unwrap();
        assert_eq!(found.len(), COPIES_MAX);
        assert!(found.iter().all(Kept::is_whole));
    }
}
