//! A next hop that does what it is told, well or badly, and writes down what it saw.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::show;

/// What the next hop does.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Lines of its EHLO reply behind the greeting.
    pub offers: Vec<String>,
    /// To lines that begin so: what it does instead of what is usual. The last field: how often.
    pub rules: Vec<(String, String, Option<usize>)>,
}

/// What it saw, line by line: connection number and line.
pub type Saw = Arc<Mutex<Vec<(usize, String)>>>;

/// `number`: of the connection before the first.
pub async fn serve(listener: TcpListener, part: Part, mut number: usize, saw: Saw) {
    let part = Arc::new(Mutex::new(part));
    while let Ok((stream, _)) = listener.accept().await {
        number += 1;
        tokio::spawn(converse(stream, number, part.clone(), saw.clone()));
    }
}

async fn converse(stream: TcpStream, number: usize, part: Arc<Mutex<Part>>, saw: Saw) -> Option<()> {
    let mut stream = BufReader::new(stream);
    act(&mut stream, &part, "greeting", "220 hop.example ESMTP").await?;
    loop {
        let line = read_line(&mut stream).await?;
        let mut text = String::from_utf8_lossy(&line).into_owned();
        if text.starts_with("BDAT ") {
            text = bdat(&mut stream, &part, &text, number, &saw).await?;
        } else {
            saw.lock().unwrap().push((number, show(&line)));
        }
        let verb = text.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase();
        let usual = match verb.as_str() {
            "EHLO" => {
                let offers = part.lock().unwrap().offers.clone();
                offers.iter().fold("250 hop.example".into(), |text, offer| format!("{text}\\n{offer}"))
            }
            "MAIL" => "250 2.1.0 hop: sender ok".to_owned(),
            "RCPT" => "250 2.1.5 hop: recipient ok".to_owned(),
            "DATA" => "354 hop: go on".to_owned(),
            "BDAT" if text.ends_with(" LAST") => "250 2.0.0 hop: queued".to_owned(),
            "BDAT" => "250 2.0.0 hop: chunk ok".to_owned(),
            "QUIT" => "221 2.0.0 hop: bye".to_owned(),
            _ => "250 2.0.0 hop: ok".to_owned(),
        };
        let said = act(&mut stream, &part, &text, &usual).await?;
        if verb == "DATA" && said.starts_with("354") {
            message(&mut stream, &part, number, &saw).await?;
        }
        if verb == "QUIT" {
            return None;
        }
    }
}

async fn message(
    stream: &mut BufReader<TcpStream>,
    part: &Mutex<Part>,
    number: usize,
    saw: &Saw,
) -> Option<()> {
    let mut first = true;
    loop {
        let line = read_line(stream).await?;
        saw.lock().unwrap().push((number, show(&line)));
        if line == b"." {
            act(stream, part, ".", "250 2.0.0 hop: queued").await?;
            return Some(());
        }
        if std::mem::take(&mut first) {
            // "" as the usual reply: nothing is said unless a rule has it so.
            act(stream, part, "first line", "").await?;
        }
    }
}

/// Takes the octets of a chunk; they are written down as lines, the unfinished one with a mark. Gives the command as
/// written down: the length of our trace field, which changes with the date, is `trace`.
async fn bdat(
    stream: &mut BufReader<TcpStream>,
    part: &Mutex<Part>,
    text: &str,
    number: usize,
    saw: &Saw,
) -> Option<String> {
    use tokio::io::AsyncReadExt;
    act(stream, part, "chunk", "").await?;
    let octets: usize = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let mut chunk = vec![0; octets];
    stream.read_exact(&mut chunk).await.ok()?;
    let trace = trace_bytes(&chunk);
    let word = if text.ends_with(" LAST") { " LAST" } else { "" };
    let text = match trace {
        0 => text.to_owned(),
        _ => format!("BDAT trace+{}{word}", octets - trace),
    };
    saw.lock().unwrap().push((number, text.clone()));
    for line in chunk.split_inclusive(|b| *b == b'\n') {
        let shown = match line.strip_suffix(b"\r\n") {
            Some(line) => show(line),
            None => format!("{}(no line end)", show(line)),
        };
        saw.lock().unwrap().push((number, shown));
    }
    Some(text)
}

fn trace_bytes(chunk: &[u8]) -> usize {
    let folded = chunk.split_inclusive(|b| *b == b'\n').enumerate();
    folded
        .take_while(|(i, line)| {
            line.starts_with(if *i == 0 { b"Received: from client.example" } else { b"\t" })
        })
        .map(|(_, line)| line.len())
        .sum()
}

/// Does what the rules say for this line, or says what is usual. Gives what was said; `None`: the connection is over.
async fn act(
    stream: &mut BufReader<TcpStream>,
    part: &Mutex<Part>,
    line: &str,
    usual: &str,
) -> Option<String> {
    let mut deed = usual.to_owned();
    {
        let mut part = part.lock().unwrap();
        let upper = line.to_ascii_uppercase();
        let rule = part.rules.iter_mut().find(|(prefix, _, left)| {
            *left != Some(0)
                && match prefix.as_str() {
                    "." => line == ".",
                    prefix => upper.starts_with(&prefix.to_ascii_uppercase()),
                }
        });
        if let Some((_, instead, left)) = rule {
            deed = instead.clone();
            *left = left.map(|n| n - 1);
        }
    }
    if let Some(after) = deed.strip_prefix("!slow ") {
        tokio::time::sleep(Duration::from_millis(300)).await;
        deed = after.to_owned();
    }
    match deed.as_str() {
        "" => return Some(String::new()),
        "!close" => return None,
        "!silent" => std::future::pending().await,
        "!garbage" => {
            stream.write_all(b"\x16\x03\x01HTTP/1.1 400 Bad Request\r\n\r\n").await.ok()?;
            return None;
        }
        _ => {}
    }
    let (deed, close) = match deed.strip_suffix("!close") {
        Some(deed) => (deed.trim_end().to_owned(), true),
        None => (deed, false),
    };
    let mut wire = String::new();
    let deed = String::from_utf8(super::unescape(&deed.replace("\\n", "\\\\n"))).ok()?;
    let (code, text) = deed.split_at(3);
    let lines: Vec<&str> = text[1..].split("\\n").collect();
    for (i, line) in lines.iter().enumerate() {
        let dash = if i + 1 < lines.len() { '-' } else { ' ' };
        wire.push_str(&format!("{code}{dash}{line}\r\n"));
    }
    stream.write_all(wire.as_bytes()).await.ok()?;
    if close {
        return None;
    }
    Some(deed)
}

/// A line that ends in CRLF; bare LFs stay in it.
async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
    }
    line.truncate(line.len() - 2);
    Some(line)
}
