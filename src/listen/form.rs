//! The form in which a message goes on to the next hop: as it came, or with its line ends normalized.
//!
//! STANDARDS
//!   RFC 5321 sections 2.3.8 and 4.5.2.

use super::body::Passage;
use crate::config::relay::{BareLineEnds, RelayLimits};
use crate::relay::connection::ConnectionError;
use crate::smtp::data::{Normalizer, Stuffer, Unstuffer};

/// In which form the message goes on.
pub enum Form {
    /// As it came.
    AsIs { unstuffer: Unstuffer },
    /// With every line end made CRLF.
    Normalized { unstuffer: Unstuffer, normalizer: Normalizer, stuffer: Stuffer },
}

impl Form {
    pub fn new(policy: BareLineEnds) -> Form {
        match policy {
            BareLineEnds::Refuse | BareLineEnds::Pass => Form::AsIs { unstuffer: Unstuffer::default() },
            BareLineEnds::Normalize => Form::Normalized {
                unstuffer: Unstuffer::default(),
                normalizer: Normalizer::default(),
                stuffer: Stuffer::default(),
            },
        }
    }

    /// Passes on a stretch: `content` octets of the message and, where there are more, the end of data.
    pub async fn pass(
        &mut self,
        passage: &mut Passage,
        wire: &[u8],
        content: usize,
        limits: &RelayLimits,
    ) -> Result<(), ConnectionError> {
        let end = wire.len() > content;
        let finish = end && passage.copy.is_none();
        match self {
            Form::AsIs { unstuffer } => {
                if let Some(copy) = &mut passage.copy {
                    unstuffer.push(&wire[..content], copy);
                }
                let wire = if finish { wire } else { &wire[..content] };
                send(passage, wire, finish, limits).await
            }
            Form::Normalized { unstuffer, normalizer, stuffer } => {
                let (mut plain, mut normal, mut out) = (Vec::new(), Vec::new(), Vec::new());
                unstuffer.push(&wire[..content], &mut plain);
                normalizer.push(&plain, &mut normal);
                if end {
                    normalizer.finish(&mut normal);
                }
                if let Some(copy) = &mut passage.copy {
                    copy.extend_from_slice(&normal);
                }
                stuffer.push(&normal, &mut out);
                if finish {
                    stuffer.finish(&mut out);
                }
                send(passage, &out, finish, limits).await
            }
        }
    }
}

/// Sends a stretch to the next hop, if there is one; `finish`: it contains the end of data.
pub async fn send(
    passage: &mut Passage,
    wire: &[u8],
    finish: bool,
    limits: &RelayLimits,
) -> Result<(), ConnectionError> {
    let Some(lease) = &mut passage.lease else {
        return Ok(());
    };
    if finish && lease.connection.has_unasked() {
        return Err(lease.connection.unasked().await);
    }
    passage.open = true;
    lease.connection.send_body(&passage.head, wire, limits.reply_timeout).await?;
    passage.head.clear();
    passage.ended = finish;
    Ok(())
}
