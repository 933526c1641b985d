//! README as a new user follows it: its own commands, in order, in an empty directory, for two sites.
//!
//! What cannot be done in a test is stood in for: `/etc/bridgehead` is a directory of the test, ports are free ones, each
//! site's mail server is the other's daemon, and what builds and installs is left out, but for its being there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Process, SOON, Scratch, await_true, free_address, ordinary_message, people_of, tail};

/// Commands of one section of README: its indented lines, with continuations joined and comments gone.
fn commands(section: &str) -> Vec<String> {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md");
    let section = readme.split("\n## ").find(|part| part.starts_with(section)).expect("the section");
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in section.lines().filter_map(|line| line.strip_prefix("    ")) {
        let line = line.trim();
        let begun = line.strip_suffix('\\');
        let text = begun.unwrap_or(line).split(" #").next().unwrap_or_default().trim();
        match commands.last_mut().filter(|_| goes_on) {
            Some(last) => *last = format!("{last} {text}"),
            None => commands.push(text.to_owned()),
        }
        goes_on = begun.is_some();
    }
    commands
}

/// One of the two who follow README.
struct Reader<'s> {
    name: &'s str,
    other: &'s str,
    listens: u16,
    delivers: u16,
    scratch: &'s Scratch,
}

impl Reader<'_> {
    /// The command as this reader types it: README's example is Paris, whose partner is Tokyo.
    fn own(&self, command: &str) -> String {
        let swapped = command.replace("paris", "\0").replace("tokyo", self.other).replace('\0', self.name);
        let home = self.scratch.join(self.name);
        let mut text = swapped
            .replace("/etc/bridgehead", &home.display().to_string())
            // By way of a mark: a port such as 25100 begins like the one that is replaced next.
            .replace("127.0.0.1:10025", "\0")
            .replace("127.0.0.1:25", &format!("127.0.0.1:{}", self.delivers))
            .replace('\0', &format!("127.0.0.1:{}", self.listens));
        // Without it, the file in /etc/bridgehead is meant.
        if !text.contains("--config") && !text.contains(" init ") {
            let option = format!(" --config {}/bridgehead.toml", home.display());
            let end = text.find(" > ").unwrap_or(text.len());
            text.insert_str(end, &option);
        }
        text
    }

    fn shell(&self, command: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_bridgehead"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", &self.own(command)])
            .current_dir(self.scratch.join("here"))
            .env("PATH", format!("{}:{path}", binary.parent().expect("its directory").display()));
        shell
    }

    fn run(&self, command: &str) -> Output {
        let output = self.shell(command).output().expect("sh");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: `{}`: {said}", self.name, self.own(command));
        output
    }
}

#[test]
fn the_demo_of_the_first_minute_runs_and_leaves_nothing() {
    let scratch = Scratch::new("readme-demo");
    fs::create_dir(scratch.join("here")).expect("an empty directory");
    let all = commands("The first minute");
    let demo =
        all.iter().find_map(|command| command.strip_prefix("cargo run --release -- ")).expect("the demo");
    let output = Command::new(env!("CARGO_BIN_EXE_bridgehead"))
        .args(demo.split(' '))
        .current_dir(scratch.join("here"))
        .env("TMPDIR", scratch.join("here"))
        .output()
        .expect("the demo");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("nothing is left behind"), "{said}");
    assert_eq!(fs::read_dir(scratch.join("here")).expect("the directory").count(), 0);
    for script in all.iter().filter(|command| command.starts_with("contrib/")) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(script).is_file(), "{script}");
    }
}

#[test]
fn two_who_follow_readme_share_a_directory() {
    let scratch = Scratch::new("readme-join");
    fs::create_dir(scratch.join("here")).expect("an empty directory");
    let (paris, tokyo) = (free_address().port(), free_address().port());
    let readers = [
        Reader { name: "paris", other: "tokyo", listens: paris, delivers: tokyo, scratch: &scratch },
        Reader { name: "tokyo", other: "paris", listens: tokyo, delivers: paris, scratch: &scratch },
    ];
    let [paris, tokyo] = &readers;
    fs::write(scratch.join("here/people.ldif"), people_of("ou=paris,o=Example", 20)).expect("some people");
    let mut daemons = Vec::new();
    let (mut done, mut later) = (Vec::new(), Vec::new());
    for command in commands("Joining two sites").iter().filter(|command| command.starts_with("bridgehead ")) {
        let verb = command.split(' ').nth(1).unwrap_or_default();
        done.push(verb.to_owned());
        match verb {
            // The steps that README says both sites do.
            "init" | "card" | "site" => readers.iter().for_each(|reader| drop(reader.run(command))),
            "check" => {
                for reader in &readers {
                    let log = scratch.join(&format!("{}.log", reader.name));
                    // `check && run`: the shell gives way to the daemon, so that it ends with the test.
                    let text = command.replace("&& bridgehead run", "&& exec bridgehead run");
                    assert_ne!(&text, command, "README checks, then runs");
                    let mut daemon = Process::start(reader.name, &mut reader.shell(&text), &log);
                    await_true("the daemon to be ready", SOON, || {
                        daemon.assert_alive();
                        tail(&log, 50).contains("event=\"started\"")
                    });
                    daemons.push(daemon);
                }
            }
            "import" | "sync" | "status" => drop(paris.run(command)),
            // Tokyo's people at Paris, in README; nobody has any but Paris here.
            "export" => drop(tokyo.run(command)),
            "explain" | "inspect" | "quarantine" | "hold" | "refresh" => {
                later.push((verb.to_owned(), command.clone()))
            }
            other => panic!("README has a new command, {other}: say here who runs it"),
        }
    }
    assert_eq!(done[..8], ["init", "card", "site", "check", "import", "sync", "status", "export"]);
    // The last export went to a file named for whose entries they are.
    let there = fs::read(scratch.join("here/paris.ldif")).expect("the export");
    let here = paris.run("bridgehead export --context ou=paris,o=Example").stdout;
    assert!(here == there && here.len() > 1000, "{} and {} octets", here.len(), there.len());
    // A change, and it arrives.
    let dn = "'cn=Ada,ou=paris,o=Example'";
    for command in [
        format!("bridgehead entry add {dn} objectClass=person cn=Ada sn=Lovelace"),
        "bridgehead sync --wait 60".to_owned(),
    ] {
        paris.run(&command);
    }
    let shown = tokyo.run(&format!("bridgehead entry show {}", dn.replace("paris", "tokyo"))).stdout;
    assert!(String::from_utf8_lossy(&shown).contains("Lovelace"));
    // What README has for when something is wrong, with that entry and a mail that is none of ours.
    fs::write(scratch.join("here/message.eml"), ordinary_message("lunch?")).expect("a mail");
    for (verb, command) in &later {
        match verb.as_str() {
            "explain" => assert!(String::from_utf8_lossy(&tokyo.run(command).stdout).contains("paris")),
            "inspect" => {
                let output = paris.shell(command).output().expect("sh");
                assert!(!output.status.success() && !output.stderr.is_empty(), "{output:?}");
            }
            _ => drop(paris.run(command)),
        }
    }
}
