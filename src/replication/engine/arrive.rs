//! Parts arrive, in any order, and become transfers.
//!
//! PROMISES
//!   A part is kept until its transfer was applied or refused. One that takes no effect is kept for the operator, with the
//!   reason, and stands in the way of nothing that is sent again.

use std::collections::BTreeSet;

use super::Event;
use super::turn::Turn;
use crate::directory::StoreError;
use crate::replication::pacing::millis;
use crate::replication::parts::{Assembly, PartError, TransferId};
use crate::replication::peer::Peer;
use crate::replication::provenance::Carrier;
use crate::replication::wire::{Message, PartItem};

/// What the parts of one message came to.
pub(super) struct Received {
    /// There were parts, new or not: an acknowledgement is owed.
    pub any: bool,
    /// The naming contexts that may have got further.
    pub contexts: BTreeSet<String>,
    /// Transfers of which nothing was there before.
    pub begun: BTreeSet<TransferId>,
}

/// Of transfers with fewer parts no progress is told.
const PROGRESS_PARTS_MIN: u32 = 10;

impl Turn<'_> {
    pub(super) fn take_parts(
        &mut self,
        from: &str,
        peer: &mut Peer,
        parts: Vec<PartItem>,
        carrier: &Carrier,
    ) -> Result<Received, StoreError> {
        let mut received =
            Received { any: !parts.is_empty(), contexts: BTreeSet::new(), begun: BTreeSet::new() };
        let Some(partner) = self.config.partner(from) else { return Ok(received) };
        let mut begun = BTreeSet::new();
        let mut shelves = self.shelves(from)?;
        for item in parts {
            if peer.finished.contains(&item.part.transfer) {
                continue;
            }
            if !self.takes(partner, &item.context) {
                self.refuse_part(from, item, "it is not taken from this site".into())?;
                continue;
            }
            if !self.admits(from, peer, &item, carrier, &mut shelves)? {
                continue;
            }
            let known = Assembly::load(self.tx.as_read(), from, item.part.transfer)?;
            if known.is_none() {
                begun.insert(item.part.transfer);
            }
            let before = known.map_or(0, |assembly| assembly.count().1);
            match self.store_part(from, &item)? {
                Ok(mut assembly) => {
                    assembly.note_carrier(self.tx, carrier)?;
                    shelves.note(item.part.transfer, assembly.occupies());
                    self.tell_progress(from, &item.context, before, assembly.count());
                    if let Some(oldest) = peer.link(&item.context).arrives(item.part.transfer) {
                        self.crowded_out(from, &item.context, oldest)?;
                    }
                    if !assembly.is_complete() {
                        let link = peer.link(&item.context);
                        let soon = self.now + millis(self.config.timing.gap);
                        if link.refused == Some(item.part.transfer) {
                            // It comes again, which is no progress: questions go on to be in vain, as planned.
                            link.ask_at = link.ask_at.or(Some(soon));
                        } else {
                            (link.ask_at, link.asks) = (Some(soon), 0);
                        }
                    }
                    received.contexts.insert(item.context);
                }
                Err(error) => self.refuse_part(from, item, error.to_string())?,
            }
        }
        self.tell_refused(from, peer, shelves);
        received.begun = begun;
        Ok(received)
    }

    /// Says at each tenth how much of a transfer of many parts has arrived.
    fn tell_progress(&mut self, from: &str, context: &str, before: u32, (expected, received): (u32, u32)) {
        let tenth = |parts: u32| u64::from(parts) * 10 / u64::from(expected.max(1));
        if expected >= PROGRESS_PARTS_MIN && tenth(received) > tenth(before) {
            let (site, context) = (from.to_owned(), context.to_owned());
            self.event(Event::Coming { site, context, received, expected });
        }
    }

    /// Keeps a part, and nothing that would stand in the way of what is sent again.
    fn store_part(&mut self, from: &str, item: &PartItem) -> Result<Result<Assembly, PartError>, StoreError> {
        let mut stored = Assembly::store(self.tx, from, &item.part);
        if let Err(PartError::Contradiction(_)) = stored {
            // One of the two is wrong, and nobody knows which: what comes now begins anew.
            if let Some(before) = Assembly::load(self.tx.as_read(), from, item.part.transfer)? {
                let reason = "its parts contradict one another".to_owned();
                self.refuse_transfer(from, &item.context, &before, reason)?;
                before.drop_all(self.tx)?;
            }
            stored = Assembly::store(self.tx, from, &item.part);
        }
        // What is whole is what its id names.
        if let Ok(assembly) = &stored
            && assembly.is_just_complete()
            && let Err(error) = assembly.open(self.tx.as_read())
        {
            assembly.drop_all(self.tx)?;
            stored = Err(error);
        }
        match stored {
            Err(PartError::Store(error)) => Err(error),
            stored => Ok(stored),
        }
    }

    /// A part takes no effect; it is kept for the operator.
    pub(super) fn refuse_part(
        &mut self,
        from: &str,
        item: PartItem,
        reason: String,
    ) -> Result<(), StoreError> {
        let context = item.context.clone();
        self.keep_part(from, item, &reason)?;
        self.not_applied(from, &context, reason);
        Ok(())
    }

    /// Keeps a part for the operator, as a message that brings nothing else.
    pub(super) fn keep_part(&mut self, from: &str, item: PartItem, reason: &str) -> Result<(), StoreError> {
        let mut message = Message::new(Vec::new());
        message.parts.push(item);
        self.keep_copy(from, reason, &message.encode())
    }
}
