//! Every bound of the program in one table: unit and bound stand last in the name.
//!
//! Bounds that depend on one another are asserted at the end of the file.

/// Octets of one command line, CRLF included (RFC 5321 section 4.5.3.1.4 asks for 512; ESMTP parameters add).
pub const COMMAND_BYTES_MAX: usize = 4096;

// --- relay: defaults of config::relay::RelayLimits, and bounds that are not configured ---

/// Octets of a reverse path or forward path; RFC 5321 section 4.5.3.1.3 asks for 256.
pub const PATH_BYTES_MAX: usize = 1024;

/// Octets of one reply of a next hop, all lines.
pub const REPLY_BYTES_MAX: usize = 64 << 10;

/// Octets read at once while a message streams through; one such buffer a session in its data phase.
pub const DATA_BUFFER_BYTES: usize = 64 << 10;

/// Octets of the command buffer that every session keeps, idle ones too.
pub const COMMAND_BUFFER_BYTES: usize = 2 << 10;

/// Connections of clients, in all.
pub const CONNECTIONS_MAX: usize = 4096;

/// Connections of one client network.
pub const CONNECTIONS_PER_NETWORK_MAX: usize = 1024;

/// Forward paths of one transaction; RFC 5321 section 4.5.3.1.8 asks for 100 at least.
pub const RECIPIENTS_MAX: usize = 1000;

/// Octets of one relayed message.
pub const MESSAGE_BYTES_MAX: u64 = 128 << 20;

/// Errors of a client before it is disconnected.
pub const ERRORS_MAX: u32 = 20;

/// `Received:` headers before a message counts as looping (RFC 5321 section 6.3: 100 at least).
pub const RECEIVED_MAX: usize = 100;

/// Seconds for the next command (RFC 5321 section 4.5.3.2.7: 5 minutes).
pub const COMMAND_TIMEOUT_S: u64 = 300;

/// Seconds without an octet of the message (RFC 5321 section 4.5.3.2.5: 3 minutes).
pub const DATA_TIMEOUT_S: u64 = 180;

/// Octets a second below which a sender is cut off.
pub const DATA_RATE_MIN_BYTES_S: u64 = 64;

/// Seconds before that is measured.
pub const SLOW_GRACE_S: u64 = 120;

/// Seconds of a whole session.
pub const SESSION_TIMEOUT_S: u64 = 24 * 3600;

/// Seconds for a connection to a next hop and its greeting; the client must see 451 within its own patience.
pub const CONNECT_TIMEOUT_S: u64 = 15;

/// Seconds for a next hop's reply to a command (RFC 5321 section 4.5.3.2: 5 minutes).
pub const REPLY_TIMEOUT_S: u64 = 240;

/// Seconds for a next hop's reply to the final dot (RFC 5321 section 4.5.3.2.6: 10 minutes).
pub const FINAL_TIMEOUT_S: u64 = 600;

/// Connections to one next hop.
pub const NEXT_HOP_CONNECTIONS_MAX: usize = 1024;

/// Seconds that an idle connection to a next hop is kept.
pub const POOL_IDLE_S: u64 = 60;

/// Seconds that a dead next hop is left alone, first and at most.
pub const BACK_OFF_MIN_S: u64 = 1;
pub const BACK_OFF_MAX_S: u64 = 60;

/// Seconds that sessions may go on after a request to stop.
pub const DRAIN_S: u64 = 30;

/// Octets of a replication message as received by SMTP.
pub const REPLICATION_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Octets of one value of an attribute.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Octets of one RDN.
pub const RDN_BYTES_MAX: usize = 1 << 10;

/// RDNs of a distinguished name.
pub const DN_DEPTH_MAX: usize = 64;

/// Octets of an entry's distinguished name: any that consists of RDNs within their bounds.
pub const ENTRY_DN_BYTES_MAX: usize = DN_DEPTH_MAX * (RDN_BYTES_MAX + 1);

/// Octets of a naming context's distinguished name.
pub const DN_BYTES_MAX: usize = 8 << 10;

/// Octets of one logical line of LDIF: the largest value in base64, with its name.
pub const LDIF_LINE_BYTES_MAX: usize = VALUE_BYTES_MAX / 3 * 4 + (1 << 10);
const _: () = assert!(ENTRY_DN_BYTES_MAX < LDIF_LINE_BYTES_MAX);

/// Octets of one record of LDIF, unfolded.
pub const LDIF_RECORD_BYTES_MAX: usize = ENTRY_BYTES_MAX / 3 * 4;

/// Octets of LDIF that wait in memory for their parents to come in the same file.
pub const DEFERRED_BYTES_MAX: usize = 128 << 20;

/// An attribute with more values than this is changed value by value, and its values keep their places.
pub const WHOLE_ATTRIBUTE_VALUES_MAX: usize = 32;

/// Octets of an attribute's name with its options.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 256;

/// Attributes of one entry, each with any number of values.
pub const ATTRIBUTES_MAX: usize = 1024;

/// Octets of one entry in canonical form.
pub const ENTRY_BYTES_MAX: usize = 64 << 20;
const _: () = assert!(VALUE_BYTES_MAX < ENTRY_BYTES_MAX);

/// Naming contexts in one store.
pub const CONTEXTS_MAX: usize = 100_000;

/// Share of a naming context's entries, in percent, that one transfer may delete without an operator's word.
pub const HOLD_DELETIONS_PERCENT: u8 = 30;

/// Commits of a naming context of which it is remembered what they touched.
pub const LOG_COMMITS: u64 = 100_000;

/// Octets of kept copies of messages that took no effect, unless configured otherwise: a message of default parts is kept
/// whole, and so is one of several times that.
pub const QUARANTINE_BYTES: u64 = 64 << 20;
pub const QUARANTINE_BYTES_MIN: u64 = 1 << 20;

/// Octets of unfinished transfers that are kept of one site, beside the largest of them.
pub const INBOX_BYTES: u64 = 64 << 20;

/// Octets of one part on a link, unless configured otherwise: well below any mail server's usual limit.
pub const PART_BYTES_DEFAULT: u64 = 512 << 10;

/// How long what is signed by a site's former key counts, unless configured otherwise: as long as mail may be late.
pub const FORMER_KEYS: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// Octets of one part on a link, smallest that may be configured.
pub const PART_BYTES_MIN: usize = 16 << 10;

const _: () = assert!(PART_BYTES_MIN < REPLICATION_MESSAGE_BYTES_MAX);
const _: () = assert!(PART_BYTES_DEFAULT * 2 < QUARANTINE_BYTES / 8);
const _: () = assert!(PART_BYTES_DEFAULT * 16 < INBOX_BYTES);
const _: () = assert!(PATH_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(COMMAND_BUFFER_BYTES <= COMMAND_BYTES_MAX && COMMAND_BYTES_MAX <= DATA_BUFFER_BYTES);
const _: () = assert!(CONNECTIONS_PER_NETWORK_MAX <= CONNECTIONS_MAX);
const _: () = assert!((REPLICATION_MESSAGE_BYTES_MAX as u64) <= MESSAGE_BYTES_MAX);
const _: () = assert!(BACK_OFF_MIN_S <= BACK_OFF_MAX_S && REPLY_TIMEOUT_S <= FINAL_TIMEOUT_S);
