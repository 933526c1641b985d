//! Verify: two replicas of a naming context find the entries in which they differ, in a few messages.
//!
//! Each message tells digests of its sender's digest tree (see [`digest`]); the answer goes deeper
//! where they are not the receiver's own. Once little is left the entries themselves are told. The side that *leads*, the
//! master or the one nearer to it, then knows both and repairs the other with
//! [`encode_repair`](super::transfer::encode_repair).
//!
//! PROMISES
//!   At most [`ROUNDS_MAX`] messages, so three each way. No state between them: a lost message is
//!   asked for again from the beginning. What digests cut short might hide is caught by the state digest, which
//!   the repair must reach.
//!
//! FORMAT
//!   Integers as in a transfer's body.
//!   ```text
//!   message = version (1), round (from 1), kind, nodes
//!   kind 0    equal: no nodes; ends the comparison
//!   kind 1    digests: levels (1 or 2), count of nodes, for each: prefix, 16^levels digests, 8 octets each
//!   kind 2    entries: count of nodes, for each: prefix, count of entries, for each: entryUUID (16 octets),
//!             the first 8 octets of its entry hash
//!   prefix  = count of nibbles, one octet each
//!   ```
//!   A digest is the first 8 octets of D (see [`digest`]) of the entries whose entryUUID begins with the prefix and the
//!   nibbles of its place, in ascending order; D of no entries is zeros. Entries ascend by entryUUID.
//!
//! LIMITS
//!   [`MESSAGE_BYTES_MAX`], or what the mail of the link takes; replicas that differ in more than fits are too different, and
//!   a full load is due.
//!
//! FAILURE
//!   [`VerifyError::Malformed`]: the partner's fault.

use std::collections::BTreeMap;

use thiserror::Error;
use uuid::Uuid;

use super::transfer::Malformed;
use super::transfer::stream::{Reader, put};
use crate::directory::digest::{self, Item, Node, Summary, nibble};
use crate::directory::{ContextRecord, Digest, Read, StoreError};

/// What a message leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The replicas are equal; the message, if any, tells the partner so.
    Equal(Option<Vec<u8>>),
    /// Send this.
    Reply(Vec<u8>),
    /// Only for the side that leads: all that differs.
    Differ(Differences),
    /// So much differs that a full load costs less than to find out.
    TooDifferent,
}

/// The entries in which two replicas differ, by entryUUID, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// That the partner has: entries that are not here, or are otherwise here.
    pub theirs: Vec<Uuid>,
    /// That are here: entries that the partner has not, or has otherwise.
    pub ours: Vec<Uuid>,
}

#[derive(Debug, Error)]
pub enum VerifyError {
    #[error("the digests cannot be read: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first message of a comparison.
pub fn begin(read: &dyn Read, context: &ContextRecord) -> Result<Vec<u8>, StoreError> {
    let view = View { read, context: context.number };
    view.describe(1, vec![Vec::new()], MESSAGE_BYTES_MAX).map(|message| message.unwrap_or_default())
}

/// Whether this is the first message of a comparison, not an answer.
pub fn begins(message: &[u8]) -> bool {
    read_message(message).is_ok_and(|(round, _)| round == 1)
}

/// Takes a message of the partner's. `leads`: this side repairs the partner. What is to be told has `bytes_max` octets at
/// most.
pub fn answer(
    read: &dyn Read,
    context: &ContextRecord,
    message: &[u8],
    leads: bool,
    bytes_max: usize,
) -> Result<Answer, VerifyError> {
    let view = View { read, context: context.number };
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed("a message is too long").into());
    }
    let (round, told) = read_message(message)?;
    let differing = match told {
        Told::Equal => return Ok(Answer::Equal(None)),
        Told::Digests(levels, nodes) => view.differing_nodes(levels, nodes)?,
        Told::Entries(nodes) => {
            let differences = view.differences(&nodes)?;
            if differences == Differences::default() {
                return Ok(Answer::Equal(Some(equal(round + 1))));
            }
            if leads {
                let many = differences.ours.len().max(differences.theirs.len()) as u64;
                let is_cheap = many <= FEW || many <= context.entries / 2;
                return Ok(if is_cheap { Answer::Differ(differences) } else { Answer::TooDifferent });
            }
            nodes.into_keys().collect()
        }
    };
    if differing.is_empty() {
        return Ok(Answer::Equal(Some(equal(round + 1))));
    }
    if round >= ROUNDS_MAX {
        return Err(Malformed("a comparison without end").into());
    }
    Ok(view.describe(round + 1, differing, bytes_max)?.map_or(Answer::TooDifferent, Answer::Reply))
}

/// Messages of one comparison, both ways together.
pub const ROUNDS_MAX: u64 = 6;

/// Octets of one message.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Differing entries that are repaired whatever their share of all.
const FEW: u64 = 1000;

/// From this round on entries are told, whatever their number.
const ENTRIES_ROUND: u64 = 4;

/// Octets of entries that are told rather than to go deeper first.
const ENTRIES_BYTES: usize = 8 << 10;

