//! The relay's configuration as meant: once built, no value is in doubt.
//!
//! The TOML layer fills these; every field has a default in [`Default`] where one makes sense. All bounds
//! of one session and of the listener are in [`RelayLimits`], whose defaults are those of `limits.rs`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::limits;
use crate::smtp::Path;

/// Everything that listeners, sessions and next hops need to know.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Our name in the greeting, in `Received:` and in our own EHLO.
    pub hostname: String,
    /// What tells our `Received:` headers from others', for the loop guard: hexadecimal, stable over
    /// restarts, different on each installation.
    pub trace_id: String,
    pub listeners: Vec<ListenerConfig>,
    /// Address spaces; order does not matter (most specific first, then lowest cost).
    pub routes: Vec<RouteConfig>,
    /// Clients that may relay anywhere.
    pub trusted_networks: Vec<Network>,
    /// Clients whose XFORWARD, XCLIENT and PROXY header are believed.
    pub trusted_peers: Vec<Network>,
    /// Domains for which anybody may send: patterns as in routes.
    pub own_domains: Vec<AddressPattern>,
    /// Mailboxes whose mail goes to replication; plus-addressing included, domain without regard to case.
    pub replication_mailboxes: Vec<Path>,
    /// 550 5.1.1 for addresses of `own_domains` that the directory does not know.
    pub known_recipients_only: bool,
    /// The DNS servers that are asked; the system's if there is none.
    pub dns_servers: Vec<SocketAddr>,
    pub bare_line_ends: BareLineEnds,
    pub limits: RelayLimits,
}

impl Default for RelayConfig {
    fn default() -> RelayConfig {
        let loopback = |text: &str| text.parse().ok();
        RelayConfig {
            hostname: "localhost".into(),
            trace_id: "00000000".into(),
            listeners: Vec::new(),
            routes: Vec::new(),
            trusted_networks: ["127.0.0.0/8", "::1/128"].into_iter().filter_map(loopback).collect(),
            trusted_peers: ["127.0.0.0/8", "::1/128"].into_iter().filter_map(loopback).collect(),
            own_domains: Vec::new(),
            replication_mailboxes: Vec::new(),
            known_recipients_only: false,
            dns_servers: Vec::new(),
            bare_line_ends: BareLineEnds::Refuse,
            limits: RelayLimits::default(),
        }
    }
}

/// One socket that we listen on.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Distinguishes listeners in logs and in the loop guard.
    pub name: String,
    pub address: ListenAddress,
    pub protocol: Protocol,
    /// The connection begins with a PROXY protocol header (v1 or v2), from `trusted_peers` only.
    pub proxy_protocol: bool,
    pub tls: Option<ListenerTls>,
    /// AUTH is offered where it is given.
    pub auth: Option<ListenerAuth>,
}

impl ListenerConfig {
    /// A plain SMTP listener.
    pub fn smtp(name: &str, address: SocketAddr) -> ListenerConfig {
        ListenerConfig {
            name: name.into(),
            address: ListenAddress::Tcp(address),
            protocol: Protocol::Smtp,
            proxy_protocol: false,
            tls: None,
            auth: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    /// Created with the given mode; a stale socket file is replaced.
    Unix {
        path: PathBuf,
        mode: u32,
    },
}

impl ListenAddress {
    /// Whether a connection from this machine to one of its own addresses ends here.
    pub fn takes(&self, far: SocketAddr) -> bool {
        match self {
            ListenAddress::Tcp(own) => {
                own.port() == far.port() && (own.ip() == far.ip() || own.ip().is_unspecified())
            }
            ListenAddress::Unix { .. } => false,
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Smtp,
    Lmtp,
}

/// Certificate of a listener. Files are read again on SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub mode: ListenerTlsMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerTlsMode {
    /// STARTTLS is offered.
    Offered,
    /// No mail before STARTTLS: 530 5.7.0.
    Required,
    /// TLS from the first octet (RFC 8314).
    Implicit,
}

/// Who may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerAuth {
    pub source: AuthSource,
    /// Clients outside `trusted_networks` must authenticate before MAIL.
    pub required: bool,
    /// Also before TLS. Off unless the network is trusted otherwise.
    pub without_tls: bool,
}

/// Who knows the passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthSource {
    /// Lines of `user:{SSHA256}base64` or `user:{PLAIN}password`; see `listen/auth.rs`.
    PasswordFile(PathBuf),
    /// The next hop of the default route; see `listen/passed.rs`.
    NextHop,
}

/// One address space and where its mail goes.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    pub pattern: AddressPattern,
    /// Among routes of the same pattern the lowest cost is tried first.
    pub cost: u32,
    /// In order of preference; the next one is used where one is away.
    pub next_hops: Vec<Arc<NextHopConfig>>,
}

