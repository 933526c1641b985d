//! What waits for the operator's word: transfers that would delete too much, and histories that went two ways.
//!
//! PROMISES
//!   A transfer that deletes more than the set share of a naming context is not visible before it was
//!   approved, whatever its manifest claims: what counts is what applying it really deletes. Nor does a master that
//!   merges what it lost delete more: it keeps those entries and says so. While a transfer
//!   waits, what follows it waits too, and the sender is told and stops repeating itself.
//!   A fork is put on record when it is found and goes when both sites meet again, whatever a third one holds; approving
//!   it gives up what this site holds of the naming context for what the other site sends, or, of this site's own, takes
//!   back from the other site what it lacks once more.
//!   Of our own it goes when nobody shows the other history any more, and never by itself.
//!   There is one hold a naming context; when several transfers wait that lead on from the same state, the word
//!   on it is for the one that deletes most. A transfer that waits takes the place of a fork, which is found again, under a
//!   number of its own: no number is given twice.
//!
//! LIMITS
//!   [`DELETIONS_MIN`] deletions never hold, however small the naming context. [`OTHERS_MAX`] transfers that
//!   wait together are remembered one by one; others are looked at again.

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
    #[n(8)]
    pub kind: HoldKind,
    /// Where other transfers from the same state would lead that were looked at and wait behind this word.
    #[n(9)]
    #[cbor(default)]
    #[serde(skip)]
    pub others: Vec<Position>,
    /// Who masters the naming context: of a deletion, whose it is, whoever sent it.
    #[n(10)]
    #[cbor(default)]
    pub master: String,
}

/// Why something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum HoldKind {
    /// A transfer would delete too much.
    #[n(0)]
    Deletions,
    /// The site's history and ours contradict each other.
    #[n(1)]
    Fork,
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

impl Hold {
    /// Who deletes, and by whom that was heard if it was another one.
    pub fn of(&self) -> String {
        let Hold { site, master, .. } = self;
        if master.is_empty() || master == site { site.clone() } else { format!("{master} by way of {site}") }
    }
}

/// So few deletions are always let through.
pub const DELETIONS_MIN: u64 = 10;
pub const OTHERS_MAX: usize = 16;
const LAST_HOLD: &[u8] = b"last hold";

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

