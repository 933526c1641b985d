//! The sections `[listen]`, `[[listener]]`, `[[route]]`, `[dns]` and `[limits]`: what the relay is told.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::SiteConfig;
use super::relay::{
    AddressPattern, AuthSource, BareLineEnds, Credentials, ListenAddress, ListenerAuth, ListenerConfig,
    ListenerTls, ListenerTlsMode, NextHopConfig, NextHopHost, NextHopTls, Protocol, RelayConfig, RelayLimits,
    RouteConfig,
};
use super::section::Section;
use crate::smtp::Path;

pub fn read(root: &Section, site: Option<&SiteConfig>) -> Option<RelayConfig> {
    let mut config = RelayConfig { hostname: machine_name(), ..RelayConfig::default() };
    match root.section("listen") {
        Some(section) => read_listen(section, &mut config),
        None => root.refuse("listen", "is missing", "every configuration says where to listen"),
    }
    config.listeners.extend(root.sections("listener").into_iter().filter_map(read_listener));
    config.routes = root
        .sections("route")
        .into_iter()
        .flat_map(|section| read_route(section, &config.listeners))
        .collect();
    check_passed_auth(root, &config);
    if let Some(section) = root.section("dns") {
        config.dns_servers = section.list("servers", dns_server).unwrap_or_default();
        section.finish();
    }
    if let Some(section) = root.section("limits") {
        read_limits(section, &mut config.limits);
    }
    let mailboxes = site?.mailboxes().map(|mailbox| Path::parse(mailbox));
    config.replication_mailboxes.extend(mailboxes.flatten());
    Some(config)
}

/// Where AUTH is passed through there is to be a next hop that takes the client's credentials and not ours.
fn check_passed_auth(root: &Section, config: &RelayConfig) {
    let passed = |listener: &ListenerConfig| {
        listener.auth.as_ref().is_some_and(|auth| auth.source == AuthSource::NextHop)
    };
    if !config.listeners.iter().any(passed) {
        return;
    }
    let hint = "AUTH goes to the default route's next hop";
    let mut hops = config
        .routes
        .iter()
        .filter(|route| route.pattern == AddressPattern::Any)
        .flat_map(|route| &route.next_hops)
        .peekable();
    if hops.peek().is_none() {
        root.refuse("route", "none is to \"*\", which `auth.pass` needs", hint);
    } else if hops.any(|hop| hop.auth.is_some() || matches!(hop.host, NextHopHost::Mx(_))) {
        root.refuse("route", "the one to \"*\" has `user` or `mx`, which `auth.pass` excludes", hint);
    }
}

/// The machine's own name, for greetings and trace headers.
fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if crate::smtp::address::is_domain(&name) { name } else { "localhost".to_owned() }
}

fn read_listen(section: Section, config: &mut RelayConfig) {
    let tls = section.section("tls").and_then(read_tls);
    let auth = section.section("auth").and_then(read_auth);
    for (key, protocol) in [("smtp", Protocol::Smtp), ("lmtp", Protocol::Lmtp)] {
        for (index, address) in section.list(key, listen_address).unwrap_or_default().into_iter().enumerate()
        {
            let name = format!("{key}-{}", index + 1);
            let (tls, auth) = (tls.clone(), auth.clone());
            config.listeners.push(ListenerConfig {
                name,
                address,
                protocol,
                proxy_protocol: false,
                tls,
                auth,
            });
        }
    }
    let hostname = section.parsed("hostname", |name| match name {
        "" => Ok(machine_name()),
        name if crate::smtp::address::is_domain(name) => Ok(name.to_owned()),
        _ => Err("is not a host name"),
    });
    config.hostname = hostname.unwrap_or(config.hostname.clone());
    let networks = section.list("trusted_networks", str::parse);
    config.trusted_networks = networks.unwrap_or(config.trusted_networks.clone());
    let peers = section.list("trusted_peers", str::parse);
    config.trusted_peers = peers.unwrap_or(config.trusted_peers.clone());
    config.own_domains = section.list("own_domains", str::parse).unwrap_or_default();
    config.known_recipients_only = section.boolean("known_recipients_only").unwrap_or(false);
    let bare = section.parsed("bare_line_ends", |policy| match policy {
        "refuse" => Ok(BareLineEnds::Refuse),
        "normalize" => Ok(BareLineEnds::Normalize),
        "pass" => Ok(BareLineEnds::Pass),
        _ => Err("is not refuse, normalize or pass"),
    });
    config.bare_line_ends = bare.unwrap_or(config.bare_line_ends);
    section.finish();
}

