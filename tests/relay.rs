//! The relay over real sockets, where a dialogue in a text file does not reach: TLS on both sides, Unix sockets, failover, draining,
//! reconfiguration, submission, many sessions at once, large messages.

use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bridgehead::config::relay::{
    AuthSource, Credentials, ListenAddress, ListenerAuth, ListenerConfig, ListenerTls, ListenerTlsMode,
    NextHopConfig, NextHopHost, NextHopTls, RelayConfig, RelayLimits, RouteConfig,
};
use bridgehead::listen::{Delivery, Intercept, InterceptedEnvelope, Listener, Service, serve};
use bridgehead::relay::tls::ClientTls;
use bridgehead::relay::{Relay, SubmitError};
use bridgehead::smtp::{Enhanced, Envelope, Path, Recipient, Reply};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::support::{Recorder, tool};

/// A next hop that keeps every message as it came over the wire, with the number of its connection.
#[derive(Clone, Default)]
struct Hop {
    messages: Arc<Mutex<Vec<Kept>>>,
}

/// Connection number and octets.
type Kept = (usize, Vec<u8>);

impl Hop {
    async fn start() -> (Hop, NextHopHost) {
        Hop::at("127.0.0.1:0").await
    }

    async fn at(address: &str) -> (Hop, NextHopHost) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let hop = Hop::default();
        let kept = hop.clone();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                number += 1;
                tokio::spawn(kept.clone().converse(stream, number));
            }
        });
        (hop, NextHopHost::Address(address))
    }

    async fn converse(self, stream: TcpStream, number: usize) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 hop\r\n").await.ok()?;
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
                return None;
            }
            let reply: &[u8] = match line.get(..4).unwrap_or(&line) {
                b"EHLO" => b"250-hop\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-AUTH PLAIN\r\n250 SIZE\r\n",
                b"AUTH" if line.ends_with(b"PLAIN\r\n") => b"334 \r\n",
                // Or the response to 334, \0ti in base64.
                b"AUTH" | b"AHRp" => b"235 2.7.0 welcome\r\n",
                b"DATA" => {
                    stream.write_all(b"354 go\r\n").await.ok()?;
                    let mut message = Vec::new();
                    while !(message.ends_with(b"\r\n.\r\n") || message == b".\r\n") {
                        if stream.read_until(b'\n', &mut message).await.ok()? == 0 {
                            return None;
                        }
                    }
                    message.truncate(message.len() - 3);
                    self.messages.lock().unwrap().push((number, message));
                    b"250 2.0.0 kept\r\n"
                }
                _ => b"250 ok\r\n",
            };
            stream.write_all(reply).await.ok()?;
        }
    }

    fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    /// The nth message without our trace field.
    fn body(&self, n: usize) -> Vec<u8> {
        let messages = self.messages.lock().unwrap();
        let message = &messages[n].1;
        let text = String::from_utf8_lossy(&message[..message.len().min(400)]).into_owned();
        assert!(text.starts_with("Received: from "), "{text}");
        let end =
            text.find("\r\n\tby").and_then(|at| text[at..].find("+0000\r\n").map(|e| at + e + 7)).unwrap();
        message[end..].to_vec()
    }

    fn received(&self, n: usize) -> String {
        let messages = self.messages.lock().unwrap();
        String::from_utf8_lossy(&messages[n].1[..300.min(messages[n].1.len())]).into_owned()
    }
}

/// Takes what comes.
struct Replication;

impl Intercept for Replication {
    fn deliver(&self, _envelope: InterceptedEnvelope, _message: Vec<u8>) -> Delivery<'_> {
        Box::pin(std::future::ready(Reply::new(250, None, "taken")))
    }
}

/// A running relay.
struct Running {
    address: Option<SocketAddr>,
    relay: Arc<Relay>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

fn config(next_hops: Vec<NextHopConfig>) -> RelayConfig {
    RelayConfig {
        hostname: "relay.example".into(),
        routes: next_hops
            .into_iter()
            .enumerate()
            .map(|(cost, hop)| RouteConfig { cost: cost as u32, ..RouteConfig::default_to(hop) })
            .collect(),
        limits: RelayLimits { drain: Duration::from_secs(5), ..RelayLimits::default() },
        ..RelayConfig::default()
    }
}

fn tcp(name: &str) -> ListenerConfig {
    ListenerConfig::smtp(name, "127.0.0.1:0".parse().unwrap())
}

async fn start(mut config: RelayConfig, listener: ListenerConfig, tls: ClientTls) -> Running {
    config.listeners = vec![listener.clone()];
    let bound = Listener::bind(&listener.address).await.unwrap();
    let address = bound.port().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let relay = Relay::with_tls(Arc::new(config), tls);
    let service = Service::new(relay.clone(), Arc::new(Replication), None);
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(serve(bound, listener, service, stopped));
    Running { address, relay, stop, serving }
}

impl Running {
    async fn client(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address.unwrap()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::greeted(stream).await
    }

