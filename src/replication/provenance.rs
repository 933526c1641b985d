//! Where what we hold came from: for each position of a naming context, who brought it, in which messages, when.
//!
//! PROMISES
//!   A record is written in the transaction that reaches the position. A lost one costs an administrator an answer, and
//!   where a merge is followed by another, the second what it could have known of the first: it keeps more, and says so.
//!
//! LIMITS
//!   The newest [`USNS_KEPT`] USNs of a naming context, and never more than the log still knows; of one transfer
//!   the first and the last messages, [`CARRIERS_MAX`] in all.

use minicbor::{Decode, Encode};

use super::peer::Millis;
use crate::directory::{Position, Read, StoreError, Table, Write};

/// Records of USNs further back are dropped.
pub const USNS_KEPT: u64 = 10_000;
/// Messages named of one transfer.
pub const CARRIERS_MAX: usize = 8;

/// One message as it came.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Carrier {
    #[n(0)]
    pub seq: u64,
    /// Without angle brackets; none: from a bundle, or a mail system took it off.
    #[n(1)]
    pub message_id: Option<String>,
    /// When it was here.
    #[n(2)]
    pub at: Millis,
}

/// The messages that brought the parts of one transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Carriers {
    /// In the order in which they came; of many, the first and the last.
    #[n(0)]
    pub named: Vec<Carrier>,
    #[n(1)]
    pub count: u64,
}

impl Carriers {
    pub fn note(&mut self, carrier: &Carrier) {
        if self.named.last().is_some_and(|last| last.seq == carrier.seq) {
            return;
        }
        self.count += 1;
        if self.named.len() >= CARRIERS_MAX {
            self.named.remove(CARRIERS_MAX / 2);
        }
        self.named.push(carrier.clone());
    }
}

/// How a naming context came to a position.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Step {
    #[n(0)]
    pub position: Position,
    /// When it was reached here: milliseconds since 1970, UTC.
    #[n(1)]
    pub at: Millis,
    /// The site that sent it; none: it was committed here.
    #[n(2)]
    pub from: Option<String>,
    #[n(3)]
    pub carriers: Carriers,
    /// The time in the master's checkpoint, by the master's clock.
    #[n(4)]
    pub signed_at: Option<Millis>,
    /// Everything was sent, not what had changed.
    #[n(5)]
    pub full: bool,
    /// Up to where it took back what this site had lost: a point of the life before.
    #[n(6)]
    pub taken_back: Option<Position>,
}

/// Puts a step on record and drops what is too old to be kept.
pub fn put(tx: &mut dyn Write, context: u32, step: &Step) -> Result<(), StoreError> {
    let usn = step.position.usn;
    tx.delete_range(Table::Provenance, &key(context, 0), &key(context, usn.saturating_sub(USNS_KEPT)))?;
    let value = minicbor::to_vec(step).expect("writing to memory does not fail");
    tx.put(Table::Provenance, &key(context, usn), &value)
}

/// The step that first reached `usn` or a later one, which brought what was committed at it.
pub fn step_to(read: &dyn Read, context: u32, usn: u64) -> Result<Option<Step>, StoreError> {
    let mut found = None;
    read.scan(Table::Provenance, &key(context, usn), &key(context + 1, 0), &mut |_, value| {
        found = Some(minicbor::decode(value));
        false
    })?;
    found.transpose().map_err(|error| StoreError::Damaged(format!("a record of provenance: {error}")))
}

/// The steps after `usn` that a site sent.
pub fn sent_since(read: &dyn Read, context: u32, usn: u64) -> Result<Vec<Step>, StoreError> {
    let mut found = Vec::new();
    read.scan(Table::Provenance, &key(context, usn + 1), &key(context + 1, 0), &mut |_, value| {
        found.push(minicbor::decode::<Step>(value));
        true
    })?;
    let steps = found.into_iter().collect::<Result<Vec<Step>, _>>();
    let steps = steps.map_err(|error| StoreError::Damaged(format!("a record of provenance: {error}")))?;
    Ok(steps.into_iter().filter(|step| step.from.is_some()).collect())
}

fn key(context: u32, usn: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&context.to_be_bytes());
    key[4..].copy_from_slice(&usn.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::memory::MemoryStore;

    fn carrier(seq: u64) -> Carrier {
        Carrier { seq, message_id: Some(format!("m{seq}@x")), at: seq as i64 }
    }

    #[test]
    fn of_many_messages_the_first_and_the_last_are_named() {
        let mut carriers = Carriers::default();
        for seq in [1, 1].into_iter().chain(2..=100) {
            carriers.note(&carrier(seq));
        }
        assert_eq!(carriers.count, 100);
        let named: Vec<u64> = carriers.named.iter().map(|carrier| carrier.seq).collect();
        assert_eq!(named, [1, 2, 3, 4, 97, 98, 99, 100]);
    }

    #[test]
    fn records_are_found_by_what_they_brought_and_are_bounded() {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        let step = |usn| Step {
            position: Position { invocation: uuid::Uuid::nil(), usn },
            at: 0,
            from: None,
            carriers: Carriers::default(),
            signed_at: None,
            full: false,
            taken_back: None,
        };
        for usn in [10, 20] {
            put(&mut tx, 1, &step(usn)).unwrap();
        }
        put(&mut tx, 2, &step(15)).unwrap();
        let found = |tx: &dyn Read, usn| step_to(tx, 1, usn).unwrap().map(|step| step.position.usn);
        assert_eq!(found(&tx, 10), Some(10));
        assert_eq!(found(&tx, 11), Some(20), "a transfer brings several commits at once");
        assert_eq!(found(&tx, 21), None);
        put(&mut tx, 1, &step(20 + USNS_KEPT)).unwrap();
        assert_eq!(found(&tx, 1), Some(20), "10 is too old");
        assert_eq!(step_to(&tx, 2, 1).unwrap().unwrap().position.usn, 15, "of another naming context");
    }
}
