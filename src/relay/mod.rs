//! The way onward: next hops, their connections, the client side of the dialogue.

use std::sync::Arc;

use thiserror::Error;

use crate::config::relay::RelayConfig;
use crate::smtp::{Envelope, Reply};

/// The next hops and the connections to them; one for the whole process, shared by all sessions.
#[derive(Debug)]
pub struct Relay {
    _config: Arc<RelayConfig>,
}

/// Why a message of our own could not be handed to the next hop. In each case nothing was accepted.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The configuration has no route for the forward path.
    #[error("no route to {0}")]
    NoRoute(String),
    /// No next hop could be reached, or it went away before its reply; try again later.
    #[error("the next hop is not available: {0}")]
    Unavailable(String),
}

impl Relay {
    pub fn new(config: Arc<RelayConfig>) -> Arc<Relay> {
        Arc::new(Relay { _config: config })
    }

    /// Submits one whole message of our own (CRLF line ends, not dot-stuffed) to the next hop that the
    /// routes give for its forward path.
    ///
    /// The answer is the next hop's own reply to the final dot, or the one with which it refused earlier; a
    /// refusal is an answer, not an error.
    pub async fn submit(&self, envelope: &Envelope, _message: &[u8]) -> Result<Reply, SubmitError> {
        let to = envelope.recipients.first().map(|r| r.path.to_string());
        Err(SubmitError::NoRoute(to.unwrap_or_default()))
    }
}
