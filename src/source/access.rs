//! Holds what connections to Redis are opened with. Where that is in files, or printed by a program, it follows them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::error::{SourceError, TLS};
use super::program::{printed_by, without_line_end};
use crate::caused::Caused;
use crate::config::{self, SecretUrl};
use crate::tls::PemFile;

/// The program that prints a password is run at most so often, however many connections are refused.
const RERUN: Duration = Duration::from_secs(1);

/// What a connection is opened with.
#[derive(Clone)]
pub(super) struct Access {
    /// Where the server is, and who asks.
    pub(super) info: ConnectionInfo,
    /// What encrypts the connection, where that is asked for.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// How many were made before.
    pub(super) number: u64,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What accesses are made of.
#[derive(Debug)]
pub(super) struct Credentials(Mutex<Kept>);

struct Kept {
    config: config::Redis,
    read: Read,
    access: Access,
    /// What the program printed last, if there is one.
    printed: Option<String>,
    asked: Option<Instant>,
    /// That is wanted anew.
    is_outdated: bool,
    /// Somebody wants all of it made anew, with what the system trusts by now.
    is_asked: bool,
    /// Why what was read last was of no use, if so.
    fault: Option<String>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads all of it, but for what a program prints.
    ///
    /// # Errors
    /// Fatal: something cannot be read, or cannot be used.
    pub(super) fn new(config: &config::Redis) -> Result<Self, SourceError> {
        let read = Read::now(config, None).map_err(fatal)?;
        let access = read.access(config, 0)?;
        let kept = Kept {
            config: config.clone(),
            read,
            access,
            printed: None,
            asked: None,
            is_outdated: true,
            is_asked: false,
            fault: None,
        };
        Ok(Credentials(kept.into()))
    }

    /// Who asks, as Redis knows it.
    pub(super) async fn user(&self) -> String {
        self.0.lock().await.access.info.redis_settings().username().unwrap_or("default").to_owned()
    }

    /// The address that the URL names.
    pub(super) async fn place(&self) -> String {
        self.0.lock().await.access.info.addr().to_string()
    }

    /// What to open a connection with now. What has changed is used from now on; where it is of no use, what was there before
    /// is.
    ///
    /// # Errors
    /// Lost: no password was printed yet.
    pub(super) async fn access(&self) -> Result<Access, SourceError> {
        let mut kept = self.0.lock().await;
        kept.look().await;
        if kept.has_none() {
            let none = || "redis.password_command has printed nothing yet".to_owned();
            return Err(SourceError::Lost(kept.fault.clone().unwrap_or_else(none).into()));
        }
        Ok(kept.access.clone())
    }

    /// What to use in place of what was refused, if there is something else by now.
    pub(super) async fn other_than(&self, refused: &Access) -> Result<Option<Access>, SourceError> {
        let refused_at = Instant::now();
        let mut kept = self.0.lock().await;
        // Many connections may be refused at once, and all but the first find that the program was run since.
        if let Some(asked) = kept.asked.filter(|asked| *asked < refused_at)
            && kept.access.number == refused.number
        {
            sleep_until(asked + RERUN).await;
            kept.is_outdated = true;
        }
        drop(kept);
        let other = self.access().await?;
        Ok(Some(other).filter(|other| other.number != refused.number))
    }

    /// Uses another configuration of the same server from now on.
    pub(super) async fn follow(&self, config: &config::Redis) {
        let mut kept = self.0.lock().await;
        kept.config = config.clone();
        (kept.is_asked, kept.is_outdated, kept.asked) = (true, true, None);
        kept.look().await;
    }
}

impl Kept {
    /// Reads all of it again, and tells once where that is of no use.
    async fn look(&mut self) {
        match self.renew().await {
            Ok(()) => self.fault = None,
            Err(error) => {
                let text = error.to_string();
                if self.fault.as_ref() != Some(&text) && !self.has_none() {
                    tracing::warn!("{text}; what was there before goes on being used");
                }
                self.fault = Some(text);
            }
        }
    }

    /// Whether a program is to print a password and never did.
    fn has_none(&self) -> bool {
        self.printed.is_none() && !self.config.password_command.is_empty()
    }

