//! Opening: a sealed message becomes a payload of a known site, or is refused with a reason.
//!
//! PROMISES
//!   Nothing of the payload is decompressed or decoded before the signature of a known site over it was verified. The
//!   work before that is bounded by the size of the message: one decryption, one header of at most a kilobyte. What an
//!   [`Opened`] holds was written by the site that its header names, to this site and no other.
//!
//! FAILURE
//!   [`OpenError`] says whose fault it is ([`OpenError::fault`]) and what to answer ([`OpenError::refusal`]).
//!
//! BUGS
//!   Whether a message is a repetition is not known here: the header's sequence number and time are for the engine.

use ed25519_dalek::Signature;
use hpke::{Deserializable as _, OpModeR, single_shot_open};
use jiff::Timestamp;
use thiserror::Error;

use super::card::Card;
use super::envelope::{
    Aead, COMPRESSION_NONE, COMPRESSION_ZSTD, HEADER_BYTES_MAX, HEADER_LENGTH_BYTES, Header, INFO,
    INNER_BYTES_MIN, KIND, Kdf, Kem, MAGIC, OUTER_BYTES, PAYLOAD_BYTES_MAX, PREFIX_BYTES, SIGNATURE_BYTES,
    SpelledHeader, TAG_BYTES, VERSION, declared_bytes, signed_text,
};
use super::keys::{self, KeyPair, SiteKey};
use super::{Fault, Refusal, name};

/// A message of a known site to this one, proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub header: Header,
    pub payload: Vec<u8>,
}

/// Why a message was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    #[error("it is no sealed message")]
    NotSealed,
    #[error("its octets were changed on the way, as by a conversion of text")]
    Converted,
    #[error("it was cut off: {present} of {expected} octets are there")]
    Truncated { expected: usize, present: usize },
    #[error("{0} octets stand after its end")]
    Trailing(usize),
    #[error("it has format {0}, newer than this program")]
    Version(u8),
    #[error("it is sealed to a key that is not ours ({})", hex(.0))]
    NotOurKey([u8; 8]),
    #[error("it does not decrypt: altered on the way, or sealed wrongly")]
    Damaged,
    #[error("its header cannot be read")]
    Header,
    #[error("it is our own message, sent back to us")]
    Reflected,
    #[error("it is sealed to our key but addressed to site `{0}`")]
    OtherSite(String),
    #[error("its sender `{0}` is not known here")]
    UnknownSender(String),
    #[error("site `{0}` did not sign it with the key that its card names")]
    Forged(String),
    #[error("site `{site}` announces a payload of {bytes} octets, more than a message may hold")]
    PayloadTooLarge { site: String, bytes: u64 },
    #[error("site `{0}` sent a payload that does not decompress to what its header announces")]
    Compression(String),
}

/// Opens a message to this site, whose name is `own_name`; `lookup` gives the pinned card of a site.
pub fn open(
    key: &SiteKey,
    own_name: &str,
    lookup: impl Fn(&str) -> Option<Card>,
    bytes: &[u8],
) -> Result<Opened, OpenError> {
    let (prefix, ciphertext) = take_apart(bytes)?;
    let pair = pair_for(key, prefix).ok_or_else(|| OpenError::NotOurKey(key_id(prefix)))?;
    let plain = decrypt(pair, &bytes[PREFIX_BYTES..OUTER_BYTES], prefix, ciphertext)?;
    let (inner, signature) = plain.split_last_chunk::<SIGNATURE_BYTES>().ok_or(OpenError::Header)?;
    let (spelled, body) = read_header(inner)?;
    let card = sender(&spelled, own_name, lookup)?;

    let receiver = pair.public().sealing;
    let text = signed_text(prefix, receiver.as_bytes(), inner);
    if !keys::verify(&card.public.signing, KIND, &text, &Signature::from_bytes(signature)) {
        return Err(OpenError::Forged(name::shown(&spelled.from)));
    }
    let payload = payload(&spelled, body)?;
    let time = Timestamp::from_millisecond(spelled.time).map_err(|_| OpenError::Header)?;
    Ok(Opened { header: Header { from: spelled.from, to: spelled.to, seq: spelled.seq, time }, payload })
}

