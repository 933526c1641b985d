//! BDAT: a message in chunks, converted to DATA for the next hop.
//!
//! PROMISES
//!   The octets of a chunk are always consumed, whatever we think of them, so that none is taken for a command.
//!   A chunk that is not the last is answered by us and accepts nothing; the last is answered like a final dot.
//!
//! STANDARDS
//!   RFC 3030 section 2. BINARYMIME is not offered.
//!
//! FAILURE
//!   A chunk that is refused ends the transaction; those that were pipelined behind it are consumed and get 503.
//!
//! BUGS
//!   A message whose last line has no CRLF gets one on the way, for DATA cannot do without.

use bytes::Buf;

use super::body::Passage;
use super::form::send;
use super::grammar::Step;
use super::refusal::Refusal;
use super::session::{End, Flow, Session};
use crate::config::relay::BareLineEnds;
use crate::limits::DATA_BUFFER_BYTES;
use crate::relay::connection::ConnectionError;
use crate::smtp::data::{LineEndScanner, Normalizer, Stuffer};
use crate::smtp::{Enhanced, Reply};

/// A message of which some chunks have come.
pub struct Chunks {
    passage: Passage,
    line_ends: LineEndScanner,
    normalizer: Option<Normalizer>,
    stuffer: Stuffer,
}

impl Session {
    /// Takes one chunk.
    pub(super) async fn bdat(&mut self, octets: u64, last: bool) -> Flow {
        let limits = self.settings.config.limits.clone();
        if octets > limits.message_bytes_max {
            // Nothing says that so many octets would ever come to an end.
            return self.refuse(Refusal::MessageTooLarge).and(Err(End::Said));
        }
        let mut chunks = match self.chunks.take() {
            Some(chunks) => chunks,
            None => match self.begin_chunks().await? {
                Some(chunks) => chunks,
                None => return self.consume(octets).await,
            },
        };
        let mut left = octets;
        while left > 0 {
            if self.input.is_empty() {
                self.flush().await?;
                self.await_data(if left > 2048 { DATA_BUFFER_BYTES } else { 4096 }).await?;
                if chunks.passage.is_too_slow(self) {
                    return self.refuse(Refusal::TooSlow).and(Err(End::Said));
                }
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
            chunks.pass(self, take).await;
            self.input.advance(take);
            left -= take as u64;
        }
        self.shrink_input();
        if let Some(reply) = chunks.passage.spoiled.clone() {
            drop(chunks);
            self.grammar.end_of_data();
            self.end_transaction();
            self.say(&reply);
            return Ok(());
        }
        if !last {
            self.chunks = Some(chunks);
            self.say(&Reply::new(250, Enhanced(2, 0, 0), &format!("{octets} octets received")));
            return Ok(());
        }
        chunks.finish(self);
        self.finish_message(chunks.passage).await
    }

    /// What precedes the first chunk. `None`: the answer is given, its octets are to be consumed.
    async fn begin_chunks(&mut self) -> Result<Option<Box<Chunks>>, End> {
        // The reply comes behind the octets (RFC 3030), but they do not change it.
        let Some(lease) = self.begin_message(None, "BDAT").await? else {
            return Ok(None);
        };
        if self.grammar.accept(Step::Data).is_err() {
            return self.refuse(Refusal::Internal).map(|()| None);
        }
        let Some(transaction) = &self.transaction else {
            return self.refuse(Refusal::Internal).map(|()| None);
        };
        let normalize = self.settings.config.bare_line_ends == BareLineEnds::Normalize;
        Ok(Some(Box::new(Chunks {
            passage: Passage::new(self, transaction, lease),
            line_ends: LineEndScanner::default(),
            normalizer: normalize.then(Normalizer::default),
            stuffer: Stuffer::default(),
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
        if self.chunks.take().is_some() {
            self.grammar.end_of_data();
        }
    }
}

impl Chunks {
    /// Passes on the first `take` octets of the session's input.
    async fn pass(&mut self, session: &Session, take: usize) {
        let config = &session.settings.config;
        let stretch = &session.input[..take];
        self.passage.watch(session, stretch, take as u64);
        self.line_ends.scan(stretch);
        if let (Some(fault), BareLineEnds::Refuse) = (self.line_ends.fault(), config.bare_line_ends) {
            self.passage.spoil(session, Refusal::LineEnds(fault));
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
        if let Err(error) = self.forward(plain, session).await {
            self.passage.next_hop_failed(session, &error);
        }
    }

    async fn forward(&mut self, plain: &[u8], session: &Session) -> Result<(), ConnectionError> {
        if let Some(copy) = &mut self.passage.copy {
            copy.extend_from_slice(plain);
        }
        if self.passage.lease.is_none() {
            return Ok(());
        }
        let mut wire = Vec::with_capacity(plain.len() + 64);
        self.stuffer.push(plain, &mut wire);
        send(&mut self.passage, &wire, false, &session.settings.config.limits).await
    }

    /// The last chunk has come: what the end of data needs.
    fn finish(&mut self, session: &Session) {
        let mut rest = Vec::new();
        if let Some(normalizer) = &mut self.normalizer {
            normalizer.finish(&mut rest);
        } else if let (Some(fault), BareLineEnds::Refuse) =
            (self.line_ends.finish(), session.settings.config.bare_line_ends)
        {
            self.passage.spoil(session, Refusal::LineEnds(fault));
        }
        if let Some(copy) = &mut self.passage.copy {
            copy.extend_from_slice(&rest);
        }
        self.passage.tail.clear();
        self.stuffer.push(&rest, &mut self.passage.tail);
        self.stuffer.finish(&mut self.passage.tail);
    }
}
