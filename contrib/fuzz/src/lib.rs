//! The stage for targets that drive whole sessions: a relay, a client and a next hop in one thread, under a
//! clock that jumps to the next deadline whenever everybody waits.
//!
//! PROMISES
//!   One input always plays out in the same way. Nothing of one input is left for the next: relay, pool and sockets are made
//!   anew.
//!
//! What is checked in every session, whatever the client and the next hop say:
//!   - the next hop is sent nothing but the commands that we send, each whole (no desynchronisation);
//!   - every message that it takes begins with our trace field (no smuggled message has one);
//!   - no more messages are counted as accepted than it, or replication, took (no false 250);
//!   - our replies are well-formed, and the session ends after the client has gone.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bridgehead::config::relay::{
    BareLineEnds, ListenAddress, ListenerConfig, NextHopConfig, NextHopHost, Protocol, RelayConfig,
    RouteConfig,
};
use bridgehead::listen::{
    CountersSnapshot, Delivery, Intercept, InterceptedEnvelope, Listener, Service, serve,
};
use bridgehead::relay::Relay;
use bridgehead::relay::tls::ClientTls;
use bridgehead::smtp::data::Unstuffer;
use bridgehead::smtp::{Path, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// What the client does next.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    /// Until all that was said is answered.
    Await,
    /// So many seconds.
    Sleep(u64),
}

/// How relay and next hop are set up.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Bits: 1 LMTP, 2 PROXY protocol, 4 and 8 bare line ends, 16 line length bound, 32 next hop without extensions,
    /// 64 next hop without CHUNKING, 128 small bound on messages.
    pub flags: u8,
    /// What the next hop does at its first commands instead of what is usual; 0 is what is usual.
    pub whims: Vec<u8>,
}

/// What came of a session.
#[derive(Debug)]
pub struct Outcome {
    pub replies: Vec<Reply>,
    /// Messages that the next hop said 250 to, un-stuffed, our trace field included.
    pub taken: Vec<Vec<u8>>,
    pub counters: CountersSnapshot,
    pub intercepted: usize,
}

/// Plays one session.
pub fn play(setting: &Setting, steps: &[Step]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let hop = Arc::new(Hop { whims: Mutex::new(setting.whims.clone()), ..Hop::new(setting.flags) });
        let (inner, outer) = (place("hop"), place("relay"));
        let _ = std::fs::remove_file(&inner);
        let listener = UnixListener::bind(&inner).expect("a socket");
        tokio::spawn(hop.clone().serve(listener));
        let intercept = Arc::new(Mailbox::default());
        let relay = Relay::with_tls(Arc::new(config(setting.flags, inner)), tls());
        let service = Service::new(relay, intercept.clone(), None);
        let listener_config = ListenerConfig {
            address: ListenAddress::Unix { path: outer.clone(), mode: 0o600 },
            protocol: if setting.flags & 1 != 0 { Protocol::Lmtp } else { Protocol::Smtp },
            proxy_protocol: setting.flags & 2 != 0,
            ..ListenerConfig::smtp("fuzz", ([127, 0, 0, 1], 0).into())
        };
        let bound = Listener::bind(&listener_config.address).await.expect("a socket");
        let (stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(serve(bound, listener_config, service.clone(), stopping));
        let replies = speak(&outer, steps).await;
        stop.send_replace(true);
        timeout(SESSION_ENDS, serving).await.expect("the session ends").expect("no panic");
        let taken = std::mem::take(&mut *hop.taken.lock().expect("hop"));
        let intercepted = intercept.count();
        let counters = service.counters();
        // A 250 that was lost behind the dot is one more at the next hop, never one less.
        assert!(counters.messages as usize <= taken.len() + intercepted, "a false 250");
        Outcome { replies, taken, counters, intercepted }
    })
}

