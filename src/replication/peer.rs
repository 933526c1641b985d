//! What the engine remembers of one connected site, between messages and over restarts.
//!
//! PROMISES
//!   One record a site, written in the transaction of the input that changed it. Nothing here is worth
//!   more than mail: a record that is lost or old costs messages, never state.
//!
//! LIMITS
//!   [`FINISHED_MAX`] ids of finished transfers are remembered, [`ARRIVING_MAX`] unfinished ones of each naming
//!   context are kept.

use minicbor::{Decode, Encode};

use super::cbor::packed;
use super::engine::Timing;
use super::engine::twin::Twin;
use super::greeting::Greeting;
use super::pacing::{RoundTrip, Widening, Window, in_vain, millis};
use super::parts::TransferId;
use super::vector::{self, Said, VectorDigest};
use super::wire::{DigestItem, NOTICES_MAX, Notice, Standing, TEXT_BYTES_MAX};
use crate::directory::{Digest, Position, Read, StoreError, Table};

/// Milliseconds since 1970, UTC.
pub type Millis = i64;

/// A point of a naming context's history and what it held there.
pub type Point = (Position, Digest);

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Peer {
    /// It has answered: more than hello may be sent.
    #[n(0)]
    #[cbor(default)]
    pub answered: bool,
    #[n(50)]
    #[cbor(default)]
    pub greeting: Greeting,
    /// The largest part that it takes, by its own word.
    #[n(4)]
    pub takes_bytes_max: Option<u64>,
    /// The largest part that arrives, as bounces taught.
    #[n(5)]
    pub passes_bytes_max: Option<u64>,
    /// The sequence number of the last message to it.
    #[n(6)]
    #[cbor(default)]
    pub sent_seq: u64,
    #[n(7)]
    pub sent_at: Option<Millis>,
    #[n(8)]
    pub heard_at: Option<Millis>,
    /// Which of its messages were heard.
    #[n(9)]
    #[cbor(default)]
    pub window: Window,
    /// The highest of our sequence numbers that it says it heard.
    #[n(10)]
    #[cbor(default)]
    pub echoed_seq: u64,
    #[n(11)]
    #[cbor(default)]
    pub round_trip: RoundTrip,
    /// An acknowledgement is owed by then.
    #[n(12)]
    pub answer_at: Option<Millis>,
    /// `sync`: when it was asked for, and the number of the message that asks.
    #[n(13)]
    pub asked_at: Option<Millis>,
    #[n(14)]
    pub asked_seq: Option<u64>,
    /// When the question is put again.
    #[n(15)]
    pub ask_again_at: Option<Millis>,
    /// By the operator's word.
    #[n(26)]
    #[cbor(default)]
    pub paused: bool,
    /// Answers in comparisons of digests, on their way out.
    #[n(27)]
    #[cbor(default)]
    pub digests: Vec<DigestItem>,
    /// What our messages to it said of our vector.
    #[n(42)]
    #[cbor(default)]
    pub said: Said,
    /// Not all of its vector is known: when to ask for it, and how often that was done in vain.
    #[n(43)]
    pub vector_at: Option<Millis>,
    #[n(44)]
    #[cbor(default)]
    pub vector_asks: u32,
    /// Times the question was put.
    #[n(25)]
    #[cbor(default)]
    pub questions: u32,
    /// `verify`: the site is to count its entries anew before it answers.
    #[n(51)]
    #[cbor(default)]
    pub recount: bool,
    /// When all shared naming contexts were last seen to be equal, by a message that answers.
    #[n(16)]
    pub equal_at: Option<Millis>,
    #[n(17)]
    #[cbor(default)]
    pub links: Vec<Link>,
    #[n(18)]
    #[cbor(default)]
    pub notices: Vec<Notice>,
    /// Transfers that need no more parts, newest last.
    #[n(19)]
    #[cbor(default, with = "packed")]
    pub finished: Vec<TransferId>,
    #[n(20)]
    pub trouble: Option<Trouble>,
    /// Our next hop does not take mail to it, until it takes some; what else is told of that mail stays beside it.
    #[n(53)]
    pub deferred: Option<Trouble>,
    /// Parts or questions unanswered since then are asked or sent again.
    #[n(21)]
    pub retry_at: Option<Millis>,
    /// The day, and bytes of payload sent on it.
    #[n(22)]
    #[cbor(default)]
    pub day: (i64, u64),
    /// Our last message before parts became smaller.
    #[n(24)]
    #[cbor(default)]
    pub halved_seq: u64,
    /// When larger ones are tried again.
    #[n(52)]
    #[cbor(default)]
    pub widening: Widening,
    /// Something found no room beside what it has sent in part.
    #[n(47)]
    #[cbor(default)]
    pub crowded: bool,
    /// When the present burst began, for schedules of every so often.
    #[n(23)]
    pub burst_at: Option<Millis>,
}

