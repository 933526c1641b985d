//! Transfers that would delete too much wait for the operator's word.
//!
//! PROMISES
//!   A transfer that deletes more than the set share of a naming context is not visible before it was
//!   approved, whatever its manifest claims: what counts is what applying it really deletes. While one
//!   waits, what follows it waits too, and the sender is told and stops repeating itself.
//!   There is one hold a naming context; a later transfer from the same state takes the place of the earlier.
//!
//! LIMITS
//!   [`DELETIONS_MIN`] deletions never hold, however small the naming context.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::Event;
use super::config::{Partner, same_context};
use super::turn::Turn;
use crate::directory::{Position, Read, StoreError, Table};
use crate::replication::peer::{Millis, Peer};

/// One transfer that waits, or an approval that was not used yet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Hold {
    #[n(0)]
    pub id: u64,
    /// Who sent it.
    #[n(1)]
    pub site: String,
    #[n(2)]
    pub context: String,
    /// Where the naming context would stand.
    #[n(3)]
    #[serde(skip)]
    pub target: Position,
    #[n(4)]
    pub deletions: u64,
    /// Entries before.
    #[n(5)]
    pub entries: u64,
    /// Milliseconds since 1970, UTC.
    #[n(6)]
    pub since: Millis,
    #[n(7)]
    pub verdict: HoldVerdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum HoldVerdict {
    #[n(0)]
    Waiting,
    #[n(1)]
    Approved,
    /// Stays as it is, until it is approved after all.
    #[n(2)]
    Rejected,
}

/// So few deletions are always let through.
pub const DELETIONS_MIN: u64 = 10;

/// All holds, oldest first.
///
/// # Errors
/// The store's.
pub fn holds(read: &dyn Read) -> Result<Vec<Hold>, StoreError> {
    let mut found = Vec::new();
    read.scan(Table::Hold, &[], &[0xff; 9], &mut |_, value| {
        found.push(minicbor::decode(value).map_err(|error| StoreError::Damaged(format!("a hold: {error}"))));
        true
    })?;
    found.into_iter().collect()
}

impl Turn<'_> {
    pub(super) fn hold_of(&self, context: &str) -> Result<Option<Hold>, StoreError> {
        Ok(holds(self.tx.as_read())?.into_iter().find(|hold| same_context(&hold.context, context)))
    }

    /// Whether so many deletions need the operator's word, and do not have it.
    pub(super) fn needs_word(
        &self,
        partner: &Partner,
        context: &str,
        deletions: u64,
        entries: u64,
    ) -> Result<bool, StoreError> {
        let share = u128::from(deletions) * 100;
        let allowed = u128::from(entries) * u128::from(partner.delete_percent_max);
        if deletions <= DELETIONS_MIN || share <= allowed {
            return Ok(false);
        }
        let approved = |hold: Hold| hold.verdict == HoldVerdict::Approved && hold.deletions >= deletions;
        Ok(!self.hold_of(context)?.is_some_and(approved))
    }

    /// Whether this very transfer was looked at and waits.
    pub(super) fn waits(&self, context: &str, target: Position) -> Result<bool, StoreError> {
        if self.held.is_empty() {
            return Ok(false);
        }
        let waits = |hold: Hold| hold.target == target && hold.verdict != HoldVerdict::Approved;
        Ok(self.hold_of(context)?.is_some_and(waits))
    }

    /// Puts a transfer on record that waits from now on.
    pub(super) fn hold(
        &mut self,
        partner: &Partner,
        context: &str,
        target: Position,
        deletions: u64,
        entries: u64,
    ) -> Result<(), StoreError> {
        let known = self.hold_of(context)?;
        let id = match &known {
            Some(hold) => hold.id,
            None => holds(self.tx.as_read())?.last().map_or(1, |hold| hold.id + 1),
        };
        let same = known.as_ref().is_some_and(|hold| hold.target == target);
        let hold = Hold {
            id,
            site: partner.site.clone(),
            context: context.to_owned(),
            target,
            deletions,
            entries,
            since: known.as_ref().map_or(self.now, |hold| hold.since),
            verdict: match known {
                Some(Hold { verdict: HoldVerdict::Rejected, .. }) => HoldVerdict::Rejected,
                _ => HoldVerdict::Waiting,
            },
        };
        self.put_hold(&hold)?;
        if !same {
            let (site, context) = (hold.site, hold.context);
            self.event(Event::Held { site, context, hold: id, deletions, entries });
        }
        Ok(())
    }

    fn put_hold(&mut self, hold: &Hold) -> Result<(), StoreError> {
        let bytes = minicbor::to_vec(hold).expect("writing to memory does not fail");
        self.held.push(hold.context.clone());
        self.tx.put(Table::Hold, &hold.id.to_be_bytes(), &bytes)
    }

    /// The naming context got further: nothing waits any more.
    pub(super) fn release(&mut self, context: &str) -> Result<(), StoreError> {
        self.held.retain(|held| !same_context(held, context));
        match self.hold_of(context)? {
            Some(hold) => self.tx.delete(Table::Hold, &hold.id.to_be_bytes()),
            None => Ok(()),
        }
    }

    /// The operator's word on a hold.
    pub(super) fn decide(&mut self, id: u64, approve: bool) -> Result<(), StoreError> {
        let Some(mut hold) = holds(self.tx.as_read())?.into_iter().find(|hold| hold.id == id) else {
            return Ok(());
        };
        hold.verdict = if approve { HoldVerdict::Approved } else { HoldVerdict::Rejected };
        self.put_hold(&hold)?;
        self.event(Event::HoldDecided { hold: id, context: hold.context.clone(), approved: approve });
        if approve && self.config.partner(&hold.site).is_some() {
            let mut peer: Peer = self.peer(&hold.site)?;
            self.apply_ready(&hold.site, &mut peer, &hold.context)?;
            // Tells the site that it may go on, whether or not its parts are still here.
            peer.answer_at = Some(self.now);
            self.put_back(&hold.site, peer);
        }
        Ok(())
    }
}
