//! One turn of the engine: the configuration, the transaction and the time, with the records of the sites
//! and naming contexts that it touches.
//!
//! PROMISES
//!   A site's record is read once and written once in a turn, and only if it changed.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use uuid::Uuid;

use super::config::{EngineConfig, KnownSite, Masters, Partner, same_context};
use super::hold::{Hold, HoldKind, HoldVerdict, holds};
use super::records::{Places, Records, Shared, place_name};
use super::{Event, Output};
use crate::directory::Table;
use crate::directory::context::{self, ContextRecord};
use crate::directory::{StoreError, Write};
use crate::replication::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::replication::peer::{Millis, Peer, Point};
use crate::replication::wire::{Standing, VectorItem};

pub struct Turn<'t> {
    pub(super) config: &'t EngineConfig,
    pub(super) outputs: &'t mut VecDeque<Output>,
    pub(super) renewed: &'t mut BTreeMap<u32, Uuid>,
    pub(super) tx: &'t mut dyn Write,
    pub(super) now: Millis,
    pub(super) contexts: Shared<Vec<ContextRecord>>,
    places: Shared<Places>,
    pub(super) records: &'t mut Records,
    masters: &'t Masters,
    /// Naming contexts with a transfer that waits for the operator: nothing is asked for, and sites are told.
    pub(super) held: Vec<String>,
    /// Naming contexts with a fork on record.
    pub(super) forks: Vec<String>,
    /// Naming contexts of ours of which partners hold more than we do.
    pub(super) recovering: Vec<String>,
    /// Naming contexts of ours that go on in two lives.
    pub(super) forked: Vec<String>,
    peers: BTreeMap<String, Peer>,
    changed: BTreeSet<String>,
}

