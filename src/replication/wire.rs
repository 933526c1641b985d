//! What one replication message says, once it is opened: the payload of the sealed envelope.
//!
//! PROMISES
//!   Every message carries its sender's vector, whole or as what changed, so any message acknowledges and any
//!   message shows a gap. A field that this version does not know is skipped, so that later versions can add.
//!   Reading allocates no more than a small multiple of the payload, whatever it claims.
//!
//! FORMAT
//!   One CBOR map (RFC 8949) with small numbers for keys; times are milliseconds since 1970, UTC.
//!   ```text
//!   message = {0 protocol, ?1 heard, ?2 hello, 3 [vector item], ?4 [request], ?5 [part], ?6 [digests],
//!              ?7 [notice], ?8 answer wanted, ?9 [introduction text], ?10 digest of the whole vector,
//!              ?11 whole vector wanted, ?12 count anew}
//!   heard   = {0 sequence number heard last, 1 milliseconds between hearing and telling}
//!   hello   = {0 card text, 1 capabilities, 2 part_bytes_max, 3 this answers your hello,
//!              ?4 [former card text], ?5 [serial, id of the signing key] of the receiver's card as pinned here}
//!   vector  = {0 context, ?1 position, ?2 digest, 3 standing}
//!   request = {0 context, ?1 base position, ?2 base digest, ?3 transfer id, 4 [[first, last] missing part]}
//!   part    = {0 context, 1 part (see parts)}
//!   digests = {0 context, 1 position, 2 body (see verify)}
//!   notice  = {0 code, ?1 context, 2 text}
//!   ```
//!
//! LIMITS
//!   [`MESSAGE_BYTES_MAX`], and the `_max` constants below for each list and text.
//!
//! FAILURE
//!   [`WireError`]: the sender's fault; the message is refused and nothing of it takes effect.

use ed25519_dalek::VerifyingKey;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::cbor::list;
use super::parts::{Part, TransferId};
use super::vector::VectorDigest;
use crate::directory::{Digest, Position};

/// The protocol that this program speaks; a message of another number is refused.
pub const PROTOCOL: u32 = 1;

pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
pub const CONTEXTS_MAX: usize = 4096;
pub const REQUESTS_MAX: usize = 4096;
pub const PARTS_MAX: usize = 4096;
pub const DIGESTS_MAX: usize = 256;
pub const NOTICES_MAX: usize = 64;
pub const CARD_BYTES_MAX: usize = 16 << 10;
/// Former cards in a hello.
pub const FORMER_CARDS_MAX: usize = 8;
pub const INTRODUCTIONS_MAX: usize = 1024;
pub const NAME_BYTES_MAX: usize = 1024;
pub const TEXT_BYTES_MAX: usize = 1024;
/// Runs of missing parts in one request; the rest is asked for next time.
pub const RANGES_MAX: usize = 256;