    fn host(&self) -> NextHopHost {
        NextHopHost::Address(self.address.unwrap())
    }
}

/// A client that insists on what it expects.
struct Client<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn greeted(stream: S) -> Client<S> {
        let mut client = Client(BufReader::new(stream));
        client.expect("220").await;
        client
    }

    /// Reads one reply, however many lines it has.
    async fn expect(&mut self, code: &str) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).await.unwrap();
            assert!(
                line.starts_with(code),
                "expected {code}, got {reply}{line}{}",
                if read == 0 { "(closed)" } else { "" }
            );
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
        }
    }

    async fn say(&mut self, line: &str, code: &str) -> String {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.expect(code).await
    }

    async fn send(&mut self, body: &[u8]) -> String {
        self.say("MAIL FROM:<a@b.example>", "250").await;
        self.say("RCPT TO:<c@d.example>", "250").await;
        self.say("DATA", "354").await;
        self.0.write_all(body).await.unwrap();
        self.0.write_all(b".\r\n").await.unwrap();
        self.expect("2").await
    }
}

struct Certificate {
    tls: ListenerTls,
    roots: rustls::RootCertStore,
}

fn certificate(directory: &FilePath, mode: ListenerTlsMode) -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    Certificate { tls: ListenerTls { certificate, key, mode }, roots }
}

fn no_roots() -> ClientTls {
    ClientTls::with_roots(rustls::RootCertStore::empty())
}

/// Two relays with TLS between them.
async fn tls_pair(
    tls: NextHopTls,
    trusting: bool,
    offered: bool,
) -> (Hop, Running, Running, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    let (hop, host) = Hop::start().await;
    let certificate = certificate(files.path(), ListenerTlsMode::Required);
    let listener = ListenerConfig { tls: offered.then(|| certificate.tls.clone()), ..tcp("tls") };
    let far = start(config(vec![NextHopConfig::to(host)]), listener, no_roots()).await;
    let roots = if trusting { certificate.roots } else { rustls::RootCertStore::empty() };
    let next_hop = NextHopConfig { tls, ..NextHopConfig::to(far.host()) };
    let near = start(config(vec![next_hop]), tcp("near"), ClientTls::with_roots(roots)).await;
    (hop, far, near, files)
}

#[tokio::test]
async fn mail_crosses_under_tls() {
    for (tls, trusting) in
        [(NextHopTls::May, false), (NextHopTls::Encrypt, false), (NextHopTls::Verify, true)]
    {
        let (hop, _far, near, _files) = tls_pair(tls, trusting, true).await;
        let mut client = near.client().await;
        client.say("EHLO me", "250").await;
        let body = b"Subject: under TLS\r\n\r\ntext\r\n".repeat(5000);
        for _ in 0..2 {
            client.send(&body).await;
        }
        assert!(hop.received(0).contains("with ESMTPS id"), "{}", hop.received(0));
        assert!(hop.body(0).ends_with(&body) && hop.body(1).ends_with(&body));
    }
}

#[tokio::test]
async fn a_next_hop_without_the_tls_that_is_asked_for_gets_no_mail() {
    for (tls, trusting, offered) in [
        (NextHopTls::Verify, false, true),
        (NextHopTls::Encrypt, true, false),
        (NextHopTls::Verify, true, false),
    ] {
        let (hop, _far, near, _files) = tls_pair(tls, trusting, offered).await;
        let mut client = near.client().await;
        client.say("EHLO me", "250").await;
        client.say("MAIL FROM:<a@b.example>", "250").await;
        client.say("RCPT TO:<c@d.example>", "451 4.4.1").await;
        assert_eq!(hop.count(), 0);
    }
}

#[tokio::test]
async fn starttls_is_not_to_be_fooled() {
    let files = tempfile::tempdir().unwrap();
    let (_hop, host) = Hop::start().await;
    let certificate = certificate(files.path(), ListenerTlsMode::Required);
    let listener = ListenerConfig { tls: Some(certificate.tls), ..tcp("tls") };
    let relay = start(config(vec![NextHopConfig::to(host)]), listener, no_roots()).await;
    let mut client = relay.client().await;
    assert!(client.say("EHLO me", "250").await.contains("STARTTLS"));
    client.say("MAIL FROM:<a@b.example>", "530 5.7.0").await;
    // What is sent in the clear behind STARTTLS must not be taken for said under TLS.
    client.say("STARTTLS\r\nNOOP", "554").await;
    assert_eq!(client.0.read(&mut [0; 8]).await.unwrap(), 0);

    let mut client = relay.client().await;
    client.say("EHLO me", "250").await;
    client.say("STARTTLS", "220").await;
    let connector = ClientTls::with_roots(certificate.roots).verify;
    let plain = bridgehead::relay::stream::Plain::tcp(client.0.into_inner());
    let stream = connector.connect("localhost".try_into().unwrap(), plain).await.unwrap();
    let mut client = Client(BufReader::new(stream));
    // Nothing of the time before counts: EHLO comes again, and STARTTLS is not offered twice.
    client.say("MAIL FROM:<a@b.example>", "503").await;
    assert!(!client.say("EHLO me", "250").await.contains("STARTTLS"));
    client.say("STARTTLS", "503").await;
    client.send(b"text\r\n").await;
}

