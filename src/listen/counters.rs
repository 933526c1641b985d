//! What happened, counted since the start: for `status` and metrics.
//!
//! PROMISES
//!   Every rule and limit has its counter from the start, at nought, so that an alert sees the first time, too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::refusal;

/// Counters of all listeners.
#[derive(Debug)]
pub struct Counters {
    sessions: AtomicU64,
    messages: AtomicU64,
    messages_refused: AtomicU64,
    octets: AtomicU64,
    intercepted: AtomicU64,
    intercepted_refused: AtomicU64,
    sessions_cut_off: AtomicU64,
    next_hop_refused_recipients: AtomicU64,
    refusals: BTreeMap<&'static str, AtomicU64>,
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
    /// Copies that replication took, and that it refused; one for each of its mailboxes.
    pub intercepted: u64,
    pub intercepted_refused: u64,
    /// Sessions that the end of draining cut off.
    pub sessions_cut_off: u64,
    /// Recipients that a next hop refused, in its own words.
    pub next_hop_refused_recipients: u64,
    /// Refusals of ours by rule or limit.
    pub refusals: BTreeMap<&'static str, u64>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            sessions: AtomicU64::default(),
            messages: AtomicU64::default(),
            messages_refused: AtomicU64::default(),
            octets: AtomicU64::default(),
            intercepted: AtomicU64::default(),
            intercepted_refused: AtomicU64::default(),
            sessions_cut_off: AtomicU64::default(),
            next_hop_refused_recipients: AtomicU64::default(),
            refusals: refusal::NAMES.iter().map(|name| (*name, AtomicU64::default())).collect(),
        }
    }
}

impl Counters {
    pub fn session(&self) {
        add(&self.sessions, 1);
    }

    pub fn message(&self, octets: u64, accepted: bool) {
        if accepted {
            add(&self.messages, 1);
            add(&self.octets, octets);
        } else {
            add(&self.messages_refused, 1);
        }
    }

    /// A copy that was given to replication.
    pub fn intercepted(&self, accepted: bool) {
        add(if accepted { &self.intercepted } else { &self.intercepted_refused }, 1);
    }

    pub fn cut_off(&self, sessions: usize) {
        add(&self.sessions_cut_off, sessions as u64);
    }

    pub fn next_hop_refused_recipient(&self) {
        add(&self.next_hop_refused_recipients, 1);
    }

    /// `rule`: a name of [`refusal::NAMES`].
    pub fn refused(&self, rule: &'static str) {
        if let Some(counter) = self.refusals.get(rule) {
            add(counter, 1);
        }
    }

    pub fn snapshot(&self) -> CountersSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            sessions: load(&self.sessions),
            messages: load(&self.messages),
            messages_refused: load(&self.messages_refused),
            octets: load(&self.octets),
            intercepted: load(&self.intercepted),
            intercepted_refused: load(&self.intercepted_refused),
            sessions_cut_off: load(&self.sessions_cut_off),
            next_hop_refused_recipients: load(&self.next_hop_refused_recipients),
            refusals: self.refusals.iter().map(|(name, counter)| (*name, load(counter))).collect(),
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
