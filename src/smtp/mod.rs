//! The words that both ends of the wire share, pure: no sockets, no clock.

pub mod address;
pub mod envelope;
pub mod extension;
pub mod parameter;
pub mod reply;

pub use address::{Path, PathError};
pub use envelope::{Envelope, Recipient};
pub use extension::Extensions;
pub use parameter::{MailParameters, ParameterError, RcptParameters};
pub use reply::{Enhanced, Reply, ReplyError};
