//! Opens clients of MongoDB, and follows the URI where that, or a certificate, is in a file.

use std::sync::Arc;
use std::time::Duration;

use mongodb::Database;
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, Tls};
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;

use super::SinkError;
use super::cause::{TLS, cause};
use crate::caused::Caused;
use crate::config::{self, SecretUrl};
use crate::tls::PemFile;

/// Connections to MongoDB, by the URI as it is now.
#[derive(Debug)]
pub(crate) struct Connections {
    config: Mutex<config::Mongodb>,
    /// None before any were opened.
    now: RwLock<Option<Opened>>,
    /// Why what was read last was of no use, if so. Who opens some has it locked.
    fault: tokio::sync::Mutex<Option<String>>,
}

/// A client, and what it was made of.
#[derive(Debug)]
struct Opened {
    database: Database,
    uri: SecretUrl,
    files: Vec<PemFile>,
}

impl Connections {
    /// None are opened yet.
    pub(crate) fn new(config: &config::Mongodb) -> Arc<Self> {
        let (config, now, fault) = (config.clone().into(), RwLock::default(), Default::default());
        Arc::new(Connections { config, now, fault })
    }

    /// Whether a configuration is of the same servers, so that what they are reached with may change by itself.
    #[must_use]
    pub(crate) fn is_same(one: &config::Mongodb, other: &config::Mongodb) -> bool {
        servers(&one.uri) == servers(&other.uri)
    }

    /// The database that is written to. The first time, a client is opened.
    ///
    /// # Errors
    /// Fatal: the connection string cannot be used. Transient: names cannot be looked up now.
    pub(super) async fn database(&self) -> Result<Database, SinkError> {
        let open = || self.now.read().as_ref().map(|opened| opened.database.clone());
        if let Some(database) = open() {
            return Ok(database);
        }
        let _alone = self.fault.lock().await;
        if let Some(database) = open() {
            return Ok(database);
        }
        let opened = self.open().await?;
        Ok(self.now.write().insert(opened).database.clone())
    }

    async fn open(&self) -> Result<Opened, SinkError> {
        let config = self.config.lock().clone();
        let uri = config.uri_now().map_err(|told| SinkError::fatal(format!("mongodb.uri_file: {told}")))?;
        open(&config::Mongodb { uri, ..config }).await
    }

    /// Opens a client anew if it would be made of something else by now. What is under way ends with the old one. Where what
    /// there is now is of no use, the old one goes on.
    pub(super) async fn renew(&self) {
        // Whoever comes second finds it done.
        if let Ok(mut fault) = self.fault.try_lock() {
            self.renew_alone(&mut fault).await;
        }
    }

    async fn renew_alone(&self, fault: &mut Option<String>) {
        if !self.is_outdated() {
            return;
        }
        let told = match self.open().await {
            Ok(opened) if self.is_elsewhere(&opened) => {
                "mongodb.uri names other servers, which needs a restart".to_owned()
            }
            Ok(opened) => {
                tracing::info!(
                    "mongodb.uri, or a file that it names, has changed: connections are opened anew"
                );
                *self.now.write() = Some(opened);
                *fault = None;
                return;
            }
            Err(error) => error.to_string(),
        };
        if fault.as_ref() != Some(&told) {
            tracing::warn!("{told}; what was there before goes on being used");
            *fault = Some(told);
        }
    }

    /// Uses another configuration of the same servers from now on.
    pub(crate) async fn follow(&self, config: &config::Mongodb) {
        *self.config.lock() = config.clone();
        self.renew_alone(&mut *self.fault.lock().await).await;
    }

    fn is_outdated(&self) -> bool {
        let now = self.now.read();
        let Some(opened) = &*now else { return false };
        self.config.lock().uri_now().as_ref() != Ok(&opened.uri)
            || opened.files.iter().any(|file| file.has_changed())
    }

    fn is_elsewhere(&self, opened: &Opened) -> bool {
        self.now.read().as_ref().is_some_and(|now| servers(&now.uri) != servers(&opened.uri))
    }

