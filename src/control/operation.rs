//! What a command may ask of a site, whether the daemon runs or not.

use serde::{Deserialize, Serialize};

/// One thing asked of the running daemon. What it needs as input comes behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// Import LDIF, which comes as input. `file` names it in messages; none: it was made from a command
    /// line, and messages name no lines.
    Import { file: Option<String> },
    /// Exchange now; the answer is the time to wait from.
    Sync { partner: Option<String> },
    /// Compare digests now; the answer is the time to wait from.
    Verify { partner: Option<String> },
    /// Take the message that comes as input, sent to `mailbox`; the answer is the reply.
    Deliver { mailbox: Option<String> },
    /// Read the configuration again.
    Reload,
}
