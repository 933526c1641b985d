//! Other people's SMTP clients, and a next hop written in Python: swaks, smtplib, aiosmtpd.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Certificate, Client, Process, Recorded, Recorder, SOON, Scratch, Site, await_some, await_true,
    free_address, tool,
};

/// A site with one more listener, and a recorder behind it.
struct Relay {
    world: Recorder,
    site: Site,
    /// The additional listener.
    listener: SocketAddr,
    _scratch: Scratch,
}

impl Relay {
    /// `listener` are further lines of its table; CERTIFICATE and KEY stand for files.
    fn with(test: &str, listener: &str, listen: &str) -> Relay {
        let scratch = Scratch::new(test);
        let world = Recorder::start();
        let files = Certificate::new(&scratch, "mx.paris.example");
        let site = Site::init(&scratch, "paris", free_address(), world.address);
        let address = free_address();
        let table = format!("[[listener]]\naddress = \"{address}\"\n{listener}\n")
            .replace("CERTIFICATE", &files.certificate.display().to_string())
            .replace("KEY", &files.key.display().to_string());
        site.configure("[listen]", listen, &table);
        let mut relay = Relay { world, site, listener: address, _scratch: scratch };
        relay.site.start();
        relay
    }

    /// Sends one message by swaks to the additional listener; whether it succeeded, and what was said.
    fn swaks(&self, options: &[&str]) -> (bool, String) {
        let mut command = swaks();
        command.args(["--server", "127.0.0.1", "--port", &self.listener.port().to_string()]).args(options);
        run(command)
    }

    fn arrived(&self) -> Recorded {
        self.world.await_message_for("friend@far.example", SOON)
    }
}

fn swaks() -> Command {
    let mut command = Command::new(tool("swaks"));
    command.args([
        "--helo",
        "client.example",
        "--from",
        "renee@outside.example",
        "--to",
        "friend@far.example",
    ]);
    command.args(["--header", "Subject: by swaks", "--body", "a line\n.\n.. and dots\n"]);
    command
}

