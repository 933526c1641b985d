//! The state digest of a naming context: a tree of hashes over its entries, kept up to date.
//!
//! PROMISES
//!   The tree, and with it the digest, depends on nothing but the set of entries. To find entries that
//!   make two sets with one digest is to break SHA-256. An update costs what was touched, not what is there.
//! STANDARDS
//!   FIPS 180-4 (SHA-256). The construction is part of the protocol, version 1:
//!
//!   ```text
//!   item(e)  = entryUUID of e (16 octets) || entry hash of e (32 octets, see entry.rs)
//!   D(S)     = 32 zero octets                                                      if S is empty
//!            = SHA-256("bridgehead leaf 1" NUL || n || item ... item)              if 1 <= n <= 16
//!            = SHA-256("bridgehead node 1" NUL || n0 || D(S0) || ... || n15 || D(S15))  if n > 16
//!   ```
//!
//!   with n = |S| and all counts as 64-bit big-endian integers, items in ascending order of their entryUUIDs, and Si
//!   the entries of S whose entryUUID has nibble i at the node's depth (the root's is the first nibble, the high half
//!   of octet 0). The state digest is D(all entries of the naming context). A hashed string tells by its first 18 octets
//!   what it is and by its counts how it is to be read, so no two sets share one.
//! FAILURE
//!   A node that is missing or malformed is `StoreError::Damaged`.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::context::range;
use super::position::Digest;
use super::store::{Read, StoreError, Table, Write};

/// Entries in a leaf at most; a node with more has sixteen children.
pub const LEAF_ENTRIES_MAX: usize = 16;

/// How many entries a node holds, and their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub entries: u64,
    pub digest: Digest,
}

/// entryUUID and entry hash.
pub type Item = (Uuid, Digest);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// In ascending order.
    Leaf(Vec<Item>),
    Inner(Box<[Summary; 16]>),
}

impl Summary {
    pub const EMPTY: Summary = Summary { entries: 0, digest: Digest::EMPTY };
}

impl Node {
    pub fn summary(&self) -> Summary {
        match self {
            Node::Leaf(items) => leaf_summary(items),
            Node::Inner(children) => inner_summary(children),
        }
    }
}

/// The digest of the whole naming context.
pub fn root(read: &dyn Read, context: u32) -> Result<Summary, StoreError> {
    Ok(node(read, context, &[])?.map_or(Summary::EMPTY, |node| node.summary()))
}

/// The node of the entries whose entryUUID begins with these nibbles. None: there is no node at this
/// place, because there are no such entries or because a leaf further up holds them.
pub fn node(read: &dyn Read, context: u32, prefix: &[u8]) -> Result<Option<Node>, StoreError> {
    read.get(Table::Digest, &key(context, prefix))?.map(|octets| decode(&octets)).transpose()
}

/// Brings the tree up to date. `touched`: each entryUUID with the entry's hash, None if it is gone;
/// of several for one entryUUID the last counts.
pub fn update(
    tx: &mut dyn Write,
    context: u32,
    mut touched: Vec<(Uuid, Option<Digest>)>,
) -> Result<Summary, StoreError> {
    touched.sort_by_key(|(uuid, _)| *uuid);
    touched.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
    if touched.is_empty() {
        return root(tx.as_read(), context);
    }
    update_node(tx, context, &mut Vec::with_capacity(32), &touched)
}

/// The digest of a set of entries, from scratch.
pub fn of_items(mut items: Vec<Item>) -> Summary {
    items.sort();
    summary_of(&items, 0)
}

/// The number of entries of the naming context with a lower entryUUID; None if `uuid` is not there.
/// Between `begin` and `finish` of a commit or a replay the tree still tells the state before it.
pub fn rank_of(read: &dyn Read, context: u32, uuid: Uuid) -> Result<Option<u64>, StoreError> {
    let mut prefix = Vec::with_capacity(32);
    let mut rank = 0;
    loop {
        match node(read, context, &prefix)? {
            None => return Ok(None),
            Some(Node::Leaf(items)) => {
                let at = items.binary_search_by_key(&uuid, |item| item.0).ok();
                return Ok(at.map(|at| rank + at as u64));
            }
            Some(Node::Inner(children)) => {
                let nibble = nibble(uuid, prefix.len());
                rank += children[..nibble as usize].iter().map(|child| child.entries).sum::<u64>();
                prefix.push(nibble);
            }
        }
    }
}