/// One listener with everything said about it.
fn read_listener(section: Section) -> Option<ListenerConfig> {
    let address = section.required("address", "HOST:PORT or unix:/path", listen_address);
    let protocol = section.parsed("protocol", |protocol| match protocol {
        "smtp" => Ok(Protocol::Smtp),
        "lmtp" => Ok(Protocol::Lmtp),
        _ => Err("is not smtp or lmtp"),
    });
    let name = section.string("name").map(str::to_owned);
    let proxy_protocol = section.boolean("proxy_protocol").unwrap_or(false);
    let tls = section.section("tls").and_then(read_tls);
    let auth = section.section("auth").and_then(read_auth);
    section.finish();
    let protocol = protocol.unwrap_or(Protocol::Smtp);
    let address = address?;
    let name = name.unwrap_or_else(|| match &address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix { path, .. } => path.display().to_string(),
    });
    Some(ListenerConfig { name, address, protocol, proxy_protocol, tls, auth })
}

fn listen_address(text: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err("the path of a Unix socket is to be absolute".to_owned());
        }
        return Ok(ListenAddress::Unix { path: path.into(), mode: 0o660 });
    }
    let literal = text.replacen("localhost:", "127.0.0.1:", 1);
    let address: Result<SocketAddr, _> = literal.parse();
    address.map(ListenAddress::Tcp).map_err(|_| "is not ADDRESS:PORT, [IPv6]:PORT or unix:/path".to_owned())
}

fn dns_server(text: &str) -> Result<SocketAddr, &'static str> {
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT)));
    address.map_err(|_| "is not ADDRESS or ADDRESS:PORT")
}

const DNS_PORT: u16 = 53;

fn read_tls(section: Section) -> Option<ListenerTls> {
    let path = |path: &str| Ok::<_, String>(PathBuf::from(path));
    let certificate = section.required("certificate", "a PEM file with the certificate chain", path);
    let key = section.required("key", "a PEM file with the private key", path);
    let mode = section.parsed("mode", |mode| match mode {
        "offered" => Ok(ListenerTlsMode::Offered),
        "required" => Ok(ListenerTlsMode::Required),
        "implicit" => Ok(ListenerTlsMode::Implicit),
        _ => Err("is not offered, required or implicit"),
    });
    section.finish();
    Some(ListenerTls { certificate: certificate?, key: key?, mode: mode.unwrap_or(ListenerTlsMode::Offered) })
}

fn read_auth(section: Section) -> Option<ListenerAuth> {
    let path = |path: &str| Ok::<_, String>(PathBuf::from(path));
    let pass = section.boolean("pass").unwrap_or(false);
    let source = match pass {
        false => section.required("password_file", "lines of user:hash", path).map(AuthSource::PasswordFile),
        true => Some(AuthSource::NextHop),
    };
    if pass && section.string("password_file").is_some() {
        section.refuse("password_file", "has no use with `pass`", "the next hop knows the passwords");
    }
    let required = section.boolean("required").unwrap_or(true);
    let without_tls = section.boolean("without_tls").unwrap_or(false);
    section.finish();
    Some(ListenerAuth { source: source?, required, without_tls })
}

