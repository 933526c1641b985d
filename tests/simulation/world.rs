//! The world: sites, the mail between them, time, chance. One seed, one world.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::rc::Rc;

use bridgehead::directory::Change;
use bridgehead::replication::engine::{BounceStatus, Event, Header, Input, Outcome};
use bridgehead::replication::parts::TransferId;
use bridgehead::replication::peer::Peer;
use bridgehead::replication::wire::{KeyId, Message};

use super::dice::Dice;
use super::identity::{Cover, Stop};
use super::knobs::{Knobs, Topology};
use super::malice::Malice;
use super::observers::Observers;
use super::site::{Came, Crash, Site};
use super::staff::Act;
use super::traffic::Traffic;
use super::{identity, setup, trace};

#[derive(Clone)]
pub struct Letter {
    /// The site that it claims to come from: a copy of a site writes in its name.
    pub from: usize,
    pub to: usize,
    /// What both were called when it left.
    pub names: Rc<(String, String)>,
    pub mail: u64,
    pub header: Header,
    pub payload: Rc<Vec<u8>>,
    /// None: keys and mailboxes stay as they are in this world.
    pub cover: Option<Cover>,
}

pub enum Happening {
    Deliver(Letter),
    /// It was altered on its way; whether its sender is told.
    Altered(Letter, bool),
    Work(usize),
    Operate(usize, Act),
    /// The transport gives a mail back.
    Bounce(Letter, BounceStatus),
    /// The next hop does not take a mail.
    Refuse(Letter),
    Resize(usize),
    /// Operators look after everything.
    Round,
}

/// Orders happenings of one instant by when they were planned.
pub struct Planned(pub i64, u64, pub Happening);

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

/// A link that is cut for a time, in one direction.
pub struct Cut {
    pub from: usize,
    pub to: usize,
    pub begin: i64,
    pub end: i64,
    /// Mail waits in a queue on the way instead of getting lost.
    pub queues: bool,
}

/// What a mail told of its sender's vector.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub from: usize,
    pub to: usize,
    pub items: usize,
    pub whole: bool,
    /// It asks for the other's whole vector.
    pub wanted: bool,
    pub bytes: usize,
}

/// A part of a transfer that was handed to the network.
#[derive(Clone, Debug)]
pub struct Posted {
    pub from: usize,
    pub to: usize,
    pub context: String,
    pub transfer: TransferId,
    pub index: u32,
    pub bytes: usize,
}

pub struct World {
    pub now: i64,
    pub knobs: Knobs,
    /// Beyond `knobs.sites`: copies of sites that live on beside them.
    pub sites: Vec<Site>,
    /// Whose copies those are.
    pub copies: Vec<usize>,
    pub observers: Observers,
    pub trace: VecDeque<String>,
    /// Mails handed to the network since the last reset: (from, to, was anything but a vector in it).
    pub mails: Vec<(usize, usize, bool)>,
    pub bytes: u64,
    /// What the mails told, since the last reset.
    pub told: Vec<Told>,
    /// When mails were handed to the network.
    pub posted_at: Vec<i64>,
    /// The next part of this index gets lost.
    pub lose_part: Option<u32>,
    /// Parts that were handed to the network: different ones, and again.
    pub parts_posted: (usize, usize),
    /// Each of them, since the last reset.
    pub parts: Vec<Posted>,
    /// How next hops refuse; none: by chance.
    pub refusal: Option<u16>,
    /// Carriers alter what is in parts.
    pub tamper: bool,
    pub dice: Dice,
    /// The chance of altered mail.
    pub wear: Dice,
    pub cuts: Vec<Cut>,
    pub malice: Option<Malice>,
    pub traffic: Traffic,
    /// Operators look after everything twice a day.
    pub rounds: bool,
    pub queue: BinaryHeap<Reverse<Planned>>,
    posted: HashSet<(usize, TransferId, u32)>,
    planned: u64,
    steps: u64,
    archive: Vec<Letter>,
}

pub const START: i64 = 1_800_000_000_000;
pub const HOUR: i64 = 3_600_000;
pub const DAY: i64 = 24 * HOUR;

