//! Sabotage: ways to break the engine from outside, to show that the observers would notice.

/// What is broken on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
}

impl Sabotage {
    /// Alters a message on its way in, as a carrier with the keys could.
    pub fn payload(&self, _: &mut Vec<u8>) {}
}
