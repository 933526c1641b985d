//! Parts: a transfer cut to the size that the mail of one link allows, and put together again.
//!
//! PROMISES
//!   A part, once cut, never changes: it is kept in the store and sent again exactly, alone. Parts are
//!   kept in any order they arrive; a repeated part changes nothing. What is put together is proved to
//!   be what was cut, octet for octet, before anything reads it.
//!
//! FORMAT
//!   Part `[0 transfer id (16 octets), 1 index, 2 count, 3 manifest (octets; empty but in part 0), 4 octets
//!   of the body]`, a CBOR array. All parts but the last carry the same number of octets of the body, the
//!   *cut*. The transfer id is the first 16 octets of SHA-256 (FIPS 180-4) over
//!   `"bridgehead transfer 1" 0x00 | cut (4 octets, most significant first) | SHA-256(manifest) |
//!   SHA-256(body)`; so another cut of the same transfer (a smaller one, after a bounce) is another id.
//!
//! LIMITS
//!   [`PARTS_MAX`] parts of one transfer; [`TRANSFER_BYTES_MAX`] octets of its body.
//!
//! FAILURE
//!   A part that contradicts those before it is refused with [`PartError`]; the others stay. Each
//!   partner's parts are kept apart, so that nobody can spoil what another one sends.

use std::fmt;
use std::ops::Range;

use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::cbor::packed::Packed;
use super::provenance::{Carrier, Carriers};
use super::transfer::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestError};
use crate::directory::{Read, StoreError, Table, Write};

/// The name of one transfer in one cut.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct TransferId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// One mail's worth of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Part {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub index: u32,
    #[n(2)]
    pub count: u32,
    /// The manifest in part 0, else empty.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub manifest: Vec<u8>,
    #[cbor(n(4), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

#[derive(Debug, Error)]
pub enum PartError {
    /// The partner's fault.
    #[error("part {index} of {count} is not possible")]
    Impossible { index: u32, count: u32 },
    /// The partner's fault.
    #[error("part {0} contradicts the other parts of its transfer")]
    Contradiction(u32),
    /// The partner's fault, or an accident on the way that its seal should have shown.
    #[error("the parts together are not the transfer that they name")]
    Altered,
    /// Nobody's fault: ask for what is missing.
    #[error("{0} parts are missing")]
    Incomplete(u32),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Cuts a transfer into parts of at most `part_bytes_max` octets, manifest included.
pub fn cut(manifest: &Manifest, body: &[u8], part_bytes_max: usize) -> Result<Vec<Part>, PartError> {
    let manifest = manifest.to_bytes()?;
    let cut = body.len().min(part_bytes_max.saturating_sub(manifest.len()).max(CUT_BYTES_MIN));
    let transfer = TransferId::of(&manifest, Sha256::digest(body).into(), cut as u32);
    let count = body.len().div_ceil(cut.max(1)).max(1) as u32;
    if count > PARTS_MAX {
        return Err(PartError::Impossible { index: 0, count });
    }
    let part = |index: u32| {
        let from = index as usize * cut;
        let bytes = body[from..body.len().min(from + cut)].to_vec();
        let manifest = if index == 0 { manifest.clone() } else { Vec::new() };
        Part { transfer, index, count, manifest, bytes }
    };
    Ok((0..count).map(part).collect())
}

/// The parts of one transfer on their way to one partner, in [`Table::Outbox`].
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'n> {
    shelf: Shelf<'n>,
}