/// Checks the outer layout; gives what stands in clear before the encapsulated key, and the ciphertext.
fn take_apart(bytes: &[u8]) -> Result<(&[u8], &[u8]), OpenError> {
    if !bytes.starts_with(&MAGIC) {
        // Whatever became of the first octet and the line ends, the letters survive a conversion.
        let converted = bytes.windows(3).take(4).any(|letters| letters == &MAGIC[1..4]);
        return Err(match (MAGIC.starts_with(bytes), converted) {
            (true, _) => OpenError::Truncated { expected: OUTER_BYTES, present: bytes.len() },
            (_, true) => OpenError::Converted,
            _ => OpenError::NotSealed,
        });
    }
    match bytes.get(MAGIC.len()) {
        Some(&VERSION) => {}
        Some(version) => return Err(OpenError::Version(*version)),
        None => return Err(OpenError::Truncated { expected: OUTER_BYTES, present: bytes.len() }),
    }
    let expected = declared_bytes(bytes).unwrap_or(OUTER_BYTES);
    if bytes.len() < expected {
        return Err(OpenError::Truncated { expected, present: bytes.len() });
    }
    if bytes.len() > expected {
        return Err(OpenError::Trailing(bytes.len() - expected));
    }
    if expected < OUTER_BYTES + INNER_BYTES_MIN + TAG_BYTES {
        return Err(OpenError::Damaged);
    }
    Ok((&bytes[..PREFIX_BYTES], &bytes[OUTER_BYTES..]))
}

fn key_id(prefix: &[u8]) -> [u8; 8] {
    std::array::from_fn(|at| prefix[MAGIC.len() + 1 + at])
}

fn pair_for<'a>(key: &'a SiteKey, prefix: &[u8]) -> Option<&'a KeyPair> {
    key.pairs().iter().find(|pair| pair.public().sealing.id() == key_id(prefix))
}

fn decrypt(
    pair: &KeyPair,
    encapsulated: &[u8],
    prefix: &[u8],
    ciphertext: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let encapsulated =
        <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| OpenError::Damaged)?;
    single_shot_open::<Aead, Kdf, Kem>(
        &OpModeR::Base,
        &pair.sealing_secret(),
        &encapsulated,
        INFO,
        ciphertext,
        prefix,
    )
    .map_err(|_| OpenError::Damaged)
}

/// Reads the header; its author is not proved yet, so it is small and nothing is believed.
fn read_header(inner: &[u8]) -> Result<(SpelledHeader, &[u8]), OpenError> {
    let (length, rest) = inner.split_first_chunk::<HEADER_LENGTH_BYTES>().ok_or(OpenError::Header)?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length > HEADER_BYTES_MAX {
        return Err(OpenError::Header);
    }
    let (header, body) = rest.split_at_checked(length).ok_or(OpenError::Header)?;
    let mut decoder = minicbor::Decoder::new(header);
    let spelled = decoder.decode().map_err(|_| OpenError::Header)?;
    if decoder.position() != header.len() {
        return Err(OpenError::Header);
    }
    Ok((spelled, body))
}

fn sender(
    header: &SpelledHeader,
    own_name: &str,
    lookup: impl Fn(&str) -> Option<Card>,
) -> Result<Card, OpenError> {
    if header.from == own_name {
        return Err(OpenError::Reflected);
    }
    if header.to != own_name {
        return Err(OpenError::OtherSite(name::shown(&header.to)));
    }
    lookup(&header.from)
        .filter(|card| card.name() == header.from)
        .ok_or_else(|| OpenError::UnknownSender(name::shown(&header.from)))
}