/// One message, as said.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Message {
    #[n(0)]
    pub protocol: u32,
    /// What the sender heard last from the receiver; lets it measure the round trip.
    #[n(1)]
    pub heard: Option<Heard>,
    #[n(2)]
    pub hello: Option<Hello>,
    #[n(3)]
    #[cbor(decode_with = "list::<_, _, CONTEXTS_MAX>")]
    pub vector: Vec<VectorItem>,
    #[n(4)]
    #[cbor(default, skip_if = "Vec::is_empty", decode_with = "list::<_, _, REQUESTS_MAX>")]
    pub requests: Vec<Request>,
    #[n(5)]
    #[cbor(default, skip_if = "Vec::is_empty", decode_with = "list::<_, _, PARTS_MAX>")]
    pub parts: Vec<PartItem>,
    #[n(6)]
    #[cbor(default, skip_if = "Vec::is_empty", decode_with = "list::<_, _, DIGESTS_MAX>")]
    pub digests: Vec<DigestItem>,
    #[n(7)]
    #[cbor(default, skip_if = "Vec::is_empty", decode_with = "list::<_, _, NOTICES_MAX>")]
    pub notices: Vec<Notice>,
    /// The sender waits: answer at once, even if there is nothing but the vector to say.
    #[n(8)]
    #[cbor(default, skip_if = "not")]
    pub answer_wanted: bool,
    /// The sender's word for the sites whose naming contexts it passes on.
    #[n(9)]
    #[cbor(default, skip_if = "Vec::is_empty", decode_with = "list::<_, _, INTRODUCTIONS_MAX>")]
    pub introductions: Vec<String>,
    /// Set: `vector` holds what changed, and this is what all of it hashes to. None: `vector` is all.
    #[n(10)]
    pub vector_digest: Option<VectorDigest>,
    /// The sender does not know all of the receiver's vector.
    #[n(11)]
    #[cbor(default, skip_if = "not")]
    pub vector_wanted: bool,
    /// The sender verifies: count the entries anew before the answer, unless that was done lately.
    #[n(12)]
    #[cbor(default, skip_if = "not")]
    pub recount: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Heard {
    #[n(0)]
    pub seq: u64,
    #[n(1)]
    pub held_ms: u64,
}

/// Who speaks and what it can take; all that is sent to a site that never answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    #[n(0)]
    pub card: String,
    #[n(1)]
    pub capabilities: u64,
    /// The largest part that the sender's mail system takes in.
    #[n(2)]
    pub part_bytes_max: u64,
    #[n(3)]
    pub answer: bool,
    /// Its cards before this one, oldest first, for a receiver that missed some.
    #[n(4)]
    #[cbor(default, skip_if = "Vec::is_empty", decode_with = "list::<_, _, FORMER_CARDS_MAX>")]
    pub former_cards: Vec<String>,
    /// Which of the receiver's cards the sender goes by.
    #[n(5)]
    pub pinned: Option<Pinned>,
}

/// A card that is pinned: its serial, and the id of its signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pinned {
    #[n(0)]
    pub serial: u64,
    #[n(1)]
    pub key: KeyId,
}

/// The first octets of a hash of a signing key.
pub type KeyId = minicbor::bytes::ByteArray<8>;

/// The id of a signing key.
pub fn key_id(key: &VerifyingKey) -> KeyId {
    let hash =
        Sha256::new().chain_update(b"bridgehead signing key 1\0").chain_update(key.as_bytes()).finalize();
    std::array::from_fn(|at| hash[at]).into()
}

/// Where the sender stands with one naming context.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VectorItem {
    #[n(0)]
    pub context: String,
    /// None: the sender holds nothing of it and would take it.
    #[n(1)]
    pub position: Option<Position>,
    #[n(2)]
    pub digest: Option<Digest>,
    #[n(3)]
    pub standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Standing {
    /// Follows its master, or is the master.
    #[n(0)]
    Follows,
    /// A transfer waits for the operator's word.
    #[n(1)]
    Held,
    /// Its history and another site's contradict each other; it takes nothing until that is resolved.
    #[n(2)]
    Forked,
    /// Its master, asking partners what it lost.
    #[n(3)]
    Recovering,
}

/// Asks for what leads from `base` (or from nothing) to the receiver's state, or for lost parts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    #[n(0)]
    pub context: String,
    /// None: everything.
    #[n(1)]
    pub base: Option<Position>,
    #[n(2)]
    pub base_digest: Option<Digest>,
    /// Parts of this transfer are missing: those in `missing`.
    #[n(3)]
    pub transfer: Option<TransferId>,
    #[n(4)]
    #[cbor(default, skip_if = "Vec::is_empty", decode_with = "list::<_, _, RANGES_MAX>")]
    pub missing: Vec<(u32, u32)>,
}

/// One part of a transfer of this naming context.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PartItem {
    #[n(0)]
    pub context: String,
    #[n(1)]
    pub part: Part,
}

