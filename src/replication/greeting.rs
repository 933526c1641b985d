//! What one connected site and we told each other of ourselves and of others, and when hello is said next.
//!
//! PROMISES
//!   Nothing counts as heard before the site answered the very message that told it, or a later one.

use minicbor::{Decode, Encode};

use super::peer::Millis;
use super::wire::Pinned;

/// Cards and introductions are remembered by the first octets of their hashes.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Greeting {
    /// The next hello, if one is owed; once answered, only news owes another.
    #[n(0)]
    pub at: Option<Millis>,
    /// Hellos since there was news.
    #[n(1)]
    #[cbor(default)]
    pub tries: u32,
    /// It asked who we are, in the message of this number, heard at this time; the next message says so.
    #[n(2)]
    pub owed: Option<(u64, Millis)>,
    /// The number of its newest hello.
    #[n(3)]
    #[cbor(default)]
    pub heard_seq: u64,
    /// Our card and what goes with it, as last told.
    #[n(4)]
    pub card_told: Option<u64>,
    /// The site's card, as last heard.
    #[n(5)]
    pub card_heard: Option<u64>,
    /// Which of our cards the site goes by, by its own word.
    #[n(6)]
    pub pinned: Option<Pinned>,
    /// The first hello since we started, until this one or a later one is answered: by which card each goes may be
    /// another than before. `UNSAID`: it did not leave yet.
    #[n(7)]
    pub start_seq: Option<u64>,
    /// The first of our hellos that tell of other sites what `telling` says, until this one is answered or a later one.
    #[n(8)]
    pub told_seq: Option<u64>,
    #[n(9)]
    #[cbor(default)]
    pub telling: Vec<u64>,
    /// What the site said that it heard of others.
    #[n(10)]
    #[cbor(default)]
    pub heard_of: Vec<u64>,
}

/// Instead of the number of a hello: it did not leave yet.
const UNSAID: u64 = u64::MAX;

impl Greeting {
    /// There is news: hello, at once and as if for the first time.
    pub fn begin(&mut self, now: Millis) {
        (self.at, self.tries) = (Some(now), 0);
    }

    /// We begin to run: only an answer to what is said from now on will do.
    pub fn start(&mut self) {
        self.start_seq = Some(UNSAID);
    }

    /// The site knows all that there is to say.
    pub fn rest(&mut self) {
        (self.at, self.tries) = (None, 0);
    }

    pub fn is_due(&self, now: Millis) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// Whether a hello waits to be answered, besides for its card.
    pub fn awaits_answer(&self) -> bool {
        self.start_seq.is_some() || self.told_seq.is_some()
    }

    /// This mail asks, and tells these of the others, out of all that there are to tell.
    pub fn asks(&mut self, mail: u64, telling: Vec<u64>, all: &[u64]) {
        self.start_seq = self.start_seq.map(|seq| if seq == UNSAID { mail } else { seq });
        self.heard_of.retain(|name| all.contains(name));
        if telling.is_empty() {
            // Its answer says nothing of what an earlier one told.
            self.told_seq = None;
        } else if self.told_seq.is_none() || self.telling != telling {
            self.told_seq = Some(mail);
            self.telling = telling;
        }
    }

    /// The site answered the hello of this number.
    pub fn answered(&mut self, mail: u64) {
        self.start_seq = self.start_seq.filter(|asked| mail < *asked);
        if self.told_seq.is_some_and(|asked| mail >= asked) {
            self.told_seq = None;
            self.heard();
        }
    }

    /// What was told of others last was heard.
    pub fn heard(&mut self) {
        let told = std::mem::take(&mut self.telling);
        self.heard_of.extend(told);
    }
}
