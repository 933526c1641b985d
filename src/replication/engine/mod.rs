//! The replication engine: decides what to send, what to apply and when to speak next.
//!
//! PROMISES
//!   Pure: no sockets, files, clocks or randomness. Everything it must remember is in the store's
//!   tables, written in the caller's transaction, so that a crash between any two steps loses nothing
//!   but mail, and mail is allowed to be lost.
//!
//! USE
//!   `handle` one input within a transaction, commit it, then drain `output` and act on it. Call
//!   `handle(Input::Tick)` at `deadline`. After a transaction that was not committed, drop the engine and
//!   make a new one.

pub mod config;
pub mod interface;

use std::collections::VecDeque;

use jiff::Timestamp;

pub use config::{EngineConfig, KnownSite, Partner, Passage, Timing};
pub use interface::{BounceStatus, Event, Header, Input, Outcome, Output, Refusal, Shown};

use crate::directory::{StoreError, Write};

pub struct Engine {
    config: EngineConfig,
    outputs: VecDeque<Output>,
    deadline: Option<Timestamp>,
}

impl Engine {
    pub fn new(config: EngineConfig) -> Engine {
        Engine { config, outputs: VecDeque::new(), deadline: None }
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
        let _ = (tx, now, input, &self.config);
        Ok(Outcome::Taken)
    }

    /// The next thing to do, once the transaction is committed.
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle(Input::Tick)` next, if nothing happens before.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }
}
