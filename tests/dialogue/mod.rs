//! Golden dialogues: what a client says (C), what we answer (S), what the next hop saw (H), what went
//! to replication (R). Each file under tests/dialogue shows one rule and reads as documentation.
//!
//! ```text
//! # a sentence: the rule
//! @ limit recipients_max 2            a setting; see `Scene::set`
//! @ hop RCPT TO:<bad => 550 no        what the next hop answers to lines that begin so
//! @ second                            there is another at a higher cost, whose connections count from H11
//! C: MAIL FROM:<a@b.example>          a line of the client; neighbours go out in one write
//! C| text without\x00a CRLF           raw octets
//! W: 50                               milliseconds of silence
//! N:                                  a new connection of the client
//! S: 250 2.1.0 Ok                     what we answer
//! H: MAIL FROM:<a@b.example>          at the end: what the next hop saw, H2 for its second connection
//! R: <repl@corp.example> from <> ...  and what replication got
//! ```
//!
//! Backslash escapes \r \n \0 \\ \xHH, and `{x*5000}` for a repeated character. `DIALOGUE=write cargo test dialogue` writes the
//! answers anew, `DIALOGUE=write:bdat` those of files that begin so; read the difference before keeping it. In a new file `S: ?` stands
//! where an answer is to be waited for.

mod hop;
mod scene;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use scene::Scene;

/// A step of a script, in order.
#[derive(Debug)]
enum Step {
    Send(Vec<String>),
    Wait(u64),
    Connect,
}

struct Script {
    head: Vec<String>,
    /// Each step with its source lines and the answers that stood behind it.
    steps: Vec<(Step, Vec<String>, Vec<String>)>,
    tail: Vec<String>,
}

const SCENES_AT_ONCE: usize = 12;

