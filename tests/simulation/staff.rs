//! The operators: what they do to their sites, and how they end what only they can end.

use bridgehead::directory::context::contexts;
use bridgehead::directory::context::{ContextRecord, put_context};
use bridgehead::directory::digest::Summary;
use bridgehead::directory::entry::Entry;
use bridgehead::directory::lookup;
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::replica::{Replay, ReplayError};
use bridgehead::replication::engine::Input;
use bridgehead::replication::engine::hold::{Hold, HoldKind, HoldVerdict, holds};

use super::identity::{Identity, Pins, Told};
use super::site::{Crash, Site};
use super::workload::Workload;
use super::world::{DAY, Happening, World};

pub enum Act {
    Pause(usize, bool),
    /// Forgets the connection to a site, and what it masters if `purge`.
    Detach {
        site: usize,
        purge: bool,
    },
    /// Configures the connection to a site that was not known.
    Know(usize),
    /// The site is installed.
    Wake,
    Sync,
    Verify,
    /// Its clock shows this much beyond the world's from now on.
    Clock(i64),
    /// Approves transfers that wait; not all of them unless `always`.
    Decide {
        always: bool,
    },
    /// The site is copied; the copy takes its place at this time.
    Backup(i64),
    PutBack(Box<(MemoryStore, Workload, Option<Pins>)>),
    /// A copy begins to live on beside the site.
    Copy,
    /// `key roll`.
    Roll,
    /// `card move`; mail to the former mailbox arrives until then.
    Move {
        served: i64,
    },
    /// It gets another name.
    Rename,
    /// Looks at cards that a site told.
    Consider(Told),
}

impl World {
    pub fn operate(&mut self, n: usize, act: Act) {
        if n >= self.sites.len() || self.sites[n].asleep && !matches!(act, Act::Wake) {
            return;
        }
        match act {
            Act::Pause(m, paused) => {
                let site = self.sites[m].name.clone();
                self.input(n, Input::Pause { site, paused }, Crash::No);
            }
            Act::Detach { site, purge } => self.detach(n, site, purge),
            Act::Know(m) => self.know(n, m),
            Act::Wake => {
                self.sites[n].asleep = false;
                self.note(|site| format!("{} is installed", site(n)));
                self.input(n, Input::Start, Crash::No);
            }
            Act::Sync => drop(self.input(n, Input::Sync { site: None }, Crash::No)),
            Act::Verify => drop(self.input(n, Input::Verify { site: None }, Crash::No)),
            Act::Clock(skew) => {
                self.note(|site| format!("{} sets its clock", site(n)));
                self.sites[n].skew = skew;
                self.input(n, Input::Tick, Crash::No);
            }
            Act::Decide { always } => self.decide(n, always),
            Act::Backup(until) => {
                let site = &self.sites[n];
                // Half of the copies are of the configuration, too. By a mailbox or a name of then a site may never be reached.
                let keeps = self.knobs.moves + self.knobs.renames == 0;
                let pins = site.identity.as_ref().filter(|_| keeps && n % 2 == 1);
                let copy = Box::new((site.store.clone(), site.workload.clone(), pins.map(Identity::pins)));
                self.plan(until, Happening::Operate(n, Act::PutBack(copy)));
            }
            Act::PutBack(copy) => {
                let (store, workload, pins) = *copy;
                if let (Some(identity), Some(pins)) = (&mut self.sites[n].identity, pins) {
                    identity.put_back(pins);
                    self.sites[n].configure();
                }
                self.restore(n, store, workload);
            }
            Act::Copy => self.copy(n),
            Act::Roll => self.roll(n),
            Act::Move { served } => self.move_mailbox(n, served),
            Act::Rename => self.rename(n),
            Act::Consider(told) => {
                let now = self.sites[n].clock(self.now).as_millisecond();
                let identity = self.sites[n].identity.as_mut();
                if identity.is_some_and(|identity| identity.consider(&told, now)) {
                    self.note(|site| format!("{} pins what it was told", site(n)));
                    self.reconfigure(n);
                }
            }
        }
    }

    fn roll(&mut self, n: usize) {
        let now = self.sites[n].clock(self.now);
        let Some(identity) = &mut self.sites[n].identity else { return };
        identity.roll(now, &mut self.dice);
        self.note(|site| format!("{} renews its keys", site(n)));
        self.observers.may_restate(n);
        self.reconfigure(n);
    }

