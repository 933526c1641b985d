//! The integration tests, one binary. Each line says what its module shows.

#[global_allocator] // as in the program
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod cli; // the command line as scripts use it, and the manual beside it
mod comparison; // what verify costs between two replicas of 100,000 entries
mod crash; // kill -9 at any moment loses nothing that was acknowledged; faults of the machine are named
mod dialogue; // golden SMTP sessions: client, our replies, what the next hop saw
mod directory; // the store on disk: killed in the middle of an import, the disk full
mod exchangers; // MX look-ups by real DNS: preference, equals, null MX, failures, loops
mod field; // real processes in the worst mail; the failure catalogue; the README as a new user follows it
mod hangup; // SIGHUP to the running daemon swaps certificate and routes under open sessions
mod hostile; // what anybody can mail to a replication mailbox does no harm
mod large; // increments of a naming context of 21,000 entries
mod lineage; // a dishonest hub: old states as new ones, spliced histories, mixed lives
mod limits; // every limit of the relay, met over SMTP, raises its metric
mod metrics; // what the daemon measures, over HTTP and in `status --json`; memory stays flat
mod messages; // replication mail as real mail systems leave it
mod peers; // Exim, OpenSMTPD and Sendmail in Postfix's place, from the recipes that users read
mod postfix; // sites join their directories through real Postfix instances, in each of the documented set-ups
mod relay; // TLS, Unix sockets, failover, draining, submission, many sessions, any octets
mod retention; // what a site remembers of its past is bounded
mod signatures; // DKIM signatures verify after DATA and BDAT, with eight-bit octets and long lines
mod simulation; // the real engine and codecs in seeded worlds of bad mail
mod support; // what the tests share: ports, directories, child processes, mail servers, sites
mod transfers; // test vectors of transfers, also applied by a program that is not ours
mod trust; // keys renewed, mailboxes moved, sites introduced, and who is refused
mod vectors; // test vectors of the message format, also opened by a program that is not ours
