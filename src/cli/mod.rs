//! The command line: one file for a subcommand or a few that belong together.

pub mod arguments;
pub mod failure;

mod bundle;
mod demo;
mod directory;
mod exchange;
mod explain;
mod generate;
mod init;
mod inspect;
mod mail;
mod operator;
mod quarantine;
mod run;
mod sample;
mod site;
mod trust;

pub use arguments::Arguments;
pub use failure::Failure;

use arguments::{Bundle, Card, CardWord, Command, Entry, Format, Hold, Key, Quarantine, Site};

use crate::directory::export::Options;

/// Carries out a command. The exit status, or why there is none to be proud of.
pub fn run(arguments: Arguments) -> Result<u8, Failure> {
    match arguments.command {
        Command::Init(init) => init::run(&init),
        Command::Card(Card { word: None, site }) => site::card(&site.config),
        Command::Card(Card { word: Some(CardWord::Move { mailbox, site }), .. }) => {
            trust::move_mailbox(&mailbox, &site.config)
        }
        Command::Key(Key::Roll(site)) => trust::roll_key(&site.config),
        Command::Site(Site::List(site)) => trust::list(&site.config),
        Command::Site(Site::Approve { name, site }) => trust::decide(&name, true, &site.config),
        Command::Site(Site::Reject { name, site }) => trust::decide(&name, false, &site.config),
        Command::Site(Site::Add { card, site }) => site::add(&card, &site.config),
        Command::Site(Site::Pause(site)) => operator::pause(&site, true),
        Command::Site(Site::Resume(site)) => operator::pause(&site, false),
        Command::Site(Site::Detach(site)) => operator::detach(&site),
        Command::Site(Site::Purge(site)) => operator::purge(&site),
        Command::Hold(Hold::List { json, site }) => operator::list_holds(json, &site.config),
        Command::Hold(Hold::Show { hold, json, site }) => operator::show_hold(hold, json, &site.config),
        Command::Hold(Hold::Approve { hold, dry_run, site }) => {
            operator::decide(hold, true, dry_run, &site.config)
        }
        Command::Hold(Hold::Reject { hold, dry_run, site }) => {
            operator::decide(hold, false, dry_run, &site.config)
        }
        Command::Quarantine(Quarantine::List { json, site }) => quarantine::list(json, &site.config),
        Command::Quarantine(Quarantine::Show { copy, raw, json, site }) => {
            quarantine::show(&copy, raw, json, &site.config)
        }
        Command::Quarantine(Quarantine::Release { copy, site }) => quarantine::release(&copy, &site.config),
        Command::Quarantine(Quarantine::Delete { copies, all, site }) => {
            quarantine::delete(&copies, all, &site.config)
        }
        Command::Bundle(Bundle::Create { partner, file, site }) => {
            bundle::create(&partner, &file, &site.config)
        }
        Command::Bundle(Bundle::Apply { file, site }) => bundle::apply(&file, &site.config),
        Command::Refresh { partner, context, dry_run, site } => {
            operator::refresh(&partner, context, dry_run, &site.config)
        }
        Command::Inspect { message, all, json, site } => inspect::run(&message, all, json, &site.config),
        Command::Check(site) => site::check(&site.config),
        Command::Run(site) => run::run(&site.config),
        Command::Import { file, site } => directory::import(&file, &site.config),
        Command::Export { context, format: Format::Ldif, entry_uuids, site } => {
            directory::export(context.as_deref(), Options { entry_uuids }, &site.config)
        }
        Command::Entry(Entry::Show { dn, site }) => directory::show(&dn, &site.config),
        Command::Entry(Entry::Search { filter, attributes, base, site }) => {
            directory::search(&filter, &attributes, base.as_deref(), &site.config)
        }
        Command::Entry(Entry::Add { dn, values, site }) => directory::add(&dn, &values, &site.config),
        Command::Entry(Entry::Modify { dn, changes, site }) => directory::modify(&dn, &changes, &site.config),
        Command::Entry(Entry::Delete { dn, site }) => directory::delete(&dn, &site.config),
        Command::Status { json, site } => exchange::status(json, &site.config),
        Command::Explain { dn, json, site } => explain::run(&dn, json, &site.config),
        Command::Sync { partner, wait, site } => exchange::sync(partner.as_deref(), wait, &site.config),
        Command::Verify { partner, wait, site } => exchange::verify(partner.as_deref(), wait, &site.config),
        Command::Reload(site) => run::reload(&site.config),
        Command::Route { address, site } => mail::route(&address, &site.config),
        Command::Deliver { mailbox, site } => mail::deliver(mailbox, &site.config),
        Command::Demo { keep } => demo::run(keep),
        Command::Sample(arguments) => sample::run(&arguments),
        Command::Generate { what } => generate::run(what),
    }
}
