//! Holds what connections to Redis are opened with. Where that is in files, it follows them.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::io::tcp::TcpSettings;
use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use super::error::{SourceError, TLS};
use crate::caused::Caused;
use crate::config::{self, SecretUrl};
use crate::tls::PemFile;

/// What a connection is opened with.
#[derive(Clone)]
pub(super) struct Access {
    /// Where the server is, and who asks.
    pub(super) info: ConnectionInfo,
    /// What encrypts the connection, if that is asked for. The address has the same in the form that the client library takes.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// What accesses are made of.
#[derive(Debug)]
pub(super) struct Credentials(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    config: config::Redis,
    files: TlsFiles,
    access: Access,
    /// Why the files were of no use when they were last read, if so.
    fault: Option<String>,
}

impl Credentials {
    /// Reads all of it.
    ///
    /// # Errors
    /// Fatal: something cannot be read, or cannot be used.
    pub(super) fn new(config: &config::Redis) -> Result<Self, SourceError> {
        let files = TlsFiles::read(&config.tls).map_err(fatal)?;
        let access = access(config, &files)?;
        Ok(Credentials(Kept { config: config.clone(), files, access, fault: None }.into()))
    }

    /// Who asks, as Redis knows it.
    pub(super) fn user(&self) -> String {
        self.0.lock().access.info.redis_settings().username().unwrap_or("default").to_owned()
    }

    /// What to open a connection with now. Files that have changed are used from now on; where they are of no use, what was
    /// in them before is.
    pub(super) fn access(&self) -> Access {
        let mut kept = self.0.lock();
        match kept.renewed() {
            Ok(()) => kept.fault = None,
            Err(error) => {
                let text = error.to_string();
                if kept.fault.as_ref() != Some(&text) {
                    tracing::warn!("{text}; what it held before goes on being used");
                    kept.fault = Some(text);
                }
            }
        }
        kept.access.clone()
    }
}

impl Kept {
    fn renewed(&mut self) -> Result<(), SourceError> {
        let files = TlsFiles::read(&self.config.tls).map_err(fatal)?;
        if files != self.files {
            self.access = access(&self.config, &files)?;
            self.files = files;
        }
        Ok(())
    }
}

fn fatal(text: String) -> SourceError {
    SourceError::Fatal(text.into())
}

/// What a URL says.
///
/// # Errors
/// Fatal: it cannot be used. It is not repeated in the text.
pub(super) fn info(key: &str, url: &SecretUrl) -> Result<ConnectionInfo, SourceError> {
    let bad = |error: redis::RedisError| {
        let what = error.detail().unwrap_or(error.category());
        SourceError::Fatal(Caused::of(format!("{key} cannot be used: {what}"), error))
    };
    let info: ConnectionInfo = url.expose().into_connection_info().map_err(bad)?;
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    // Opening tells what is wrong with it; nothing is sent.
    Client::open(info.clone()).map_err(bad)?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(fatal(format!(
            "{key} cannot be used: nobody is trusted unseen; {} names whom to trust",
            TLS.ca
        )));
    }
    Ok(info)
}

fn access(config: &config::Redis, files: &TlsFiles) -> Result<Access, SourceError> {
    let info = info("redis.url", &config.url)?;
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Ok(Access { info, tls: None });
    }
    let tls = files.client().map_err(fatal)?;
    let client = Client::build_with_tls(info, files.certificates()).map_err(|error| {
        SourceError::Fatal(Caused::of(format!("redis.tls cannot be used: {error}"), error))
    })?;
    Ok(Access { info: client.get_connection_info().clone(), tls: Some(Arc::new(tls)) })
}

/// The files of `redis.tls`.
#[derive(Debug, PartialEq, Eq)]
struct TlsFiles {
    ca: Option<PemFile>,
    /// The certificate, and its key.
    own: Option<(PemFile, PemFile)>,
}

impl TlsFiles {
    fn read(tls: &config::Tls) -> Result<Self, String> {
        let certificate = PemFile::read("redis.tls.cert_file", tls.cert_file.as_deref())?;
        let key = PemFile::read("redis.tls.key_file", tls.key_file.as_deref())?;
        let ca = PemFile::read(TLS.ca, tls.ca_file.as_deref())?;
        Ok(TlsFiles { ca, own: certificate.zip(key) })
    }

    /// For the client library, which parses them itself.
    fn certificates(&self) -> TlsCertificates {
        let own = |(certificate, key): &(PemFile, PemFile)| ClientTlsConfig {
            client_cert: certificate.content().to_vec(),
            client_key: key.content().to_vec(),
        };
        TlsCertificates {
            client_tls: self.own.as_ref().map(own),
            root_cert: self.ca.as_ref().map(|ca| ca.content().to_vec()),
        }
    }

    /// For connections that are opened without it.
    fn client(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        if let Some(ca) = &self.ca {
            for authority in ca.certificates()? {
                roots.add(authority).map_err(|error| ca.fault(&format!("cannot be used: {error}")))?;
            }
        } else {
            let found = rustls_native_certs::load_native_certs();
            if let Some(error) = found.errors.first().filter(|_| found.certs.is_empty()) {
                return Err(format!(
                    "the system's certificates cannot be read: {error}; {} names others",
                    TLS.ca
                ));
            }
            roots.add_parsable_certificates(found.certs);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.with_root_certificates(roots);
        let Some((certificate, key)) = &self.own else { return Ok(builder.with_no_client_auth()) };
        let client = builder.with_client_auth_cert(certificate.certificates()?, key.private_key()?);
        client.map_err(|error| key.fault(&format!("does not go with {}: {error}", TLS.certificate)))
    }
}
