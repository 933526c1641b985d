//! Two machines that speak for one site, as its partner sees them: a copy that lives on, with the same key.
//!
//! PROMISES
//!   What a site masters goes one way. If it stands where our history does not pass, and then on ours again, it was put
//!   back to an earlier day; if it goes to and fro, two machines speak for it, of which one may hear nothing at all. That
//!   is reported here and, by a notice, at the site, once a day for as long as it lasts.
//!   What either of them sends counts as it did: what leads on from what is held is applied, of all else a copy is kept.
//!
//! LIMITS
//!   A copy that changes nothing is not told from the site, nor does it harm. Clocks of both that are far apart let
//!   only the later one be heard.

use minicbor::{Decode, Encode};

use super::Event;
use super::config::Partner;
use super::turn::Turn;
use crate::directory::Position;
use crate::replication::peer::{Link, Millis};

/// So often in a day a site may come back to our history before it is taken for two.
pub const RETURNS_MAX: usize = 3;
const DAY_MS: Millis = 86_400_000;

/// How the master of a naming context, heard directly, stood to our history.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Twin {
    /// Where it stood last beside our history.
    #[n(0)]
    beside: Option<Position>,
    /// When it was back on ours, lately.
    #[n(1)]
    #[cbor(default)]
    returns: Vec<Millis>,
    /// When that was reported.
    #[n(2)]
    told: Option<Millis>,
}

impl Twin {
    /// Since when two machines are known to speak for the site, if they do.
    pub fn known(&self, now: Millis) -> Option<Millis> {
        self.told.filter(|_| self.returns.last().is_some_and(|at| now - at < DAY_MS))
    }

    /// It is back on our history. Whether that is to be reported.
    fn comes_back(&mut self, now: Millis) -> bool {
        self.returns.push(now);
        self.returns.drain(..self.returns.len().saturating_sub(RETURNS_MAX));
        let told = self.told.is_some_and(|then| now - then < DAY_MS);
        let reported = !told && self.returns.len() == RETURNS_MAX;
        self.told = if reported { Some(now) } else { self.told };
        reported
    }
}

impl Turn<'_> {
    /// Takes the newest word of a site on a naming context that it masters. What is to be told to the site.
    pub(super) fn weigh_twin(&mut self, partner: &Partner, link: &mut Link) -> Option<String> {
        let record = self.context(&link.context).filter(|record| record.master == partner.site)?;
        let (at, now) = (link.theirs?.0, self.now);
        let ours = record.position;
        if record.is_beside(&at) {
            link.twin.get_or_insert_default().beside = Some(at);
            return None;
        }
        let twin = link.twin.as_mut()?;
        twin.returns.retain(|then| now - then < DAY_MS);
        let Some(beside) = twin.beside.take().filter(|beside| record.is_beside(beside)) else {
            if twin.returns.is_empty() {
                link.twin = None;
            }
            return None;
        };
        if !twin.comes_back(now) {
            return None;
        }
        let (site, context) = (partner.site.clone(), link.context.clone());
        let text = format!(
            "two machines speak for {site}, and {context} goes on differently at each: stop one of them"
        );
        self.event(Event::Twins { site, context, ours: ours.into(), theirs: beside.into() });
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn it_is_reported_once_a_day_and_however_often_it_turns_little_is_remembered() {
        let mut twin = Twin::default();
        let reported: Vec<Millis> =
            (0..2 * DAY_MS).step_by(60_000).filter(|now| twin.comes_back(*now)).collect();
        assert_eq!(reported, [120_000, 120_000 + DAY_MS]);
        assert_eq!(twin.returns.len(), RETURNS_MAX);
    }

    #[test]
    fn it_is_known_for_a_day_after_the_last_return() {
        let mut twin = Twin { told: Some(5), ..Twin::default() };
        assert_eq!(twin.known(10), None);
        twin.returns = vec![1, 3, 5];
        assert_eq!((twin.known(10), twin.known(5 + DAY_MS)), (Some(5), None));
        twin.beside = Some(Position { invocation: Uuid::from_u128(1), usn: 2 });
        let octets = minicbor::to_vec(&twin).unwrap();
        assert_eq!(minicbor::decode::<Twin>(&octets).unwrap(), twin);
    }
}
