//! One client's session: lines in, replies out, each command to the file that carries it out.
//!
//! PROMISES
//!   Replies leave in the order of the commands, in one write for a group that was pipelined. An idle session holds
//!   one small buffer. Nothing that a client sends keeps us busy or in memory beyond the limits.
//!
//! STANDARDS
//!   RFC 5321 sections 3 and 4, RFC 2920 (PIPELINING), RFC 2033 (LMTP), RFC 3207, RFC 2034.
//!
//! FAILURE
//!   A client that goes away ends its session; what it had not ended with a dot is not passed on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::Service;
use super::auth::RESPONSE_BYTES_MAX;
use super::chunk::Chunks;
use super::client::Client;
use super::grammar::Grammar;
use super::passed::Authenticated;
use super::refusal::Refusal;
use super::transaction::Transaction;
use crate::config::relay::{ListenerConfig, ListenerTlsMode, Protocol};
use crate::limits::COMMAND_BUFFER_BYTES;
use crate::relay::Settings;
use crate::relay::patience::Patience;
use crate::relay::stream::Stream;
use crate::smtp::{Command, CommandError, Enhanced, Extensions, Line, Reply};

/// One session.
pub struct Session {
    pub(super) service: Arc<Service>,
    pub(super) listener: Arc<ListenerConfig>,
    pub(super) settings: Arc<Settings>,
    pub(super) stream: Stream,
    patience: Patience,
    pub(super) input: BytesMut,
    /// Replies that were not sent yet.
    pub(super) out: Vec<u8>,
    line: Vec<u8>,
    pub(super) grammar: Grammar,
    pub(super) client: Client,
    /// Whose XFORWARD and XCLIENT we believe: by the real address of the connection.
    pub(super) trusted_peer: bool,
    pub(super) transaction: Option<Box<Transaction>>,
    /// A message of which some chunks have come.
    pub(super) chunks: Option<Box<Chunks>>,
    pub(super) offered: Extensions,
    /// The next hop's connection on which the client authenticated, where AUTH is passed through.
    pub(super) authenticated: Option<Authenticated>,
    errors: u32,
    started: Instant,
    stop: watch::Receiver<bool>,
}

/// Why a session is over.
#[derive(Debug)]
pub enum End {
    /// We said goodbye; what is in `out` is still to be sent.
    Said,
    /// The client went away.
    Gone(io::Error),
}

/// Whether the session goes on.
pub type Flow = Result<(), End>;

impl Session {
    pub fn new(
        service: Arc<Service>,
        listener: Arc<ListenerConfig>,
        stream: Stream,
        address: Option<SocketAddr>,
        trusted_peer: bool,
        stop: watch::Receiver<bool>,
    ) -> Session {
        let mut client = Client::new(address);
        client.tls = stream.is_tls();
        Session {
            settings: service.relay.settings(),
            service,
            listener,
            stream,
            patience: Patience::default(),
            input: BytesMut::with_capacity(COMMAND_BUFFER_BYTES),
            // Room for an ordinary session's lines, so that they need not grow.
            out: Vec::with_capacity(256),
            line: Vec::with_capacity(128),
            grammar: Grammar::new(address.map(|a| a.ip())),
            client,
            trusted_peer,
            transaction: None,
            chunks: None,
            offered: Extensions::default(),
            authenticated: None,
            errors: 0,
            started: Instant::now(),
            stop,
        }
    }

    /// Octets that came with the PROXY header.
    pub fn with_input(mut self, input: &[u8]) -> Session {
        self.input.extend_from_slice(input);
        self
    }

    /// Runs the session to its end.
    pub async fn run(mut self) {
        let end = match self.await_turn().await {
            Ok(()) => {
                self.greet();
                self.converse().await
            }
            Err(end) => end,
        };
        self.drop_chunks();
        self.end_transaction();
        if let Some(authenticated) = self.authenticated.take() {
            authenticated.say_goodbye();
        }
        match end {
            End::Said => {
                if let Err(End::Gone(error)) = self.flush().await {
                    debug!(target: "bridgehead::session", %error, "client went away");
                }
                // Closing says it all, but under TLS.
                if self.stream.is_tls() {
                    let _ = timeout(GOODBYE_PATIENCE, self.stream.shutdown()).await;
                }
            }
            End::Gone(error) => debug!(target: "bridgehead::session", %error, "client went away"),
        }
    }