impl<'n> Outgoing<'n> {
    pub fn of(partner: &'n str, transfer: TransferId) -> Outgoing<'n> {
        Outgoing { shelf: Shelf { table: Table::Outbox, partner, transfer } }
    }

    /// Keeps the parts until [`Outgoing::drop_all`].
    pub fn keep(tx: &mut dyn Write, partner: &str, parts: &[Part]) -> Result<(), StoreError> {
        for part in parts {
            let shelf = Outgoing::of(partner, part.transfer).shelf;
            tx.put(shelf.table, &shelf.part_key(part.index), &minicbor::to_vec(part).unwrap_or_default())?;
        }
        Ok(())
    }

    /// The part as it was cut; `None` when it was dropped since.
    pub fn part(&self, read: &dyn Read, index: u32) -> Result<Option<Part>, StoreError> {
        let Some(bytes) = read.get(self.shelf.table, &self.shelf.part_key(index))? else { return Ok(None) };
        minicbor::decode(&bytes).map(Some).map_err(|_| StoreError::Damaged("a part kept to be sent".into()))
    }

    pub fn drop_all(&self, tx: &mut dyn Write) -> Result<(), StoreError> {
        self.shelf.clear(tx)
    }
}

/// The parts of one transfer that have arrived from one partner, in [`Table::Inbox`].
#[derive(Clone, Debug)]
pub struct Assembly {
    partner: String,
    transfer: TransferId,
    state: AssemblyState,
    /// The part that was given was missing before.
    fresh: bool,
}

impl Assembly {
    /// Keeps a part; one that is there already changes nothing.
    pub fn store(tx: &mut dyn Write, partner: &str, part: &Part) -> Result<Assembly, PartError> {
        part.check()?;
        let mut assembly = Assembly::load(tx.as_read(), partner, part.transfer)?
            .unwrap_or_else(|| Assembly::none_of(partner, part));
        assembly.state.admit(part)?;
        if assembly.state.is_missing(part.index) {
            assembly.state.mark(part);
            assembly.fresh = true;
            let shelf = assembly.shelf();
            tx.put(shelf.table, &shelf.part_key(part.index), &part.bytes)?;
            let state = minicbor::to_vec(&assembly.state).unwrap_or_default();
            tx.put(shelf.table, &shelf.state_key(), &state)?;
        }
        Ok(assembly)
    }

