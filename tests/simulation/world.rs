//! The world: sites, the mail between them, time, chance. One seed, one world.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::rc::Rc;

use bridgehead::directory::context::{ContextRecord, contexts, create_context, put_context};
use bridgehead::directory::digest::Summary;
use bridgehead::directory::dn::Dn;
use bridgehead::directory::entry::Entry;
use bridgehead::directory::lookup;
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::replica::{Replay, ReplayError};
use bridgehead::replication::engine::Header;
use bridgehead::replication::engine::{
    BounceStatus, EngineConfig, Event, Input, KnownSite, Partner, Passage, Timing,
};
use bridgehead::replication::parts::{Part, TransferId};
use bridgehead::replication::peer::Peer;
use bridgehead::replication::schedule::Schedule;
use bridgehead::replication::transfer::{Base, Manifest};
use bridgehead::replication::wire::{Message, VectorItem};
use ed25519_dalek::SigningKey;

use super::dice::Dice;
use super::knobs::{Knobs, Topology};
use super::observers::Observers;
use super::site::{Came, Crash, Site};
use super::workload::Workload;

#[derive(Clone)]
struct Letter {
    from: usize,
    to: usize,
    mail: u64,
    /// When it left, by the world's time.
    left: i64,
    payload: Rc<Vec<u8>>,
}

enum Happening {
    Deliver(Letter),
    Work(usize),
    /// The site is copied; the copy takes its place later.
    Backup(usize, i64),
    Restore(usize, Box<(MemoryStore, Workload)>),
    /// The transport gives a mail back, too large.
    Bounce(Letter),
}

/// Orders happenings of one instant by when they were planned.
struct Planned(i64, u64, Happening);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

pub struct World {
    pub now: i64,
    pub knobs: Knobs,
    pub sites: Vec<Site>,
    pub observers: Observers,
    pub trace: VecDeque<String>,
    /// Mails handed to the network since the last reset: (from, to, was anything but a vector in it).
    pub mails: Vec<(usize, usize, bool)>,
    pub bytes: u64,
    /// When mails were handed to the network.
    pub posted_at: Vec<i64>,
    /// The next part of this index gets lost.
    pub lose_part: Option<u32>,
    /// Parts that were handed to the network: different ones, and again.
    pub parts_posted: (usize, usize),
    /// Carriers alter what is in parts.
    pub tamper: bool,
    posted: HashSet<(usize, TransferId, u32)>,
    dice: Dice,
    queue: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    archive: Vec<Letter>,
}

pub const START: i64 = 1_800_000_000_000;
pub const HOUR: i64 = 3_600_000;
pub const DAY: i64 = 24 * HOUR;

impl World {
    pub fn new(seed: u64, knobs: Knobs) -> World {
        let mut dice = Dice::new(seed);
        let keys: Vec<SigningKey> = (0..knobs.sites).map(|_| SigningKey::from_bytes(&dice.bytes())).collect();
        let names: Vec<String> = (0..knobs.sites).map(|n| format!("s{n}")).collect();
        let context = |n: usize| format!("ou={},o=Example", names[n]);
        let known: Vec<KnownSite> = (0..knobs.sites)
            .map(|n| KnownSite {
                site: names[n].clone(),
                key: keys[n].verifying_key(),
                contexts: vec![context(n)],
                former: Vec::new(),
                card: None,
            })
            .collect();
        let mut sites = Vec::new();
        for n in 0..knobs.sites {
            let neighbours = knobs.topology.neighbours(n, knobs.sites);
            let hub = neighbours.len() > 1 && knobs.topology != Topology::Mesh;
            let partners = neighbours.iter().map(|&m| {
                let mut partner = Partner::new(&names[m]);
                partner.part_bytes_max = knobs.part_bytes_max;
                partner.schedule = knobs.schedule.clone();
                partner.day_bytes_max = knobs.day_bytes_max;
                partner.delete_percent_max = knobs.delete_percent_max;
                if knobs.one_way {
                    partner.one_way = n == 0;
                    partner.schedule = if n == 0 { Schedule::Always } else { Schedule::Never };
                }
                if hub {
                    partner.outbound = Passage::All;
                }
                partner
            });
            let config = EngineConfig {
                site: names[n].clone(),
                key: keys[n].clone(),
                card: format!("card of {}", names[n]),
                succession: Default::default(),
                known: known.clone(),
                partners: partners.collect(),
                timing: Timing::default(),
            };
            let mut store = MemoryStore::new();
            let mut tx = store.begin();
            let dn = Dn::parse(&context(n)).expect("a sound name");
            create_context(&mut tx, &dn, &names[n], uuid::Uuid::from_bytes(dice.bytes()))
                .expect("a new context");
            tx.commit();
            let skew = dice.between(-knobs.skew, knobs.skew);
            sites.push(Site::new(config, store, Workload::new(&context(n)), skew));
        }
        let mut world = World {
            now: START,
            knobs,
            sites,
            observers: Observers::default(),
            trace: VecDeque::new(),
            mails: Vec::new(),
            bytes: 0,
            posted_at: Vec::new(),
            lose_part: None,
            parts_posted: (0, 0),
            tamper: false,
            posted: HashSet::new(),
            dice,
            queue: BinaryHeap::new(),
            planned: 0,
            archive: Vec::new(),
        };
        for n in 0..world.knobs.sites {
            world.input(n, Input::Start, Crash::No);
        }
        for n in 0..world.knobs.sites {
            if world.knobs.bulk > 0 {
                world.work(n, world.knobs.bulk);
            }
        }
        for _ in 0..world.knobs.commits {
            let (n, at) = (
                world.dice.below(world.knobs.sites as u64) as usize,
                world.dice.between(0, world.knobs.busy),
            );
            world.plan(START + at, Happening::Work(n));
        }
        for _ in 0..world.knobs.restores {
            let n = world.dice.below(world.knobs.sites as u64) as usize;
            let copied = world.dice.between(0, world.knobs.busy);
            let until = world.dice.between(copied, world.knobs.busy);
            world.plan(START + copied, Happening::Backup(n, START + until));
        }
        world
    }

