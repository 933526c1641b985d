//! Independent observers: each checks one property after every step, from the raw records of the store. They look at
//! all that the step wrote, and now and then at all there is.
//!
//! They do not use the engine, the digest or the log, but compare octets with what the master held.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bridgehead::directory::context::{ContextRecord, contexts};
use bridgehead::directory::{Position, Read, Table};
use bridgehead::limits::QUARANTINE_BYTES;
use bridgehead::replication::engine::Event;
use bridgehead::replication::engine::quarantine::COPIES_MAX;
use bridgehead::replication::parts::Assembly;
use bridgehead::replication::schedule::Schedule;
use bridgehead::replication::wire::Message;
use minicbor::Decode;

use super::altered::Copies;
use super::faulty::Written;
use super::history::{History, state};
use super::site::Site;
use super::unsaid::{self, Told};
use super::world::DAY;

#[derive(Default)]
pub struct Observers {
    /// By naming context.
    pub histories: HashMap<String, History>,
    /// Where each store was seen last in each history.
    seen: HashMap<(usize, String), Position>,
    /// What each store said of its naming contexts when it was looked at last.
    looked: HashMap<usize, u64>,
    /// Whether all were equal, as long as nothing changed.
    equal: Cell<Option<bool>>,
    pub events: HashMap<String, u64>,
    pub copies: Copies,
    /// Entries that nobody ever deletes, by naming context.
    markers: HashMap<String, BTreeSet<String>>,
    /// A store that nobody tells anything and that tells nobody: only its own naming context is its own matter.
    pub mute: Option<usize>,
    /// Deletions beyond this share, in percent, need an operator.
    pub delete_percent_max: u8,
    /// What operators gave up, until something else is held.
    given_up: HashSet<(usize, String)>,
    /// How often each site may still state what it masters again, unchanged, for a new key to sign.
    restatements: HashMap<usize, u64>,
    /// Octets of parts by sender, receiver and day.
    spent: HashMap<(String, String, i64), u64>,
    pub clocks_move: bool,
    /// A replica was spoiled on purpose: what it holds is looked at where it moves.
    pub spoiled: bool,
    /// Operators' approvals that were not used yet.
    approvals: HashSet<(usize, String)>,
}

impl Observers {
    /// A commit was acknowledged to the people of this site.
    pub fn committed(&mut self, n: usize, site: &Site) -> Option<String> {
        let record = site.own();
        self.equal.set(None);
        let key = (n, record.dn.to_string());
        let before: Vec<Position> = self.seen.get(&key).copied().into_iter().collect();
        let history = self.histories.entry(key.1.clone()).or_default();
        let held = state(&site.store, &record);
        history.remember(&site.store, &record, &held);
        let once = history.add(record.position, held, before);
        self.seen.insert(key, record.position);
        (!once).then(|| format!("{} commits {} a second time, and not the same", site.name, record.position))
    }

