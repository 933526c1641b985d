//! One simulated site: a store, the real engine on it, and a clock of its own.

use std::collections::BTreeSet;

use bridgehead::directory::Change;
use bridgehead::directory::commit::{ChangeError, Commit};
use bridgehead::directory::context::{ContextRecord, contexts};
use bridgehead::directory::memory::MemoryStore;
use bridgehead::replication::engine::{Engine, EngineConfig, Event, Header, Input, Outcome, Output};
use bridgehead::replication::wire::KeyId;
use jiff::Timestamp;

use super::dice::Dice;
use super::faulty::{Faulty, Written};
use super::identity::{Identity, Told};
use super::workload::Workload;

pub struct Site {
    pub name: String,
    /// As its operator has it at present.
    pub config: EngineConfig,
    /// As it is when every site knows every other.
    pub whole: EngineConfig,
    /// What it was called before.
    pub former_names: Vec<String>,
    /// Sites that it does not know yet, or not any more.
    pub unknown: BTreeSet<String>,
    pub store: MemoryStore,
    pub engine: Engine,
    /// What this site's clock shows beyond the world's, in milliseconds.
    pub skew: i64,
    pub workload: Workload,
    pub crashes: u64,
    /// What its store had to do for the engine.
    pub work: u64,
    /// Its store was put back to an earlier day at least once, or lives on twice.
    pub restored: bool,
    /// Its keys and cards; none in worlds in which those stay as they are.
    pub identity: Option<Identity>,
    /// Not installed yet: nobody reads its mail.
    pub asleep: bool,
}

/// Where a crash strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    No,
    /// The transaction is lost with everything in it.
    BeforeCommit,
    /// After so many writes the store refuses any other; if there are fewer, it refuses the commit.
    AtWrite(u64),
    /// What was to be sent is lost, but for the first so many mails.
    AfterCommit(usize),
}

/// What came out of one input.
#[derive(Default)]
pub struct Came {
    /// To whom, its number, what it says, and which key signs it.
    pub mails: Vec<(String, u64, Vec<u8>, KeyId)>,
    pub told: Vec<Told>,
    pub events: Vec<Event>,
    /// None: it crashed before the commit, as if it had never got the input.
    pub outcome: Option<Outcome>,
    /// The store refused a write and nobody said so.
    pub swallowed: bool,
    pub written: Written,
}

impl Crash {
    fn writes(self) -> u64 {
        match self {
            Crash::AtWrite(writes) => writes,
            Crash::No | Crash::BeforeCommit | Crash::AfterCommit(_) => u64::MAX,
        }
    }

    /// Whether the transaction is committed after all.
    fn commits(self) -> bool {
        matches!(self, Crash::No | Crash::AfterCommit(_))
    }
}

impl Site {
    pub fn new(config: EngineConfig, store: MemoryStore, workload: Workload, skew: i64) -> Site {
        Site {
            name: config.site.clone(),
            engine: Engine::new(config.clone()),
            whole: config.clone(),
            config,
            former_names: Vec::new(),
            unknown: BTreeSet::new(),
            store,
            skew,
            workload,
            crashes: 0,
            work: 0,
            restored: false,
            identity: None,
            asleep: false,
        }
    }

    pub fn clock(&self, now: i64) -> Timestamp {
        Timestamp::from_millisecond(now + self.skew).expect("a time of this millennium")
    }

    pub fn header(&self, now: i64, seq: u64) -> Header {
        Header { seq, time: self.clock(now), message_id: None }
    }

    /// The world's time at which the engine wants to be called.
    pub fn deadline(&self) -> Option<i64> {
        if self.asleep {
            return None;
        }
        self.engine.deadline().map(|at| at.as_millisecond() - self.skew)
    }

    pub fn handle(&mut self, now: i64, input: Input, crash: Crash) -> Came {
        let clock = self.clock(now);
        let mut tx = Faulty::new(self.store.begin(), crash.writes());
        let result = self.engine.handle(&mut tx, clock, input);
        let refused = tx.refused;
        self.work += tx.work();
        match result {
            Ok(outcome) if crash.commits() => {
                let written = tx.commit();
                let came = self.drain(outcome, written);
                self.crashed(crash, came)
            }
            Ok(_) => {
                drop(tx);
                self.restart();
                Came { swallowed: refused, ..Came::default() }
            }
            Err(error) => {
                assert!(refused, "{}: {error}", self.name);
                drop(tx);
                self.restart();
                Came::default()
            }
        }
    }

