//! Random numbers for keys and sealing: the operating system's, or a seeded stream for a simulator.
//!
//! PROMISES
//!   Equal seeds give equal streams on every machine and in every version; test vectors rely on it.

use std::convert::Infallible;

pub use hpke::rand_core::{CryptoRng, Rng};
use hpke::rand_core::{TryCryptoRng, TryRng, UnwrapErr};
use sha2::{Digest, Sha256};

/// The operating system's generator.
///
/// It panics when the kernel has no randomness to give, which Linux rules out once it has booted.
pub fn system() -> impl CryptoRng {
    UnwrapErr(getrandom::SysRng)
}

/// A reproducible stream: SHA-256 over seed and counter. For simulators and tests, never for real keys.
#[derive(Clone, Debug)]
pub struct Seeded {
    seed: [u8; 32],
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl Seeded {
    pub fn new(seed: u64) -> Self {
        let seed = Sha256::new().chain_update(b"bridgehead seed 1\0").chain_update(seed.to_be_bytes());
        Seeded { seed: seed.finalize().into(), counter: 0, block: [0; 32], used: 32 }
    }

    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == self.block.len() {
                let block = Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes());
                self.block = block.finalize().into();
                self.counter += 1;
                self.used = 0;
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams_however_they_are_drawn() {
        let mut whole = [0; 100];
        Seeded::new(7).fill_bytes(&mut whole);
        let mut pieces = Seeded::new(7);
        let mut drawn = Vec::new();
        drawn.extend(pieces.next_u32().to_be_bytes());
        drawn.extend(pieces.next_u64().to_be_bytes());
        let mut rest = [0; 88];
        pieces.fill_bytes(&mut rest);
        drawn.extend(rest);
        assert_eq!(drawn, whole);
        let mut other = [0; 100];
        Seeded::new(8).fill_bytes(&mut other);
        assert_ne!(other, whole);
    }

    #[test]
    fn the_system_generator_does_not_repeat() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        system().fill_bytes(&mut a);
        system().fill_bytes(&mut b);
        assert_ne!(a, b);
    }
}