    /// Copies what has arrived of a transfer into another store, to look at it there.
    pub fn copy(
        read: &dyn Read,
        tx: &mut dyn Write,
        partner: &str,
        transfer: TransferId,
    ) -> Result<(), StoreError> {
        let shelf = Shelf { table: Table::Inbox, partner, transfer };
        let mut failure = None;
        read.scan(shelf.table, &shelf.state_key(), &shelf.end_key(), &mut |key, value| {
            failure = tx.put(Table::Inbox, key, value).err();
            failure.is_none()
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Notes the message that brought a part.
    pub fn note_carrier(&mut self, tx: &mut dyn Write, carrier: &Carrier) -> Result<(), StoreError> {
        self.state.carriers.note(carrier);
        let state = minicbor::to_vec(&self.state).unwrap_or_default();
        tx.put(Table::Inbox, &self.shelf().state_key(), &state)
    }

    /// The messages that brought the parts.
    pub fn carriers(&self) -> &Carriers {
        &self.state.carriers
    }

    pub fn load(
        read: &dyn Read,
        partner: &str,
        transfer: TransferId,
    ) -> Result<Option<Assembly>, StoreError> {
        let shelf = Shelf { table: Table::Inbox, partner, transfer };
        let Some(bytes) = read.get(shelf.table, &shelf.state_key())? else { return Ok(None) };
        let state = minicbor::decode(&bytes).map_err(|_| StoreError::Damaged("parts received".into()))?;
        Ok(Some(Assembly { partner: partner.into(), transfer, state, fresh: false }))
    }

    /// The transfers of which this partner has sent parts that are still kept.
    pub fn all_from(read: &dyn Read, partner: &str) -> Result<Vec<Assembly>, StoreError> {
        let mut assemblies = Vec::new();
        let mut id = Some([0; 16]);
        while let Some(from) = id {
            let first = Shelf { table: Table::Inbox, partner, transfer: TransferId(from) };
            let last = Shelf { table: Table::Inbox, partner, transfer: TransferId([0xff; 16]) };
            let mut found: Option<[u8; 16]> = None;
            let prefix = first.prefix().len() - 16;
            read.scan(first.table, &first.state_key(), &last.end_key(), &mut |key, _| {
                found = key.get(prefix..prefix + 16).and_then(|id| id.try_into().ok());
                false
            })?;
            let Some(transfer) = found else { break };
            assemblies.extend(Assembly::load(read, partner, TransferId(transfer))?);
            id = u128::from_be_bytes(transfer).checked_add(1).map(u128::to_be_bytes);
        }
        Ok(assemblies)
    }

    pub fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// Parts in all and parts present, for progress.
    pub fn count(&self) -> (u32, u32) {
        (self.state.count, self.state.present)
    }

    /// Octets of the body present.
    pub fn bytes(&self) -> u64 {
        self.state.bytes
    }

    /// Octets in the store, about: of the body, of what is said of it, of each record.
    pub fn occupies(&self) -> u64 {
        let said = self.state.manifest.len() + self.state.bitmap.len();
        self.state.bytes + said as u64 + (u64::from(self.state.present) + 1) * RECORD_BYTES
    }

    /// Octets by which a part that is new raises that, about.
    pub fn needs(part: &Part) -> u64 {
        (part.bytes.len() + part.manifest.len()) as u64 + RECORD_BYTES
    }

    /// Of a transfer of which nothing has arrived; it is kept nowhere.
    pub fn none_of(partner: &str, part: &Part) -> Assembly {
        let state = AssemblyState::of(part.count.min(PARTS_MAX));
        Assembly { partner: partner.into(), transfer: part.transfer, state, fresh: false }
    }

    pub fn lacks(&self, index: u32) -> bool {
        self.state.is_missing(index)
    }

    pub fn is_complete(&self) -> bool {
        self.state.present == self.state.count
    }

    /// Whether the part that was stored just now made it complete.
    pub fn is_just_complete(&self) -> bool {
        self.fresh && self.is_complete()
    }

    /// The parts that have not arrived, as at most `ranges_max` ranges of indices, lowest first.
    pub fn missing(&self, ranges_max: usize) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for index in (0..self.state.count).filter(|&index| self.state.is_missing(index)) {
            if let Some(last) = ranges.last_mut().filter(|last| last.end == index) {
                last.end += 1;
            } else if ranges.len() < ranges_max {
                ranges.push(index..index + 1);
            } else {
                break;
            }
        }
        ranges
    }

    /// The manifest, once part 0 is there. Not proved to belong to the body: see [`Assembly::open`].
    pub fn manifest(&self) -> Result<Option<Manifest>, ManifestError> {
        if self.state.is_missing(0) {
            return Ok(None);
        }
        Manifest::from_bytes(&self.state.manifest).map(Some)
    }

    /// The first of the parts that are there, as it came.
    pub fn first_part(&self, read: &dyn Read) -> Result<Option<Part>, StoreError> {
        let Some(index) = (0..self.state.count).find(|&index| !self.state.is_missing(index)) else {
            return Ok(None);
        };
        let bytes = read.get(self.shelf().table, &self.shelf().part_key(index))?;
        // It came with part 0, and only with that.
        let manifest = if index == 0 { self.state.manifest.clone() } else { Vec::new() };
        let (transfer, count) = (self.transfer, self.state.count);
        Ok(bytes.map(|bytes| Part { transfer, index, count, manifest, bytes }))
    }

    /// The whole transfer, proved to be what its id names.
    pub fn open(&self, read: &dyn Read) -> Result<(Manifest, Body), PartError> {
        if !self.is_complete() {
            return Err(PartError::Incomplete(self.state.count - self.state.present));
        }
        let manifest = Manifest::from_bytes(&self.state.manifest)?;
        let mut hash = Sha256::new();
        let mut body = self.body();
        while let Some(bytes) = body.next(read)? {
            hash.update(&bytes);
        }
        let cut = self.state.cut.unwrap_or(self.state.bytes as u32);
        let named = TransferId::of(&self.state.manifest, hash.finalize().into(), cut);
        if named != self.transfer || manifest.body_bytes != self.state.bytes {
            return Err(PartError::Altered);
        }
        Ok((manifest, self.body()))
    }

    pub fn drop_all(&self, tx: &mut dyn Write) -> Result<(), StoreError> {
        self.shelf().clear(tx)
    }

    fn body(&self) -> Body {
        Body { partner: self.partner.clone(), transfer: self.transfer, next: 0, count: self.state.count }
    }

    fn shelf(&self) -> Shelf<'_> {
        Shelf { table: Table::Inbox, partner: &self.partner, transfer: self.transfer }
    }
}

/// Where a transfer's body comes from, piece by piece. The view is an argument, for the body may lie in
/// the very transaction that it is applied in.
pub trait Source {
    /// The next octets, or `None` at the end.
    fn next(&mut self, read: &dyn Read) -> Result<Option<Vec<u8>>, StoreError>;
}

/// The body of a transfer whose parts are all in [`Table::Inbox`].
#[derive(Clone, Debug)]
pub struct Body {
    partner: String,
    transfer: TransferId,
    next: u32,
    count: u32,
}

impl Source for Body {
    fn next(&mut self, read: &dyn Read) -> Result<Option<Vec<u8>>, StoreError> {
        if self.next == self.count {
            return Ok(None);
        }
        let shelf = Shelf { table: Table::Inbox, partner: &self.partner, transfer: self.transfer };
        let bytes = read.get(shelf.table, &shelf.part_key(self.next))?;
        self.next += 1;
        bytes.map(Some).ok_or_else(|| StoreError::Damaged("a part received is gone".into()))
    }
}

/// A body in memory.
impl Source for &[u8] {
    fn next(&mut self, _: &dyn Read) -> Result<Option<Vec<u8>>, StoreError> {
        let (piece, rest) = self.split_at(self.len().min(PIECE_BYTES));
        *self = rest;
        Ok((!piece.is_empty()).then(|| piece.to_vec()))
    }
}

impl Packed<16> for TransferId {
    fn pack(&self) -> [u8; 16] {
        self.0
    }