impl RouteConfig {
    /// The default route to one next hop.
    pub fn default_to(next_hop: NextHopConfig) -> RouteConfig {
        RouteConfig { pattern: AddressPattern::Any, cost: 10, next_hops: vec![Arc::new(next_hop)] }
    }
}

/// What an address space covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AddressPattern {
    /// `*`
    Any,
    /// `.example.com`: every subdomain, not the domain itself. Lower case, with the dot.
    Subdomains(String),
    /// `example.com`. Lower case.
    Domain(String),
    /// `someone@example.com`
    Address(Path),
}

impl std::str::FromStr for AddressPattern {
    type Err = String;

    /// `*`, `.example.com` (or `*.example.com`), `example.com`, `someone@example.com`.
    fn from_str(text: &str) -> Result<AddressPattern, String> {
        let domain = |text: &str| {
            if crate::smtp::address::is_domain(text) {
                Ok(text.to_lowercase())
            } else {
                Err(format!("`{text}` is not a domain"))
            }
        };
        if text == "*" {
            Ok(AddressPattern::Any)
        } else if text.contains('@') {
            match Path::parse(text) {
                Ok(path) if !path.domain().is_empty() => Ok(AddressPattern::Address(path)),
                Ok(_) => Err(format!("`{text}` has no domain")),
                Err(error) => Err(format!("`{text}`: {error}")),
            }
        } else if let Some(rest) = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')) {
            Ok(AddressPattern::Subdomains(format!(".{}", domain(rest)?)))
        } else {
            Ok(AddressPattern::Domain(domain(text)?))
        }
    }
}

/// One next hop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NextHopConfig {
    pub host: NextHopHost,
    pub tls: NextHopTls,
    /// AUTH PLAIN or LOGIN to the next hop, over TLS unless the next hop is on this machine.
    pub auth: Option<Credentials>,
    /// Send XFORWARD where the next hop offers it.
    pub xforward: bool,
    /// Connections open to it at once; more sessions wait, then get 451.
    pub connections_max: usize,
}

impl NextHopConfig {
    /// Plain SMTP to a host, with the defaults.
    pub fn to(host: NextHopHost) -> NextHopConfig {
        NextHopConfig {
            host,
            tls: NextHopTls::Off,
            auth: None,
            xforward: true,
            connections_max: limits::NEXT_HOP_CONNECTIONS_MAX,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NextHopHost {
    /// An address literal and port.
    Address(SocketAddr),
    /// A name, resolved to its addresses (A and AAAA, no MX), and port.
    Name(String, u16),
    Unix(PathBuf),
    /// The MX hosts of the recipient's domain.
    Mx(u16),
}

impl NextHopHost {
    /// Whether mail to it surely comes back to this listener. What another name stands for shows when it is dialled.
    pub fn is_listener(&self, listener: &ListenAddress) -> bool {
        let far = match (self, listener) {
            (NextHopHost::Unix(far), ListenAddress::Unix { path, .. }) => return far == path,
            (NextHopHost::Address(far), _) => *far,
            (NextHopHost::Name(name, port), _) if name.eq_ignore_ascii_case("localhost") => {
                (Ipv4Addr::LOCALHOST, *port).into()
            }
            _ => return false,
        };
        // One that takes from everywhere is at each address of this machine; which those are is not known here.
        let is_named = matches!(listener, ListenAddress::Tcp(own) if own.ip() == far.ip());
        listener.takes(far) && (is_named || far.ip().is_loopback())
    }
}

impl std::str::FromStr for NextHopHost {
    type Err = String;

    /// `192.0.2.1:25`, `[2001:db8::1]:25`, `mx.example:25` (or without the port: 25), `unix:/path`, `mx` or `mx:2525`.
    fn from_str(text: &str) -> Result<NextHopHost, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(NextHopHost::Unix(path.into()))
            } else {
                Err(format!("`{text}`: the path of a Unix socket must be absolute"))
            };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(NextHopHost::Address(address));
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(NextHopHost::Address(SocketAddr::new(ip, 25)));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => {
                (name, port.parse().map_err(|_| format!("`{text}`: `{port}` is not a port"))?)
            }
            None => (text, 25),
        };
        if name == "mx" {
            Ok(NextHopHost::Mx(port))
        } else if crate::smtp::address::is_domain(name) && !name.starts_with('[') {
            Ok(NextHopHost::Name(name.to_lowercase(), port))
        } else {
            Err(format!("`{text}` is not HOST:PORT, unix:/PATH or mx"))
        }
    }
}