    fn move_mailbox(&mut self, n: usize, served: i64) {
        let now = self.sites[n].clock(self.now);
        let Some(identity) = &mut self.sites[n].identity else { return };
        identity.move_mailbox(now, served);
        self.note(|site| format!("{} moves to another mailbox", site(n)));
        self.reconfigure(n);
    }

    /// `bridgehead reload`.
    fn reconfigure(&mut self, n: usize) {
        self.sites[n].configure();
        self.input(n, Input::Start, Crash::No);
    }

    /// The connection is forgotten, then the configuration stops to name the site.
    pub fn detach(&mut self, n: usize, m: usize, purge: bool) {
        let site = self.sites[m].name.clone();
        self.note(|name| format!("{} detaches {}", name(n), name(m)));
        self.input(n, Input::Detach { site: site.clone(), dry_run: false }, Crash::No);
        self.observers.detached(&self.sites[n].name, &site);
        self.sites[n].unknown.insert(site.clone());
        self.sites[n].configure();
        self.input(n, Input::Start, Crash::No);
        if purge {
            self.input(n, Input::Purge { site, dry_run: false }, Crash::No);
        }
    }

    fn know(&mut self, n: usize, m: usize) {
        let site = self.sites[m].name.clone();
        if self.sites[n].unknown.remove(&site) {
            self.note(|name| format!("{} knows {}", name(n), name(m)));
            let (known, card) = (self.sites[m].as_known(), self.sites[m].identity.clone());
            self.sites[n].learn(known);
            if let (Some(ours), Some(theirs)) = (&mut self.sites[n].identity, card) {
                ours.add(&theirs);
            }
            self.reconfigure(n);
        }
    }

    fn decide(&mut self, n: usize, always: bool) {
        let holds = holds(&self.sites[n].store).expect("the store is sound");
        let own = self.sites[n].own().dn.to_string();
        // For what went another way at a replica see `refresh_all`. A master takes back what another life of it did once
        // that is over.
        let is_due = |hold: &Hold| hold.kind == HoldKind::Deletions || always && hold.context == own;
        for hold in holds.into_iter().filter(is_due) {
            let approve = always || self.dice.percent(60);
            if hold.verdict != HoldVerdict::Approved || !approve {
                self.input(n, Input::Hold { hold: hold.id, approve }, Crash::No);
            }
        }
    }

    /// Somebody starts a copy of the site, which goes on beside it under the same name.
    fn copy(&mut self, n: usize) {
        self.note(|site| format!("a copy of {} lives on beside it", site(n)));
        let site = &mut self.sites[n];
        site.restored = true;
        let mut copy =
            Site::new(site.whole.clone(), site.store.clone(), site.workload.clone(), site.skew + 1);
        copy.restored = true;
        copy.unknown = site.unknown.clone();
        copy.configure();
        self.sites.push(copy);
        self.copies.push(n);
        let at = self.sites.len() - 1;
        self.observers.restored(at, &self.sites[at]);
        self.input(at, Input::Start, Crash::No);
        for _ in 0..2 {
            let work = self.dice.between(self.now, self.now + self.knobs.busy);
            self.plan(work, Happening::Work(at));
        }
    }

    /// From now on mail flows, machines stand, and operators put right what they can.
    pub fn calm(&mut self) {
        let knobs = &mut self.knobs;
        for knob in [&mut knobs.loss, &mut knobs.twice, &mut knobs.replay, &mut knobs.crash] {
            *knob = 0;
        }
        for knob in [&mut knobs.corrupt, &mut knobs.disk_full, &mut knobs.bounce, &mut knobs.refuse] {
            *knob = 0;
        }
        self.cuts.clear();
        self.malice = None;
        for n in 0..self.knobs.sites {
            if self.sites[n].asleep {
                self.operate(n, Act::Wake);
            }
            for m in 0..self.knobs.sites {
                self.know(n, m);
                let site = self.sites[m].name.clone();
                if self.sites[n].whole.partner(&site).is_some() {
                    let peer = bridgehead::replication::peer::Peer::load(&self.sites[n].store, &site);
                    if peer.expect("the store is sound").is_some_and(|peer| peer.paused) {
                        self.operate(n, Act::Pause(m, false));
                    }
                }
            }
        }
        if !self.copies.is_empty() {
            self.note(|_| "the copies are switched off".into());
            self.sites.truncate(self.knobs.sites);
            self.copies.clear();
            self.must_keep();
        }
        self.rounds = true;
        self.round();
    }

