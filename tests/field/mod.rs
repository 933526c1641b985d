//! Real processes in the worst mail: daemons with Postfix and a mangling hop between them, killed and out of disk.

mod bombs; // what expands, claims or names too much, sealed by a partner's real key: refused within measured bounds
mod catalogue; // contrib/notes/failures.md names tests that exist
mod failures; // single failures of the catalogue, between real daemons
mod insider; // that partner
mod octets; // what one change costs in mail
mod readme; // the first minute and the joining of two sites, by the commands that README holds
mod scanners; // F4, F5: what gateways do to mail is survived or named
mod storm; // two and three daemons, kill -9 in a loop under load: equal in the end, nothing lost, nothing left lying about
mod workload; // changes that a site's people make, and what must be there afterwards
mod world; // sites, their Postfixes, and the mangler between