    /// Runs until `until`, or until `done` says so; whether it did.
    pub fn run(&mut self, until: i64, mut done: impl FnMut(&World) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let timer =
                (0..self.sites.len()).filter_map(|n| self.sites[n].deadline().map(|at| (at, n))).min();
            let mail = self.queue.peek().map(|Reverse(planned)| planned.0);
            let next = timer.map(|(at, _)| at).into_iter().chain(mail).min();
            let Some(next) = next.filter(|at| *at <= until) else {
                self.now = until;
                return done(self);
            };
            self.now = self.now.max(next);
            match (mail, timer) {
                (Some(at), _) if at == next => {
                    let Some(Reverse(planned)) = self.queue.pop() else { continue };
                    self.happen(planned.2);
                }
                (_, Some((_, n))) => {
                    let crash = self.crash();
                    self.input(n, Input::Tick, crash);
                }
                _ => {}
            }
        }
    }

    /// From now on mail flows and machines stand.
    pub fn calm(&mut self) {
        self.knobs.loss = 0;
        self.knobs.twice = 0;
        self.knobs.replay = 0;
        self.knobs.crash = 0;
    }

    /// Every site holds what the masters hold, and no mail is on the way.
    pub fn equal(&self) -> bool {
        self.observers.all_equal(&self.sites)
    }

    /// What is planned to arrive last: its header and its payload.
    pub fn last_letter(&self) -> Option<(Header, Vec<u8>)> {
        let letters = self.queue.iter().filter_map(|Reverse(planned)| match &planned.2 {
            Happening::Deliver(letter) => Some((planned.0, letter)),
            _ => None,
        });
        let (_, letter) = letters.max_by_key(|(at, _)| *at)?;
        Some((self.sites[letter.from].header(letter.left, letter.mail), letter.payload.to_vec()))
    }

    /// What the site would say of itself to another.
    pub fn vector_of(&self, n: usize, to: &str) -> Vec<VectorItem> {
        let peer = Peer::load(&self.sites[n].store, to).expect("the store is sound").unwrap_or_default();
        let all = bridgehead::directory::context::contexts(&self.sites[n].store).expect("the store is sound");
        let standing = bridgehead::replication::wire::Standing::Follows;
        let item = |link: &bridgehead::replication::peer::Link| {
            let own = all.iter().find(|record| record.dn.to_string() == link.context);
            let own = own.filter(|record| record.position.usn > 0);
            VectorItem {
                context: link.context.clone(),
                position: own.map(|record| record.position),
                digest: own.map(|record| record.digest),
                standing,
            }
        };
        peer.links.iter().map(item).collect()
    }

    fn crash(&mut self) -> Crash {
        match () {
            () if !self.dice.percent(self.knobs.crash) => Crash::No,
            () if self.dice.percent(50) => Crash::BeforeCommit,
            () => Crash::AfterCommit,
        }
    }

    fn plan(&mut self, at: i64, happening: Happening) {
        self.planned += 1;
        self.queue.push(Reverse(Planned(at, self.planned, happening)));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Work(n) => self.work(n, 0),
            Happening::Backup(n, until) => {
                let copy = Box::new((self.sites[n].store.clone(), self.sites[n].workload.clone()));
                self.plan(until, Happening::Restore(n, copy));
            }
            Happening::Restore(n, copy) => self.restore(n, copy.0, copy.1),
            Happening::Bounce(letter) => {
                let to = self.sites[letter.to].name.clone();
                let status = BounceStatus::TooLarge;
                let (enhanced, text) = ("5.3.4".into(), "message too big for system".into());
                let input = Input::Bounced { to, mail: letter.mail, status, enhanced, text };
                self.input(letter.from, input, Crash::No);
            }
            Happening::Deliver(letter) => self.deliver(letter),
        }
    }

    /// Puts a site back to an earlier day. What it or its neighbours hold afterwards must not get lost.
    pub fn restore(&mut self, n: usize, store: MemoryStore, workload: Workload) {
        self.note(format!("{} is put back to an earlier day", self.sites[n].name));
        let site = &mut self.sites[n];
        (site.store, site.workload, site.restored) = (store, workload, true);
        site.restart();
        self.observers.restored(&self.sites[n]);
        let topology = self.knobs.topology;
        self.observers.must_keep(&self.sites, |n| topology.neighbours(n, self.sites.len()));
        self.input(n, Input::Start, Crash::No);
    }

    /// A replica loses an entry behind the engine's back; its digest tells, its position does not.
    pub fn spoil(&mut self, n: usize, context: &str) {
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

    /// Operators end forks: a site that does not hold what the master holds takes it from its partner
    /// nearest to him, and gives up what it has.
    pub fn refresh_all(&mut self) {
        for master in 0..self.sites.len() {
            let own = self.sites[master].own();
            for n in (0..self.sites.len()).filter(|&n| n != master) {
                let all = contexts(&self.sites[n].store).expect("the store is sound");
                let held = all.iter().find(|record| record.dn == own.dn);
                if held.is_some_and(|record| record.position != own.position) {
                    let site = self.sites[self.next_hop(n, master)].name.clone();
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
            let near = |site: &usize| self.knobs.topology.neighbours(*site, self.sites.len());
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

    pub fn work(&mut self, n: usize, bulk: u64) {
        let crash = self.crash();
        let came = self.sites[n].commit(self.now, &mut self.dice, bulk, crash);
        if let Some(came) = came {
            let position = self.sites[n].own().position;
            self.note(format!("{} commits {position}", self.sites[n].name));
            if let Some(problem) = self.observers.committed(&self.sites[n]) {
                self.fail(&problem);
            }
            self.came(n, came);
        }
        if crash != Crash::No {
            self.note(format!("{} crashes at a commit, {crash:?}", self.sites[n].name));
            self.input(n, Input::Start, Crash::No);
        }
    }

    fn deliver(&mut self, letter: Letter) {
        if !self.knobs.sabotage.lets(&letter.payload) {
            return;
        }
        let from = self.sites[letter.from].name.clone();
        let header = self.sites[letter.from].header(letter.left, letter.mail);
        let crash = self.crash();
        let payload = if self.tamper { tampered(&letter.payload) } else { letter.payload.to_vec() };
        let input = Input::Received { from, header, payload };
        if self.input(letter.to, input, crash).is_none() {
            // The sending MTA got no answer and tries again.
            let delay = self.delay();
            self.plan(self.now + delay, Happening::Deliver(letter));
        }
    }

    pub fn input(&mut self, n: usize, input: Input, crash: Crash) -> Option<()> {
        if crash != Crash::No {
            self.note(format!("{} crashes, {crash:?}", self.sites[n].name));
        }
        let starting = matches!(input, Input::Start);
        let came = self.sites[n].handle(self.now, input, crash);
        let outcome = self.came(n, came);
        if crash != Crash::No && !starting {
            self.input(n, Input::Start, Crash::No);
        }
        outcome
    }

    /// Acts on what came out of a site, and lets the observers look.
    fn came(&mut self, n: usize, came: Came) -> Option<()> {
        let Came { mails, events, outcome } = came;
        let applied = events.iter().any(|event| matches!(event, Event::Applied { .. }));
        for event in events {
            self.note(format!("{} {event:?}", self.sites[n].name));
            self.observers.event(&self.sites[n].name, &event);
        }
        for (to, mail, payload) in mails {
            self.post(n, &to, mail, payload);
        }
        let sabotage = self.knobs.sabotage.clone();
        if applied {
            sabotage.after_apply(&mut self.sites[n]);
        }
        if let Some(problem) = self.observers.after(&self.sites[n]) {
            self.fail(&problem);
        }
        outcome.map(|_| ())
    }

    fn post(&mut self, from: usize, to: &str, mail: u64, payload: Vec<u8>) {
        let Some(to) = self.sites.iter().position(|site| site.name == to) else {
            self.fail(&format!("mail to {to}, which is no site"));
        };
        let message = Message::decode(&payload).expect("what is sent can be read");
        let bare = message.parts.is_empty() && message.requests.is_empty();
        self.note(format!(
            "{} -> {} #{}{}{}{}{}",
            self.sites[from].name,
            self.sites[to].name,
            mail % 1_000_000,
            message.hello.as_ref().map_or(String::new(), |hello| format!(" hello({})", hello.answer)),
            message.parts.iter().map(|p| said(&p.part)).collect::<String>(),
            message
                .requests
                .iter()
                .map(|r| format!(" asks {:?}{:?}", r.base.map(|b| b.usn), r.missing))
                .collect::<String>(),
            if message.answer_wanted { " ?" } else { "" },
        ));
        if let Some(problem) = self.observers.mail(&self.sites[from], &self.sites[to].name, &message) {
            self.fail(&problem);
        }
        self.mails.push((from, to, !bare));
        let mut unlucky = false;
        for item in &message.parts {
            let fresh = self.posted.insert((to, item.part.transfer, item.part.index));
            if fresh {
                self.parts_posted.0 += 1
            } else {
                self.parts_posted.1 += 1
            }
            if self.lose_part == Some(item.part.index) {
                self.lose_part = None;
                unlucky = true;
            }
        }
        self.bytes += payload.len() as u64;
        self.posted_at.push(self.now);
        let letter = Letter { from, to, mail, left: self.now, payload: Rc::new(payload) };
        if letter.payload.len() > self.knobs.passes_bytes_max {
            let at = self.now + self.delay();
            self.note(format!("    #{} is too large", mail % 1_000_000));
            self.plan(at, Happening::Bounce(letter));
            return;
        }
        if !unlucky && !self.dice.percent(self.knobs.loss) {
            let copies = 1 + u64::from(self.dice.percent(self.knobs.twice));
            for _ in 0..copies {
                let at = self.now + self.delay();
                self.plan(at, Happening::Deliver(letter.clone()));
            }
        } else {
            self.note(format!("    #{} is lost", mail % 1_000_000));
        }
        if self.knobs.replay > 0 {
            self.archive.push(letter);
            if self.dice.percent(self.knobs.replay) {
                let old = self.dice.pick(&self.archive).clone();
                let at = self.now + self.delay();
                self.plan(at, Happening::Deliver(old));
            }
        }
    }

    fn delay(&mut self) -> i64 {
        self.dice.between(self.knobs.delay.0, self.knobs.delay.1)
    }

    pub fn note(&mut self, line: String) {
        if self.trace.len() == TRACE_MAX && std::env::var_os("BRIDGEHEAD_SEED").is_none() {
            self.trace.pop_front();
        }
        let at = self.now - START;
        self.trace.push_back(format!(
            "{:>4}d {:02}:{:02}:{:02} {line}",
            at / DAY,
            at / HOUR % 24,
            at / 60_000 % 60,
            at / 1000 % 60
        ));
    }

    pub fn fail(&self, problem: &str) -> ! {
        let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        let mut held = String::new();
        for site in &self.sites {
            for record in bridgehead::directory::context::contexts(&site.store).expect("the store is sound") {
                let (name, dn, position) = (&site.name, &record.dn, record.position);
                held += &format!("{name} holds {dn} at {position}, {} entries\n", record.entries);
            }
        }
        held += &format!("{:?}\n", self.observers.events);
        panic!("{problem}\n{:?}\n{}\n{held}", self.knobs, trace.join("\n"));
    }
}

const TRACE_MAX: usize = 80;

/// A part in the trace.
fn said(part: &Part) -> String {
    let manifest = Manifest::from_bytes(&part.manifest).ok();
    let checkpoint = manifest.as_ref().and_then(|manifest| manifest.checkpoint.claimed().ok());
    let base = match manifest.map(|manifest| manifest.base) {
        Some(Base::At(position, _)) => format!("{}", position.usn),
        Some(Base::Nothing) => "nothing".into(),
        Some(Base::Repair) => "repair".into(),
        None => String::new(),
    };
    let target =
        checkpoint.map_or(String::new(), |said| format!("{} {} {}", said.context, said.position, said.time));
    format!(" part {}/{} {base}->{target}", part.index, part.count)
}

/// The message as a carrier with its own keys could have altered it.
fn tampered(payload: &[u8]) -> Vec<u8> {
    let mut message = Message::decode(payload).expect("what is sent can be read");
    for item in &mut message.parts {
        if let Some(last) = item.part.bytes.last_mut() {
            *last ^= 1;
        }
    }
    message.encode()
}