fn run(mut command: Command) -> (bool, String) {
    let output = command.output().expect("swaks is installed");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[track_caller]
fn assert_sent((sent, said): (bool, String)) -> String {
    assert!(sent, "{said}");
    said
}

const TLS: &str = "tls = { certificate = \"CERTIFICATE\", key = \"KEY\" }";

#[test]
fn swaks_pipelines() {
    let relay = Relay::with("swaks-pipeline", "", "");
    assert_sent(relay.swaks(&["--pipeline"]));
    assert!(
        relay.arrived().text().contains("\r\na line\r\n.\r\n.. and dots\r\n"),
        "{}",
        relay.arrived().text()
    );
}

#[test]
fn swaks_starts_tls() {
    let relay = Relay::with("swaks-starttls", TLS, "");
    let said = assert_sent(relay.swaks(&["--tls", "--pipeline"]));
    assert!(said.contains("TLS started"), "{said}");
    assert!(relay.arrived().text().contains("with ESMTPS "), "{}", relay.arrived().text());
}

#[test]
fn swaks_connects_with_tls_from_the_first_octet() {
    let relay = Relay::with("swaks-implicit", &TLS.replace(" }", ", mode = \"implicit\" }"), "");
    assert_sent(relay.swaks(&["--tls-on-connect"]));
    relay.arrived();
}

#[test]
fn swaks_must_use_tls_where_it_is_required() {
    let relay = Relay::with("swaks-required", &TLS.replace(" }", ", mode = \"required\" }"), "");
    let (sent, said) = relay.swaks(&[]);
    assert!(!sent && said.contains("530"), "{said}");
    assert_sent(relay.swaks(&["--tls"]));
}

#[test]
fn swaks_authenticates_by_plain_and_by_login() {
    let scratch = Scratch::new("swaks-passwords");
    let passwords = scratch.write("passwords", "renee:{PLAIN}très secret\n");
    let auth = format!("{TLS}\nauth = {{ password_file = \"{}\" }}", passwords.display());
    let relay = Relay::with("swaks-auth", &auth, "trusted_networks = [\"192.0.2.0/24\"]");
    let by = |mechanism: &str, password: &str| {
        relay.swaks(&["--tls", "--auth", mechanism, "--auth-user", "renee", "--auth-password", password])
    };
    assert_sent(by("PLAIN", "très secret"));
    assert_sent(by("LOGIN", "très secret"));
    let (sent, said) = by("PLAIN", "wrong");
    assert!(!sent && said.contains("535"), "{said}");
    let (sent, said) = relay.swaks(&["--tls"]);
    assert!(!sent && said.contains("530"), "{said}");
    let (sent, said) =
        relay.swaks(&["--auth", "PLAIN", "--auth-user", "renee", "--auth-password", "très secret"]);
    assert!(!sent, "no password in clear: {said}");
}

#[test]
fn swaks_speaks_lmtp() {
    let relay = Relay::with("swaks-lmtp", "protocol = \"lmtp\"", "");
    assert_sent(relay.swaks(&["--protocol", "LMTP", "--to", "friend@far.example,other@far.example"]));
    relay.arrived();
    relay.world.await_message_for("other@far.example", SOON);
}

#[test]
fn swaks_comes_through_a_proxy() {
    let relay = Relay::with("swaks-proxy", "proxy_protocol = true", "trusted_networks = [\"192.0.2.0/24\"]");
    let proxied = |version: &str, family: &str, source: &str| {
        let source = ["--proxy-source", source, "--proxy-source-port", "4711"];
        let destination = ["--proxy-dest", "192.0.2.1", "--proxy-dest-port", "25"];
        let kind = ["--proxy-version", version, "--proxy-family", family];
        relay.swaks(&[&kind[..], &source, &destination].concat())
    };
    for (version, family) in [("1", "TCP4"), ("2", "AF_INET")] {
        let (sent, said) = proxied(version, family, "192.0.2.77");
        assert!(sent, "version {version}: {said}");
        let arrived = relay.world.take().pop().expect("it arrived");
        assert!(arrived.text().contains("[192.0.2.77]"), "{}", arrived.text());
    }
    let (sent, said) = proxied("1", "TCP4", "198.51.100.9");
    assert!(!sent && said.contains("5.7.1"), "who is behind the proxy may not relay: {said}");
}

#[test]
fn swaks_tells_by_xclient_who_the_client_is() {
    let relay = Relay::with("swaks-xclient", "", "trusted_peers = [\"127.0.0.0/8\"]");
    let said =
        assert_sent(relay.swaks(&["--xclient-addr", "127.1.2.3", "--xclient-helo", "far.outside.example"]));
    assert!(said.contains("XCLIENT"), "{said}");
    let text = relay.arrived().text();
    assert!(text.contains("[127.1.2.3]"), "{text}");
}

#[test]
fn swaks_uses_a_unix_socket() {
    let scratch = Scratch::new("swaks-unix");
    let socket = scratch.join("smtp");
    let relay = Relay::with("swaks-unix-site", "", "");
    relay.site.configure("[listen]", "", &format!("[[listener]]\naddress = \"unix:{}\"\n", socket.display()));
    let mut relay = relay;
    relay.site.stop();
    relay.site.start();
    let mut command = swaks();
    command.arg("--socket").arg(&socket);
    assert_sent(run(command));
    relay.arrived();
}

/// smtplib as the client, aiosmtpd as the next hop; both written by people who read the RFCs for themselves.
#[test]
fn python_sends_through_us_to_python() {
    let scratch = Scratch::new("aiosmtpd");
    let next_hop = free_address();
    let maildir = scratch.join("maildir");
    let mut command = Command::new("/usr/bin/python3");
    command
        .args(["-m", "aiosmtpd", "--nosetuid", "--smtputf8", "--listen", &next_hop.to_string()])
        .args(["--class", "aiosmtpd.handlers.Mailbox"])
        .arg(&maildir);
    let mut server = Process::start("aiosmtpd", &mut command, &scratch.join("aiosmtpd.log"));
    await_true("aiosmtpd to listen", SOON, || {
        server.assert_alive();
        std::net::TcpStream::connect(next_hop).is_ok()
    });
    let mut site = Site::init(&scratch, "paris", free_address(), next_hop);
    site.start();
    let script = format!(
        "import smtplib\n\
         with smtplib.SMTP('127.0.0.1', {port}) as s:\n\
         \x20   s.ehlo('client.example')\n\
         \x20   for n in range(20):\n\
         \x20       s.sendmail('renée@outside.example', ['friend@far.example'],\n\
         \x20                  f'Subject: n{{n}}\\r\\n\\r\\nGrüße {{n}}\\r\\n.\\r\\n'.encode(), ['SMTPUTF8', 'BODY=8BITMIME'])\n",
        port = site.address.port()
    );
    let sent = Command::new("/usr/bin/python3").arg("-c").arg(script).output().expect("python3");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let kept = await_some("20 messages in the maildir", SOON, || {
        Some(messages_in(&maildir.join("new"))).filter(|messages| messages.len() == 20)
    });
    for n in 0..20 {
        let body = format!("Grüße {n}\n.\n");
        assert!(kept.iter().any(|text| text.replace("\r\n", "\n").contains(&body)), "message {n} is missing");
    }
    Client::connect(site.address).command("QUIT").expect(221);
}

fn messages_in(directory: &Path) -> Vec<String> {
    let listing = std::fs::read_dir(directory).into_iter().flatten().flatten();
    listing
        .filter_map(|file| std::fs::read(file.path()).ok())
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .collect()
}
