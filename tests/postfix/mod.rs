//! Two sites join their directories through real Postfix, set up from the recipes that users read.
//!
//! Each recipe of contrib/postfix has a module. Ordinary mail arrives unchanged but for trace headers in all of them, with
//! the parameters of its envelope, and its sender sees the next hop's replies.

mod filters; // before-queue and after-queue: bridgehead in the path of all incoming mail
mod replication; // replication-mail: 10,000 entries, then changes; ordinary mail never comes near
mod tls; // Postfix as a next hop that offers TLS
mod smarthost; // smarthost: bridgehead in the path of all outgoing mail
