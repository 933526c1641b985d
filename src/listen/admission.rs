//! Who may come in, how many and how often.
//!
//! PROMISES
//!   Counts are of open connections; they fall when a connection ends, however it ends. Trusted networks are
//!   bound only by the limit on all connections.
//!
//! LIMITS
//!   A client network is /32 or /64. At most `NETWORKS_MAX` of them are remembered for rates.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client::Client;
use super::refusal::Refusal;
use crate::config::relay::{Network, RelayConfig};

/// The gate of all listeners.
#[derive(Debug, Default)]
pub struct Admission {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    networks: HashMap<u128, Usage>,
}

#[derive(Debug)]
struct Usage {
    open: usize,
    since: Instant,
    connections: u32,
    messages: u32,
}

/// One admitted connection; counts as long as it lives.
#[derive(Debug)]
pub struct Admitted {
    gate: Arc<Admission>,
    network: Option<u128>,
}

impl Admission {
    /// Lets a connection in, or says which limit it would pass.
    pub fn connection(
        self: &Arc<Admission>,
        ip: Option<IpAddr>,
        config: &RelayConfig,
    ) -> Result<Admitted, Refusal> {
        let limits = &config.limits;
        let mut state = self.state();
        if state.open >= limits.connections_max {
            return Err(Refusal::TooManyConnections);
        }
        let trusted = ip.is_none_or(|ip| config.trusted_networks.iter().any(|network| network.contains(ip)));
        let network = ip.filter(|_| !trusted).map(|ip| Network::of(ip, 32, 64));
        if let Some(network) = network {
            state.make_room();
            let usage = state.usage(network);
            if usage.open >= limits.connections_per_network_max {
                return Err(Refusal::TooManyOfNetwork);
            }
            let max = limits.connections_per_minute_max;
            if max != 0 && usage.connections >= max {
                return Err(Refusal::ConnectionRate);
            }
            usage.open += 1;
            usage.connections += 1;
        }
        state.open += 1;
        Ok(Admitted { gate: self.clone(), network })
    }

    /// Whether the client may send one more message this minute.
    pub fn message(&self, client: &Client, config: &RelayConfig) -> bool {
        let max = config.limits.messages_per_minute_max;
        let Some(address) = client.address.filter(|_| max != 0) else {
            return true;
        };
        if client.is_within(&config.trusted_networks) {
            return true;
        }
        let mut state = self.state();
        let usage = state.usage(Network::of(address.ip(), 32, 64));
        usage.messages += 1;
        usage.messages <= max
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.state().open
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The usage of a network, its minute begun anew where it is over.
    fn usage(&mut self, network: u128) -> &mut Usage {
        let now = Instant::now();
        let usage = self.networks.entry(network).or_insert(Usage {
            open: 0,
            since: now,
            connections: 0,
            messages: 0,
        });
        if now.duration_since(usage.since) >= MINUTE {
            (usage.since, usage.connections, usage.messages) = (now, 0, 0);
        }
        usage
    }

    fn make_room(&mut self) {
        if self.networks.len() >= NETWORKS_MAX {
            self.networks.retain(|_, usage| usage.open > 0 || usage.since.elapsed() < MINUTE);
        }
        if self.networks.len() >= NETWORKS_MAX {
            self.networks.retain(|_, usage| usage.open > 0);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.open = state.open.saturating_sub(1);
        if let Some(usage) = self.network.and_then(|network| state.networks.get_mut(&network)) {
            usage.open = usage.open.saturating_sub(1);
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const NETWORKS_MAX: usize = 65536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::relay::RelayLimits;

    fn config(limits: RelayLimits) -> RelayConfig {
        RelayConfig { limits, ..RelayConfig::default() }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn connections_are_counted_while_they_are_open() {
        let gate = Arc::new(Admission::default());
        let config =
            config(RelayLimits { connections_max: 3, connections_per_network_max: 1, ..Default::default() });
        let first = gate.connection(ip("192.0.2.1"), &config).unwrap();
        assert_eq!(gate.connection(ip("192.0.2.1"), &config).unwrap_err(), Refusal::TooManyOfNetwork);
        let _second = gate.connection(ip("192.0.2.2"), &config).unwrap();
        let _third = gate.connection(ip("127.0.0.1"), &config).unwrap();
        assert_eq!(gate.connection(ip("127.0.0.1"), &config).unwrap_err(), Refusal::TooManyConnections);
        drop(first);
        assert!(gate.connection(ip("192.0.2.1"), &config).is_ok());
        assert_eq!(gate.open(), 2);
    }

    #[test]
    fn rates_bind_strangers_only() {
        let gate = Arc::new(Admission::default());
        let config = config(RelayLimits {
            connections_per_minute_max: 2,
            messages_per_minute_max: 1,
            ..Default::default()
        });
        for _ in 0..2 {
            drop(gate.connection(ip("2001:db8::1"), &config).unwrap());
        }
        assert_eq!(gate.connection(ip("2001:db8::2"), &config).unwrap_err(), Refusal::ConnectionRate);
        assert!(gate.connection(ip("2001:db8:1::1"), &config).is_ok());
        let stranger = Client::new(Some("192.0.2.1:1".parse().unwrap()));
        assert!(gate.message(&stranger, &config) && !gate.message(&stranger, &config));
        let own = Client::new(Some("127.0.0.1:1".parse().unwrap()));
        assert!(gate.message(&own, &config) && gate.message(&own, &config));
    }
}
