//! Sealing: a payload is compressed, signed by this site and encrypted to the receiving one.
//!
//! PROMISES
//!   Equal input, equal octets: randomness is an argument, and the header's time is. The signature covers everything,
//!   the receiver's key included, so that no part can be used elsewhere.
//!
//! The opening half is [`super::open`]; the layout is in [`super::envelope`].

use hpke::{OpModeS, Serializable as _, single_shot_seal_with_rng};
use thiserror::Error;

use super::card::Card;
use super::envelope::{
    Aead, COMPRESSION_NONE, COMPRESSION_ZSTD, HEADER_BYTES_MAX, INFO, KIND, Kdf, Kem, MAGIC, OUTER_BYTES,
    PAYLOAD_BYTES_MAX, SIGNATURE_BYTES, SpelledHeader, TAG_BYTES, VERSION, signed_text,
};
pub use super::envelope::{Header, SEALED_OVERHEAD_BYTES_MAX};
use super::keys::{SealingKey, SiteKey};
pub use super::open::{OpenError, Opened, open};
use super::random::CryptoRng;

/// Our own fault: nothing that comes from outside leads here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    #[error("a payload of {0} octets is larger than a message may be")]
    PayloadTooLarge(usize),
    #[error("the message is addressed to site `{header}` and would be sealed to `{card}`")]
    OtherSite { header: String, card: String },
    #[error("the header cannot be encoded")]
    Header,
    #[error("the receiver's sealing key is no key")]
    Key,
}

/// Seals `payload` to the site whose card `to` is.
pub fn seal(
    key: &SiteKey,
    to: &Card,
    header: &Header,
    payload: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(SealError::PayloadTooLarge(payload.len()));
    }
    if header.to != to.name() {
        return Err(SealError::OtherSite { header: header.to.clone(), card: to.name().to_owned() });
    }
    let compressed = compress(payload);
    let compression = if compressed.is_some() { COMPRESSION_ZSTD } else { COMPRESSION_NONE };
    let spelled = SpelledHeader {
        from: header.from.clone(),
        to: header.to.clone(),
        seq: header.seq,
        time: header.time.as_millisecond(),
        compression,
        payload_bytes: payload.len() as u64,
    };
    let inner = join(&spelled, compressed.as_deref().unwrap_or(payload))?;
    envelop(key, &to.public.sealing, &inner, rng)
}

/// Signs and encrypts what stands inside an envelope.
pub(super) fn envelop(
    key: &SiteKey,
    receiver: &SealingKey,
    inner: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let length = (inner.len() + SIGNATURE_BYTES + TAG_BYTES) as u32;
    let prefix = [&MAGIC[..], &[VERSION], &receiver.id(), &length.to_be_bytes()].concat();
    let signature = key.sign(KIND, &signed_text(&prefix, receiver.as_bytes(), inner)).to_bytes();
    let plain = [inner, &signature].concat();
    let (encapsulated, ciphertext) = single_shot_seal_with_rng::<Aead, Kdf, Kem>(
        &OpModeS::Base,
        &receiver.for_hpke(),
        INFO,
        &plain,
        &prefix,
        rng,
    )
    .map_err(|_| SealError::Key)?;
    let mut sealed = Vec::with_capacity(OUTER_BYTES + ciphertext.len());
    sealed.extend_from_slice(&prefix);
    sealed.extend_from_slice(&encapsulated.to_bytes());
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

/// The payload as one zstd frame, if that is shorter.
fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    // What a transfer put through zstd already grows by a few octets here and is taken as it is.
    zstd::bulk::compress(payload, 3).ok().filter(|compressed| compressed.len() < payload.len())
}

pub(super) fn join(header: &SpelledHeader, body: &[u8]) -> Result<Vec<u8>, SealError> {
    let header = minicbor::to_vec(header).map_err(|_| SealError::Header)?;
    let length = u16::try_from(header.len()).map_err(|_| SealError::Header)?;
    if header.len() > HEADER_BYTES_MAX {
        return Err(SealError::Header);
    }
    Ok([&length.to_be_bytes(), &header[..], body].concat())
}