    fn unpack(octets: [u8; 16]) -> TransferId {
        TransferId(octets)
    }
}

impl TransferId {
    fn of(manifest: &[u8], body_hash: [u8; 32], cut: u32) -> TransferId {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(cut.to_be_bytes());
        hash.update(Sha256::digest(manifest));
        hash.update(body_hash);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        TransferId(id)
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferId({self})")
    }
}

impl Part {
    fn check(&self) -> Result<(), PartError> {
        let possible = (1..=PARTS_MAX).contains(&self.count)
            && self.index < self.count
            && (self.index == 0) != self.manifest.is_empty()
            && self.manifest.len() <= MANIFEST_BYTES_MAX
            && u64::from(self.count) * (self.bytes.len() as u64) <= TRANSFER_BYTES_MAX;
        possible.then_some(()).ok_or(PartError::Impossible { index: self.index, count: self.count })
    }

    fn is_last(&self) -> bool {
        self.index + 1 == self.count
    }
}

/// What is known of a transfer that arrives: one small record beside its parts.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
struct AssemblyState {
    #[n(0)]
    count: u32,
    #[n(1)]
    present: u32,
    #[n(2)]
    bytes: u64,
    /// Bit `index % 8` of octet `index / 8`: the part is there.
    #[cbor(n(3), with = "minicbor::bytes")]
    bitmap: Vec<u8>,
    #[cbor(n(4), with = "minicbor::bytes")]
    manifest: Vec<u8>,
    /// Octets in every part but the last, once one of them has arrived.
    #[n(5)]
    cut: Option<u32>,
    /// The messages that brought them.
    #[n(6)]
    #[cbor(default)]
    carriers: Carriers,
}

impl AssemblyState {
    fn of(count: u32) -> AssemblyState {
        let bitmap = vec![0; count.div_ceil(8) as usize];
        let (manifest, carriers) = (Vec::new(), Carriers::default());
        AssemblyState { count, present: 0, bytes: 0, bitmap, manifest, cut: None, carriers }
    }

    /// Whether the part agrees with those before it.
    fn admit(&mut self, part: &Part) -> Result<(), PartError> {
        let length = part.bytes.len() as u32;
        let agrees = self.count == part.count
            && match self.cut {
                Some(cut) if part.is_last() => length <= cut,
                Some(cut) => length == cut,
                None => true,
            };
        if !agrees {
            return Err(PartError::Contradiction(part.index));
        }
        if !part.is_last() || part.count == 1 {
            self.cut = Some(length);
        }
        Ok(())
    }

