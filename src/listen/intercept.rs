//! The seam between the relay and replication: a message to a replication mailbox leaves here.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use crate::smtp::{Path, Reply};

/// Who brought a message and for whom.
#[derive(Clone, Debug)]
pub struct InterceptedEnvelope {
    /// Null for bounces and delay notices.
    pub reverse_path: Path,
    /// The forward path as received, `+detail` included.
    pub mailbox: Path,
    /// The connecting client; `None` on a Unix socket and for `bridgehead deliver`.
    pub client: Option<IpAddr>,
}

/// What an [`Intercept`] answers with, boxed so that the listener can hold any of them.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// Takes replication mail out of the stream.
pub trait Intercept: Send + Sync + 'static {
    /// One message to a replication mailbox, whole, as received: un-stuffed, CRLF line ends, without
    /// our trace header.
    ///
    /// The answer is the reply to the final dot. It is 250 only when the message is durable or is known to be
    /// of no more use; what is not understood is refused with a reason or kept. Dropping the future must
    /// leave nothing half done.
    fn deliver(&self, envelope: InterceptedEnvelope, message: Vec<u8>) -> Delivery<'_>;
}

/// Knows which addresses of our own domains exist.
pub trait Recipients: Send + Sync + 'static {
    /// Whether an address exists. In doubt, yes: the next hop still decides.
    fn is_known<'a>(&'a self, path: &'a Path) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
}
