//! Opens clients of MongoDB.

use std::time::Duration;

use mongodb::Database;
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, Tls};
use tokio::time::timeout;

use super::SinkError;
use super::cause::{TLS, cause};
use crate::caused::Caused;
use crate::config;
use crate::tls::PemFile;

/// Opens a client. Of a `mongodb+srv` URI, the servers' names are looked up; else nothing is sent yet.
///
/// # Errors
/// The connection string cannot be used; or the names cannot be looked up now, which is no more fatal than a server that
/// does not answer.
pub(crate) async fn database(config: &config::Mongodb) -> Result<Database, SinkError> {
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
    check_files(&options)?;
    options.app_name.get_or_insert_with(|| "tidegate".to_owned());
    // The search for a server has to end before `timeout` does: only its error says what ails them. A connection has to
    // fail before the search ends.
    let selection = (config.timeout / 2).min(Duration::from_secs(5));
    options.server_selection_timeout = Some(selection);
    options.connect_timeout.get_or_insert(selection * 4 / 5);
    Ok(mongodb::Client::with_options(options).map_err(unusable)?.database(&config.database))
}

/// Parses the files that the URI names. The driver takes a file without a certificate for one that trusts nobody, and does not
/// say which one it cannot read.
fn check_files(options: &ClientOptions) -> Result<(), SinkError> {
    let Some(Tls::Enabled(tls)) = &options.tls else { return Ok(()) };
    let checked = || {
        if let Some(ca) = PemFile::read(TLS.ca, tls.ca_file_path.as_deref())? {
            ca.certificates()?;
        }
        if let Some(own) = PemFile::read(TLS.certificate, tls.cert_key_file_path.as_deref())? {
            own.certificates()?;
            own.private_key()?;
        }
        Ok(())
    };
    checked().map_err(|text: String| SinkError::fatal(text))
}
