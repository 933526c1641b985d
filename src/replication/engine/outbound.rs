//! What is due to a site, and when: hello, changes, lost parts, questions, acknowledgements, heartbeats.
//!
//! PROMISES
//!   Whatever is due goes out together, in as few messages as the byte limit allows. The timers back off
//!   for a site that does not answer. A site that never answered gets hello and nothing else.
//!   A change leaves without waiting for what left before it to be acknowledged.
//!
//! LIMITS
//!   Of one naming context `Timing::chain_max` transfers are on their way to a site at a time. What is committed beyond
//!   that waits until the first of them is acknowledged or given up, then goes as one transfer: where more batches of
//!   commits than that fall into one round trip, a change may come a round trip later. A transfer over some of those on
//!   their way would not help: when it arrives the site stands further on than it begins, and an increment applies only
//!   where it begins. Nor would a chain of any length: the site keeps `peer::ARRIVING_MAX` while one mail is late.

use std::collections::BTreeMap;

use super::Event;
use super::config::Partner;
use super::due::{BURST_MS, next_due};
use super::serve::{PROBE_PARTS, owes};
use super::turn::{Turn, point, sooner};
use crate::directory::{StoreError, log};
use crate::replication::pacing::{in_vain, millis};
use crate::replication::parts::Outgoing;
use crate::replication::peer::{Link, Millis, Peer};
use crate::replication::provenance::Carriers;
use crate::replication::wire::Standing;

