//! Reads the files that encrypted connections are made with, and words why one is not made.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What the settings of connections to a server are called.
#[derive(Debug)]
pub(crate) struct TlsNames {
    /// Where the server's host is.
    pub(crate) url: &'static str,
    /// What in it asks for encryption.
    pub(crate) mark: &'static str,
    /// Who is trusted.
    pub(crate) ca: &'static str,
    /// What tidegate shows.
    pub(crate) certificate: &'static str,
}

/// A file of certificates or keys, as PEM, that a setting names.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PemFile {
    setting: &'static str,
    path: PathBuf,
    content: Vec<u8>,
}

impl fmt::Debug for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl PemFile {
    /// Reads it, where the setting names one.
    pub(crate) fn read(setting: &'static str, path: Option<&Path>) -> Result<Option<Self>, String> {
        let Some(path) = path else { return Ok(None) };
        match std::fs::read(path) {
            Ok(content) => Ok(Some(PemFile { setting, path: path.to_owned(), content })),
            Err(error) => Err(format!("{setting}: cannot read {}: {error}", path.display())),
        }
    }

    /// Its certificates, at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.content).collect();
        let found = found.map_err(|error| self.fault(&format!("is no PEM: {error}")))?;
        if found.is_empty() { Err(self.fault("holds no certificate as PEM")) } else { Ok(found) }
    }

    /// Its private key.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let found = PrivateKeyDer::from_pem_slice(&self.content);
        found.map_err(|_| self.fault("holds no private key as PEM that needs no password"))
    }

    /// Whether it holds something else by now, or nothing that can be read.
    pub(crate) fn has_changed(&self) -> bool {
        std::fs::read(&self.path).ok().as_ref() != Some(&self.content)
    }

    /// What is wrong with it.
    pub(crate) fn fault(&self, what: &str) -> String {
        format!("{}: {} {what}", self.setting, self.path.display())
    }
}

/// An error of a connection, with what the reader might not think of where it speaks of TLS. The errors of both drivers
/// hold that of rustls; one of them as text alone.
pub(crate) fn explained(error: &str, names: &TlsNames) -> String {
    match advice(error, names) {
        Some(advice) => format!("{error} ({advice})"),
        None => error.to_owned(),
    }
}

fn advice(error: &str, names: &TlsNames) -> Option<String> {
    let TlsNames { url, mark, ca, certificate } = names;
    let says = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
    let is_alert = says(&["received fatal alert"]);
    Some(if is_alert && says(&["CertificateExpired"]) {
        format!("the server says that tidegate's certificate has expired; {certificate} names it")
    } else if is_alert && says(&["CertificateRequired", "HandshakeFailure"]) {
        format!("the server wants a certificate of tidegate; {certificate} names one")
    } else if is_alert
        && says(&["UnknownCA", "BadCertificate", "CertificateUnknown", "CertificateRevoked", "DecryptError"])
    {
        format!("the server does not accept tidegate's certificate; {certificate} names it")
    } else if says(&["InvalidContentType", "corrupt message", "handshake eof"]) {
        format!("no TLS is spoken there; is it right that {url} {mark}?")
    } else if says(&["UnknownIssuer", "BadSignature"]) {
        format!("its certificate is of an authority that is not trusted here; {ca} names one")
    } else if says(&["CaUsedAsEndEntity"]) {
        "it shows an authority's certificate in place of one of its own".to_owned()
    } else if says(&["NotValidForName", "not valid for name"]) {
        format!("its certificate is for another name than {url} has")
    } else if says(&["certificate expired", "peer certificate: Expired"]) {
        "its certificate has expired, by this machine's clock; the server needs a new one".to_owned()
    } else if says(&["certificate not valid yet", "peer certificate: NotValidYet"]) {
        "its certificate is not valid yet, by this machine's clock; is the clock right?".to_owned()
    } else {
        return None;
    })
}