fn read_route(section: Section, listeners: &[ListenerConfig]) -> Vec<RouteConfig> {
    let patterns = section.list("to", str::parse);
    if patterns.is_none() {
        section.refuse("to", "is missing", "an address space such as \"*\" or \"example.org\"");
    }
    let hosts = section.list("next_hop", str::parse);
    if hosts.as_ref().is_none_or(Vec::is_empty) {
        section.refuse("next_hop", "is missing", "where mail of this address space goes");
    }
    let is_ours = |host: &&NextHopHost| listeners.iter().any(|listener| host.is_listener(&listener.address));
    if let Some(host) = hosts.iter().flatten().find(is_ours) {
        let message = format!("\"{host}\" is where this program itself listens");
        section.refuse("next_hop", message, "mail would go round: name the server that takes mail from it");
    }
    let cost = section.number("cost", 0..1_000_000).unwrap_or(10) as u32;
    let tls = section.parsed("tls", |tls| match tls {
        "off" => Ok(NextHopTls::Off),
        "may" => Ok(NextHopTls::May),
        "encrypt" => Ok(NextHopTls::Encrypt),
        "verify" => Ok(NextHopTls::Verify),
        _ => Err("is not off, may, encrypt or verify"),
    });
    let user = section.string("user").map(str::to_owned);
    let password = section.string("password").map(str::to_owned);
    let auth = match (user, password) {
        (Some(user), Some(password)) => Some(Credentials { user, password }),
        (None, None) => None,
        _ => {
            section.refuse("user", "and `password` go together", "");
            None
        }
    };
    let xforward = section.boolean("xforward").unwrap_or(true);
    let connections = section.number("connections", 1..100_000);
    section.finish();
    let next_hops = hosts.unwrap_or_default().into_iter().map(|host| {
        let default = NextHopConfig::to(host);
        Arc::new(NextHopConfig {
            tls: tls.unwrap_or(NextHopTls::May),
            auth: auth.clone(),
            xforward,
            connections_max: connections.map_or(default.connections_max, |count| count as usize),
            ..default
        })
    });
    let next_hops: Vec<_> = next_hops.collect();
    let patterns = patterns.unwrap_or_default().into_iter();
    patterns.map(|pattern| RouteConfig { pattern, cost, next_hops: next_hops.clone() }).collect()
}

fn read_limits(section: Section, limits: &mut RelayLimits) {
    let most = 1 << 40;
    let counts: [(&'static str, &mut usize, std::ops::Range<u64>); 6] = [
        ("connections", &mut limits.connections_max, 1..1_000_000),
        ("connections_per_network", &mut limits.connections_per_network_max, 1..1_000_000),
        ("recipients", &mut limits.recipients_max, 1..100_000),
        ("command_bytes", &mut limits.command_bytes_max, 512..65_536),
        ("line_bytes", &mut limits.line_bytes_max, 0..most),
        ("received_headers", &mut limits.received_max, 2..1_000),
    ];
    for (key, field, bounds) in counts {
        if let Some(value) = section.octets(key, bounds) {
            *field = value as usize;
        }
    }
    let rates: [(&'static str, &mut u32); 3] = [
        ("connections_per_minute", &mut limits.connections_per_minute_max),
        ("messages_per_minute", &mut limits.messages_per_minute_max),
        ("errors", &mut limits.errors_max),
    ];
    for (key, field) in rates {
        if let Some(value) = section.number(key, 0..1_000_000) {
            *field = value as u32;
        }
    }
    limits.message_bytes_max =
        section.octets("message_bytes", 1_024..most).unwrap_or(limits.message_bytes_max);
    limits.data_rate_min = section.octets("data_bytes_per_second", 0..most).unwrap_or(limits.data_rate_min);
    let replication = section.octets("replication_message_bytes", 65_536..1 << 30);
    limits.replication_message_bytes_max =
        replication.map_or(limits.replication_message_bytes_max, |bytes| bytes as usize);
    let day = Duration::from_secs(86_400);
    let durations: [(&'static str, &mut Duration); 12] = [
        ("greeting_delay", &mut limits.greeting_delay),
        ("command_timeout", &mut limits.command_timeout),
        ("data_timeout", &mut limits.data_timeout),
        ("slow_grace", &mut limits.slow_grace),
        ("session_timeout", &mut limits.session_timeout),
        ("connect_timeout", &mut limits.connect_timeout),
        ("reply_timeout", &mut limits.reply_timeout),
        ("final_timeout", &mut limits.final_timeout),
        ("pool_idle", &mut limits.pool_idle),
        ("back_off_min", &mut limits.back_off_min),
        ("back_off_max", &mut limits.back_off_max),
        ("drain", &mut limits.drain),
    ];
    for (key, field) in durations {
        if let Some(value) = section.duration(key, Duration::ZERO..day) {
            *field = value;
        }
    }
    section.finish();
}
