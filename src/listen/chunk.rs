//! BDAT: a message in chunks, passed on in chunks where the next hop takes them, else converted to DATA.
//!
//! PROMISES
//!   The octets of a chunk are always consumed, whatever we think of them, so that none is taken for a command.
//!   A chunk that is not the last accepts nothing; the last is answered like a final dot, and goes to the next hop
//!   only when that has taken all before it. Nothing of a chunk is kept.
//!
//! STANDARDS
//!   RFC 3030 sections 2 (CHUNKING) and 3 (BINARYMIME); RFC 2033 section 4.3 (a reply for each recipient).
//!
//! FAILURE
//!   A chunk that is refused, by us or the next hop, ends the transaction; those that were pipelined behind it are
//!   consumed and get 503.
//!
//! BUGS
//!   A message whose last line has no CRLF gets one where it goes on as DATA, which cannot do without.

use bytes::Buf;

use super::body::Passage;
use super::form::send;
use super::grammar::Step;
use super::refusal::Refusal;
use super::session::{End, Flow, Session};
use super::transaction::transient;
use crate::config::relay::BareLineEnds;
use crate::limits::DATA_BUFFER_BYTES;
use crate::relay::connection::ConnectionError;
use crate::relay::next_hop::Lease;
use crate::smtp::data::{LineEndScanner, Normalizer, Stuffer};
use crate::smtp::{Command, Enhanced, Line, Reply};

/// A message of which some chunks have come.
pub struct Chunks {
    pub(super) passage: Passage,
    /// `None`: any octets are as good as others (BINARYMIME).
    line_ends: Option<LineEndScanner>,
    normalizer: Option<Normalizer>,
    /// `None`: it goes on in chunks.
    stuffer: Option<Stuffer>,
    /// Octets of each chunk whose reply the next hop still owes.
    unanswered: Vec<u64>,
}

impl Session {
    /// Takes one chunk.
    pub(super) async fn bdat(&mut self, octets: u64, last: bool) -> Flow {
        let limits = self.settings.config.limits.clone();
        if octets > limits.message_bytes_max {
            if let Some(mut chunks) = self.chunks.take() {
                chunks.hear(self).await;
            }
            // Nothing says that so many octets would ever come to an end.
            return self.refuse(Refusal::MessageTooLarge).and(Err(End::Said));
        }
        let mut chunks = match self.chunks.take() {
            Some(chunks) => chunks,
            None => match self.begin_chunks(last).await? {
                Some(chunks) => chunks,
                None => return self.consume(octets).await,
            },
        };
        chunks.announce(self, octets, last).await;
        if let Err(end) = self.read_chunk(&mut chunks, octets, last).await {
            chunks.passage.log_broken(self);
            return Err(end);
        }
        self.shrink_input();
        if last {
            chunks.finish(self).await;
            return self.finish_message(chunks.passage).await;
        }
        chunks.taken(self, octets).await;
        if chunks.passage.spoiled.is_none() {
            self.chunks = Some(chunks);
            return Ok(());
        }
        self.grammar.end_of_data();
        self.end_transaction();
        Ok(())
    }

