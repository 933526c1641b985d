//! What happened in replication, counted since the start: for `status` and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::{Timestamp, Unit};

use super::events;
use crate::replication::engine::Event;

/// Counters of one site's replication.
#[derive(Debug)]
pub struct ReplicationCounters {
    mail: [AtomicU64; MAIL.len()],
    octets_in: AtomicU64,
    octets_out: AtomicU64,
    parts_sent: AtomicU64,
    parts_resent: AtomicU64,
    events: BTreeMap<&'static str, AtomicU64>,
    store_failures: AtomicU64,
    store_failed: Mutex<Option<StoreFailed>>,
}

/// When the store failed last. It cannot say so itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StoreFailed {
    /// RFC 3339, UTC.
    pub at: String,
    /// For people.
    pub failure: String,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReplicationSnapshot {
    /// Replication mail by what became of it.
    pub mail: BTreeMap<&'static str, u64>,
    /// Octets of mail that was taken, and that the next hop took.
    pub octets_in: u64,
    pub octets_out: u64,
    pub parts_sent: u64,
    pub parts_resent: u64,
    /// The engine's events by the names that they have in the log.
    pub events: BTreeMap<&'static str, u64>,
    /// Transactions of which nothing was kept.
    pub store_failures: u64,
    pub store_failed: Option<StoreFailed>,
}

/// What became of one replication mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mail {
    Taken,
    Repeated,
    Refused,
    /// Not taken for trouble of ours; its sender keeps it.
    Deferred,
    Bounce,
    Sent,
    NotSent,
}

const MAIL: [(Mail, &str); 7] = [
    (Mail::Taken, "taken"),
    (Mail::Repeated, "repeated"),
    (Mail::Refused, "refused"),
    (Mail::Deferred, "deferred"),
    (Mail::Bounce, "bounce"),
    (Mail::Sent, "sent"),
    (Mail::NotSent, "not_sent"),
];

impl Default for ReplicationCounters {
    fn default() -> ReplicationCounters {
        ReplicationCounters {
            mail: Default::default(),
            octets_in: AtomicU64::default(),
            octets_out: AtomicU64::default(),
            parts_sent: AtomicU64::default(),
            parts_resent: AtomicU64::default(),
            events: events::NAMES.iter().map(|name| (*name, AtomicU64::default())).collect(),
            store_failures: AtomicU64::default(),
            store_failed: Mutex::default(),
        }
    }
}

impl ReplicationCounters {
    pub fn mail(&self, became: Mail, octets: usize) {
        if let Some(at) = MAIL.iter().position(|(known, _)| *known == became) {
            add(&self.mail[at], 1);
        }
        match became {
            Mail::Taken => add(&self.octets_in, octets as u64),
            Mail::Sent => add(&self.octets_out, octets as u64),
            _ => {}
        }
    }

    pub fn event(&self, event: &Event) {
        if let Some(counter) = self.events.get(events::name(event)) {
            add(counter, 1);
        }
        match event {
            Event::TransferSent { parts, .. } => add(&self.parts_sent, u64::from(*parts)),
            Event::Resent { parts, .. } => add(&self.parts_resent, u64::from(*parts)),
            _ => {}
        }
    }

    pub fn store_failed(&self, failure: String) {
        add(&self.store_failures, 1);
        let now = Timestamp::now();
        let at = now.round(Unit::Millisecond).unwrap_or(now).to_string();
        let failed = StoreFailed { at, failure };
        *self.store_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
    }

    pub fn snapshot(&self) -> ReplicationSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReplicationSnapshot {
            mail: MAIL.iter().zip(&self.mail).map(|((_, name), count)| (*name, load(count))).collect(),
            octets_in: load(&self.octets_in),
            octets_out: load(&self.octets_out),
            parts_sent: load(&self.parts_sent),
            parts_resent: load(&self.parts_resent),
            events: self.events.iter().map(|(name, count)| (*name, load(count))).collect(),
            store_failures: load(&self.store_failures),
            store_failed: self.store_failed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
