//! Exit statuses, with the meanings of sysexits.h, and the failure that carries one.

use std::fmt::Display;

pub const OK: u8 = 0;
/// The answer is no: not equal, not in time.
pub const NO: u8 = 1;
/// Input that cannot be used: LDIF, a card, a message.
pub const DATA: u8 = 65;
/// Something that has to be there is not: no daemon, no such entry or site.
pub const UNAVAILABLE: u8 = 69;
/// A file could not be created, or was there already.
pub const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed.
pub const IO: u8 = 74;
/// Try again later: the store is in use, the disk is full.
pub const TRY_AGAIN: u8 = 75;
/// No permission, or a key that others may read.
pub const NO_PERMISSION: u8 = 77;
/// The configuration is at fault.
pub const CONFIG: u8 = 78;

/// Why a command ends unsuccessfully.
#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    /// What to tell the operator; nothing when everything was told already.
    pub message: String,
}

impl Failure {
    pub fn new(status: u8, message: impl Display) -> Failure {
        Failure { status, message: message.to_string() }
    }
}

/// Turns an error into a failure, saying what was being done.
pub trait OrFail<T> {
    fn or_fail(self, status: u8, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, status: u8, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(status, format!("{}: {error}", doing())))
    }
}
