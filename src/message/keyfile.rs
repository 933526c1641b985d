//! The file that holds a site's keys: `site.key`.
//!
//! PROMISES
//!   Nobody but its owner may read it: it is created so, and refused otherwise. Creating never overwrites; replacing is
//!   atomic. A file that was written is on the disk.
//!
//! FORMAT
//!   Lines of text; `#` begins a comment. First `version 1`, then `current ed25519 SEED x25519 SECRET`, then for each
//!   former pair, newest first, `former ed25519 SEED x25519 SECRET`. Keys are 32 octets in base64.
//!
//! FAILURE
//!   [`KeyFileError`] names the file and what to do.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::SigningKey;
use thiserror::Error;
use zeroize::Zeroizing;

use super::keys::{KeyPair, SiteKey};

/// Octets of a key file; a sound one has a few hundred.
pub const KEY_FILE_BYTES_MAX: u64 = 16 << 10;

/// This machine's fault, or its operator's.
#[derive(Debug, Error)]
pub enum KeyFileError {
    #[error("cannot read the key file {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("cannot write the key file {path}: {source}")]
    Write { path: String, source: io::Error },
    #[error("the key file {path} exists already and is not overwritten")]
    Exists { path: String },
    #[error(
        "the key file {path} has mode {mode:04o}: others could read it; `chmod 600` it, and renew the keys if they did"
    )]
    Mode { path: String, mode: u32 },
    #[error("the key file {path} is not sound, line {line}: {reason}")]
    Format { path: String, line: usize, reason: &'static str },
}

/// Reads the keys of this site.
pub fn read(path: &Path) -> Result<SiteKey, KeyFileError> {
    let shown = path.display().to_string();
    let failed = |source| KeyFileError::Read { path: shown.clone(), source };
    let file = File::open(path).map_err(failed)?;
    // The open file is asked, not the path, so that what is checked is what is read.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { path: shown, mode });
    }
    // Room beforehand, for a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    parse(&text).map_err(|(line, reason)| KeyFileError::Format { path: shown, line, reason })
}

/// Writes a new key file; refuses if there is one.
pub fn create(path: &Path, key: &SiteKey) -> Result<(), KeyFileError> {
    let shown = path.display().to_string();
    write_new(path, key).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: shown },
        _ => KeyFileError::Write { path: shown, source },
    })
}

/// Replaces the key file in one step, after the keys were renewed.
pub fn replace(path: &Path, key: &SiteKey) -> Result<(), KeyFileError> {
    let failed = |source| KeyFileError::Write { path: path.display().to_string(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // A `.new` that an interrupted renewal left behind was never in use.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => write_new(&new, key)
            .and_then(|()| keep_owner(path, &new))
            .and_then(|()| std::fs::rename(&new, path))
            .and_then(|()| sync_directory(path)),
    }
    .map_err(failed)
}

/// Whoever renews the keys, the daemon's user must be able to read them.
fn keep_owner(old: &Path, new: &Path) -> io::Result<()> {
    let (old, own) = (std::fs::metadata(old)?, std::fs::metadata(new)?);
    if (old.uid(), old.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(new, Some(old.uid()), Some(old.gid()))
}

fn write_new(path: &Path, key: &SiteKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(print(key).as_bytes())?;
    file.sync_all()?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// The text of a key file. Secret.
pub fn print(key: &SiteKey) -> Zeroizing<String> {
    // Room beforehand, for a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str("# bridgehead site key. SECRET: whoever reads it can speak as this site.\n# fingerprint ");
    text.push_str(&key.public().fingerprint());
    text.push_str("\nversion 1\n");
    for (at, pair) in key.pairs().iter().enumerate() {
        text.push_str(if at == 0 { "current ed25519 " } else { "former ed25519 " });
        text.push_str(&Zeroizing::new(BASE64.encode(pair.signing.as_bytes())));
        text.push_str(" x25519 ");
        text.push_str(&Zeroizing::new(BASE64.encode(*pair.sealing)));
        text.push('\n');
    }
    text
}

/// Reads the text of a key file; an error is a line and what is wrong with it.
pub fn parse(text: &str) -> Result<SiteKey, (usize, &'static str)> {
    if text.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err((1, "it is too large to be a key file"));
    }
    let mut version_seen = false;
    let mut pairs = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let refuse = |reason| (at + 1, reason);
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        match words[..] {
            [] => {}
            ["version", "1"] if !version_seen => version_seen = true,
            ["version", ..] => return Err(refuse("this program knows version 1 only, given once")),
            _ if !version_seen => return Err(refuse("`version 1` must come first")),
            [kind, "ed25519", seed, "x25519", secret]
                if kind == if pairs.is_empty() { "current" } else { "former" } =>
            {
                let signing = octets(seed).ok_or(refuse("the ed25519 key is not 32 octets in base64"))?;
                let sealing = octets(secret).ok_or(refuse("the x25519 key is not 32 octets in base64"))?;
                pairs.push(KeyPair::new(SigningKey::from_bytes(&signing), sealing));
            }
            _ => {
                return Err(refuse(
                    "expected `current ed25519 SEED x25519 SECRET`, then `former ...` of the same shape",
                ));
            }
        }
    }
    let lines = text.lines().count();
    SiteKey::from_pairs(pairs).ok_or((lines, "expected one current pair and at most three former ones"))
}

fn octets(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    // One octet of slack, for the decoder wants room for whole groups.
    let mut buffer = Zeroizing::new([0; 33]);
    let length = BASE64.decode_slice(text, &mut *buffer).ok()?;
    let mut octets = Zeroizing::new([0; 32]);
    octets.copy_from_slice(&buffer[..32]);
    (length == 32).then_some(octets)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::message::random::Seeded;

    fn key() -> SiteKey {
        SiteKey::generate(&mut Seeded::new(5))
    }

    #[test]
    fn what_is_written_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.key");
        create(&path, &key()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(*print(&read(&path).unwrap()), *print(&key()));
        assert!(matches!(create(&path, &key()), Err(KeyFileError::Exists { .. })));

        let renewed = key().renew(&mut Seeded::new(6));
        replace(&path, &renewed).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(*print(&read(&path).unwrap()), *print(&renewed));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.key");
        create(&path, &key()).unwrap();
        for mode in [0o644, 0o640, 0o602, 0o700 | 0o001] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Mode { mode: seen, .. } if seen == mode), "{error}");
        }
        assert!(matches!(read(&directory.path().join("none")), Err(KeyFileError::Read { .. })));
    }

    #[test]
    fn bad_files_name_their_line() {
        let good = print(&key());
        let pair = good.lines().last().unwrap();
        for (text, line) in [
            ("", 0),
            ("version 1\n", 1),
            ("version 2\n", 1),
            (pair, 1),
            (&format!("version 1\n{}", pair.replace("current", "former")), 2),
            (&format!("version 1\n{pair}\n{pair}"), 3),
            (&format!("version 1\n{}", pair.replace("x25519", "x448")), 2),
            (&format!("version 1\n{}", &pair[..pair.len() - 5]), 2),
            (&format!("version 1\n{pair}A"), 2),
            (&"#".repeat(20_000), 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
