//! What a site asks for: lost parts, what leads from its base to our state, or everything.
//!
//! PROMISES
//!   What is on its way already is not sent again because of a question that was asked before it could
//!   arrive; so duplicate questions coalesce, and a backlog of them makes no backlog of answers.
//!   One full load of a naming context is on its way to a site at a time; one that arrived and did not satisfy gives way
//!   to the present state.

use super::config::{Partner, Passage};
use super::turn::{Turn, point, sooner};
use crate::directory::StoreError;
use crate::replication::peer::{Flight, Peer};
use crate::replication::wire::Request;

impl Turn<'_> {
    pub(super) fn serve(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        request: &Request,
        newest: bool,
    ) -> Result<(), StoreError> {
        let Some(record) = self.context(&request.context).cloned() else { return Ok(()) };
        // Who masters it, holds some of it, or gave it to us, may have what it lacks, though we do not offer it.
        let link = peer.link(&request.context);
        let knows = link.gave || (link.theirs.is_some() && partner.outbound == Passage::Own);
        let owed = record.master == partner.site || knows;
        if !self.sends(partner, &record) && !owed {
            return Ok(());
        }
        // Over what we may have lost ourselves nothing is sent.
        if request.base.is_some_and(|base| !record.is_on_history(&base)) && record.master == self.config.site
        {
            return Ok(());
        }
        let timeout = peer.timeout(&self.config.timing);
        let echoed = peer.echoed_seq;
        let now = self.now;
        // A flight whose last parts left after the question was put, and not long ago, may still arrive.
        let coming = |flight: &Flight| flight.seq > echoed && now - flight.at < timeout;
        let link = peer.link(&request.context);
        link.wanted = true;
        if link.awaits_file(now) && request.transfer.is_none() {
            return Ok(());
        }
        match request.transfer {
            Some(id) => {
                if let Some(flight) = link.chain.iter_mut().find(|flight| flight.transfer == id) {
                    again(flight, &request.missing, coming(flight));
                }
            }
            None if newest => {
                let base = request.base.zip(request.base_digest);
                // All of it left and a later message arrived, but nothing of it is of use there: the site stood further on
                // before it asked for everything.
                // Where mail takes weeks no repetition is ever the last that arrived, so what is small is cut anew.
                let old = |flight: &Flight| {
                    let left = flight.next == flight.parts && (flight.seq <= echoed || flight.parts == 1);
                    (base.is_none() || flight.astray) && left && Some(flight.target) != point(&record)
                };
                match link.chain.iter_mut().find(|flight| flight.base == base) {
                    Some(flight) if coming(flight) || flight.next == 0 => {}
                    Some(flight) if old(flight) => {
                        self.cut_again(partner, link)?;
                        link.owed = owed;
                    }
                    // Of a large one, part 0; the site then names what else is missing.
                    Some(flight) => again(flight, &[(0, flight.parts.min(PROBE_PARTS) - 1)], false),
                    None => {
                        link.owed = owed;
                        link.push_at = sooner(link.push_at, now);
                    }
                }
            }
            None => {}
        }
        Ok(())
    }
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