/// A session that authenticated in the clear begins anew under TLS.
#[tokio::test]
async fn who_authenticated_before_starttls_is_forgotten() {
    let files = tempfile::tempdir().unwrap();
    let (hop, host) = Hop::start().await;
    let certificate = certificate(files.path(), ListenerTlsMode::Offered);
    for required in [true, false] {
        let auth = Some(ListenerAuth { source: AuthSource::NextHop, required, without_tls: true });
        let listener = ListenerConfig { tls: Some(certificate.tls.clone()), auth, ..tcp("tls") };
        let mut settings = config(vec![NextHopConfig::to(host.clone())]);
        if required {
            settings.trusted_networks.clear();
        }
        let relay = start(settings, listener, no_roots()).await;
        let mut client = relay.client().await;
        client.say("EHLO me", "250").await;
        client.say("AUTH PLAIN AHRpbQBzZWNyZXQ=", "235").await;
        client.say("STARTTLS", "220").await;
        let connector = ClientTls::with_roots(certificate.roots.clone()).verify;
        let plain = bridgehead::relay::stream::Plain::tcp(client.0.into_inner());
        let stream = connector.connect("localhost".try_into().unwrap(), plain).await.unwrap();
        let mut client = Client(BufReader::new(stream));
        assert!(client.say("EHLO me", "250").await.contains("AUTH PLAIN"));
        match required {
            true => drop(client.say("MAIL FROM:<a@b.example>", "530 5.7.0").await),
            // Who may send without goes by a connection on which nobody authenticated.
            false => drop(client.send(b"text\r\n").await),
        }
    }
    let messages = hop.messages.lock().unwrap();
    let connections: Vec<usize> = messages.iter().map(|(number, _)| *number).collect();
    assert_eq!(connections, [3], "1 and 3 were asked for their extensions, 2 and 4 authenticated");
}

/// In a network of its own, whose one address that is no loopback is as good as one far away.
#[test]
fn passwords_cross_no_network_in_the_clear() {
    let script =
        r#"PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec "$@""#;
    tool("ip");
    let run = std::process::Command::new(tool("unshare"))
        .args(["--net", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "relay::passwords_in_that_network"])
        .output()
        .unwrap();
    let said = [run.stdout, run.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(
        run.status.success() && said.contains("1 passed"),
        "as root, with iproute2 and util-linux: {said}"
    );
}

#[tokio::test]
#[ignore = "run by passwords_cross_no_network_in_the_clear"]
async fn passwords_in_that_network() {
    let files = tempfile::tempdir().unwrap();
    let certificate = certificate(files.path(), ListenerTlsMode::Offered);
    for (address, without_tls, passed) in
        [("192.0.2.1:0", false, "454 4.7.0"), ("192.0.2.1:0", true, "235"), ("127.0.0.1:0", false, "235")]
    {
        let (_hop, host) = Hop::at(address).await;
        let auth = Some(ListenerAuth { source: AuthSource::NextHop, required: true, without_tls });
        let listener = ListenerConfig { tls: Some(certificate.tls.clone()), auth, ..tcp("tls") };
        let relay = start(config(vec![NextHopConfig::to(host)]), listener, no_roots()).await;
        let mut client = relay.client().await;
        client.say("EHLO me", "250").await;
        client.say("STARTTLS", "220").await;
        let connector = ClientTls::with_roots(certificate.roots.clone()).verify;
        let plain = bridgehead::relay::stream::Plain::tcp(client.0.into_inner());
        let stream = connector.connect("localhost".try_into().unwrap(), plain).await.unwrap();
        let mut client = Client(BufReader::new(stream));
        client.say("EHLO me", "250").await;
        client.say("AUTH PLAIN AHRpbQBzZWNyZXQ=", passed).await;
    }
    // Nor does our own password.
    for (address, reply) in [("192.0.2.1:0", "451 4.4.1"), ("127.0.0.1:0", "250")] {
        let (_hop, host) = Hop::at(address).await;
        let auth = Some(Credentials { user: "tim".into(), password: "secret".into() });
        let next_hop = NextHopConfig { auth, ..NextHopConfig::to(host) };
        let relay = start(config(vec![next_hop]), tcp("near"), no_roots()).await;
        let mut client = relay.client().await;
        client.say("EHLO me", "250").await;
        client.say("MAIL FROM:<a@b.example>", "250").await;
        client.say("RCPT TO:<c@d.example>", reply).await;
    }
}

/// What a next hop, or somebody on the way, says in the clear behind its 220 is not taken for said under TLS.
#[tokio::test]
async fn replies_injected_before_the_handshake_with_a_next_hop_end_the_connection() {
    for injected in ["250-hop\r\n250 AUTH PLAIN\r\n", "554 no", "\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = NextHopHost::Address(listener.local_addr().unwrap());
        let hop = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.write_all(b"220 hop\r\n").await.unwrap();
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            stream.write_all(b"250-hop\r\n250 STARTTLS\r\n").await.unwrap();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, "EHLO relay.example\r\nSTARTTLS\r\n");
            stream.write_all(format!("220 go on\r\n{injected}").as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            rest
        });
        let next_hop = NextHopConfig { tls: NextHopTls::Encrypt, ..NextHopConfig::to(host) };
        let relay = start(config(vec![next_hop]), tcp("near"), no_roots()).await;
        let mut client = relay.client().await;
        client.say("EHLO me", "250").await;
        let rest = tokio::time::timeout(Duration::from_secs(20), hop).await.unwrap().unwrap();
        assert!(rest.is_empty(), "a handshake was begun: {rest:?}");
        client.say("MAIL FROM:<a@b.example>", "250").await;
        client.say("RCPT TO:<c@d.example>", "451").await;
    }
}

