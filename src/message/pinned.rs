//! What is pinned of a site: its present card, and the cards by which others get there from those before.
//!
//! PROMISES
//!   The present card is replaced only by cards that its key signed or endorsed, one after the other, with later serials.
//!   A key that is replaced goes on to count for a stated time, for mail that is under way. Its card stays beyond that:
//!   who missed some cards and hears of this site by us alone needs each of them.
//!   Of cards before those that we know we hear from the site itself, under a key that is pinned: their keys count from
//!   the day on which they were replaced, not from the day we hear of them. From others we take such a card, if what is
//!   pinned succeeds it, for the way alone: its key counts for nothing.
//!
//! LIMITS
//!   [`FORMER_MAX`] former cards, the newest; of one key the newest card.

use std::time::Duration;

use jiff::Timestamp;

use super::card::{Card, CardError};
use super::keys::FORMER_PAIRS_MAX;

/// Former cards that are kept: as many as a site keeps of its own.
pub const FORMER_MAX: usize = FORMER_PAIRS_MAX;

/// The end of the time in which a key counts that never did.
pub const NEVER: Timestamp = Timestamp::UNIX_EPOCH;

/// What is pinned of one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    pub card: Card,
    /// The card as it came.
    pub text: String,
    /// Oldest first, each with another key.
    pub former: Vec<FormerCard>,
}

/// A card that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerCard {
    pub card: Card,
    pub text: String,
    /// Until then what is signed by its key still counts.
    pub until: Timestamp,
}

/// Who tells of cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The site of the cards, under a key that is pinned.
    Own,
    Others,
}

impl Pinned {
    pub fn new(card: Card, text: String) -> Pinned {
        Pinned { card, text, former: Vec::new() }
    }

    /// What is to be pinned after cards were told, oldest first; those already passed change nothing. What is replaced
    /// counts until `now` and `keep`.
    ///
    /// # Errors
    /// The last of them neither is known nor succeeds what is pinned.
    pub fn told(
        &self,
        cards: &[&str],
        word: Word,
        now: Timestamp,
        keep: Duration,
    ) -> Result<Pinned, CardError> {
        let (card, way) = self.card.way(cards.iter().copied())?;
        let until = now.saturating_add(keep).unwrap_or(Timestamp::MAX);
        let mut line = self.former.clone();
        let mut next = Pinned { former: Vec::new(), ..self.clone() };
        for text in way {
            line.push(FormerCard { card: next.card, text: next.text, until });
            (next.card, next.text) = (Card::parse_verified(text)?, text.to_owned());
        }
        line.extend(before(&card, cards).into_iter().map(|(card, text, replaced)| {
            let until = match word {
                Word::Own => replaced.saturating_add(keep).unwrap_or(Timestamp::MAX).min(until),
                Word::Others => NEVER,
            };
            FormerCard { card, text: text.to_owned(), until }
        }));
        // By serial, and what was known before what is told again.
        line.sort_by_key(|former| former.card.fields.serial);
        for former in line {
            let of_that_key = next.former.iter().position(|one| one.card.public == former.card.public);
            let known = of_that_key.map(|at| next.former.remove(at).until).filter(|until| *until != NEVER);
            let until = known.unwrap_or(former.until);
            if former.card.public != next.card.public {
                next.former.push(FormerCard { until, ..former });
            }
        }
        let excess = next.former.len().saturating_sub(FORMER_MAX);
        next.former.drain(..excess);
        Ok(next)
    }
}

