//! Opens a connection to a next hop: address, greeting, EHLO, STARTTLS, AUTH.
//!
//! FAILURE
//!   Whatever goes wrong here makes the next hop unavailable: nothing was sent yet, the client gets 451.
//!
//! STANDARDS
//!   RFC 5321 sections 3.1, 3.2, 4.1.1.1; RFC 3207; RFC 4954 and RFC 4616 (AUTH PLAIN).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

use super::connection::{Connection, ConnectionError};
use super::mx::MailExchangers;
use super::stream::{Plain, Stream};
use super::tls::ClientTls;
use crate::config::relay::{Credentials, NextHopConfig, NextHopHost, NextHopTls, RelayConfig};
use crate::smtp::{Extensions, Reply};

/// Why a next hop cannot be used now.
#[derive(Debug, Error)]
pub enum DialError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("it is this relay itself")]
    Ourselves,
    #[error("no address for {0}")]
    NoAddress(String),
    #[error("the domain {0} does not exist, or has neither MX nor address")]
    NoDomain(String),
    #[error("the domain {0} takes no mail")]
    NullMx(String),
    #[error("no connection within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("it refused our {command}: {reply}")]
    Refused { command: &'static str, reply: Reply },
    #[error("it offers no STARTTLS, which is required")]
    NoTls,
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("it offers no AUTH that we can use")]
    NoAuth,
    #[error("AUTH would send the password in the clear")]
    AuthInClear,
    #[error("all {0} connections are in use")]
    Busy(usize),
}

/// Opens one connection and brings it to where MAIL can be sent.
pub async fn dial(
    hop: &NextHopConfig,
    config: &RelayConfig,
    names: &MailExchangers,
    tls: &ClientTls,
) -> Result<Connection, DialError> {
    let patience = config.limits.connect_timeout;
    match tokio::time::timeout(patience, open(hop, config, names, tls)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Slow(patience)),
    }
}

async fn open(
    hop: &NextHopConfig,
    config: &RelayConfig,
    names: &MailExchangers,
    tls: &ClientTls,
) -> Result<Connection, DialError> {
    let patience = config.limits.connect_timeout;
    let (plain, near) = connect(&hop.host, config, names).await?;
    let mut connection = Connection::new(Stream::Plain(plain));
    let greeting = connection.reply(patience).await?;
    if greeting.code() != 220 {
        return Err(DialError::Refused { command: "connection", reply: greeting });
    }
    hello(&mut connection, config).await?;
    let wanted = hop.tls != NextHopTls::Off;
    if wanted && connection.extensions().starttls {
        connection = start_tls(connection, hop, tls, patience).await?;
        hello(&mut connection, config).await?;
    } else if matches!(hop.tls, NextHopTls::Encrypt | NextHopTls::Verify) {
        return Err(DialError::NoTls);
    }
    connection.set_near(near);
    if let Some(credentials) = &hop.auth {
        if !may_carry_password(connection.is_tls(), near, false) {
            return Err(DialError::AuthInClear);
        }
        authenticate(&mut connection, credentials, patience).await?;
    }
    Ok(connection)
}

/// Connects; tells also whether the next hop is on this machine.
async fn connect(
    host: &NextHopHost,
    config: &RelayConfig,
    names: &MailExchangers,
) -> Result<(Plain, bool), DialError> {
    match host {
        NextHopHost::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(DialError::Connect)?;
            Ok((Plain::Unix(stream), true))
        }
        NextHopHost::Address(address) => {
            let stream = TcpStream::connect(address).await.map_err(DialError::Connect)?;
            known_apart(stream, config)
        }
        NextHopHost::Name(name, port) => by_name(name, *port, config, names).await,
        // The relay asks the MX first and dials names.
        NextHopHost::Mx(_) => Err(DialError::NoAddress("mx".into())),
    }
}

async fn by_name(
    name: &str,
    port: u16,
    config: &RelayConfig,
    names: &MailExchangers,
) -> Result<(Plain, bool), DialError> {
    let addresses = names.addresses(name, port).await?;
    // A silent address leaves time for the others, and for the greeting.
    let patience = config.limits.connect_timeout / (addresses.len() as u32 + 1);
    let mut last = DialError::NoAddress(name.to_owned());
    for address in addresses {
        match tokio::time::timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return known_apart(stream, config),
            Ok(Err(error)) => last = DialError::Connect(error),
            Err(_) => last = DialError::Slow(patience),
        }
    }
    Err(last)
}