#[tokio::test]
async fn implicit_tls_and_new_certificates() {
    let files = tempfile::tempdir().unwrap();
    let (_hop, host) = Hop::start().await;
    let made = certificate(files.path(), ListenerTlsMode::Implicit);
    let listener = ListenerConfig { tls: Some(made.tls), ..tcp("tls") };
    let mut relay_config = config(vec![NextHopConfig::to(host)]);
    relay_config.listeners = vec![listener.clone()];
    let bound = Listener::bind(&listener.address).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], bound.port().unwrap()));
    let relay = Relay::with_tls(Arc::new(relay_config.clone()), no_roots());
    let service = Service::new(relay.clone(), Arc::new(Replication), None);
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(bound, listener, service.clone(), stopped));
    let connect = async |roots: rustls::RootCertStore| {
        let plain = bridgehead::relay::stream::Plain::tcp(TcpStream::connect(address).await.unwrap());
        ClientTls::with_roots(roots).verify.connect("localhost".try_into().unwrap(), plain).await
    };
    let mut client = Client::greeted(connect(made.roots.clone()).await.unwrap()).await;
    client.say("EHLO me", "250").await;
    let renewed = certificate(files.path(), ListenerTlsMode::Implicit);
    relay.reconfigure(Arc::new(relay_config));
    client.send(b"the old session goes on\r\n").await;
    assert!(connect(made.roots).await.is_err());
    Client::greeted(connect(renewed.roots.clone()).await.unwrap()).await;
    // A file that cannot be used leaves the certificate in force.
    std::fs::write(files.path().join("key.pem"), "nonsense").unwrap();
    assert!(service.load_certificates().is_err());
    Client::greeted(connect(renewed.roots).await.unwrap()).await;
}

#[tokio::test]
async fn unix_sockets_on_both_sides() {
    let files = tempfile::tempdir().unwrap();
    let (hop, host) = Hop::start().await;
    let socket = |name: &str| files.path().join(name);
    let unix = |name: &str| ListenerConfig {
        address: ListenAddress::Unix { path: socket(name), mode: 0o600 },
        ..tcp(name)
    };
    let _far = start(config(vec![NextHopConfig::to(host)]), unix("far"), no_roots()).await;
    let mut near_config = config(vec![NextHopConfig::to(NextHopHost::Unix(socket("far")))]);
    near_config.trusted_networks.clear();
    // A socket that a dead process left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(socket("near")).unwrap());
    let _near = start(near_config, unix("near"), no_roots()).await;
    let mut client = Client::greeted(UnixStream::connect(socket("near")).await.unwrap()).await;
    client.say("EHLO me", "250").await;
    client.send(b"text\r\n").await;
    assert!(hop.received(0).starts_with("Received: from relay.example (local)"));
}

