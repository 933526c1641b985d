//! The replication engine: decides what to send, what to apply and when to speak next.
//!
//! PROMISES
//!   Pure: no sockets, files, clocks or randomness. Everything it must remember is in the store's
//!   tables, written in the caller's transaction, so that a crash between any two steps loses nothing
//!   but mail, and mail is allowed to be lost.
//!   A replica changes only by a transfer whose result has the digest that the master of the naming
//!   context signed, whoever carried it; it never goes back in its master's history.
//!   Nothing but hello goes to a site that never answered. An idle link carries heartbeats only.
//!
//! USE
//!   `handle` one input within a transaction, commit it, then drain `output` and act on it. Call
//!   `handle(Input::Tick)` at `deadline`. After a transaction that was not committed, drop the engine and
//!   make a new one.
//!
//! ```text
//!   Received ─► inbound ─┬─► arrive (parts put together) ─► apply (transfers proved, applied)
//!                        ├─► compare (their vector against ours: behind, ahead, equal)
//!                        └─► serve   (what they ask for)
//!   Tick, LocalCommit ─► outbound (what is due) ─► compose (messages within the byte limit)
//! ```

pub mod apply;
mod arrive;
pub mod bundle;
pub mod compare;
pub mod compose;
pub mod config;
pub mod due;
pub mod hold;
pub mod inbound;
mod inbox;
pub mod interface;
mod oneway;
mod judge;
pub mod operator;
pub mod outbound;
pub mod quarantine;
mod records;
pub mod repair;
pub mod restore;
pub mod serve;
mod succession;
pub mod turn;
pub mod twin;

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use uuid::Uuid;

pub use config::{EngineConfig, FormerKey, KnownSite, Partner, Passage, PinnedCard, Succession, Timing};
pub use interface::{BounceStatus, Event, Header, Input, Outcome, Output, Refusal, Shown};

use super::peer::Millis;
use crate::directory::{StoreError, Write};
use config::Masters;
use records::Records;
use turn::Turn;

pub struct Engine {
    config: EngineConfig,
    masters: Masters,
    outputs: VecDeque<Output>,
    /// Our own naming contexts that have a new invocation id since the start.
    renewed: BTreeMap<u32, Uuid>,
    /// When to look at each site next; drawn from its record, never the only copy.
    due: BTreeMap<String, Millis>,
    records: Records,
}

impl Engine {
    pub fn new(config: EngineConfig) -> Engine {
        let masters = config.masters();
        Engine {
            config,
            masters,
            outputs: VecDeque::new(),
            renewed: BTreeMap::new(),
            due: BTreeMap::new(),
            records: Records::default(),
        }
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// A turn on everything that the engine has, and when each site is due, for the turn's end.
    fn begin<'t>(
        &'t mut self,
        tx: &'t mut dyn Write,
        now: Timestamp,
    ) -> Result<(Turn<'t>, &'t mut BTreeMap<String, Millis>), StoreError> {
        let Engine { config, masters, outputs, renewed, records, due } = self;
        let turn = Turn::begin(config, masters, outputs, renewed, records, tx, now.as_millisecond())?;
        Ok((turn, due))
    }

    /// Takes one input at the time `now`, writing what must be remembered into `tx`.
    ///
    /// # Errors
    /// The store's; the transaction must then be rolled back and the engine made anew.
    pub fn handle(
        &mut self,
        tx: &mut dyn Write,
        now: Timestamp,
        input: Input,
    ) -> Result<Outcome, StoreError> {
        let (mut turn, due) = self.begin(tx, now)?;
        let mut outcome = Outcome::Taken;
        match input {
            Input::Start => turn.start()?,
            Input::Tick => {}
            Input::Received { from, header, payload } => outcome = turn.receive(&from, header, &payload)?,
            Input::Refused { from, reason, mail, bytes } => {
                turn.keep_unproved(&from, &reason, &mail, bytes)?
            }
            Input::LocalCommit { context } => turn.committed(context)?,
            Input::Sent { to, mail } => turn.sent(&to, mail)?,
            Input::SendFailed { to, mail, reply, enhanced, text } => {
                turn.send_failed(&to, mail, reply, &enhanced, &text)?;
            }
            Input::Bounced { to, mail, status, enhanced, text } => {
                outcome = turn.bounced(&to, mail, status, &enhanced, &text)?;
            }
            Input::Refresh { site, context, dry_run } => {
                turn.refresh_from(site.as_deref(), context.as_deref(), dry_run)?;
            }
            Input::Forget { ids } => turn.forget_copies(&ids)?,
            Input::Release { id } => outcome = turn.take_again(&id)?,
            Input::Hold { hold, approve } => turn.decide(hold, approve)?,
            Input::Pause { site, paused } => turn.pause(&site, paused)?,
            Input::Detach { site, dry_run } => turn.detach(&site, dry_run)?,
            Input::Purge { site, dry_run } => turn.purge(&site, dry_run)?,
            Input::Sync { site } => turn.ask_all(site.as_deref())?,
            Input::Verify { site } => turn.verify_with(site.as_deref())?,
        }
        turn.speak_where_due(due)?;
        turn.end(due)?;
        Ok(outcome)
    }

    /// The messages of a bundle for a connected site: its first load by file. The rest is as with `handle`.
    ///
    /// # Errors
    /// The store's.
    pub fn bundle(
        &mut self,
        tx: &mut dyn Write,
        now: Timestamp,
        site: &str,
    ) -> Result<Vec<bundle::Bundled>, StoreError> {
        let (mut turn, due) = self.begin(tx, now)?;
        let messages = turn.bundle(site)?;
        turn.end(due)?;
        Ok(messages)
    }

    /// The next thing to do, once the transaction is committed.
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle(Input::Tick)` next, if nothing happens before.
    pub fn deadline(&self) -> Option<Timestamp> {
        let first = self.due.values().min()?;
        // A site for which nothing is due has a deadline out of time.
        Timestamp::from_millisecond(*first).ok()
    }
}
