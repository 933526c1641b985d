//! OpenLDAP's offline loader, as a second reader of our LDIF.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Scratch, peers};

/// Loads a naming context into an empty OpenLDAP database, which fails on a name or an attribute that its schema does
/// not know or on an entry without a parent. Says how many entries it then holds.
pub fn slapadd(scratch: &Scratch, context: &str, file: &Path) -> usize {
    let package = peers().join("slapd");
    let program = package.join("usr/sbin/slapd");
    assert!(program.is_file(), "no {}; contrib/test/run unpacks it", program.display());
    // slapadd takes the version line for an entry without a name.
    let content = fs::read_to_string(file).expect("the LDIF file");
    let content = content.strip_prefix("version: 1\n").unwrap_or(&content);
    let file = scratch.write("slapadd.ldif", content);
    let database = scratch.join("slapd");
    fs::create_dir_all(&database).expect("a directory for slapd");
    let schema = package.join("etc/ldap/schema");
    let configuration = format!(
        "include {schema}/core.schema\ninclude {schema}/cosine.schema\ninclude {schema}/inetorgperson.schema\n\
         modulepath {modules}\nmoduleload back_mdb\ndatabase mdb\nmaxsize 1073741824\nsuffix \"{context}\"\n\
         directory {database}\n",
        schema = schema.display(),
        modules = package.join("usr/lib/ldap").display(),
        database = database.display(),
    );
    let configuration = scratch.write("slapd.conf", configuration);
    let run = |verb: &str, arguments: &[&str]| {
        let output = Command::new(&program)
            .env("LD_LIBRARY_PATH", package.join("usr/lib/x86_64-linux-gnu"))
            .args(["-T", verb, "-f"])
            .arg(&configuration)
            .args(arguments)
            .output()
            .expect("slapd starts");
        assert!(output.status.success(), "slap{verb}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run("add", &["-q", "-l", file.to_str().expect("a path in UTF-8")]);
    let dump = run("cat", &[]);
    dump.split(|&b| b == b'\n').filter(|line| line.starts_with(b"dn:")).count()
}