#[test]
fn golden_dialogues() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogue");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .filter(|path| {
            let only =
                std::env::var("DIALOGUE").ok().and_then(|v| Some(v.strip_prefix("write:")?.to_owned()));
            only.is_none_or(|only| path.file_name().unwrap().to_string_lossy().starts_with(&only))
        })
        .collect();
    files.sort();
    assert!(files.len() > 20 || std::env::var("DIALOGUE").is_ok(), "the dialogues are gone");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let failures: Vec<String> = runtime.block_on(async {
        // All at once they would keep one another waiting, and waiting is part of some.
        let stage = Arc::new(Semaphore::new(SCENES_AT_ONCE));
        let mut running = Vec::new();
        for file in files {
            let stage = stage.clone();
            running.push(tokio::spawn(async move {
                let _turn = stage.acquire().await.unwrap();
                check(&file).await
            }));
        }
        let mut failures = Vec::new();
        for task in running {
            failures.extend(task.await.unwrap());
        }
        failures
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn check(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let script = Script::parse(&text);
    let writing = std::env::var("DIALOGUE").is_ok_and(|v| v.starts_with("write"));
    let played = timeout(Duration::from_secs(60), play(&script, writing)).await;
    let name = file.file_name().unwrap().to_string_lossy();
    let Ok(played) = played else {
        return Some(format!("{name}: did not end"));
    };
    if writing {
        std::fs::write(file, &played).unwrap();
        return None;
    }
    (played != text).then(|| format!("{name} differs:\n{}", difference(&text, &played)))
}

async fn play(script: &Script, writing: bool) -> String {
    let scene = Scene::start(&script.head).await;
    let mut out = script.head.iter().fold(String::new(), |out, line| out + line + "\n");
    let mut client = scene.connect().await;
    let mut pending = Vec::new();
    for (step, source, expected) in &script.steps {
        for line in source {
            let _ = writeln!(out, "{line}");
        }
        match step {
            Step::Send(lines) => {
                let octets: Vec<u8> = lines.iter().flat_map(|line| wire(line)).collect();
                let _ = client.write_all(&octets).await;
            }
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Step::Connect => {
                client = scene.connect().await;
                pending.clear();
            }
        }
        let wanted = if writing { usize::MAX } else { expected.len() };
        for line in answers(&mut client, &mut pending, wanted, writing).await {
            let _ = writeln!(out, "S: {line}");
        }
    }
    drop(client);
    let transcript = scene.finish(&script.tail, writing).await;
    out + &transcript
}

/// Reads lines of the server: `wanted` of them or, where that is not known, until it falls silent.
async fn answers(client: &mut TcpStream, pending: &mut Vec<u8>, wanted: usize, writing: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let patience = Duration::from_millis(if writing { 1300 } else { 10_000 });
    while lines.len() < wanted {
        if let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            lines.push(show(line.strip_suffix(b"\r\n").unwrap_or(&line)));
            continue;
        }
        let mut buffer = [0; 4096];
        match timeout(patience, client.read(&mut buffer)).await {
            Ok(Ok(0)) | Ok(Err(_)) => {
                lines.push("(closed)".into());
                break;
            }
            Ok(Ok(read)) => pending.extend_from_slice(&buffer[..read]),
            Err(_) if writing => break,
            Err(_) => {
                lines.push("(silence)".into());
                break;
            }
        }
    }
    // What comes unasked shows with the next step's answers, or not at all once the client has gone.
    lines
}

impl Script {
    fn parse(text: &str) -> Script {
        let mut script = Script { head: Vec::new(), steps: Vec::new(), tail: Vec::new() };
        script.steps.push((Step::Send(Vec::new()), Vec::new(), Vec::new()));
        for line in text.lines() {
            let kind = line.get(..2).unwrap_or("");
            let last = script.steps.last_mut().unwrap();
            match kind {
                "C:" | "C|" => match last {
                    (Step::Send(lines), source, answers) if answers.is_empty() && !source.is_empty() => {
                        lines.push(line.to_owned());
                        source.push(line.to_owned());
                    }
                    _ => script.steps.push((Step::Send(vec![line.into()]), vec![line.into()], Vec::new())),
                },
                "W:" => {
                    let ms = line[2..].trim().parse().unwrap();
                    script.steps.push((Step::Wait(ms), vec![line.into()], Vec::new()));
                }
                "N:" => script.steps.push((Step::Connect, vec![line.into()], Vec::new())),
                "S:" => last.2.push(line.to_owned()),
                _ if line.starts_with(['H', 'R']) => script.tail.push(line.to_owned()),
                _ => {
                    assert!(line.starts_with(['#', '@']) || line.is_empty(), "what is this? {line}");
                    script.head.push(line.to_owned());
                }
            }
        }
        script
    }
}

/// The octets of a C line.
fn wire(line: &str) -> Vec<u8> {
    let (raw, text) = (line.starts_with("C|"), line[2..].strip_prefix(' ').unwrap_or(&line[2..]));
    let mut octets = unescape(text);
    if !raw {
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' => {
                let (kind, after) = rest.split_first().unwrap();
                rest = after;
                match kind {
                    b'r' => out.push(b'\r'),
                    b'n' => out.push(b'\n'),
                    b't' => out.push(b'\t'),
                    b'0' => out.push(0),
                    b'\\' => out.push(b'\\'),
                    b'x' => {
                        out.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                        rest = &rest[2..];
                    }
                    _ => panic!("unknown escape in {text}"),
                }
            }
            b'{' if rest.get(1) == Some(&b'*') => {
                let end = rest.iter().position(|b| *b == b'}').unwrap();
                let times: usize = std::str::from_utf8(&rest[2..end]).unwrap().parse().unwrap();
                out.extend(std::iter::repeat_n(rest[0], times));
                rest = &rest[end + 1..];
            }
            _ => out.push(*byte),
        }
    }
    out
}

/// Octets as a line of a transcript.
pub(crate) fn show(octets: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < octets.len() {
        let byte = octets[at];
        let run = octets[at..].iter().take_while(|b| **b == byte).count();
        if run >= 40 && byte.is_ascii_graphic() {
            let _ = write!(out, "{{{}*{run}}}", byte as char);
            at += run;
            continue;
        }
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\r' => out.push_str("\\r"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            0 => out.push_str("\\0"),
            b' '..=b'~' => out.push(byte as char),
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
        at += 1;
    }
    out
}

fn difference(expected: &str, played: &str) -> String {
    let (expected, played): (Vec<_>, Vec<_>) = (expected.lines().collect(), played.lines().collect());
    let same = expected.iter().zip(&played).take_while(|(a, b)| a == b).count();
    let mut out = String::new();
    for line in &expected[same.saturating_sub(2)..same] {
        let _ = writeln!(out, "    {line}");
    }
    for line in expected.iter().skip(same).take(6) {
        let _ = writeln!(out, "  - {line}");
    }
    for line in played.iter().skip(same).take(6) {
        let _ = writeln!(out, "  + {line}");
    }
    out
}
