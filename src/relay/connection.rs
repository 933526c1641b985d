//! One connection to a next hop, past its EHLO: commands out, replies in, a message through.
//!
//! PROMISES
//!   A reply belongs to the command that it answers: octets that arrive unasked are noticed, and the connection is
//!   not used again. Commands go out in one write where the next hop has PIPELINING.
//!
//! STANDARDS
//!   RFC 5321 section 4.2, RFC 2920.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::patience::Patience;
use super::stream::Stream;
use crate::limits::REPLY_BYTES_MAX;
use crate::smtp::{Extensions, Reply, ReplyError};

/// A connection to a next hop.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    patience: Patience,
    input: BytesMut,
    extensions: Arc<Extensions>,
    /// It carried a transaction before, so that it may have died in between.
    reused: bool,
    /// A transaction was begun and not finished.
    needs_reset: bool,
    /// Commands sent whose replies were not read yet.
    expected: usize,
    /// The other end is on this machine.
    near: bool,
}

/// Commands that belong together.
#[derive(Debug)]
pub struct Batch {
    pub bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The connection is of no more use. The next hop (or the network) is at fault in each.
#[derive(Debug, Error)]
pub enum ConnectionError {
    #[error("lost the connection: {0}")]
    Lost(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("no answer to the end of the message within {} s", .0.as_secs())]
    SilentAtDot(Duration),
    #[error("what it sent is not SMTP: {0}")]
    Garbage(#[from] ReplyError),
    #[error("it replied before it was asked: {0}")]
    Early(Reply),
}

impl Default for Batch {
    /// With room for an ordinary transaction's, so that it need not grow.
    fn default() -> Batch {
        Batch { bytes: Vec::with_capacity(256), ends: Vec::with_capacity(4) }
    }
}

impl Batch {
    /// Ends the command whose octets were appended to `bytes`, if there were any.
    pub fn end_command(&mut self) {
        if self.ends.last().copied().unwrap_or(0) < self.bytes.len() {
            self.ends.push(self.bytes.len());
        }
    }

    pub fn push(&mut self, command: &[u8]) {
        self.bytes.extend_from_slice(command);
        self.end_command();
    }

    /// Commands so far.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl Connection {
    pub fn new(stream: Stream) -> Connection {
        Connection {
            stream,
            patience: Patience::default(),
            input: BytesMut::new(),
            extensions: Arc::default(),
            reused: false,
            needs_reset: false,
            expected: 0,
            near: false,
        }
    }

    pub fn extensions(&self) -> &Arc<Extensions> {
        &self.extensions
    }

    pub fn learn(&mut self, extensions: Extensions) {
        self.extensions = Arc::new(extensions);
    }

    /// Whether the next hop is on this machine, where passwords may go in the clear.
    pub fn is_near(&self) -> bool {
        self.near
    }

    pub fn set_near(&mut self, near: bool) {
        self.near = near;
    }

    pub fn is_reused(&self) -> bool {
        self.reused
    }

    pub fn mark_reused(&mut self) {
        self.reused = true;
    }

    pub fn needs_reset(&self) -> bool {
        self.needs_reset
    }

    /// Whether the next user has to send RSET first.
    pub fn set_needs_reset(&mut self, needs_reset: bool) {
        self.needs_reset = needs_reset;
    }

    pub fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Whether nothing arrived unasked, neither octets nor the end of the connection.
    pub fn is_quiet(&mut self) -> bool {
        self.input.is_empty() && self.stream.try_read(&mut [0]).is_none()
    }

    /// Whether what arrived so far was all asked for.
    pub fn has_unasked(&mut self) -> bool {
        if self.input.is_empty() {
            let mut buffer = [0; 256];
            if let Some(Ok(read)) = self.stream.try_read(&mut buffer) {
                self.input.extend_from_slice(&buffer[..read]);
            }
        }
        !self.input.is_empty()
    }

    /// QUIT, as far as that goes without waiting.
    pub fn say_goodbye(&mut self) {
        self.stream.try_write(b"QUIT\r\n");
    }

    /// Sends the commands and reads their replies, one for each; none is awaited behind a 421.
    pub async fn exchange(
        &mut self,
        batch: &Batch,
        patience: Duration,
    ) -> Result<Vec<Reply>, ConnectionError> {
        let mut replies = Vec::with_capacity(batch.len());
        if self.extensions.pipelining || batch.len() <= 1 {
            self.send(&batch.bytes, patience).await?;
            for _ in &batch.ends {
                let reply = self.reply(patience).await?;
                let going = reply.code() == 421;
                replies.push(reply);
                if going {
                    break;
                }
            }
            return Ok(replies);
        }
        let mut from = 0;
        for end in &batch.ends {
            self.send(&batch.bytes[from..*end], patience).await?;
            let reply = self.reply(patience).await?;
            let going = reply.code() == 421;
            replies.push(reply);
            if going {
                break;
            }
            from = *end;
        }
        Ok(replies)
    }

