//! A mail system between two others that does everything to mail that mail systems have been seen to do.
//!
//! It speaks real SMTP on both sides and stores between: a message is accepted, kept for a while, and then dropped, repeated,
//! rewritten, bounced or delivered, in an order of its own. What happens to the n-th message follows from the seed alone.
//!
//! PROMISES
//!   What it does not drop or bounce it delivers, and tries again until the next server takes or refuses it. What is
//!   refused for good comes back to the return path as an RFC 3464 report. Mail with a null reverse path is never
//!   reported on (RFC 5321, 4.5.5).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bridgehead::message::random::{Rng, Seeded};

use super::{Client, Recorded, Recorder, Rewrite};

/// How bad it is. Rates are in percent of messages.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub drop: u32,
    /// One more copy, delayed on its own.
    pub repeat: u32,
    /// Kept this long at the most, each message for its own time; so they overtake one another.
    pub delay: Duration,
    /// Each of these, at this rate.
    pub rewrites: Vec<(Rewrite, u32)>,
    /// Accepted, then reported as undeliverable.
    pub bounce: u32,
    /// Answered 451 at MAIL.
    pub defer: u32,
    /// Larger messages are refused, 552 5.3.4, at MAIL if their size is declared there, else at the final dot.
    pub bytes_max: Option<usize>,
}

impl Faults {
    /// Everything at once, at rates under which mail still gets through.
    pub fn everything() -> Faults {
        let harmless = Rewrite::HARMLESS.map(|rewrite| (rewrite, 8));
        let harmful = Rewrite::HARMFUL.map(|rewrite| (rewrite, 3));
        Faults {
            drop: 8,
            repeat: 8,
            delay: Duration::from_millis(1500),
            rewrites: harmless.into_iter().chain(harmful).collect(),
            bounce: 4,
            defer: 5,
            bytes_max: None,
        }
    }
}

pub struct Mangler {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    seed: u64,
    faults: Mutex<Faults>,
    routes: Mutex<BTreeMap<String, SocketAddr>>,
    tally: Mutex<BTreeMap<String, u64>>,
    stop: AtomicBool,
}

/// A message on its way out.
struct Letter {
    due: Instant,
    mail: String,
    recipients: Vec<String>,
    message: Vec<u8>,
}

impl Mangler {
    /// Starts as bad as `faults` say.
    pub fn start(seed: u64, faults: Faults) -> Mangler {
        let state = Arc::new(State {
            seed,
            faults: Mutex::new(faults),
            routes: Mutex::default(),
            tally: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let answering = state.clone();
        let recorder = Recorder::answering(move |line| answering.answer(line));
        let address = recorder.address;
        let delivering = state.clone();
        std::thread::spawn(move || delivering.deliver(&recorder));
        Mangler { address, state }
    }

    /// Mail for this domain goes to this server.
    pub fn route(&self, domain: &str, to: SocketAddr) {
        self.state.routes.lock().expect("no thread panicked").insert(domain.to_owned(), to);
    }

    /// From now on as bad as this.
    pub fn set(&self, faults: Faults) {
        *self.state.faults.lock().expect("no thread panicked") = faults;
    }

    /// How often each thing was done so far.
    pub fn tally(&self) -> BTreeMap<String, u64> {
        self.state.tally.lock().expect("no thread panicked").clone()
    }
}

impl Drop for Mangler {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            eprintln!("--- mangler with seed {}: {:?}", self.state.seed, self.tally());
        }
    }
}

impl State {
    fn did(&self, what: &str) {
        *self.tally.lock().expect("no thread panicked").entry(what.to_owned()).or_default() += 1;
    }

    fn faults(&self) -> Faults {
        self.faults.lock().expect("no thread panicked").clone()
    }

    fn answer(&self, line: &str) -> Option<String> {
        let faults = self.faults();
        let bytes = line.strip_prefix(". ").or_else(|| line.split_once(" SIZE=").map(|(_, size)| size));
        let bytes = bytes.and_then(|bytes| bytes.split(' ').next()?.parse::<usize>().ok());
        if bytes.zip(faults.bytes_max).is_some_and(|(bytes, most)| bytes > most) {
            self.did("refused by size");
            return Some("552 5.3.4 message size exceeds fixed limit".to_owned());
        }
        if line.starts_with("MAIL ") {
            let count =
                self.tally.lock().expect("no thread panicked").get("asked").copied().unwrap_or_default();
            self.did("asked");
            if Chance::new(self.seed, count, "defer").percent(faults.defer) {
                self.did("deferred");
                return Some("451 4.7.1 greylisted, try again".to_owned());
            }
        }
        None
    }