/// Of the cards those that lead to `last`, which is the last of them; and when each was replaced.
fn before<'a>(last: &Card, cards: &[&'a str]) -> Vec<(Card, &'a str, Timestamp)> {
    let mut line = Vec::new();
    let mut next = match cards.split_last() {
        Some((text, _)) if Card::parse_verified(text).is_ok_and(|card| card == *last) => {
            (last.clone(), *text)
        }
        _ => return line,
    };
    for text in cards.iter().rev().skip(1) {
        let Ok(card) = Card::parse_verified(text) else { break };
        if card.succeeded_by(next.1).is_err() {
            break;
        }
        line.push((card.clone(), *text, next.0.fields.issued));
        next = (card, *text);
    }
    line.reverse();
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::card::tests::{fields, key};
    use crate::message::own::{OwnCards, settle_text};
    use crate::message::random::Seeded;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).unwrap()
    }

    /// A site's cards after renewals on days 1, 2, ...; the first is of day 0.
    fn cards(renewals: i64) -> Vec<OwnCards> {
        let (mut key, mut rng) = (key(1), Seeded::new(3));
        let mut all = vec![settle_text("", &key, &fields("alpha"), at(0)).unwrap().0];
        for day in 1..=renewals {
            key = key.renew(&mut rng);
            all.push(settle_text(&all[all.len() - 1].print(), &key, &fields("alpha"), at(day)).unwrap().0);
        }
        all
    }

    fn all(own: &OwnCards) -> Vec<&str> {
        own.former_texts().chain([own.text()]).collect()
    }

    fn pinned(own: &OwnCards) -> Pinned {
        Pinned::new(own.current().clone(), own.text().to_owned())
    }

    fn former(pinned: &Pinned) -> Vec<(&Card, Timestamp)> {
        pinned.former.iter().map(|former| (&former.card, former.until)).collect()
    }

    #[test]
    fn a_card_is_followed_and_the_former_ones_stay_on_the_way() {
        let cards = cards(5);
        let next = pinned(&cards[0]).told(&all(&cards[2]), Word::Others, at(9), 30 * DAY).unwrap();
        assert_eq!((&next.card, next.text.as_str()), (cards[2].current(), cards[2].text()));
        assert_eq!(former(&next), [(cards[0].current(), at(39)), (cards[1].current(), at(39))]);
        // Told again, later: nothing changes, and no key counts for longer.
        assert_eq!(next.told(&all(&cards[2]), Word::Own, at(90), 30 * DAY).unwrap(), next);
        let last = next.told(&all(&cards[5]), Word::Own, at(90), 30 * DAY).unwrap();
        let expected =
            [(cards[2].current(), at(120)), (cards[3].current(), at(120)), (cards[4].current(), at(120))];
        assert_eq!(former(&last), expected);
        let stranger = settle_text("", &key(7), &fields("alpha"), at(9)).unwrap().0;
        assert!(last.told(&all(&stranger), Word::Own, at(91), DAY).is_err());
    }

    #[test]
    fn a_site_that_is_added_late_tells_itself_how_others_get_there() {
        let cards = cards(2);
        let late = pinned(&cards[2]);
        let next = late.told(&all(&cards[2]), Word::Own, at(10), 30 * DAY).unwrap();
        let expected = [(cards[0].current(), at(31)), (cards[1].current(), at(32))];
        assert_eq!(former(&next), expected, "since it was replaced, not since we hear of it");
        // Nobody else's word brings a key that counts, but the way.
        let way = late.told(&all(&cards[2]), Word::Others, at(10), 30 * DAY).unwrap();
        assert_eq!(former(&way), [(cards[0].current(), NEVER), (cards[1].current(), NEVER)]);
        assert_eq!(way.told(&all(&cards[2]), Word::Others, at(11), 30 * DAY).unwrap(), way);
        // The site's own word lets them count after all; what counts goes on to count whoever tells of it later.
        assert_eq!(way.told(&all(&cards[2]), Word::Own, at(10), 30 * DAY).unwrap(), next);
        assert_eq!(next.told(&all(&cards[2]), Word::Others, at(11), 30 * DAY).unwrap(), next);
        // Nor does a card that does not lead to the pinned one.
        let stranger = settle_text("", &key(7), &fields("alpha"), at(0)).unwrap().0;
        let told = [stranger.text(), cards[2].text()];
        for word in [Word::Own, Word::Others] {
            assert_eq!(late.told(&told, word, at(10), 30 * DAY).unwrap(), late);
        }
        // Nor one that comes with an older message.
        assert_eq!(late.told(&all(&cards[1]), Word::Own, at(10), 30 * DAY).unwrap(), late);
    }

    #[test]
    fn of_one_key_the_newest_card_counts_and_no_longer_than_before() {
        let (first, mut rng) = (key(1), Seeded::new(3));
        let start = settle_text("", &first, &fields("alpha"), at(0)).unwrap().0;
        let moved =
            crate::message::card::CardFields { mailbox: "new@alpha.example".into(), ..fields("alpha") };
        let moved_card = settle_text(&start.print(), &first, &moved, at(1)).unwrap().0;
        let renewed = settle_text(&moved_card.print(), &first.renew(&mut rng), &moved, at(2)).unwrap().0;
        // What came directly, by the card before the move.
        let one = pinned(&start).told(&[renewed.text()], Word::Others, at(2), DAY).unwrap();
        assert_eq!(former(&one), [(start.current(), at(3))]);
        let two = one.told(&all(&renewed), Word::Own, at(9), 30 * DAY).unwrap();
        assert_eq!(former(&two), [(moved_card.current(), at(3))]);
    }
}
