//! Every limit of the relay is met over SMTP, and its metric rises: row by row of `config::bounds`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bridgehead::config::bounds;
use bridgehead::config::relay::{
    ListenerConfig, NextHopConfig, NextHopHost, RelayConfig, RelayLimits, RouteConfig,
};
use bridgehead::daemon::counters::ReplicationSnapshot;
use bridgehead::daemon::measured::{Measured, Picture};
use bridgehead::listen::{Delivery, Intercept, InterceptedEnvelope, Listener, Service, serve};
use bridgehead::relay::Relay;
use bridgehead::replication::status::Status;
use bridgehead::smtp::{Path, Reply};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::support::exposition;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_that_bites_raises_its_metric() {
    let mut meetings = tokio::task::JoinSet::new();
    for bound in bounds::all() {
        // What needs two sites is met in cli::operator.
        if ["replication.", "link."].iter().any(|section| bound.key.starts_with(section))
            || bound.metric == "quarantined"
        {
            continue;
        }
        meetings.spawn(async move {
            let met = timeout(Duration::from_secs(50), meet(bound.key, bound.metric)).await;
            let (before, after) = met.unwrap_or_else(|_| panic!("{bound:?}: does not end"));
            let (before, after) = (value(&before, bound.metric), value(&after, bound.metric));
            assert!(before == 0.0 && after >= 1.0, "{bound:?}: {before}, then {after}");
        });
    }
    while let Some(met) = meetings.join_next().await {
        met.unwrap();
    }
}

/// The sum of the samples that have these labels among theirs.
fn value(samples: &BTreeMap<String, f64>, metric: &str) -> f64 {
    let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
    let wanted = labels.trim_end_matches('}');
    let all = samples.iter().filter(|(sample, _)| {
        let (sample, labels) = sample.split_once('{').unwrap_or((sample, ""));
        sample == format!("bridgehead_{name}") && labels.contains(wanted)
    });
    let values: Vec<f64> = all.map(|(_, value)| *value).collect();
    assert!(!values.is_empty(), "{metric} is not among the metrics");
    values.iter().sum()
}

type Samples = BTreeMap<String, f64>;