    fn deliver(&self, recorder: &Recorder) {
        let mut queue: Vec<Letter> = Vec::new();
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            for accepted in recorder.take() {
                self.decide(number, accepted, &mut queue);
                number += 1;
            }
            let now = Instant::now();
            let (due, later): (Vec<Letter>, Vec<Letter>) =
                queue.drain(..).partition(|letter| letter.due <= now);
            queue = later;
            for letter in due {
                queue.extend(self.hand_over(letter));
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// What becomes of a message that was accepted.
    fn decide(&self, number: u64, accepted: Recorded, queue: &mut Vec<Letter>) {
        let faults = self.faults();
        let mut chance = Chance::new(self.seed, number, "fate");
        self.did("accepted");
        if chance.percent(faults.drop) {
            return self.did("dropped");
        }
        if chance.percent(faults.bounce) {
            self.did("bounced");
            let letter = Letter::of(accepted, Instant::now());
            queue.extend(letter.report("550 5.7.1 message refused by local policy"));
            return;
        }
        let repeated = chance.percent(faults.repeat);
        let mut letter = Letter::of(accepted, Instant::now() + faults.delay.mul_f64(chance.share()));
        for (rewrite, rate) in faults.rewrites {
            if chance.percent(rate) {
                self.did(&format!("{rewrite:?}"));
                letter.message = rewrite.apply(&letter.message);
            }
        }
        if repeated {
            self.did("repeated");
            let due = Instant::now() + faults.delay.mul_f64(chance.share());
            queue.push(Letter {
                due,
                mail: letter.mail.clone(),
                recipients: letter.recipients.clone(),
                message: letter.message.clone(),
            });
        }
        queue.push(letter);
    }

    /// Delivers a message; what is to be sent later: itself, a report, or nothing.
    fn hand_over(&self, letter: Letter) -> Option<Letter> {
        let to = letter.recipients.first().and_then(|recipient| self.route_of(recipient));
        let Some(to) = to else {
            self.did("unroutable");
            return letter.report("550 5.1.2 no such domain");
        };
        match Client::attempt(to, &letter.mail, &letter.recipients, &letter.message) {
            Some(reply) if reply.code / 100 == 2 => {
                self.did("delivered");
                None
            }
            Some(reply) if reply.code / 100 == 5 => {
                self.did("refused");
                letter.report(&format!("{} {}", reply.code, reply.text()))
            }
            _ => {
                self.did("put off");
                Some(Letter { due: Instant::now() + Duration::from_millis(300), ..letter })
            }
        }
    }

    fn route_of(&self, recipient: &str) -> Option<SocketAddr> {
        let domain = address_in(recipient).rsplit('@').next()?.to_ascii_lowercase();
        self.routes.lock().expect("no thread panicked").get(&domain).copied()
    }
}

impl Letter {
    fn of(accepted: Recorded, due: Instant) -> Letter {
        let path = |text: &str| format!("<{}>", address_in(text));
        Letter {
            due,
            mail: path(&accepted.mail),
            recipients: accepted.recipients.iter().map(|recipient| path(recipient)).collect(),
            message: accepted.message,
        }
    }

    /// RFC 3464: to the return path, from nobody, with the header of what is reported on.
    fn report(&self, diagnostic: &str) -> Option<Letter> {
        if self.mail == "<>" {
            return None;
        }
        let status = diagnostic.split(' ').nth(1).unwrap_or("5.0.0");
        let head = String::from_utf8_lossy(&self.message);
        let head = head.split_once("\r\n\r\n").map_or("", |(head, _)| head);
        let mut text = format!(
            "From: MAILER-DAEMON@mangler.example (Mail Delivery System)\r\nTo: {}\r\n\
             Subject: Undelivered Mail Returned to Sender\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=\"report\"\r\n\r\n\
             --report\r\nContent-Type: text/plain\r\n\r\nYour message could not be delivered: {diagnostic}\r\n\
             --report\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mangler.example\r\n\r\n",
            self.mail
        );
        for recipient in &self.recipients {
            let _ = write!(
                text,
                "Final-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: {status}\r\nDiagnostic-Code: smtp; {}\r\n\r\n",
                address_in(recipient),
                diagnostic.replace('\n', " ")
            );
        }
        let _ =
            write!(text, "--report\r\nContent-Type: text/rfc822-headers\r\n\r\n{head}\r\n\r\n--report--\r\n");
        let recipients = vec![self.mail.clone()];
        Some(Letter { due: Instant::now(), mail: "<>".to_owned(), recipients, message: text.into_bytes() })
    }
}

/// What stands between the angle brackets of a path.
fn address_in(path: &str) -> &str {
    let path = path.split_once('<').map_or(path, |(_, rest)| rest);
    path.split_once('>').map_or(path, |(address, _)| address)
}

/// Chance for one message: nothing but the seed, its number and the purpose decide.
struct Chance(Seeded);

impl Chance {
    fn new(seed: u64, number: u64, purpose: &str) -> Chance {
        let purpose =
            purpose.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Chance(Seeded::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number ^ purpose << 40))
    }

    fn percent(&mut self, rate: u32) -> bool {
        self.0.next_u32() % 100 < rate
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / f64::from(u32::MAX)
    }
}