/// Mail to the site does not get through, as far as anybody told us.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Trouble {
    #[n(0)]
    pub kind: TroubleKind,
    #[n(1)]
    pub since: Millis,
    #[n(2)]
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum TroubleKind {
    /// It hangs behind our next hop.
    #[n(0)]
    Delayed,
    #[n(1)]
    Bouncing,
    #[n(2)]
    Refused,
    /// Our next hop does not take it for now.
    #[n(3)]
    Deferred,
}

/// One naming context on the way to and from one site.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Link {
    #[n(0)]
    pub context: String,
    /// What the site holds, by the newest vector; None: nothing.
    #[n(1)]
    pub theirs: Option<Point>,
    #[n(2)]
    pub standing: Standing,
    /// Its newest vector speaks of this naming context: it holds it or would take it.
    #[n(3)]
    #[cbor(default)]
    pub wanted: bool,
    /// Transfers on their way to the site, each based on the one before.
    #[n(4)]
    #[cbor(default)]
    pub chain: Vec<Flight>,
    /// What we hold is new to the site and goes out by then.
    #[n(5)]
    pub push_at: Option<Millis>,
    /// What we miss is asked for then, unless it came.
    #[n(6)]
    pub ask_at: Option<Millis>,
    /// Times it was asked for in vain.
    #[n(7)]
    #[cbor(default)]
    pub asks: u32,
    /// What came from the site does not fit what we hold: tell it that we hold nothing.
    #[n(8)]
    #[cbor(default)]
    pub ask_full: bool,
    /// We compare digests with the site, to be repaired by it; then the comparison begins again.
    #[n(12)]
    pub verify_at: Option<Millis>,
    /// On a link without answers: when everything is sent again.
    #[n(13)]
    pub repeat_at: Option<Millis>,
    /// By the operator's word, what is held is given up for what the site sends, until both are equal.
    #[n(14)]
    #[cbor(default)]
    pub refresh: bool,
    /// A full load is on its way by file: none goes by mail until then.
    #[n(16)]
    pub by_file: Option<Millis>,
    /// Something of it came from the site.
    #[n(15)]
    #[cbor(default)]
    pub gave: bool,
    /// Transfers of which parts were kept, newest last; some are finished or dropped since.
    #[n(17)]
    #[cbor(default, with = "packed")]
    pub arriving: Vec<TransferId>,
    /// The last transfer from the site that was refused, or did not fit.
    #[n(18)]
    pub refused: Option<TransferId>,
    /// The site asked for it and may have it, though it is not offered.
    #[n(10)]
    #[cbor(default)]
    pub owed: bool,
    /// What the log was told of how the site's state and ours stand to each other, until they are equal.
    #[n(19)]
    pub told: Option<Told>,
    /// Times that what came did not fit, since something did.
    #[n(20)]
    #[cbor(default)]
    pub misfits: u32,
    /// Times that nothing could be made for the site of what is stored, since something was.
    #[n(21)]
    #[cbor(default)]
    pub unmade: u32,
    /// Of what the site masters: whether it stood beside our history.
    #[n(22)]
    pub twin: Option<Twin>,
}

/// Why the site's state and ours cannot both be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Told {
    /// They differ at the same position.
    #[n(0)]
    Differs,
    /// It holds what our own naming context lost.
    #[n(1)]
    Lost,
    /// Two histories claim the same point.
    #[n(2)]
    Forked,
}