    pub fn event(&mut self, event: &Event) {
        let name = format!("{event:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
        *self.events.entry(name).or_default() += 1;
    }

    pub fn count(&self, event: &str) -> u64 {
        self.events.get(event).copied().unwrap_or(0)
    }

    /// Only hello goes to a site that was never heard, and only what its operators allow on the link.
    pub fn mail(&mut self, now: i64, from: &Site, to: &str, message: &Message) -> Option<String> {
        let terms = Terms::of(from, to);
        let told = !message.vector.is_empty() || message.vector_digest.is_some();
        let more = told || !message.parts.is_empty() || !message.requests.is_empty();
        if more && !terms.answered {
            return Some(format!("{} sends {to} more than hello before it answered", from.name));
        }
        self.passes(now, from, to, message, &terms)
    }

    /// Nothing passes a link while it is paused or closed, and parts within the day's bytes.
    fn passes(
        &mut self,
        now: i64,
        from: &Site,
        to: &str,
        message: &Message,
        terms: &Terms,
    ) -> Option<String> {
        let partner = from.config.partner(to)?;
        let clock = from.clock(now);
        if terms.paused {
            return Some(format!("{} sends {to} mail though that is paused", from.name));
        }
        let windows = matches!(partner.schedule, Schedule::Windows { .. });
        if windows && partner.schedule.open_from(clock, None) != Some(clock) {
            return Some(format!("{} sends {to} mail while the link is closed", from.name));
        }
        let day = clock.as_millisecond().div_euclid(DAY);
        let spent = self.spent.entry((from.name.clone(), to.to_owned(), day)).or_default();
        *spent += message.parts.iter().map(|item| item.part.bytes.len() as u64).sum::<u64>();
        // Who was put back to an earlier day forgot what he spent, and so did who set his clock.
        let budget = partner.day_bytes_max.filter(|_| !from.restored && !self.clocks_move)?;
        let most = budget + partner.part_bytes_max;
        (*spent > most).then(|| format!("{} sends {to} {spent} octets in a day, not {budget}", from.name))
    }

    /// What is wrong with this site after a step in which it told these events, if anything.
    pub fn after(&mut self, n: usize, site: &Site, events: &[Event], written: &Written) -> Option<String> {
        self.copies.told(n, events);
        if written.table(Table::Quarantine)
            && let Some(problem) = self.copies.problem(n, site)
        {
            return Some(problem);
        }
        for event in events {
            if let Event::HoldDecided { context, approved: true, .. } = event {
                self.approvals.insert((n, context.clone()));
            }
        }
        let mut hasher = DefaultHasher::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            (key, value).hash(&mut hasher);
            true
        };
        site.store.scan(Table::Context, &[], &[0xff; 5], visit).expect("the store is sound");
        let now = hasher.finish();
        let moved = self.looked.insert(n, now) != Some(now);
        if !moved && !written.table(Table::Entry) {
            return None;
        }
        if moved {
            self.equal.set(None);
        }
        let all = contexts(&site.store).expect("the store is sound");
        if let Some(problem) = self.vanished(n, site, &all, events) {
            return Some(problem);
        }
        all.iter().filter(|record| record.position.usn > 0).find_map(|record| {
            let key = (n, record.dn.to_string());
            let before = self.seen.get(&key).copied();
            if before == Some(record.position) {
                let altered = written.entries_of(record.number) && !self.spoiled;
                return altered.then(|| self.look(site, record, None)).flatten();
            }
            self.seen.insert(key, record.position);
            let own = record.master == site.name;
            let before = before.filter(|_| !self.given_up.remove(&(n, record.dn.to_string())));
            let unknown = self.history(record).node(&record.position).is_none();
            let recovered = events.iter().any(|event| matches!(event, Event::Recovered { .. }));
            if own && unknown && !recovered && self.is_restated(n, site, record, before) {
                return None;
            }
            if own && unknown {
                return self.taken_back(site, record, before, events);
            }
            self.look(site, record, before).or_else(|| self.approved(n, site, record, before, events))
        })
    }

    /// A site has new keys, or may find that its store is older than they are.
    pub fn may_restate(&mut self, n: usize) {
        *self.restatements.entry(n).or_default() += 1;
    }

    /// After new keys the master stands one USN higher, and holds what it held.
    fn is_restated(
        &mut self,
        n: usize,
        site: &Site,
        record: &ContextRecord,
        before: Option<Position>,
    ) -> bool {
        let left = self.restatements.get(&n).copied().unwrap_or(0);
        let Some(before) = before.filter(|before| left > 0 && before.usn + 1 == record.position.usn) else {
            return false;
        };
        let state = state(&site.store, record);
        let history = self.history(record);
        if history.node(&before).is_none_or(|node| node.state != state) {
            return false;
        }
        history.add(record.position, state, vec![before]);
        self.restatements.insert(n, left - 1);
        true
    }

    fn history(&mut self, record: &ContextRecord) -> &mut History {
        self.histories.entry(record.dn.to_string()).or_default()
    }

    /// A replica is what its master held, and goes onward.
    fn look(&mut self, site: &Site, record: &ContextRecord, before: Option<Position>) -> Option<String> {
        let (name, position) = (&record.dn, record.position);
        let history = self.histories.entry(name.to_string()).or_default();
        let Some(node) = history.node(&position) else {
            return Some(format!("{} holds {name} at {position}, where its master never was", site.name));
        };
        if node.state != state(&site.store, record) {
            return Some(format!(
                "{} holds {name} at {position} but not what its master held there",
                site.name
            ));
        }
        let before = before.filter(|before| !history.leads(before, &position))?;
        Some(format!("{} goes back in {name} from {before} to {position}", site.name))
    }

    /// A naming context goes away only when its operator purges it.
    fn vanished(&mut self, n: usize, site: &Site, all: &[ContextRecord], events: &[Event]) -> Option<String> {
        let purged = events.iter().any(|event| matches!(event, Event::Purged { dry_run: false, .. }));
        let held: Vec<String> = all.iter().map(|record| record.dn.to_string()).collect();
        let seen = self.seen.keys().filter(|(of, _)| *of == n);
        let gone: Vec<String> =
            seen.map(|(_, name)| name.clone()).filter(|name| !held.contains(name)).collect();
        if !purged && let Some(name) = gone.first() {
            return Some(format!("{name} is gone from {} and nobody purged it", site.name));
        }
        self.seen.retain(|(of, name), _| *of != n || !gone.contains(name));
        None
    }