/// Octets of digests up to which two levels are told at once.
const DIGESTS_BYTES: usize = 48 << 10;

const VERSION: u64 = 1;
const EQUAL: u64 = 0;
const DIGESTS: u64 = 1;
const ENTRIES: u64 = 2;

/// Octets in front of the nodes.
const HEAD_BYTES_MAX: usize = 16;
const DIGEST_BYTES: usize = 8;
const ENTRY_BYTES: usize = 16 + DIGEST_BYTES;
const NIBBLES: usize = 32;
const LEVELS_MAX: usize = 2;

type Prefix = Vec<u8>;
type Short = [u8; DIGEST_BYTES];

fn short(digest: &Digest) -> Short {
    let mut short = [0; DIGEST_BYTES];
    short.copy_from_slice(&digest.0[..DIGEST_BYTES]);
    short
}

enum Told {
    Equal,
    Digests(usize, Vec<(Prefix, Vec<Short>)>),
    Entries(BTreeMap<Prefix, Vec<(Uuid, Short)>>),
}

fn equal(round: u64) -> Vec<u8> {
    head(round, EQUAL)
}

fn head(round: u64, kind: u64) -> Vec<u8> {
    let mut message = Vec::new();
    [VERSION, round, kind].into_iter().for_each(|number| put(&mut message, number));
    message
}

fn read_message(message: &[u8]) -> Result<(u64, Told), Malformed> {
    let mut input = Reader::new(message);
    if input.number()? != VERSION {
        return Err(Malformed("a comparison of a newer version"));
    }
    let round = input.number()?;
    if !(1..=ROUNDS_MAX).contains(&round) {
        return Err(Malformed("a comparison without end"));
    }
    let told = match input.number()? {
        EQUAL => Told::Equal,
        DIGESTS => {
            let levels = input.count(LEVELS_MAX)?;
            if levels == 0 {
                return Err(Malformed("digests of no level"));
            }
            let digests_count = 16usize.pow(levels as u32);
            let mut nodes = Vec::new();
            for _ in 0..input.count(MESSAGE_BYTES_MAX / (digests_count * DIGEST_BYTES))? {
                let prefix = read_prefix(&mut input, NIBBLES - levels)?;
                let octets = input.octets(digests_count * DIGEST_BYTES)?;
                nodes.push((prefix, octets.as_chunks::<DIGEST_BYTES>().0.to_vec()));
            }
            Told::Digests(levels, nodes)
        }
        ENTRIES => {
            let mut nodes = BTreeMap::new();
            for _ in 0..input.count(MESSAGE_BYTES_MAX)? {
                let prefix = read_prefix(&mut input, NIBBLES)?;
                let count = input.count(MESSAGE_BYTES_MAX / ENTRY_BYTES)?;
                let mut entries = Vec::new();
                for entry in input.octets(count * ENTRY_BYTES)?.as_chunks::<ENTRY_BYTES>().0 {
                    let mut hash = [0; DIGEST_BYTES];
                    hash.copy_from_slice(&entry[16..]);
                    entries.push((Uuid::from_slice(&entry[..16]).unwrap_or_default(), hash));
                }
                nodes.insert(prefix, entries);
            }
            Told::Entries(nodes)
        }
        _ => return Err(Malformed("a message of an unknown kind")),
    };
    input.end()?;
    Ok((round, told))
}

fn read_prefix(input: &mut Reader, nibbles_max: usize) -> Result<Prefix, Malformed> {
    let length = input.count(nibbles_max)?;
    let prefix = input.octets(length)?.to_vec();
    if prefix.iter().any(|nibble| *nibble > 0x0f) {
        return Err(Malformed("a nibble is none"));
    }
    Ok(prefix)
}

fn put_prefix(message: &mut Vec<u8>, prefix: &[u8]) {
    put(message, prefix.len() as u64);
    message.extend_from_slice(prefix);
}

/// This side's tree.
struct View<'r> {
    read: &'r dyn Read,
    context: u32,
}

