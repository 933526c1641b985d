//! `bridgehead init`: a new site's configuration, key and directories.
//!
//! PROMISES
//!   Nothing that exists is overwritten. The configuration is checked before anything is written.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::arguments::Init;
use super::failure::{CANNOT_CREATE, CONFIG, Failure, OK, OrFail};
use crate::config;
use crate::message::keys::SiteKey;
use crate::message::{keyfile, random};

/// The annotated default, in which `init` fills in what it was told.
const TEMPLATE: &str = include_str!("../../config/bridgehead.toml");

pub fn run(arguments: &Init) -> Result<u8, Failure> {
    create(arguments)?;
    let file = arguments.dir.join("bridgehead.toml");
    println!("Site {} is set up in {}.", arguments.site, arguments.dir.display());
    println!("Next: bridgehead card --config {}   (give it to the other site)", file.display());
    println!(
        "      bridgehead site add CARD --config {}   (with the card that it gives you)",
        file.display()
    );
    println!("      bridgehead run --config {}", file.display());
    Ok(OK)
}

/// Writes everything and says nothing.
pub fn create(arguments: &Init) -> Result<(), Failure> {
    let dir = &arguments.dir;
    let file = dir.join("bridgehead.toml");
    let key_file = dir.join("site.key");
    for existing in [&file, &key_file] {
        if existing.exists() {
            return Err(Failure::new(
                CANNOT_CREATE,
                format!("{} exists; not overwritten", existing.display()),
            ));
        }
    }
    let text = fill_in(arguments);
    make_dir(dir, 0o755)?;
    let dir = &fs::canonicalize(dir).or_fail(CANNOT_CREATE, || dir.display().to_string())?;
    config::parse(&dir.join("bridgehead.toml"), &text).map_err(|problems| {
        let each: Vec<String> = problems.0.iter().map(|problem| problem.message.clone()).collect();
        Failure::new(CONFIG, each.join("\nbridgehead: "))
    })?;
    make_dir(&dir.join("sites.d"), 0o755)?;
    make_dir(&dir.join("data"), 0o700)?;
    let key = SiteKey::generate(&mut random::system());
    keyfile::create(&key_file, &key).or_fail(CANNOT_CREATE, || "the key".to_owned())?;
    write_new(&file, &text)
}

fn fill_in(arguments: &Init) -> String {
    let context = match &arguments.context {
        Some(context) => context.clone(),
        None => format!("ou={},o={}", escape_rdn(&arguments.site), escape_rdn(&arguments.organization)),
    };
    let values = [
        ("\"alpha\"", &arguments.site),
        ("\"Example\"", &arguments.organization),
        ("\"replication@repl.alpha.example\"", &arguments.mailbox),
        ("\"ou=alpha,o=Example\"", &context),
        ("\"127.0.0.1:10025\"", &arguments.listen),
        ("\"127.0.0.1:10026\"", &arguments.next_hop),
    ];
    // All samples are found in the template before any is replaced: a value may look like another sample.
    let mut found: Vec<_> = values
        .iter()
        .map(|(sample, value)| {
            let at = TEMPLATE.find(sample).expect("the template has every sample");
            (at, at + sample.len(), toml::Value::String((*value).clone()).to_string())
        })
        .collect();
    found.sort();
    let mut text = String::new();
    let mut copied = 0;
    for (from, to, value) in found {
        text.push_str(&TEMPLATE[copied..from]);
        text.push_str(&value);
        copied = to;
    }
    text + &TEMPLATE[copied..]
}

/// RFC 4514 section 2.4.
fn escape_rdn(value: &str) -> String {
    let mut escaped = String::new();
    for (index, character) in value.char_indices() {
        let edge = index == 0 || index + character.len_utf8() == value.len();
        if ",+\"\\<>;=".contains(character) || (edge && character == ' ') || (index == 0 && character == '#')
        {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .or_fail(CANNOT_CREATE, || path.display().to_string())
}

/// Creates a file that is not there yet, and has it on disk before returning.
pub fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let written =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.or_fail(CANNOT_CREATE, || path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_needs_escaping_makes_a_sound_context() {
        assert_eq!(escape_rdn("Smith, Sons & Co"), "Smith\\, Sons & Co");
        assert_eq!(escape_rdn("#1 "), "\\#1\\ ");
    }
}
