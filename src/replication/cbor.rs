//! CBOR (RFC 8949) forms of the directory's words, shared by the wire and by the engine's records.
//!
//! A position is `[invocation: 16 bytes, usn]`, a digest is 32 bytes; anything of another length is an error.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use uuid::Uuid;

use crate::directory::{Digest, Position};

impl<C> Encode<C> for Position {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?.bytes(self.invocation.as_bytes())?.u64(self.usn)?;
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Position {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        if d.array()? != Some(2) {
            return Err(DecodeError::message("a position is an array of two"));
        }
        let invocation = Uuid::from_bytes(exactly(d)?);
        Ok(Position { invocation, usn: d.u64()? })
    }
}

impl<C> Encode<C> for Digest {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&self.0)?;
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Digest {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        exactly(d).map(Digest)
    }
}

/// An array of at most `MAX` items, refused by its head: some octets of CBOR become many times as many in memory.
pub fn list<'b, C, T: Decode<'b, C>, const MAX: usize>(
    d: &mut Decoder<'b>,
    context: &mut C,
) -> Result<Vec<T>, DecodeError> {
    let bound = DecodeError::message("a list is longer than its bound, or of no length");
    let length = d.array()?.filter(|length| *length <= MAX as u64).ok_or(bound)?;
    (0..length).map(|_| d.decode_with(context)).collect()
}

/// Items of a fixed length in one byte string: for `#[cbor(with = "packed")]`.
pub mod packed {
    use super::*;

    /// What has `N` octets, and any `N` octets are one.
    pub trait Packed<const N: usize> {
        fn pack(&self) -> [u8; N];
        fn unpack(octets: [u8; N]) -> Self;
    }

    impl Packed<8> for u64 {
        fn pack(&self) -> [u8; 8] {
            self.to_be_bytes()
        }

        fn unpack(octets: [u8; 8]) -> u64 {
            u64::from_be_bytes(octets)
        }
    }

    pub fn encode<C, W: Write, T: Packed<N>, const N: usize>(
        items: &[T],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let mut octets = Vec::with_capacity(items.len() * N);
        items.iter().for_each(|item| octets.extend_from_slice(&item.pack()));
        e.bytes(&octets)?;
        Ok(())
    }

    pub fn decode<C, T: Packed<N>, const N: usize>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Vec<T>, DecodeError> {
        let (items, rest) = d.bytes()?.as_chunks::<N>();
        if !rest.is_empty() {
            return Err(DecodeError::message("a byte string of the wrong length"));
        }
        Ok(items.iter().map(|octets| T::unpack(*octets)).collect())
    }
}

/// A byte string of exactly `N` bytes.
pub fn exactly<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], DecodeError> {
    d.bytes()?.try_into().map_err(|_| DecodeError::message("a byte string of the wrong length"))
}