/// Refuses a connection that ended at one of our own listeners: each RCPT would come back to us as another session,
/// until no connection is left. An address that is translated to ours on the way is not noticed.
fn known_apart(stream: TcpStream, config: &RelayConfig) -> Result<(Plain, bool), DialError> {
    let (near, far) = (stream.local_addr(), stream.peer_addr().map_err(DialError::Connect)?);
    let on_loopback = far.ip().is_loopback();
    let this_machine = on_loopback || near.is_ok_and(|near| near.ip() == far.ip());
    if this_machine && config.listeners.iter().any(|listener| listener.address.takes(far)) {
        return Err(DialError::Ourselves);
    }
    Ok((Plain::tcp(stream), on_loopback))
}

/// EHLO, or HELO where that is not understood.
async fn hello(connection: &mut Connection, config: &RelayConfig) -> Result<(), DialError> {
    let patience = config.limits.connect_timeout;
    connection.send(format!("EHLO {}\r\n", config.hostname).as_bytes(), patience).await?;
    let reply = connection.reply(patience).await?;
    if reply.code() == 250 {
        connection.learn(Extensions::parse(reply.lines()));
        return Ok(());
    }
    if !reply.is_permanent() {
        return Err(DialError::Refused { command: "EHLO", reply });
    }
    connection.send(format!("HELO {}\r\n", config.hostname).as_bytes(), patience).await?;
    let reply = connection.reply(patience).await?;
    connection.learn(Extensions::default());
    if reply.code() == 250 { Ok(()) } else { Err(DialError::Refused { command: "HELO", reply }) }
}

async fn start_tls(
    mut connection: Connection,
    hop: &NextHopConfig,
    tls: &ClientTls,
    patience: Duration,
) -> Result<Connection, DialError> {
    connection.send(b"STARTTLS\r\n", patience).await?;
    let reply = connection.reply(patience).await?;
    if reply.code() != 220 {
        return Err(DialError::Refused { command: "STARTTLS", reply });
    }
    // Replies that came in the clear behind the 220 must not count as said under TLS (CVE-2011-0411).
    if connection.has_unasked() {
        return Err(DialError::Connection(connection.unasked().await));
    }
    let Stream::Plain(plain) = connection.into_stream() else {
        return Err(DialError::NoTls);
    };
    let connector = match hop.tls {
        NextHopTls::Verify => &tls.verify,
        _ => &tls.any,
    };
    let stream = connector.connect(server_name(&hop.host), plain).await.map_err(DialError::Tls)?;
    Ok(Connection::new(Stream::Tls(Box::new(stream.into()))))
}

fn server_name(host: &NextHopHost) -> ServerName<'static> {
    let unspecified = || ServerName::from(IpAddr::from([127, 0, 0, 1]));
    match host {
        NextHopHost::Address(address) => ServerName::from(address.ip()),
        NextHopHost::Name(name, _) => ServerName::try_from(name.clone()).unwrap_or_else(|_| unspecified()),
        NextHopHost::Unix(_) | NextHopHost::Mx(_) => unspecified(),
    }
}

/// Whether a password may go to a next hop: under TLS, to one on this machine (`near`), or where the configuration says so.
pub fn may_carry_password(tls: bool, near: bool, allowed: bool) -> bool {
    tls || near || allowed
}

async fn authenticate(
    connection: &mut Connection,
    credentials: &Credentials,
    patience: Duration,
) -> Result<(), DialError> {
    let extensions: Arc<Extensions> = connection.extensions().clone();
    let offers = |name: &str| extensions.auth_mechanisms.split(' ').any(|m| m == name);
    let reply = if offers("PLAIN") {
        let response = BASE64.encode(format!("\0{}\0{}", credentials.user, credentials.password));
        connection.send(format!("AUTH PLAIN {response}\r\n").as_bytes(), patience).await?;
        connection.reply(patience).await?
    } else if offers("LOGIN") {
        connection.send(b"AUTH LOGIN\r\n", patience).await?;
        let mut reply = connection.reply(patience).await?;
        for word in [&credentials.user, &credentials.password] {
            if reply.code() != 334 {
                break;
            }
            connection.send(format!("{}\r\n", BASE64.encode(word)).as_bytes(), patience).await?;
            reply = connection.reply(patience).await?;
        }
        reply
    } else {
        return Err(DialError::NoAuth);
    };
    if reply.code() == 235 { Ok(()) } else { Err(DialError::Refused { command: "AUTH", reply }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_in_the_clear_neither_far_nor_unasked() {
        for (tls, near, allowed, may) in [
            (false, false, false, false),
            (false, false, true, true),
            (false, true, false, true),
            (false, true, true, true),
            (true, false, false, true),
            (true, false, true, true),
            (true, true, false, true),
            (true, true, true, true),
        ] {
            assert_eq!(may_carry_password(tls, near, allowed), may, "{tls} {near} {allowed}");
        }
    }
}
