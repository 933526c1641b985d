//! `bridgehead generate`: the man page and shell completions, from the one definition of the command line.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use super::arguments::{Arguments, Generated};
use super::failure::{Failure, IO, OK, OrFail};

pub fn run(what: Generated) -> Result<u8, Failure> {
    let mut command = Arguments::command();
    let shell = match what {
        Generated::Bash => Shell::Bash,
        Generated::Zsh => Shell::Zsh,
        Generated::Fish => Shell::Fish,
        Generated::Man => {
            man_pages(&command, &mut io::stdout().lock()).or_fail(IO, || "writing the man page".into())?;
            return Ok(OK);
        }
    };
    clap_complete::generate(shell, &mut command, "bridgehead", &mut io::stdout().lock());
    Ok(OK)
}

/// One page: the command, then each subcommand's synopsis and options as sections of it.
fn man_pages(command: &clap::Command, out: &mut dyn io::Write) -> io::Result<()> {
    clap_mangen::Man::new(command.clone()).title("bridgehead").section("8").render(out)?;
    let mut command = command.clone();
    command.build();
    for subcommand in visible(&command) {
        section(subcommand, out)?;
        for below in visible(subcommand) {
            section(below, out)?;
        }
    }
    out.write_all(TAIL.as_bytes())
}

/// What no definition of the command line knows.
const TAIL: &str = r#".SH "EXIT STATUS"
.TP
0
Done; for \fBsync\fR and \fBverify\fR: proved equal.
.TP
1
The answer is no: not proved equal, not in time.
.TP
2
The command line was not understood.
.TP
65
The input cannot be used: LDIF, a card, a message, a change of an entry that is not there. Nothing was changed.
.TP
69
Something is not there: the daemon, an entry, a site, an address to listen on.
.TP
73
A file could not be created, or was there already.
.TP
74, 75
Reading or writing failed; try again later: the store is in use, the disk is full.
.TP
77
No permission, or a key that others may read.
.TP
78
The configuration has problems; each was named with file and line.
.SH FILES
.TP
/etc/bridgehead/bridgehead.toml
The configuration, bridgehead.toml(5).
.SH "SEE ALSO"
bridgehead.toml(5), bridgehead\-replication(7)
"#;

fn visible(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
}

fn section(command: &clap::Command, out: &mut dyn io::Write) -> io::Result<()> {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    writeln!(out, ".SH {}", name.to_uppercase())?;
    let page = clap_mangen::Man::new(command.clone());
    page.render_description_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_options_section(out)
}