    /// Nobody commits for a master, but that it takes back what a partner has of it: all of that, and nothing
    /// that both have goes away.
    fn taken_back(
        &mut self,
        site: &Site,
        record: &ContextRecord,
        before: Option<Position>,
        events: &[Event],
    ) -> Option<String> {
        let recovered = events.iter().filter_map(|event| match event {
            Event::Recovered { position, .. } => {
                Some(Position { invocation: position.invocation.parse().ok()?, usn: position.usn })
            }
            _ => None,
        });
        let recovered: Vec<Position> = recovered.collect();
        let conflict = events.iter().any(|event| matches!(event, Event::Conflict { .. }));
        let state = state(&site.store, record);
        let (name, of) = (&site.name, &record.dn);
        let history = self.history(record);
        if recovered.is_empty() {
            return Some(format!("{of} changes at {name} to {} and nobody changed it", record.position));
        }
        let ours: BTreeSet<[u8; 16]> = before.map(|at| history.ever(&at)).unwrap_or_default();
        let held = before.and_then(|at| history.node(&at)).map(|node| node.state.clone()).unwrap_or_default();
        for position in &recovered {
            let Some(theirs) = history.node(position) else {
                return Some(format!("{name} takes back {of} at {position}, where it never was"));
            };
            for uuid in theirs.state.keys().filter(|uuid| !state.contains_key(*uuid)) {
                if held.contains_key(uuid) {
                    return Some(format!("{name} deletes an entry of {of} that both lives have"));
                }
                if !conflict && !ours.contains(uuid) {
                    return Some(format!("{name} takes back {of} without an entry that was acknowledged"));
                }
            }
        }
        history.remember(&site.store, record, &state);
        if let (Some(before), [theirs]) = (before, &recovered[..]) {
            let told = Told::of(events, &of.to_string());
            if let Some(problem) = unsaid::problem(history, &before, theirs, &state, &told, record) {
                return Some(format!("{name} takes back {of} at {theirs}: {problem}"));
            }
        }
        let parents = before.into_iter().chain(recovered).collect();
        let once = history.add(record.position, state, parents);
        (!once).then(|| format!("{name} takes back {of} to {}, which was claimed before", record.position))
    }

    /// What deletes much was approved.
    fn approved(
        &mut self,
        n: usize,
        site: &Site,
        record: &ContextRecord,
        before: Option<Position>,
        events: &[Event],
    ) -> Option<String> {
        let name = record.dn.to_string();
        let approved = self.approvals.remove(&(n, name.clone()));
        let applied = |event: &&Event| matches!(event, Event::Applied { context, .. } if *context == name);
        let steps = events.iter().filter(applied).count();
        let share = u64::from(self.delete_percent_max);
        let history = self.history(record);
        let (held, now) = (history.node(&before?)?, history.node(&record.position)?);
        let gone = held.state.keys().filter(|uuid| !now.state.contains_key(*uuid)).count() as u64;
        let much = gone > 10 && gone * 100 > held.state.len() as u64 * share;
        (much && !approved && steps < 2 && record.master != site.name)
            .then(|| format!("{} deletes {gone} entries of {name} and nobody approved", site.name))
    }

    /// The site's store was put back to an earlier day, or its operator gave up what it held.
    pub fn restored(&mut self, n: usize, site: &Site) {
        self.seen.retain(|(of, _), _| *of != n);
        self.looked.remove(&n);
        self.equal.set(None);
        self.copies.restored(n, site);
        for record in contexts(&site.store).expect("the store is sound") {
            if record.position.usn > 0 {
                self.seen.insert((n, record.dn.to_string()), record.position);
            }
        }
    }

    /// With its connection a site forgets what it spent on it.
    pub fn detached(&mut self, from: &str, to: &str) {
        self.spent.retain(|(sender, receiver, _), _| sender != from || receiver != to);
    }

    /// Its operator gives up what this store holds of others.
    pub fn gives_up(&mut self, n: usize, context: &str) {
        self.given_up.insert((n, context.to_owned()));
    }

    /// Whether the site stands where the master of the naming context does.
    pub fn holds(&self, n: usize, master: usize, context: &str) -> bool {
        let at = |n: usize| self.seen.get(&(n, context.to_owned()));
        at(n) == at(master)
    }

