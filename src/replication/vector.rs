//! A vector told as what changed: what our messages said before, and whether that is all there is.
//!
//! PROMISES
//!   A site that says it heard one of our messages finds in the next one every item that is not as in that one. The
//!   digest goes over all items, so the site sees whether it knows them; if not, it asks, and gets all. What
//!   is remembered here may be lost, old or wrong: that costs a message, never state.
//!   A naming context leaves a vector only by a whole one.
//!
//! LIMITS
//!   A whole vector goes in one message: some 90 octets for each naming context that something is held of.

use std::collections::BTreeMap;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::peer::Point;
use super::wire::{Standing, VectorItem};

/// The first octets of a hash over all items of a vector.
pub type VectorDigest = ByteArray<16>;

/// What a vector says of one naming context.
pub type Stand<'n> = (&'n str, Option<Point>, Standing);

/// The digest of the vector of these items, in whatever order they come.
pub fn digest<'n>(items: impl IntoIterator<Item = Stand<'n>>) -> VectorDigest {
    let mut items: Vec<Vec<u8>> = items.into_iter().map(octets).collect();
    items.sort_unstable();
    let hash = Sha256::new_with_prefix(b"bridgehead vector 1\0");
    let hash = items.iter().fold(hash, |hash, item| hash.chain_update(item)).finalize();
    std::array::from_fn(|at| hash[at]).into()
}

/// One item as it is hashed; what holds nothing has zeros for a position.
fn octets((context, point, standing): Stand<'_>) -> Vec<u8> {
    let mut octets = context.to_ascii_lowercase().into_bytes();
    octets.extend([0, standing as u8]);
    match point {
        Some((position, digest)) => {
            octets.extend(position.invocation.as_bytes());
            octets.extend(position.usn.to_be_bytes());
            octets.extend(digest.0);
        }
        None => octets.extend([0; 56]),
    }
    octets
}

/// What an item says, as far as it counts: a position without its digest is none.
pub fn stand(item: &VectorItem) -> Stand<'_> {
    (&item.context, item.position.zip(item.digest), item.standing)
}

/// What our messages to one site said last of each naming context.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Said {
    /// Of each item the first octets of its hash, and the message that said it first.
    #[n(0)]
    #[cbor(default)]
    items: BTreeMap<String, (u64, u64)>,
}

impl Said {
    /// The items of our vector that go into the message `seq`, to a site that heard `heard`, and the digest of
    /// all unless these are all.
    pub fn tell(
        &mut self,
        vector: Vec<VectorItem>,
        (seq, heard): (u64, u64),
        whole_max: usize,
    ) -> (Vec<VectorItem>, Option<VectorDigest>) {
        if vector.len() <= whole_max {
            self.forget();
            return (vector, None);
        }
        let mut before = std::mem::take(&mut self.items);
        let mut since = Vec::with_capacity(vector.len());
        for item in &vector {
            let hash = Sha256::digest(octets(stand(item)));
            let print = hash[..8].iter().fold(0, |print, octet| print << 8 | u64::from(*octet));
            let first = match before.remove(&item.context) {
                Some((same, first)) if same == print => first,
                _ => seq,
            };
            since.push(first);
            self.items.insert(item.context.clone(), (print, first));
        }
        if !before.is_empty() {
            since.fill(seq);
            self.items.values_mut().for_each(|(_, first)| *first = seq);
        }
        if since.iter().all(|first| *first > heard) {
            return (vector, None);
        }
        let digest = digest(vector.iter().map(stand));
        let news = vector.into_iter().zip(since).filter(|(_, first)| *first > heard).map(|(item, _)| item);
        (news.collect(), Some(digest))
    }

    /// The site does not know our vector: it gets the whole one until it heard it.
    pub fn forget(&mut self) {
        self.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Digest, Position};

    fn vector(usns: &[u64]) -> Vec<VectorItem> {
        let item = |(n, usn): (usize, &u64)| VectorItem {
            context: format!("ou=S{n},o=Example"),
            position: Some(Position { invocation: uuid::Uuid::from_u128(n as u128), usn: *usn }),
            digest: Some(Digest([n as u8; 32])),
            standing: Standing::Follows,
        };
        usns.iter().enumerate().map(item).collect()
    }

    fn told(said: &mut Said, usns: &[u64], seq: u64, heard: u64) -> Option<Vec<String>> {
        let (items, digest) = said.tell(vector(usns), (seq, heard), 2);
        digest.map(|_| items.into_iter().map(|item| item.context[3..5].to_owned()).collect())
    }

    #[test]
    fn what_changed_is_told_until_it_was_heard() {
        let mut said = Said::default();
        let none: Option<Vec<String>> = Some(Vec::new());
        let some = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(told(&mut said, &[1, 1, 1], 10, 0), None, "the whole at first");
        assert_eq!(told(&mut said, &[1, 1, 1], 11, 9), None, "and until it was heard");
        assert_eq!(told(&mut said, &[1, 1, 1], 12, 10), none);
        assert_eq!(told(&mut said, &[1, 2, 1], 13, 10), some(&["S1"]));
        assert_eq!(told(&mut said, &[1, 2, 2], 14, 12), some(&["S1", "S2"]));
        assert_eq!(told(&mut said, &[1, 2, 2], 15, 13), some(&["S2"]));
        assert_eq!(told(&mut said, &[1, 2, 1], 16, 13), some(&["S2"]), "back again is a change too");
        assert_eq!(told(&mut said, &[1, 2, 1], 17, 14), some(&["S2"]));
        assert_eq!(told(&mut said, &[1, 2, 1, 1], 18, 17), some(&["S3"]));
        assert_eq!(told(&mut said, &[1, 2, 1], 19, 18), None, "what leaves takes the whole one");
        assert_eq!(told(&mut said, &[1, 2, 1], 20, 18), None);
        assert_eq!(told(&mut said, &[1, 2, 1], 21, 19), none);
        said.forget();
        assert_eq!(told(&mut said, &[1, 2, 1], 22, 21), None);
        assert_eq!(told(&mut said, &[1, 2], 23, 22), None, "a small one always goes whole");
    }

    #[test]
    fn the_digest_is_of_all_that_counts_and_of_nothing_else() {
        let of = |items: &[VectorItem]| digest(items.iter().map(stand));
        let mut items = vector(&[1, 1, 1]);
        let before = of(&items);
        items.reverse();
        items[0].context = items[0].context.to_ascii_uppercase();
        assert_eq!(of(&items), before, "order and case");
        let differs = |change: fn(&mut Vec<VectorItem>)| {
            let mut changed = items.clone();
            change(&mut changed);
            assert_ne!(of(&changed), before);
        };
        differs(|items| items[1].standing = Standing::Held);
        differs(|items| items[1].position = None);
        differs(|items| items[1].digest = Some(Digest([9; 32])));
        differs(|items| items[1].position = vector(&[1, 5]).pop().and_then(|item| item.position));
        differs(|items| items[1].context.push('x'));
        differs(|items| drop(items.pop()));
    }
}