impl<'t> Turn<'t> {
    pub(super) fn begin(
        config: &'t EngineConfig,
        masters: &'t Masters,
        outputs: &'t mut VecDeque<Output>,
        renewed: &'t mut BTreeMap<u32, Uuid>,
        records: &'t mut Records,
        tx: &'t mut dyn Write,
        now: Millis,
    ) -> Result<Turn<'t>, StoreError> {
        let (contexts, places) = records.contexts(tx.as_read())?;
        let (held, forks): (Vec<Hold>, Vec<Hold>) =
            holds(tx.as_read())?.into_iter().partition(|hold| hold.kind == HoldKind::Deletions);
        let names = |holds: Vec<Hold>| holds.into_iter().map(|hold| hold.context).collect();
        let waits = |hold: &Hold| hold.verdict != HoldVerdict::Approved;
        let mut turn = Turn {
            config,
            outputs,
            renewed,
            tx,
            now,
            contexts,
            places,
            records,
            masters,
            held: names(held.into_iter().filter(waits).collect()),
            forks: names(forks),
            recovering: Vec::new(),
            forked: Vec::new(),
            peers: BTreeMap::new(),
            changed: BTreeSet::new(),
        };
        turn.find_losses()?;
        Ok(turn)
    }

    /// Takes a site's record out of the turn; [`Turn::put_back`] returns it. One that is not put back loses what
    /// the turn changed in it.
    pub(super) fn peer(&mut self, site: &str) -> Result<Peer, StoreError> {
        match self.peers.remove(site) {
            Some(peer) => Ok(peer),
            None => self.records.peer(self.tx.as_read(), site),
        }
    }

    pub(super) fn put_back(&mut self, site: &str, peer: Peer) {
        self.peers.insert(site.to_owned(), peer);
        self.changed.insert(site.to_owned());
    }

    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Writes the records and notes when each site is due.
    pub(super) fn end(mut self, due: &mut BTreeMap<String, Millis>) -> Result<(), StoreError> {
        due.retain(|site, _| self.config.partner(site).is_some());
        for site in std::mem::take(&mut self.changed) {
            let Some(peer) = self.peers.remove(&site) else { continue };
            let next = self.config.partner(&site).and_then(|partner| self.next_due(partner, &peer));
            self.records.store(self.tx, &site, peer)?;
            due.insert(site, next.unwrap_or(Millis::MAX));
        }
        Ok(())
    }

    /// Whether this turn has looked at the site's record.
    pub(super) fn is_touched(&self, site: &str) -> bool {
        self.peers.contains_key(site)
    }

    pub(super) fn context(&self, name: &str) -> Option<&ContextRecord> {
        let (number, place) = *self.places.get(&name.to_ascii_lowercase())?;
        let is = |record: &&ContextRecord| record.number == number;
        self.contexts.get(place).filter(is).or_else(|| self.contexts.iter().find(is))
    }

    pub(super) fn add_context(&mut self, record: ContextRecord) {
        let place = (record.number, self.contexts.len());
        self.places.insert(place_name(&record), place);
        self.contexts.push(record);
    }

    /// The site whose pinned card says that it masters `context`.
    fn master(&self, context: &str) -> Option<&'t KnownSite> {
        let at = *self.masters.get(&context.to_ascii_lowercase())?;
        self.config.known.get(at)
    }

    /// Reads a naming context again after it changed.
    pub(super) fn refresh(&mut self, number: u32) -> Result<(), StoreError> {
        let Some(fresh) = context::context_by_number(self.tx.as_read(), number)? else { return Ok(()) };
        match self.contexts.iter_mut().find(|record| record.number == number) {
            Some(record) => *record = fresh,
            None => self.add_context(fresh),
        }
        Ok(())
    }

    /// Whether what we hold of this naming context goes to this site.
    pub(super) fn sends(&self, partner: &Partner, record: &ContextRecord) -> bool {
        partner.gets(&self.config.site, record)
    }

    /// Whether this naming context is taken from this site.
    pub(super) fn takes(&self, partner: &Partner, context: &str) -> bool {
        if self.recovering.iter().any(|own| same_context(own, context)) {
            return true;
        }
        let ours = self.masters(context);
        let master = self.master(context).filter(|known| known.site != self.config.site);
        !ours && master.is_some_and(|known| partner.gives(Some(&known.site), context))
    }

    /// Whether we hold the naming context and master it.
    pub(super) fn masters(&self, context: &str) -> bool {
        self.context(context).is_some_and(|record| record.master == self.config.site)
    }

    /// Whether a naming context has a place in our vector for the site; its record, if there is one, and its name.
    pub(super) fn has_place(&self, partner: &Partner, record: Option<&ContextRecord>, name: &str) -> bool {
        record.is_some_and(|record| record.master == partner.site || self.sends(partner, record))
            || self.takes(partner, name)
    }

    /// Where we stand with every naming context that may pass between us and this site.
    pub(super) fn vector(&self, partner: &Partner, peer: &Peer) -> Vec<VectorItem> {
        let standing = |name: &str| match () {
            () if self.held.iter().any(|held| same_context(held, name)) => Standing::Held,
            () if self.forked.iter().any(|own| same_context(own, name)) => Standing::Forked,
            () if self.recovering.iter().any(|own| same_context(own, name)) => Standing::Recovering,
            () => Standing::Follows,
        };
        let (mut items, mut listed) = (Vec::new(), HashSet::new());
        for record in &self.contexts {
            let name = record.dn.to_string();
            if self.has_place(partner, Some(record), &name) {
                let wrong =
                    peer.links.iter().any(|link| link.wants_whole() && same_context(&link.context, &name));
                let point = point(record).filter(|_| !wrong);
                listed.insert(name.to_ascii_lowercase());
                items.push(VectorItem {
                    standing: standing(&name),
                    context: name,
                    position: point.map(|(position, _)| position),
                    digest: point.map(|(_, digest)| digest),
                });
            }
        }
        for name in self.config.known.iter().flat_map(|known| &known.contexts) {
            if self.takes(partner, name) && listed.insert(name.to_ascii_lowercase()) {
                items.push(VectorItem {
                    context: name.clone(),
                    position: None,
                    digest: None,
                    standing: Standing::Follows,
                });
            }
        }
        items
    }

    /// The master's signed word on what we hold now; signed here if the master is us.
    pub(super) fn checkpoint(
        &mut self,
        record: &ContextRecord,
    ) -> Result<Option<SignedCheckpoint>, StoreError> {
        let key = record.number.to_be_bytes();
        // Later checkpoints say later times, whatever the clock says.
        let mut after = jiff::Timestamp::UNIX_EPOCH;
        if let Some(bytes) = self.tx.get(Table::Checkpoint, &key)? {
            let signed = SignedCheckpoint::from_bytes(&bytes)
                .map_err(|error| StoreError::Damaged(format!("the checkpoint of {}: {error}", record.dn)))?;
            if let Ok(said) = signed.claimed() {
                let lineage = record.lineage.digest();
                let ours = record.master == self.config.site;
                let current = !ours || signed.verify(&self.config.key.verifying_key()).is_ok();
                if current
                    && (said.position, said.digest, said.lineage) == (record.position, record.digest, lineage)
                {
                    return Ok(Some(signed));
                }
                after = said.time.saturating_add(jiff::SignedDuration::from_secs(1)).unwrap_or(said.time);
            }
        }
        if record.master != self.config.site {
            return Ok(None);
        }
        let now = jiff::Timestamp::from_millisecond(self.now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let signed = Checkpoint::of(record, now.max(after)).sign(&self.config.key);
        self.tx.put(Table::Checkpoint, &key, &signed.to_bytes())?;
        Ok(Some(signed))
    }
}

/// Where a naming context stands; None if nothing is held of it yet.
pub fn point(record: &ContextRecord) -> Option<Point> {
    (record.position.usn > 0).then_some((record.position, record.digest))
}

/// The earlier of a deadline that may be set and another.
pub fn sooner(deadline: Option<Millis>, at: Millis) -> Option<Millis> {
    Some(deadline.map_or(at, |set| set.min(at)))
}