impl Turn<'_> {
    /// The engine begins to run: sites are greeted, and get what was committed since the engine heard of a commit last.
    pub(super) fn start(&mut self) -> Result<(), StoreError> {
        self.rename_masters()?;
        self.restate()?;
        self.detach_strangers()?;
        self.end_idle_forks()?;
        for partner in &self.config.partners {
            let mut peer = self.peer(&partner.site)?;
            self.end_unwanted(partner, &mut peer)?;
            self.ask_for_refused(&mut peer);
            self.put_back(&partner.site, peer);
        }
        self.each_other_partner(None, |turn, partner, peer| {
            // A card that changed is told until it is heard. And either of us may have been put back to an earlier day
            // together with the cards that it pinned, or stopped before it pinned what it was told.
            if peer.greeting.at.is_none() || peer.answered {
                peer.greeting.begin(turn.now);
            }
            peer.greeting.start();
            for record in &turn.contexts {
                let name = record.dn.to_string();
                turn.push_soon(partner, record, peer.link(&name), 0);
            }
            true
        })
    }

    /// A key may count by now that did not: what was refused is asked for once more.
    fn ask_for_refused(&self, peer: &mut Peer) {
        let soon = self.now + millis(self.config.timing.gap);
        let refused = |link: &&mut Link| link.refused.is_some() && link.misfits == 0 && link.ask_at.is_some();
        for link in peer.links.iter_mut().filter(refused) {
            (link.ask_at, link.asks) = (Some(soon), 0);
        }
    }

    /// What is under way to a site and does not go to it any more, by our lists or by its own, ends.
    pub(super) fn end_unwanted(&mut self, partner: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        for link in peer.links.iter_mut().filter(|link| !link.chain.is_empty()) {
            let record = self.context(&link.context);
            let passes = |record| self.sends(partner, record) || owes(partner, link, &record.master);
            if (link.wanted || partner.one_way) && record.is_some_and(passes) {
                continue;
            }
            for flight in link.chain.drain(..) {
                Outgoing::of(&partner.site, flight.transfer).drop_all(self.tx)?;
            }
        }
        Ok(())
    }

    /// A commit of our own.
    pub(super) fn committed(&mut self, number: u32) -> Result<(), StoreError> {
        self.refresh(number)?;
        self.begin_invocation(number)?;
        self.note_step(number, None, Carriers::default(), None, false)?;
        self.trim_log(number)?;
        match self.contexts.iter().find(|record| record.number == number).cloned() {
            Some(record) => self.push_to_all(&record, None),
            None => Ok(()),
        }
    }

    /// Bounds the log of a naming context, an eighth of it at a time.
    pub(super) fn trim_log(&mut self, number: u32) -> Result<(), StoreError> {
        let most = self.config.timing.log_commits_max;
        let Some(record) = self.contexts.iter().find(|record| record.number == number) else { return Ok(()) };
        let usn = record.position.usn;
        if usn.saturating_sub(record.log_floor) <= most + most / 8 {
            return Ok(());
        }
        log::trim(self.tx, number, usn - most)?;
        self.refresh(number)
    }

    /// `sync` and `verify`: speak now, and ask for an answer.
    pub(super) fn ask_all(&mut self, site: Option<&str>) -> Result<(), StoreError> {
        self.each_other_partner(None, |turn, partner, peer| {
            if site.is_some_and(|site| site != partner.site) {
                return false;
            }
            peer.asked_at = Some(turn.now);
            peer.asked_seq = None;
            peer.questions = 0;
            peer.ask_again_at = Some(turn.now);
            if !peer.answered || !turn.goes_by_our_card(peer) {
                peer.greeting.begin(turn.now);
            }
            for link in &mut peer.links {
                link.push_at = link.push_at.map(|_| turn.now);
            }
            true
        })
    }

    /// Visits every partner's record; `visit` says whether it changed. What changed earlier in the turn stays.
    pub(super) fn each_other_partner(
        &mut self,
        except: Option<&str>,
        mut visit: impl FnMut(&mut Self, &Partner, &mut Peer) -> bool,
    ) -> Result<(), StoreError> {
        let config = self.config;
        for partner in config.partners.iter().filter(|partner| Some(partner.site.as_str()) != except) {
            let touched = self.is_touched(&partner.site);
            let mut peer = self.peer(&partner.site)?;
            if visit(self, partner, &mut peer) || touched {
                self.put_back(&partner.site, peer);
            }
        }
        Ok(())
    }

    /// When the site's record wants attention.
    pub(super) fn next_due(&self, partner: &Partner, peer: &Peer) -> Option<Millis> {
        next_due(self.config, partner, peer, self.now).map(|(at, _)| at)
    }

    /// Speaks with every site that is due. `due` is what was known before this turn.
    pub(super) fn speak_where_due(&mut self, due: &BTreeMap<String, Millis>) -> Result<(), StoreError> {
        let config = self.config;
        for partner in &config.partners {
            let touched = self.is_touched(&partner.site);
            let known = due.get(&partner.site).copied();
            if !touched && known.is_some_and(|at| at > self.now) {
                continue;
            }
            let mut peer = self.peer(&partner.site)?;
            self.plan_one_way(partner, &mut peer);
            if self.next_due(partner, &peer).is_some_and(|at| at <= self.now) {
                self.speak(partner, &mut peer)?;
            }
            self.put_back(&partner.site, peer);
        }
        Ok(())
    }

    fn speak(&mut self, partner: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        if peer.burst_at.is_none_or(|at| self.now - at > BURST_MS) {
            peer.burst_at = Some(self.now);
        }
        if !peer.answered {
            return self.say_hello(partner, peer);
        }
        if peer.retry_at.is_some_and(|at| at <= self.now) {
            self.retry(partner, peer)?;
        }
        self.widen(partner, peer);
        let mut links = std::mem::take(&mut peer.links);
        let now = self.now;
        for link in links.iter_mut().filter(|link| link.push_at.is_some_and(|at| at <= now)) {
            self.chain(partner, peer, link)?;
        }
        peer.links = links;
        self.greet_one_way(partner, peer);
        self.compose(partner, peer)?;
        self.settle_one_way(partner, peer)
    }

    /// The whole of what a site gets that never answered.
    fn say_hello(&mut self, partner: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        peer.greet_again(self.now, &self.config.timing);
        peer.greeting.tries += 1;
        self.compose_hello(partner, peer);
        Ok(())
    }

    /// Nobody acknowledged in time: what is on the way is sent again, the smaller way.
    fn retry(&mut self, partner: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        peer.retry_at = None;
        peer.round_trip.back_off();
        let mut links = std::mem::take(&mut peer.links);
        let held = |link: &Link| link.standing == Standing::Held;
        for link in links.iter_mut().filter(|link| !link.chain.is_empty() && !held(link)) {
            self.retry_link(partner, link)?;
        }
        peer.links = links;
        Ok(())
    }

    fn retry_link(&mut self, partner: &Partner, link: &mut Link) -> Result<(), StoreError> {
        let small = link.chain.iter().all(|flight| flight.parts == 1);
        if link.chain.len() > 1 && small {
            // One transfer over the whole chain is no larger than the chain.
            return self.cut_again(partner, link);
        }
        let first = &mut link.chain[0];
        first.again = vec![(0, first.next.clamp(1, PROBE_PARTS) - 1)];
        Ok(())
    }

    /// Adds to the chain what leads from its head to our state.
    fn chain(&mut self, partner: &Partner, peer: &Peer, link: &mut Link) -> Result<(), StoreError> {
        link.push_at = None;
        if link.awaits_file(self.now) {
            link.push_at = link.by_file;
            return Ok(());
        }
        let Some(record) = self.context(&link.context).cloned() else { return Ok(()) };
        // Who holds something else at our very position is repaired when it asks for that.
        let head = link.head().map(|(position, _)| position);
        let behind = point(&record).is_some_and(|(position, _)| head != Some(position));
        let owed = std::mem::take(&mut link.owed);
        if !behind || !link.wanted || !(self.sends(partner, &record) || owed) {
            return Ok(());
        }
        if record.master == self.config.site && self.knows_another_key(peer) {
            return Ok(());
        }
        let passed = link.theirs.is_none_or(|(position, _)| record.is_on_history(&position));
        if !passed && record.master == self.config.site {
            return Ok(());
        }
        let mut stays = link.chain.len();
        if stays >= self.config.timing.chain_max {
            // What never left gives way to one transfer.
            stays = link.chain.iter().rposition(|flight| flight.next > 0).map_or(0, |last| last + 1);
            if stays == link.chain.len() {
                // The next acknowledgement or timeout makes one transfer of the rest.
                return Ok(());
            }
        }
        let base = link.chain[..stays].last().map(|flight| flight.target).or(link.theirs);
        let Some(encoded) = self.encode(&record, base, link.unmade > 0)? else {
            // What cannot be read may be mended by then, and nobody need say so.
            let wait = in_vain(peer.timeout(&self.config.timing), link.unmade, &self.config.timing);
            link.push_at = Some(self.now + wait);
            link.unmade += 1;
            link.owed = owed;
            return Ok(());
        };
        link.unmade = 0;
        let limit = self.item_limit(partner, peer);
        if let Some(flight) = self.cut(partner, &record, encoded, base, limit)? {
            self.event(Event::TransferSent {
                site: partner.site.clone(),
                context: link.context.clone(),
                base: flight.base.map(|(position, _)| position.into()),
                target: flight.target.0.into(),
                parts: flight.parts,
                bytes: flight.bytes,
            });
            for unsent in link.chain.drain(stays..) {
                Outgoing::of(&partner.site, unsent.transfer).drop_all(self.tx)?;
            }
            link.chain.push(flight);
        }
        Ok(())
    }

    /// What is on its way is given up, for what takes its place at once.
    pub(super) fn cut_again(&mut self, partner: &Partner, link: &mut Link) -> Result<(), StoreError> {
        for flight in link.chain.drain(..) {
            Outgoing::of(&partner.site, flight.transfer).drop_all(self.tx)?;
            // It may have been asked for by whom we offer nothing, and who asks only now and then.
            link.owed = true;
        }
        link.push_at = sooner(link.push_at, self.now);
        Ok(())
    }

    /// What is cut from now on may be larger again, if it is time for that. Parts that were cut stay as they are.
    fn widen(&mut self, partner: &Partner, peer: &mut Peer) {
        let Some(limit) = peer.passes_bytes_max else { return };
        if !peer.widening.take(self.now, &self.config.timing) {
            return;
        }
        peer.passes_bytes_max = None;
        let most = self.part_limit(partner, peer);
        peer.passes_bytes_max = Some(limit.saturating_mul(2)).filter(|wider| *wider < most);
        let part_bytes_max = self.part_limit(partner, peer);
        self.event(Event::PartsDoubled { site: partner.site.clone(), part_bytes_max });
    }

    /// Mail of this size does not pass: smaller parts from now on, and what was cut is cut again.
    pub(super) fn halve_parts(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        mail: u64,
    ) -> Result<(), StoreError> {
        // Bounces of mail that left before the last halving say nothing new.
        if peer.halved_seq >= mail {
            return Ok(());
        }
        let limit = (self.part_limit(partner, peer) / 2).max(super::compose::PART_BYTES_MIN);
        peer.halved_seq = peer.sent_seq;
        peer.passes_bytes_max = Some(limit);
        peer.widening.narrowed(self.now, &self.config.timing);
        self.event(Event::PartsHalved { site: partner.site.clone(), part_bytes_max: limit });
        let mut links = std::mem::take(&mut peer.links);
        for link in &mut links {
            self.cut_again(partner, link)?;
            // Nobody will say what did not arrive.
            link.repeat_at = link.repeat_at.map(|_| self.now);
        }
        peer.links = links;
        Ok(())
    }
}
