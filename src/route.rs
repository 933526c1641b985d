//! Which way each forward path goes: to replication, onward to a next hop, or back with a refusal.
//!
//! PROMISES
//!   Pure: configuration, trust and forward path in, decision out. The most specific address space wins (address,
//!   domain, longest parent domain, everything); within it the lowest cost comes first. Only trusted
//!   clients reach domains that are not ours. What replication learns never changes a route.
//!
//! STANDARDS
//!   RFC 5321 section 4.5.1 (`<Postmaster>` is always accepted), 5.1 (MX).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::config::relay::{AddressPattern, NextHopConfig, NextHopHost, RelayConfig};
use crate::smtp::Path;

/// The routes of one configuration, ready for look-ups.
#[derive(Debug, Default)]
pub struct RouteTable {
    addresses: HashMap<String, Arc<AddressSpace>>,
    domains: HashMap<String, Arc<AddressSpace>>,
    /// With the leading dot.
    parents: HashMap<String, Arc<AddressSpace>>,
    any: Option<Arc<AddressSpace>>,
    mailboxes: Vec<Path>,
    own: OwnDomains,
}

/// All routes of one pattern: their next hops in the order in which they are tried.
#[derive(Debug, PartialEq, Eq)]
pub struct AddressSpace {
    pub pattern: AddressPattern,
    pub next_hops: Vec<Arc<NextHopConfig>>,
}

/// Where one transaction goes. Two forward paths may share a transaction if these are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onward {
    pub next_hops: Vec<Arc<NextHopConfig>>,
    /// The recipient's domain, where a next hop is its MX.
    pub mx_domain: Option<String>,
}

/// The verdict on one forward path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To replication, under the mailbox as configured.
    Intercept(Path),
    Relay(Arc<AddressSpace>),
    Refuse(NotRouted),
}

/// Why a forward path goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRouted {
    /// Not a domain of ours, and the client is not trusted.
    RelayingDenied,
    /// The configuration has no address space for it.
    NoRoute,
}

#[derive(Debug, Default)]
struct OwnDomains {
    any: bool,
    domains: Vec<String>,
    parents: Vec<String>,
    addresses: Vec<Path>,
}

impl RouteTable {
    pub fn new(config: &RelayConfig) -> RouteTable {
        let mut routes: Vec<_> = config.routes.iter().collect();
        routes.sort_by_key(|route| route.cost);
        let mut spaces: Vec<(AddressPattern, Vec<Arc<NextHopConfig>>)> = Vec::new();
        for route in routes {
            match spaces.iter_mut().find(|(pattern, _)| *pattern == route.pattern) {
                Some((_, next_hops)) => next_hops.extend(route.next_hops.iter().cloned()),
                None => spaces.push((route.pattern.clone(), route.next_hops.clone())),
            }
        }
        let mut table = RouteTable {
            mailboxes: config.replication_mailboxes.clone(),
            own: OwnDomains::new(&config.own_domains),
            ..RouteTable::default()
        };
        for (pattern, next_hops) in spaces {
            let space = Arc::new(AddressSpace { pattern: pattern.clone(), next_hops });
            match pattern {
                AddressPattern::Any => table.any = Some(space),
                AddressPattern::Domain(domain) => drop(table.domains.insert(domain, space)),
                AddressPattern::Subdomains(parent) => drop(table.parents.insert(parent, space)),
                AddressPattern::Address(path) => drop(table.addresses.insert(key(&path), space)),
            }
        }
        table
    }

    /// Decides for one forward path of a client that is trusted or not.
    pub fn decide(&self, path: &Path, trusted: bool) -> Decision {
        if let Some(mailbox) = self.mailbox(path) {
            return Decision::Intercept(mailbox.clone());
        }
        if !trusted && !self.is_own(path) {
            return Decision::Refuse(NotRouted::RelayingDenied);
        }
        match self.space(path) {
            Some(space) => Decision::Relay(space.clone()),
            None => Decision::Refuse(NotRouted::NoRoute),
        }
    }

    /// The configured replication mailbox that a path means, if any: with or without `+detail`, and without
    /// regard to case.
    pub fn mailbox(&self, path: &Path) -> Option<&Path> {
        if self.mailboxes.is_empty() {
            return None;
        }
        let plain = path.without_detail();
        self.mailboxes
            .iter()
            .find(|mailbox| mailbox.same_mailbox(&plain, true) || mailbox.same_mailbox(path, true))
    }

