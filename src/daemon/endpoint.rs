//! `/metrics`, `/health` and `/ready` over HTTP, for a monitoring program on this machine.
//!
//! PROMISES
//!   Loopback only: the configuration takes no other address. Nothing that comes in changes anything. Whoever connects holds
//!   one of a few places for a few seconds at most.
//!
//! STANDARDS
//!   RFC 9112, as much of it as GET and HEAD need; OpenMetrics 1.0.
//!
//! LIMITS
//!   [`CLIENTS_MAX`] clients at once, [`HEAD_BYTES_MAX`] octets of a request, [`PATIENCE`] for each. One request a connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Daemon;

const CLIENTS_MAX: usize = 8;
const HEAD_BYTES_MAX: usize = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until the runtime ends: while sessions drain, too.
pub async fn serve(listener: TcpListener, daemon: Arc<Daemon>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let daemon = daemon.clone();
                tokio::spawn(async move {
                    if let Ok(Err(error)) = timeout(PATIENCE, converse(stream, &daemon)).await {
                        debug!(target: "bridgehead::metrics", %error, "a client went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(event = "metrics-failed", %error, "cannot accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, daemon: &Arc<Daemon>) -> io::Result<()> {
    let mut head = Vec::new();
    while !is_whole(&head) {
        if head.len() > HEAD_BYTES_MAX {
            return answer(
                &mut stream,
                &Answer::plain("431 Request Header Fields Too Large", "too long\n"),
                true,
            )
            .await;
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (words, with_body) = match request(&head) {
        Ok(("GET", path)) => (respond(path, daemon).await, true),
        Ok(("HEAD", path)) => (respond(path, daemon).await, false),
        Ok(_) => (Answer { allow: true, ..Answer::plain("405 Method Not Allowed", "GET or HEAD\n") }, true),
        Err(()) => (Answer::plain("400 Bad Request", "this is HTTP/1.1\n"), true),
    };
    answer(&mut stream, &words, with_body).await
}

/// Whether an empty line ends the head.
fn is_whole(head: &[u8]) -> bool {
    memchr::memmem::find(head, b"\r\n\r\n").is_some()
}

/// Method and path of a request line: `GET /metrics?x HTTP/1.1`.
fn request(head: &[u8]) -> Result<(&str, &str), ()> {
    let line = head.split(|octet| *octet == b'\r').next().ok_or(())?;
    let line = std::str::from_utf8(line).map_err(drop)?;
    let mut words = line.split(' ');
    let (method, target, version) =
        (words.next().ok_or(())?, words.next().ok_or(())?, words.next().ok_or(())?);
    let sound = words.next().is_none() && version.starts_with("HTTP/1.") && target.starts_with('/');
    let path = target.split('?').next().ok_or(())?;
    if sound { Ok((method, path)) } else { Err(()) }
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
    allow: bool,
}

impl Answer {
    fn plain(status: &'static str, body: &str) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", body: body.to_owned(), allow: false }
    }
}

async fn respond(path: &str, daemon: &Arc<Daemon>) -> Answer {
    match path {
        "/health" => Answer::plain("200 OK", "alive\n"),
        "/ready" if daemon.is_ready() => Answer::plain("200 OK", "ready\n"),
        "/ready" => Answer::plain("503 Service Unavailable", "stopping\n"),
        "/metrics" => {
            let daemon = daemon.clone();
            // The store is read from disk.
            match tokio::task::spawn_blocking(move || daemon.metrics()).await {
                Ok(Ok(body)) => Answer {
                    kind: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    body,
                    ..Answer::plain("200 OK", "")
                },
                Ok(Err(failure)) => {
                    warn!(event = "metrics-failed", failure, "the store cannot be read");
                    Answer::plain("500 Internal Server Error", "the store cannot be read; see the log\n")
                }
                Err(_) => Answer::plain("500 Internal Server Error", "see the log\n"),
            }
        }
        _ => Answer::plain("404 Not Found", "/metrics, /health, /ready\n"),
    }
}

async fn answer(stream: &mut TcpStream, answer: &Answer, with_body: bool) -> io::Result<()> {
    let allow = if answer.allow { "Allow: GET, HEAD\r\n" } else { "" };
    let mut text = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    if with_body {
        text.push_str(&answer.body);
    }
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    // What the client sent beyond its request is read, for closing on it would throw our answer away.
    let mut rest = [0; 512];
    let mut octets = 0;
    while octets < HEAD_BYTES_MAX {
        match stream.read(&mut rest).await? {
            0 => break,
            read => octets += read,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        assert_eq!(request(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Ok(("GET", "/metrics")));
        assert_eq!(request(b"HEAD /ready?a=b HTTP/1.0\r\n\r\n"), Ok(("HEAD", "/ready")));
        for bad in [
            &b"\r\n\r\n"[..],
            b"GET /\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET x HTTP/1.1\r\n\r\n",
            b"\xff / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/2\r\n\r\n",
            b"EHLO x\r\n\r\n",
        ] {
            assert_eq!(request(bad), Err(()), "{}", bad.escape_ascii());
        }
    }
}