    pub async fn send(&mut self, bytes: &[u8], patience: Duration) -> Result<(), ConnectionError> {
        let stream = &mut self.stream;
        let sent = self.patience.within(patience, async {
            stream.write_all(bytes).await?;
            stream.flush().await
        });
        match sent.await {
            Some(result) => Ok(result?),
            None => Err(ConnectionError::Silent(patience)),
        }
    }

    /// Reads one reply.
    pub async fn reply(&mut self, patience: Duration) -> Result<Reply, ConnectionError> {
        loop {
            if let Some((reply, used)) = Reply::parse(&self.input)? {
                let _ = self.input.split_to(used);
                return Ok(reply);
            }
            self.input.reserve(REPLY_BUFFER_BYTES);
            match self.patience.within(patience, self.stream.read_buf(&mut self.input)).await {
                Some(Ok(0)) => return Err(ConnectionError::Closed),
                Some(result) => drop(result?),
                None => return Err(ConnectionError::Silent(patience)),
            }
        }
    }

    /// Notes that a command went out whose reply may come while more is sent.
    pub fn expect_reply(&mut self) {
        self.expected += 1;
    }

    /// How many such replies are still to be read.
    pub fn expected(&self) -> usize {
        self.expected
    }

    /// Reads one of them.
    pub async fn expected_reply(&mut self, patience: Duration) -> Result<Reply, ConnectionError> {
        self.expected = self.expected.saturating_sub(1);
        self.reply(patience).await
    }

    /// Reads the reply to the end of a message, for which there is a patience of its own.
    pub async fn final_reply(&mut self, patience: Duration) -> Result<Reply, ConnectionError> {
        self.reply(patience).await.map_err(|error| match error {
            ConnectionError::Silent(patience) => ConnectionError::SilentAtDot(patience),
            error => error,
        })
    }

    /// Sends a stretch of a message in at most two pieces. Stops as soon as the next hop, while it does not
    /// take them, says something that is not expected.
    pub async fn send_body(
        &mut self,
        head: &[u8],
        body: &[u8],
        patience: Duration,
    ) -> Result<(), ConnectionError> {
        // Its own, while the rest of the connection is at work.
        let mut timer = std::mem::take(&mut self.patience);
        let sent = timer.within(patience, self.send_or_hear(head, body)).await;
        self.patience = timer;
        sent.unwrap_or(Err(ConnectionError::Silent(patience)))
    }

    async fn send_or_hear(&mut self, mut head: &[u8], mut body: &[u8]) -> Result<(), ConnectionError> {
        while !(head.is_empty() && body.is_empty()) {
            let stream = &mut self.stream;
            let input = &mut self.input;
            let heard_before = input.len();
            let sent = poll_fn(|cx| {
                let parts = [io::IoSlice::new(head), io::IoSlice::new(body)];
                let parts = if head.is_empty() { &parts[1..] } else { &parts[..] };
                if let Poll::Ready(result) = Pin::new(&mut *stream).poll_write_vectored(cx, parts) {
                    return Poll::Ready(result.map(Some));
                }
                let mut space = [0; 512];
                let mut heard = ReadBuf::new(&mut space);
                match Pin::new(&mut *stream).poll_read(cx, &mut heard) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => {
                        input.extend_from_slice(heard.filled());
                        Poll::Ready(Ok(None))
                    }
                }
            })
            .await?;
            match sent {
                Some(0) => return Err(ConnectionError::Closed),
                Some(sent) => {
                    let of_head = sent.min(head.len());
                    head = &head[of_head..];
                    body = &body[sent - of_head..];
                }
                // What is expected is read later; it must not grow without bound, and its end is the connection's.
                None if self.input.len() == heard_before
                    || self.input.len() > self.expected * REPLY_BYTES_MAX =>
                {
                    return Err(self.unasked().await);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// What the next hop said unasked, or that it closed the connection.
    pub async fn unasked(&mut self) -> ConnectionError {
        if self.input.is_empty() {
            return ConnectionError::Closed;
        }
        match self.reply(UNASKED_PATIENCE).await {
            Ok(reply) => ConnectionError::Early(reply),
            Err(error) => error,
        }
    }

    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        Ok(self.stream.flush().await?)
    }
}

/// Room for the replies to a transaction's commands.
const REPLY_BUFFER_BYTES: usize = 512;

/// For the rest of a reply that came unasked.
const UNASKED_PATIENCE: Duration = Duration::from_secs(5);