    fn crashed(&mut self, crash: Crash, mut came: Came) -> Came {
        if let Crash::AfterCommit(left) = crash {
            came.mails.truncate(left);
            came.told.clear();
            self.restart();
        }
        came
    }

    /// A new process on the same store. The caller lets it handle `Input::Start`.
    pub fn restart(&mut self) {
        self.engine = Engine::new(self.config.clone());
        self.crashes += 1;
    }

    /// The operator's configuration without the sites that it does not know.
    pub fn configure(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.describe(&mut self.whole);
        }
        let unknown = &self.unknown;
        self.config = self.whole.clone();
        self.config.partners.retain(|partner| !unknown.contains(&partner.site));
        self.restart();
    }

    /// One commit of this site's own naming context, and what the engine makes of it, in one transaction.
    /// None if it changes nothing or if the crash comes first.
    pub fn commit(&mut self, now: i64, dice: &mut Dice, bulk: u64, crash: Crash) -> Option<Came> {
        let clock = self.clock(now);
        let record = self.own();
        let before = self.workload.clone();
        let changes = if bulk > 0 { self.workload.bulk(dice, bulk) } else { self.workload.next(dice) };
        let mut tx = Faulty::new(self.store.begin(), crash.writes());
        let made = commit_all(&mut tx, record.number, dice.bytes(), &changes);
        let made = match made {
            Err(ChangeError::Refused { dn, reason, .. }) => {
                // Only a site whose history was put back may be surprised by what it holds.
                assert!(self.restored, "{}: a change of {dn} is refused: {reason}", self.name);
                drop(tx);
                self.workload.learn(&self.store, &record);
                return None;
            }
            Err(error) => {
                assert!(tx.refused, "{}: {error}", self.name);
                None
            }
            Ok(false) => return None,
            Ok(true) => {
                let word = Input::LocalCommit { context: record.number };
                self.engine.handle(&mut tx, clock, word).ok().filter(|_| crash.commits())
            }
        };
        let Some(outcome) = made else {
            drop(tx);
            self.workload = before;
            self.restart();
            return None;
        };
        let written = tx.commit();
        let came = self.drain(outcome, written);
        Some(self.crashed(crash, came))
    }

    /// One commit of these changes, which are sound.
    pub fn change(&mut self, now: i64, batch: [u8; 12], changes: &[Change]) -> Came {
        let (clock, record) = (self.clock(now), self.own());
        let mut tx = Faulty::new(self.store.begin(), u64::MAX);
        assert!(commit_all(&mut tx, record.number, batch, changes).expect("sound changes"));
        let word = Input::LocalCommit { context: record.number };
        let outcome = self.engine.handle(&mut tx, clock, word).expect("the store takes it");
        let written = tx.commit();
        self.drain(outcome, written)
    }

    fn drain(&mut self, outcome: Outcome, written: Written) -> Came {
        let (mut mails, mut events, mut told) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(output) = self.engine.output() {
            match output {
                Output::Mail { to, mail, payload, signer } => mails.push((to, mail, payload, signer)),
                Output::Event(event) => events.push(event),
                Output::Card { site, cards } => told.push(Told::Cards { site, cards }),
                Output::Introduced { by, introductions } => {
                    told.push(Told::Introductions { by, introductions });
                }
            }
        }
        Came { mails, told, events, outcome: Some(outcome), swallowed: false, written }
    }

    pub fn own(&self) -> ContextRecord {
        let all = contexts(&self.store).expect("the store is sound");
        all.into_iter().find(|record| record.master == self.name).expect("every site masters one context")
    }
}

/// Whether anything changed.
fn commit_all(
    tx: &mut Faulty<'_>,
    number: u32,
    batch: [u8; 12],
    changes: &[Change],
) -> Result<bool, ChangeError> {
    let mut commit = Commit::begin(tx, number, batch)?;
    changes.iter().try_for_each(|change| commit.apply(change))?;
    Ok(commit.finish()?.is_some())
}
