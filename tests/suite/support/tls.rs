//! Issues certificates, and puts TLS in front of a server that has none.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use super::names::unique;

/// An authority that issues certificates. Their files go with it.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, each in a file of its own, and both in one.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) both: PathBuf,
}

impl Authority {
    /// One that nobody trusts yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, unique("authority"));
        let authority = Authority {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
            folder: tempfile::tempdir()?,
        };
        std::fs::write(authority.file(), authority.issuer.pem())?;
        Ok(authority)
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name, and for this machine's address where the name is this machine's.
    pub(crate) fn issue(&self, name: &str) -> anyhow::Result<Issued> {
        let address = (name == "localhost").then_some("127.0.0.1");
        self.issue_with(CertificateParams::new(
            [name].into_iter().chain(address).map(str::to_owned).collect::<Vec<_>>(),
        )?)
    }

    /// One that has expired.
    pub(crate) fn issue_expired(&self, name: &str) -> anyhow::Result<Issued> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.issue_with(params)
    }

    fn issue_with(&self, params: CertificateParams) -> anyhow::Result<Issued> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let name = unique("issued");
        let file = |end: &str, content: &str| -> anyhow::Result<PathBuf> {
            let path = self.folder.path().join(format!("{name}.{end}"));
            std::fs::write(&path, content)?;
            Ok(path)
        };
        Ok(Issued {
            certificate: file("pem", &certificate)?,
            key: file("key", &key.serialize_pem())?,
            both: file("both", &(certificate + &key.serialize_pem()))?,
        })
    }
}

/// A server behind TLS: what is decrypted goes on to it.
pub(crate) struct Tls {
    port: u16,
    accepting: AbortHandle,
}

impl Tls {
    /// Shows this certificate to clients; wants one of them that `clients` issued, if told.
    pub(crate) async fn before(
        server: SocketAddr,
        shown: &Issued,
        clients: Option<&Authority>,
    ) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone())?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let key = PrivateKeyDer::from_pem_file(&shown.key)?;
        let config =
            builder.with_single_cert(vec![CertificateDer::from_pem_file(&shown.certificate)?], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Ok(Tls { port, accepting: accepting.abort_handle() })
    }

    /// A URI of MongoDB with what an encrypted connection needs: whom to trust, and what to show.
    pub(crate) fn uri(&self, host: &str, trusted: &Path, shown: Option<&Path>) -> String {
        let encoded = |file: &Path| file.display().to_string().replace('/', "%2F");
        let shown = shown.map(|file| format!("&tlsCertificateKeyFile={}", encoded(file))).unwrap_or_default();
        let (port, trusted) = (self.port, encoded(trusted));
        format!("mongodb://{host}:{port}/?directConnection=true&tls=true&tlsCAFile={trusted}{shown}")
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
