//! What happened at the next hops, counted since the start: for `status` and metrics.
//!
//! LIMITS
//!   Mail exchangers found by MX share one set of counters: their number is for the senders of mail to choose.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::ConnectionError;
use super::dial::DialError;

/// Counters of one next hop.
#[derive(Debug, Default)]
pub struct HopCounters {
    connects: AtomicU64,
    reuses: AtomicU64,
    closed_idle: AtomicU64,
    back_offs: AtomicU64,
    failures: [AtomicU64; FAILURES.len()],
}

/// One next hop at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HopSnapshot {
    pub next_hop: String,
    /// Connections that carry a transaction now, and those kept for the next.
    pub busy: u64,
    pub idle: u64,
    /// It is passed over until its back-off is over.
    pub backed_off: bool,
    /// Connections made, and transactions that needed none.
    pub connects: u64,
    pub reuses: u64,
    /// Connections closed because nobody used them.
    pub closed_idle: u64,
    pub back_offs: u64,
    /// What went wrong, by the names of [`Failure`].
    pub failures: BTreeMap<&'static str, u64>,
}

/// What may go wrong at a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, no greeting, no TLS.
    Unreachable,
    /// All its connections are in use, for longer than a client is to wait.
    Busy,
    /// It answered no command in time.
    Silent,
    /// It did not answer the final dot in time.
    SilentAtDot,
    /// The connection ended in the middle.
    Lost,
    /// What it said is no reply, or too long.
    Garbage,
    /// It replied before its turn.
    Early,
}

const FAILURES: [(Failure, &str); 7] = [
    (Failure::Unreachable, "unreachable"),
    (Failure::Busy, "busy"),
    (Failure::Silent, "silent"),
    (Failure::SilentAtDot, "silent_at_dot"),
    (Failure::Lost, "lost"),
    (Failure::Garbage, "garbage"),
    (Failure::Early, "early"),
];

impl From<&ConnectionError> for Failure {
    fn from(error: &ConnectionError) -> Failure {
        match error {
            ConnectionError::Lost(_) | ConnectionError::Closed => Failure::Lost,
            ConnectionError::Silent(_) => Failure::Silent,
            ConnectionError::SilentAtDot(_) => Failure::SilentAtDot,
            ConnectionError::Garbage(_) => Failure::Garbage,
            ConnectionError::Early(_) => Failure::Early,
        }
    }
}

impl From<&DialError> for Failure {
    fn from(error: &DialError) -> Failure {
        match error {
            DialError::Busy(_) => Failure::Busy,
            _ => Failure::Unreachable,
        }
    }
}

impl HopSnapshot {
    /// Adds another's counts to these.
    pub fn merge(&mut self, other: &HopSnapshot) {
        self.busy += other.busy;
        self.idle += other.idle;
        self.backed_off |= other.backed_off;
        self.connects += other.connects;
        self.reuses += other.reuses;
        self.closed_idle += other.closed_idle;
        self.back_offs += other.back_offs;
        for (name, count) in &other.failures {
            *self.failures.entry(name).or_default() += count;
        }
    }
}

impl HopCounters {
    pub fn connected(&self) {
        add(&self.connects, 1);
    }

    pub fn reused(&self) {
        add(&self.reuses, 1);
    }

    pub fn closed_idle(&self) {
        add(&self.closed_idle, 1);
    }

    pub fn backed_off(&self) {
        add(&self.back_offs, 1);
    }

    pub fn failed(&self, failure: Failure) {
        let at = FAILURES.iter().position(|(known, _)| *known == failure);
        if let Some(counter) = at.and_then(|at| self.failures.get(at)) {
            add(counter, 1);
        }
    }

    /// Without what only the next hop itself knows.
    pub fn snapshot(&self, next_hop: String) -> HopSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HopSnapshot {
            next_hop,
            connects: load(&self.connects),
            reuses: load(&self.reuses),
            closed_idle: load(&self.closed_idle),
            back_offs: load(&self.back_offs),
            failures: FAILURES.iter().zip(&self.failures).map(|((_, name), n)| (*name, load(n))).collect(),
            ..HopSnapshot::default()
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
