//! What happened, counted since the start: for `status` and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters of all listeners.
#[derive(Debug, Default)]
pub struct Counters {
    sessions: AtomicU64,
    messages: AtomicU64,
    messages_refused: AtomicU64,
    octets: AtomicU64,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CountersSnapshot {
    pub sessions: u64,
    /// Messages with a positive final reply.
    pub messages: u64,
    pub messages_refused: u64,
    /// Octets of messages with a positive final reply.
    pub octets: u64,
    /// Refusals of ours by rule or limit.
    pub refusals: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub fn session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub fn message(&self, octets: u64, accepted: bool) {
        if accepted {
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.octets.fetch_add(octets, Ordering::Relaxed);
        } else {
            self.messages_refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn refused(&self, rule: &'static str) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(rule).or_default() += 1;
    }

    pub fn snapshot(&self) -> CountersSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            sessions: load(&self.sessions),
            messages: load(&self.messages),
            messages_refused: load(&self.messages_refused),
            octets: load(&self.octets),
            refusals: self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