/// Meets one limit; the metrics before and after.
async fn meet(key: &str, metric: &str) -> (Samples, Samples) {
    let mut plan = Plan::default();
    let limits = &mut plan.config.limits;
    let moment = Duration::from_millis(100);
    let mut lines: Vec<&str> = Vec::new();
    match key {
        "limits.connections" => limits.connections_max = 1,
        "limits.connections_per_network" => limits.connections_per_network_max = 1,
        "limits.connections_per_minute" => limits.connections_per_minute_max = 1,
        "limits.messages_per_minute" => {
            limits.messages_per_minute_max = 1;
            lines.extend(["EHLO c", "MAIL FROM:<a@b>", "RSET", "MAIL FROM:<a@b>"]);
        }
        "limits.recipients" => {
            limits.recipients_max = 1;
            lines.extend([HELLO, "RCPT TO:<c@d>", "RCPT TO:<e@d>"]);
        }
        "limits.message_bytes" => {
            limits.message_bytes_max = 1024;
            lines.extend(["EHLO c", "MAIL FROM:<a@b> SIZE=1025"]);
        }
        "limits.replication_message_bytes" => {
            limits.replication_message_bytes_max = 10;
            lines.extend([HELLO, "RCPT TO:<directory@repl.example>", "DATA", "more than ten octets\r\n."]);
        }
        "limits.command_bytes" => {
            limits.command_bytes_max = 12;
            lines.push("NOOP more than twelve octets");
        }
        "limits.line_bytes" => {
            limits.line_bytes_max = 10;
            lines.extend([HELLO, "RCPT TO:<c@d>", "DATA", "more than ten octets\r\n."]);
        }
        "limits.received_headers" => {
            limits.received_max = 2;
            let message = "Received: 1\r\nReceived: 2\r\nReceived: 3\r\n\r\nx\r\n.";
            lines.extend([HELLO, "RCPT TO:<c@d>", "DATA", message]);
        }
        "limits.errors" => {
            limits.errors_max = 2;
            lines.extend(["WHAT", "WHAT"]);
        }
        "limits.greeting_delay" => {
            limits.greeting_delay = Duration::from_secs(5);
            plan.early = true;
        }
        "limits.command_timeout" => limits.command_timeout = moment,
        "limits.data_timeout" => {
            limits.data_timeout = moment;
            lines.extend([HELLO, "RCPT TO:<c@d>", "DATA"]);
        }
        "limits.data_bytes_per_second" | "limits.slow_grace" => {
            limits.data_rate_min = 100;
            limits.slow_grace = moment;
            lines.extend([HELLO, "RCPT TO:<c@d>", "DATA", "(2 s)", "x"]);
        }
        "limits.session_timeout" => {
            limits.session_timeout = moment;
            lines.extend(["(2 s)", "NOOP"]);
        }
        "limits.drain" => {
            limits.drain = moment;
            lines.push(HELLO);
            plan.stop = true;
        }
        "limits.connect_timeout" | "limits.back_off_min" | "limits.back_off_max" => {
            plan.at_hop = ("greeting", None);
            lines.extend([HELLO, "RCPT TO:<c@d>"]);
        }
        "limits.reply_timeout" => {
            limits.reply_timeout = moment;
            plan.at_hop = ("RCPT", Some(String::new()));
            lines.extend([HELLO, "RCPT TO:<c@d>"]);
        }
        "limits.final_timeout" => {
            limits.final_timeout = moment;
            plan.at_hop = (".", Some(String::new()));
            lines.extend([HELLO, "RCPT TO:<c@d>", "DATA", "x\r\n."]);
        }
        "route.connections" => {
            limits.connect_timeout = moment;
            plan.hop_connections = 1;
            lines.extend([HELLO, "RCPT TO:<c@d>"]);
        }
        "limits.pool_idle" => {
            limits.pool_idle = Duration::from_nanos(1);
            lines.extend([HELLO, "RCPT TO:<c@d>", "DATA", "x\r\n."]);
            lines.extend(["MAIL FROM:<a@b>", "RCPT TO:<c@d>"]);
        }
        "" if metric.contains("garbage") => {
            let reply = format!("{}250 ok\r\n", "250-again\r\n".repeat(7000));
            plan.at_hop = ("RCPT", Some(reply));
            lines.extend([HELLO, "RCPT TO:<c@d>"]);
        }
        "" if metric.contains("loop_trace") => {
            plan.again = true;
            lines.extend([HELLO, "RCPT TO:<c@d>", "DATA", "x\r\n."]);
        }
        other => panic!("nothing meets the limit {other:?}; add how"),
    }
    if !["limits.connections", "limits.data_bytes_per_second", "limits.slow_grace"].contains(&key) {
        plan.config.trusted_networks.clear();
        plan.config.own_domains = vec!["d".parse().unwrap()];
    }
    plan.meet(&lines).await
}

const HELLO: &str = "EHLO c\r\nMAIL FROM:<a@b>";

