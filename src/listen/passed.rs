//! AUTH, passed through: the next hop of the default route challenges and judges, we carry the lines.
//!
//! PROMISES
//!   The connection that a client authenticated on is that session's until it ends; no other client ever gets it. What
//!   is said in the exchange is neither kept nor logged. Nobody counts as authenticated but by the next hop's 235.
//!
//! STANDARDS
//!   RFC 4954 sections 4 (the exchange, `*`) and 6 (replies).
//!
//! LIMITS
//!   Mechanisms that bind to the TLS channel, that need the client's certificate or that go on under a security layer
//!   of their own cannot pass a third party and are not offered.
//!
//! FAILURE
//!   454 where no next hop can be reached or it would get the exchange in the clear. When the connection is lost later, the
//!   next command but QUIT is answered with 421, since only the client can authenticate again. A message that is refused in
//!   its middle costs the connection if it goes as DATA, which only its end or that of the connection ends.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::refusal::Refusal;
use super::session::{End, Flow, Session};
use crate::relay::connection::ConnectionError;
use crate::relay::dial::may_carry_password;
use crate::relay::next_hop::{Lease, NextHop, Owned};
use crate::route::Onward;
use crate::smtp::{Extensions, Reply};

/// The connection on which this session's client authenticated.
#[derive(Debug)]
pub struct Authenticated {
    /// Mail that goes this way uses it.
    pub onward: Onward,
    next_hop: Arc<NextHop>,
    connection: Owned,
}

impl Authenticated {
    /// For one transaction; releasing the lease brings it back here.
    pub fn take(&self) -> Option<Lease> {
        self.connection.take(&self.next_hop)
    }

    fn is_alive(&self) -> bool {
        self.connection.is_quiet()
    }

    pub fn say_goodbye(&self) {
        if let Some(mut lease) = self.take() {
            lease.connection.say_goodbye();
        }
    }
}

impl Session {
    /// Whether the client authenticated on a connection that is gone. Not during a transaction, which may have it.
    pub(super) fn has_lost_authentication(&self) -> bool {
        self.authenticated.as_ref().is_some_and(|own| !own.is_alive())
    }

    /// The mechanisms that the default route's next hop offers and that can pass us.
    pub(super) async fn passed_mechanisms(&self) -> String {
        let Some(onward) = self.settings.routes.default_onward() else { return String::new() };
        for config in &onward.next_hops {
            let hop = self.service.relay.next_hop(config);
            self.service.relay.probe(&self.settings, config, PROBE_PATIENCE).await;
            if let Some(extensions) = hop.extensions() {
                return passable(&extensions);
            }
        }
        String::new()
    }

    /// One exchange, to the next hop's verdict.
    pub(super) async fn pass_auth(&mut self, mechanism: &str, initial: Option<&str>) -> Flow {
        if !self.input.is_empty() {
            return self.refuse(Refusal::Pipelined("AUTH")).and(Err(End::Said));
        }
        let Some(onward) = self.settings.routes.default_onward() else {
            return self.refuse(Refusal::AuthUnavailable);
        };
        let relay = self.service.relay.clone();
        let mut lease = match relay.acquire(&self.settings, &onward, true, &[]).await {
            Ok(lease) => lease,
            Err(error) => {
                warn!(target: "bridgehead::session", %error, "nobody to authenticate to");
                return self.refuse(Refusal::AuthUnavailable);
            }
        };
        let mechanism = mechanism.to_ascii_uppercase();
        if !passable(lease.connection.extensions()).split(' ').any(|offered| offered == mechanism) {
            return self.refuse(Refusal::AuthMechanism);
        }
        let allowed = self.listener.auth.as_ref().is_some_and(|auth| auth.without_tls);
        if !may_carry_password(lease.connection.is_tls(), lease.connection.is_near(), allowed) {
            warn!(target: "bridgehead::session", next_hop = %lease.next_hop.config.host, "AUTH would go on in the clear");
            return self.refuse(Refusal::AuthUnavailable);
        }
        let command = match initial {
            Some(initial) => format!("AUTH {mechanism} {initial}\r\n"),
            None => format!("AUTH {mechanism}\r\n"),
        };
        match self.carry(&mut lease, command).await? {
            Ok(reply) if reply.code() == 235 => {
                let next_hop = lease.next_hop.clone();
                info!(target: "bridgehead::session", next_hop = %next_hop.config.host, mechanism, "authenticated by the next hop");
                let connection = lease.own();
                self.authenticated = Some(Authenticated { onward, next_hop, connection });
                self.client.login = Some("next hop".into());
                self.say(&reply);
                Ok(())
            }
            Ok(reply) if reply.code() == 421 || reply.is_positive() => self.refuse(Refusal::AuthUnavailable),
            Ok(reply) => {
                info!(target: "bridgehead::session", mechanism, code = reply.code(), "authentication failed");
                tokio::time::sleep(FAILURE_PAUSE).await;
                self.say(&reply);
                self.service.counters.refused("next_hop_refused_auth");
                self.count_error()
            }
            Err(error) => {
                warn!(target: "bridgehead::session", %error, "next hop failed at AUTH");
                self.refuse(Refusal::AuthUnavailable)
            }
        }
    }

    /// Lines to the next hop and challenges back, until it says something that is no challenge.
    async fn carry(
        &mut self,
        lease: &mut Lease,
        mut line: String,
    ) -> Result<Result<Reply, ConnectionError>, End> {
        let patience = self.settings.config.limits.reply_timeout;
        loop {
            if let Err(error) = lease.connection.send(line.as_bytes(), patience).await {
                return Ok(Err(error));
            }
            match lease.connection.reply(patience).await {
                Ok(reply) if reply.code() == 334 => {
                    let answer = self.challenge(reply.text()).await?;
                    line = format!("{}\r\n", answer.as_deref().unwrap_or("*"));
                }
                verdict => return Ok(verdict),
            }
        }
    }
}

/// Of a next hop's mechanisms those that a third party can carry.
fn passable(extensions: &Extensions) -> String {
    let offered = extensions.auth_mechanisms.split(' ');
    offered.filter(|mechanism| PASSABLE.contains(mechanism)).collect::<Vec<_>>().join(" ")
}

/// Neither channel binding nor a security layer.
const PASSABLE: [&str; 9] = [
    "PLAIN",
    "LOGIN",
    "CRAM-MD5",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "SCRAM-SHA-512",
    "NTLM",
    "XOAUTH2",
    "OAUTHBEARER",
];

const PROBE_PATIENCE: Duration = Duration::from_secs(1);
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
