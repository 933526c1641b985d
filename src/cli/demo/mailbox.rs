//! The demo's mailbox: a listener of our own behind beta that keeps what arrives, and an ordinary message
//! sent to it through both sites.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Daemons;
use crate::config::relay::{ListenerConfig, NextHopConfig, NextHopHost, RelayConfig, RouteConfig};
use crate::listen::intercept::{Delivery, Intercept, InterceptedEnvelope};
use crate::listen::{self, Listener, Service};
use crate::relay::Relay;
use crate::smtp::{Enhanced, Envelope, Path, Reply};

const MAILBOX: &str = "grace@beta.example";

const MESSAGE: &str = "From: Ada <ada@alpha.example>\r\nTo: Grace <grace@beta.example>\r\nSubject: an ordinary \
message\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
Grüße!\r\n..this line began with a dot\r\n\r\n";

pub struct Sink {
    runtime: Runtime,
    port: u16,
    arrived: Mutex<Receiver<Vec<u8>>>,
    _stop: watch::Sender<bool>,
}

/// Keeps each message that arrives for the mailbox.
struct Keep(Sender<Vec<u8>>);

impl Intercept for Keep {
    fn deliver(&self, _envelope: InterceptedEnvelope, message: Vec<u8>) -> Delivery<'_> {
        let kept = self.0.send(message);
        Box::pin(async move {
            match kept {
                Ok(()) => Reply::new(250, Enhanced(2, 0, 0), "kept"),
                Err(_) => Reply::new(451, Enhanced(4, 3, 0), "the demo is over"),
            }
        })
    }
}

impl Sink {
    /// Starts listening. Should the demo be interrupted, the daemons are ended and `dir` is removed.
    pub fn start(dir: PathBuf, daemons: Daemons) -> io::Result<Sink> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                daemons.end();
                // What cannot be removed is in the temporary directory anyway.
                let _ = std::fs::remove_dir_all(dir);
                std::process::exit(130);
            }
        });
        let listener = ListenerConfig::smtp("mailbox", SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = Arc::new(RelayConfig {
            hostname: "mailbox.beta.example".to_owned(),
            replication_mailboxes: Path::parse(MAILBOX).into_iter().collect(),
            ..RelayConfig::default()
        });
        let (keep, arrived) = channel();
        let (stop, stopping) = watch::channel(false);
        let bound = runtime.block_on(Listener::bind(&listener.address))?;
        let port = bound.port().unwrap_or_default();
        let service = Service::new(Relay::new(config), Arc::new(Keep(keep)), None);
        runtime.spawn(listen::serve(bound, listener, service, stopping));
        Ok(Sink { runtime, port, arrived: Mutex::new(arrived), _stop: stop })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends the message to the site that listens on `port` and waits for it to come out here.
    pub fn pass_message(&self, port: u16, wait: Duration) -> io::Result<String> {
        let alpha = NextHopConfig::to(NextHopHost::Address(SocketAddr::from(([127, 0, 0, 1], port))));
        let config = RelayConfig { routes: vec![RouteConfig::default_to(alpha)], ..RelayConfig::default() };
        let path = |text| Path::parse(text).map_err(io::Error::other);
        let envelope = Envelope::plain(path("ada@alpha.example")?, path(MAILBOX)?);
        let relay = Relay::new(Arc::new(config));
        let reply =
            self.runtime.block_on(relay.submit(&envelope, MESSAGE.as_bytes())).map_err(io::Error::other)?;
        if !reply.is_positive() {
            return Err(io::Error::other(format!("refused: {reply}")));
        }
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let received = arrived.recv_timeout(wait).map_err(|_| io::Error::other("it did not arrive"))?;
        let Some(traces) = received.strip_suffix(MESSAGE.as_bytes()) else {
            return Err(io::Error::other("it was changed on the way"));
        };
        let count = String::from_utf8_lossy(traces).matches("Received:").count();
        Ok(format!("arrived, {} octets unchanged, with {count} trace headers before them", MESSAGE.len()))
    }
}
