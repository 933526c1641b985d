//! A next hop that accepts mail and keeps every message with its envelope, as it came over the wire.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{await_some, free_address};

/// One accepted transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What followed `MAIL FROM:`, parameters included.
    pub mail: String,
    /// What followed each accepted `RCPT TO:`, parameters included.
    pub recipients: Vec<String>,
    /// The message, un-stuffed.
    pub message: Vec<u8>,
    /// Whatever else the client said before, XFORWARD for one.
    pub others: Vec<String>,
}

impl Recorded {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.message).into_owned()
    }

    /// Whether one of the recipients is this address.
    pub fn is_for(&self, address: &str) -> bool {
        self.recipients.iter().any(|r| r.to_ascii_lowercase().contains(&format!("<{address}>")))
    }
}

/// What to answer to a command line, to `.`, or to `. SIZE` that is asked first; `None` takes the usual reply.
type Answer = dyn Fn(&str) -> Option<String> + Send + Sync;

pub struct Recorder {
    pub address: SocketAddr,
    kept: Arc<Mutex<Vec<Recorded>>>,
    commands: Arc<Mutex<Vec<String>>>,
}

const EXTENSIONS: &str = "250-recorder.example\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n\
    250-SMTPUTF8\r\n250-DSN\r\n250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n250 ENHANCEDSTATUSCODES\r\n";

impl Recorder {
    /// Accepts everything.
    pub fn start() -> Recorder {
        Recorder::answering(|_| None)
    }

    /// Answers as told where told.
    pub fn answering(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Recorder {
        // Another test run on this machine may take a port between the look and the bind.
        let listener = (0..8).find_map(|_| TcpListener::bind(free_address()).ok());
        Recorder::on(listener.expect("a free port"), answer)
    }

    /// At an address that somebody was told before.
    pub fn at(
        address: SocketAddr,
        answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Recorder {
        Recorder::on(TcpListener::bind(address).expect("a free port"), answer)
    }

    fn on(
        listener: TcpListener,
        answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Recorder {
        let address = listener.local_addr().expect("its address");
        let kept = Arc::new(Mutex::new(Vec::new()));
        let commands = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = Arc::new(answer);
        let (keeper, noted) = (kept.clone(), commands.clone());
        // Ends with the process: it holds nothing but a port.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, commands, answer) = (keeper.clone(), noted.clone(), answer.clone());
                std::thread::spawn(move || Session::new(stream, answer).run(&kept, &commands));
            }
        });
        Recorder { address, kept, commands }
    }

    /// Every command line of every connection so far.
    pub fn commands(&self) -> Vec<String> {
        self.commands.lock().expect("no recorder thread panicked").clone()
    }

    /// Everything so far.
    pub fn kept(&self) -> Vec<Recorded> {
        self.kept.lock().expect("no recorder thread panicked").clone()
    }

    /// Everything so far, and forgets it.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.kept.lock().expect("no recorder thread panicked"))
    }

    /// The first message for this recipient, when it has come.
    pub fn await_message_for(&self, address: &str, limit: Duration) -> Recorded {
        await_some(&format!("mail for {address}"), limit, || {
            self.kept().into_iter().find(|m| m.is_for(address))
        })
    }
}

struct Session {
    stream: BufReader<TcpStream>,
    answer: Arc<Answer>,
    others: Vec<String>,
    mail: String,
    recipients: Vec<String>,
}

impl Session {
    fn new(stream: TcpStream, answer: Arc<Answer>) -> Session {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(300)));
        Session {
            stream: BufReader::new(stream),
            answer,
            others: Vec::new(),
            mail: String::new(),
            recipients: Vec::new(),
        }
    }

    fn say(&mut self, line: &str, usual: &str) -> bool {
        let text = match (self.answer)(line) {
            Some(other) => format!("{other}\r\n"),
            None => usual.to_owned(),
        };
        let _ = self.stream.get_mut().write_all(text.as_bytes());
        text.starts_with(['2', '3'])
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(n) if n > 0 => Some(line),
            _ => None,
        }
    }

    fn run(mut self, kept: &Mutex<Vec<Recorded>>, commands: &Mutex<Vec<String>>) {
        self.say("CONNECT", "220 recorder.example ESMTP\r\n");
        while let Some(line) = self.line() {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            commands.lock().expect("no recorder thread panicked").push(line.clone());
            match line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "EHLO" => drop(self.say(&line, EXTENSIONS)),
                "MAIL" => {
                    self.recipients.clear();
                    let taken = self.say(&line, "250 2.1.0 Ok\r\n");
                    self.mail = if taken { after_colon(&line) } else { String::new() };
                }
                "RCPT" => {
                    if self.mail.is_empty() {
                        self.say(&line, "503 5.5.1 MAIL first\r\n");
                    } else if self.say(&line, "250 2.1.5 Ok\r\n") {
                        self.recipients.push(after_colon(&line));
                    }
                }
                "DATA" => {
                    if self.recipients.is_empty() {
                        self.say(&line, "554 5.5.1 no valid recipients\r\n");
                    } else if self.say(&line, "354 go on\r\n") && !self.receive(kept) {
                        return;
                    }
                }
                "RSET" => {
                    self.mail.clear();
                    self.recipients.clear();
                    self.say(&line, "250 2.0.0 Ok\r\n");
                }
                "QUIT" => {
                    self.say(&line, "221 2.0.0 Bye\r\n");
                    return;
                }
                "HELO" | "NOOP" => drop(self.say(&line, "250 2.0.0 Ok\r\n")),
                _ => {
                    self.others.push(line.clone());
                    self.say(&line, "250 2.0.0 Ok\r\n");
                }
            }
        }
    }

    /// `false` when the client went away before the final dot.
    fn receive(&mut self, kept: &Mutex<Vec<Recorded>>) -> bool {
        let mut message = Vec::new();
        loop {
            let Some(line) = self.line() else { return false };
            if line == b".\r\n" {
                break;
            }
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        // Kept before it is acknowledged, so that whoever saw the 250 finds it here.
        let record = Recorded {
            mail: self.mail.clone(),
            recipients: std::mem::take(&mut self.recipients),
            message,
            others: self.others.clone(),
        };
        let usual = "250 2.0.0 Ok: recorded\r\n";
        let verdict = (self.answer)(&format!(". {}", record.message.len())).or_else(|| (self.answer)("."));
        let refused = verdict.as_ref().is_some_and(|other| !other.starts_with('2'));
        if !refused {
            kept.lock().expect("no recorder thread panicked").push(record);
        }
        let reply = verdict.map_or_else(|| usual.to_owned(), |other| format!("{other}\r\n"));
        let _ = self.stream.get_mut().write_all(reply.as_bytes());
        true
    }
}

fn after_colon(line: &str) -> String {
    line.split_once(':').map(|(_, rest)| rest.trim().to_owned()).unwrap_or_default()
}
