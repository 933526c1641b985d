//! A first load by file: everything that a site gets, as messages for a bundle.
//!
//! PROMISES
//!   From then on changes wait until the site stands where the bundle leads, and go to it as increments. No full load
//!   goes by mail meanwhile, for [`BY_FILE_DAYS`] at most; `site resume` ends the wait at once.
//!   On a link in one direction the file counts as arrived.

use super::turn::{Turn, point};
use super::{Event, Shown};
use crate::directory::StoreError;
use crate::replication::parts::{self, Outgoing};
use crate::replication::peer::Millis;
use crate::replication::wire::{Message, PartItem};

/// How long a file may be on its way.
pub const BY_FILE_DAYS: i64 = 14;
const DAY_MS: Millis = 86_400_000;
/// Octets of one part in a file, which no mail system limits.
const PART_BYTES: usize = 4 << 20;

/// One message for a file: its sequence number and payload.
pub type Bundled = (u64, Vec<u8>);

impl Turn<'_> {
    /// The messages that take `site` to where we stand. None of a site that is not connected.
    pub(super) fn bundle(&mut self, site: &str) -> Result<Vec<Bundled>, StoreError> {
        let config = self.config;
        let mut messages = Vec::new();
        let Some(partner) = config.partner(site) else { return Ok(messages) };
        let mut peer = self.peer(site)?;
        let vector = self.vector(partner, &peer);
        let contexts = self.contexts.clone();
        for record in contexts.iter().cloned() {
            let Some(here) = point(&record).filter(|_| self.sends(partner, &record)) else { continue };
            let Some(encoded) = self.encode(&record, None, false)? else { continue };
            let context = record.dn.to_string();
            let cut = match parts::cut(&encoded.manifest, &encoded.body, PART_BYTES) {
                Ok(cut) => cut,
                Err(error) => {
                    self.not_applied(&config.site, &context, error.to_string());
                    continue;
                }
            };
            let count = cut.len() as u32;
            for part in cut {
                let mut message = Message::new(vector.clone());
                message.parts.push(PartItem { context: context.clone(), part });
                messages.push((peer.next_seq(self.now), message.encode()));
            }
            let link = peer.link(&context);
            for flight in link.chain.drain(..) {
                Outgoing::of(site, flight.transfer).drop_all(self.tx)?;
            }
            if partner.one_way {
                link.theirs = Some(here);
            } else {
                link.by_file = Some(self.now + BY_FILE_DAYS * DAY_MS);
            }
            self.event(Event::Bundled {
                site: site.to_owned(),
                context,
                position: Shown::from(here.0),
                entries: record.entries,
                parts: count,
            });
        }
        self.put_back(site, peer);
        Ok(messages)
    }
}
