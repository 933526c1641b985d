//! The integration tests, one binary. Each line says what its module shows.

mod support; // what the tests share: ports, directories, child processes, mail servers, sites
mod messages; // replication mail as real mail systems leave it
mod simulation; // the real engine and codecs in seeded worlds of bad mail
mod dialogue; // golden SMTP sessions: client, our replies, what the next hop saw
mod vectors; // test vectors of the message format, also opened by a program that is not ours
