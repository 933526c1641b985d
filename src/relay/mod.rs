//! The way onward: next hops, their connections, the client side of the dialogue.
//!
//! PROMISES
//!   Custody-free: nothing here accepts a message; what is reported is the next hop's own reply. A connection is replaced by another
//!   only while no octet of a message was sent.

pub mod connection;
pub mod counters;
pub mod dial;
pub mod mx;
pub mod next_hop;
pub mod patience;
pub mod stream;
pub mod submit;
pub mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tracing::{debug, warn};

use crate::config::relay::{NextHopConfig, NextHopHost, RelayConfig};
use crate::route::{Onward, RouteTable};

use counters::{Failure, HopCounters, HopSnapshot};
use dial::DialError;
use next_hop::{Lease, NextHop};

/// The next hops and the connections to them; one for the whole process, shared by all sessions.
#[derive(Debug)]
pub struct Relay {
    settings: ArcSwap<Settings>,
    next_hops: Mutex<HashMap<Arc<NextHopConfig>, Arc<NextHop>>>,
    /// Of the mail exchangers, all together.
    exchanger_counters: Arc<HopCounters>,
    tls: tls::ClientTls,
}

/// One configuration and what is computed from it. A session takes the current one at each transaction.
#[derive(Debug)]
pub struct Settings {
    pub config: Arc<RelayConfig>,
    pub routes: RouteTable,
    /// All next hops by name or address, once each.
    pub next_hops: Vec<Arc<NextHopConfig>>,
    /// Some mail goes to mail exchangers, which are not known beforehand.
    pub by_mx: bool,
    /// What DNS said under this configuration, while it may be believed.
    pub names: mx::MailExchangers,
}

/// Why a message of our own could not be handed to the next hop. In each case nothing was accepted.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The configuration has no route for the forward path.
    #[error("no route to {0}")]
    NoRoute(String),
    /// No next hop could be reached, or it went away before its reply; try again later.
    #[error("the next hop is not available: {0}")]
    Unavailable(String),
}

/// No next hop can be reached; the last one's reason.
#[derive(Debug, Error)]
#[error("{next_hop}: {reason}")]
pub struct Unavailable {
    pub next_hop: String,
    pub reason: DialError,
}

impl Relay {
    /// With the system's trust roots for `tls = verify`.
    pub fn new(config: Arc<RelayConfig>) -> Arc<Relay> {
        Relay::with_tls(config, tls::ClientTls::new())
    }