    /// Once a day operators approve what waits.
    pub fn round(&mut self) {
        for n in 0..self.knobs.sites {
            if self.rounds {
                self.decide(n, true);
            }
        }
        if self.rounds && (self.knobs.delete_percent_max < 100 || self.knobs.clones + self.knobs.restores > 0)
        {
            self.plan(self.now + DAY / 2, Happening::Round);
        }
    }

    fn must_keep(&mut self) {
        let (topology, of) = (self.knobs.topology, self.knobs.sites);
        self.observers.must_keep(&self.sites[..of], |n| topology.neighbours(n, of));
    }

    /// Puts a site back to an earlier day. What it or its neighbours hold afterwards must not get lost.
    pub fn restore(&mut self, n: usize, store: MemoryStore, workload: Workload) {
        self.note(|site| format!("{} is put back to an earlier day", site(n)));
        self.traffic.lawless = true;
        let site = &mut self.sites[n];
        (site.store, site.workload, site.restored) = (store, workload, true);
        site.adopt();
        site.restart();
        self.observers.restored(n, &self.sites[n]);
        self.observers.may_restate(n);
        self.must_keep();
        self.input(n, Input::Start, Crash::No);
    }

    /// Operators end forks: a site that does not hold what the master holds takes it from its partner
    /// nearest to him, and gives up what it has.
    pub fn refresh_all(&mut self) {
        for master in 0..self.knobs.sites {
            let own = self.sites[master].own();
            for n in (0..self.knobs.sites).filter(|&n| n != master) {
                let all = contexts(&self.sites[n].store).expect("the store is sound");
                let held = all.iter().find(|record| record.dn == own.dn);
                if held.is_some_and(|record| record.position != own.position) {
                    let site = self.sites[self.next_hop(n, master)].name.clone();
                    self.observers.gives_up(n, &own.dn.to_string());
                    self.input(
                        n,
                        Input::Refresh { site: Some(site), context: None, dry_run: false },
                        Crash::No,
                    );
                }
            }
        }
    }

    /// The neighbour of `from` that is nearest to `to`.
    fn next_hop(&self, from: usize, to: usize) -> usize {
        let (mut reached, mut front) = (vec![to], vec![to]);
        while !front.is_empty() {
            let near = |site: &usize| self.knobs.topology.neighbours(*site, self.knobs.sites);
            let next: Vec<(usize, usize)> =
                front.iter().flat_map(|site| near(site).into_iter().map(move |m| (m, *site))).collect();
            if let Some((_, by)) = next.iter().find(|(site, _)| *site == from) {
                return *by;
            }
            front = next.into_iter().map(|(site, _)| site).filter(|site| !reached.contains(site)).collect();
            reached.extend(&front);
        }
        to
    }

    /// A replica loses an entry behind the engine's back; its digest tells, its position does not.
    pub fn spoil(&mut self, n: usize, context: &str) {
        self.observers.spoiled = true;
        self.traffic.lawless = true;
        let all = contexts(&self.sites[n].store).expect("the store is sound");
        let record = all.into_iter().find(|record| record.dn.to_string() == context).expect("it is held");
        let mut found = None;
        let visit = &mut |entry: Entry| {
            found = Some(entry.uuid).filter(|_| !entry.parent.is_nil());
            found.is_none()
        };
        lookup::scan_entries(&self.sites[n].store, record.number, visit).expect("the store is sound");
        let mut tx = self.sites[n].store.begin();
        let mut replay = Replay::begin(&mut tx, &record);
        replay.delete(found.expect("it has entries")).expect("it is there");
        let entries = record.entries - 1;
        let found = match replay.finish(record.position, Summary { entries, digest: record.digest }) {
            Err(ReplayError::Digest { found, .. }) => found,
            other => panic!("{other:?}"),
        };
        let spoiled = ContextRecord { entries, digest: found, ..record };
        put_context(&mut tx, &spoiled).expect("the store in memory does not fail");
        tx.commit();
    }

    /// Somebody deletes many people.
    pub fn delete_people(&mut self, n: usize, count: usize) {
        self.sites[n].workload.condemn(count);
        self.work(n, 0);
    }
}
