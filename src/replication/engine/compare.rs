//! Their vector against ours: who is behind, and what follows from it.
//!
//! PROMISES
//!   A vector is believed about its sender alone. It can cause mail; it never changes what we hold.
//!   What a vector shows to have arrived is dropped from the outbox; what it shows to be missing is asked for
//!   after it was given time to arrive by itself.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use super::Event;
use super::config::Partner;
use super::hold::{Hold, HoldKind};
use super::turn::{Turn, point, sooner};
use crate::directory::context::ContextRecord;
use crate::directory::{Position, StoreError};
use crate::replication::pacing::millis;
use crate::replication::parts::{Assembly, Outgoing};
use crate::replication::peer::{Flight, Link, Millis, Peer, Point, Told};
use crate::replication::vector::VectorDigest;
use crate::replication::wire::{CONTEXTS_MAX, VectorItem};

impl Turn<'_> {
    /// The newest vector replaces what was known of the site. One that tells what changed, and does not give the
    /// whole together with what was known, counts for what it tells; for the rest it is asked.
    pub(super) fn take_vector(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        vector: Vec<VectorItem>,
        digest: Option<VectorDigest>,
    ) -> Result<(), StoreError> {
        let told = note_vector(peer, vector, digest.is_none());
        self.end_unwanted(partner, peer)?;
        let known = digest.is_none_or(|digest| digest == peer.vector_digest());
        match digest {
            _ if !known && peer.vector_asks > 0 => {
                peer.vector_at = peer.vector_at.or(Some(peer.vector_again(self.now, &self.config.timing)));
            }
            _ if !known => {
                peer.vector_at =
                    sooner(peer.vector_at, self.now + millis(self.config.timing.acknowledgement));
            }
            Some(_) => (peer.vector_at, peer.vector_asks) = (None, 0),
            // Only a difference that holds shows that both understand one another again.
            None => peer.vector_at = None,
        }
        // What we never held is sent by itself as soon as the site knows that we take it.
        let first_wait = peer.timeout(&self.config.timing);
        let mut links = std::mem::take(&mut peer.links);
        let mut progress = false;
        for (at, link) in links.iter_mut().enumerate() {
            if !known && !told.contains(&at) {
                continue;
            }
            self.tidy(partner, peer, link)?;
            progress |= self.settle_chain(partner, peer, link)?;
            if let Some(text) = self.weigh_twin(partner, link) {
                peer.notify(link.context.clone(), &text);
            }
            self.compare(partner, link, first_wait)?;
        }
        links.retain(Link::is_worth_keeping);
        peer.links = links;
        if progress {
            peer.round_trip.backed_off = 0;
            // What left behind it may have got lost all the same (RFC 6298, rule 5.3).
            let left = peer.links.iter().any(|link| link.chain.iter().any(|flight| flight.next > 0));
            peer.retry_at = left.then(|| self.now + peer.timeout(&self.config.timing));
        }
        Ok(())
    }

    /// A site that is not ahead of us, by its own word, completes nothing of what it has begun to send; nor is
    /// completed what is not taken from it any more. So parts that are still kept go.
    fn tidy(&mut self, partner: &Partner, peer: &mut Peer, link: &mut Link) -> Result<(), StoreError> {
        let record = self.context(&link.context).cloned();
        let passed = |at: &Position| record.as_ref().is_some_and(|record| record.is_on_history(at));
        let wants = link.wants_whole() || link.verify_at.is_some();
        let comes = link.theirs.is_some_and(|(position, _)| wants || !passed(&position));
        if comes && self.takes(partner, &link.context) {
            return Ok(());
        }
        // What waited for the operator came another way, or is not wanted any more.
        let waits = |hold: Hold| hold.kind == HoldKind::Deletions && hold.site == partner.site;
        if self.hold_of(&link.context)?.is_some_and(waits) {
            self.release(&link.context)?;
        }
        for transfer in std::mem::take(&mut link.arriving) {
            let Some(assembly) = Assembly::load(self.tx.as_read(), &partner.site, transfer)? else {
                continue;
            };
            let target = assembly.manifest().ok().flatten();
            let target = target.and_then(|manifest| manifest.checkpoint.claimed().ok());
            assembly.drop_all(self.tx)?;
            let ((expected, received), site) = (assembly.count(), partner.site.clone());
            self.event(Event::GivenUp { site, context: link.context.clone(), received, expected });
            // Only of what was reached for certain no part is taken any more: a vector may say anything.
            if let (Some(target), Some(record)) = (target, &record)
                && record.is_on_history(&target.position)
            {
                peer.finish(transfer);
            }
        }
        Ok(())
    }

    /// Drops from the chain what has arrived, or the whole chain if the site stands where the chain does
    /// not pass. Whether there was progress.
    fn settle_chain(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        link: &mut Link,
    ) -> Result<bool, StoreError> {
        let theirs = link.theirs;
        let record = self.context(&link.context);
        let own = record.and_then(point);
        // Once we got to know where the site stands, there is something better than everything over it.
        let knows = theirs.zip(record).is_some_and(|((at, _), record)| record.is_on_history(&at));
        let passed = |flight: &Flight| {
            let (target, theirs) = (flight.target.0, theirs.map(|(position, _)| position));
            theirs.is_some_and(|at| target.is_passed_by(&at))
        };
        let arrived = link.chain.iter().rposition(passed);
        if let (Some(at), Some(limit)) = (arrived, peer.passes_bytes_max)
            && link.chain[..=at].iter().any(|flight| flight.fills(limit))
        {
            peer.widening.pass();
        }
        let drop = match arrived {
            _ if own == theirs => link.chain.len(),
            Some(at) => at + 1,
            None => {
                let fits = |flight: &Flight| flight.base == theirs && !(flight.astray && knows);
                link.chain.iter().position(fits).unwrap_or(link.chain.len())
            }
        };
        // What is left must begin where the site stands.
        let begins = link.chain.get(drop).is_none_or(|flight| flight.base == theirs);
        let drop = if begins { drop } else { link.chain.len() };
        for flight in link.chain.drain(..drop) {
            Outgoing::of(&partner.site, flight.transfer).drop_all(self.tx)?;
        }
        Ok(arrived.is_some())
    }

    /// Sets what is to be done about a difference; undoes it if there is none.
    fn compare(&mut self, partner: &Partner, link: &mut Link, first_wait: Millis) -> Result<(), StoreError> {
        let record = self.context(&link.context).cloned();
        let own = record.as_ref().and_then(point);
        if own == link.theirs {
            link.push_at = None;
            link.told = None;
            link.refresh = false;
            link.by_file = link.by_file.filter(|_| link.theirs.is_none());
            if link.wants_whole() {
                // Until it came: the site takes us for one that holds nothing.
                self.ask_soon(partner, link, first_wait);
            } else {
                link.ask_at = None;
                (link.asks, link.misfits) = (0, 0);
            }
            // Of our own another partner may show the other life still, see `find_losses`.
            let ours = record.is_some_and(|record| record.master == self.config.site);
            return if ours { Ok(()) } else { self.resolve_fork(&link.context, Some(&partner.site)) };
        }
        if link.theirs.is_some() {
            link.by_file = None;
        }
        let Some(theirs) = link.theirs else {
            if let Some(record) = &record {
                self.push_soon(partner, record, link, 0);
            }
            return Ok(());
        };
        match &record {
            Some(record) if own.is_some() => self.compare_points(partner, record, theirs, link, first_wait),
            // Our own, of which we hold nothing: a new store in place of a lost one.
            Some(record) if record.master == self.config.site => self.lost(partner, record, theirs, link),
            _ => {
                self.ask_soon(partner, link, first_wait);
                Ok(())
            }
        }
    }

    fn compare_points(
        &mut self,
        partner: &Partner,
        record: &ContextRecord,
        theirs: Point,
        link: &mut Link,
        first_wait: Millis,
    ) -> Result<(), StoreError> {
        let (position, _) = theirs;
        if position == record.position {
            if link.told.replace(Told::Differs) != Some(Told::Differs) {
                self.event(Event::Differs {
                    site: partner.site.clone(),
                    context: link.context.clone(),
                    position: position.into(),
                });
            }
        } else if record.is_on_history(&position) {
            // All that it has is behind us. Whoever takes us for one that holds nothing does not see what it lost.
            link.ask_full = false;
            if record.master != self.config.site {
                // It came back to our history, so nothing is to be given up for what it holds.
                link.refresh = false;
                self.resolve_fork(&link.context, Some(&partner.site))?;
            }
            self.push_soon(partner, record, link, 0);
        } else if record.master == self.config.site {
            return self.lost(partner, record, theirs, link);
        } else {
            // The master's own word is on its way, if it is our partner too.
            let near = record.master == partner.site || self.config.partner(&record.master).is_none();
            let wait = if near { millis(self.config.timing.gap) } else { first_wait };
            self.ask_soon(partner, link, wait);
        }
        Ok(())
    }

    /// Our state is new to the site: it goes out `delay` from now at the latest, if it may.
    pub(super) fn push_soon(&self, partner: &Partner, record: &ContextRecord, link: &mut Link, delay: i64) {
        if link.wanted && self.sends(partner, record) && link.head() != point(record) {
            link.push_at = sooner(link.push_at, self.now + delay);
        }
    }

    /// The site holds what we miss: ask, unless it comes by itself first.
    pub(super) fn ask_soon(&self, partner: &Partner, link: &mut Link, wait: Millis) {
        if self.takes(partner, &link.context) && link.ask_at.is_none() {
            link.ask_at = Some(self.now + wait);
        }
    }

    /// Every partner that takes this naming context, but the one it came from, gets the new state.
    pub(super) fn push_to_all(
        &mut self,
        record: &ContextRecord,
        except: Option<&str>,
    ) -> Result<(), StoreError> {
        let delay = millis(self.config.timing.batching);
        self.each_other_partner(except, |turn, partner, peer| {
            if !peer.answered || !turn.sends(partner, record) {
                return false;
            }
            let name = record.dn.to_string();
            turn.push_soon(partner, record, peer.link(&name), delay);
            true
        })
    }

    /// Whether all that we share with the site is equal; says so when it was asked or becomes so.
    pub(super) fn weigh_equality(&mut self, partner: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        let behind = self.behind(partner, peer);
        // Once asked, only an answer to what was sent since counts: what was on its way is from before.
        let echoed = peer.asked_seq.is_some_and(|seq| peer.echoed_seq >= seq);
        let answered = peer.asked_at.is_none() || echoed;
        if answered {
            peer.ask_again_at = None;
            peer.recount = false;
        }
        // What is not known of the site may differ.
        if behind == 0 && peer.vector_at.is_none() {
            if answered {
                peer.equal_at = Some(self.now);
            }
            if peer.asked_at.is_some() && answered {
                peer.asked_at = None;
                peer.asked_seq = None;
                self.event(Event::Equal { site: partner.site.clone() });
            }
        }
        Ok(())
    }

    /// Naming contexts in which the site and we differ.
    pub(super) fn behind(&self, partner: &Partner, peer: &Peer) -> usize {
        let differs = |link: &&Link| {
            let record = self.context(&link.context);
            link.wanted
                && self.has_place(partner, record, &link.context)
                && link.theirs != record.and_then(point).filter(|_| !link.wants_whole())
        };
        peer.links.iter().filter(differs).count()
    }
}

/// Where in the record the link of each naming context is, by its name in lower case.
fn places(peer: &Peer) -> HashMap<String, usize> {
    peer.links.iter().enumerate().map(|(at, link)| (link.context.to_ascii_lowercase(), at)).collect()
}

/// Notes what the items say, and where. Of naming contexts that are new, no more than a vector may have.
fn note_vector(peer: &mut Peer, vector: Vec<VectorItem>, whole: bool) -> BTreeSet<usize> {
    if whole {
        peer.links.iter_mut().for_each(|link| link.wanted = false);
    }
    let mut places = places(peer);
    let mut told = BTreeSet::new();
    for item in vector {
        let at = match places.entry(item.context.to_ascii_lowercase()) {
            Entry::Occupied(place) => *place.get(),
            // Many small differences must not make a large record.
            Entry::Vacant(_) if peer.links.len() >= CONTEXTS_MAX => continue,
            Entry::Vacant(place) => {
                peer.links.push(Link::new(&item.context));
                *place.insert(peer.links.len() - 1)
            }
        };
        let link = &mut peer.links[at];
        link.wanted = true;
        link.standing = item.standing;
        link.theirs = item.position.zip(item.digest);
        told.insert(at);
    }
    told
}
