//! What the running daemon measures, over HTTP and in `status --json`; and that its memory stays flat.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{Client, Recorder, Scratch, Site, exposition, free_address};

/// One request, the whole answer.
fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("the endpoint");
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

fn measuring(scratch: &Scratch, next_hop: &Recorder) -> (Site, SocketAddr) {
    let site = Site::init(scratch, "paris", free_address(), next_hop.address);
    let endpoint = free_address();
    site.configure("[metrics]", &format!("listen = \"{endpoint}\""), "");
    (site, endpoint)
}

#[test]
fn the_endpoint_and_status_tell_what_happened() {
    let (scratch, hop) = (Scratch::new("metrics"), Recorder::start());
    let (mut site, endpoint) = measuring(&scratch, &hop);
    site.start();
    let mut client = Client::greet(site.address);
    for _ in 0..2 {
        client.transact("<a@b.example>", &["<c@d.example>"], b"Subject: x\r\n\r\nx\r\n").expect(250);
    }
    client.transact("<a@b.example>", &[&format!("<{}>", site.mailbox)], b"not for us\r\n").expect(550);
    client.command("WHAT").expect(500);

    // The copy is kept behind the reply, with the replicator's next transaction.
    crate::support::await_true("the copy", Duration::from_secs(20), || {
        get(endpoint, "/metrics").contains("\nbridgehead_quarantined 1.0\n")
    });
    let answer = get(endpoint, "/metrics");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", page.len())), "{head}");
    let samples = exposition(page);
    let hop_name = hop.address;
    for (sample, value) in [
        ("bridgehead_messages_total{reply=\"accepted\"}", 2.0),
        ("bridgehead_messages_total{reply=\"refused\"}", 1.0),
        ("bridgehead_refusals_total{rule=\"command\"}", 1.0),
        ("bridgehead_refusals_total{rule=\"loop_trace\"}", 0.0),
        ("bridgehead_intercepted_total{reply=\"refused\"}", 1.0),
        ("bridgehead_replication_mail_total{became=\"refused\"}", 1.0),
        ("bridgehead_sessions_open", 1.0),
        ("bridgehead_ready", 1.0),
        ("bridgehead_context_entries{context=\"ou=paris,o=Example\"}", 0.0),
        ("bridgehead_holds", 0.0),
        ("bridgehead_quarantined", 1.0),
        (&format!("bridgehead_next_hop_connects_total{{next_hop=\"{hop_name}\"}}"), 1.0),
        (&format!("bridgehead_next_hop_connections{{next_hop=\"{hop_name}\",state=\"idle\"}}"), 1.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample} in\n{page}");
    }
    let status = site.status();
    assert_eq!(status["daemon"]["relay"]["messages"], 2);
    assert_eq!(status["daemon"]["relay"]["refusals"]["command"], 1);
    assert_eq!(status["daemon"]["next_hops"][0]["next_hop"], hop_name.to_string());
    drop(client);
    site.stop();
    assert!(TcpStream::connect(endpoint).is_err(), "the endpoint ends with the daemon");
    assert!(site.status()["daemon"].is_null(), "nobody runs");
}

#[test]
fn the_endpoint_is_bounded_and_says_whether_the_daemon_is_ready() {
    let (scratch, hop) = (Scratch::new("endpoint"), Recorder::start());
    let (mut site, endpoint) = measuring(&scratch, &hop);
    site.configure("[site]", "", "[limits]\ndrain = \"20s\"\n");
    site.start();
    assert!(get(endpoint, "/health").starts_with("HTTP/1.1 200 "));
    assert!(get(endpoint, "/ready?verbose").starts_with("HTTP/1.1 200 "));
    assert!(get(endpoint, "/").starts_with("HTTP/1.1 404 "));
    assert!(ask(endpoint, b"POST /metrics HTTP/1.1\r\n\r\n").contains("405 Method Not Allowed\r\n"));
    assert!(ask(endpoint, b"EHLO me\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let head = ask(endpoint, b"HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 20_000]].concat();
    assert!(ask(endpoint, &endless).starts_with("HTTP/1.1 431 "));
    // Idle clients take every place; theirs are free again in a few seconds.
    let idle: Vec<_> = (0..8).map(|_| TcpStream::connect(endpoint).unwrap()).collect();
    assert!(get(endpoint, "/health").starts_with("HTTP/1.1 200 "));
    drop(idle);

    // While a transaction is open the daemon drains: it lives, and takes nobody new.
    let mut client = Client::greet(site.address);
    client.command("MAIL FROM:<a@b.example>").expect(250);
    site.daemon().signal(rustix::process::Signal::TERM);
    crate::support::await_true("/ready to say no", Duration::from_secs(20), || {
        get(endpoint, "/ready").starts_with("HTTP/1.1 503 ")
    });
    assert!(get(endpoint, "/health").starts_with("HTTP/1.1 200 "));
    drop(client);
    site.stop();
}

#[test]
fn only_loopback_is_listened_on_for_metrics() {
    let (scratch, hop) = (Scratch::new("loopback"), Recorder::start());
    let site = Site::init(&scratch, "paris", free_address(), hop.address);
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text + "\n[metrics]\nlisten = \"0.0.0.0:9125\"\n").unwrap();
    let output = site.run(&["check"]);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("is not a loopback address"), "{said}");
}

/// 100 MiB through the daemon to a next hop that takes its time: what it holds in memory does not grow with the message.
#[test]
fn memory_stays_flat_while_a_hundred_mebibytes_pass() {
    const MESSAGE_MIB: usize = 100;
    let scratch = Scratch::new("flat");
    let hop = crate::support::Drain::start();
    let mut site = Site::init(&scratch, "paris", free_address(), hop.address);
    site.start();
    let mut client = Client::greet(site.address);
    client.transact("<a@b.example>", &["<c@d.example>"], b"Subject: first\r\n\r\nx\r\n").expect(250);
    let before = site.daemon().peak_kib();
    client.command("MAIL FROM:<a@b.example>").expect(250);
    client.command("RCPT TO:<c@d.example>").expect(250);
    client.command("DATA").expect(354);
    let mebibyte =
        b"A line of a message that has sixty-four octets with its CRLF...\r\n".repeat((1 << 20) / 64 + 1);
    for _ in 0..MESSAGE_MIB {
        client.send(&mebibyte);
    }
    client.send(b".\r\n");
    client.reply().expect(250);
    let grown = site.daemon().peak_kib() - before;
    assert!(hop.octets() > MESSAGE_MIB << 20, "only {} octets arrived", hop.octets());
    assert!(grown < 4096, "{grown} KiB more for {MESSAGE_MIB} MiB");
    site.stop();
}

/// What the alerts ask for is what the program offers.
#[test]
fn every_metric_of_the_alert_rules_exists() {
    let (scratch, hop) = (Scratch::new("alerts"), Recorder::start());
    let (mut site, endpoint) = measuring(&scratch, &hop);
    site.start();
    let page = get(endpoint, "/metrics");
    let (_, page) = page.split_once("\r\n\r\n").unwrap();
    exposition(page);
    for file in ["bridgehead.rules.yml", "README.md"] {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus");
        let text = std::fs::read_to_string(format!("{place}/{file}")).unwrap();
        let names = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        let names: Vec<_> = names.filter(|name| name.starts_with("bridgehead_")).collect();
        assert!(names.len() > 4, "{file} asks for metrics");
        for name in names {
            let family = name.trim_end_matches("_total");
            assert!(page.contains(&format!("# TYPE {family} ")), "{name}, in {file}");
        }
    }
    site.stop();
}
