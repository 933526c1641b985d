//! The local directory: entries by entryUUID and DN, in naming contexts, in one transactional store.

pub mod position;
pub mod store;
pub mod memory;

pub use position::{Digest, Position};
pub use store::{Read, StoreError, Table, Write};
