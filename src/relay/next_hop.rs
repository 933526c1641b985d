//! One next hop: its idle connections, what it offers, and whether it is worth trying.
//!
//! PROMISES
//!   A connection that was found dead or spoke unasked is not given out. A dead next hop is passed over
//!   for a while that doubles, so that its alternatives carry the mail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{Connection, ConnectionError};
use super::counters::{Failure, HopCounters, HopSnapshot};
use crate::config::relay::{NextHopConfig, RelayLimits};
use crate::smtp::Extensions;

/// One next hop and its connections.
#[derive(Debug)]
pub struct NextHop {
    pub config: Arc<NextHopConfig>,
    /// Its host as the configuration has it, for the log.
    pub name: Box<str>,
    pub counters: Arc<HopCounters>,
    idle: Mutex<Vec<Idle>>,
    /// The right to use a connection. An idle one needs none, so that whoever waits gets it.
    permits: Arc<Semaphore>,
    extensions: ArcSwapOption<Extensions>,
    health: Mutex<Health>,
}

/// A connection in use, and the next hop that it goes back to.
#[derive(Debug)]
pub struct Lease {
    pub connection: Connection,
    pub next_hop: Arc<NextHop>,
    permit: OwnedSemaphorePermit,
    /// It goes back there rather than to the pool.
    owner: Option<Owned>,
}

/// Where the connection waits that one session owns, since its client authenticated on it.
#[derive(Clone, Debug, Default)]
pub struct Owned(Arc<Mutex<Option<(Connection, OwnedSemaphorePermit)>>>);

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    not_before: Option<Instant>,
}

impl NextHop {
    pub fn new(config: Arc<NextHopConfig>, counters: Arc<HopCounters>) -> Arc<NextHop> {
        Arc::new(NextHop {
            counters,
            name: config.host.to_string().into(),
            permits: Arc::new(Semaphore::new(config.connections_max)),
            config,
            idle: Mutex::default(),
            extensions: ArcSwapOption::empty(),
            health: Mutex::default(),
        })
    }

    /// What it offered last; `None` before it was ever reached.
    pub fn extensions(&self) -> Option<Arc<Extensions>> {
        self.extensions.load_full()
    }

    pub fn learn(&self, extensions: &Arc<Extensions>) {
        self.extensions.store(Some(extensions.clone()));
    }

    /// The right to use one connection, for which one may have to wait.
    pub async fn permit(&self, patience: Duration) -> Option<OwnedSemaphorePermit> {
        match self.permits.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => tokio::time::timeout(patience, self.permits.clone().acquire_owned()).await.ok()?.ok(),
        }
    }

    /// An idle connection, the one used last first, so that the others may go.
    pub fn take_idle(&self, idle_max: Duration) -> Option<Connection> {
        loop {
            let mut idle = self.idle().pop()?;
            if idle.since.elapsed() >= idle_max {
                self.counters.closed_idle();
                continue;
            }
            if idle.connection.is_quiet() {
                idle.connection.mark_reused();
                self.counters.reused();
                return Some(idle.connection);
            }
        }
    }

    /// What it is doing and what happened at it.
    pub fn snapshot(&self) -> HopSnapshot {
        let busy = self.config.connections_max.saturating_sub(self.permits.available_permits());
        HopSnapshot {
            busy: busy as u64,
            idle: self.idle().len() as u64,
            backed_off: self.is_backed_off(),
            ..self.counters.snapshot(self.config.host.to_string())
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lease(self: &Arc<NextHop>, connection: Connection, permit: OwnedSemaphorePermit) -> Lease {
        Lease { connection, next_hop: self.clone(), permit, owner: None }
    }

    /// Closes connections that were idle for too long; tells how many are left.
    pub fn sweep(&self, idle_max: Duration) -> usize {
        let mut idle = self.idle();
        idle.retain_mut(|i| {
            let quiet = i.connection.is_quiet();
            let young = i.since.elapsed() < idle_max;
            if quiet && !young {
                self.counters.closed_idle();
                i.connection.say_goodbye();
            }
            quiet && young
        });
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
        idle.len()
    }

    /// Whether it failed so lately that an alternative is preferred.
    pub fn is_backed_off(&self) -> bool {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.not_before.is_some_and(|instant| Instant::now() < instant)
    }

    pub fn succeeded(&self) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = Health::default();
    }

    pub fn failed(&self, limits: &RelayLimits) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = limits.back_off_min.saturating_mul(1 << health.failures.min(16)).min(limits.back_off_max);
        health.failures += 1;
        self.counters.backed_off();
        health.not_before = Some(Instant::now() + pause);
    }
}

impl Lease {
    /// Counts what went wrong with the connection.
    pub fn failed(&self, error: &ConnectionError) {
        self.next_hop.counters.failed(Failure::from(error));
    }

    /// Gives the connection back for reuse. Only between transactions, or with `needs_reset` set.
    pub fn release(self) {
        let Lease { mut connection, next_hop, permit, owner } = self;
        if !connection.is_quiet() {
            return;
        }
        match owner {
            Some(owner) => *owner.slot() = Some((connection, permit)),
            None => next_hop.idle().push(Idle { connection, since: Instant::now() }),
        }
    }

    /// Takes the connection out of the pool's hands for good.
    pub fn own(mut self) -> Owned {
        let owned = Owned::default();
        self.owner = Some(owned.clone());
        self.release();
        owned
    }
}

impl Owned {
    fn slot(&self) -> MutexGuard<'_, Option<(Connection, OwnedSemaphorePermit)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, for one transaction; `None` once it was lost.
    pub fn take(&self, next_hop: &Arc<NextHop>) -> Option<Lease> {
        let (connection, permit) = self.slot().take()?;
        Some(Lease { connection, next_hop: next_hop.clone(), permit, owner: Some(self.clone()) })
    }

    /// Whether it is there, as far as is known.
    pub fn is_quiet(&self) -> bool {
        self.slot().as_mut().is_some_and(|(connection, _)| connection.is_quiet())
    }
}
