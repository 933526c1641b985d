//! kill -9 at any moment loses nothing that was acknowledged; faults of the machine are named.

mod faults; // locked store, unreadable key, full disk: a clear error and exit status
mod kill; // kill -9 in a loop, during imports and while a transfer is applied
mod uncommitted; // what was not committed is not sent
