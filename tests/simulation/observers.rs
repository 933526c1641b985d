//! Independent observers: each checks one property after every step, from the raw records of the store.
//!
//! They do not use the engine, the digest or the log, but compare octets with what the master held.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use bridgehead::directory::context::{ContextRecord, contexts};
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::{Position, Read, Table};
use bridgehead::replication::engine::Event;
use bridgehead::replication::wire::Message;

use super::site::Site;

/// What a naming context held, as one number.
type State = u64;

#[derive(Default)]
pub struct Observers {
    /// By naming context: every state that its master committed, in order.
    histories: HashMap<String, Vec<(Position, State)>>,
    /// Where each site was seen last in each history.
    seen: HashMap<(String, String), (Position, usize)>,
    /// Who has heard from whom.
    answered: HashMap<(String, String), bool>,
    pub events: HashMap<String, u64>,
    /// Entries that nobody ever deletes, by naming context.
    markers: HashMap<String, BTreeSet<String>>,
}

impl Observers {
    /// A commit was acknowledged to the people of this site.
    pub fn committed(&mut self, site: &Site) -> Option<String> {
        let record = site.own();
        let state = state(&site.store, &record);
        let history = self.histories.entry(record.dn.to_string()).or_default();
        let twice = history.iter().any(|(position, before)| *position == record.position && *before != state);
        history.push((record.position, state));
        twice.then(|| format!("{} commits {} a second time, and not the same", site.name, record.position))
    }

    pub fn event(&mut self, site: &str, event: &Event) {
        let name = format!("{event:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
        *self.events.entry(name).or_default() += 1;
        if let Event::SiteUp { site: other } = event {
            self.answered.insert((site.to_owned(), other.clone()), true);
        }
    }

    /// Only hello goes to a site that was never heard.
    pub fn mail(&mut self, from: &Site, to: &str, message: &Message) -> Option<String> {
        let answered = bridgehead::replication::peer::Peer::load(&from.store, to)
            .expect("the store is sound")
            .is_some_and(|peer| peer.answered);
        let more = !message.vector.is_empty() || !message.parts.is_empty() || !message.requests.is_empty();
        (!answered && more).then(|| format!("{} sends {to} more than hello before it answered", from.name))
    }

    /// What is wrong with this site, if anything.
    pub fn after(&mut self, site: &Site) -> Option<String> {
        if site.restored && site.own().position.usn > 0 {
            // Its engine may commit by itself, to take back what was lost.
            let record = site.own();
            let state = state(&site.store, &record);
            let history = self.histories.entry(record.dn.to_string()).or_default();
            if history.iter().all(|(position, _)| *position != record.position) {
                history.push((record.position, state));
            }
        }
        for record in contexts(&site.store).expect("the store is sound") {
            let name = record.dn.to_string();
            if record.position.usn == 0 {
                continue;
            }
            let key = (site.name.clone(), name.clone());
            let before = self.seen.get(&key).copied();
            if before.is_some_and(|(position, _)| position == record.position) {
                continue;
            }
            let history = self.histories.get(&name).map_or(&[][..], Vec::as_slice);
            let Some(at) = history.iter().position(|(position, _)| *position == record.position) else {
                return Some(format!(
                    "{} holds {name} at {}, where its master never was",
                    site.name, record.position
                ));
            };
            if history[at].1 != state(&site.store, &record) {
                return Some(format!(
                    "{} holds {name} at {} but not what its master held there",
                    site.name, record.position
                ));
            }
            if let Some((position, index)) = before.filter(|(_, index)| *index > at) {
                return Some(format!(
                    "{} goes back in {name} from {position} ({index}) to {} ({at})",
                    site.name, record.position
                ));
            }
            self.seen.insert(key, (record.position, at));
        }
        None
    }

    /// The site's store was put back to an earlier day, by its operator.
    pub fn restored(&mut self, site: &Site) {
        self.seen.retain(|(name, _), _| *name != site.name);
    }

    /// Whether the site stands where the master of the naming context does.
    pub fn holds(&self, site: &Site, context: &str) -> bool {
        let last =
            self.histories.get(context).and_then(|history| history.last()).map(|(position, _)| *position);
        self.seen.get(&(site.name.clone(), context.to_owned())).map(|(position, _)| *position) == last
    }

    /// After a restore: what a master or one of its partners still holds is not lost.
    pub fn must_keep(&mut self, sites: &[Site], neighbours: impl Fn(usize) -> Vec<usize>) {
        for (n, master) in sites.iter().enumerate() {
            let name = master.own().dn.to_string();
            let mut kept = markers(master, &name);
            neighbours(n).into_iter().for_each(|m| kept.extend(markers(&sites[m], &name)));
            self.markers.insert(name, kept);
        }
    }

    /// An acknowledged change that nobody holds any more though somebody did after the last restore.
    pub fn lost(&self, sites: &[Site]) -> Option<String> {
        let lost = |site: &Site| {
            let name = site.own().dn.to_string();
            let held = markers(site, &name);
            let lost = self.markers.get(&name)?.difference(&held).next()?.clone();
            Some(format!("{lost} of {name} got lost"))
        };
        sites.iter().find_map(lost)
    }

    /// Looks at everything again, whether or not positions moved.
    pub fn audit(&mut self, sites: &[Site]) -> Option<String> {
        let seen = std::mem::take(&mut self.seen);
        let found = sites.iter().find_map(|site| self.after(site));
        self.seen = seen;
        found
    }

    /// Every site holds what the masters hold, and no master misses what a partner of it has.
    pub fn all_equal(&self, sites: &[Site]) -> bool {
        sites.iter().all(|master| {
            let record = master.own();
            let holds = |site: &Site| {
                let all = contexts(&site.store).expect("the store is sound");
                all.iter().any(|held| held.dn == record.dn && held.position == record.position)
            };
            record.position.usn == 0 || sites.iter().all(holds)
        })
    }

    /// Nothing is kept that nobody needs any more.
    pub fn leftovers(&self, sites: &[Site]) -> Option<String> {
        for site in sites {
            for table in [Table::Outbox, Table::Inbox] {
                let mut count = 0;
                site.store
                    .scan(table, &[], &[0xff; 80], &mut |_, _| {
                        count += 1;
                        true
                    })
                    .expect("the store is sound");
                if count > 0 {
                    return Some(format!(
                        "{} keeps {count} records in {table:?} though all are equal",
                        site.name
                    ));
                }
            }
        }
        None
    }
}

fn markers(site: &Site, context: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let all = contexts(&site.store).expect("the store is sound");
    for record in all.into_iter().filter(|record| record.dn.to_string() == context) {
        bridgehead::directory::lookup::scan_entries(&site.store, record.number, &mut |entry| {
            if entry.rdn.as_str().contains("Marker") {
                found.insert(entry.rdn.as_str().to_owned());
            }
            true
        })
        .expect("the store is sound");
    }
    found
}

/// The raw records of a naming context's entries, without its number in this store.
fn state(store: &MemoryStore, record: &ContextRecord) -> State {
    let mut hasher = DefaultHasher::new();
    let (from, to) = (record.number.to_be_bytes(), (record.number + 1).to_be_bytes());
    store
        .scan(Table::Entry, &from, &to, &mut |key, value| {
            (&key[4..], value).hash(&mut hasher);
            true
        })
        .expect("the store is sound");
    hasher.finish()
}