impl View<'_> {
    /// Tells of the nodes at these places; `None` if that does not fit into so many octets.
    fn describe(
        &self,
        round: u64,
        prefixes: Vec<Prefix>,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes_max = bytes_max.min(MESSAGE_BYTES_MAX);
        let mut entries = 0;
        for prefix in &prefixes {
            entries += self.summary(prefix)?.entries;
        }
        let is_little = entries as usize * ENTRY_BYTES <= ENTRIES_BYTES;
        let message = if is_little || round >= ENTRIES_ROUND {
            if entries as usize * ENTRY_BYTES > bytes_max {
                return Ok(None);
            }
            self.entries_message(round, &prefixes)?
        } else {
            let of_two_levels = |prefix: &Prefix| 1 + prefix.len() + 256 * DIGEST_BYTES;
            let two_levels = HEAD_BYTES_MAX + prefixes.iter().map(of_two_levels).sum::<usize>();
            let is_cheap = two_levels <= DIGESTS_BYTES.min(bytes_max);
            self.digests_message(round, &prefixes, if is_cheap { 2 } else { 1 })?
        };
        Ok((message.len() <= bytes_max).then_some(message))
    }

    fn digests_message(&self, round: u64, prefixes: &[Prefix], levels: usize) -> Result<Vec<u8>, StoreError> {
        let mut message = head(round, DIGESTS);
        put(&mut message, levels as u64);
        put(&mut message, prefixes.len() as u64);
        for prefix in prefixes {
            put_prefix(&mut message, prefix);
            for digest in self.digests(prefix, levels)? {
                message.extend_from_slice(&digest);
            }
        }
        Ok(message)
    }

    fn entries_message(&self, round: u64, prefixes: &[Prefix]) -> Result<Vec<u8>, StoreError> {
        let mut message = head(round, ENTRIES);
        put(&mut message, prefixes.len() as u64);
        for prefix in prefixes {
            put_prefix(&mut message, prefix);
            let items = self.items(prefix)?;
            put(&mut message, items.len() as u64);
            for (uuid, hash) in items {
                message.extend_from_slice(uuid.as_bytes());
                message.extend_from_slice(&short(&hash));
            }
        }
        Ok(message)
    }

    fn differing_nodes(
        &self,
        levels: usize,
        nodes: Vec<(Prefix, Vec<Short>)>,
    ) -> Result<Vec<Prefix>, StoreError> {
        let mut differing = Vec::new();
        for (prefix, theirs) in nodes {
            let ours = self.digests(&prefix, levels)?;
            for (place, _) in
                ours.iter().zip(&theirs).enumerate().filter(|(_, (ours, theirs))| ours != theirs)
            {
                let nibbles = (0..levels).rev().map(|level| (place >> (4 * level)) as u8 & 0x0f);
                differing.push(prefix.iter().copied().chain(nibbles).collect());
            }
        }
        Ok(differing)
    }

    fn differences(&self, nodes: &BTreeMap<Prefix, Vec<(Uuid, Short)>>) -> Result<Differences, StoreError> {
        let mut differences = Differences::default();
        for (prefix, theirs) in nodes {
            let theirs: BTreeMap<Uuid, Short> = theirs.iter().copied().collect();
            let ours: BTreeMap<Uuid, Short> =
                self.items(prefix)?.into_iter().map(|(uuid, hash)| (uuid, short(&hash))).collect();
            let other =
                |side: &BTreeMap<Uuid, Short>, uuid: &Uuid, hash: &Short| side.get(uuid) != Some(hash);
            let only = |mine: &BTreeMap<Uuid, Short>, yours: &BTreeMap<Uuid, Short>| -> Vec<Uuid> {
                mine.iter().filter(|(uuid, hash)| other(yours, uuid, hash)).map(|(uuid, _)| *uuid).collect()
            };
            differences.theirs.extend(only(&theirs, &ours));
            differences.ours.extend(only(&ours, &theirs));
        }
        // Nodes that the partner made overlap are the partner's mistake, and harmless.
        for side in [&mut differences.theirs, &mut differences.ours] {
            side.sort_unstable();
            side.dedup();
        }
        Ok(differences)
    }

    /// The digests `levels` below this place.
    fn digests(&self, prefix: &[u8], levels: usize) -> Result<Vec<Short>, StoreError> {
        let mut digests = Vec::with_capacity(16usize.pow(levels as u32));
        for nibble in 0..16 {
            let mut below = prefix.to_vec();
            below.push(nibble);
            let summary = self.summary(&below)?;
            match levels {
                1 => digests.push(short(&summary.digest)),
                _ if summary.entries == 0 => digests.extend([short(&Digest::EMPTY); 16]),
                _ => digests.extend(self.digests(&below, levels - 1)?),
            }
        }
        Ok(digests)
    }

    /// Number and digest of the entries at a place, be there a node or not.
    fn summary(&self, prefix: &[u8]) -> Result<Summary, StoreError> {
        if let Some(node) = digest::node(self.read, self.context, prefix)? {
            return Ok(node.summary());
        }
        Ok(digest::of_items(self.items_in_leaf_above(prefix)?))
    }

    fn items(&self, prefix: &[u8]) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        if digest::node(self.read, self.context, prefix)?.is_none() {
            return self.items_in_leaf_above(prefix);
        }
        digest::visit_items(self.read, self.context, prefix, &mut |item| {
            items.push(item);
            true
        })?;
        Ok(items)
    }

    /// At most a leaf of them, so that their digest does not depend on how deep they are.
    fn items_in_leaf_above(&self, prefix: &[u8]) -> Result<Vec<Item>, StoreError> {
        for (length, next) in prefix.iter().enumerate() {
            match digest::node(self.read, self.context, &prefix[..length])? {
                Some(Node::Inner(children)) if children[usize::from(*next)].entries > 0 => {}
                Some(Node::Leaf(mut items)) => {
                    items.retain(|(uuid, _)| {
                        prefix.iter().enumerate().all(|(depth, expected)| nibble(*uuid, depth) == *expected)
                    });
                    return Ok(items);
                }
                _ => break,
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