/// The payload; the memory that it takes is what the header announces, which is bounded.
fn payload(header: &SpelledHeader, body: &[u8]) -> Result<Vec<u8>, OpenError> {
    let site = || name::shown(&header.from);
    let bytes = usize::try_from(header.payload_bytes).ok().filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX);
    let bytes =
        bytes.ok_or_else(|| OpenError::PayloadTooLarge { site: site(), bytes: header.payload_bytes })?;
    let payload = match header.compression {
        COMPRESSION_NONE => Some(body.to_vec()),
        COMPRESSION_ZSTD => zstd::bulk::decompress(body, bytes).ok(),
        _ => None,
    };
    payload.filter(|payload| payload.len() == bytes).ok_or_else(|| OpenError::Compression(site()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl OpenError {
    /// Whose fault it is, as far as can be told.
    pub fn fault(&self) -> Fault {
        match self {
            OpenError::Converted
            | OpenError::Truncated { .. }
            | OpenError::Trailing(_)
            | OpenError::Damaged => Fault::Transit,
            // A newer format and a partner whose card was not added are ours to mend.
            OpenError::Version(_) | OpenError::UnknownSender(_) => Fault::Us,
            OpenError::NotSealed
            | OpenError::NotOurKey(_)
            | OpenError::Header
            | OpenError::Reflected
            | OpenError::OtherSite(_)
            | OpenError::Forged(_)
            | OpenError::PayloadTooLarge { .. }
            | OpenError::Compression(_) => Fault::Sender,
        }
    }

    /// What to answer to the message. Always final: the same octets will not open later, and the sender's engine sends
    /// the content again by itself.
    pub fn refusal(&self) -> Refusal {
        let (code, enhanced, text) = match self {
            OpenError::NotSealed => (550, "5.7.1", "this mailbox takes directory replication messages only"),
            OpenError::Converted => {
                (554, "5.6.1", "the attachment was converted on the way and cannot be used")
            }
            OpenError::Truncated { .. } => (554, "5.6.0", "the attachment was cut off on the way"),
            OpenError::Trailing(_) => (554, "5.6.0", "something was appended to the attachment on the way"),
            OpenError::Version(_) => (550, "5.7.6", "the message has a format newer than this site knows"),
            OpenError::NotOurKey(_) => {
                (550, "5.7.5", "the message is sealed to a key that is not this site's")
            }
            OpenError::Damaged => (554, "5.7.5", "the message does not decrypt: altered on the way"),
            OpenError::Header => (550, "5.6.0", "the message's header cannot be read"),
            OpenError::Reflected => (550, "5.7.1", "the message came back to the site that sent it"),
            OpenError::OtherSite(_) => (550, "5.7.1", "the message is addressed to another site"),
            OpenError::UnknownSender(_) => {
                (550, "5.7.1", "the sending site is not known here: exchange site cards")
            }
            OpenError::Forged(_) => {
                (550, "5.7.7", "the message's signature is not that of the site it names")
            }
            OpenError::PayloadTooLarge { .. } => {
                (552, "5.3.4", "the message's payload is larger than allowed")
            }
            OpenError::Compression(_) => (550, "5.6.0", "the message's payload does not decompress"),
        };
        Refusal { code, enhanced, text: text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::message::card::tests::site;
    use crate::message::random::Seeded;
    use crate::message::seal::{SEALED_OVERHEAD_BYTES_MAX, envelop, join, seal};

    /// Two sites that know one another, and a third that neither knows.
    #[derive(Clone)]
    struct Sites {
        alpha: (SiteKey, Card),
        beta: (SiteKey, Card),
        gamma: (SiteKey, Card),
    }

    /// Made once: keys and signatures take most of the time of these tests.
    static SITES: LazyLock<Sites> =
        LazyLock::new(|| Sites { alpha: site("alpha", 1), beta: site("beta", 2), gamma: site("gamma", 3) });

    fn sites() -> Sites {
        SITES.clone()
    }

    fn header(from: &str, to: &str) -> Header {
        Header {
            from: from.to_owned(),
            to: to.to_owned(),
            seq: 42,
            time: "2026-11-22T14:00:00.123Z".parse().unwrap(),
        }
    }

    fn spelled(from: &str, to: &str) -> SpelledHeader {
        let (from, to) = (from.to_owned(), to.to_owned());
        SpelledHeader { from, to, seq: 1, time: 0, compression: COMPRESSION_NONE, payload_bytes: 0 }
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        let sites = sites();
        seal(&sites.alpha.0, &sites.beta.1, &header("alpha", "beta"), payload, &mut Seeded::new(10)).unwrap()
    }

    /// Beta opens; it knows alpha and itself.
    fn beta_opens(bytes: &[u8]) -> Result<Opened, OpenError> {
        let Sites { alpha, beta, .. } = sites();
        let known = [alpha.1, beta.1];
        open(&beta.0, "beta", |name| known.iter().find(|card| card.name() == name).cloned(), bytes)
    }

    /// What beta says to an envelope with this inside, signed by `signer`.
    fn beta_says(signer: &SiteKey, header: &SpelledHeader, body: &[u8]) -> OpenError {
        let inner = join(header, body).unwrap();
        let sealing = sites().beta.1.public.sealing;
        beta_opens(&envelop(signer, &sealing, &inner, &mut Seeded::new(11)).unwrap()).unwrap_err()
    }

    #[test]
    fn what_is_sealed_opens() {
        for payload in [&b""[..], b"short", &b"long and repeated ".repeat(1000)] {
            let sealed = message(payload);
            assert!(sealed.len() <= payload.len() + SEALED_OVERHEAD_BYTES_MAX);
            let opened = beta_opens(&sealed).unwrap();
            assert_eq!((opened.header, &opened.payload[..]), (header("alpha", "beta"), payload));
        }
        assert!(message(&b"long and repeated ".repeat(1000)).len() < 400);
        assert_eq!(message(b"x"), message(b"x"), "equal input, equal octets");
        assert_eq!(message(b"").len(), 166, "what an empty message costs");
    }

    #[test]
    fn a_former_key_still_opens() {
        let Sites { alpha, beta, .. } = sites();
        let renewed = beta.0.renew(&mut Seeded::new(12));
        let lookup = |_: &str| Some(alpha.1.clone());
        assert!(open(&renewed, "beta", lookup, &message(b"x")).is_ok());
        assert!(matches!(
            open(&renewed.without_former(), "beta", lookup, &message(b"x")),
            Err(OpenError::NotOurKey(_))
        ));
    }

    #[test]
    fn truncation_at_every_octet_is_refused() {
        let sealed = message(b"payload");
        for length in 0..sealed.len() {
            let error = beta_opens(&sealed[..length]).unwrap_err();
            assert!(
                matches!(error, OpenError::Truncated { present, .. } if present == length),
                "{length}: {error}"
            );
        }
        let longer = [&sealed[..], b"--footer"].concat();
        assert_eq!(beta_opens(&longer), Err(OpenError::Trailing(8)));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let sealed = message(&b"payload that compresses, payload that compresses ".repeat(3));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut altered = sealed.clone();
                altered[at] ^= 1 << bit;
                let error = beta_opens(&altered).unwrap_err();
                assert_eq!(error.refusal().code / 100, 5, "{at}.{bit}");
            }
        }
    }

    #[test]
    fn the_reasons_are_told_apart() {
        let sealed = message(b"payload");
        let changed = |at: usize, to: u8| {
            let mut altered = sealed.clone();
            altered[at] = to;
            beta_opens(&altered).unwrap_err()
        };
        assert_eq!(beta_opens(b"Dear all,"), Err(OpenError::NotSealed));
        assert_eq!(changed(8, 2), OpenError::Version(2));
        assert!(matches!(changed(9, 0), OpenError::NotOurKey(_)));
        assert_eq!(changed(60, 0), OpenError::Damaged);
        assert_eq!(changed(0, 0x0b), OpenError::Converted);
        let as_text: Vec<u8> = sealed.iter().filter(|byte| **byte != b'\r').copied().collect();
        assert_eq!(beta_opens(&as_text), Err(OpenError::Converted));
        let as_utf8: String = sealed.iter().map(|byte| char::from(*byte)).collect();
        assert_eq!(beta_opens(as_utf8.as_bytes()), Err(OpenError::Converted));
    }

    /// Alpha's message to beta in a format of this number, signed and encrypted as one of that format would be.
    fn sealed_as(version: u8) -> Vec<u8> {
        let Sites { alpha, beta, .. } = sites();
        let to = &beta.1.public.sealing;
        let inner = join(&spelled("alpha", "beta"), b"").unwrap();
        let length = (inner.len() + SIGNATURE_BYTES + TAG_BYTES) as u32;
        let prefix = [&MAGIC[..], &[version], &to.id(), &length.to_be_bytes()].concat();
        let signature = alpha.0.sign(KIND, &signed_text(&prefix, to.as_bytes(), &inner)).to_bytes();
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem>(
            &hpke::OpModeS::Base,
            &to.for_hpke(),
            INFO,
            &[&inner[..], &signature].concat(),
            &prefix,
            &mut Seeded::new(16),
        )
        .unwrap();
        [&prefix[..], &hpke::Serializable::to_bytes(&encapsulated), &ciphertext].concat()
    }

    #[test]
    fn a_downgrade_of_the_envelope_is_refused() {
        assert!(beta_opens(&sealed_as(VERSION)).is_ok(), "all else about it is right");
        let error = beta_opens(&sealed_as(0)).unwrap_err();
        assert_eq!(error, OpenError::Version(0));
        assert_eq!((error.refusal().code, error.refusal().enhanced), (550, "5.7.6"));
    }

    #[test]
    fn only_the_named_and_known_site_is_believed() {
        let Sites { alpha, gamma, .. } = sites();
        // Gamma speaks as alpha; gamma speaks as itself; alpha's message is sent back to it.
        assert_eq!(beta_says(&gamma.0, &spelled("alpha", "beta"), b""), OpenError::Forged("alpha".into()));
        assert_eq!(
            beta_says(&gamma.0, &spelled("gamma", "beta"), b""),
            OpenError::UnknownSender("gamma".into())
        );
        assert_eq!(
            beta_says(&alpha.0, &spelled("alpha", "gamma"), b""),
            OpenError::OtherSite("gamma".into())
        );
        assert_eq!(beta_says(&alpha.0, &spelled("beta", "beta"), b""), OpenError::Reflected);
        // A look-up that gives the card of another site does not make that one the sender.
        let mistaken = open(&sites().beta.0, "beta", |_| Some(gamma.1.clone()), &message(b"x"));
        assert_eq!(mistaken, Err(OpenError::UnknownSender("alpha".into())));
        let reflected = open(&alpha.0, "alpha", |_| None, &message(b"x"));
        assert!(matches!(reflected, Err(OpenError::NotOurKey(_))));
    }

    #[test]
    fn a_receiver_cannot_pass_the_message_on_as_if_sealed_to_another() {
        let Sites { alpha, beta, gamma } = sites();
        // Beta opens alpha's message and seals the signed inside to gamma, unchanged.
        let sealed = message(b"secret");
        let (prefix, ciphertext) = take_apart(&sealed).unwrap();
        let plain =
            decrypt(&beta.0.pairs()[0], &sealed[PREFIX_BYTES..OUTER_BYTES], prefix, ciphertext).unwrap();
        let to = &gamma.1.public.sealing;
        let mut prefix = prefix.to_vec();
        prefix[9..17].copy_from_slice(&to.id());
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem>(
            &hpke::OpModeS::Base,
            &to.for_hpke(),
            INFO,
            &plain,
            &prefix,
            &mut Seeded::new(13),
        )
        .unwrap();
        let passed = [&prefix[..], &hpke::Serializable::to_bytes(&encapsulated), &ciphertext].concat();
        // Even a gamma that goes by beta's name refuses it, for the signature names beta's key.
        let result = open(&gamma.0, "beta", |_| Some(alpha.1.clone()), &passed);
        assert_eq!(result, Err(OpenError::Forged("alpha".into())));
    }

    #[test]
    fn bombs_are_refused_within_bounds() {
        let alpha = sites().alpha.0;
        let bomb = zstd::bulk::compress(&vec![0; 32 << 20], 19).unwrap();
        assert!(bomb.len() < 8 << 10);
        let says = |payload_bytes, compression, body: &[u8]| {
            beta_says(&alpha, &SpelledHeader { payload_bytes, compression, ..spelled("alpha", "beta") }, body)
        };
        let site = || "alpha".to_owned();
        // It claims to be small, to be huge, to be honest about something else.
        for claimed in [0, 1, 1000, (32 << 20) - 1, (32 << 20) + 1] {
            assert_eq!(says(claimed, COMPRESSION_ZSTD, &bomb), OpenError::Compression(site()), "{claimed}");
        }
        for bytes in [PAYLOAD_BYTES_MAX as u64 + 1, u64::MAX] {
            assert_eq!(
                says(bytes, COMPRESSION_ZSTD, &bomb),
                OpenError::PayloadTooLarge { site: site(), bytes }
            );
            assert_eq!(
                says(bytes, COMPRESSION_NONE, b""),
                OpenError::PayloadTooLarge { site: site(), bytes }
            );
        }
        assert_eq!(says(4, COMPRESSION_NONE, b"five!"), OpenError::Compression(site()));
        assert_eq!(says(5, 2, b"five!"), OpenError::Compression(site()));
        assert_eq!(says(5, COMPRESSION_ZSTD, b"five!"), OpenError::Compression(site()));
    }

    #[test]
    fn the_signature_is_verified_before_the_payload_is_touched() {
        let huge = SpelledHeader { payload_bytes: u64::MAX, compression: 9, ..spelled("alpha", "beta") };
        assert_eq!(beta_says(&sites().gamma.0, &huge, b"junk"), OpenError::Forged("alpha".into()));
    }

    #[test]
    fn crafted_headers_are_refused() {
        let Sites { alpha, beta, .. } = sites();
        let says = |inner: &[u8]| {
            beta_opens(&envelop(&alpha.0, &beta.1.public.sealing, inner, &mut Seeded::new(14)).unwrap())
                .unwrap_err()
        };
        let good = minicbor::to_vec(spelled("alpha", "beta")).unwrap();
        let with = |header: &[u8]| [&(header.len() as u16).to_be_bytes(), header].concat();
        for inner in [
            &b""[..],
            &[0],
            &[0, 0],
            &[0xff, 0xff],
            &[0, 200, 0xa0],
            &with(&[&good[..], &[0]].concat()),
            &with(&good[..good.len() - 1]),
            &with(&[0x9f; 1000]),
            &with(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\0"),
            &with(b"\xa1\x00\x7b\x7f\xff\xff\xff\xff\xff\xff\xff"),
            &with(&minicbor::to_vec(SpelledHeader { time: i64::MIN, ..spelled("alpha", "beta") }).unwrap()),
        ] {
            let error = says(inner);
            assert!(matches!(error, OpenError::Header | OpenError::Damaged), "{inner:x?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_survives(payload in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(beta_opens(&message(&payload)).unwrap().payload, payload);
        }

        #[test]
        fn any_inside_is_no_panic(inner in proptest::collection::vec(any::<u8>(), 0..300)) {
            let Sites { alpha, beta, .. } = sites();
            let sealed = envelop(&alpha.0, &beta.1.public.sealing, &inner, &mut Seeded::new(15)).unwrap();
            prop_assert!(beta_opens(&sealed).is_err());
        }

        #[test]
        fn any_octets_are_no_panic(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(beta_opens(&tail).is_err());
            prop_assert!(beta_opens(&[&MAGIC[..], &[VERSION], &tail].concat()).is_err());
        }
    }
}
