//! Links on which nothing ever comes back: data diodes, sites that only receive.
//!
//! PROMISES
//!   The sending side waits for no hello, believes that what it sent has arrived, and repeats a full load of each
//!   naming context every [`Timing::repeat`](super::Timing), so that a loss heals by itself. As often, and whenever
//!   it starts, it says who it is, under each key that we hold. The receiving side is an ordinary one whose
//!   schedule is `never`.

use super::config::{Partner, same_context};
use super::turn::{Turn, point};
use crate::directory::{ContextRecord, StoreError};
use crate::replication::pacing::millis;
use crate::replication::parts::Outgoing;
use crate::replication::peer::{Flight, Peer};

impl Turn<'_> {
    /// What is due to a site that cannot answer: changes at once, everything now and then.
    pub(super) fn plan_one_way(&mut self, partner: &Partner, peer: &mut Peer) {
        if !partner.one_way {
            return;
        }
        peer.answered = true;
        peer.greeting.at = peer.greeting.at.or(Some(self.now));
        let repeat = millis(self.config.timing.repeat);
        let sent = |record: &&ContextRecord| self.sends(partner, record) && point(record).is_some();
        let sent: Vec<&ContextRecord> = self.contexts.iter().filter(sent).collect();
        for link in &mut peer.links {
            let is_sent = sent.iter().any(|record| same_context(&record.dn.to_string(), &link.context));
            link.repeat_at = link.repeat_at.filter(|_| is_sent);
        }
        for record in sent {
            let link = peer.link(&record.dn.to_string());
            link.wanted = true;
            if link.repeat_at.is_none_or(|at| at <= self.now) && link.chain.is_empty() {
                link.theirs = None;
                link.repeat_at = Some(self.now + repeat);
            }
            if link.chain.is_empty() && link.theirs != point(record) {
                // What could not be made is tried again later.
                link.push_at = link.push_at.or(Some(self.now + millis(self.config.timing.batching)));
            }
        }
    }

    /// Nobody will say which of our keys the site knows, so it is greeted under each that we hold.
    pub(super) fn greet_one_way(&mut self, partner: &Partner, peer: &mut Peer) {
        if !partner.one_way || !peer.greeting.is_due(self.now) {
            return;
        }
        peer.greeting.heard_of.clear();
        loop {
            for key in 0..=self.config.succession.former_keys.len() as u32 {
                peer.greeting.tries = key + 1;
                self.compose_hello(partner, peer);
            }
            // Nor will anybody say what was heard of others: what did not fit goes at once.
            peer.greeting.heard();
            if self.introductions(partner, peer, false).is_empty() {
                break;
            }
        }
        peer.greeting.begin(self.now + millis(self.config.timing.repeat));
    }

    /// What left has arrived, as far as anybody will ever know.
    pub(super) fn settle_one_way(&mut self, partner: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        if !partner.one_way {
            return Ok(());
        }
        peer.retry_at = None;
        for link in &mut peer.links {
            let gone = link.chain.iter().take_while(|flight| !Flight::has_unsent(flight)).count();
            for flight in link.chain.drain(..gone) {
                link.theirs = Some(flight.target);
                Outgoing::of(&partner.site, flight.transfer).drop_all(self.tx)?;
            }
        }
        Ok(())
    }
}
