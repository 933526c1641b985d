//! A next hop that takes messages of any size, slowly, and keeps nothing but their length.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::free_address;

pub struct Drain {
    pub address: SocketAddr,
    octets: Arc<AtomicUsize>,
}

impl Drain {
    pub fn start() -> Drain {
        let listener = (0..8).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let octets = Arc::new(AtomicUsize::new(0));
        let count = octets.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = count.clone();
                thread::spawn(move || converse(stream, &count));
            }
        });
        Drain { address, octets }
    }

    /// Octets of all messages so far.
    pub fn octets(&self) -> usize {
        self.octets.load(Ordering::Relaxed)
    }
}

fn converse(mut stream: TcpStream, octets: &AtomicUsize) -> Option<()> {
    stream.write_all(b"220 drain\r\n").ok()?;
    let (mut input, mut in_data) = (Vec::new(), false);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        input.extend_from_slice(&buffer[..read]);
        if in_data {
            octets.fetch_add(read, Ordering::Relaxed);
            if input.ends_with(b"\r\n.\r\n") {
                stream.write_all(b"250 taken\r\n").ok()?;
                (in_data, input) = (false, Vec::new());
            } else {
                input.drain(..input.len().saturating_sub(5));
                // The relay is to feel it: what it cannot pass on it must not read.
                thread::sleep(Duration::from_millis(2));
            }
            continue;
        }
        while let Some(end) = input.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            in_data = line.starts_with(b"DATA");
            let reply: &[u8] = if in_data { b"354 go\r\n" } else { b"250 ok\r\n" };
            stream.write_all(reply).ok()?;
        }
    }
}