/// One step of a comparison of two replicas, in the words of [`verify`](crate::replication).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DigestItem {
    #[n(0)]
    pub context: String,
    #[n(1)]
    pub position: Position,
    #[n(2)]
    pub body: ByteVec,
}

/// Something the operator of the other site should know; it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Notice {
    #[n(0)]
    pub code: u32,
    #[n(1)]
    pub context: Option<String>,
    #[n(2)]
    pub text: String,
}

/// The sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    #[error("the message has {0} bytes, more than {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    #[error("the message speaks protocol {0}, this program speaks {PROTOCOL}")]
    Protocol(u32),
    #[error("the message cannot be read: {0}")]
    Malformed(String),
    #[error("the message has too many or too long {0}")]
    Bound(&'static str),
}

impl Message {
    /// A message with nothing but its sender's vector.
    pub fn new(vector: Vec<VectorItem>) -> Message {
        Message {
            protocol: PROTOCOL,
            heard: None,
            hello: None,
            vector,
            requests: Vec::new(),
            parts: Vec::new(),
            digests: Vec::new(),
            notices: Vec::new(),
            answer_wanted: false,
            introductions: Vec::new(),
            vector_digest: None,
            vector_wanted: false,
            recount: false,
        }
    }

    /// A greeting that says nothing of what its sender holds.
    pub fn is_only_hello(&self) -> bool {
        self.hello.is_some() && self.vector.is_empty() && self.vector_digest.is_none()
    }

    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory does not fail")
    }

    pub fn decode(payload: &[u8]) -> Result<Message, WireError> {
        if payload.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong(payload.len()));
        }
        let mut decoder = minicbor::Decoder::new(payload);
        let message: Message = decoder.decode().map_err(|error| WireError::Malformed(error.to_string()))?;
        if decoder.position() != payload.len() {
            return Err(WireError::Malformed("more follows its end".into()));
        }
        if message.protocol != PROTOCOL {
            return Err(WireError::Protocol(message.protocol));
        }
        message.within_bounds()?;
        Ok(message)
    }

    /// What the lists hold; their lengths were bounded as they were read.
    fn within_bounds(&self) -> Result<(), WireError> {
        let bound = |holds: bool, what| if holds { Ok(()) } else { Err(WireError::Bound(what)) };
        let name = |name: &str| name.len() <= NAME_BYTES_MAX;
        if let Some(hello) = &self.hello {
            let cards = || hello.former_cards.iter().chain([&hello.card]);
            bound(cards().all(|card| card.len() <= CARD_BYTES_MAX), "cards")?;
        }
        bound(self.introductions.iter().all(|text| text.len() <= 2 * CARD_BYTES_MAX), "introductions")?;
        bound(self.vector.iter().all(|item| name(&item.context)), "context names")?;
        bound(self.digests.iter().all(|item| name(&item.context)), "context names")?;
        bound(self.notices.iter().all(|notice| notice.text.len() <= TEXT_BYTES_MAX), "notices")?;
        bound(
            self.notices.iter().all(|notice| notice.context.iter().all(|context| name(context))),
            "notices",
        )?;
        for request in &self.requests {
            bound(name(&request.context), "requests")?;
            bound(request.missing.iter().all(|(first, last)| first <= last), "requests")?;
        }
        for part in &self.parts {
            bound(name(&part.context) && part.part.index < part.part.count, "parts")?;
        }
        Ok(())
    }
}

/// `false` is what an absent field says.
fn not(flag: &bool) -> bool {
    !flag
}

