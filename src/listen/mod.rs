//! The listener: accept, line layer, grammar, session; what is decided elsewhere is only carried out here.
//!
//! ```text
//! accept ─► admission ─► session ─► smtp::Command ─► grammar (mailin: is it in sequence?)
//!                           │
//!                           ├─ transaction   MAIL, RCPT: route.rs decides, the next hop answers
//!                           ├─ body, chunk   DATA, BDAT: the message streams through
//!                           ├─ auth, passed  AUTH: a password file or the next hop judges
//!                           └─ refusal       every no of ours, as a reply
//! ```

mod admission;
mod auth;
mod body;
mod certificate;
mod chunk;
mod client;
mod counters;
mod form;
mod grammar;
mod hello;
pub mod intercept;
mod passed;
mod proxy;
mod refusal;
mod session;
mod trace;
mod transaction;

pub use certificate::CertificateError;
pub use counters::CountersSnapshot;
pub use intercept::{Delivery, Intercept, InterceptedEnvelope, Recipients};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::config::relay::{ListenAddress, ListenerConfig, ListenerTlsMode, Network, RelayConfig};
use crate::relay::Relay;
use crate::relay::stream::{Plain, Stream};

use admission::Admission;
use certificate::Certificates;
use counters::Counters;
use refusal::Refusal;
use session::Session;

/// What all sessions share.
pub struct Service {
    pub(crate) relay: Arc<Relay>,
    pub(crate) intercept: Arc<dyn Intercept>,
    pub(crate) recipients: Option<Arc<dyn Recipients>>,
    pub(crate) counters: Counters,
    pub(crate) admission: Arc<Admission>,
    pub(crate) certificates: Certificates,
}

impl Service {
    /// `recipients`: who knows the addresses of our own domains, where that is asked.
    pub fn new(
        relay: Arc<Relay>,
        intercept: Arc<dyn Intercept>,
        recipients: Option<Arc<dyn Recipients>>,
    ) -> Arc<Service> {
        let service = Arc::new(Service {
            relay,
            intercept,
            recipients,
            counters: Counters::default(),
            admission: Arc::default(),
            certificates: Certificates::default(),
        });
        raise_descriptor_limit();
        if let Err(error) = service.load_certificates() {
            warn!(target: "bridgehead::listen", %error, "TLS is not available");
        }
        service
    }

    /// Reads the listeners' certificates again; those in force stay so where one cannot be used.
    pub fn load_certificates(&self) -> Result<(), CertificateError> {
        self.certificates.load(&self.relay.settings())
    }

    /// The certificate of a listener, by the configuration in force.
    pub(crate) fn acceptor(&self, listener: &str) -> Option<TlsAcceptor> {
        if self.certificates.are_stale(&self.relay.settings())
            && let Err(error) = self.load_certificates()
        {
            warn!(target: "bridgehead::listen", %error, "the former certificates stay in force");
        }
        self.certificates.acceptor(listener)
    }

    /// What happened since the start.
    pub fn counters(&self) -> CountersSnapshot {
        self.counters.snapshot()
    }

    /// Client connections that are open now.
    pub fn sessions_open(&self) -> usize {
        self.admission.open()
    }
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds the address of a listener's configuration.
    pub async fn bind(address: &ListenAddress) -> io::Result<Listener> {
        match address {
            ListenAddress::Tcp(address) => {
                let socket = if address.is_ipv4() {
                    tokio::net::TcpSocket::new_v4()?
                } else {
                    tokio::net::TcpSocket::new_v6()?
                };
                socket.set_reuseaddr(true)?;
                // What it accepts inherits this: a small reply that waits for an acknowledgement costs 40 ms.
                socket.set_nodelay(true)?;
                socket.bind(*address)?;
                Ok(Listener::Tcp(socket.listen(BACKLOG)?))
            }
            ListenAddress::Unix { path, mode } => {
                use std::os::unix::fs::{FileTypeExt, PermissionsExt};
                if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
                Ok(Listener::Unix(listener))
            }
        }
    }

    /// The port of a TCP listener, for those who bound port 0.
    pub fn port(&self) -> Option<u16> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Listener::Unix(_) => None,
        }
    }

    /// A connection and who is at its other end.
    async fn accept(&self) -> io::Result<(Plain, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => listener.accept().await.map(|(s, from)| (Plain::Tcp(s), Some(from))),
            Listener::Unix(listener) => listener.accept().await.map(|(s, _)| (Plain::Unix(s), None)),
        }
    }
}