    /// Waits whether the client speaks before the greeting, which no mail server does.
    async fn await_turn(&mut self) -> Flow {
        let delay = self.settings.config.limits.greeting_delay;
        if self.input.is_empty() && !delay.is_zero() {
            match timeout(delay, self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(0)) => return Err(End::Gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(Err(error)) => return Err(End::Gone(error)),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
        if self.input.is_empty() { Ok(()) } else { self.refuse(Refusal::EarlyTalker).and(Err(End::Said)) }
    }

    pub(super) fn greet(&mut self) {
        let protocol = if self.listener.protocol == Protocol::Lmtp { "LMTP" } else { "ESMTP" };
        let text = format!("{} {protocol} bridgehead", self.settings.config.hostname);
        self.say(&Reply::new(220, None, &text));
    }

    async fn converse(&mut self) -> End {
        loop {
            let step = match Line::find(&self.input, self.command_bytes_max()) {
                // A TLS handshake need not contain a line end.
                _ if self.input.starts_with(b"\x16\x03") => {
                    self.refuse(CommandError::OtherProtocol.into()).and(Err(End::Said))
                }
                Line::Whole(octets) => {
                    let mut line = std::mem::take(&mut self.line);
                    line.clear();
                    line.extend_from_slice(&self.input[..octets - 2]);
                    self.input.advance(octets);
                    let step = self.command(&line).await;
                    self.line = line;
                    step
                }
                Line::Broken(octets) => {
                    self.input.advance(octets);
                    self.refuse(Refusal::BrokenLine)
                }
                Line::TooLong => self.refuse(Refusal::LineTooLong).and(Err(End::Said)),
                Line::Partial => match self.flush().await {
                    Ok(()) => self.await_command().await,
                    end => end,
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// A response of AUTH may come with the command (RFC 4954 section 4).
    fn command_bytes_max(&self) -> usize {
        let max = self.settings.config.limits.command_bytes_max;
        match self.input.get(..5) {
            Some(verb) if verb.eq_ignore_ascii_case(b"AUTH ") && self.listener.auth.is_some() => {
                max.max(RESPONSE_BYTES_MAX)
            }
            _ => max,
        }
    }

    async fn command(&mut self, line: &[u8]) -> Flow {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => {
                let fatal = error == CommandError::OtherProtocol;
                return self.refuse(error.into()).and(if fatal { Err(End::Said) } else { Ok(()) });
            }
        };
        // Only the client can authenticate again, and only in another session. QUIT needs no next hop; the octets of a chunk
        // have to be consumed.
        let ends_by_itself = matches!(command, Command::Quit | Command::Bdat(..));
        if self.transaction.is_none() && !ends_by_itself && self.has_lost_authentication() {
            return self.refuse(Refusal::AuthLost).and(Err(End::Said));
        }
        let between_chunks =
            matches!(command, Command::Bdat(..) | Command::Rset | Command::Noop | Command::Quit);
        if self.chunks.is_some() && !between_chunks {
            return self.refuse(Refusal::OutOfSequence("BDAT or RSET; a message is on its way"));
        }
        match command {
            Command::Ehlo(domain) => self.hello(domain, true, false).await,
            Command::Helo(domain) => self.hello(domain, false, false).await,
            Command::Lhlo(domain) => self.hello(domain, true, true).await,
            Command::Mail(path, parameters) => self.mail(path, parameters),
            Command::Rcpt(path, parameters) => self.recipients(path, parameters).await,
            Command::Data => self.data(None).await,
            Command::Bdat(octets, last) => self.bdat(octets, last).await,
            Command::Rset => {
                self.drop_chunks();
                self.end_transaction();
                self.grammar.reset();
                self.ok("Ok")
            }
            Command::Noop => self.ok("Ok"),
            Command::Quit => {
                self.say(&Reply::new(221, Enhanced(2, 0, 0), "Bye"));
                Err(End::Said)
            }
            Command::Vrfy => {
                self.say(&Reply::new(252, Enhanced(2, 0, 0), "Send it and see"));
                Ok(())
            }
            Command::Help => {
                self.say(&Reply::new(214, Enhanced(2, 0, 0), "See RFC 5321"));
                Ok(())
            }
            Command::StartTls => self.start_tls().await,
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial).await,
            Command::Xforward(arguments) => self.xforward(arguments),
            Command::Xclient(arguments) => self.xclient(arguments),
            Command::NotImplemented => self.refuse(Refusal::NotImplemented),
        }
    }

    /// What has to be done before mail is taken.
    pub(super) fn precondition(&self) -> Option<Refusal> {
        let tls_required =
            self.listener.tls.as_ref().is_some_and(|tls| tls.mode == ListenerTlsMode::Required);
        if tls_required && !self.stream.is_tls() {
            return Some(Refusal::NeedsTls);
        }
        let auth_required = self.listener.auth.as_ref().is_some_and(|auth| auth.required);
        (auth_required && !self.is_trusted()).then_some(Refusal::NeedsAuth)
    }

    /// Whether the client may relay anywhere.
    pub(super) fn is_trusted(&self) -> bool {
        self.client.login.is_some() || self.client.is_within(&self.settings.config.trusted_networks)
    }

    /// Forgets the transaction; the next hop's connection goes back to the pool.
    pub(super) fn end_transaction(&mut self) {
        if let Some(mut transaction) = self.transaction.take() {
            transaction.abandon();
            self.client.forwarded = Default::default();
            self.client.utf8 = false;
        }
    }

    pub(super) fn ok(&mut self, text: &str) -> Flow {
        self.say(&Reply::new(250, Enhanced(2, 0, 0), text));
        Ok(())
    }

    pub(super) fn say(&mut self, reply: &Reply) {
        reply.write_to(&mut self.out);
    }

    /// Says no; ends the session where the client has made too many errors.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> Flow {
        let limits = &self.settings.config.limits;
        let reply = refusal.reply(limits);
        debug!(target: "bridgehead::session", refusal = refusal.name(), %reply, "refused");
        self.service.counters.refused(refusal.name());
        reply.write_to(&mut self.out);
        if refusal.is_client_error() { self.count_error() } else { Ok(()) }
    }

    pub(super) fn count_error(&mut self) -> Flow {
        let limits = &self.settings.config.limits;
        self.errors += 1;
        if self.errors < limits.errors_max {
            return Ok(());
        }
        Refusal::TooManyErrors.reply(limits).write_to(&mut self.out);
        self.service.counters.refused(Refusal::TooManyErrors.name());
        Err(End::Said)
    }

    pub(super) async fn flush(&mut self) -> Flow {
        if self.out.is_empty() {
            return Ok(());
        }
        let patience = self.settings.config.limits.command_timeout;
        let (stream, out) = (&mut self.stream, &self.out);
        let sent = self.patience.within(patience, async {
            stream.write_all(out).await?;
            stream.flush().await
        });
        let sent = sent.await;
        self.out.clear();
        if self.out.capacity() > COMMAND_BUFFER_BYTES {
            self.out = Vec::new();
        }
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(End::Gone(error)),
            None => Err(End::Gone(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Waits for more of a command.
    async fn await_command(&mut self) -> Flow {
        let limits = &self.settings.config.limits;
        let patience = limits.command_timeout;
        if self.started.elapsed() > limits.session_timeout {
            return self.refuse(Refusal::SessionTimeout).and(Err(End::Said));
        }
        self.input.reserve(if self.input.is_empty() { COMMAND_BUFFER_BYTES } else { 512 });
        let idle = self.transaction.is_none();
        if idle && *self.stop.borrow() {
            return self.refuse(Refusal::ShuttingDown).and(Err(End::Said));
        }
        let read = tokio::select! {
            biased;
            read = self.patience.within(patience, self.stream.read_buf(&mut self.input)) => read,
            _ = self.stop.changed(), if idle => return self.refuse(Refusal::ShuttingDown).and(Err(End::Said)),
        };
        match read {
            Some(Ok(0)) => Err(End::Gone(io::ErrorKind::UnexpectedEof.into())),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(End::Gone(error)),
            None => self.refuse(Refusal::CommandTimeout).and(Err(End::Said)),
        }
    }

    /// Waits for more of a message.
    pub(super) async fn await_data(&mut self, room: usize) -> Flow {
        self.input.reserve(room);
        let limits = &self.settings.config.limits;
        let patience = limits.data_timeout;
        if self.started.elapsed() > limits.session_timeout {
            return self.refuse(Refusal::SessionTimeout).and(Err(End::Said));
        }
        match self.patience.within(patience, self.stream.read_buf(&mut self.input)).await {
            Some(Ok(0)) => Err(End::Gone(io::ErrorKind::UnexpectedEof.into())),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(End::Gone(error)),
            None => self.refuse(Refusal::DataTimeout).and(Err(End::Said)),
        }
    }

    /// Gives a large buffer back once a message has ended.
    pub(super) fn shrink_input(&mut self) {
        if self.input.capacity() > COMMAND_BUFFER_BYTES && self.input.len() < COMMAND_BUFFER_BYTES {
            let mut small = BytesMut::with_capacity(COMMAND_BUFFER_BYTES);
            small.extend_from_slice(&self.input);
            self.input = small;
        }
    }
}

/// For the last words of a session.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);