impl World {
    pub fn new(seed: u64, knobs: Knobs) -> World {
        let mut dice = Dice::new(seed);
        let sites = setup::sites(&knobs, &mut dice);
        let hub = if knobs.topology == Topology::Line && knobs.sites > 2 { 1 } else { 0 };
        let mut observers = Observers::default();
        observers.mute = knobs.one_way.then_some(knobs.sites - 1);
        observers.delete_percent_max = knobs.delete_percent_max;
        observers.clocks_move = knobs.clocks > 0;
        let mut world = World {
            now: START,
            malice: knobs.malicious.then(|| Malice::new(hub)),
            knobs,
            sites,
            copies: Vec::new(),
            observers,
            trace: VecDeque::new(),
            mails: Vec::new(),
            bytes: 0,
            told: Vec::new(),
            posted_at: Vec::new(),
            lose_part: None,
            parts_posted: (0, 0),
            parts: Vec::new(),
            refusal: None,
            tamper: false,
            dice,
            wear: Dice::new(seed ^ 0x0C0_44A7),
            cuts: Vec::new(),
            traffic: Traffic::default(),
            rounds: false,
            queue: BinaryHeap::new(),
            posted: HashSet::new(),
            planned: 0,
            steps: 0,
            archive: Vec::new(),
        };
        world.plan_all();
        for n in 0..world.knobs.sites {
            world.input(n, Input::Start, Crash::No);
        }
        for n in 0..world.knobs.sites {
            if world.knobs.bulk > 0 {
                world.work(n, world.knobs.bulk);
            }
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
            if next > self.now {
                self.now = next;
                self.steps = 0;
            }
            self.steps += 1;
            if self.steps > STEPS_MAX {
                self.fail("does not come to rest");
            }
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

    /// Every site holds what the masters hold, and no mail is on the way.
    pub fn equal(&self) -> bool {
        let sites = &self.sites[..self.knobs.sites];
        self.observers.all_equal(sites) && identity::problem(sites, self.observers.mute).is_none()
    }

    pub fn crash(&mut self) -> Crash {
        match self.dice.below(100) {
            draw if draw < self.knobs.crash => match self.dice.below(4) {
                0 => Crash::BeforeCommit,
                1 => Crash::AtWrite(self.dice.below(30)),
                _ => Crash::AfterCommit(self.dice.below(4) as usize),
            },
            draw if draw < self.knobs.crash + self.knobs.disk_full => Crash::AtWrite(self.dice.below(60)),
            _ => Crash::No,
        }
    }

    pub fn plan(&mut self, at: i64, happening: Happening) {
        self.planned += 1;
        self.queue.push(Reverse(Planned(at, self.planned, happening)));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Work(n) if n < self.sites.len() && !self.sites[n].asleep => self.work(n, 0),
            Happening::Work(_) => {}
            Happening::Operate(n, act) => self.operate(n, act),
            Happening::Bounce(letter, status) => {
                let to = letter.names.1.clone();
                let (enhanced, text) = match status {
                    BounceStatus::TooLarge => ("5.3.4".into(), "message too big for system".into()),
                    BounceStatus::Delayed => ("4.4.1".into(), "still trying".into()),
                    BounceStatus::Failed => ("5.1.1".into(), "given up".into()),
                };
                let input = Input::Bounced { to, mail: letter.mail, status, enhanced, text };
                self.input(letter.from, input, Crash::No);
            }
            Happening::Refuse(letter) => {
                let to = letter.names.1.clone();
                let reply = self.refusal.unwrap_or(*self.dice.pick(&[421, 450, 452, 550, 554]));
                let (enhanced, text) = (String::new(), "not now".into());
                let input = Input::SendFailed { to, mail: letter.mail, reply, enhanced, text };
                self.input(letter.from, input, Crash::No);
            }
            Happening::Resize(bytes) => self.knobs.passes_bytes_max = bytes,
            Happening::Round => self.round(),
            Happening::Deliver(letter) => self.deliver(letter),
            Happening::Altered(letter, bounces) => self.deliver_altered(letter, bounces),
        }
    }

    pub fn work(&mut self, n: usize, bulk: u64) {
        let crash = self.crash();
        if self.knobs.delete_percent_max < 100 && self.dice.percent(10) {
            self.sites[n].workload.condemn(20);
        }
        let crashes = self.sites[n].crashes;
        let came = self.sites[n].commit(self.now, &mut self.dice, bulk, crash);
        if let Some(came) = came {
            let position = self.sites[n].own().position;
            self.note(|site| format!("{} commits {position}", site(n)));
            if let Some(problem) = self.observers.committed(n, &self.sites[n]) {
                self.fail(&problem);
            }
            self.came(n, came);
        }
        if self.sites[n].crashes > crashes {
            self.note(|site| format!("{} crashes at a commit, {crash:?}", site(n)));
            self.input(n, Input::Start, Crash::No);
        }
    }

    /// Commits these changes at a site.
    pub fn change(&mut self, n: usize, changes: &[Change]) {
        let came = self.sites[n].change(self.now, self.dice.bytes(), changes);
        if let Some(problem) = self.observers.committed(n, &self.sites[n]) {
            self.fail(&problem);
        }
        self.came(n, came);
    }

    fn deliver(&mut self, letter: Letter) {
        let copies: Vec<usize> = self.copies_of(letter.to);
        if !copies.is_empty() && !self.knobs.deaf && self.dice.percent(40) {
            // Who asks the mail server first reads the mail.
            let copy = *self.dice.pick(&copies);
            self.deliver_to(copy, letter.clone());
            if self.dice.percent(50) {
                return;
            }
        }
        self.deliver_to(letter.to, letter);
    }

    fn deliver_to(&mut self, n: usize, letter: Letter) {
        if !self.knobs.sabotage.lets(&letter.payload) {
            return;
        }
        if self.sites[n].asleep {
            self.plan(self.now + 1000, Happening::Bounce(letter, BounceStatus::Failed));
            return;
        }
        let from = letter.names.0.clone();
        if self.is_stopped(n, &from, &letter) {
            return;
        }
        let crash = self.crash();
        let payload = if self.tamper { tampered(&letter.payload) } else { letter.payload.to_vec() };
        let header = letter.header.clone();
        let input = Input::Received { from, header, payload: payload.clone() };
        let outcome = self.input(n, input, crash);
        if outcome == Some(Outcome::Taken) {
            self.traffic.delivered(letter.from, letter.to, letter.header.seq, &payload);
        }
        match outcome {
            // The sending MTA got no answer and tries again.
            None => {
                let delay = self.delay();
                self.plan(self.now + delay, Happening::Deliver(letter));
            }
            Some(Outcome::Refused(_)) if self.dice.percent(self.knobs.bounce) => {
                self.plan(self.now + 1000, Happening::Bounce(letter, BounceStatus::Failed));
            }
            Some(_) if matches!(crash, Crash::AfterCommit(_)) && self.dice.percent(50) => {
                // It was taken, and the answer got lost.
                let delay = self.delay();
                self.plan(self.now + delay, Happening::Deliver(letter));
            }
            Some(_) => {}
        }
    }

    /// What is sealed, signed or addressed as nobody goes by any more does not reach the engine.
    fn is_stopped(&mut self, n: usize, from: &str, letter: &Letter) -> bool {
        let clock = self.sites[n].clock(self.now).as_millisecond();
        let stop = match (&letter.cover, &self.sites[n].identity) {
            _ if letter.names.1 != self.sites[n].name => Some(Stop::Unproved("for another site")),
            (Some(cover), Some(identity)) => identity.takes(from, cover, self.now, clock).err(),
            _ => None,
        };
        let Some(stop) = stop else { return false };
        self.note(|site| format!("    #{} is stopped at {}: {stop:?}", letter.mail % 1_000_000, site(n)));
        if let Stop::Unproved(reason) = stop {
            let (from, bytes) = (format!("{from}+b@example"), letter.payload.len() as u64);
            let mail = letter.payload[..letter.payload.len().min(900)].to_vec();
            self.input(n, Input::Refused { from, reason: reason.into(), bytes, mail }, Crash::No);
        }
        if self.dice.percent(self.knobs.bounce) {
            self.plan(self.now + 1000, Happening::Bounce(letter.clone(), BounceStatus::Failed));
        }
        true
    }

    pub fn input(&mut self, n: usize, input: Input, crash: Crash) -> Option<Outcome> {
        if self.sites[n].asleep {
            return None;
        }
        let starting = matches!(input, Input::Start);
        let crashes = self.sites[n].crashes;
        let came = self.sites[n].handle(self.now, input, crash);
        let outcome = self.came(n, came);
        if self.sites[n].crashes > crashes && !starting {
            self.note(|site| format!("{} crashes, {crash:?}", site(n)));
            self.input(n, Input::Start, Crash::No);
        }
        outcome
    }

    /// Acts on what came out of a site, and lets the observers look.
    fn came(&mut self, n: usize, came: Came) -> Option<Outcome> {
        let Came { mails, told, events, outcome, swallowed, written } = came;
        if swallowed {
            self.fail(&format!("{} was refused a write and went on", self.sites[n].name));
        }
        let applied = events.iter().any(|event| matches!(event, Event::Applied { .. }));
        for event in &events {
            self.note(|site| format!("{} {event:?}", site(n)));
            self.observers.event(event);
        }
        for (to, mail, payload, signer) in mails {
            self.post(n, &to, mail, payload, signer);
        }
        if self.sites[n].identity.is_some() {
            for told in told {
                self.plan(self.now + 1, Happening::Operate(n, Act::Consider(told)));
            }
        }
        let sabotage = self.knobs.sabotage;
        if applied {
            sabotage.after_apply(&mut self.sites[n]);
        }
        let problem = self.observers.after(n, &self.sites[n], &events, &written);
        let bounded = || self.observers.bounded(&self.sites[n], self.knobs.sites, &written);
        if let Some(problem) = problem.or_else(bounded) {
            self.fail(&problem);
        }
        // What changed without a transaction of the site's own, as a bad disk does it.
        if self.dice.percent(1)
            && !self.observers.spoiled
            && let Some(problem) = self.observers.audit(&self.sites[n])
        {
            self.fail(&problem);
        }
        outcome
    }

    fn post(&mut self, from: usize, to: &str, mail: u64, payload: Vec<u8>, signer: KeyId) {
        let Some(to) = self.sites.iter().position(|site| site.name == to) else {
            self.fail(&format!("mail to {to}, which is no site"));
        };
        let mut message = Message::decode(&payload).expect("what is sent can be read");
        self.note(|site| format!("{} -> {} {}", site(from), site(to), trace::said(mail, &message)));
        let problem = self.observers.mail(self.now, &self.sites[from], &self.sites[to].name, &message);
        let header = self.sites[from].header(self.now, mail);
        let cover =
            self.sites[from].identity.as_ref().map(|identity| identity.cover(&self.sites[to].name, signer));
        let names = Rc::new((self.sites[from].name.clone(), self.sites[to].name.clone()));
        let from = self.real(from);
        let problem = problem.or_else(|| self.traffic.posted(self.now, (from, to), &message, &self.knobs));
        if let Some(problem) = problem {
            self.fail(&problem);
        }
        let bare = message.parts.is_empty() && message.requests.is_empty();
        self.mails.push((from, to, !bare));
        self.told.push(Told {
            from,
            to,
            items: message.vector.len(),
            whole: message.vector_digest.is_none(),
            wanted: message.vector_wanted,
            bytes: payload.len(),
        });
        let unlucky = self.count_parts(from, to, &message);
        let mut payload = payload;
        if let Some(malice) = self.malice.as_mut().filter(|malice| malice.site == from)
            && let Some(how) = malice.alter(&mut self.dice, &mut message)
        {
            payload = message.encode();
            self.note(|_| format!("    #{} {how}", mail % 1_000_000));
        }
        self.bytes += payload.len() as u64;
        self.posted_at.push(self.now);
        let letter = Letter { from, to, names, mail, header, payload: Rc::new(payload), cover };
        self.send(letter, unlucky);
    }

    fn count_parts(&mut self, from: usize, to: usize, message: &Message) -> bool {
        let mut unlucky = false;
        for item in &message.parts {
            self.parts.push(Posted {
                from,
                to,
                context: item.context.clone(),
                transfer: item.part.transfer,
                index: item.part.index,
                bytes: item.part.bytes.len(),
            });
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
        unlucky
    }

    /// What becomes of a mail on its way.
    fn send(&mut self, letter: Letter, unlucky: bool) {
        let name = letter.mail % 1_000_000;
        let at = self.now + self.delay();
        if letter.payload.len() > self.knobs.passes_bytes_max {
            self.note(|_| format!("    #{name} is too large"));
            self.plan(at, Happening::Bounce(letter, BounceStatus::TooLarge));
            return;
        }
        if self.dice.percent(self.knobs.refuse) {
            self.plan(self.now + 100, Happening::Refuse(letter));
            return;
        }
        let now = self.now;
        let ways = |cut: &&Cut| {
            (cut.from, cut.to) == (letter.from, letter.to) && (cut.begin..cut.end).contains(&now)
        };
        let cut = self.cuts.iter().find(ways).map(|cut| (cut.queues, cut.end));
        if let Some((true, end)) = cut {
            self.plan(end.max(at), Happening::Deliver(letter));
            return;
        }
        let (loss, corrupt) = (self.knobs.loss, self.knobs.corrupt);
        let draw = if cut.is_some() || unlucky { None } else { Some(self.dice.below(100)) };
        if draw.is_none_or(|draw| draw < loss + corrupt) {
            let told = self.dice.percent(self.knobs.bounce);
            let status = if told { Some(*self.dice.pick(&STATUSES)) } else { None };
            if draw.is_some_and(|draw| draw >= loss) {
                self.alter(at, letter, told);
                return;
            }
            self.note(|_| format!("    #{name} is lost"));
            if let Some(status) = status {
                self.plan(at, Happening::Bounce(letter, status));
            }
            return;
        }
        let copies = 1 + u64::from(self.dice.percent(self.knobs.twice));
        for _ in 0..copies {
            let at = self.now + self.delay();
            self.plan(at, Happening::Deliver(letter.clone()));
        }
        if self.knobs.replay > 0 {
            self.archive.push(letter);
            if self.dice.percent(self.knobs.replay) {
                let old = self.dice.pick(&self.archive).clone();
                self.plan(at, Happening::Deliver(old));
            }
        }
    }

    /// The site whose name this store bears.
    pub fn real(&self, n: usize) -> usize {
        if n < self.knobs.sites { n } else { self.copies[n - self.knobs.sites] }
    }

    fn copies_of(&self, n: usize) -> Vec<usize> {
        let of = |(_, real): &(usize, &usize)| **real == n;
        self.copies.iter().enumerate().filter(of).map(|(at, _)| at + self.knobs.sites).collect()
    }

    pub fn delay(&mut self) -> i64 {
        self.dice.between(self.knobs.delay.0, self.knobs.delay.1)
    }

    /// A line for the trace; `line` gets the names of sites.
    pub fn note(&mut self, line: impl FnOnce(&dyn Fn(usize) -> String) -> String) {
        if self.trace.len() == TRACE_MAX && std::env::var_os("BRIDGEHEAD_SEED").is_none() {
            self.trace.pop_front();
        }
        let (at, sites, real) = (self.now - START, &self.sites, self.knobs.sites);
        let name = |n: usize| sites[n].name.clone() + if n < real { "" } else { "'" };
        self.trace.push_back(format!(
            "{:>4}d {:02}:{:02}:{:02} {}",
            at / DAY,
            at / HOUR % 24,
            at / 60_000 % 60,
            at / 1000 % 60,
            line(&name)
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
        for site in &self.sites {
            for partner in &site.whole.partners {
                let peer = Peer::load(&site.store, &partner.site).expect("the store is sound");
                for link in peer.iter().flat_map(|peer| &peer.links).filter(|link| !link.chain.is_empty()) {
                    held += &format!("{} has for {} under way: {link:?}\n", site.name, partner.site);
                }
            }
        }
        held += &format!("{:?}\n", self.observers.events);
        panic!("{problem}\n{:?}\n{}\n{held}", self.knobs, trace.join("\n"));
    }
}

/// What may be said of mail that got lost.
const STATUSES: [BounceStatus; 2] = [BounceStatus::Failed, BounceStatus::Delayed];
const TRACE_MAX: usize = 80;
/// So much may happen in one instant.
const STEPS_MAX: u64 = 20_000;

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