impl std::fmt::Display for NextHopHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NextHopHost::Address(address) => write!(f, "{address}"),
            NextHopHost::Name(name, port) => write!(f, "{name}:{port}"),
            NextHopHost::Unix(path) => write!(f, "unix:{}", path.display()),
            NextHopHost::Mx(port) => write!(f, "mx:{port}"),
        }
    }
}

/// `tls = off|may|encrypt|verify`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHopTls {
    Off,
    /// STARTTLS where it is offered, whatever the certificate.
    May,
    /// STARTTLS or nothing, whatever the certificate.
    Encrypt,
    /// STARTTLS with a certificate that the system trusts, for the host's name.
    Verify,
}

impl std::fmt::Display for NextHopTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NextHopTls::Off => "off",
            NextHopTls::May => "may",
            NextHopTls::Encrypt => "encrypt",
            NextHopTls::Verify => "verify",
        })
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

/// Never the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.user)
    }
}

/// What to do with a CR or LF that stands alone in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareLineEnds {
    /// 554 5.6.0. The default, and the only one that cannot be used for smuggling.
    Refuse,
    /// Each becomes CRLF. Breaks signatures of such mail.
    Normalize,
    /// Passed on. DANGER: a next hop that takes LF.LF or the like for the end of data can be made to
    /// see a second message in the first.
    Pass,
}

/// A network: address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    pub fn contains(&self, ip: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
            IpAddr::V6(v6) => (u128::from(v6), false),
        };
        let ((own, own_v4), (other, other_v4)) = (bits(self.address), bits(ip));
        let differing = own ^ other;
        own_v4 == other_v4 && (self.prefix == 0 || differing >> (128 - u32::from(self.prefix)) == 0)
    }

    /// The network of `prefix` bits that an address is in, for limits by client network.
    pub fn of(ip: IpAddr, prefix_v4: u8, prefix_v6: u8) -> u128 {
        match ip.to_canonical() {
            IpAddr::V4(v4) => 0xffff_0000_0000 | u128::from(u32::from(v4) & mask32(prefix_v4)),
            IpAddr::V6(v6) => u128::from(v6) & mask128(prefix_v6),
        }
    }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask128(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr =
            address.parse().map_err(|_| format!("`{text}` is not an address or ADDRESS/PREFIX"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(text) => text.parse().map_err(|_| format!("`{text}` is not a prefix length"))?,
        };
        if prefix > longest {
            return Err(format!("`{text}`: the prefix is longer than {longest} bits"));
        }
        Ok(Network { address, prefix })
    }
}

/// Every bound of listener, session and next hop that may be configured. The defaults are in `limits.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    pub connections_max: usize,
    /// Connections at once from one client network (/32 or /64).
    pub connections_per_network_max: usize,
    /// Connections from one client network within a minute; 0: no limit. Trusted networks are exempt.
    pub connections_per_minute_max: u32,
    /// Messages from one client network within a minute; 0: no limit. Trusted networks are exempt.
    pub messages_per_minute_max: u32,
    pub recipients_max: usize,
    pub message_bytes_max: u64,
    pub replication_message_bytes_max: usize,
    pub command_bytes_max: usize,
    /// 0: no limit, lines of any length pass.
    pub line_bytes_max: usize,
    /// Errors of a client before it is disconnected.
    pub errors_max: u32,
    pub received_max: usize,
    /// How long the greeting waits for clients that speak before their turn; 0: it does not.
    pub greeting_delay: Duration,
    pub command_timeout: Duration,
    /// Without any octet of the message.
    pub data_timeout: Duration,
    /// Octets a second below which a sender is cut off, after `slow_grace`; 0: no limit.
    pub data_rate_min: u64,
    pub slow_grace: Duration,
    pub session_timeout: Duration,
    pub connect_timeout: Duration,
    /// For the next hop's reply to any command but the final dot.
    pub reply_timeout: Duration,
    /// For the next hop's reply to the final dot (RFC 5321: 10 minutes).
    pub final_timeout: Duration,
    /// How long a connection to a next hop is kept for reuse.
    pub pool_idle: Duration,
    /// How long a dead next hop is left alone at first; doubles up to `back_off_max`.
    pub back_off_min: Duration,
    pub back_off_max: Duration,
    /// How long sessions may go on after a request to stop.
    pub drain: Duration,
}