    async fn renew(&mut self) -> Result<(), SourceError> {
        let command = &self.config.password_command;
        if !command.is_empty() && self.is_outdated {
            if self.asked.is_some_and(|asked| asked.elapsed() < RERUN) {
                // It was of no use just now.
                return self.fault.clone().map_or(Ok(()), |fault| Err(fatal(fault)));
            }
            // Whoever gives up waiting for it leaves nothing behind: the next one runs it.
            let printed = printed_by(command.expose()).await;
            self.asked = Some(Instant::now());
            self.printed = Some(printed.map_err(|told| fatal(format!("redis.password_command: {told}")))?);
            self.is_outdated = false;
        }
        let read = Read::now(&self.config, self.printed.clone()).map_err(fatal)?;
        if read == self.read && !std::mem::take(&mut self.is_asked) {
            return Ok(());
        }
        let access = read.access(&self.config, self.access.number + 1)?;
        if place(&access.info) != place(&self.access.info) {
            return Err(fatal("redis.url names another server or database, which needs a restart".into()));
        }
        (self.read, self.access) = (read, access);
        Ok(())
    }
}

/// Whether two configurations are of the same server and database.
pub(super) fn is_same_place(one: &config::Redis, other: &config::Redis) -> bool {
    let place = |config: &config::Redis| info("redis.url", &config.url).ok().map(|info| place(&info));
    place(one) == place(other)
}

fn place(info: &ConnectionInfo) -> (bool, String, i64) {
    let is_encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    (is_encrypted, info.addr().to_string(), info.redis_settings().db())
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
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(fatal(format!(
            "{key} cannot be used: nobody is trusted unseen; {} names whom to trust",
            TLS.ca
        )));
    }
    Ok(info)
}

/// What files hold, and what a program printed.
#[derive(PartialEq, Eq)]
struct Read {
    url: SecretUrl,
    password: Option<String>,
    tls: TlsFiles,
}

impl Read {
    fn now(config: &config::Redis, printed: Option<String>) -> Result<Self, String> {
        let url = config.url_now().map_err(|told| format!("redis.url_file: {told}"))?;
        let password = match &config.password_file {
            Some(path) => Some(password(path).map_err(|told| format!("redis.password_file {told}"))?),
            None => printed,
        };
        Ok(Read { url, password, tls: TlsFiles::read(&config.tls)? })
    }

    fn access(&self, config: &config::Redis, number: u64) -> Result<Access, SourceError> {
        let info = self.login(info("redis.url", &self.url)?, config).map_err(fatal)?;
        let is_encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. })
            || config.sentinels.iter().any(|sentinel| sentinel.scheme() == Some("rediss"));
        let tls = is_encrypted.then(|| self.tls.client()).transpose().map_err(fatal)?;
        Ok(Access { info, tls: tls.map(Arc::new), number })
    }

    /// The same with the user and the password that are beside the URL.
    fn login(&self, info: ConnectionInfo, config: &config::Redis) -> Result<ConnectionInfo, String> {
        let mut settings = info.redis_settings().clone();
        let beside = if config.password_file.is_some() { "password_file" } else { "password_command" };
        let is_beside = config.password_file.is_some() || !config.password_command.is_empty();
        if is_beside && settings.password().is_some() {
            return Err(format!(
                "redis.{beside}: redis.url has a password, too; which is right is not guessed"
            ));
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        if let Some(user) = &config.username {
            if settings.username().is_some() {
                return Err("redis.username: redis.url has a user, too; which is right is not guessed".into());
            }
            if !is_beside && settings.password().is_none() {
                return Err("redis.username: there is no password; redis.password_file names one".into());
            }
            settings = settings.set_username(user);
        }
        Ok(info.set_redis_settings(settings))
    }
}

/// The password that a file holds. Its path is not told: whoever put the password itself there must not see it in a log.
fn password(path: &Path) -> Result<String, String> {
    let content = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let password = without_line_end(&content);
    if password.is_empty() { Err("names an empty file".into()) } else { Ok(password.to_owned()) }
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
