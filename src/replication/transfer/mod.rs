//! A transfer: what takes one replica of a naming context from a base to a checkpoint.

pub mod manifest;

pub use manifest::{Base, Manifest, ManifestError};
