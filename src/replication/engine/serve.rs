//! What a site asks for: lost parts, what leads from its base to our state, or everything.
//!
//! PROMISES
//!   What is on its way already is not sent again because of a question that was asked before it could
//!   arrive; so duplicate questions coalesce, and a backlog of them makes no backlog of answers.
//!   One full load of a naming context is on its way to a site at a time; one that arrived and did not satisfy gives way
//!   to the present state.
//!   What is not offered to a site goes to it only if the site masters it or gave it to us: what a site says to hold proves
//!   nothing, for our vectors tell it positions and digests.

use super::Event;
use super::config::Partner;
use super::turn::{Turn, point, sooner};
use crate::directory::StoreError;
use crate::replication::peer::{Flight, Link, Peer};
use crate::replication::wire::Request;

impl Turn<'_> {
    /// Does what these requests of one message ask for. Those for what the site may not have.
    pub(super) fn serve_all<'m>(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        all: &'m [Request],
        newest: bool,
    ) -> Result<Vec<&'m str>, StoreError> {
        let mut denied = Vec::new();
        for request in all {
            if !self.serve(partner, peer, request, all, newest)? {
                denied.push(request.context.as_str());
            }
        }
        Ok(denied)
    }

    /// Tells in one line what a message asked for that is not for its site, however much that is.
    pub(super) fn tell_denied(&mut self, site: &str, denied: &[&str]) {
        if let Some(first) = denied.first() {
            let (site, context) = (site.to_owned(), (*first).to_owned());
            self.event(Event::NotOffered { site, context, requests: denied.len() as u64 });
        }
    }

    /// Does what this request asks for; `all`: those of the same message. Whether the site may have that.
    fn serve(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        request: &Request,
        all: &[Request],
        newest: bool,
    ) -> Result<bool, StoreError> {
        let Some(record) = self.context(&request.context).cloned() else { return Ok(false) };
        let (now, timeout, echoed) = (self.now, peer.timeout(&self.config.timing), peer.echoed_seq);
        let link = peer.link(&request.context);
        let owed = owes(partner, link, &record.master);
        if !(owed || self.sends(partner, &record)) {
            return Ok(false);
        }
        // Over what we may have lost ourselves nothing is sent.
        let off = request.base.is_some_and(|base| !record.is_on_history(&base));
        if off && record.master == self.config.site {
            return Ok(true);
        }
        link.wanted = true;
        // A flight whose last parts left after the question was put, and not long ago, may still arrive.
        let coming = |flight: &Flight| flight.seq > echoed && now - flight.at < timeout;
        if let Some(id) = request.transfer {
            if let Some(flight) = link.chain.iter_mut().find(|flight| flight.transfer == id) {
                again(flight, &request.missing, coming(flight));
            }
            return Ok(true);
        }
        if link.awaits_file(now) {
            return Ok(true);
        }
        let base = request.base.zip(request.base_digest);
        let under_way = link.chain.iter_mut().find(|flight| flight.base == base);
        // Where mail takes days, a heartbeat overtakes nearly every question. Such a one does not know what came since; but
        // it counts if nothing is under way, and the site by its newest word is still where it asked from.
        let stands = under_way.is_none() && base == link.theirs;
        if !(newest || stands) {
            return Ok(true);
        }
        let named = |flight: &Flight| all.iter().any(|other| other.transfer == Some(flight.transfer));
        match under_way {
            // It holds some of it, and completes that.
            Some(flight) if named(flight) => {}
            Some(flight) if missed(flight, echoed) && Some(flight.target) != point(&record) => {
                self.cut_again(partner, link)?;
                link.owed = owed;
            }
            Some(flight) if coming(flight) || flight.next == 0 => {}
            Some(flight) => {
                // Of a large one, part 0; the site then names what else is missing, and until then nothing has arrived.
                again(flight, &[(0, flight.parts.min(PROBE_PARTS) - 1)], false);
                flight.arrived = 0;
            }
            None => {
                link.owed = owed;
                link.push_at = sooner(link.push_at, now);
            }
        }
        Ok(true)
    }
}

/// Whether the site may have what it lacks though we do not offer it: it masters it, or gave it to us.
pub(super) fn owes(partner: &Partner, link: &Link, master: &str) -> bool {
    master == partner.site || link.gave
}

/// Whether all of it left and a later message arrived, but nothing of it is of use there: the site stood further on before
/// it asked for everything. What was repeated since does not count: where mail takes weeks some repetition is always on its
/// way.
fn missed(flight: &Flight, echoed: u64) -> bool {
    let arrived = flight.first_seq > 0 && flight.first_seq <= echoed;
    arrived && (flight.base.is_none() || flight.astray)
}

/// Parts of a transfer that are sent again when nothing is known of it.
pub(super) const PROBE_PARTS: u32 = 2;

/// Notes parts to be sent again. `coming`: those that were sent last may still arrive.
fn again(flight: &mut Flight, missing: &[(u32, u32)], coming: bool) {
    let sent = flight.next;
    let lost =
        missing.iter().filter(|(first, _)| *first < sent).map(|&(first, last)| (first, last.min(sent - 1)));
    let lost: Vec<(u32, u32)> = lost.collect();
    let count: u32 = lost.iter().map(|(first, last)| last - first + 1).sum();
    flight.arrived = sent.saturating_sub(count);
    if !coming {
        flight.again = lost;
    }
}

/// Parts of a chain that were sent and may not have arrived, in bytes.
pub(super) fn in_flight(chain: &[Flight]) -> u64 {
    let bytes = |flight: &Flight| {
        let part = flight.bytes / u64::from(flight.parts.max(1));
        u64::from(flight.next.saturating_sub(flight.arrived)) * part
    };
    chain.iter().map(bytes).sum()
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