/// The client: says its steps, gives all replies.
async fn speak(relay: &PathBuf, steps: &[Step]) -> Vec<Reply> {
    let (mut read, mut write) = UnixStream::connect(relay).await.expect("the relay").into_split();
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        // Reset by the relay is an end, too.
        let _ = read.read_to_end(&mut heard).await;
        heard
    });
    for step in steps {
        match step {
            // The clock moves on only when nobody has anything to do.
            Step::Await => sleep(Duration::from_millis(1)).await,
            Step::Sleep(seconds) => sleep(Duration::from_secs(*seconds)).await,
            Step::Send(octets) => {
                if write.write_all(octets).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = write.shutdown().await;
    drop(write);
    let heard = timeout(SESSION_ENDS, heard).await.expect("the session ends").expect("no panic");
    let (mut replies, mut at) = (Vec::new(), 0);
    while let Some((reply, used)) = Reply::parse(&heard[at..]).expect("our replies are well-formed") {
        replies.push(reply);
        at += used;
    }
    assert!(heard[at..].is_empty(), "half a reply");
    replies
}

/// The next hop: strict about what it is sent, and as good or bad as its whims.
struct Hop {
    offers: String,
    whims: Mutex<Vec<u8>>,
    taken: Mutex<Vec<Vec<u8>>>,
}

impl Hop {
    fn new(flags: u8) -> Hop {
        let mut offers = "250-hop.example\r\n".to_owned();
        if flags & 32 == 0 {
            offers += "250-PIPELINING\r\n250-SIZE 100000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n";
            offers += "250-ENHANCEDSTATUSCODES\r\n250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n";
            if flags & 64 == 0 {
                offers += "250-CHUNKING\r\n250-BINARYMIME\r\n";
            }
        }
        Hop { offers: offers + "250 HELP\r\n", whims: Mutex::default(), taken: Mutex::default() }
    }

    async fn serve(self: Arc<Hop>, listener: UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().converse(stream));
        }
    }

    async fn converse(self: Arc<Hop>, stream: UnixStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        if !self.say(&mut stream, b"220 hop\r\n").await?.1 {
            return None;
        }
        let (mut recipients, mut chunks, mut refused) = (0, Vec::new(), false);
        loop {
            let line = line(&mut stream).await?;
            let verb = line.split(|b| matches!(b, b' ' | b':' | b'\r')).next().unwrap_or_default();
            let usual: &[u8] = match verb {
                b"EHLO" => self.offers.as_bytes(),
                b"HELO" | b"RSET" | b"NOOP" | b"QUIT" | b"XFORWARD" => b"250 2.0.0 ok\r\n",
                b"MAIL" | b"RCPT" => b"250 2.1.0 ok\r\n",
                b"DATA" if recipients == 0 => b"554 5.5.1 no recipients\r\n",
                b"DATA" => b"354 go\r\n",
                b"BDAT" if refused || recipients == 0 => b"503 5.5.1 no transaction\r\n",
                b"BDAT" => b"250 2.0.0 chunk\r\n",
                _ => panic!("sent to the next hop: {:?}", String::from_utf8_lossy(&line)),
            };
            let mut last = false;
            if verb == b"BDAT" {
                let text = String::from_utf8_lossy(&line).into_owned();
                let mut words = text.split_ascii_whitespace().skip(1);
                let mut chunk = vec![0; words.next()?.parse().expect("octets of a chunk")];
                last = words.next().is_some();
                stream.read_exact(&mut chunk).await.ok()?;
                chunks.extend_from_slice(&chunk);
            }
            let (code, goes_on) = self.say(&mut stream, usual).await?;
            match verb {
                b"MAIL" | b"RSET" | b"EHLO" | b"HELO" => {
                    (recipients, refused) = (0, false);
                    chunks.clear();
                }
                b"RCPT" if code == b'2' => recipients += 1,
                b"BDAT" if code != b'2' => refused = true,
                b"BDAT" if last && recipients > 0 && !refused => {
                    self.take(std::mem::take(&mut chunks));
                    recipients = 0;
                }
                _ if !goes_on => return None,
                b"DATA" if code == b'3' => {
                    let message = message(&mut stream).await?;
                    let usual: &[u8] =
                        if recipients > 0 { b"250 2.0.0 kept\r\n" } else { b"554 5.5.1 nobody\r\n" };
                    if recipients == 0 {
                        assert!(message.is_empty(), "a message for nobody");
                    }
                    // Taken before the reply: a reply that is lost does not undo it.
                    let (code, goes_on) = self.say(&mut stream, usual).await?;
                    if code == b'2' {
                        self.take(message);
                    }
                    if !goes_on {
                        return None;
                    }
                    recipients = 0;
                }
                b"QUIT" => return None,
                _ => {}
            }
        }
    }

    fn take(&self, message: Vec<u8>) {
        let shown = String::from_utf8_lossy(&message[..message.len().min(80)]).into_owned();
        assert!(message.starts_with(b"Received: from "), "a message without our trace: {shown:?}");
        self.taken.lock().expect("hop").push(message);
    }

    /// Says what is usual, or what its whim is. Gives the first octet of what was said and whether it goes on; `None`: it
    /// hangs up without a word.
    async fn say(&self, stream: &mut BufReader<UnixStream>, usual: &[u8]) -> Option<(u8, bool)> {
        let whim = {
            let mut whims = self.whims.lock().expect("hop");
            if whims.is_empty() { 0 } else { whims.remove(0) }
        };
        let intermediate = usual.starts_with(b"3");
        let said: &[u8] = match whim {
            1 => b"450 4.2.0 later\r\n",
            2 => b"550-5.7.1 never\r\n550 5.7.1 ever\r\n",
            3 => b"421 4.3.2 going down\r\n",
            4 => b"garbage \x00\xff\r\n",
            5 => return None,
            6 => {
                // Says nothing for as long as anybody waits.
                sleep(Duration::from_secs(3600)).await;
                return None;
            }
            7 => {
                sleep(Duration::from_secs(30)).await;
                usual
            }
            8 if !intermediate => {
                stream.write_all(usual).await.ok()?;
                sleep(Duration::from_millis(1)).await;
                b"250 2.0.0 unasked\r\n"
            }
            9 => b"299 x\r\n",
            10 if !intermediate => {
                stream.write_all(usual).await.ok()?;
                return Some((usual[0], false));
            }
            11 => b"25",
            12 if intermediate => b"354-go\r\n354 on\r\n",
            _ => usual,
        };
        stream.write_all(said).await.ok()?;
        Some((said[0], whim != 3 && whim != 11))
    }
}