    /// Ends the client's connections and sessions, which it else does in the background while the runtime ends.
    pub(super) async fn close(&self) {
        let Some(opened) = self.now.write().take() else { return };
        // Whether the server heard of it matters little.
        let closing = opened.database.client().clone().shutdown().immediate(true);
        let _ = timeout(Duration::from_secs(1), closing).await;
    }
}

/// The scheme and the hosts of a URI.
fn servers(uri: &SecretUrl) -> (Option<&str>, &str) {
    let (_, rest) = uri.expose().split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    (uri.scheme(), authority.rsplit('@').next().unwrap_or_default())
}

/// Opens a client. Of a `mongodb+srv` URI, the servers' names are looked up; else nothing is sent yet.
///
/// # Errors
/// The connection string cannot be used; or the names cannot be looked up now, which is no more fatal than a server that
/// does not answer.
async fn open(config: &config::Mongodb) -> Result<Opened, SinkError> {
    let unusable = |error: mongodb::error::Error| {
        SinkError::fatal(Caused::of(format!("mongodb.uri cannot be used: {}", cause(&error.kind)), error))
    };
    let parse = timeout(config.timeout, ClientOptions::parse(config.uri.expose()));
    let mut options = match parse.await {
        Ok(Ok(options)) => options,
        Ok(Err(error)) if matches!(&*error.kind, ErrorKind::DnsResolve { .. } | ErrorKind::Io(_)) => {
            return Err(SinkError::transient(Caused::of(
                format!("mongodb.uri: {}", cause(&error.kind)),
                error,
            )));
        }
        Ok(Err(error)) => return Err(unusable(error)),
        Err(_) => {
            let text = format!("mongodb.uri: no answer of the DNS within {:?}", config.timeout);
            return Err(SinkError::transient(text));
        }
    };
    let files = files(&options).map_err(SinkError::fatal)?;
    options.app_name.get_or_insert_with(|| "tidegate".to_owned());
    // The search for a server has to end before `timeout` does: only its error says what ails them. A connection has to
    // fail before the search ends.
    let selection = (config.timeout / 2).min(Duration::from_secs(5));
    options.server_selection_timeout = Some(selection);
    options.connect_timeout.get_or_insert(selection * 4 / 5);
    let database = mongodb::Client::with_options(options).map_err(unusable)?.database(&config.database);
    Ok(Opened { database, uri: config.uri.clone(), files })
}

/// The files that the URI names, parsed once. The driver takes a file without a certificate for one that trusts nobody, and does
/// not say which one it cannot read.
fn files(options: &ClientOptions) -> Result<Vec<PemFile>, String> {
    let Some(Tls::Enabled(tls)) = &options.tls else { return Ok(Vec::new()) };
    let ca = PemFile::read(TLS.ca, tls.ca_file_path.as_deref())?;
    let own = PemFile::read(TLS.certificate, tls.cert_key_file_path.as_deref())?;
    for file in ca.iter().chain(&own) {
        file.certificates()?;
    }
    own.as_ref().map(PemFile::private_key).transpose()?;
    Ok(ca.into_iter().chain(own).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_credentials_are_of_the_same_servers() {
        let same = |one: &str, other: &str| {
            let of = |uri: &str| config::Mongodb { uri: SecretUrl::new(uri), ..config::Mongodb::default() };
            Connections::is_same(&of(one), &of(other))
        };
        for other in
            ["mongodb://a:1,b:2", "mongodb://u:p@a:1,b:2/?tls=true", "mongodb://u:q%40@a:1,b:2/x?appName=y@z"]
        {
            assert!(same("mongodb://u:p@a:1,b:2/", other), "{other}");
        }
        for other in ["mongodb://a:1", "mongodb+srv://a:1,b:2", "mongodb://b:2@a:1", "mongodb://a:1,b:3/"] {
            assert!(!same("mongodb://u:p@a:1,b:2/", other), "{other}");
        }
    }
}
