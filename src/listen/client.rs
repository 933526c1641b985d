//! Who is at the other end of a session, as far as we know and were told.

use std::net::SocketAddr;

use crate::config::relay::Network;
use crate::smtp::ClientAttributes;

/// The client of one session.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// After PROXY protocol and XCLIENT; `None` on a Unix socket.
    pub address: Option<SocketAddr>,
    /// Its IP address as text, an IPv4 one as such; empty on a Unix socket.
    pub ip: Box<str>,
    /// The name that a trusted peer found for it (XCLIENT).
    pub name: Option<Box<str>>,
    /// What EHLO, HELO or LHLO claimed.
    pub helo: Option<Box<str>>,
    /// EHLO or LHLO rather than HELO.
    pub extended: bool,
    pub lmtp: bool,
    pub tls: bool,
    /// The user who authenticated here, or whom a trusted peer vouches for by XCLIENT.
    pub login: Option<Box<str>>,
    /// This message announced SMTPUTF8.
    pub utf8: bool,
    /// What a trusted peer said of the client that it speaks for (XFORWARD).
    pub forwarded: ClientAttributes,
}

impl Client {
    pub fn new(address: Option<SocketAddr>) -> Client {
        let ip = address.map(|a| a.ip().to_canonical().to_string()).unwrap_or_default().into();
        Client { address, ip, ..Client::default() }
    }

    /// Whether one of the networks contains it. A Unix socket's file mode decides who may use it, so its
    /// clients count as inside.
    pub fn is_within(&self, networks: &[Network]) -> bool {
        match self.address {
            Some(address) => networks.iter().any(|network| network.contains(address.ip())),
            None => true,
        }
    }

    /// The `with` of a `Received:` field (RFC 3848, RFC 6531).
    pub fn protocol_word(&self) -> &'static str {
        let index = usize::from(self.tls) + 2 * usize::from(self.login.is_some());
        match (self.lmtp, self.extended, self.utf8) {
            (true, _, true) => ["UTF8LMTP", "UTF8LMTPS", "UTF8LMTPA", "UTF8LMTPSA"][index],
            (true, _, false) => ["LMTP", "LMTPS", "LMTPA", "LMTPSA"][index],
            (false, _, true) => ["UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"][index],
            (false, true, false) => ["ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"][index],
            (false, false, false) => "SMTP",
        }
    }

    /// What we say of it by XFORWARD: what we were told or, where we were told nothing, what we see.
    pub fn attributes(&self) -> ClientAttributes {
        if !self.forwarded.is_empty() {
            return self.forwarded.clone();
        }
        ClientAttributes {
            name: self.name.clone(),
            address: self.address.map(|a| a.ip().to_canonical()),
            port: self.address.map(|a| a.port()),
            helo: self.helo.clone(),
            protocol: Some(if self.extended { "ESMTP" } else { "SMTP" }.into()),
            source: self.address.is_none().then(|| "LOCAL".into()),
            ..ClientAttributes::default()
        }
    }
}
