//! What anybody can mail to a replication mailbox does no harm: it is refused with a 5xx that says why, the store stays as it
//! was and the daemon goes on. Each test ends with a genuine message, which must still be taken.

mod forged; // unsigned, unknown, wrong site, other site's, changed, cut off, repeated
mod monstrous; // bombs, nesting by the ten thousand, sizes, bytes without sense