/// How the stage is set for one limit.
struct Plan {
    config: RelayConfig,
    /// The client speaks before it is greeted.
    early: bool,
    /// The daemon is stopped while the session is open.
    stop: bool,
    /// What came to the next hop is sent again.
    again: bool,
    hop_connections: usize,
    /// What the next hop says to a command instead of yes; empty: nothing; none: it hangs up.
    at_hop: (&'static str, Option<String>),
}

impl Default for Plan {
    fn default() -> Plan {
        let config = RelayConfig {
            replication_mailboxes: vec![Path::parse("directory@repl.example").unwrap()],
            limits: RelayLimits { drain: Duration::from_secs(5), ..RelayLimits::default() },
            ..RelayConfig::default()
        };
        let at_hop = ("never", None);
        Plan { config, early: false, stop: false, again: false, hop_connections: 10, at_hop }
    }
}

impl Plan {
    async fn meet(mut self, lines: &[&str]) -> (Samples, Samples) {
        let hop = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let next_hop = NextHopHost::Address(hop.local_addr().unwrap());
        let next_hop = NextHopConfig { connections_max: self.hop_connections, ..NextHopConfig::to(next_hop) };
        self.config.routes = vec![RouteConfig::default_to(next_hop)];
        let came = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(hop_serve(hop, self.at_hop.clone(), came.clone()));
        let listener = ListenerConfig::smtp("limits", "127.0.0.1:0".parse().unwrap());
        let bound = Listener::bind(&listener.address).await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], bound.port().unwrap()));
        let relay = Relay::new(Arc::new(self.config));
        let service = Service::new(relay.clone(), Arc::new(Nobody), None);
        let (stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(serve(bound, listener, service.clone(), stopping));
        let before = metrics(&relay, &service);

        let mut client = BufReader::new(TcpStream::connect(address).await.unwrap());
        if self.early {
            client.write_all(b"EHLO c\r\n").await.unwrap();
        }
        replies(&mut client, 1).await;
        let mut first = Vec::new();
        for line in lines {
            if *line == "(2 s)" {
                sleep(Duration::from_millis(2100)).await;
                continue;
            }
            client.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            first.extend(replies(&mut client, line.matches("EHLO").count() + 1).await);
        }
        if self.again {
            let message: Vec<u8> = came.lock().unwrap().concat();
            client.write_all(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n").await.unwrap();
            replies(&mut client, 3).await;
            client.write_all(&message).await.unwrap();
        }
        if self.stop {
            stop.send_replace(true);
            serving.await.unwrap();
            return (before, metrics(&relay, &service));
        }
        // A second client, for what counts clients and connections; the first stays, or has been closed by now.
        let second = TcpStream::connect(address).await.unwrap();
        let mut second = BufReader::new(second);
        replies(&mut second, 1).await;
        for line in lines.iter().filter(|line| !line.contains("s)")).take(2) {
            if second.write_all(format!("{line}\r\n").as_bytes()).await.is_err() {
                break;
            }
            replies(&mut second, line.matches("EHLO").count() + 1).await;
        }
        // What takes a while has a while.
        sleep(Duration::from_millis(600)).await;
        (before, metrics(&relay, &service))
    }
}

/// Reads so many replies, as far as they come within a moment.
async fn replies(client: &mut BufReader<TcpStream>, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut ended = 0;
    while ended < count {
        let mut line = String::new();
        match timeout(Duration::from_millis(800), client.read_line(&mut line)).await {
            Ok(Ok(read)) if read > 0 => {}
            _ => break,
        }
        ended += usize::from(line.as_bytes().get(3) == Some(&b' '));
        lines.push(line);
    }
    lines
}

async fn hop_serve(
    listener: TcpListener,
    at: (&'static str, Option<String>),
    came: Arc<Mutex<Vec<Vec<u8>>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(hop_converse(stream, at.clone(), came.clone()));
    }
}

async fn hop_converse(
    stream: TcpStream,
    at: (&'static str, Option<String>),
    came: Arc<Mutex<Vec<Vec<u8>>>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let says = |verb: &str, usual: &str| match verb == at.0 {
        true => at.1.clone(),
        false => Some(usual.to_owned()),
    };
    stream.write_all(says("greeting", "220 hop\r\n")?.as_bytes()).await.ok()?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let verb = line.get(..4)?.to_owned();
        let usual = if verb == "DATA" { "354 go\r\n" } else { "250 ok\r\n" };
        stream.write_all(says(&verb, usual)?.as_bytes()).await.ok()?;
        if verb != "DATA" {
            continue;
        }
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
                return None;
            }
            let end = line == b".\r\n";
            came.lock().unwrap().push(line);
            if end {
                break;
            }
        }
        stream.write_all(says(".", "250 kept\r\n")?.as_bytes()).await.ok()?;
    }
}

/// What `/metrics` would say.
fn metrics(relay: &Relay, service: &Service) -> Samples {
    let daemon = Measured {
        version: "0",
        started: jiff::Timestamp::now(),
        ready: true,
        sessions_open: service.sessions_open() as u64,
        relay: service.counters(),
        next_hops: relay.snapshot(),
        replication: ReplicationSnapshot::default(),
    };
    let status = Status { site: "s".into(), contexts: Vec::new(), partners: Vec::new() };
    let text = Picture { daemon, status, holds: 0, quarantined: 0 }.text().unwrap();
    exposition(&text)
}

struct Nobody;

impl Intercept for Nobody {
    fn deliver(&self, _envelope: InterceptedEnvelope, _message: Vec<u8>) -> Delivery<'_> {
        Box::pin(std::future::ready(Reply::new(550, None, "nobody")))
    }
}