/// The runs of consecutive numbers in `missing` (ascending), at most [`RANGES_MAX`] of them.
pub fn ranges(missing: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in missing {
        let full = runs.len() == RANGES_MAX;
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(index) => *last = index,
            _ if full => break,
            _ => runs.push((index, index)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> Message {
        let position = Position { invocation: uuid::Uuid::from_u128(7), usn: 3 };
        let mut message = Message::new(vec![VectorItem {
            context: "ou=north,o=example".into(),
            position: Some(position),
            digest: Some(Digest([5; 32])),
            standing: Standing::Follows,
        }]);
        message.heard = Some(Heard { seq: 9, held_ms: 120 });
        message.hello = Some(Hello {
            card: "card".into(),
            capabilities: 1,
            part_bytes_max: 65536,
            answer: true,
            former_cards: vec!["older card".into()],
            pinned: Some(Pinned { serial: 3, key: [4; 8].into() }),
        });
        message.parts.push(PartItem {
            context: "ou=north,o=example".into(),
            part: Part {
                transfer: TransferId([1; 16]),
                index: 0,
                count: 2,
                manifest: vec![9],
                bytes: vec![1, 2, 3],
            },
        });
        message.requests.push(Request {
            context: "o=x".into(),
            base: Some(position),
            base_digest: None,
            transfer: None,
            missing: vec![(0, 3)],
        });
        message
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let message = message();
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn a_difference_without_news_is_no_bare_hello() {
        let mut message = Message::new(Vec::new());
        assert!(!message.is_only_hello());
        message.hello = self::message().hello;
        assert!(message.is_only_hello());
        (message.vector_digest, message.vector_wanted) = (Some([7; 16].into()), true);
        assert!(!message.is_only_hello());
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn a_bare_vector_is_small() {
        let mut bare = Message::new(message().vector);
        bare.heard = Some(Heard { seq: 1_795_000_000_000, held_ms: 1000 });
        assert!(bare.encode().len() < 130, "{}", bare.encode().len());
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let mut bytes = message().encode();
        assert_eq!(bytes[0] & 0xe0, 0xa0, "a short definite map");
        bytes[0] += 1;
        // 60: [[1, {1: 2}], "x"]
        bytes.extend([0x18, 60, 0x82, 0x82, 0x01, 0xa1, 0x01, 0x02, 0x61, b'x']);
        assert_eq!(Message::decode(&bytes), Ok(message()));
    }

    #[test]
    fn bounds_are_kept() {
        let mut long = message();
        long.vector[0].context = "x".repeat(NAME_BYTES_MAX + 1);
        assert_eq!(Message::decode(&long.encode()), Err(WireError::Bound("context names")));
        let mut beyond = message();
        beyond.parts[0].part.index = 2;
        assert_eq!(Message::decode(&beyond.encode()), Err(WireError::Bound("parts")));
        let mut many = message();
        many.notices = vec![Notice { code: 0, context: None, text: String::new() }; NOTICES_MAX];
        assert_eq!(Message::decode(&many.encode()), Ok(many.clone()));
        many.notices.push(many.notices[0].clone());
        assert!(matches!(Message::decode(&many.encode()), Err(WireError::Malformed(_))));
        let mut vector = Message::new(vec![message().vector[0].clone(); CONTEXTS_MAX]);
        vector.vector_digest = Some([7; 16].into());
        assert_eq!(Message::decode(&vector.encode()), Ok(vector.clone()));
        vector.vector.push(vector.vector[0].clone());
        assert!(matches!(Message::decode(&vector.encode()), Err(WireError::Malformed(_))));
        let mut newer = message();
        newer.protocol = 2;
        assert_eq!(Message::decode(&newer.encode()), Err(WireError::Protocol(2)));
        let mut more = message().encode();
        more.push(0);
        assert!(matches!(Message::decode(&more), Err(WireError::Malformed(_))));
    }

    #[test]
    fn a_downgrade_of_the_protocol_is_refused() {
        let older = Message { protocol: 0, ..message() };
        assert_eq!(Message::decode(&older.encode()), Err(WireError::Protocol(0)));
    }

    #[test]
    fn runs() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8]), vec![(0, 2), (5, 5), (7, 8)]);
        assert_eq!(ranges((0..2000).map(|n| n * 2)).len(), RANGES_MAX);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn damaged_messages_do_no_harm(at in 0usize..200, with in any::<u8>()) {
            let mut bytes = message().encode();
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = Message::decode(&bytes);
        }
    }
}