    /// After a restore: what a master or one of its partners still holds is not lost.
    pub fn must_keep(&mut self, sites: &[Site], neighbours: impl Fn(usize) -> Vec<usize>) {
        for (n, master) in sites.iter().enumerate() {
            let name = master.own().dn.to_string();
            let mut kept = markers(master, &name);
            let near = neighbours(n).into_iter().filter(|m| Some(*m) != self.mute && Some(n) != self.mute);
            near.for_each(|m| kept.extend(markers(&sites[m], &name)));
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

    /// Looks at everything that a store holds, whether or not positions moved.
    pub fn audit(&mut self, site: &Site) -> Option<String> {
        let all = contexts(&site.store).expect("the store is sound");
        all.iter().filter(|record| record.position.usn > 0).find_map(|record| self.look(site, record, None))
    }

    /// Every site holds what the masters hold.
    pub fn all_equal(&self, sites: &[Site]) -> bool {
        if let Some(equal) = self.equal.get() {
            return equal;
        }
        let equal = sites.iter().enumerate().all(|(n, master)| {
            let name = master.own().dn.to_string();
            let at = self.seen.get(&(n, name.clone()));
            let same = |m: usize| self.seen.get(&(m, name.clone())) == at;
            Some(n) == self.mute || (0..sites.len()).all(same)
        });
        self.equal.set(Some(equal));
        equal
    }

    /// Nothing is kept that nobody needs any more.
    pub fn leftovers(&self, sites: &[Site]) -> Option<String> {
        // Whom nobody hears may wait for what was lost together with him who sent it.
        let heard = sites.iter().enumerate().filter(|(n, _)| Some(*n) != self.mute);
        heard.map(|(_, site)| site).find_map(|site| {
            [Table::Outbox, Table::Inbox, Table::Hold].into_iter().find_map(|table| {
                let count = records(site, table).0;
                (count > 0)
                    .then(|| format!("{} keeps {count} records in {table:?} though all are equal", site.name))
            })
        })
    }

    /// What a site keeps stays within bounds, whatever comes; of what is not written nothing becomes more.
    pub fn bounded(&self, site: &Site, contexts: usize, written: &Written) -> Option<String> {
        let partners = site.whole.partners.len();
        let bounds = [
            // Of two kinds, of each copy what is said of it and what is kept.
            (Table::Quarantine, 4 * COPIES_MAX, QUARANTINE_BYTES as usize + 2 * COPIES_MAX * 2048),
            (Table::Peer, partners, partners * (contexts * (8 << 10) + (64 << 10))),
            (Table::Hold, contexts, contexts * 4096),
            (Table::Checkpoint, contexts * 3, contexts * 4096),
            (Table::Outbox, partners * 4096, partners * (64 << 20)),
        ];
        let mut senders = site.whole.partners.iter().filter(|_| written.table(Table::Inbox));
        let crowded = senders.find_map(|partner| inbox(site, &partner.site));
        crowded.or_else(|| {
            let mut bounds = bounds.into_iter().filter(|(table, ..)| written.table(*table));
            bounds.find_map(|(table, count_max, bytes_max)| {
                let (count, bytes) = records(site, table);
                (count > count_max || bytes > bytes_max)
                    .then(|| format!("{} keeps {count} records of {bytes} octets in {table:?}", site.name))
            })
        })
    }
}

/// What a site's record of another says of what may be sent; the rest of it, which may be long, is passed over.
#[derive(Default, Decode)]
#[cbor(map)]
struct Terms {
    #[n(0)]
    #[cbor(default)]
    answered: bool,
    #[n(26)]
    #[cbor(default)]
    paused: bool,
}

impl Terms {
    fn of(site: &Site, other: &str) -> Terms {
        let octets = site.store.get(Table::Peer, other.as_bytes()).expect("the store is sound");
        octets.map_or(Terms::default(), |octets| minicbor::decode(&octets).expect("the record is sound"))
    }
}

/// What is kept of a partner's unfinished transfers takes no more than its room, but for the largest of them.
fn inbox(site: &Site, partner: &str) -> Option<String> {
    let all = Assembly::all_from(&site.store, partner).expect("the store is sound");
    let bytes = all.iter().map(Assembly::occupies);
    let counted = bytes.clone().sum::<u64>() - bytes.max().unwrap_or(0);
    (counted > site.whole.timing.inbox_bytes_max || all.len() > 256)
        .then(|| format!("{} keeps {} transfers of {partner}, {counted} octets", site.name, all.len()))
}

/// Records and octets in a table.
fn records(site: &Site, table: Table) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    site.store
        .scan(table, &[], &[0xff; 80], &mut |key, value| {
            count += 1;
            bytes += key.len() + value.len();
            true
        })
        .expect("the store is sound");
    (count, bytes)
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