    /// Whether anybody may send to it.
    pub fn is_own(&self, path: &Path) -> bool {
        path.domain().is_empty() || self.own.contains(path)
    }

    /// The most specific address space of a path.
    pub fn space(&self, path: &Path) -> Option<&Arc<AddressSpace>> {
        if !self.addresses.is_empty()
            && let Some(space) = self.addresses.get(&key(path))
        {
            return Some(space);
        }
        if self.domains.is_empty() && self.parents.is_empty() {
            return self.any.as_ref();
        }
        let domain = path.domain().trim_end_matches('.').to_lowercase();
        if let Some(space) = self.domains.get(&domain) {
            return Some(space);
        }
        let parents = domain.match_indices('.').map(|(dot, _)| &domain[dot..]);
        parents.into_iter().find_map(|parent| self.parents.get(parent)).or(self.any.as_ref())
    }

    /// Where mail goes for which there is no address space of its own.
    pub fn default_onward(&self) -> Option<Onward> {
        let space = self.any.as_ref()?;
        Some(Onward { next_hops: space.next_hops.clone(), mx_domain: None })
    }

    /// Every next hop of the configuration, once.
    pub fn next_hops(&self) -> Vec<Arc<NextHopConfig>> {
        let spaces = self.addresses.values().chain(self.domains.values()).chain(self.parents.values());
        let mut all: Vec<Arc<NextHopConfig>> = Vec::new();
        for space in spaces.chain(self.any.as_ref()) {
            for next_hop in &space.next_hops {
                if !all.contains(next_hop) {
                    all.push(next_hop.clone());
                }
            }
        }
        all
    }
}

impl AddressSpace {
    /// Where a forward path of this address space goes.
    pub fn onward(&self, path: &Path) -> Onward {
        let mx = self.next_hops.iter().any(|hop| matches!(hop.host, NextHopHost::Mx(_)));
        Onward {
            next_hops: self.next_hops.clone(),
            mx_domain: mx.then(|| path.domain().trim_end_matches('.').to_lowercase()),
        }
    }
}

impl OwnDomains {
    fn new(patterns: &[AddressPattern]) -> OwnDomains {
        let mut own = OwnDomains::default();
        for pattern in patterns {
            match pattern {
                AddressPattern::Any => own.any = true,
                AddressPattern::Domain(domain) => own.domains.push(domain.clone()),
                AddressPattern::Subdomains(parent) => own.parents.push(parent.clone()),
                AddressPattern::Address(path) => own.addresses.push(path.clone()),
            }
        }
        own
    }

    fn contains(&self, path: &Path) -> bool {
        let domain = path.domain().trim_end_matches('.').to_lowercase();
        self.any
            || self.domains.contains(&domain)
            || self.parents.iter().any(|parent| domain.ends_with(parent.as_str()))
            || self.addresses.iter().any(|own| own.same_mailbox(path, true))
    }
}

fn key(path: &Path) -> String {
    path.as_str().to_lowercase()
}

