//! SIGHUP to the running daemon: what was changed in its files takes force, and no session notices.

use std::fs;
use std::net::SocketAddr;

use bridgehead::relay::stream::Plain;
use bridgehead::relay::tls::ClientTls;
use rustix::process::Signal;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::support::{
    Certificate, Client, Recorder, SOON, Scratch, Site, await_true, free_address, ordinary_message,
};

fn roots(files: &Certificate) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    roots
}

/// A connection under TLS from its first octet, if the certificate is one of these.
async fn connect(
    address: SocketAddr,
    roots: rustls::RootCertStore,
) -> Option<BufReader<impl AsyncRead + AsyncWrite + Unpin>> {
    let plain = Plain::tcp(TcpStream::connect(address).await.unwrap());
    let connector = ClientTls::with_roots(roots).verify;
    let mut stream = BufReader::new(connector.connect("localhost".try_into().unwrap(), plain).await.ok()?);
    assert!(line(&mut stream).await.starts_with("220 "));
    Some(stream)
}

async fn line(stream: &mut BufReader<impl AsyncRead + Unpin>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line
}

/// Sends the signal and waits for what the log says of it.
fn hang_up(site: &mut Site, event: &str) {
    let event = format!("event=\"{event}\"");
    let count = |site: &Site| fs::read_to_string(site.log()).unwrap_or_default().matches(&event).count();
    let before = count(site);
    site.daemon().signal(Signal::HUP);
    await_true(&event, SOON, || count(site) > before);
    site.daemon().assert_alive();
}

#[test]
fn sighup_swaps_certificate_and_routes_under_open_sessions() {
    let scratch = Scratch::new("hangup");
    let (first, second) = (Recorder::start(), Recorder::start());
    let old = Certificate::new(&scratch, "localhost");
    let old_roots = roots(&old);
    let mut site = Site::init(&scratch, "paris", free_address(), first.address);
    let tls = free_address();
    let table = format!(
        "[[listener]]\naddress = \"{tls}\"\ntls = {{ certificate = \"{}\", key = \"{}\", mode = \"implicit\" }}\n",
        old.certificate.display(),
        old.key.display()
    );
    site.configure("[listen]", "", &table);
    site.start();
    let pid = site.daemon().pid();
    let runtime = Runtime::new().unwrap();
    let mut session = runtime.block_on(connect(tls, old_roots.clone())).expect("the certificate is known");
    let mut client = Client::greet(site.address);
    client.command("MAIL FROM:<renee@paris.example>").expect(250);
    client.command("RCPT TO:<friend@far.example>").expect(250);

    // The same files, another certificate; another next hop.
    let new = Certificate::new(&scratch, "localhost");
    let config = fs::read_to_string(site.config()).unwrap();
    let changed = config.replace(&first.address.to_string(), &second.address.to_string());
    fs::write(site.config(), &changed).unwrap();
    hang_up(&mut site, "reloaded");

    client.data(&ordinary_message("under way")).expect(250);
    assert_eq!((first.kept().len(), second.kept().len()), (1, 0), "a transaction ends where it began");
    let send = |client: &mut Client| {
        client
            .transact("<renee@paris.example>", &["<friend@far.example>"], &ordinary_message("next"))
            .expect(250)
    };
    send(&mut client);
    assert_eq!((first.kept().len(), second.kept().len()), (1, 1), "the next one is under the new routes");
    runtime.block_on(async {
        session.get_mut().write_all(b"NOOP\r\n").await.unwrap();
        assert!(line(&mut session).await.starts_with("250 "), "the session of before goes on");
        assert!(connect(tls, old_roots).await.is_none(), "the certificate of before is gone");
        assert!(connect(tls, roots(&new)).await.is_some());
    });

    // What is wrong is refused as a whole: neither the routes nor the certificate change.
    fs::write(site.config(), format!("{config}\n[lgo]\n")).unwrap();
    hang_up(&mut site, "reload-refused");
    send(&mut client);
    assert_eq!((first.kept().len(), second.kept().len()), (1, 2));
    assert_eq!(site.daemon().pid(), pid);
    fs::write(site.config(), changed).unwrap();
    site.stop();
}
