//! How a session begins and begins anew: EHLO, STARTTLS, and what a trusted peer says of the client that it
//! speaks for.
//!
//! PROMISES
//!   What is offered can be honoured with the next hops in use. Nothing that was said in the clear counts under TLS, and
//!   nothing that the peer said counts for the client of XCLIENT. That client goes onward as XFORWARD, never as XCLIENT.
//!
//! STANDARDS
//!   RFC 5321 section 4.1.1.1, RFC 2033 section 4.1, RFC 3207 section 4; Postfix's XFORWARD_README and XCLIENT_README.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::client::Client;
use super::grammar::{Grammar, Step};
use super::refusal::Refusal;
use super::session::{End, Flow, Session};
use crate::config::relay::{AuthSource, Protocol};
use crate::relay::stream::Stream;
use crate::smtp::{ClientAttributes, Enhanced, Extensions, Reply, xforward};

impl Session {
    pub(super) async fn hello(&mut self, domain: &str, extended: bool, lmtp: bool) -> Flow {
        if lmtp != (self.listener.protocol == Protocol::Lmtp) {
            let need = if lmtp { "This is SMTP: EHLO or HELO" } else { "This is LMTP: LHLO" };
            return self.refuse(Refusal::OutOfSequence(need));
        }
        self.end_transaction();
        self.settings = self.service.relay.settings();
        if self.grammar.accept(Step::Hello).is_err() {
            return self.refuse(Refusal::Internal);
        }
        self.client.helo = Some(domain.into());
        self.client.extended = extended;
        self.client.lmtp = lmtp;
        let hostname = self.settings.config.hostname.clone();
        if !extended {
            self.offered = Extensions::default();
            self.say(&Reply::new(250, None, &hostname));
            return Ok(());
        }
        self.offered = self.extensions().await;
        let mut text = hostname;
        for line in self.offered.lines() {
            text.push('\n');
            text.push_str(&line);
        }
        self.say(&Reply::new(250, None, &text));
        Ok(())
    }

    /// What we can honour: our own extensions through those of every next hop that we know. One that was never reached
    /// is asked now, for a moment.
    async fn extensions(&mut self) -> Extensions {
        let config = &self.settings.config;
        let mut offered = Extensions {
            pipelining: true,
            size: Some(config.limits.message_bytes_max),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            enhanced_status_codes: true,
            chunking: true,
            binary_mime: true,
            starttls: !self.stream.is_tls() && self.listener.tls.is_some(),
            ..Extensions::default()
        };
        if let Some(auth) = &self.listener.auth
            && (self.stream.is_tls() || auth.without_tls)
        {
            offered.auth_mechanisms = match auth.source {
                AuthSource::PasswordFile(_) => "PLAIN LOGIN".into(),
                AuthSource::NextHop => self.passed_mechanisms().await.into(),
            };
            offered.auth = !offered.auth_mechanisms.is_empty();
        }
        if self.trusted_peer {
            offered.xforward = xforward::XFORWARD.into();
            offered.xclient = xforward::XCLIENT.into();
        }
        let mut probes = PROBES_MAX;
        // A binary message cannot be converted, so it is not invited before every next hop is known to take it.
        let mut unknown = self.settings.by_mx || self.settings.next_hops.is_empty();
        for config in &self.settings.next_hops {
            let hop = self.service.relay.next_hop(config);
            if hop.extensions().is_none() && probes > 0 {
                probes -= 1;
                self.service.relay.probe(&self.settings, config, PROBE_PATIENCE).await;
            }
            match hop.extensions() {
                Some(extensions) => offered = offered.through(&extensions),
                None => unknown = true,
            }
        }
        offered.binary_mime &= !unknown;
        offered
    }

    pub(super) fn xforward(&mut self, arguments: &str) -> Flow {
        if !self.trusted_peer {
            return self.refuse(Refusal::NotTrusted("XFORWARD"));
        }
        if self.transaction.is_some() {
            return self.refuse(Refusal::OutOfSequence("XFORWARD goes before MAIL"));
        }
        match self.client.forwarded.update(arguments, xforward::XFORWARD) {
            Ok(()) => self.ok("Ok"),
            Err(error) => self.refuse(Refusal::Attribute(attribute_text(error))),
        }
    }

    /// From here on the session is another client's.
    pub(super) fn xclient(&mut self, arguments: &str) -> Flow {
        if !self.trusted_peer {
            return self.refuse(Refusal::NotTrusted("XCLIENT"));
        }
        if self.transaction.is_some() {
            return self.refuse(Refusal::OutOfSequence("XCLIENT goes before MAIL"));
        }
        let mut told = ClientAttributes::default();
        if let Err(error) = told.update(arguments, xforward::XCLIENT) {
            return self.refuse(Refusal::Attribute(attribute_text(error)));
        }
        let was = self.client.address;
        if let Some(ip) = told.address {
            self.client.address = Some(SocketAddr::new(ip, told.port.unwrap_or(0)));
        }
        self.client = Client {
            name: told.name,
            helo: told.helo,
            login: told.login,
            tls: self.client.tls,
            ..Client::new(self.client.address.or(was))
        };
        self.authenticated = None;
        self.grammar = Grammar::new(self.client.address.map(|a| a.ip()));
        self.offered = Extensions::default();
        self.greet();
        Ok(())
    }

    pub(super) async fn start_tls(&mut self) -> Flow {
        if self.stream.is_tls() {
            return self.refuse(Refusal::TlsActive);
        }
        let Some(acceptor) = self.service.acceptor(&self.listener.name) else {
            let refusal =
                if self.listener.tls.is_some() { Refusal::TlsUnavailable } else { Refusal::NotImplemented };
            return self.refuse(refusal);
        };
        // Octets behind STARTTLS would be taken for commands under TLS (CVE-2011-0411).
        if !self.input.is_empty() {
            return self.refuse(Refusal::Pipelined("STARTTLS")).and(Err(End::Said));
        }
        self.end_transaction();
        self.say(&Reply::new(220, Enhanced(2, 0, 0), "Go ahead"));
        self.flush().await?;
        let patience = self.settings.config.limits.command_timeout;
        let stream = std::mem::replace(&mut self.stream, Stream::Closed);
        let Stream::Plain(plain) = stream else {
            return Err(End::Gone(io::ErrorKind::InvalidInput.into()));
        };
        match timeout(patience, acceptor.accept(plain)).await {
            Ok(Ok(tls)) => self.stream = Stream::Tls(Box::new(tls.into())),
            Ok(Err(error)) => return Err(End::Gone(error)),
            Err(_) => return Err(End::Gone(io::ErrorKind::TimedOut.into())),
        }
        // Nothing that was said in the clear counts any more (RFC 3207 section 4.2).
        let address = self.client.address;
        self.client = Client::new(address);
        self.client.tls = true;
        self.authenticated = None;
        self.offered = Extensions::default();
        self.grammar = Grammar::new(address.map(|a| a.ip()));
        Ok(())
    }
}

fn attribute_text(error: xforward::AttributeError) -> &'static str {
    match error {
        xforward::AttributeError::Syntax => "Attributes are NAME=value",
        xforward::AttributeError::Unknown => "Attribute not supported",
        xforward::AttributeError::Value => "Attribute value malformed",
    }
}

/// How long EHLO waits to learn what a next hop offers that was never reached.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// How many next hops one EHLO asks so; the others are learnt by and by.
const PROBES_MAX: usize = 2;