    fn is_missing(&self, index: u32) -> bool {
        self.bitmap.get(index as usize / 8).is_none_or(|octet| octet & (1 << (index % 8)) == 0)
    }

    fn mark(&mut self, part: &Part) {
        self.bitmap[part.index as usize / 8] |= 1 << (part.index % 8);
        self.present += 1;
        self.bytes += part.bytes.len() as u64;
        if part.index == 0 {
            self.manifest = part.manifest.clone();
        }
    }
}

/// Where the records of one transfer lie: `length of partner, partner, transfer id, kind, index`.
#[derive(Clone, Copy, Debug)]
struct Shelf<'n> {
    table: Table,
    partner: &'n str,
    transfer: TransferId,
}

impl Shelf<'_> {
    fn prefix(&self) -> Vec<u8> {
        let mut key = (self.partner.len() as u16).to_be_bytes().to_vec();
        key.extend_from_slice(self.partner.as_bytes());
        key.extend_from_slice(&self.transfer.0);
        key
    }

    fn key(&self, kind: u8) -> Vec<u8> {
        let mut key = self.prefix();
        key.push(kind);
        key
    }

    fn state_key(&self) -> Vec<u8> {
        self.key(STATE)
    }

    fn part_key(&self, index: u32) -> Vec<u8> {
        let mut key = self.key(PART);
        key.extend_from_slice(&index.to_be_bytes());
        key
    }

    fn end_key(&self) -> Vec<u8> {
        self.key(END)
    }

    fn clear(&self, tx: &mut dyn Write) -> Result<(), StoreError> {
        tx.delete_range(self.table, &self.state_key(), &self.end_key())
    }
}

const STATE: u8 = 0;
const PART: u8 = 1;
const END: u8 = 2;

/// Most parts of one transfer: 2 GiB at the smallest part.
pub const PARTS_MAX: u32 = 1 << 17;

/// Most octets of the body of one transfer.
pub const TRANSFER_BYTES_MAX: u64 = 4 << 30;

/// A limit below what a part's own words need is taken as this.
const CUT_BYTES_MIN: usize = 1 << 10;

/// What a record takes besides what is in it.
const RECORD_BYTES: u64 = 128;