/// The decision in words, for `bridgehead route ADDRESS`.
pub fn explain(config: &RelayConfig, path: &Path) -> String {
    let table = RouteTable::new(config);
    let mut out = String::new();
    let mut say = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    if let Some(mailbox) = table.mailbox(path) {
        say(format!("{path}: replication mailbox {mailbox}; taken out here, never relayed"));
        return out;
    }
    match table.is_own(path) {
        true => say(format!("{path}: a domain of ours; anybody may send to it")),
        false => say(format!("{path}: not a domain of ours; only trusted networks may send to it")),
    }
    if config.known_recipients_only && table.is_own(path) {
        say("  and only if the directory knows the address (550 5.1.1 otherwise)".into());
    }
    match table.space(path) {
        None => say("  no address space covers it: 550 5.1.2".into()),
        Some(space) => {
            say(format!("  address space {}", space.pattern));
            for (i, next_hop) in space.next_hops.iter().enumerate() {
                let order = if i == 0 { "next hop" } else { "then, if that is away," };
                say(format!("  {order} {} (tls {})", next_hop.host, next_hop.tls));
            }
        }
    }
    out
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressPattern::Any => f.write_str("*"),
            AddressPattern::Subdomains(parent) => write!(f, "*{parent}"),
            AddressPattern::Domain(domain) => f.write_str(domain),
            AddressPattern::Address(path) => f.write_str(path.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::relay::RouteConfig;

    fn hop(name: &str) -> Arc<NextHopConfig> {
        Arc::new(NextHopConfig::to(name.parse().unwrap()))
    }

    fn route(pattern: &str, cost: u32, hops: &[&str]) -> RouteConfig {
        RouteConfig {
            pattern: pattern.parse().unwrap(),
            cost,
            next_hops: hops.iter().map(|name| hop(name)).collect(),
        }
    }

    fn config() -> RelayConfig {
        RelayConfig {
            routes: vec![
                route("*", 10, &["mx:25"]),
                route("example.com", 20, &["backup:25"]),
                route("example.com", 10, &["store:25", "second:25"]),
                route(".example.com", 10, &["sub:25"]),
                route(".deep.example.com", 10, &["deep:25"]),
                route("vip@example.com", 10, &["vip:25"]),
            ],
            own_domains: vec!["example.com".parse().unwrap(), ".example.com".parse().unwrap()],
            replication_mailboxes: vec![Path::parse("repl@example.com").unwrap()],
            ..RelayConfig::default()
        }
    }

    fn first(path: &str, trusted: bool) -> String {
        match RouteTable::new(&config()).decide(&Path::parse(path).unwrap(), trusted) {
            Decision::Relay(space) => space.next_hops[0].host.to_string(),
            Decision::Intercept(mailbox) => format!("intercept {mailbox}"),
            Decision::Refuse(why) => format!("{why:?}"),
        }
    }

    #[test]
    fn the_most_specific_address_space_wins() {
        assert_eq!(first("a@Example.COM", false), "store:25");
        assert_eq!(first("VIP@example.com", false), "vip:25");
        assert_eq!(first("a@x.example.com", false), "sub:25");
        assert_eq!(first("a@x.deep.example.com", false), "deep:25");
        assert_eq!(first("a@deep.example.com", false), "sub:25");
        assert_eq!(first("a@example.com.", false), "store:25");
        assert_eq!(first("a@other.example", true), "mx:25");
    }

    #[test]
    fn costs_order_the_next_hops_of_one_pattern() {
        let table = RouteTable::new(&config());
        let space = table.space(&Path::parse("a@example.com").unwrap()).unwrap();
        let hosts: Vec<_> = space.next_hops.iter().map(|h| h.host.to_string()).collect();
        assert_eq!(hosts, ["store:25", "second:25", "backup:25"]);
    }

    #[test]
    fn it_is_no_open_relay() {
        assert_eq!(first("a@other.example", false), "RelayingDenied");
        assert_eq!(first("a@notexample.com", false), "RelayingDenied");
        assert_eq!(first("\"a@other.example\"@third.example", false), "RelayingDenied");
        assert_eq!(first("Postmaster", false), "mx:25");
    }

    #[test]
    fn replication_mailboxes_are_taken_out_whoever_sends() {
        for path in ["repl@example.com", "REPL@EXAMPLE.com", "repl+token@example.com"] {
            assert_eq!(first(path, false), "intercept <repl@example.com>");
        }
        assert_eq!(first("xrepl@example.com", false), "store:25");
    }

    #[test]
    fn mx_routes_differ_by_domain() {
        let table = RouteTable::new(&config());
        let onward = |path: &str| {
            let path = Path::parse(path).unwrap();
            table.space(&path).unwrap().onward(&path)
        };
        assert_ne!(onward("a@one.example"), onward("a@two.example"));
        assert_eq!(onward("a@one.example"), onward("b@One.example"));
        assert_eq!(onward("a@x.example.com"), onward("a@y.example.com"));
    }

    #[test]
    fn explains_itself() {
        let text = explain(&config(), &Path::parse("a@example.com").unwrap());
        assert!(text.contains("a domain of ours") && text.contains("next hop store:25"), "{text}");
        assert!(
            explain(&config(), &Path::parse("repl+x@example.com").unwrap()).contains("replication mailbox")
        );
    }
}
