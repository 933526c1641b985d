//! Every bound of the program in one table: unit and bound stand last in the name.
//!
//! Bounds that depend on one another are asserted at the end of the file.

/// Octets of one command line, CRLF included (RFC 5321 section 4.5.3.1.4 asks for 512; ESMTP parameters add).
pub const COMMAND_BYTES_MAX: usize = 4096;

/// Octets of a replication message as received by SMTP.
pub const REPLICATION_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Octets of one value of an attribute.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Octets of one part on a link, smallest that may be configured.
pub const PART_BYTES_MIN: usize = 16 << 10;

const _: () = assert!(PART_BYTES_MIN < REPLICATION_MESSAGE_BYTES_MAX);