/// What the partner may delete at once, without a word, of so many entries.
pub(super) fn deletions_max(partner: &Partner, entries: u64) -> u64 {
    let share = u128::from(entries) * u128::from(partner.delete_percent_max) / 100;
    DELETIONS_MIN.max(u64::try_from(share).unwrap_or(u64::MAX))
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
        if deletions <= deletions_max(partner, entries) {
            return Ok(false);
        }
        let approved = |hold: Hold| {
            // That a fork is given up for what one site holds says nothing of what others send.
            let is_meant = hold.kind == HoldKind::Deletions || hold.site == partner.site;
            is_meant && hold.verdict == HoldVerdict::Approved && hold.deletions >= deletions
        };
        Ok(!self.hold_of(context)?.is_some_and(approved))
    }

    /// Whether this very transfer was looked at and waits.
    pub(super) fn waits(&self, context: &str, target: Position) -> Result<bool, StoreError> {
        if self.held.is_empty() {
            return Ok(false);
        }
        let waits = |hold: Hold| {
            let looked_at = hold.target == target || hold.others.contains(&target);
            hold.kind == HoldKind::Deletions && looked_at && hold.verdict != HoldVerdict::Approved
        };
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
        if known.as_ref().is_some_and(|hold| hold.kind == HoldKind::Fork) {
            // The word on a fork is none on this. It is found again once this is decided.
            self.release(context)?;
        }
        let known = known.filter(|hold| hold.kind == HoldKind::Deletions);
        let id = match &known {
            Some(hold) => hold.id,
            None => self.next_hold()?,
        };
        let before = known.as_ref();
        let looked_at = |hold: &Hold| hold.target == target || hold.others.contains(&target);
        let same = before.is_some_and(looked_at);
        let mut others = before.map_or(Vec::new(), |hold| hold.others.clone());
        others.extend(before.map(|hold| hold.target));
        others.retain(|other| *other != target);
        others.drain(..others.len().saturating_sub(OTHERS_MAX));
        // A word that was given for more deletions is good for fewer.
        let most = before.filter(|hold| hold.verdict != HoldVerdict::Approved);
        let deletions = most.map_or(deletions, |hold| hold.deletions.max(deletions));
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
            kind: HoldKind::Deletions,
            others,
            master: self.master_of(context),
        };
        self.put_hold(&hold)?;
        if !same {
            let Hold { site, context, master, .. } = hold;
            self.event(Event::Held { site, master, context, hold: id, deletions, entries });
        }
        Ok(())
    }

    /// The number of a new hold. None is given twice, so that a late word means nothing else.
    fn next_hold(&mut self) -> Result<u64, StoreError> {
        let last = self.tx.get(Table::Meta, LAST_HOLD)?.and_then(|octets| octets.try_into().ok());
        let listed = holds(self.tx.as_read())?.last().map_or(0, |hold| hold.id);
        let next = last.map_or(0, u64::from_be_bytes).max(listed) + 1;
        self.tx.put(Table::Meta, LAST_HOLD, &next.to_be_bytes())?;
        Ok(next)
    }

    /// Puts a fork on record; one that is there, or a transfer that waits, stays. Whether it is new.
    pub(super) fn hold_fork(
        &mut self,
        site: &str,
        context: &str,
        target: Position,
        entries: u64,
    ) -> Result<bool, StoreError> {
        if self.hold_of(context)?.is_some() {
            return Ok(false);
        }
        let id = self.next_hold()?;
        let (site, context, master) = (site.to_owned(), context.to_owned(), self.master_of(context));
        let (verdict, kind) = (HoldVerdict::Waiting, HoldKind::Fork);
        let since = self.now;
        self.forks.push(context.clone());
        let others = Vec::new();
        self.put_hold(&Hold {
            id,
            site,
            context,
            target,
            deletions: 0,
            entries,
            since,
            verdict,
            kind,
            others,
            master,
        })?;
        Ok(true)
    }

    /// A fork with a site from which nothing of the naming context is taken any more is nobody's to decide.
    pub(super) fn end_idle_forks(&mut self) -> Result<(), StoreError> {
        for hold in holds(self.tx.as_read())?.into_iter().filter(|hold| hold.kind == HoldKind::Fork) {
            let taken = self.config.partner(&hold.site).is_some_and(|site| self.takes(site, &hold.context));
            if !self.masters(&hold.context) && !taken {
                self.release(&hold.context)?;
            }
        }
        Ok(())
    }

    fn master_of(&self, context: &str) -> String {
        self.context(context).map_or_else(String::new, |record| record.master.clone())
    }

    /// No history goes two ways any more between us and the site, or anybody if none is named; costs nothing where none
    /// did.
    pub(super) fn resolve_fork(&mut self, context: &str, site: Option<&str>) -> Result<(), StoreError> {
        if !self.is_fork_on_record(context) {
            return Ok(());
        }
        let met = |hold: &Hold| hold.kind == HoldKind::Fork && site.is_none_or(|site| site == hold.site);
        match self.hold_of(context)?.filter(met) {
            Some(_) => self.release(context),
            None => Ok(()),
        }
    }

    fn is_fork_on_record(&self, context: &str) -> bool {
        self.forks.iter().any(|fork| same_context(fork, context))
    }

    /// The operator ends a fork: what the other site holds counts.
    fn end_fork(&mut self, mut hold: Hold) -> Result<(), StoreError> {
        let record = self.context(&hold.context).filter(|record| record.master == self.config.site);
        let number = record.map(|record| record.number);
        let own = number.is_some();
        if let Some(number) = number {
            self.release(&hold.context)?;
            self.merge_again(number)?;
        } else {
            // What a full load deletes was decided on with this.
            (hold.verdict, hold.deletions) = (HoldVerdict::Approved, hold.entries);
            self.put_hold(&hold)?;
        }
        let mut peer: Peer = self.peer(&hold.site)?;
        let link = peer.link(&hold.context);
        link.refresh = !own;
        link.refused = None;
        link.ask_at = Some(self.now);
        link.asks = 0;
        self.put_back(&hold.site, peer);
        Ok(())
    }

    fn put_hold(&mut self, hold: &Hold) -> Result<(), StoreError> {
        let bytes = minicbor::to_vec(hold).expect("writing to memory does not fail");
        self.held.retain(|held| !same_context(held, &hold.context));
        if hold.kind == HoldKind::Deletions && hold.verdict != HoldVerdict::Approved {
            self.held.push(hold.context.clone());
        }
        self.tx.put(Table::Hold, &hold.id.to_be_bytes(), &bytes)
    }

    /// The naming context got further, by what the site sent: no transfer waits any more.
    pub(super) fn got_further(&mut self, context: &str, site: &str) -> Result<(), StoreError> {
        if self.is_fork_on_record(context) {
            self.resolve_fork(context, Some(site))
        } else {
            self.release(context)
        }
    }

    /// Nothing waits any more.
    pub(super) fn release(&mut self, context: &str) -> Result<(), StoreError> {
        self.held.retain(|held| !same_context(held, context));
        self.forks.retain(|fork| !same_context(fork, context));
        match self.hold_of(context)? {
            Some(hold) => self.tx.delete(Table::Hold, &hold.id.to_be_bytes()),
            None => Ok(()),
        }
    }

    /// What the site sent does not wait any more, nor does what it told of another history.
    pub(super) fn release_all_of(&mut self, site: &str) -> Result<(), StoreError> {
        for hold in holds(self.tx.as_read())?.into_iter().filter(|hold| hold.site == site) {
            self.release(&hold.context)?;
        }
        Ok(())
    }

    /// The operator's word on a hold.
    pub(super) fn decide(&mut self, id: u64, approve: bool) -> Result<(), StoreError> {
        let Some(mut hold) = holds(self.tx.as_read())?.into_iter().find(|hold| hold.id == id) else {
            return Ok(());
        };
        if hold.kind == HoldKind::Fork && approve {
            self.event(Event::HoldDecided { hold: id, context: hold.context.clone(), approved: true });
            return self.end_fork(hold);
        }
        hold.verdict = if approve { HoldVerdict::Approved } else { HoldVerdict::Rejected };
        self.put_hold(&hold)?;
        if hold.kind == HoldKind::Fork && self.config.partner(&hold.site).is_some() {
            // It may have been approved before.
            let mut peer: Peer = self.peer(&hold.site)?;
            peer.link(&hold.context).refresh = false;
            self.put_back(&hold.site, peer);
        }
        self.event(Event::HoldDecided { hold: id, context: hold.context.clone(), approved: approve });
        if approve && self.config.partner(&hold.site).is_some() {
            let mut peer: Peer = self.peer(&hold.site)?;
            self.apply_ready(&hold.site, &mut peer, &hold.context)?;
            // Tells the site that it may go on; its parts may be gone meanwhile.
            peer.answer_at = Some(self.now);
            let link = peer.link(&hold.context);
            (link.ask_at, link.asks) = (Some(self.now), 0);
            self.put_back(&hold.site, peer);
        }
        Ok(())
    }
}
