//! The mail exchangers of a domain, and the addresses of hosts.
//!
//! STANDARDS
//!   RFC 5321 section 5.1 (order, at random among equals, implicit MX, not to ourselves), RFC 7505 (null MX).
//!
//! FAILURE
//!   A domain that does not exist, has neither MX nor address or takes no mail is the sender's fault, where DNS says so;
//!   everything else that DNS can do is temporary.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use super::dial::DialError;

/// Looks mail exchangers up, at the configured servers or else as the system does.
#[derive(Default)]
pub struct MailExchangers {
    /// None: those that the system names.
    servers: Vec<SocketAddr>,
    resolver: OnceLock<Option<TokioResolver>>,
}

impl std::fmt::Debug for MailExchangers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MailExchangers")
    }
}

impl MailExchangers {
    /// With these DNS servers; with none, as the system does.
    pub fn new(servers: Vec<SocketAddr>) -> MailExchangers {
        MailExchangers { servers, resolver: OnceLock::new() }
    }

    /// The hosts to try for a domain, in order. `own`: our name, to which nothing is sent again.
    pub async fn of(&self, domain: &str, own: &str, patience: Duration) -> Result<Vec<String>, DialError> {
        // An address literal is its own host.
        if let Some(literal) = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']')) {
            let text = literal
                .get(..5)
                .filter(|p| p.eq_ignore_ascii_case("ipv6:"))
                .map_or(literal, |_| &literal[5..]);
            return match text.parse::<IpAddr>() {
                Ok(ip) => Ok(vec![ip.to_string()]),
                Err(_) => Err(DialError::NoDomain(domain.to_owned())),
            };
        }
        let absolute = format!("{domain}.");
        match tokio::time::timeout(patience, self.resolver()?.mx_lookup(absolute)).await {
            Err(_) => {
                let waited = patience.as_secs();
                Err(DialError::NoAddress(format!("{domain}: no answer from DNS within {waited} s")))
            }
            Ok(Ok(lookup)) => {
                let records = lookup.answers().iter().filter_map(|record| match &record.data {
                    RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                    _ => None,
                });
                let mut records: Vec<_> = records.collect();
                // Among those of equal preference the load is to be spread.
                records.sort_by_cached_key(|_| getrandom::u32().unwrap_or_default());
                order(domain, records, own)
            }
            Ok(Err(error)) if error.is_nx_domain() => Err(DialError::NoDomain(domain.to_owned())),
            Ok(Err(error)) if error.is_no_records_found() => self.implicit(domain, patience).await,
            Ok(Err(error)) => Err(DialError::NoAddress(format!("{domain}: {error}"))),
        }
    }

    /// Without MX a domain is its own exchanger, if it is a host at all. Only what DNS says for certain counts against
    /// it, and not where the system knows better (`/etc/hosts`).
    async fn implicit(&self, domain: &str, patience: Duration) -> Result<Vec<String>, DialError> {
        let resolver = self.resolver()?;
        let absolute = format!("{domain}.");
        let asked =
            async { tokio::join!(resolver.ipv4_lookup(&*absolute), resolver.ipv6_lookup(&*absolute)) };
        let no_host = match tokio::time::timeout(patience, asked).await {
            Ok((Err(v4), Err(v6))) => v4.is_no_records_found() && v6.is_no_records_found(),
            _ => false,
        };
        if no_host && (!self.servers.is_empty() || self.addresses(domain, 0).await.is_err()) {
            return Err(DialError::NoDomain(domain.to_owned()));
        }
        Ok(vec![domain.to_owned()])
    }

    /// The addresses of a host, to be tried in order. The system's way of finding them (`/etc/hosts`, `nsswitch.conf`)
    /// is used unless DNS servers are configured. Waits as long as it takes.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        if self.servers.is_empty() {
            let addresses = tokio::net::lookup_host((host, port)).await.map_err(DialError::Connect)?;
            return Ok(addresses.collect());
        }
        let found = self.resolver()?.lookup_ip(format!("{host}.")).await;
        let found = found.map_err(|error| DialError::NoAddress(format!("{host}: {error}")))?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    fn resolver(&self) -> Result<&TokioResolver, DialError> {
        let build = || match &self.servers[..] {
            [] => TokioResolver::builder_tokio().and_then(|builder| builder.build()).ok(),
            servers => {
                let servers = servers.iter().map(name_server).collect();
                let config = ResolverConfig::from_name_servers(servers);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build().ok()
            }
        };
        let resolver = self.resolver.get_or_init(build).as_ref();
        resolver.ok_or_else(|| DialError::NoAddress("no DNS resolver is configured".into()))
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
    server
}

/// Sorts mail exchangers by preference, equals as they came; leaves out ourselves and everything that is no better.
fn order(domain: &str, mut records: Vec<(u16, String)>, own: &str) -> Result<Vec<String>, DialError> {
    if let [(_, only)] = &records[..]
        && only.trim_end_matches('.').is_empty()
    {
        return Err(DialError::NullMx(domain.to_owned()));
    }
    if records.is_empty() {
        return Ok(vec![domain.to_owned()]);
    }
    records.sort_by_key(|(preference, _)| *preference);
    let own_preference = records
        .iter()
        .find(|(_, host)| host.trim_end_matches('.').eq_ignore_ascii_case(own))
        .map(|(p, _)| *p);
    let hosts: Vec<String> = records
        .into_iter()
        .filter(|(preference, _)| own_preference.is_none_or(|own| *preference < own))
        .map(|(_, host)| host.trim_end_matches('.').to_ascii_lowercase())
        .filter(|host| !host.is_empty())
        .take(HOSTS_MAX)
        .collect();
    if hosts.is_empty() {
        Err(DialError::NoAddress(format!("{domain}: we are its best mail exchanger")))
    } else {
        Ok(hosts)
    }
}

/// Mail exchangers that are tried for one transaction.
const HOSTS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(records: &[(u16, &str)]) -> Result<Vec<String>, String> {
        let records = records.iter().map(|(p, h)| (*p, (*h).to_owned())).collect();
        order("example.com", records, "me.example").map_err(|error| error.to_string())
    }

    #[test]
    fn exchangers_come_by_preference_and_never_back_to_us() {
        assert_eq!(hosts(&[(20, "B.example."), (10, "a.example.")]).unwrap(), ["a.example", "b.example"]);
        assert_eq!(hosts(&[]).unwrap(), ["example.com"]);
        assert_eq!(hosts(&[(10, "a."), (20, "ME.example."), (20, "c."), (30, "d.")]).unwrap(), ["a"]);
        assert!(hosts(&[(10, "me.example.")]).unwrap_err().contains("we are"));
        assert!(hosts(&[(0, ".")]).unwrap_err().contains("takes no mail"));
    }

    #[tokio::test]
    async fn an_address_literal_is_its_own_exchanger() {
        let exchangers = MailExchangers::default();
        let of = async |domain: &str| exchangers.of(domain, "me", Duration::from_secs(1)).await;
        assert_eq!(of("[192.0.2.1]").await.unwrap(), ["192.0.2.1"]);
        assert_eq!(of("[IPv6:2001:db8::1]").await.unwrap(), ["2001:db8::1"]);
        assert!(matches!(of("[x]").await, Err(DialError::NoDomain(_))));
    }
}
