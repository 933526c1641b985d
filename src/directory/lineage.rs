//! The lineage of a history: where each earlier invocation of the master ended and the next went on.
//!
//! PROMISES
//!   The digest of a lineage names every end in it and their order, also of those that are forgotten. A master
//!   signs it with each checkpoint, so whoever tells a lineage can leave out the oldest ends and nothing else.
//!
//! FORMAT
//!   The digest of no ends is 32 zero octets; with one end more it is
//!   `SHA-256("bridgehead lineage 1" 0x00 || digest before || invocation || USN, 8 octets || state digest)`.
//!   In CBOR a lineage is `[0 digest of the ends that are left out, 1 [[position, state digest]]]`.
//!
//! LIMITS
//!   [`LINEAGE_MAX`] ends are remembered, [`LINEAGE_TOLD_MAX`] are told.

use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::position::{Digest, Position};

/// Ends that a store remembers of one history.
pub const LINEAGE_MAX: usize = 256;
/// Ends that one transfer tells, the newest; what is older is left out.
pub const LINEAGE_TOLD_MAX: usize = 80;
/// Octets that one end takes in CBOR, and what surrounds all of them.
pub const END_BYTES_MAX: usize = 64;

const PURPOSE: &[u8] = b"bridgehead lineage 1\0";

/// Where earlier invocations of one history ended, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Lineage {
    /// The digest of the ends that are not told or remembered any more.
    #[n(0)]
    before: Digest,
    #[n(1)]
    ends: Vec<(Position, Digest)>,
}

impl Default for Lineage {
    fn default() -> Lineage {
        Lineage { before: Digest::EMPTY, ends: Vec::new() }
    }
}

impl Lineage {
    pub fn ends(&self) -> &[(Position, Digest)] {
        &self.ends
    }

    /// Whether it has no end at all, not even a forgotten one.
    pub fn is_empty(&self) -> bool {
        *self == Lineage::default()
    }

    /// The history goes on from here in another invocation.
    pub fn push(&mut self, end: Position, digest: Digest) {
        self.ends.push((end, digest));
        self.forget(LINEAGE_MAX);
    }

    /// Names every end, told or not.
    pub fn digest(&self) -> Digest {
        self.ends.iter().fold(self.before, with_end)
    }

    /// Whether an earlier invocation passed this point before it ended.
    pub fn passes(&self, position: &Position) -> bool {
        self.end_of(position).is_some()
    }

    /// The end of the invocation that passed this point.
    pub fn end_of(&self, position: &Position) -> Option<&(Position, Digest)> {
        self.ends.iter().find(|(end, _)| end.invocation == position.invocation && position.usn <= end.usn)
    }

    /// What somebody at `position` does not know of it; all that may be told to somebody elsewhere.
    pub fn told_to(&self, position: Option<&Position>) -> Lineage {
        let first =
            position.and_then(|at| self.ends.iter().position(|(end, _)| end.invocation == at.invocation));
        let mut told = self.clone();
        told.forget((self.ends.len() - first.unwrap_or(0)).min(LINEAGE_TOLD_MAX));
        told
    }

    /// Goes on with what was told, if it goes on from here; else that takes its place.
    pub fn learn(&mut self, told: Lineage) {
        if self.digest() == told.before {
            told.ends.into_iter().for_each(|(end, digest)| self.push(end, digest));
        } else if self.digest() != told.digest() {
            *self = told;
        }
    }

    fn forget(&mut self, keep: usize) {
        let excess = self.ends.len().saturating_sub(keep);
        self.before = self.ends.drain(..excess).fold(self.before, |before, end| with_end(before, &end));
    }
}

fn with_end(before: Digest, (end, digest): &(Position, Digest)) -> Digest {
    let hash = Sha256::new()
        .chain_update(PURPOSE)
        .chain_update(before.0)
        .chain_update(end.invocation.as_bytes())
        .chain_update(end.usn.to_be_bytes())
        .chain_update(digest.0)
        .finalize();
    Digest(hash.into())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(invocation: u128, usn: u64) -> Position {
        Position { invocation: Uuid::from_u128(invocation), usn }
    }

    fn lineage(ends: u8) -> Lineage {
        let mut lineage = Lineage::default();
        (1..=ends).for_each(|n| lineage.push(at(n.into(), 10 * u64::from(n)), Digest([n; 32])));
        lineage
    }

    #[test]
    fn its_digest_names_every_end_and_their_order() {
        let whole = lineage(3);
        assert_eq!(Lineage::default().digest(), Digest::EMPTY);
        let mut others = vec![lineage(2), lineage(4)];
        for alter in 0..3 {
            let mut other = whole.clone();
            match alter {
                0 => other.ends.swap(0, 1),
                1 => other.ends[0].0.usn += 1,
                _ => other.ends[2].1 = Digest([9; 32]),
            }
            others.push(other);
        }
        assert!(others.iter().all(|other| other.digest() != whole.digest()));
    }

    #[test]
    fn what_is_left_out_still_counts() {
        let whole = lineage(100);
        for position in [None, Some(at(70, 5)), Some(at(101, 1)), Some(at(3, 30))] {
            let told = whole.told_to(position.as_ref());
            assert_eq!(told.digest(), whole.digest());
            assert!(told.ends.len() <= LINEAGE_TOLD_MAX);
        }
        assert_eq!(whole.told_to(Some(&at(70, 5))).ends.len(), 31);
        let told = minicbor::to_vec(whole.told_to(None)).unwrap();
        assert!(told.len() <= (LINEAGE_TOLD_MAX + 1) * END_BYTES_MAX, "{} octets", told.len());
        assert_eq!(minicbor::decode::<Lineage>(&told).unwrap(), whole.told_to(None));
    }

    #[test]
    fn who_stands_on_it_learns_the_rest_and_forgets_nothing() {
        let (mut known, whole) = (lineage(69), lineage(100));
        known.learn(whole.told_to(Some(&at(70, 5))));
        assert_eq!(known, whole);
        known.learn(whole.told_to(None));
        assert_eq!(known, whole, "what is known is not forgotten for what is told");
        let mut other = Lineage::default();
        other.push(at(500, 1), Digest::EMPTY);
        other.learn(whole.told_to(None));
        assert_eq!(other, whole.told_to(None));
    }

    #[test]
    fn an_invocation_is_passed_up_to_its_end() {
        let whole = lineage(3);
        for (position, passed) in [(at(2, 20), true), (at(2, 21), false), (at(9, 1), false), (at(1, 1), true)]
        {
            assert_eq!(whole.passes(&position), passed, "{position}");
        }
    }
}