    async fn read_chunk(&mut self, chunks: &mut Chunks, octets: u64, last: bool) -> Flow {
        let mut left = octets;
        while left > 0 {
            if self.input.is_empty() {
                // A client may wait for the replies to former chunks before it goes on.
                chunks.hear(self).await;
                self.flush().await?;
                self.await_data(if left > 2048 { DATA_BUFFER_BYTES } else { 4096 }).await?;
                if chunks.passage.is_too_slow(self) {
                    return self.refuse(Refusal::TooSlow).and(Err(End::Said));
                }
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
            left -= take as u64;
            chunks.pass(self, take, last && left == 0).await;
            self.input.advance(take);
        }
        Ok(())
    }

    /// Whether a message in chunks goes on in chunks. To normalize changes how many octets there are, so that none
    /// can be announced.
    pub(super) fn passes_chunks(&self, lease: &Lease) -> bool {
        let normalizes = self.settings.config.bare_line_ends == BareLineEnds::Normalize;
        lease.connection.extensions().chunking && (self.is_binary() || !normalizes)
    }

    /// What precedes the first chunk. `None`: the answer is given, its octets are to be consumed.
    async fn begin_chunks(&mut self, last: bool) -> Result<Option<Box<Chunks>>, End> {
        let recipients = self.transaction.as_ref().map_or(0, |transaction| transaction.accepted.len());
        let said = self.out.len();
        // The reply comes behind the octets (RFC 3030), but they do not change it.
        let Some(lease) = self.begin_message(None, "BDAT").await? else {
            if self.client.lmtp && last {
                let reply = self.out.split_off(said);
                self.out.extend_from_slice(&reply.repeat(recipients.max(1)));
            }
            return Ok(None);
        };
        if self.grammar.accept(Step::Data).is_err() {
            return self.refuse(Refusal::Internal).map(|()| None);
        }
        let Some(transaction) = &self.transaction else {
            return self.refuse(Refusal::Internal).map(|()| None);
        };
        let binary = self.is_binary();
        let line_bytes_max = self.settings.config.limits.line_bytes_max;
        let normalize = self.settings.config.bare_line_ends == BareLineEnds::Normalize && !binary;
        let in_chunks = lease.as_ref().is_some_and(|lease| self.passes_chunks(lease));
        let mut passage = Passage::new(self, transaction, lease);
        passage.in_chunks = in_chunks;
        passage.open = !in_chunks;
        Ok(Some(Box::new(Chunks {
            passage,
            line_ends: (!binary).then(|| LineEndScanner::new(line_bytes_max)),
            normalizer: normalize.then(Normalizer::default),
            stuffer: (!in_chunks).then(Stuffer::default),
            unanswered: Vec::new(),
        })))
    }

    async fn consume(&mut self, octets: u64) -> Flow {
        let mut left = octets;
        loop {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
            self.input.advance(take);
            left -= take as u64;
            if left == 0 {
                return Ok(());
            }
            self.flush().await?;
            self.await_data(4096).await?;
        }
    }

    /// Forgets a message of which some chunks have come; the next hop sees no end of it.
    pub(super) fn drop_chunks(&mut self) {
        let Some(mut chunks) = self.chunks.take() else { return };
        chunks.passage.log_broken(self);
        self.grammar.end_of_data();
        chunks.passage.let_go();
    }

    /// Whether the client pipelined a chunk that is not the last, so that the reply to the one before may wait.
    fn chunk_follows(&self) -> bool {
        match Line::find(&self.input, self.settings.config.limits.command_bytes_max) {
            Line::Whole(octets) => {
                matches!(Command::parse(&self.input[..octets - 2]), Ok(Command::Bdat(_, false)))
            }
            _ => false,
        }
    }
}

impl Chunks {
    /// Makes the BDAT command of the next hop: it counts our trace field with the first chunk.
    async fn announce(&mut self, session: &mut Session, octets: u64, last: bool) {
        if self.passage.octets.saturating_add(octets) > session.settings.config.limits.message_bytes_max {
            self.hear(session).await;
            self.passage.spoil(session, Refusal::MessageTooLarge);
        }
        if last {
            // What the next hop refused already must not be ended as if it were whole.
            self.hear(session).await;
        }
        if self.stuffer.is_some() || self.passage.lease.is_none() || (octets == 0 && !last) {
            return;
        }
        let sent = octets + self.passage.head.len() as u64;
        // A copy for replication is committed before the message ends for the next hop.
        let ends = last && (self.passage.copy.is_none() || octets == 0);
        let word = if ends { " LAST" } else { "" };
        let mut head = format!("BDAT {sent}{word}\r\n").into_bytes();
        head.append(&mut self.passage.head);
        self.passage.head = head;
        self.passage.tail.clear();
        if last && !ends {
            self.passage.tail.extend_from_slice(b"BDAT 0 LAST\r\n");
        }
    }

    /// Passes on the first `take` octets of the session's input; `ends`: the message's last.
    async fn pass(&mut self, session: &Session, take: usize, ends: bool) {
        let config = &session.settings.config;
        let stretch = &session.input[..take];
        self.passage.watch(session, stretch, take as u64);
        if let Some(line_ends) = &mut self.line_ends {
            line_ends.scan(stretch);
            let fault = if ends { line_ends.finish() } else { line_ends.fault() };
            if let (Some(fault), BareLineEnds::Refuse) = (fault, config.bare_line_ends) {
                self.passage.spoil(session, Refusal::LineEnds(fault));
            }
            if line_ends.line_too_long() {
                self.passage.spoil(session, Refusal::DataLineTooLong);
            }
        }
        if self.passage.spoiled.is_some() {
            return;
        }
        let mut normal = Vec::new();
        let plain = match &mut self.normalizer {
            Some(normalizer) => {
                normalizer.push(stretch, &mut normal);
                &normal[..]
            }
            None => stretch,
        };
        if let Err(error) = self.forward(plain, session, ends).await {
            self.passage.next_hop_failed(session, &error);
        }
    }