/// A transfer on its way.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Flight {
    #[n(0)]
    pub transfer: TransferId,
    /// Where the site stands before it; a full load says nothing of it in its manifest.
    #[n(1)]
    pub base: Option<Point>,
    #[n(2)]
    pub target: Point,
    #[n(3)]
    pub parts: u32,
    #[n(4)]
    pub bytes: u64,
    /// Parts from here on were never sent.
    #[n(5)]
    #[cbor(default)]
    pub next: u32,
    /// Parts before `next` to send again, as ranges with both ends.
    #[n(6)]
    #[cbor(default)]
    pub again: Vec<(u32, u32)>,
    /// The message that carried one of its parts last.
    #[n(7)]
    #[cbor(default)]
    pub seq: u64,
    /// The message that carried its last part first; 0: that did not leave yet.
    #[n(11)]
    #[cbor(default)]
    pub first_seq: u64,
    #[n(8)]
    #[cbor(default)]
    pub at: Millis,
    /// Parts that the site said it has, as far as it said.
    #[n(9)]
    #[cbor(default)]
    pub arrived: u32,
    /// Its base was no point of our history when it was cut: the site may be ahead of us, or in another life.
    #[n(10)]
    #[cbor(default)]
    pub astray: bool,
}

/// Transfers of one naming context of which parts from one site are kept at a time.
pub const ARRIVING_MAX: usize = 64;

/// Ids of finished transfers that are remembered, so that a late part of one starts nothing.
pub const FINISHED_MAX: usize = 128;

impl Link {
    pub fn new(context: &str) -> Link {
        Link {
            context: context.to_owned(),
            theirs: None,
            standing: Standing::Follows,
            wanted: false,
            chain: Vec::new(),
            push_at: None,
            ask_at: None,
            asks: 0,
            ask_full: false,
            told: None,
            owed: false,
            verify_at: None,
            refresh: false,
            gave: false,
            by_file: None,
            arriving: Vec::new(),
            refused: None,
            misfits: 0,
            unmade: 0,
            twin: None,
            repeat_at: None,
        }
    }

    /// Whether it says more than that there is nothing.
    pub fn is_worth_keeping(&self) -> bool {
        self.wanted
            || self.theirs.is_some()
            || !self.chain.is_empty()
            || !self.arriving.is_empty()
            || self.by_file.is_some()
    }

    /// Whether everything is wanted from the site, whatever is held.
    pub fn wants_whole(&self) -> bool {
        self.ask_full || self.refresh
    }

    /// Whether the site waits for a file that holds everything.
    pub fn awaits_file(&self, now: Millis) -> bool {
        self.theirs.is_none() && self.by_file.is_some_and(|until| now < until)
    }

    /// Notes that parts of this transfer are kept; gives one to be dropped for it, if there are too many.
    pub fn arrives(&mut self, transfer: TransferId) -> Option<TransferId> {
        if self.arriving.contains(&transfer) {
            return None;
        }
        self.arriving.push(transfer);
        (self.arriving.len() > ARRIVING_MAX).then(|| self.arriving.remove(0))
    }

    /// Where the site will stand once everything that is on the way has arrived.
    pub fn head(&self) -> Option<Point> {
        self.chain.last().map(|flight| flight.target).or(self.theirs)
    }
}

impl Flight {
    /// Whether its parts are of more than half this size, as those of half the size are not.
    pub fn fills(&self, part_bytes_max: u64) -> bool {
        self.bytes / u64::from(self.parts.max(1)) > part_bytes_max / 2
    }

    /// Whether parts wait to be sent.
    pub fn has_unsent(&self) -> bool {
        self.next < self.parts || !self.again.is_empty()
    }
}

impl Peer {
    pub fn load(read: &dyn Read, site: &str) -> Result<Option<Peer>, StoreError> {
        let Some(bytes) = read.get(Table::Peer, site.as_bytes())? else { return Ok(None) };
        Peer::decode(&bytes, site).map(Some)
    }

    /// Every site of which something is on record, connected or not.
    pub fn all_sites(read: &dyn Read) -> Result<Vec<String>, StoreError> {
        let mut sites = Vec::new();
        read.scan(Table::Peer, &[], &[0xff], &mut |key, _| {
            sites.push(String::from_utf8_lossy(key).into_owned());
            true
        })?;
        Ok(sites)
    }

    /// Reads the record of this site.
    pub fn decode(octets: &[u8], site: &str) -> Result<Peer, StoreError> {
        minicbor::decode(octets)
            .map_err(|error| StoreError::Damaged(format!("the record of site {site}: {error}")))
    }

