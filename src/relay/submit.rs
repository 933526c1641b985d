//! Our own mail, handed to the next hop.
//!
//! PROMISES
//!   Its size is declared where the next hop has SIZE, and what is larger than the next hop says it takes is not sent.
//!
//! STANDARDS
//!   RFC 5321 section 3.3, RFC 1870.

use super::connection::{Batch, ConnectionError};
use super::next_hop::Lease;
use super::{Relay, Settings, SubmitError};
use crate::route::Onward;
use crate::smtp::data::Stuffer;
use crate::smtp::{Enhanced, Envelope, Reply};

impl Relay {
    /// Submits one whole message of our own (CRLF line ends, not dot-stuffed) to the next hop that the
    /// routes give for its first forward path.
    ///
    /// The answer is the next hop's own reply to the final dot, or the one with which it refused earlier, or ours in its
    /// place if it said that it takes no message as large; a refusal is an answer, not an error. Dropping the future leaves no half message behind.
    pub async fn submit(&self, envelope: &Envelope, message: &[u8]) -> Result<Reply, SubmitError> {
        let settings = self.settings();
        let path = envelope.recipients.first().map(|r| r.path.clone()).unwrap_or_default();
        let space = settings.routes.space(&path).ok_or_else(|| SubmitError::NoRoute(path.to_string()))?;
        let onward = space.onward(&path);
        let mut envelope = envelope.clone();
        envelope.parameters.size = Some(message.len() as u64);
        let (mut fresh, mut tried, mut failure) = (false, Vec::new(), None);
        loop {
            let mut lease = match self.acquire(&settings, &onward, fresh, &tried).await {
                Ok(lease) => lease,
                // The words of a next hop that was reached say more than that none is left.
                Err(error) => {
                    let failure: Option<ConnectionError> = failure;
                    let reason = failure.map_or_else(|| error.to_string(), |failure| failure.to_string());
                    return Err(SubmitError::Unavailable(reason));
                }
            };
            if let Some(refusal) = too_large(&lease, message.len()) {
                lease.release();
                return Ok(refusal);
            }
            match begin(&mut lease, &settings, &envelope).await {
                Ok(None) => {
                    lease.next_hop.succeeded();
                    return self.send_message(lease, &settings, message, &onward).await;
                }
                Ok(Some(refusal)) => {
                    lease.connection.set_needs_reset(true);
                    lease.release();
                    return Ok(refusal);
                }
                Err(_) if lease.connection.is_reused() && !fresh => fresh = true,
                Err(error) => {
                    lease.failed(&error);
                    lease.next_hop.failed(&settings.config.limits);
                    tried.push(lease.next_hop.clone());
                    (fresh, failure) = (false, Some(error));
                }
            }
        }
    }

    async fn send_message(
        &self,
        mut lease: Lease,
        settings: &Settings,
        message: &[u8],
        _onward: &Onward,
    ) -> Result<Reply, SubmitError> {
        let limits = &settings.config.limits;
        let sent: Result<Reply, ConnectionError> = async {
            let (mut stuffer, mut wire) = (Stuffer::default(), Vec::with_capacity(CHUNK_BYTES + 256));
            for chunk in message.chunks(CHUNK_BYTES) {
                wire.clear();
                stuffer.push(chunk, &mut wire);
                lease.connection.send_body(&wire, &[], limits.reply_timeout).await?;
            }
            wire.clear();
            stuffer.finish(&mut wire);
            lease.connection.send(&wire, limits.reply_timeout).await?;
            lease.connection.final_reply(limits.final_timeout).await
        }
        .await;
        if let Err(error) = &sent {
            lease.failed(error);
        }
        match sent {
            Ok(reply) => {
                if reply.code() != 421 {
                    lease.release();
                }
                Ok(reply)
            }
            // It may refuse a large message before it has all of it.
            Err(ConnectionError::Early(reply)) if !reply.is_positive() => Ok(reply),
            Err(error) => Err(SubmitError::Unavailable(error.to_string())),
        }
    }
}

/// What the next hop would say once it had all of the message.
fn too_large(lease: &Lease, bytes: usize) -> Option<Reply> {
    // 0 is no limit (RFC 1870 section 4).
    let limit = lease.connection.extensions().size.filter(|limit| (1..bytes as u64).contains(limit))?;
    let hop = &lease.next_hop.name;
    let text = format!("not sent: it has {bytes} octets, and the next hop {hop} takes at most {limit}");
    Some(Reply::new(552, Enhanced(5, 3, 4), &text))
}

/// MAIL, RCPT and DATA. `None`: the next hop waits for the message; else the reply that refused.
async fn begin(
    lease: &mut Lease,
    settings: &Settings,
    envelope: &Envelope,
) -> Result<Option<Reply>, ConnectionError> {
    let patience = settings.config.limits.reply_timeout;
    let extensions = lease.connection.extensions().clone();
    let mut batch = Batch::default();
    let resets = usize::from(lease.connection.needs_reset());
    if resets > 0 {
        batch.push(b"RSET\r\n");
    }
    envelope.write_mail(&mut batch.bytes, &extensions);
    batch.end_command();
    for recipient in &envelope.recipients {
        recipient.write_rcpt(&mut batch.bytes, &extensions);
        batch.end_command();
    }
    let replies = lease.connection.exchange(&batch, patience).await?;
    lease.connection.set_needs_reset(false);
    if let Some(dying) = replies.iter().find(|reply| reply.code() == 421) {
        return Err(ConnectionError::Early(dying.clone()));
    }
    if let Some(refusal) = replies.into_iter().skip(resets).find(|reply| !reply.is_positive()) {
        return Ok(Some(refusal));
    }
    lease.connection.send(b"DATA\r\n", patience).await?;
    let reply = lease.connection.reply(patience).await?;
    Ok((reply.code() != 354).then_some(reply))
}

/// Octets of a message that are stuffed and sent at once.
const CHUNK_BYTES: usize = 64 << 10;