    async fn forward(&mut self, plain: &[u8], session: &Session, ends: bool) -> Result<(), ConnectionError> {
        if let Some(copy) = &mut self.passage.copy {
            copy.extend_from_slice(plain);
        }
        if self.passage.lease.is_none() {
            return Ok(());
        }
        let limits = &session.settings.config.limits;
        let Some(stuffer) = &mut self.stuffer else {
            let ends = ends && self.passage.copy.is_none();
            return send(&mut self.passage, plain, ends, limits).await;
        };
        let mut wire = Vec::with_capacity(plain.len() + 64);
        stuffer.push(plain, &mut wire);
        send(&mut self.passage, &wire, false, limits).await
    }

    /// A chunk that is not the last was read: who answers it, and when.
    async fn taken(&mut self, session: &mut Session, octets: u64) {
        if let Some(lease) = &mut self.passage.lease
            && self.stuffer.is_none()
            && octets > 0
        {
            lease.connection.expect_reply();
            self.passage.open = false;
            let pipelines = lease.connection.extensions().pipelining;
            self.unanswered.push(octets);
            if !(pipelines && self.unanswered.len() < UNANSWERED_MAX && session.chunk_follows()) {
                self.hear(session).await;
            }
            return;
        }
        self.hear(session).await;
        session.say(&self.passage.spoiled.clone().unwrap_or_else(|| received(octets)));
    }

    /// Answers the chunks whose replies the next hop owes. Its first refusal holds for all that come behind.
    async fn hear(&mut self, session: &mut Session) {
        for octets in std::mem::take(&mut self.unanswered) {
            self.read_reply(session).await;
            session.say(&self.passage.spoiled.clone().unwrap_or_else(|| received(octets)));
        }
    }

    /// Reads one reply to a chunk. One that is not positive spoils the message.
    async fn read_reply(&mut self, session: &Session) {
        let Some(lease) = &mut self.passage.lease else { return };
        match lease.connection.expected_reply(session.settings.config.limits.reply_timeout).await {
            Ok(reply) if reply.is_positive() => {}
            Ok(reply) if reply.is_intermediate() => {
                self.passage.lease = None;
                self.passage.spoil(session, Refusal::NextHopEarly);
            }
            Ok(reply) => {
                if reply.code() == 421 {
                    self.passage.lease = None;
                }
                self.passage.spoil_with(transient(&reply));
            }
            Err(error) => self.passage.next_hop_failed(session, &error),
        }
    }

    /// The last chunk has come: what the end of data needs.
    async fn finish(&mut self, session: &Session) {
        let refuses = session.settings.config.bare_line_ends == BareLineEnds::Refuse;
        let fault = self.line_ends.as_ref().and_then(LineEndScanner::finish);
        if let (Some(fault), true) = (fault, refuses) {
            self.passage.spoil(session, Refusal::LineEnds(fault));
        }
        let Some(stuffer) = &mut self.stuffer else {
            if let (Some(lease), false) = (&mut self.passage.lease, self.passage.tail.is_empty()) {
                lease.connection.expect_reply();
                self.passage.open = false;
                self.read_reply(session).await;
            }
            return;
        };
        let mut rest = Vec::new();
        if let Some(normalizer) = &mut self.normalizer {
            normalizer.finish(&mut rest);
        }
        if let Some(copy) = &mut self.passage.copy {
            copy.extend_from_slice(&rest);
        }
        self.passage.tail.clear();
        stuffer.push(&rest, &mut self.passage.tail);
        stuffer.finish(&mut self.passage.tail);
    }
}

/// What is said to a chunk that is not the last. The octets are the client's; the next hop counts our trace field, too.
fn received(octets: u64) -> Reply {
    Reply::new(250, Enhanced(2, 0, 0), &format!("{octets} octets received"))
}

/// Chunks that may be on their way to the next hop before its reply to the first.
const UNANSWERED_MAX: usize = 8;
