//! A transfer: what takes one replica of a naming context from a base to a checkpoint.

pub mod manifest;
pub(super) mod stream;
mod values;
mod chunk;
mod dictionary;
mod body;
mod beside;
mod names;
pub mod encode;
mod decode;
pub mod apply;

use thiserror::Error;

use crate::directory::replica::ReplayError;
use crate::directory::{Position, StoreError};
use crate::replication::checkpoint::CheckpointError;

pub use apply::{Planned, apply, preview};
pub use dictionary::{Run, of_run as dictionary_of_run};
pub use encode::{EncodeError, Encoded, encode, encode_repair};
pub use manifest::{Base, Manifest, ManifestError};

/// The sender's fault: the body does not say what a body of this version can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Why a transfer is not applied. Nothing of it was.
#[derive(Debug, Error)]
pub enum TransferError {
    /// Nobody's fault: another transfer came first.
    #[error("the transfer starts from {needed}, the replica stands at {held}")]
    OtherBase { needed: Position, held: Position },
    /// Our fault: the caller looked at another naming context or checkpoint.
    #[error("the transfer is of another naming context")]
    OtherContext,
    #[error("the transfer ends at another checkpoint")]
    OtherCheckpoint,
    /// The sender's fault.
    #[error("the transfer cannot be read: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The two replicas were not equal at the base, or a carrier lied: verify.
    #[error("the transfer does not lead to its checkpoint: {0}")]
    Mismatch(ReplayError),
    /// As above: the replica cannot take the steps.
    #[error("the transfer does not fit the replica: {0}")]
    Impossible(ReplayError),
    /// This machine's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
pub(super) mod histories;
