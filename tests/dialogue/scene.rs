//! The stage of a dialogue: our listener, a scripted next hop, and a replication that keeps what it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bridgehead::config::relay::{
    AddressPattern, AuthSource, BareLineEnds, ListenAddress, ListenerAuth, ListenerConfig, NextHopConfig,
    NextHopHost, Protocol, RelayConfig, RelayLimits, RouteConfig,
};
use bridgehead::listen::{Delivery, Intercept, InterceptedEnvelope, Listener, Recipients, Service, serve};
use bridgehead::relay::Relay;
use bridgehead::smtp::{Path, Reply};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::hop::{self, Part, Saw};
use super::show;

pub struct Scene {
    address: SocketAddr,
    saw: Saw,
    replication: Arc<Replication>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    /// The port of a next hop that is down: bound, so that no other scene gets it, but not listening.
    _down: Option<TcpSocket>,
    _files: tempfile::TempDir,
}

/// Keeps what it gets and answers as told.
struct Replication {
    got: Mutex<Vec<String>>,
    reply: String,
}

impl Intercept for Replication {
    fn deliver(&self, envelope: InterceptedEnvelope, message: Vec<u8>) -> Delivery<'_> {
        let mut got = self.got.lock().unwrap();
        got.push(format!("{} from {}", envelope.mailbox, envelope.reverse_path));
        got.extend(
            message.split_inclusive(|b| *b == b'\n').map(|l| show(l.strip_suffix(b"\r\n").unwrap_or(l))),
        );
        let (reply, _) = Reply::parse(format!("{}\r\n", self.reply).as_bytes()).unwrap().unwrap();
        Box::pin(std::future::ready(reply))
    }
}

/// A directory that knows one address.
struct Known(Path);

impl Recipients for Known {
    fn is_known<'a>(
        &'a self,
        path: &'a Path,
    ) -> std::pin::Pin<Box<dyn std::future::Future<Output = bool> + Send + 'a>> {
        Box::pin(std::future::ready(path.same_mailbox(&self.0, true)))
    }
}

struct Settings {
    config: RelayConfig,
    listener: ListenerConfig,
    part: Part,
    hop_is_down: bool,
    /// A second next hop, for when the first is away.
    second: Option<Part>,
    replication: String,
    known: Option<Path>,
}

impl Scene {
    /// Builds the stage from the `@` lines.
    pub async fn start(head: &[String]) -> Scene {
        let files = tempfile::tempdir().unwrap();
        let mut settings = Settings::usual();
        for line in head {
            if let Some(setting) = line.strip_prefix("@ ") {
                settings.set(setting, files.path());
            }
        }
        let hop = TcpSocket::new_v4().unwrap();
        hop.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let hop_address = hop.local_addr().unwrap();
        let saw = Saw::default();
        let down = if settings.hop_is_down {
            Some(hop)
        } else {
            tokio::spawn(hop::serve(hop.listen(100).unwrap(), settings.part, 0, saw.clone()));
            None
        };
        let next_hop = NextHopConfig::to(NextHopHost::Address(hop_address));
        settings.config.routes.push(RouteConfig::default_to(next_hop));
        if let Some(part) = settings.second {
            let hop = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let next_hop = NextHopConfig::to(NextHopHost::Address(hop.local_addr().unwrap()));
            settings.config.routes.push(RouteConfig { cost: 20, ..RouteConfig::default_to(next_hop) });
            tokio::spawn(hop::serve(hop, part, 10, saw.clone()));
        }
        let bound = Listener::bind(&settings.listener.address).await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], bound.port().unwrap()));
        let replication = Arc::new(Replication { got: Mutex::default(), reply: settings.replication });
        let relay = Relay::new(Arc::new(settings.config));
        let known = settings.known.map(|path| Arc::new(Known(path)) as Arc<dyn Recipients>);
        let service = Service::new(relay, replication.clone(), known);
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(bound, settings.listener, service, stopped));
        Scene { address, saw, replication, stop, serving, _down: down, _files: files }
    }

    pub async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Ends the play; gives the transcript of next hop and replication.
    pub async fn finish(self, expected: &[String], writing: bool) -> String {
        let expected = expected.iter().fold(String::new(), |out, line| out + line + "\n");
        let mut transcript = self.transcript();
        for _ in 0..100 {
            if !writing && transcript == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            transcript = self.transcript();
            if writing {
                tokio::time::sleep(Duration::from_millis(300)).await;
                transcript = self.transcript();
                break;
            }
        }
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(Duration::from_secs(5), self.serving).await;
        transcript
    }

    fn transcript(&self) -> String {
        let saw = self.saw.lock().unwrap();
        let mut out = String::new();
        let mut in_trace = false;
        for (number, line) in saw.iter() {
            let who = if *number == 1 { "H".to_owned() } else { format!("H{number}") };
            if line.starts_with("Received: from ") && line.ends_with("])") {
                in_trace = true;
                out.push_str(&format!("{who}: Received: (our trace)\n"));
                continue;
            }
            if in_trace && line.starts_with("\\t") {
                continue;
            }
            in_trace = false;
            out.push_str(&format!("{who}: {}\n", hide_port(line)));
        }
        for line in self.replication.got.lock().unwrap().iter() {
            out.push_str(&format!("R: {line}\n"));
        }
        out
    }
}

fn hide_port(line: &str) -> String {
    match line.split_once(" PORT=") {
        Some((before, after)) if after.starts_with(|c: char| c.is_ascii_digit()) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before} PORT=(port){rest}")
        }
        _ => line.to_owned(),
    }
}

