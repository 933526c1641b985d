//! The way onward: next hops, their connections, the client side of the dialogue.

use thiserror::Error;

use crate::config::relay::{RelayConfig, RouteConfig};
use crate::smtp::{Envelope, Reply};

/// Why a message of our own could not be handed to the next hop. In each case nothing was accepted.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// No next hop could be reached, or it went away before its reply; try again later.
    #[error("the next hop is not available: {0}")]
    Unavailable(String),
}

/// Submits one whole message (CRLF line ends, not dot-stuffed) over the route's next hops.
///
/// The answer is the next hop's own reply to the final dot, or the one with which it refused earlier; a
/// refusal is an answer, not an error.
pub async fn submit(
    _config: &RelayConfig,
    _route: &RouteConfig,
    _envelope: &Envelope,
    _message: &[u8],
) -> Result<Reply, SubmitError> {
    Err(SubmitError::Unavailable("being built".into()))
}