#[tokio::test]
async fn the_next_cost_carries_the_mail_when_a_next_hop_is_away() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone_at = gone.local_addr().unwrap();
    drop(gone);
    let (hop, host) = Hop::start().await;
    let hops = vec![NextHopConfig::to(NextHopHost::Address(gone_at)), NextHopConfig::to(host)];
    let relay = start(config(hops), tcp("near"), no_roots()).await;
    let mut client = relay.client().await;
    client.say("EHLO me", "250").await;
    client.send(b"text\r\n").await;
    client.send(b"text\r\n").await;
    assert_eq!(hop.count(), 2);
    let dead = relay.relay.next_hop(&relay.relay.settings().next_hops[0].clone());
    let other = relay.relay.next_hop(&relay.relay.settings().next_hops[1].clone());
    assert!(dead.is_backed_off() ^ other.is_backed_off());
}

#[tokio::test]
async fn draining_ends_idle_sessions_and_lets_messages_finish() {
    let (hop, host) = Hop::start().await;
    let relay = start(config(vec![NextHopConfig::to(host)]), tcp("near"), no_roots()).await;
    let mut idle = relay.client().await;
    let mut busy = relay.client().await;
    busy.say("EHLO me", "250").await;
    busy.say("MAIL FROM:<a@b.example>", "250").await;
    busy.say("RCPT TO:<c@d.example>", "250").await;
    busy.say("DATA", "354").await;
    relay.stop.send(true).unwrap();
    idle.expect("421 4.3.2").await;
    assert!(
        TcpStream::connect(relay.address.unwrap()).await.is_err()
            || idle.0.read(&mut [0; 8]).await.unwrap() == 0
    );
    busy.say("text\r\n.", "250").await;
    busy.expect("421 4.3.2").await;
    tokio::time::timeout(Duration::from_secs(3), relay.serving).await.unwrap().unwrap();
    assert_eq!(hop.count(), 1);
}

#[tokio::test]
async fn another_configuration_takes_force_without_dropping_a_session() {
    let (first, first_host) = Hop::start().await;
    let (second, second_host) = Hop::start().await;
    let relay = start(config(vec![NextHopConfig::to(first_host)]), tcp("near"), no_roots()).await;
    let mut client = relay.client().await;
    client.say("EHLO me", "250").await;
    client.send(b"one\r\n").await;
    client.say("MAIL FROM:<a@b.example>", "250").await;
    client.say("RCPT TO:<c@d.example>", "250").await;
    relay.relay.reconfigure(Arc::new(config(vec![NextHopConfig::to(second_host)])));
    client.say("DATA", "354").await;
    client.say("two\r\n.", "250").await;
    client.send(b"three\r\n").await;
    assert_eq!((first.count(), second.count()), (2, 1));
}

#[tokio::test]
async fn our_own_mail_is_submitted() {
    let (hop, host) = Hop::start().await;
    let relay = Relay::with_tls(Arc::new(config(vec![NextHopConfig::to(host)])), no_roots());
    let envelope =
        Envelope::plain(Path::parse("repl@a.example").unwrap(), Path::parse("repl@b.example").unwrap());
    let message = b"Subject: own\r\n\r\n.dot\r\n..\r\nlast\r\n".repeat(10_000);
    for _ in 0..2 {
        let reply = relay.submit(&envelope, &message).await.unwrap();
        assert_eq!(reply.to_string(), "250 2.0.0 kept");
    }
    let stuffed = b"Subject: own\r\n\r\n..dot\r\n...\r\nlast\r\n".repeat(10_000);
    assert!(
        hop.messages.lock().unwrap().iter().all(|(connection, kept)| *connection == 1 && *kept == stuffed)
    );
    let nowhere = Relay::with_tls(Arc::new(config(vec![])), no_roots());
    assert!(matches!(nowhere.submit(&envelope, &message).await, Err(SubmitError::NoRoute(_))));
}

/// Our own mail to a next hop that refuses the first recipient it is told, then takes one, then dies behind the dot.
#[tokio::test]
async fn our_own_mail_is_never_taken_for_sent_without_a_reply() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = NextHopHost::Address(listener.local_addr().unwrap());
    let hop = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let (mut stream, mut saw, mut line) = (BufReader::new(stream), String::new(), String::new());
        stream.write_all(b"220 hop\r\n").await.unwrap();
        while line != ".\r\n"
            && stream
                .read_line({
                    line.clear();
                    &mut line
                })
                .await
                .unwrap()
                > 0
        {
            let reply = match line.as_str() {
                "RCPT TO:<no@d.example>\r\n" => "550 5.1.1 no\r\n",
                "DATA\r\n" => "354 go\r\n",
                "text\r\n" | ".\r\n" => "",
                _ => "250 ok\r\n",
            };
            stream.write_all(reply.as_bytes()).await.unwrap();
            saw.push_str(line.split([' ', '\r']).next().unwrap());
            saw.push(' ');
        }
        saw
    });
    let relay = Relay::with_tls(Arc::new(config(vec![NextHopConfig::to(host)])), no_roots());
    let to = |path: &str| Envelope {
        recipients: vec![Recipient { path: Path::parse(path).unwrap(), ..Recipient::default() }],
        ..Envelope::default()
    };
    assert_eq!(relay.submit(&to("no@d.example"), b"text\r\n").await.unwrap().code(), 550);
    let sent = relay.submit(&to("c@d.example"), b"text\r\n").await;
    assert!(matches!(sent, Err(SubmitError::Unavailable(_))), "{sent:?}");
    assert_eq!(hop.await.unwrap(), "EHLO MAIL RCPT RSET MAIL RCPT DATA text . ");
}

