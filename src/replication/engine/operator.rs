//! What an operator does to a connected site: pause, resume, detach, purge.
//!
//! PROMISES
//!   Each step can be looked at before it is taken (`dry_run`) and only the last one deletes anything:
//!   pause stops the mail, detach forgets the connection and keeps the data, purge deletes the naming
//!   contexts that the site masters, which no other site's data can be part of. A start detaches whom the configuration
//!   does not name.

use super::Event;
use super::config::same_context;
use super::turn::{Turn, point};
use crate::directory::context::remove_context;
use crate::directory::{StoreError, Table};
use crate::replication::parts::{Assembly, Outgoing};
use crate::replication::peer::{Link, Peer};

impl Turn<'_> {
    pub(super) fn pause(&mut self, site: &str, paused: bool) -> Result<(), StoreError> {
        let mut peer = self.peer(site)?;
        peer.paused = paused;
        if !paused {
            for link in peer.links.iter_mut().filter(|link| link.by_file.is_some()) {
                (link.by_file, link.push_at) = (None, Some(self.now));
            }
            // Both sides learn at once what they missed.
            peer.answer_at = peer.answered.then_some(self.now);
            peer.greeting.at = if peer.answered { peer.greeting.at } else { Some(self.now) };
        }
        self.put_back(site, peer);
        self.event(Event::Paused { site: site.to_owned(), paused });
        Ok(())
    }

    /// Gives up what is held of naming contexts in which the site differs, and takes what it sends.
    pub(super) fn refresh_from(
        &mut self,
        site: Option<&str>,
        context: Option<&str>,
        dry_run: bool,
    ) -> Result<(), StoreError> {
        self.each_other_partner(None, |turn, partner, peer| {
            if site.is_some_and(|site| site != partner.site) {
                return false;
            }
            let meant = |link: &Link| {
                let named = context.is_none_or(|name| same_context(name, &link.context));
                named && turn.takes(partner, &link.context)
            };
            let mut events = Vec::new();
            for link in peer.links.iter_mut().filter(|link| meant(link)) {
                let record = turn.context(&link.context);
                let ours = record.is_some_and(|record| record.master == turn.config.site);
                // Who is linked to the master himself follows nobody else.
                let master = record.map_or(&partner.site, |record| &record.master);
                let leads = *master == partner.site || turn.config.partner(master).is_none();
                let Some(theirs) = link.theirs.filter(|theirs| record.and_then(point) != Some(*theirs))
                else {
                    continue;
                };
                if leads && !ours {
                    events.push(Event::Refreshing {
                        site: partner.site.clone(),
                        context: link.context.clone(),
                        ours: record.and_then(point).map(|(position, _)| position.into()),
                        theirs: theirs.0.into(),
                        entries: record.map_or(0, |record| record.entries),
                        dry_run,
                    });
                    if !dry_run {
                        link.refresh = true;
                        (link.ask_at, link.asks) = (Some(turn.now), 0);
                    }
                }
            }
            events.into_iter().for_each(|event| turn.event(event));
            !dry_run
        })
    }

    /// Forgets all that is known of the connection. The configuration must stop to name the site.
    pub(super) fn detach(&mut self, site: &str, dry_run: bool) -> Result<(), StoreError> {
        let peer = self.peer(site)?;
        let transfers = peer.links.iter().map(|link| link.chain.len() as u64).sum();
        if dry_run {
            self.put_back(site, peer);
        } else {
            for flight in peer.links.iter().flat_map(|link| &link.chain) {
                Outgoing::of(site, flight.transfer).drop_all(self.tx)?;
            }
            for assembly in Assembly::all_from(self.tx.as_read(), site)? {
                assembly.drop_all(self.tx)?;
            }
            self.release_all_of(site)?;
            self.tx.delete(Table::Peer, site.as_bytes())?;
        }
        self.event(Event::Detached { site: site.to_owned(), transfers, dry_run });
        Ok(())
    }

    /// Forgets connections to sites that the configuration does not name: a site's file was taken away by hand, or the
    /// store was put back to a day on which there was a connection.
    pub(super) fn detach_strangers(&mut self) -> Result<(), StoreError> {
        for site in Peer::all_sites(self.tx.as_read())? {
            if self.config.partner(&site).is_none() {
                self.detach(&site, false)?;
            }
        }
        Ok(())
    }

    /// Deletes the naming contexts that the site masters.
    pub(super) fn purge(&mut self, site: &str, dry_run: bool) -> Result<(), StoreError> {
        if site == self.config.site {
            return Ok(());
        }
        let theirs: Vec<_> = self.contexts.iter().filter(|record| record.master == site).cloned().collect();
        for record in theirs {
            if !dry_run {
                remove_context(self.tx, record.number)?;
                self.tx.delete(Table::Checkpoint, &record.number.to_be_bytes())?;
                self.contexts.retain(|other| other.number != record.number);
                self.release(&record.dn.to_string())?;
            }
            self.event(Event::Purged { context: record.dn.to_string(), entries: record.entries, dry_run });
        }
        Ok(())
    }
}