impl Default for RelayLimits {
    fn default() -> RelayLimits {
        let seconds = Duration::from_secs;
        RelayLimits {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_network_max: limits::CONNECTIONS_PER_NETWORK_MAX,
            connections_per_minute_max: 0,
            messages_per_minute_max: 0,
            recipients_max: limits::RECIPIENTS_MAX,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            replication_message_bytes_max: limits::REPLICATION_MESSAGE_BYTES_MAX,
            command_bytes_max: limits::COMMAND_BYTES_MAX,
            line_bytes_max: 0,
            errors_max: limits::ERRORS_MAX,
            received_max: limits::RECEIVED_MAX,
            greeting_delay: Duration::ZERO,
            command_timeout: seconds(limits::COMMAND_TIMEOUT_S),
            data_timeout: seconds(limits::DATA_TIMEOUT_S),
            data_rate_min: limits::DATA_RATE_MIN_BYTES_S,
            slow_grace: seconds(limits::SLOW_GRACE_S),
            session_timeout: seconds(limits::SESSION_TIMEOUT_S),
            connect_timeout: seconds(limits::CONNECT_TIMEOUT_S),
            reply_timeout: seconds(limits::REPLY_TIMEOUT_S),
            final_timeout: seconds(limits::FINAL_TIMEOUT_S),
            pool_idle: seconds(limits::POOL_IDLE_S),
            back_off_min: seconds(limits::BACK_OFF_MIN_S),
            back_off_max: seconds(limits::BACK_OFF_MAX_S),
            drain: seconds(limits::DRAIN_S),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_they_should() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("127.0.0.0/8").contains(ip("127.9.9.9")));
        assert!(!network("127.0.0.0/8").contains(ip("128.0.0.1")));
        assert!(network("0.0.0.0/0").contains(ip("1.2.3.4")) && !network("0.0.0.0/0").contains(ip("::1")));
        assert!(network("::/0").contains(ip("2001:db8::1")));
        assert!(network("192.0.2.1").contains(ip("::ffff:192.0.2.1")));
        assert!(!network("192.0.2.1").contains(ip("192.0.2.2")));
        assert!("1.2.3.4/33".parse::<Network>().is_err() && "x".parse::<Network>().is_err());
        assert_eq!(Network::of(ip("2001:db8::1"), 32, 64), Network::of(ip("2001:db8::2"), 32, 64));
        assert_ne!(Network::of(ip("192.0.2.1"), 32, 64), Network::of(ip("192.0.2.2"), 32, 64));
    }

    #[test]
    fn next_hops_are_read() {
        for text in ["192.0.2.1:25", "[2001:db8::1]:25", "mx.example:2525", "unix:/run/x", "mx:25"] {
            assert_eq!(text.parse::<NextHopHost>().unwrap().to_string(), text);
        }
        assert_eq!("mx.example".parse(), Ok(NextHopHost::Name("mx.example".into(), 25)));
        assert_eq!("192.0.2.1".parse::<NextHopHost>().unwrap().to_string(), "192.0.2.1:25");
        assert!(
            "mx.example:port".parse::<NextHopHost>().is_err() && "unix:x".parse::<NextHopHost>().is_err()
        );
    }

    #[test]
    fn patterns_are_read() {
        assert_eq!("*".parse(), Ok(AddressPattern::Any));
        assert_eq!("*.Example.com".parse(), Ok(AddressPattern::Subdomains(".example.com".into())));
        assert_eq!("Example.com".parse(), Ok(AddressPattern::Domain("example.com".into())));
        assert!(matches!("a@example.com".parse(), Ok(AddressPattern::Address(_))));
        assert!("a b".parse::<AddressPattern>().is_err() && "@".parse::<AddressPattern>().is_err());
    }
}
