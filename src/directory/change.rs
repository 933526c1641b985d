//! One change to the directory as an LDIF record or an operator states it.

use uuid::Uuid;

use super::dn::{Dn, Rdn};
use super::entry::Attributes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry shall be as written, added or replaced (an LDIF content record). An entry that has
    /// the entryUUID under another name is moved here.
    Put { dn: Dn, uuid: Option<Uuid>, attributes: Attributes },
    /// The entry is new.
    Add { dn: Dn, uuid: Option<Uuid>, attributes: Attributes },
    /// The modifications are applied in order, all or none.
    Modify { dn: Dn, modifications: Vec<Modification> },
    /// A new RDN, and a new entry above if `new_superior` is given.
    Rename { dn: Dn, new_rdn: Rdn, delete_old_rdn: bool, new_superior: Option<Dn> },
    /// The entry has no entries beneath it.
    Delete { dn: Dn },
}

impl Change {
    /// The entry's name before the change.
    pub fn dn(&self) -> &Dn {
        match self {
            Change::Put { dn, .. }
            | Change::Add { dn, .. }
            | Change::Modify { dn, .. }
            | Change::Rename { dn, .. }
            | Change::Delete { dn } => dn,
        }
    }

    /// Octets in memory, near enough.
    pub(super) fn weight(&self) -> usize {
        let values = |values: &[Vec<u8>]| values.iter().map(|value| value.len() + 32).sum::<usize>();
        let content = match self {
            Change::Put { attributes, .. } | Change::Add { attributes, .. } => {
                attributes.iter().map(|a| a.name().len() + 64 + values(a.values())).sum()
            }
            Change::Modify { modifications, .. } => {
                modifications.iter().map(|m| m.attribute.len() + 64 + values(&m.values)).sum()
            }
            Change::Rename { .. } | Change::Delete { .. } => 0,
        };
        256 + self.dn().rdns().iter().map(|rdn| rdn.as_str().len() + 32).sum::<usize>() + content
    }
}

/// RFC 4511 section 4.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modification {
    pub operation: Operation,
    pub attribute: String,
    pub values: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Add,
    /// Without values: the whole attribute, which must be there.
    Delete,
    /// Without values: the attribute is gone afterwards, whether it was there or not.
    Replace,
}
