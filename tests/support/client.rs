//! An SMTP client that sends exactly the bytes it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One reply, of one line or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// The text of each line, without the code.
    pub lines: Vec<String>,
}

impl Reply {
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Fails the test unless the code is this one.
    #[track_caller]
    pub fn expect(self, code: u16) -> Reply {
        assert_eq!(self.code, code, "reply was {self:?}");
        self
    }
}

pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects and reads the greeting.
    pub fn connect(to: SocketAddr) -> Client {
        let mut client = Client::connect_silently(to);
        client.reply().expect(220);
        client
    }

    /// Connects and leaves the greeting to the caller.
    pub fn connect_silently(to: SocketAddr) -> Client {
        let stream =
            TcpStream::connect_timeout(&to, super::SOON).unwrap_or_else(|e| panic!("connect to {to}: {e}"));
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("read timeout");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Client { stream: BufReader::new(stream) }
    }

    /// As `connect`, then EHLO.
    pub fn greet(to: SocketAddr) -> Client {
        let mut client = Client::connect(to);
        client.command("EHLO client.example").expect(250);
        client
    }

    /// One transaction on a connection of its own, by a client that bears with a server that is away or dies: `None` when
    /// no reply came. RFC 5321, 4.2.4.1: whoever sees no reply to the final dot sends again.
    pub fn attempt(to: SocketAddr, mail: &str, recipients: &[String], message: &[u8]) -> Option<Reply> {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut client = Client { stream: BufReader::new(stream) };
        client.try_reply().filter(|reply| reply.code == 220)?;
        let envelope = recipients.iter().map(|recipient| format!("RCPT TO:{recipient}"));
        let commands = ["EHLO mangler.example".to_owned(), format!("MAIL FROM:{mail}")];
        for command in commands.into_iter().chain(envelope) {
            client.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).ok()?;
            let reply = client.try_reply()?;
            if reply.code != 250 {
                return Some(reply);
            }
        }
        client.stream.get_mut().write_all(b"DATA\r\n").ok()?;
        let ready = client.try_reply()?;
        if ready.code != 354 {
            return Some(ready);
        }
        client.stream.get_mut().write_all(&stuffed(message)).ok()?;
        let reply = client.try_reply()?;
        // What matters was said.
        let _ = client.stream.get_mut().write_all(b"QUIT\r\n");
        Some(reply)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("write to the server");
    }

    /// Sends one command line and reads its reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("the server closed the connection or fell silent")
    }

    /// `None` when the connection is closed or nothing came in time.
    pub fn try_reply(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).ok()? == 0 {
                return None;
            }
            let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            let code = line.get(..3)?.parse().ok()?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Some(Reply { code, lines });
            }
        }
    }

    /// DATA, the message dot-stuffed, the final dot; the reply to that.
    pub fn data(&mut self, message: &[u8]) -> Reply {
        let ready = self.command("DATA");
        if ready.code != 354 {
            return ready;
        }
        self.send(&stuffed(message));
        self.reply()
    }

    /// A whole transaction; the reply to the final dot, or the first refusal before it.
    pub fn transact(&mut self, mail: &str, recipients: &[&str], message: &[u8]) -> Reply {
        let reply = self.command(&format!("MAIL FROM:{mail}"));
        if reply.code != 250 {
            return reply;
        }
        for recipient in recipients {
            let reply = self.command(&format!("RCPT TO:{recipient}"));
            if reply.code != 250 {
                return reply;
            }
        }
        self.data(message)
    }
}

/// With dots doubled at the start of lines, and the end of data (RFC 5321, 4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