/// One line of ours: whole, ended by CRLF.
async fn line(stream: &mut BufReader<UnixStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let octet = stream.read_u8().await.ok()?;
        line.push(octet);
        if octet == b'\n' {
            assert!(line.ends_with(b"\r\n"), "a bare LF in a command");
            let inner = &line[..line.len() - 2];
            assert!(!inner.contains(&b'\r') && !inner.contains(&0), "a bare CR or NUL in a command");
            return Some(line);
        }
    }
}

/// A message up to its end, un-stuffed; `None` if it is cut off.
async fn message(stream: &mut BufReader<UnixStream>) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    while wire != b".\r\n" && !wire.ends_with(b"\r\n.\r\n") {
        wire.push(stream.read_u8().await.ok()?);
    }
    wire.truncate(wire.len() - 3);
    let mut message = Vec::new();
    Unstuffer::default().push(&wire, &mut message);
    Some(message)
}

/// Takes replication mail.
#[derive(Default)]
struct Mailbox {
    count: Mutex<usize>,
}

impl Mailbox {
    fn count(&self) -> usize {
        *self.count.lock().expect("mailbox")
    }
}

impl Intercept for Mailbox {
    fn deliver(&self, _envelope: InterceptedEnvelope, message: Vec<u8>) -> Delivery<'_> {
        let refused = message.starts_with(b"refuse");
        if !refused {
            *self.count.lock().expect("mailbox") += 1;
        }
        let (code, text) = if refused { (550, "5.7.1 no") } else { (250, "2.0.0 taken") };
        Box::pin(std::future::ready(Reply::new(code, None, text)))
    }
}

fn config(flags: u8, hop: PathBuf) -> RelayConfig {
    let next_hop = |host| NextHopConfig { xforward: true, ..NextHopConfig::to(host) };
    let mut config = RelayConfig {
        hostname: "relay.example".into(),
        routes: vec![RouteConfig::default_to(next_hop(NextHopHost::Unix(hop)))],
        replication_mailboxes: Path::parse("directory@repl.example").into_iter().collect(),
        bare_line_ends: match flags >> 2 & 3 {
            1 => BareLineEnds::Normalize,
            2 => BareLineEnds::Pass,
            _ => BareLineEnds::Refuse,
        },
        ..RelayConfig::default()
    };
    config.limits.line_bytes_max = if flags & 16 != 0 { 998 } else { 0 };
    if flags & 128 != 0 {
        config.limits.message_bytes_max = 2000;
        config.limits.replication_message_bytes_max = 1000;
        config.limits.recipients_max = 3;
        config.limits.errors_max = 5;
    }
    config
}

/// A Unix socket of this process.
fn place(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("bridgehead-fuzz-{}-{name}.sock", std::process::id()))
}

/// Reading the system's trust roots takes long.
fn tls() -> ClientTls {
    static TLS: OnceLock<ClientTls> = OnceLock::new();
    TLS.get_or_init(ClientTls::new).clone()
}

/// More than the longest patience that a session has with anybody, several times over.
const SESSION_ENDS: Duration = Duration::from_secs(7 * 24 * 3600);
