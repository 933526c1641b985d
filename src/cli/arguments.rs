//! The command line's words, defined once: parsing, help, completions and the man page come from here.
//!
//! PROMISES
//!   Words and shapes stay as they are; scripts rely on them. What is new is added.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Directory replication over e-mail, beside any mail server.
#[derive(Debug, Parser)]
#[command(name = "bridgehead", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// Every subcommand that works on a site names its configuration.
#[derive(Args, Clone, Debug)]
pub struct ConfigFile {
    /// The site's configuration file
    #[arg(long = "config", value_name = "FILE", default_value = "/etc/bridgehead/bridgehead.toml")]
    pub config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set up a site: configuration, key and data directory
    Init(Init),
    /// Print this site's card, to be given to the other site
    Card(Card),
    /// This site's keys
    #[command(subcommand)]
    Key(Key),
    /// Connected sites
    #[command(subcommand)]
    Site(Site),
    /// What waits for an administrator: transfers that would delete too much, histories that went two ways
    #[command(subcommand)]
    Hold(Hold),
    /// Copies of what was received and not applied: look at them, take them again, let them go
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// A first load by disk: everything for one site in one file, sealed as its mail is
    #[command(subcommand)]
    Bundle(Bundle),
    /// Give up what is held of a site's naming contexts and take what the site sends
    ///
    /// For replicas that went another way than their master, as after a fork. What this site holds of those naming
    /// contexts stays until everything has come and was proved. Naming contexts that this site masters are never given
    /// up. Sites behind this one that stand further back then get everything, too. Look first: --dry-run.
    Refresh {
        #[arg(value_name = "SITE")]
        partner: String,
        /// Only this naming context
        #[arg(value_name = "CONTEXT")]
        context: Option<String>,
        /// Say what would be given up, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Check the configuration; every problem goes to standard error with file and line
    Check(ConfigFile),
    /// Run the daemon in the foreground
    Run(ConfigFile),
    /// Import LDIF (RFC 2849, content or changes) into this site's own naming context
    Import {
        /// The LDIF file; `-` is standard input
        #[arg(value_name = "FILE.ldif")]
        file: PathBuf,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Export the directory, or one naming context of it: those of this site first, each in canonical order
    Export {
        /// The naming context; without it, all of them
        #[arg(long, value_name = "DN")]
        context: Option<String>,
        #[arg(long, value_enum, default_value_t = Format::Ldif)]
        format: Format,
        /// Write each entry's entryUUID too, so that an import elsewhere keeps identities
        #[arg(long)]
        entry_uuids: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Look at entries and change them
    #[command(subcommand)]
    Entry(Entry),
    /// Show naming contexts and connected sites: position, digest, state, lag, last heard
    Status {
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Say where an entry came from: from which site, in which message, when, attribute by attribute
    ///
    /// Tells who masters the entry, at which USN it last changed here, which message brought that and when, and since
    /// when each attribute has been as it is. Of a name that is not there it says whether it was deleted or renamed,
    /// and what is near. Changes older than the log, or than the newest 10,000 USNs, are said to be so.
    Explain {
        #[arg(value_name = "DN")]
        dn: String,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Open a replication mail addressed to this site and say what it would change; nothing is applied
    ///
    /// Takes the mail as it came: from a mail server's queue, a mailbox or `quarantine show --raw`. Says who sealed it,
    /// whether a pinned key signed it, and what it would add, change and delete. If it cannot be opened, says why:
    /// attachment stripped, converted or cut off, not for this site, sender not known.
    Inspect {
        /// The mail; `-` is standard input
        #[arg(value_name = "MESSAGE")]
        message: PathBuf,
        /// List every entry that would change, not only the first 20 of each transfer
        #[arg(long)]
        all: bool,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Exchange now with one connected site, or with all
    Sync {
        #[arg(value_name = "SITE")]
        partner: Option<String>,
        /// Wait until the replicas are proved equal: 0 once they are, 1 if not in time
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Compare digests with a connected site, or with all; 0 means proved equal
    Verify {
        #[arg(value_name = "SITE")]
        partner: Option<String>,
        /// How long to wait for the answers
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Have the running daemon read its configuration again
    Reload(ConfigFile),
    /// Explain which way mail for an address would go
    Route {
        #[arg(value_name = "ADDRESS")]
        address: String,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Take one message on standard input, for mail servers that can only pipe
    Deliver {
        /// The replication mailbox that it was sent to; without it, this site's own
        #[arg(long, value_name = "ADDRESS")]
        mailbox: Option<String>,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Two sites on loopback show themselves: half a minute, nothing left behind
    Demo {
        /// Leave the two sites' configurations to play with
        #[arg(long)]
        keep: bool,
    },
    /// Write realistic sample people, groups and contacts as LDIF
    #[command(hide = true)]
    Sample(Sample),
    /// Write the man page or shell completions
    #[command(hide = true)]
    Generate {
        #[arg(value_enum)]
        what: Generated,
    },
}

#[derive(Args, Debug)]
pub struct Init {
    /// Where to write bridgehead.toml, site.key, sites.d/ and data/
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// This site's name, unique among the sites that it will be connected to
    #[arg(long, value_name = "NAME")]
    pub site: String,
    #[arg(long, value_name = "ORGANIZATION")]
    pub organization: String,
    /// The replication mailbox: where the other sites will send to
    #[arg(long, value_name = "ADDRESS")]
    pub mailbox: String,
    /// Where to listen for SMTP
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: String,
    /// Where all other mail goes, and our own is submitted
    #[arg(long, value_name = "HOST:PORT")]
    pub next_hop: String,
    /// This site's naming context [default: ou=NAME,o=ORGANIZATION]
    #[arg(long, value_name = "DN")]
    pub context: Option<String>,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Card {
    #[command(subcommand)]
    pub word: Option<CardWord>,
    #[command(flatten)]
    pub site: ConfigFile,
}

#[derive(Debug, Subcommand)]
pub enum CardWord {
    /// Have the other sites send to another mailbox; the present one is still taken
    Move {
        /// The new replication mailbox
        #[arg(long, value_name = "ADDRESS")]
        mailbox: String,
        #[command(flatten)]
        site: ConfigFile,
    },
}

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Renew the keys; the connected sites are told, by the former key's word
    Roll(ConfigFile),
}

#[derive(Debug, Subcommand)]
pub enum Site {
    /// List connected sites, and cards that wait for approval
    List(ConfigFile),
    /// Take a card that waits: of a site that was introduced, or a new one of a connected site
    Approve {
        #[arg(value_name = "SITE")]
        name: String,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Forget a card that waits
    Reject {
        #[arg(value_name = "SITE")]
        name: String,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Connect a site: verify its card and write sites.d/NAME.toml; or take a connected site's new card
    Add {
        /// The other site's card; `-` is standard input
        #[arg(value_name = "CARD")]
        card: PathBuf,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Send nothing to a site until it is resumed; what comes in is still taken
    Pause(Connected),
    /// Send to a site again
    Resume(Connected),
    /// Forget the connection to a site and keep its entries
    Detach(Connected),
    /// Delete the entries of a site that was detached
    Purge(Connected),
}

/// A connected site, and whether only to look.
#[derive(Args, Debug)]
pub struct Connected {
    #[arg(value_name = "SITE")]
    pub name: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub site: ConfigFile,
}

#[derive(Debug, Subcommand)]
pub enum Hold {
    /// List them
    List {
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Show one, and what each decision would do
    Show {
        #[arg(value_name = "HOLD")]
        hold: u64,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Let one take effect; of a fork: take what the other site holds
    Approve {
        #[arg(value_name = "HOLD")]
        hold: u64,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Keep what is here; the naming context stays as it is
    Reject {
        #[arg(value_name = "HOLD")]
        hold: u64,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
}

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List the copies, oldest first
    List {
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Show one: why it was not applied, and what it would change now
    Show {
        /// The copy's name, or as many of its first characters as are unique
        #[arg(value_name = "COPY")]
        copy: String,
        /// Write the copy itself, octet for octet, to standard output
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Take one again, as if it came now; it is let go if it is taken
    Release {
        #[arg(value_name = "COPY")]
        copy: String,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Let copies go
    Delete {
        #[arg(value_name = "COPY", required_unless_present = "all")]
        copies: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "copies")]
        all: bool,
        #[command(flatten)]
        site: ConfigFile,
    },
}

#[derive(Debug, Subcommand)]
pub enum Bundle {
    /// Write everything that goes to a site into a file
    ///
    /// Until the site has taken it, for 14 days at most, no full load goes to it by mail; changes made meanwhile follow
    /// as increments. `site resume SITE` sends everything by mail after all. Only that site can open the file.
    Create {
        #[arg(value_name = "SITE")]
        partner: String,
        /// The file, which must not be there yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Take a file that a connected site made for this one: all of it or, with a reason, nothing
    Apply {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        site: ConfigFile,
    },
}

#[derive(Debug, Subcommand)]
pub enum Entry {
    /// Show one entry
    Show {
        #[arg(value_name = "DN")]
        dn: String,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Show the entries that match a filter (RFC 4515), as LDIF
    Search {
        #[arg(value_name = "FILTER")]
        filter: String,
        /// Show only these attributes
        #[arg(value_name = "ATTRIBUTE")]
        attributes: Vec<String>,
        /// Only at and below this DN
        #[arg(long, value_name = "DN")]
        base: Option<String>,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Add one entry
    Add {
        #[arg(value_name = "DN")]
        dn: String,
        /// Attributes of the entry
        #[arg(value_name = "ATTRIBUTE=VALUE", required = true)]
        values: Vec<String>,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Change one entry: attr=value replaces, attr+=value adds, attr-=value removes, attr= removes all
    Modify {
        #[arg(value_name = "DN")]
        dn: String,
        #[arg(value_name = "CHANGE", required = true)]
        changes: Vec<String>,
        #[command(flatten)]
        site: ConfigFile,
    },
    /// Delete one entry
    Delete {
        #[arg(value_name = "DN")]
        dn: String,
        #[command(flatten)]
        site: ConfigFile,
    },
}

#[derive(Args, Debug)]
pub struct Sample {
    #[arg(long, default_value_t = 10_000)]
    pub people: u32,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Share of people with a photo, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub photos: f64,
    /// The naming context that the entries stand in
    #[arg(long, value_name = "DN", default_value = "dc=example,dc=com")]
    pub context: String,
    /// Write this many change records instead of the entries
    #[arg(long, value_name = "COUNT")]
    pub changes: Option<u32>,
    /// Additions, deletions, renames and members among the changes, too
    #[arg(long)]
    pub mixed: bool,
    /// Tells one file of changes from the next
    #[arg(long, default_value_t = 0)]
    pub base: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Ldif,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Generated {
    Man,
    Bash,
    Zsh,
    Fish,
}