/// RFC 1870: the size is declared, and what the next hop says it does not take is not sent, up to the very octet.
#[tokio::test]
async fn our_own_mail_declares_its_size_and_stays_within_the_next_hops() {
    let recorder = Recorder::answering(|line| {
        line.starts_with("EHLO").then(|| "250-hop\r\n250-PIPELINING\r\n250 SIZE 1000".to_owned())
    });
    let host = NextHopHost::Address(recorder.address);
    let relay = Relay::with_tls(Arc::new(config(vec![NextHopConfig::to(host)])), no_roots());
    let envelope =
        Envelope::plain(Path::parse("repl@a.example").unwrap(), Path::parse("repl@b.example").unwrap());
    let message = |octets: usize| format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(octets - 16)).into_bytes();
    let refused = relay.submit(&envelope, &message(1001)).await.unwrap();
    assert_eq!((refused.code(), refused.enhanced()), (552, Some(Enhanced(5, 3, 4))));
    assert!(refused.text().contains("at most 1000") && refused.text().contains("1001"), "{refused}");
    assert_eq!(recorder.commands(), ["EHLO relay.example"], "neither MAIL nor DATA");
    // The connection is as good as new.
    assert_eq!(relay.submit(&envelope, &message(1000)).await.unwrap().code(), 250);
    let commands = ["MAIL FROM:<repl@a.example> SIZE=1000", "RCPT TO:<repl@b.example>", "DATA"];
    assert_eq!(recorder.commands()[1..], commands);
    // No SIZE, or one without a limit: nothing is held back.
    for offer in ["250 hop", "250-hop\r\n250 SIZE", "250-hop\r\n250 SIZE 0"] {
        let recorder = Recorder::answering(move |line| line.starts_with("EHLO").then(|| offer.to_owned()));
        let host = NextHopHost::Address(recorder.address);
        let relay = Relay::with_tls(Arc::new(config(vec![NextHopConfig::to(host)])), no_roots());
        assert_eq!(relay.submit(&envelope, &message(5000)).await.unwrap().code(), 250);
        assert_eq!(recorder.commands()[1].ends_with(" SIZE=5000"), offer.contains("SIZE"), "{offer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_share_few_connections_and_no_message_is_lost_or_doubled() {
    let (hop, host) = Hop::start().await;
    let relay = start(
        config(vec![NextHopConfig { connections_max: 8, ..NextHopConfig::to(host) }]),
        tcp("near"),
        no_roots(),
    )
    .await;
    let mut sessions = tokio::task::JoinSet::new();
    for session in 0..40 {
        let mut client = relay.client().await;
        sessions.spawn(async move {
            client.say("EHLO me", "250").await;
            for n in 0..10 {
                // One group, with the next transaction's beginning behind the dot.
                let body = format!("X-Number: {session}-{n}\r\n\r\n{}\r\n.\r\nNOOP", "x".repeat(n * 700));
                client
                    .0
                    .write_all(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
                    .await
                    .unwrap();
                for code in ["250", "250", "354"] {
                    client.expect(code).await;
                }
                client.say(&body, "250").await;
                client.expect("250").await;
            }
        });
    }
    while let Some(ended) = sessions.join_next().await {
        ended.unwrap();
    }
    let messages = hop.messages.lock().unwrap();
    let mut numbers: Vec<String> = messages
        .iter()
        .map(|(_, message)| {
            let text = String::from_utf8_lossy(message);
            text.lines().find_map(|line| line.strip_prefix("X-Number: ")).unwrap().to_owned()
        })
        .collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!((numbers.len(), messages.len()), (400, 400));
    assert!(messages.iter().all(|(connection, _)| *connection <= 8));
}

/// A small generator, so that a failure can be repeated.
fn generator() -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// From chunks to chunks to DATA: the first relay's next hop is a relay that takes chunks, whose own takes none.
#[tokio::test]
async fn chunks_of_any_size_arrive_as_sent() {
    let (hop, host) = Hop::start().await;
    let far = start(config(vec![NextHopConfig::to(host)]), tcp("far"), no_roots()).await;
    let near = start(config(vec![NextHopConfig::to(far.host())]), tcp("near"), no_roots()).await;
    let mut client = near.client().await;
    client.say("EHLO me", "250").await;
    let mut random = generator();
    for round in 0..8 {
        let mut body = Vec::new();
        while body.len() < 200_000 {
            let octet = random() as u8;
            let octet = if b"\r\n\0".contains(&octet) { b'x' } else { octet };
            body.resize(body.len() + random() as usize % 50, octet);
            body.extend_from_slice([&b"\r\n.\r\n"[..], b"\r\n..", b".\r\n"][random() as usize % 3]);
        }
        body.extend_from_slice(b"\r\n");
        client.say("MAIL FROM:<a@b.example> BODY=8BITMIME", "250").await;
        client.say("RCPT TO:<c@d.example>", "250").await;
        // Rounds with small chunks, rounds with large ones; half of them pipelined.
        let largest = [20, 3_000, 70_000, 200_000][round / 2];
        let (mut wire, mut chunks, mut rest) = (Vec::new(), 0, &body[..]);
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at((random() as usize % largest + 1).min(rest.len()));
            let last = if later.is_empty() { " LAST" } else { "" };
            wire.extend_from_slice(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            (chunks, rest) = (chunks + 1, later);
            if round % 2 == 0 {
                client.0.write_all(&std::mem::take(&mut wire)).await.unwrap();
                client.expect("250 2.0.0").await;
            }
        }
        if round % 2 == 1 {
            let (read, write) = tokio::io::split(client.0.into_inner());
            let mut write = write;
            let writing = tokio::spawn(async move {
                write.write_all(&wire).await.unwrap();
                write
            });
            let mut replies = Client(BufReader::new(tokio::io::join(read, tokio::io::sink())));
            for _ in 0..chunks {
                replies.expect("250 2.0.0").await;
            }
            let (read, _) = replies.0.into_inner().into_inner();
            client = Client(BufReader::new(read.unsplit(writing.await.unwrap())));
        }
        // The hop keeps the form of DATA.
        let messages = hop.messages.lock().unwrap();
        let lines = messages[round].1.split_inclusive(|b| *b == b'\n');
        let came: Vec<u8> = lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect();
        assert!(came.ends_with(&body), "round {round} differs");
    }
    assert!(hop.received(0).contains("\r\n\tby relay.example"), "{}", hop.received(0));
}

#[tokio::test]
async fn octets_of_any_kind_arrive_as_sent_however_they_are_divided() {
    let (hop, host) = Hop::start().await;
    let relay = start(config(vec![NextHopConfig::to(host)]), tcp("near"), no_roots()).await;
    let mut client = relay.client().await;
    client.say("EHLO me", "250").await;
    let mut random = generator();
    for round in 0..6 {
        let mut body = Vec::new();
        while body.len() < 300_000 {
            let line: Vec<u8> =
                (0..random() % 200).map(|_| random() as u8).filter(|b| !b"\r\n\0".contains(b)).collect();
            body.extend_from_slice(if line.first() == Some(&b'.') { b"." } else { b"" });
            body.extend_from_slice(&line);
            body.extend_from_slice(if random().is_multiple_of(20) { b"\r\n..\r\n" } else { b"\r\n" });
        }
        client.say("MAIL FROM:<a@b.example> BODY=8BITMIME", "250").await;
        client.say("RCPT TO:<c@d.example>", "250").await;
        client.say("DATA", "354").await;
        let mut rest = &body[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((random() as usize % 40_000 + 1).min(rest.len()));
            client.0.write_all(now).await.unwrap();
            rest = later;
        }
        client.say(".", "250").await;
        assert!(hop.body(round) == body, "round {round} differs");
    }
}

/// What was logged by this thread while it lives, as JSON, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(bridgehead::log::filter("trace").unwrap())
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines about messages.
    fn messages(&self) -> Vec<serde_json::Value> {
        let lines = self.text();
        let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .filter(|line| line["event"].as_str().is_some_and(|event| event.starts_with("message-")))
            .collect()
    }

    async fn await_messages(&self, count: usize) -> Vec<serde_json::Value> {
        for _ in 0..200 {
            if self.messages().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.messages()
    }
}

#[tokio::test]
async fn each_message_has_one_line_by_which_it_can_be_traced() {
    let (log, _guard) = Log::start();
    let (hop, host) = Hop::start().await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hops = vec![NextHopConfig::to(NextHopHost::Address(dead)), NextHopConfig::to(host.clone())];
    let mut settings = config(hops);
    settings.replication_mailboxes = vec!["directory@repl.example".parse().unwrap()];
    let relay = start(settings, tcp("near"), no_roots()).await;
    let mut client = relay.client().await;
    client.say("EHLO me", "250").await;
    client.send(b"text\r\n").await;
    for refused in [&b"bare\nlf\r\n.\r\n"[..], b"the client goes away"] {
        client.say("MAIL FROM:<a@b.example>", "250").await;
        client.say("RCPT TO:<c@d.example>", "250").await;
        client.say("RCPT TO:<e@d.example>", "250").await;
        client.say("DATA", "354").await;
        client.0.write_all(refused).await.unwrap();
        if refused.ends_with(b".\r\n") {
            client.expect("554").await;
        }
    }
    drop(client);
    let mut client = relay.client().await;
    client.say("EHLO me", "250").await;
    client.say("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 6\r\ntext", "250").await;
    client.expect("250").await;
    client.expect("250").await;
    client.say("RSET", "250").await;
    client
        .say("MAIL FROM:<a@b.example>\r\nRCPT TO:<directory@repl.example>\r\nBDAT 6 LAST\r\ntext", "250")
        .await;
    client.expect("250").await;
    client.expect("250").await;

    let lines = log.await_messages(5).await;
    let manual = include_str!("../contrib/man/bridgehead.toml.5");
    for line in &lines {
        let event = line["event"].as_str().unwrap();
        assert!(manual.contains(&format!("\n.It Li {event}\n")), "{event} is not in bridgehead.toml(5)");
        for field in line.as_object().unwrap().keys().filter(|key| !OF_EVERY_LINE.contains(&&***key)) {
            assert!(manual.contains(&format!(".Va {field}")), "{field} is not in bridgehead.toml(5)");
        }
    }
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(
        events,
        [
            "message-relayed",
            "message-not-relayed",
            "message-broken-off",
            "message-broken-off",
            "message-intercepted"
        ]
    );
    let first = &lines[0];
    let id = first["id"].as_str().unwrap();
    assert!(hop.received(0).contains(&format!(" id {id};")), "{id}: {}", hop.received(0));
    for (field, value) in [
        ("from", "<a@b.example>"),
        ("to", "c@d.example"),
        ("client", "127.0.0.1"),
        ("next_hop", &*host.to_string()),
        ("reply", "250 2.0.0 kept"),
    ] {
        assert_eq!(first[field], value, "{first}");
    }
    assert_eq!((&first["recipients"], &first["octets"]), (&1.into(), &6.into()));
    assert_eq!(lines[1]["recipients"], 2);
    assert!(lines[1]["reply"].as_str().unwrap().starts_with("554 5.6.0"), "{}", lines[1]);
    let last = &lines[4];
    for (field, value) in [("to", "directory@repl.example"), ("next_hop", ""), ("reply", "250 taken")] {
        assert_eq!(last[field], value, "{last}");
    }
    assert!(lines.iter().all(|line| line["trace"].as_str().unwrap().starts_with("bh-")));
    assert_ne!(lines[1]["id"], first["id"]);
}

/// Fields that a line of the log has for being one.
const OF_EVERY_LINE: [&str; 5] = ["timestamp", "level", "target", "message", "event"];

#[tokio::test]
async fn what_is_said_in_auth_is_never_logged() {
    let (log, _guard) = Log::start();
    let files = tempfile::tempdir().unwrap();
    let passwords = files.path().join("passwords");
    std::fs::write(&passwords, "tim:{PLAIN}secret\n").unwrap();
    // \0tim\0secret, \0tim\0Secret
    let (right, wrong) = ("AHRpbQBzZWNyZXQ=", "AHRpbQBTZWNyZXQ=");
    for source in [AuthSource::NextHop, AuthSource::PasswordFile(passwords)] {
        let (_hop, host) = Hop::start().await;
        let auth = Some(ListenerAuth { source, required: true, without_tls: true });
        let listener = ListenerConfig { auth, ..tcp("near") };
        let relay = start(config(vec![NextHopConfig::to(host)]), listener, no_roots()).await;
        let mut client = relay.client().await;
        client.say("EHLO me", "250").await;
        client.say("AUTH PLAIN", "334").await;
        client.say("*", "").await;
        client.say(&format!("AUTH PLAIN {wrong}"), "").await;
        let mut client = relay.client().await;
        client.say("EHLO me", "250").await;
        client.say("AUTH PLAIN", "334").await;
        client.say(right, "235").await;
        let mut client = relay.client().await;
        client.say("EHLO me", "250").await;
        client.say(&format!("AUTH PLAIN {right}"), "235").await;
        client.send(b"text\r\n").await;
    }
    // Our own password for a next hop is no less secret.
    let (_hop, host) = Hop::start().await;
    let auth = Some(Credentials { user: "tim".into(), password: "secret".into() });
    let relay =
        start(config(vec![NextHopConfig { auth, ..NextHopConfig::to(host) }]), tcp("near"), no_roots()).await;
    let mut client = relay.client().await;
    client.say("EHLO me", "250").await;
    client.send(b"text\r\n").await;
    let log = log.text();
    assert!(log.contains("authenticated by the next hop") && log.contains("authentication failed"), "{log}");
    for secret in [right, wrong, "secret", "Secret"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
