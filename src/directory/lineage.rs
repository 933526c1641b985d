//! The lineage of a history: where each earlier invocation of the master ended and the next went on.
//!
//! PROMISES
//!   The digest of a lineage names every end in it and their order, also of those that are forgotten. A master
//!   signs it with each checkpoint, so whoever tells a lineage can leave out the oldest ends and nothing else.
//!   Of two lives that were merged the ends of both are told together: who followed one of them leads those on who
//!   followed the other.
//!
//! FORMAT
//!   The digest of no ends is 32 zero octets; with one end more it is
//!   `SHA-256("bridgehead lineage 1" 0x00 || digest before || invocation || USN, 8 octets || state digest)`.
//!   In CBOR a lineage is `[0 digest of the ends that are left out, 1 [[position, state digest]],
//!   ?2 how many of the newest ends are told together]`.
//!
//! LIMITS
//!   [`LINEAGE_MAX`] ends are remembered, [`LINEAGE_TOLD_MAX`] are told. Who stands further back is taken for one who has
//!   followed this history, for nobody knows better; to him it cannot be proved, so his operator decides.

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
    /// So many of the newest ends are of lives that were merged, and of what came since. Who stands at one of them need
    /// not know the others. Nobody signs for it: a wrong number makes a transfer longer, or leaves a replica behind.
    #[n(2)]
    together: Option<u32>,
}

impl Default for Lineage {
    fn default() -> Lineage {
        Lineage { before: Digest::EMPTY, ends: Vec::new(), together: None }
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
        let more = self.together.map(|ends| ends.saturating_add(1));
        self.together = more.filter(|ends| *ends as usize <= LINEAGE_TOLD_MAX);
        self.forget(LINEAGE_MAX);
    }

    /// The ends after the first `common` are of two lives that were merged.
    pub fn merged(&mut self, common: usize) {
        self.together = u32::try_from(self.ends.len().saturating_sub(common)).ok();
    }

    /// Names every end, told or not.
    pub fn digest(&self) -> Digest {
        self.ends.iter().fold(self.before, with_end)
    }

    /// Whether an earlier invocation passed this point before it ended.
    pub fn passes(&self, position: &Position) -> bool {
        self.end_of(position).is_some()
    }

    /// Whether it is as old as the ends that are not remembered any more, so that nobody can say whether it was passed.
    pub fn is_too_old(&self, position: &Position) -> bool {
        let oldest = self.ends.first().filter(|_| self.before != Digest::EMPTY);
        oldest.is_some_and(|(end, _)| position.usn <= end.usn)
    }

    /// The end of the invocation that passed this point.
    pub fn end_of(&self, position: &Position) -> Option<&(Position, Digest)> {
        self.ends.iter().find(|(end, _)| position.is_passed_by(end))
    }

    /// What somebody at `position` does not know of it; all that may be told to somebody elsewhere.
    pub fn told_to(&self, position: Option<&Position>) -> Lineage {
        let first =
            position.and_then(|at| self.ends.iter().position(|(end, _)| end.invocation == at.invocation));
        let together = self.together.map_or(0, |ends| ends as usize);
        let mut told = self.clone();
        told.forget((self.ends.len() - first.unwrap_or(0)).max(together).min(LINEAGE_TOLD_MAX));
        told
    }

    /// Goes on with what was told from where that begins; if it does not begin here, it takes the place of all that was known.
    pub fn learn(&mut self, told: Lineage) {
        if self.digest() == told.digest() && self.ends.len() >= told.ends.len() {
            return;
        }
        match self.joined_by(&told) {
            Some(known) => {
                self.ends.truncate(known);
                self.ends.extend(told.ends);
                self.together = told.together;
                self.forget(LINEAGE_MAX);
            }
            None => *self = told,
        }
    }

    /// So many of our ends come before the first that is told; None: there may be others between.
    pub fn joined_by(&self, told: &Lineage) -> Option<usize> {
        let mut digest = self.before;
        let digests = self.ends.iter().map(|end| {
            digest = with_end(digest, end);
            digest
        });
        std::iter::once(self.before).chain(digests).position(|digest| digest == told.before)
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

    /// Two lives after the first end, 2 and 3 of the one and 4 of the other, which goes on as 5.
    fn merged() -> Lineage {
        let mut merged = lineage(1);
        for (invocation, usn) in [(4, 12), (2, 20), (3, 30), (5, 31)] {
            merged.push(at(invocation, usn), Digest([invocation as u8; 32]));
        }
        merged.merged(1);
        merged
    }

    #[test]
    fn whoever_followed_one_of_two_lives_can_lead_on_who_followed_the_other() {
        let whole = merged();
        for (invocation, usn) in [(1, 10), (2, 13), (3, 30), (4, 11), (5, 31)] {
            let position = at(invocation, usn);
            // Each stands where it followed one of them.
            let mut known = if invocation == 4 { lineage(1) } else { lineage(invocation.min(3) as u8 - 1) };
            known.learn(whole.told_to(Some(&position)));
            assert_eq!(known.digest(), whole.digest());
            assert!(whole.ends[1..].iter().all(|(end, _)| known.passes(end)), "{position}: {known:?}");
            assert!(known.passes(&at(1, 10)) || invocation == 5, "what was known before stays: {known:?}");
            // And tells it in its turn.
            let mut next = Lineage::default();
            next.learn(known.told_to(Some(&at(3, 30))));
            assert!(next.passes(&at(4, 12)), "{next:?}");
        }
    }

    #[test]
    fn a_merge_is_told_until_that_would_be_too_much() {
        let mut whole = merged();
        for n in 0..100 {
            assert!(whole.told_to(Some(&whole.ends[whole.ends.len() - 1].0)).ends.len() <= LINEAGE_TOLD_MAX);
            whole.push(at(100 + n, 100 + n as u64), Digest::EMPTY);
        }
        assert_eq!(whole.told_to(Some(&at(199, 199))).ends.len(), 1);
        let octets = minicbor::to_vec(merged()).unwrap();
        assert_eq!(minicbor::decode::<Lineage>(&octets).unwrap(), merged());
        // Without a merge nothing more is said.
        assert_eq!(minicbor::to_vec(lineage(1)).unwrap()[0], 0x82);
    }

    #[test]
    fn what_is_older_than_all_that_is_remembered_is_not_known() {
        let (mut whole, old) = (lineage(1), at(1, 10));
        for n in 2..=LINEAGE_MAX as u64 + 1 {
            assert!(!whole.is_too_old(&old) && whole.passes(&old), "{n}");
            whole.push(at(u128::from(n), 10 * n), Digest::EMPTY);
        }
        assert!(whole.is_too_old(&old) && !whole.passes(&old));
        assert!(whole.is_too_old(&at(999, 20)) && !whole.is_too_old(&at(999, 21)));
        let begin = Lineage::default();
        assert_eq!((begin.joined_by(&whole), begin.joined_by(&lineage(3))), (None, Some(0)));
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