/// The inverse of [`rank_of`].
pub fn by_rank(read: &dyn Read, context: u32, rank: u64) -> Result<Option<Uuid>, StoreError> {
    let mut prefix = Vec::with_capacity(32);
    let mut left = rank;
    loop {
        match node(read, context, &prefix)? {
            None => return Ok(None),
            Some(Node::Leaf(items)) => {
                return Ok(usize::try_from(left).ok().and_then(|at| items.get(at)).map(|item| item.0));
            }
            Some(Node::Inner(children)) => {
                let mut child = 0;
                while child < 15 && left >= children[child].entries {
                    left -= children[child].entries;
                    child += 1;
                }
                prefix.push(child as u8);
            }
        }
    }
}

/// Nibble `depth` of a UUID, the high half of octet 0 first.
pub fn nibble(uuid: Uuid, depth: usize) -> u8 {
    let octet = uuid.as_bytes()[depth / 2];
    if depth.is_multiple_of(2) { octet >> 4 } else { octet & 0x0f }
}

/// Visits entryUUIDs and hashes beneath `prefix` in ascending order; `false` ends the visit.
pub fn visit_items(
    read: &dyn Read,
    context: u32,
    prefix: &[u8],
    visit: &mut dyn FnMut(Item) -> bool,
) -> Result<(), StoreError> {
    let from = key(context, prefix);
    let mut to = from.clone();
    to.push(0xff);
    let mut failure = None;
    // Leaves sort by their prefixes, hence by the entryUUIDs in them.
    read.scan(Table::Digest, &from, &to, &mut |_, octets| match decode(octets) {
        Ok(Node::Leaf(items)) => items.into_iter().all(&mut *visit),
        Ok(Node::Inner(_)) => true,
        Err(error) => {
            failure = Some(error);
            false
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// Forgets all nodes.
pub(super) fn clear(tx: &mut dyn Write, context: u32) -> Result<(), StoreError> {
    let (from, to) = range(context);
    tx.delete_range(Table::Digest, &from, &to)
}

/// Makes the tree anew, of these entries.
pub(super) fn rebuild(tx: &mut dyn Write, context: u32, mut items: Vec<Item>) -> Result<Summary, StoreError> {
    clear(tx, context)?;
    items.sort_unstable();
    write_tree(tx, context, &mut Vec::with_capacity(32), &items)
}

fn update_node(
    tx: &mut dyn Write,
    context: u32,
    prefix: &mut Vec<u8>,
    touched: &[(Uuid, Option<Digest>)],
) -> Result<Summary, StoreError> {
    match node(tx.as_read(), context, prefix)? {
        None => write_tree(tx, context, prefix, &merge(&[], touched)),
        Some(Node::Leaf(items)) => write_tree(tx, context, prefix, &merge(&items, touched)),
        Some(Node::Inner(mut children)) => {
            for (nibble, group) in by_nibble(touched, prefix.len(), |item| item.0) {
                prefix.push(nibble);
                children[nibble as usize] = update_node(tx, context, prefix, group)?;
                prefix.pop();
            }
            let node = Node::Inner(children);
            let summary = node.summary();
            if summary.entries > LEAF_ENTRIES_MAX as u64 {
                tx.put(Table::Digest, &key(context, prefix), &encode(&node))?;
                return Ok(summary);
            }
            let items = take_items(tx, context, prefix)?;
            write_tree(tx, context, prefix, &items)
        }
    }
}

/// Writes the nodes for `items` at and beneath `prefix`, where none are but at `prefix` itself.
fn write_tree(
    tx: &mut dyn Write,
    context: u32,
    prefix: &mut Vec<u8>,
    items: &[Item],
) -> Result<Summary, StoreError> {
    if items.is_empty() {
        tx.delete(Table::Digest, &key(context, prefix))?;
        return Ok(Summary::EMPTY);
    }
    let node = if items.len() <= LEAF_ENTRIES_MAX {
        Node::Leaf(items.to_vec())
    } else {
        let mut children = Box::new([Summary::EMPTY; 16]);
        for (nibble, group) in by_nibble(items, prefix.len(), |item| item.0) {
            prefix.push(nibble);
            children[nibble as usize] = write_tree(tx, context, prefix, group)?;
            prefix.pop();
        }
        Node::Inner(children)
    };
    tx.put(Table::Digest, &key(context, prefix), &encode(&node))?;
    Ok(node.summary())
}

/// Takes all nodes at and beneath `prefix` out, and returns the items that were in them.
fn take_items(tx: &mut dyn Write, context: u32, prefix: &[u8]) -> Result<Vec<Item>, StoreError> {
    let mut items = Vec::new();
    visit_items(tx.as_read(), context, prefix, &mut |item| {
        items.push(item);
        true
    })?;
    let from = key(context, prefix);
    let mut to = from.clone();
    to.push(0xff);
    tx.delete_range(Table::Digest, &from, &to)?;
    Ok(items)
}

/// Both sorted by entryUUID; what was touched wins.
fn merge(items: &[Item], touched: &[(Uuid, Option<Digest>)]) -> Vec<Item> {
    let mut merged = Vec::with_capacity(items.len() + touched.len());
    let mut old = items.iter().peekable();
    for (uuid, hash) in touched {
        while let Some(item) = old.next_if(|item| item.0 < *uuid) {
            merged.push(*item);
        }
        old.next_if(|item| item.0 == *uuid);
        merged.extend(hash.map(|hash| (*uuid, hash)));
    }
    merged.extend(old);
    merged
}

/// Cuts what is sorted by entryUUID and alike in its first `depth` nibbles where the next one changes.
fn by_nibble<T>(sorted: &[T], depth: usize, uuid: fn(&T) -> Uuid) -> impl Iterator<Item = (u8, &[T])> {
    sorted
        .chunk_by(move |a, b| nibble(uuid(a), depth) == nibble(uuid(b), depth))
        .map(move |group| (nibble(uuid(&group[0]), depth), group))
}

fn summary_of(items: &[Item], depth: usize) -> Summary {
    if items.len() <= LEAF_ENTRIES_MAX {
        return leaf_summary(items);
    }
    let mut children = [Summary::EMPTY; 16];
    for (nibble, group) in by_nibble(items, depth, |item| item.0) {
        children[nibble as usize] = summary_of(group, depth + 1);
    }
    inner_summary(&children)
}

fn leaf_summary(items: &[Item]) -> Summary {
    if items.is_empty() {
        return Summary::EMPTY;
    }
    let entries = items.len() as u64;
    let mut hash = Sha256::new();
    hash.update(LEAF_DOMAIN);
    hash.update(entries.to_be_bytes());
    for (uuid, entry) in items {
        hash.update(uuid.as_bytes());
        hash.update(entry.0);
    }
    Summary { entries, digest: Digest(hash.finalize().into()) }
}

fn inner_summary(children: &[Summary; 16]) -> Summary {
    let mut hash = Sha256::new();
    hash.update(NODE_DOMAIN);
    for child in children {
        hash.update(child.entries.to_be_bytes());
        hash.update(child.digest.0);
    }
    let entries = children.iter().map(|child| child.entries).sum();
    Summary { entries, digest: Digest(hash.finalize().into()) }
}

const LEAF_DOMAIN: &[u8] = b"bridgehead leaf 1\0";
const NODE_DOMAIN: &[u8] = b"bridgehead node 1\0";

/// One octet a nibble, so that keys sort as entryUUIDs do.
fn key(context: u32, prefix: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + prefix.len() + 1);
    key.extend_from_slice(&context.to_be_bytes());
    key.extend_from_slice(prefix);
    key
}

fn encode(node: &Node) -> Vec<u8> {
    let mut octets = Vec::with_capacity(1 + 16 * 48);
    match node {
        Node::Leaf(items) => {
            octets.push(LEAF);
            for (uuid, hash) in items {
                octets.extend_from_slice(uuid.as_bytes());
                octets.extend_from_slice(&hash.0);
            }
        }
        Node::Inner(children) => {
            octets.push(INNER);
            for child in children.iter() {
                octets.extend_from_slice(&child.entries.to_be_bytes());
                octets.extend_from_slice(&child.digest.0);
            }
        }
    }
    octets
}

const LEAF: u8 = 0;
const INNER: u8 = 1;

fn decode(octets: &[u8]) -> Result<Node, StoreError> {
    let damaged = || StoreError::Damaged("a node of the digest tree is malformed".into());
    let (kind, body) = octets.split_first().ok_or_else(damaged)?;
    match *kind {
        LEAF if !body.is_empty() && body.len() % 48 == 0 && body.len() / 48 <= LEAF_ENTRIES_MAX => {
            let item = |octets: &[u8]| (Uuid::from_bytes(fixed(&octets[..16])), Digest(fixed(&octets[16..])));
            Ok(Node::Leaf(body.chunks_exact(48).map(item).collect()))
        }
        INNER if body.len() == 16 * 40 => {
            let mut children = Box::new([Summary::EMPTY; 16]);
            for (child, octets) in children.iter_mut().zip(body.chunks_exact(40)) {
                let entries = u64::from_be_bytes(fixed(&octets[..8]));
                *child = Summary { entries, digest: Digest(fixed(&octets[8..])) };
            }
            Ok(Node::Inner(children))
        }
        _ => Err(damaged()),
    }
}

/// `octets` has N octets; the callers cut them so.
fn fixed<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(octets);
    array
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn hash(n: u8) -> Digest {
        Digest([n; 32])
    }

    #[test]
    fn vectors() {
        // D of no entry, of one, and of seventeen whose entryUUIDs are i << 124 | i.
        assert_eq!(of_items(vec![]).digest, Digest::EMPTY);
        let one = of_items(vec![(Uuid::from_u128(1), hash(1))]);
        let mut octets = b"bridgehead leaf 1\0".to_vec();
        octets.extend(1u64.to_be_bytes());
        octets.extend(1u128.to_be_bytes());
        octets.extend([1; 32]);
        assert_eq!(one.digest.0, <[u8; 32]>::from(Sha256::digest(&octets)));
        let items: Vec<Item> = (0..17u128).map(|i| (Uuid::from_u128(i << 124 | i), hash(i as u8))).collect();
        assert_eq!(
            of_items(items).digest.to_string(),
            "46ea37e47bc4e69e5dbdfa78cfafb4768c915ec321d8c64e4142e19717046458"
        );
    }

    #[test]
    fn the_tree_of_entry_uuids_that_begin_alike_is_deep_and_right() {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        let items: Vec<Item> = (0..40u128).map(|i| (Uuid::from_u128(i), hash(i as u8))).collect();
        let touched = items.iter().map(|(uuid, hash)| (*uuid, Some(*hash))).collect();
        assert_eq!(update(&mut tx, 1, touched).unwrap(), of_items(items.clone()));
        assert_eq!(by_rank(&tx, 1, 39).unwrap(), Some(Uuid::from_u128(39)));
        assert_eq!(by_rank(&tx, 1, 40).unwrap(), None);
        let gone = items.iter().skip(1).map(|(uuid, _)| (*uuid, None)).collect();
        assert_eq!(update(&mut tx, 1, gone).unwrap(), of_items(items[..1].to_vec()));
        let gone = vec![(Uuid::from_u128(0), None)];
        assert_eq!(update(&mut tx, 1, gone).unwrap(), Summary::EMPTY);
        let mut nodes = 0;
        tx.scan(Table::Digest, &[], &[0xff; 5], &mut |_, _| {
            nodes += 1;
            true
        })
        .unwrap();
        assert_eq!(nodes, 0);
    }

    /// entryUUIDs that often share nibbles, each with a hash or gone.
    fn touches() -> impl Strategy<Value = Vec<(Uuid, Option<Digest>)>> {
        let uuid = (0u128..400).prop_map(|n| Uuid::from_u128((n % 20) << 124 | (n / 20) << 116 | n));
        proptest::collection::vec((uuid, proptest::option::of((0u8..4).prop_map(hash))), 0..120)
    }

    proptest! {
        #[test]
        fn kept_up_to_date_equals_from_scratch(steps in proptest::collection::vec(touches(), 1..8)) {
            let mut store = MemoryStore::new();
            let mut tx = store.begin();
            let mut set = BTreeMap::new();
            for touched in steps {
                for (uuid, hash) in &touched {
                    match hash {
                        Some(hash) => set.insert(*uuid, *hash),
                        None => set.remove(uuid),
                    };
                }
                let summary = update(&mut tx, 3, touched).unwrap();
                let items: Vec<Item> = set.clone().into_iter().collect();
                prop_assert_eq!(summary, of_items(items.clone()));
                prop_assert_eq!(root(&tx, 3).unwrap(), summary);
                prop_assert_eq!(root(&tx, 4).unwrap(), Summary::EMPTY);
                for (rank, item) in items.iter().enumerate() {
                    prop_assert_eq!(rank_of(&tx, 3, item.0).unwrap(), Some(rank as u64));
                    prop_assert_eq!(by_rank(&tx, 3, rank as u64).unwrap(), Some(item.0));
                }
                let mut visited = Vec::new();
                visit_items(&tx, 3, &[], &mut |item| { visited.push(item); true }).unwrap();
                prop_assert_eq!(visited, items);
                // The nodes are those of a tree built at once: nothing is left over.
                let mut fresh = MemoryStore::new();
                let mut other = fresh.begin();
                update(&mut other, 3, set.iter().map(|(u, h)| (*u, Some(*h))).collect()).unwrap();
                let dump = |read: &dyn Read| {
                    let mut all = Vec::new();
                    read.scan(Table::Digest, &[], &[0xff; 5], &mut |k, v| { all.push((k.to_vec(), v.to_vec())); true }).unwrap();
                    all
                };
                prop_assert_eq!(dump(&tx), dump(&other));
            }
        }
    }
}
