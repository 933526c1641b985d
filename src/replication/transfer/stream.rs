//! The smallest pieces of a transfer's body: variable-length integers and length-prefixed streams.
//!
//! FORMAT
//!   An integer is LEB128: seven bits an octet, least significant first, the top bit set on all but the
//!   last octet; the shortest form, at most ten octets. A signed integer is folded first: 0, -1, 1, -2, ...
//!   become 0, 1, 2, 3, ... A stream is its length in octets, then the octets.
//!
//! PROMISES
//!   A reader never reads past its octets and allocates nothing.

use super::Malformed;

pub fn put(octets: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        octets.push(number as u8 | 0x80);
        number >>= 7;
    }
    octets.push(number as u8);
}

/// Writes `number` as its distance from `expected`, in the ring of 64-bit integers.
pub fn put_distance(octets: &mut Vec<u8>, number: u64, expected: u64) {
    let distance = number.wrapping_sub(expected) as i64;
    put(octets, ((distance << 1) ^ (distance >> 63)) as u64);
}

pub fn put_stream(octets: &mut Vec<u8>, stream: &[u8]) {
    put(octets, stream.len() as u64);
    octets.extend_from_slice(stream);
}

/// What is left to read of some octets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader<'o> {
    rest: &'o [u8],
}

impl<'o> Reader<'o> {
    pub fn new(octets: &'o [u8]) -> Reader<'o> {
        Reader { rest: octets }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many octets are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn octet(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed("a stream is too short"))?;
        self.rest = rest;
        Ok(first)
    }

    pub fn octets(&mut self, length: usize) -> Result<&'o [u8], Malformed> {
        let (octets, rest) = self.rest.split_at_checked(length).ok_or(Malformed("a stream is too short"))?;
        self.rest = rest;
        Ok(octets)
    }

    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let octet = self.octet()?;
            let bits = u64::from(octet & 0x7f);
            if bits << shift >> shift != bits || (octet == 0 && shift > 0) {
                break;
            }
            number |= bits << shift;
            if octet < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed("an integer is not in its shortest form"))
    }

    /// A number of things of which there may be at most `max`.
    pub fn count(&mut self, max: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number()?).ok().filter(|&count| count <= max);
        count.ok_or(Malformed("a count is beyond its bound"))
    }

    pub fn distance(&mut self, expected: u64) -> Result<u64, Malformed> {
        let folded = self.number()?;
        let distance = (folded >> 1) as i64 ^ -((folded & 1) as i64);
        Ok(expected.wrapping_add(distance as u64))
    }

    pub fn stream(&mut self) -> Result<Reader<'o>, Malformed> {
        let length = self.count(self.rest.len())?;
        self.octets(length).map(Reader::new)
    }

    /// The end, or an error: what nobody reads is not what the sender meant.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed("octets are left over")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_read(number: u64, expected: u64, octets: Vec<u8>) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            put_distance(&mut bytes, number, expected);
            put_stream(&mut bytes, &octets);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert_eq!(reader.distance(expected), Ok(number));
            prop_assert_eq!(reader.stream().unwrap().octets(octets.len()), Ok(&octets[..]));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn whatever_is_read_is_in_its_only_form(octets in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&octets);
            if let Ok(number) = reader.number() {
                let mut again = Vec::new();
                put(&mut again, number);
                prop_assert_eq!(&octets[..again.len()], &again[..]);
            }
        }
    }

    #[test]
    fn small_distances_are_one_octet() {
        for number in [36, 99, 100, 101, 163] {
            let mut bytes = Vec::new();
            put_distance(&mut bytes, number, 100);
            assert_eq!(bytes.len(), 1, "{number}");
        }
    }

    #[test]
    fn a_stream_cannot_claim_more_than_there_is() {
        assert!(Reader::new(&[3, 1, 2]).stream().is_err());
        assert!(Reader::new(&[0xff; 12]).number().is_err());
        assert!(Reader::new(&[0x80, 0]).number().is_err());
        assert!(Reader::new(&[9]).count(8).is_err());
    }
}