/// Serves one listener until `stop` becomes true; then lets open transactions end, for as long as the configuration's
/// `drain` says.
pub async fn serve(
    listener: Listener,
    config: ListenerConfig,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) {
    let config = Arc::new(config);
    let mut sessions = JoinSet::new();
    while !*stop.borrow() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
            changed = stop.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
        };
        match accepted {
            Ok((plain, from)) => {
                let session = welcome(plain, from, config.clone(), service.clone(), stop.clone());
                // Boxed, for spawning would move its five kilobytes several times.
                sessions.spawn(Box::pin(session));
            }
            Err(error) => {
                // Out of descriptors, most likely: others must end before more can begin.
                warn!(target: "bridgehead::listen", listener = config.name, %error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drain = service.relay.settings().config.limits.drain;
    let ended = timeout(drain, async { while sessions.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        service.counters.cut_off(sessions.len());
        warn!(target: "bridgehead::listen", sessions = sessions.len(), "sessions cut off");
    }
}

async fn welcome(
    mut plain: Plain,
    mut address: Option<SocketAddr>,
    config: Arc<ListenerConfig>,
    service: Arc<Service>,
    stop: watch::Receiver<bool>,
) {
    let settings = service.relay.settings();
    let mut input = Vec::new();
    let implicit_tls = config.tls.as_ref().is_some_and(|tls| tls.mode == ListenerTlsMode::Implicit);
    if config.proxy_protocol {
        match proxy_header(&mut plain, address, &settings.config, implicit_tls, &mut input).await {
            Some(proxy::Source::Client(client)) => address = Some(client),
            Some(proxy::Source::Proxy) => {}
            None => {
                debug!(target: "bridgehead::listen", listener = config.name, "no PROXY header from a trusted peer");
                return;
            }
        }
    }
    let _admitted = match service.admission.connection(address.map(|a| a.ip()), &settings.config) {
        Ok(admitted) => admitted,
        Err(refusal) => return turn_away(&mut plain, refusal, &service).await,
    };
    service.counters.session();
    let stream = if implicit_tls {
        let Some(acceptor) = service.acceptor(&config.name) else { return };
        match timeout(HANDSHAKE_PATIENCE, acceptor.accept(plain)).await {
            Ok(Ok(tls)) => Stream::Tls(Box::new(tls.into())),
            _ => return,
        }
    } else {
        Stream::Plain(plain)
    };
    let trusted_peer = is_within(address, &settings.config.trusted_peers);
    Session::new(service, config, stream, address, trusted_peer, stop).with_input(&input).run().await;
}

/// Reads the PROXY header; what came behind it is left in `input`.
async fn proxy_header(
    plain: &mut Plain,
    peer: Option<SocketAddr>,
    config: &RelayConfig,
    implicit_tls: bool,
    input: &mut Vec<u8>,
) -> Option<proxy::Source> {
    if !is_within(peer, &config.trusted_peers) {
        return None;
    }
    let read = timeout(HANDSHAKE_PATIENCE, async {
        // What comes behind the header may be a TLS handshake, which is not ours to read.
        let room = if implicit_tls { 1 } else { 512 };
        loop {
            if let Some((source, used)) = proxy::parse(input).ok()? {
                input.drain(..used);
                return Some(source);
            }
            if (&mut *plain).take(room).read_buf(input).await.ok()? == 0 {
                return None;
            }
        }
    });
    read.await.ok()?
}

fn is_within(address: Option<SocketAddr>, networks: &[Network]) -> bool {
    address.is_none_or(|address| networks.iter().any(|network| network.contains(address.ip())))
}

async fn turn_away(plain: &mut Plain, refusal: Refusal, service: &Service) {
    service.counters.refused(refusal.name());
    let mut out = Vec::new();
    refusal.reply(&service.relay.settings().config.limits).write_to(&mut out);
    let _ = timeout(ACCEPT_PAUSE, plain.write_all(&out)).await;
}

/// A session needs two descriptors, and the soft limit is often 1,024 only.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        debug!(target: "bridgehead::listen", %error, "cannot raise the limit on open files");
    }
}

const BACKLOG: u32 = 1024;
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(15);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_waits_for_no_acknowledgement() {
        let listener = Listener::bind(&ListenAddress::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.port().unwrap()));
        let client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (accepted, from) = listener.accept().await.unwrap();
        assert_eq!(from, client.local_addr().ok());
        let Plain::Tcp(accepted) = accepted else { panic!("not TCP") };
        assert!(accepted.nodelay().unwrap());
    }
}
