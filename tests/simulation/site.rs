//! One simulated site: a store, the real engine on it, and a clock of its own.

use bridgehead::directory::commit::Commit;
use bridgehead::directory::context::{ContextRecord, contexts};
use bridgehead::directory::memory::MemoryStore;
use bridgehead::replication::engine::{Engine, EngineConfig, Event, Header, Input, Outcome, Output};
use jiff::Timestamp;

use super::dice::Dice;
use super::workload::Workload;

pub struct Site {
    pub name: String,
    pub config: EngineConfig,
    pub store: MemoryStore,
    pub engine: Engine,
    /// What this site's clock shows beyond the world's, in milliseconds.
    pub skew: i64,
    pub workload: Workload,
    pub crashes: u64,
    /// Its store was put back to an earlier day at least once.
    pub restored: bool,
}

/// Where a crash strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    No,
    /// The transaction is lost with everything in it.
    BeforeCommit,
    /// What was to be sent is lost.
    AfterCommit,
}

/// What came out of one input.
pub struct Came {
    pub mails: Vec<(String, u64, Vec<u8>)>,
    pub events: Vec<Event>,
    /// None: it crashed before the commit, as if it had never got the input.
    pub outcome: Option<Outcome>,
}

impl Site {
    pub fn new(config: EngineConfig, store: MemoryStore, workload: Workload, skew: i64) -> Site {
        let engine = Engine::new(config.clone());
        Site { name: config.site.clone(), config, store, engine, skew, workload, crashes: 0, restored: false }
    }

    pub fn clock(&self, now: i64) -> Timestamp {
        Timestamp::from_millisecond(now + self.skew).expect("a time of this millennium")
    }

    pub fn header(&self, now: i64, seq: u64) -> Header {
        Header { seq, time: self.clock(now), message_id: None }
    }

    /// The world's time at which the engine wants to be called.
    pub fn deadline(&self) -> Option<i64> {
        self.engine.deadline().map(|at| at.as_millisecond() - self.skew)
    }

    pub fn handle(&mut self, now: i64, input: Input, crash: Crash) -> Came {
        let clock = self.clock(now);
        let mut tx = self.store.begin();
        let outcome = self.engine.handle(&mut tx, clock, input).expect("the store in memory does not fail");
        match crash {
            Crash::No => tx.commit(),
            Crash::AfterCommit => {
                tx.commit();
                self.restart();
                return Came { mails: Vec::new(), events: Vec::new(), outcome: Some(outcome) };
            }
            Crash::BeforeCommit => {
                drop(tx);
                self.restart();
                return Came { mails: Vec::new(), events: Vec::new(), outcome: None };
            }
        }
        self.drain(outcome)
    }

    /// A new process on the same store. The caller lets it handle `Input::Start`.
    pub fn restart(&mut self) {
        self.engine = Engine::new(self.config.clone());
        self.crashes += 1;
    }

    /// One commit of this site's own naming context, and what the engine makes of it, in one transaction.
    /// None if it changes nothing or if the crash comes first.
    pub fn commit(&mut self, now: i64, dice: &mut Dice, bulk: u64, crash: Crash) -> Option<Came> {
        let clock = self.clock(now);
        let record = self.own();
        let before = self.workload.clone();
        let changes = if bulk > 0 { self.workload.bulk(dice, bulk) } else { self.workload.next(dice) };
        let mut tx = self.store.begin();
        let mut commit = Commit::begin(&mut tx, record.number, dice.bytes()).expect("the context is there");
        let refused = changes.iter().find_map(|change| commit.apply(change).err());
        if let Some(error) = refused {
            // Only a site whose history was put back may be surprised by what it holds.
            assert!(self.restored, "{}: a change is refused: {error}", self.name);
            drop(tx);
            self.workload.learn(&self.store, &record);
            return None;
        }
        commit.finish().expect("the workload's commit is sound")?;
        let word = Input::LocalCommit { context: record.number };
        let outcome = self.engine.handle(&mut tx, clock, word).expect("the store in memory does not fail");
        if crash == Crash::BeforeCommit {
            drop(tx);
            self.workload = before;
            self.restart();
            return None;
        }
        tx.commit();
        if crash == Crash::AfterCommit {
            self.restart();
        }
        Some(self.drain(outcome))
    }

    fn drain(&mut self, outcome: Outcome) -> Came {
        let (mut mails, mut events) = (Vec::new(), Vec::new());
        while let Some(output) = self.engine.output() {
            match output {
                Output::Mail { to, mail, payload, .. } => mails.push((to, mail, payload)),
                Output::Event(event) => events.push(event),
                Output::Card { .. } | Output::Introduced { .. } => {}
            }
        }
        Came { mails, events, outcome: Some(outcome) }
    }

    pub fn own(&self) -> ContextRecord {
        let all = contexts(&self.store).expect("the store is sound");
        all.into_iter().find(|record| record.master == self.name).expect("every site masters one context")
    }
}
