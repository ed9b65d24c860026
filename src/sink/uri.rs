//! Reads a connection string as the driver does, without a server: for `tidegate check`, and before every start.

use mongodb::options::ConnectionString;

use super::cause::cause;
use crate::config;

/// Characters that mean something in a connection string, and so cannot stand in a user's name or password.
/// <https://www.mongodb.com/docs/manual/reference/connection-string/>
const RESERVED: [char; 7] = ['/', '?', '#', '[', ']', '@', ':'];

/// Whether a connection string can be used; and what about it is allowed and probably not meant.
///
/// # Errors
/// What is wrong with it, without what may be a secret.
pub fn check_uri(config: &config::Mongodb) -> Result<Option<String>, String> {
    let uri = config.uri.expose();
    if is_unencoded(uri) {
        return Err("mongodb.uri has a user or password with a character that must be percent-encoded: \
                    @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25"
            .into());
    }
    let parsed = ConnectionString::parse(uri).map_err(|error| unusable(&cause(&error.kind)))?;
    let database = &config.database;
    let Some(named) = parsed.default_database.filter(|named| named != database) else { return Ok(None) };
    match parsed.credential {
        Some(credential) if credential.source.as_ref().is_none_or(|source| *source == named) => {
            Ok(Some(format!(
                "mongodb.uri names the database {named:?}: the user is looked up there, and documents go to \
             mongodb.database = {database:?}; authSource={named} says the same"
            )))
        }
        _ => Err(format!(
            "mongodb.uri names the database {named:?}, and documents would go to mongodb.database = {database:?}: leave \
             the one of the URI out, or set mongodb.database"
        )),
    }
}

/// What the driver says is wrong, for whoever did not build it.
fn unusable(told: &str) -> String {
    let told = told.trim_start_matches("An invalid argument was provided: ");
    if told.contains("-compression feature flag") {
        return "mongodb.uri asks for a compressor that is not built in: zstd is".to_owned();
    }
    format!("mongodb.uri cannot be used: {told}")
}

/// Whether a name or a password has a reserved character as it is. What the driver then says of it may be a part of the
/// password.
fn is_unencoded(uri: &str) -> bool {
    let Some((_, rest)) = uri.split_once("://") else { return false };
    let Some((userinfo, _)) = rest.rsplit_once('@') else { return false };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    [user, password].iter().any(|part| part.contains(RESERVED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mongodb, SecretUrl};

    fn told(uri: &str) -> String {
        let config = Mongodb { uri: SecretUrl::new(uri), ..Mongodb::default() };
        match check_uri(&config) {
            Ok(None) => "fine".into(),
            Ok(Some(doubt)) => format!("doubt: {doubt}"),
            Err(error) => error,
        }
    }

    #[test]
    fn what_can_be_used_is_fine() {
        for uri in [
            "mongodb://h",
            "mongodb://h1:1,h2:2/?replicaSet=rs0&directConnection=false",
            "mongodb://h/collab",
            "mongodb+srv://u:p%40ss@cluster.example/?w=majority",
            "mongodb://u:p@h/?authSource=admin",
            "mongodb://h/?compressors=zstd",
        ] {
            assert_eq!(told(uri), "fine", "{uri}");
        }
    }

    #[test]
    fn a_wrong_option_is_named() {
        insta::assert_snapshot!(told("mongodb://h/?directConection=true"), @"mongodb.uri cannot be used: directconection is an invalid option. An option with a similar name exists: directconnection");
        insta::assert_snapshot!(told("mongodb://h/?useUnifiedTopology=true"), @"mongodb.uri cannot be used: useunifiedtopology is an invalid option");
        insta::assert_snapshot!(told("mongodb://h/?compressors=snappy"), @"mongodb.uri asks for a compressor that is not built in: zstd is");
        insta::assert_snapshot!(told("mongodb://h:port"), @"mongodb.uri cannot be used: invalid server address h:port: the port must be an integer between 1 and 65535, got port");
        insta::assert_snapshot!(told("mongodb://h/?tlsCAFile"), @"mongodb.uri cannot be used: connection string option is not a 'key=value' pair: tlsCAFile");
    }

    #[test]
    fn a_raw_password_is_not_repeated() {
        for uri in [
            "mongodb://u:hunter@2@h",
            "mongodb://u:hunter/2@h/db",
            "mongodb://u:hun:ter2@h",
            "mongodb://u:hunter?2@h/?w=1",
        ] {
            let told = told(uri);
            assert!(told.contains("must be percent-encoded") && !told.contains("hunter"), "{told}");
        }
    }

    #[test]
    fn a_database_is_used_or_told() {
        insta::assert_snapshot!(told("mongodb://h/other"), @r#"mongodb.uri names the database "other", and documents would go to mongodb.database = "collab": leave the one of the URI out, or set mongodb.database"#);
        insta::assert_snapshot!(told("mongodb://u:p@h/admin"), @r#"doubt: mongodb.uri names the database "admin": the user is looked up there, and documents go to mongodb.database = "collab"; authSource=admin says the same"#);
        insta::assert_snapshot!(told("mongodb://u:p@h/other?authSource=admin"), @r#"mongodb.uri names the database "other", and documents would go to mongodb.database = "collab": leave the one of the URI out, or set mongodb.database"#);
        assert_eq!(told("mongodb://u:p@h/admin?authSource=admin").split(':').next(), Some("doubt"));
    }
}
