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
    Ok(())
}

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
