//! Certificates of the listeners, read from PEM files and read again when the
//! configuration is put in force anew (SIGHUP) and on request.
//!
//! FAILURE
//!   A file that cannot be used is reported; the certificate that was in force stays so. Before there was any, STARTTLS is
//!   answered with 454.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::relay::ListenerTls;
use crate::relay::Settings;

/// The certificates in force, by listener.
#[derive(Default)]
pub struct Certificates {
    acceptors: ArcSwap<HashMap<String, TlsAcceptor>>,
    /// The configuration for which the files were read last, well or badly.
    read_for: Mutex<Weak<Settings>>,
}

/// A certificate or key cannot be used; the operator is to mend it.
#[derive(Debug, Error)]
pub enum CertificateError {
    #[error("{}: {reason}", file.display())]
    File { file: PathBuf, reason: String },
    #[error("{}: key and certificate: {reason}", certificate.display())]
    Pair { certificate: PathBuf, reason: rustls::Error },
}

impl Certificates {
    /// Whether another configuration took force since the files were read.
    pub fn are_stale(&self, settings: &Arc<Settings>) -> bool {
        !std::ptr::eq(self.read_for().as_ptr(), Arc::as_ptr(settings))
    }

    /// Reads the files of all listeners; all or nothing takes force.
    pub fn load(&self, settings: &Arc<Settings>) -> Result<(), CertificateError> {
        *self.read_for() = Arc::downgrade(settings);
        let mut acceptors = HashMap::new();
        for listener in &settings.config.listeners {
            if let Some(tls) = &listener.tls {
                acceptors.insert(listener.name.clone(), acceptor(tls)?);
            }
        }
        self.acceptors.store(Arc::new(acceptors));
        Ok(())
    }

    pub fn acceptor(&self, listener: &str) -> Option<TlsAcceptor> {
        self.acceptors.load().get(listener).cloned()
    }

    fn read_for(&self) -> MutexGuard<'_, Weak<Settings>> {
        self.read_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn acceptor(tls: &ListenerTls) -> Result<TlsAcceptor, CertificateError> {
    let failed = |file: &Path, reason: String| CertificateError::File { file: file.to_owned(), reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(&tls.certificate, error.to_string()));
    let chain = chain?;
    if chain.is_empty() {
        return Err(failed(&tls.certificate, "no certificate in it".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| failed(&tls.key, error.to_string()))?;
    let pair = |reason| CertificateError::Pair { certificate: tls.certificate.clone(), reason };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(pair)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