impl Settings {
    fn usual() -> Settings {
        let offers = ["PIPELINING", "SIZE 1000000", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN"];
        Settings {
            config: RelayConfig {
                hostname: "relay.example".into(),
                trace_id: "5eed".into(),
                own_domains: vec!["corp.example".parse().unwrap()],
                replication_mailboxes: vec!["repl@corp.example".parse().unwrap()],
                limits: RelayLimits { drain: Duration::from_millis(500), ..RelayLimits::default() },
                ..RelayConfig::default()
            },
            listener: ListenerConfig::smtp("test", "127.0.0.1:0".parse().unwrap()),
            part: Part { offers: offers.map(str::to_owned).to_vec(), rules: Vec::new() },
            hop_is_down: false,
            second: None,
            replication: "250 2.0.0 Ok, committed".into(),
            known: None,
        }
    }

    fn set(&mut self, setting: &str, files: &std::path::Path) {
        let (key, value) = setting.split_once(' ').unwrap_or((setting, ""));
        match key {
            "hop" => self.set_hop(value),
            "second" => {
                let second =
                    self.second.get_or_insert_with(|| Part { rules: Vec::new(), ..self.part.clone() });
                second
                    .rules
                    .extend(value.split_once(" => ").map(|(a, b)| (a.to_owned(), b.to_owned(), None)));
            }
            "limit" => self.set_limit(value),
            "route" => {
                let (pattern, host) = value.split_once(' ').unwrap();
                self.config.routes.push(RouteConfig {
                    pattern: pattern.parse::<AddressPattern>().unwrap(),
                    cost: 10,
                    next_hops: vec![Arc::new(NextHopConfig::to(host.parse().unwrap()))],
                });
            }
            "stranger" => {
                self.config.trusted_networks.clear();
                self.config.trusted_peers.clear();
            }
            "untrusted" => self.config.trusted_networks.clear(),
            "replication" => self.replication = value.to_owned(),
            "known" => {
                self.config.known_recipients_only = true;
                self.known = Some(value.parse().unwrap());
            }
            "bare" => {
                self.config.bare_line_ends = match value {
                    "normalize" => BareLineEnds::Normalize,
                    "pass" => BareLineEnds::Pass,
                    _ => BareLineEnds::Refuse,
                }
            }
            "lmtp" => self.listener.protocol = Protocol::Lmtp,
            "proxy" => self.listener.proxy_protocol = true,
            "auth" => {
                let file = files.join("passwords");
                std::fs::write(&file, value.replace("\\n", "\n")).unwrap();
                let source = AuthSource::PasswordFile(file);
                self.listener.auth = Some(ListenerAuth { source, required: true, without_tls: true });
            }
            "auth-passed" => {
                let without_tls = value != "tls";
                let source = AuthSource::NextHop;
                let required = value != "offered";
                self.listener.auth = Some(ListenerAuth { source, required, without_tls });
            }
            "listen" => self.listener.address = ListenAddress::Tcp(value.parse().unwrap()),
            _ => panic!("no such setting: {setting}"),
        }
    }

    fn set_hop(&mut self, value: &str) {
        if value == "down" {
            self.hop_is_down = true;
        } else if let Some(offers) = value.strip_prefix("offers") {
            self.part.offers =
                offers.split(',').map(|o| o.trim().to_owned()).filter(|o| !o.is_empty()).collect();
        } else {
            let (prefix, deed) = value.split_once(" => ").expect("@ hop PREFIX => DEED");
            let (prefix, times) = match prefix.strip_prefix("once ") {
                Some(prefix) => (prefix, Some(1)),
                None => (prefix, None),
            };
            self.part.rules.push((prefix.to_owned(), deed.to_owned(), times));
        }
    }

    fn set_limit(&mut self, value: &str) {
        let (name, value) = value.split_once(' ').unwrap();
        let number: u64 = value.parse().unwrap();
        let ms = Duration::from_millis(number);
        let limits = &mut self.config.limits;
        match name {
            "connections_max" => limits.connections_max = number as usize,
            "connections_per_network_max" => limits.connections_per_network_max = number as usize,
            "connections_per_minute_max" => limits.connections_per_minute_max = number as u32,
            "messages_per_minute_max" => limits.messages_per_minute_max = number as u32,
            "recipients_max" => limits.recipients_max = number as usize,
            "message_bytes_max" => limits.message_bytes_max = number,
            "replication_message_bytes_max" => limits.replication_message_bytes_max = number as usize,
            "command_bytes_max" => limits.command_bytes_max = number as usize,
            "line_bytes_max" => limits.line_bytes_max = number as usize,
            "errors_max" => limits.errors_max = number as u32,
            "received_max" => limits.received_max = number as usize,
            "data_rate_min" => limits.data_rate_min = number,
            "greeting_delay_ms" => limits.greeting_delay = ms,
            "command_timeout_ms" => limits.command_timeout = ms,
            "data_timeout_ms" => limits.data_timeout = ms,
            "slow_grace_ms" => limits.slow_grace = ms,
            "session_timeout_ms" => limits.session_timeout = ms,
            "connect_timeout_ms" => limits.connect_timeout = ms,
            "reply_timeout_ms" => limits.reply_timeout = ms,
            "back_off_min_ms" => (limits.back_off_min, limits.back_off_max) = (ms, ms),
            "final_timeout_ms" => limits.final_timeout = ms,
            _ => panic!("no such limit: {name}"),
        }
    }
}
