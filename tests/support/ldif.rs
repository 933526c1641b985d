//! LDIF as somebody else reads it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Entries by DN; of each, the values of its attributes (in base64, in order) by lower-case name.
pub type Entries = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Reads content records with python-ldap. entryUUIDs are left out: the source of an import has none.
pub fn read_independently(file: &Path) -> Entries {
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ldif_reader.py");
    let output = Command::new("/usr/bin/python3")
        .arg(reader)
        .arg(file)
        .output()
        .expect("Debian's python3; contrib/test/run installs what the tests need");
    assert!(
        output.status.success(),
        "python-ldap does not read {}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut entries = Entries::new();
    for line in String::from_utf8(output.stdout).expect("UTF-8 from the reader").lines() {
        let (dn, mut attributes): (String, BTreeMap<String, Vec<String>>) =
            serde_json::from_str(line).expect("JSON from the reader");
        attributes.remove("entryuuid");
        assert!(entries.insert(dn.clone(), attributes).is_none(), "{dn} occurs twice in {}", file.display());
    }
    entries
}
