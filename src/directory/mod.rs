//! The local directory: entries by entryUUID and DN, in naming contexts, in one transactional store.

pub mod attributes;
pub mod change;
pub mod commit;
pub mod context;
mod difference;
pub mod digest;
pub mod dn;
pub mod entry;
pub mod export;
pub mod filter;
#[cfg(test)]
pub(crate) mod histories;
pub mod import;
pub mod ldif;
pub mod lineage;
pub mod log;
pub mod lookup;
pub mod memory;
pub mod merge;
pub mod position;
pub mod recount;
pub mod replica;
pub mod sqlite;
pub mod store;

pub use attributes::{Attribute, Attributes};
pub use change::{Change, Modification, Operation};
pub use context::ContextRecord;
pub use dn::{Dn, Rdn};
pub use entry::Entry;
pub use lineage::Lineage;
pub use position::{Digest, Position};
pub use store::{Read, StoreError, Table, Write};