const PIECE_BYTES: usize = 64 << 10;
const DOMAIN: &[u8] = b"bridgehead transfer 1\0";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::transfer::manifest::Base;
    use super::super::transfer::manifest::tests::manifest;
    use super::*;
    use crate::directory::memory::MemoryStore;

    fn transfer(body_bytes: usize) -> (Manifest, Vec<u8>) {
        let body: Vec<u8> = (0..body_bytes).map(|n| (n * 7 + n / 251) as u8).collect();
        (Manifest { body_bytes: body_bytes as u64, ..manifest(Base::Nothing) }, body)
    }

    /// Below what the manifest needs, so the cut is the smallest.
    const PART_BYTES: usize = 1000;

    fn read_all(mut body: Body, read: &dyn Read) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(piece) = body.next(read).unwrap() {
            bytes.extend(piece);
        }
        bytes
    }

    proptest! {
        #[test]
        fn parts_in_any_order_and_repeated_make_the_transfer(
            body_bytes in 0usize..20_000,
            part_bytes_max in 1500usize..6000,
            order in proptest::collection::vec(any::<u32>(), 0..40),
        ) {
            let (manifest, body) = transfer(body_bytes);
            let parts = cut(&manifest, &body, part_bytes_max).unwrap();
            prop_assert!(parts.iter().all(|part| part.manifest.len() + part.bytes.len() <= part_bytes_max));
            let mut store = MemoryStore::new();
            let mut tx = store.begin();
            let mut arrivals: Vec<usize> = order.iter().map(|n| *n as usize % parts.len()).collect();
            arrivals.extend((0..parts.len()).rev());
            let mut assembly = None;
            for index in arrivals {
                assembly = Some(Assembly::store(&mut tx, "paris", &parts[index]).unwrap());
            }
            let assembly = assembly.unwrap();
            prop_assert!(assembly.is_complete() && assembly.missing(9).is_empty());
            let (opened, source) = assembly.open(&tx).unwrap();
            prop_assert_eq!(opened, manifest);
            prop_assert_eq!(read_all(source, &tx), body);
        }
    }

    #[test]
    fn what_is_missing_is_named_in_ranges() {
        let (manifest, body) = transfer(10_000);
        let parts = cut(&manifest, &body, PART_BYTES).unwrap();
        assert_eq!(parts.len(), 10);
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        for index in [4, 7, 8] {
            Assembly::store(&mut tx, "paris", &parts[index]).unwrap();
        }
        let assembly = Assembly::load(&tx, "paris", parts[0].transfer).unwrap().unwrap();
        assert_eq!(assembly.missing(9), [0..4, 5..7, 9..10]);
        assert_eq!(assembly.missing(2), [0..4, 5..7]);
        assert_eq!(assembly.manifest(), Ok(None));
        assert!(matches!(assembly.open(&tx), Err(PartError::Incomplete(7))));
    }

    #[test]
    fn partners_and_transfers_are_kept_apart() {
        let (manifest, body) = transfer(3000);
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        for (partner, cut_bytes) in [("paris", 1000), ("paris", 1500), ("pa", 1000)] {
            for part in cut(&manifest, &body, cut_bytes).unwrap() {
                Assembly::store(&mut tx, partner, &part).unwrap();
            }
        }
        let other = Assembly::all_from(&tx, "pa").unwrap();
        assert_eq!(other.len(), 1);
        let all = Assembly::all_from(&tx, "paris").unwrap();
        assert_eq!(all.len(), 2);
        all.iter().find(|same| same.transfer() == other[0].transfer()).unwrap().drop_all(&mut tx).unwrap();
        let left = Assembly::all_from(&tx, "paris").unwrap();
        assert_eq!(left.len(), 1);
        assert!(left[0].open(&tx).is_ok());
        assert!(other[0].open(&tx).is_ok());
    }

    #[test]
    fn contradictions_and_alterations_are_refused() {
        let (manifest, body) = transfer(3000);
        let parts = cut(&manifest, &body, PART_BYTES).unwrap();
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        Assembly::store(&mut tx, "paris", &parts[0]).unwrap();
        for wrong in [
            Part { count: 4, ..parts[1].clone() },
            Part { bytes: vec![0; 1000], ..parts[1].clone() },
            Part { bytes: vec![0; 1025], ..parts[2].clone() },
            Part { index: 3, ..parts[1].clone() },
            Part { manifest: vec![0], ..parts[1].clone() },
            Part { manifest: Vec::new(), ..parts[0].clone() },
            Part { count: PARTS_MAX + 1, ..parts[1].clone() },
        ] {
            assert!(Assembly::store(&mut tx, "paris", &wrong).is_err(), "{wrong:?}");
        }
        let mut altered = parts[1].clone();
        altered.bytes[9] ^= 1;
        Assembly::store(&mut tx, "paris", &altered).unwrap();
        let assembly = Assembly::store(&mut tx, "paris", &parts[2]).unwrap();
        assert!(matches!(assembly.open(&tx), Err(PartError::Altered)));
    }

    #[test]
    fn a_part_is_sent_again_as_it_was_cut() {
        let (manifest, body) = transfer(3000);
        let parts = cut(&manifest, &body, PART_BYTES).unwrap();
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        Outgoing::keep(&mut tx, "berlin", &parts).unwrap();
        let outgoing = Outgoing::of("berlin", parts[0].transfer);
        assert_eq!(outgoing.part(&tx, 1).unwrap().as_ref(), Some(&parts[1]));
        assert_eq!(outgoing.part(&tx, 9).unwrap(), None);
        outgoing.drop_all(&mut tx).unwrap();
        assert_eq!(outgoing.part(&tx, 1).unwrap(), None);
    }
}
