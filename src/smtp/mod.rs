//! The words that both ends of the wire share, pure: no sockets, no clock.

pub mod address;
pub mod command;
pub mod data;
pub mod envelope;
pub mod extension;
pub mod header;
pub mod parameter;
pub mod reply;
pub mod xforward;

pub use address::{Path, PathError};
pub use command::{Command, CommandError, Line};
pub use envelope::{Envelope, Recipient};
pub use extension::Extensions;
pub use parameter::{MailParameters, ParameterError, RcptParameters};
pub use reply::{Enhanced, Reply, ReplyError};
pub use xforward::ClientAttributes;