    pub fn with_tls(config: Arc<RelayConfig>, tls: tls::ClientTls) -> Arc<Relay> {
        let relay = Arc::new(Relay {
            settings: ArcSwap::from_pointee(Settings::new(config)),
            next_hops: Mutex::default(),
            exchanger_counters: Arc::default(),
            tls,
        });
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(tend(Arc::downgrade(&relay)));
        }
        relay
    }

    /// The configuration in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Puts another configuration in force. Sessions take it up with their next transaction; connections to
    /// next hops that both configurations have are kept.
    pub fn reconfigure(&self, config: Arc<RelayConfig>) {
        let settings = Settings::new(config);
        self.hops().retain(|config, _| settings.next_hops.contains(config));
        self.settings.store(Arc::new(settings));
    }

    /// The state of one next hop, created when it is first asked for.
    pub fn next_hop(&self, config: &Arc<NextHopConfig>) -> Arc<NextHop> {
        let mut hops = self.hops();
        if let Some(hop) = hops.get(config) {
            return hop.clone();
        }
        let counters = match self.settings.load().next_hops.contains(config) {
            true => Arc::default(),
            false => self.exchanger_counters.clone(),
        };
        hops.entry(config.clone()).or_insert_with(|| NextHop::new(config.clone(), counters)).clone()
    }

    /// What happened at each configured next hop, and at all mail exchangers together, as `mx`.
    pub fn snapshot(&self) -> Vec<HopSnapshot> {
        let settings = self.settings();
        let (mut all, mut exchangers) = (Vec::new(), self.exchanger_counters.snapshot("mx".into()));
        for (config, hop) in self.hops().iter() {
            let snapshot = hop.snapshot();
            if settings.next_hops.contains(config) {
                all.push(snapshot);
            } else {
                exchangers.busy += snapshot.busy;
                exchangers.idle += snapshot.idle;
            }
        }
        for config in &settings.next_hops {
            // One that was never asked for counts, too.
            let next_hop = config.host.to_string();
            if !all.iter().any(|hop| hop.next_hop == next_hop) {
                all.push(HopCounters::default().snapshot(next_hop));
            }
        }
        all.push(exchangers);
        all.sort_by(|a, b| a.next_hop.cmp(&b.next_hop));
        // The same host with different settings is one for whoever reads this.
        all.dedup_by(|again, first| {
            first.next_hop == again.next_hop && {
                first.merge(again);
                true
            }
        });
        all
    }

    /// A connection to the first next hop that can be reached and was not `tried` in vain: a pooled one or, if
    /// `fresh`, a new one.
    pub async fn acquire(
        &self,
        settings: &Settings,
        onward: &Onward,
        fresh: bool,
        tried: &[Arc<NextHop>],
    ) -> Result<Lease, Unavailable> {
        let mut hops = self.candidates(settings, onward).await?;
        hops.retain(|hop| !tried.iter().any(|tried| Arc::ptr_eq(hop, tried)));
        if let [only] = &hops[..] {
            let failed = |reason| Unavailable { next_hop: only.config.host.to_string(), reason };
            return self.lease(only, settings, fresh).await.map_err(failed);
        }
        // Those that failed lately come last; where all did, the order is as configured.
        let (rested, backed_off): (Vec<_>, Vec<_>) = hops.into_iter().partition(|hop| !hop.is_backed_off());
        let mut failure = None;
        for hop in rested.into_iter().chain(backed_off) {
            match self.lease(&hop, settings, fresh).await {
                Ok(lease) => return Ok(lease),
                Err(reason) => {
                    failure = Some(Unavailable { next_hop: hop.config.host.to_string(), reason });
                }
            }
        }
        Err(failure.unwrap_or_else(|| Unavailable {
            next_hop: "none".into(),
            reason: DialError::NoAddress("the address space".into()),
        }))
    }

    /// The next hops in order, the mail exchangers of the domain in place of `mx`.
    async fn candidates(
        &self,
        settings: &Settings,
        onward: &Onward,
    ) -> Result<Vec<Arc<NextHop>>, Unavailable> {
        let mut hops = Vec::with_capacity(onward.next_hops.len());
        for config in &onward.next_hops {
            let (NextHopHost::Mx(port), Some(domain)) = (&config.host, &onward.mx_domain) else {
                hops.push(self.next_hop(config));
                continue;
            };
            let own = &settings.config.hostname;
            let hosts = settings.names.of(domain, own, settings.config.limits.connect_timeout).await;
            let hosts =
                hosts.map_err(|reason| Unavailable { next_hop: format!("mx of {domain}"), reason })?;
            for host in hosts {
                let host = match host.parse() {
                    Ok(ip) => NextHopHost::Address(SocketAddr::new(ip, *port)),
                    Err(_) => NextHopHost::Name(host, *port),
                };
                hops.push(self.next_hop(&Arc::new(NextHopConfig { host, ..(**config).clone() })));
            }
        }
        Ok(hops)
    }

    async fn lease(&self, hop: &Arc<NextHop>, settings: &Settings, fresh: bool) -> Result<Lease, DialError> {
        let limits = &settings.config.limits;
        let permit = hop.permit(limits.connect_timeout).await;
        let Some(permit) = permit else {
            let busy = DialError::Busy(hop.config.connections_max);
            hop.counters.failed(Failure::from(&busy));
            return Err(busy);
        };
        let idle = if fresh { None } else { hop.take_idle(limits.pool_idle) };
        if let Some(connection) = idle {
            return Ok(hop.lease(connection, permit));
        }
        match dial::dial(&hop.config, &settings.config, &settings.names, &self.tls).await {
            Ok(connection) => {
                hop.counters.connected();
                hop.learn(connection.extensions());
                debug!(target: "bridgehead::relay", next_hop = %hop.config.host, "connected");
                Ok(hop.lease(connection, permit))
            }
            Err(reason) => {
                warn!(target: "bridgehead::relay", next_hop = %hop.config.host, %reason, "next hop is away");
                hop.failed(limits);
                hop.counters.failed(Failure::from(&reason));
                Err(reason)
            }
        }
    }

    /// Reaches a next hop whose extensions are not known yet, within `patience`, so that our EHLO can offer what it does.
    pub async fn probe(&self, settings: &Settings, config: &Arc<NextHopConfig>, patience: Duration) {
        let hop = self.next_hop(config);
        if hop.extensions().is_some() || hop.is_backed_off() {
            return;
        }
        match tokio::time::timeout(patience, self.lease(&hop, settings, false)).await {
            Ok(Ok(lease)) => lease.release(),
            Ok(Err(_)) => {}
            // The next client shall not wait for it again.
            Err(_) => hop.failed(&settings.config.limits),
        }
    }

    /// Closes connections that were idle for too long and forgets mail exchangers that nobody writes to: they come and go
    /// with the domains. Configured next hops stay, and so does who is backed off, until that is over.
    fn sweep(&self) {
        let settings = self.settings();
        let idle_max = settings.config.limits.pool_idle;
        self.hops().retain(|config, hop| {
            let idle = hop.sweep(idle_max);
            let in_use = idle > 0 || Arc::strong_count(hop) > 1;
            in_use || hop.is_backed_off() || settings.next_hops.contains(config)
        });
    }

    /// Closes idle connections.
    pub fn close_idle(&self) {
        for hop in self.hops().values() {
            hop.sweep(Duration::ZERO);
        }
    }

    fn hops(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<NextHopConfig>, Arc<NextHop>>> {
        self.next_hops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    pub fn new(config: Arc<RelayConfig>) -> Settings {
        let routes = RouteTable::new(&config);
        let mut next_hops = routes.next_hops();
        let all = next_hops.len();
        next_hops.retain(|hop| !matches!(hop.host, NextHopHost::Mx(_)));
        let by_mx = next_hops.len() < all;
        let names = mx::MailExchangers::new(config.dns_servers.clone());
        Settings { config, routes, next_hops, by_mx, names }
    }
}

/// Sweeps while the relay lives.
async fn tend(relay: Weak<Relay>) {
    loop {
        tokio::time::sleep(TEND_EVERY).await;
        let Some(relay) = relay.upgrade() else { return };
        relay.sweep();
    }
}

const TEND_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::relay::{RelayLimits, RouteConfig};

    #[test]
    fn an_exchanger_that_is_backed_off_is_remembered_until_that_is_over() {
        let by_mx = NextHopConfig::to(NextHopHost::Mx(25));
        let pause = Duration::from_millis(200);
        let limits = RelayLimits { back_off_min: pause, back_off_max: pause, ..RelayLimits::default() };
        let routes = vec![RouteConfig::default_to(by_mx)];
        let relay = Relay::new(Arc::new(RelayConfig { routes, limits, ..RelayConfig::default() }));
        let exchanger = |name: &str| Arc::new(NextHopConfig::to(NextHopHost::Name(name.into(), 25)));
        let (dead, idle) = (exchanger("dead.example"), exchanger("idle.example"));
        relay.next_hop(&idle);
        relay.next_hop(&dead).failed(&relay.settings().config.limits);
        relay.sweep();
        assert!(!relay.hops().contains_key(&idle));
        assert!(relay.next_hop(&dead).is_backed_off(), "the next message would wait for it again");
        std::thread::sleep(pause);
        relay.sweep();
        assert!(relay.hops().is_empty(), "nobody asked for it since");
    }
}