    pub fn encode(&self) -> Vec<u8> {
        self.encode_with_room(0)
    }

    /// As [`Peer::encode`], in a buffer with room for so many octets.
    pub fn encode_with_room(&self, room: usize) -> Vec<u8> {
        let mut octets = Vec::with_capacity(room);
        minicbor::encode(self, &mut octets).expect("writing to memory does not fail");
        octets
    }

    /// The state of one naming context, as a new one if there is none yet.
    pub fn link(&mut self, context: &str) -> &mut Link {
        let at = match self.links.iter().position(|link| link.context.eq_ignore_ascii_case(context)) {
            Some(at) => at,
            None => {
                self.links.push(Link::new(context));
                self.links.len() - 1
            }
        };
        &mut self.links[at]
    }

    /// The next message's sequence number. It follows the clock, so that a site whose store was put back
    /// to an earlier day does not repeat itself.
    pub fn next_seq(&mut self, now: Millis) -> u64 {
        self.sent_seq = self.coming_seq(now);
        self.sent_seq
    }

    /// What [`Peer::next_seq`] will give.
    pub fn coming_seq(&self, now: Millis) -> u64 {
        (self.sent_seq + 1).max(now.max(0) as u64)
    }

    /// The digest of the site's vector, as far as it is known here.
    pub fn vector_digest(&self) -> VectorDigest {
        let wanted = self.links.iter().filter(|link| link.wanted);
        vector::digest(wanted.map(|link| (link.context.as_str(), link.theirs, link.standing)))
    }

    /// Parts of a transfer are on their way to the site, or are to be.
    pub fn has_under_way(&self) -> bool {
        self.links.iter().any(|link| !link.chain.is_empty())
    }

    /// The next hello to a site that was told so many in vain: not before it can have answered.
    pub fn greet_again(&mut self, now: Millis, timing: &Timing) {
        let first = self.round_trip.expected(timing).max(millis(timing.retry_first));
        self.greeting.at = Some(now + in_vain(first, self.greeting.tries, timing));
    }

    /// When to ask again for a vector that was asked for so often.
    pub fn vector_again(&self, now: Millis, timing: &Timing) -> Millis {
        now + in_vain(self.timeout(timing), self.vector_asks, timing)
    }

    /// Tells the site's operator something with the next message, unless as much as one takes is to be told already.
    pub fn notify(&mut self, context: String, text: &str) {
        if self.notices.len() < NOTICES_MAX {
            let text = text.chars().take(TEXT_BYTES_MAX / 4).collect();
            self.notices.push(Notice { code: 0, context: Some(context), text });
        }
    }

    pub fn finish(&mut self, transfer: TransferId) {
        if self.finished.len() >= FINISHED_MAX {
            self.finished.remove(0);
        }
        self.finished.push(transfer);
    }

    /// The retransmission timeout that holds now.
    pub fn timeout(&self, timing: &Timing) -> Millis {
        self.round_trip.timeout(timing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was when nobody noted what was told: 9 said that something was.
    #[derive(Encode)]
    #[cbor(map)]
    struct Former {
        #[n(0)]
        context: String,
        #[n(2)]
        standing: Standing,
        #[n(9)]
        told: bool,
    }

    /// More, or longer, would make a message that the site refuses as a whole.
    #[test]
    fn what_is_told_to_an_operator_is_bounded() {
        let mut peer = Peer::default();
        (0..2 * NOTICES_MAX).for_each(|_| peer.notify("o=x".into(), &"\u{1f4e7}".repeat(TEXT_BYTES_MAX)));
        assert_eq!(peer.notices.len(), NOTICES_MAX);
        assert!(peer.notices.iter().all(|notice| notice.text.len() <= TEXT_BYTES_MAX));
    }

    #[test]
    fn a_link_of_an_earlier_version_is_read() {
        let former = Former { context: "o=x".into(), standing: Standing::Follows, told: true };
        let link: Link = minicbor::decode(&minicbor::to_vec(&former).unwrap()).unwrap();
        assert_eq!(link, Link::new("o=x"));
        let told = Link { told: Some(Told::Lost), ..link };
        assert_eq!(minicbor::decode::<Link>(&minicbor::to_vec(&told).unwrap()).unwrap(), told);
    }
}
