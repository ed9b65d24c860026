//! Holds URLs with passwords, and commands that print them, and shows them without.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// A query parameter whose name contains one of these (in lower case) is a secret.
const SECRET_PARAMETERS: [&str; 6] =
    ["pass", "pwd", "token", "secret", "credential", "authmechanismproperties"];

/// A URL that may hold a password: shown everywhere with secrets replaced by `***`.
///
/// Hiding does not depend on the URL being well formed. An `@` or `/` that should have been percent-encoded makes it
/// ambiguous what belongs to the password. Then more is hidden rather than less.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        SecretUrl(url.into())
    }

    /// The URL with its secrets.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part before `://`, which is never secret.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        let (scheme, _) = self.0.split_once("://")?;
        let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        (is_scheme && !scheme.is_empty()).then_some(scheme)
    }

    /// The URL without its secrets.
    fn redacted(&self) -> String {
        // Without a scheme it is no URL; it might be a bare password.
        let Some(scheme) = self.scheme() else { return HIDDEN.to_owned() };
        let rest = &self.0[scheme.len() + "://".len()..];
        // The last `@` of all, not of the authority: an unencoded password may hold `/`, `?` and `@`.
        let (userinfo, address) = match rest.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, rest),
        };
        let mut shown = format!("{scheme}://");
        if let Some(userinfo) = userinfo {
            shown.push_str(&redact_userinfo(userinfo));
            shown.push('@');
        }
        let (place, query) = match address.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (address, None),
        };
        if userinfo.is_some() || scheme == "unix" {
            shown.push_str(place);
        } else {
            shown.push_str(&redact_ports(place));
        }
        if let Some(query) = query {
            shown.push('?');
            shown.push_str(&query.split('&').map(redact_parameter).collect::<Vec<_>>().join("&"));
        }
        shown
    }
}

/// A program and its arguments, of which only the program is shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretCommand(Vec<String>);

impl SecretCommand {
    /// All of it.
    #[must_use]
    pub fn expose(&self) -> &[String] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn redacted(&self) -> Vec<&str> {
        let program = self.0.first().map(String::as_str);
        program.into_iter().chain(self.0.iter().skip(1).map(|_| HIDDEN)).collect()
    }
}

impl fmt::Debug for SecretCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.redacted().fmt(f)
    }
}

impl Serialize for SecretCommand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.redacted().serialize(serializer)
    }
}

/// Keeps the user's name, if it can be told from the password.
fn redact_userinfo(userinfo: &str) -> String {
    match userinfo.split_once(':') {
        Some((user, _)) if !user.contains(['/', '?', '#', '@']) => format!("{user}:{HIDDEN}"),
        // Often a password whose colon was forgotten.
        _ => HIDDEN.to_owned(),
    }
}

/// Hides what stands in a port's place and is no number: `user:password` without a host.
fn redact_ports(place: &str) -> String {
    let (hosts, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    hosts.split(',').map(redact_port).collect::<Vec<_>>().join(",") + path
}

fn redact_port(host: &str) -> Cow<'_, str> {
    // The colons of an IPv6 address are inside its brackets.
    let address_end = if host.starts_with('[') { host.find(']').unwrap_or(0) } else { 0 };
    match host[address_end..].split_once(':') {
        None => Cow::Borrowed(host),
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            Cow::Borrowed(host)
        }
        Some((name, _)) => Cow::Owned(format!("{}{name}:{HIDDEN}", &host[..address_end])),
    }
}

/// Hides the value of a secret parameter, and what is no `name=value`: it may be the rest of one
/// that held an unencoded `&`.
fn redact_parameter(parameter: &str) -> Cow<'_, str> {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret(name) => Cow::Owned(format!("{name}={HIDDEN}")),
        Some(_) => Cow::Borrowed(parameter),
        None if parameter.is_empty() => Cow::Borrowed(parameter),
        None => Cow::Borrowed(HIDDEN),
    }
}

/// A name with percent-encoding in it is taken for a secret: no option needs any.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains('%') || SECRET_PARAMETERS.iter().any(|secret| name.contains(secret))
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.redacted())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shows_all_but_the_secrets() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:pw@host:6379/2", "redis://:***@host:6379/2"),
            ("rediss://user:pw@host/#insecure", "rediss://user:***@host/#insecure"),
            ("redis://pw@host", "redis://***@host"),
            ("redis://user:pa/s?s@w#rd@host:1", "redis://user:***@host:1"),
            ("redis://us/er:pw@host", "redis://***@host"),
            ("redis://user:hunter22", "redis://user:***"),
            ("redis://:12345", "redis://:***"),
            ("redis://[::1]:6379,[::1]", "redis://[::1]:6379,[::1]"),
            ("unix:///run/redis.sock?db=1&pass=pw", "unix:///run/redis.sock?db=1&pass=***"),
            (
                "mongodb://u:p%40w@h1:1,h2:2,h3/db?replicaSet=rs0&tlsCertificateKeyFilePassword=x",
                "mongodb://u:***@h1:1,h2:2,h3/db?replicaSet=rs0&tlsCertificateKeyFilePassword=***",
            ),
            ("mongodb://u:p@h1,v:q@h2/", "mongodb://u:***@h2/"),
            (
                "mongodb+srv://h.example/?authMechanismProperties=AWS_SESSION_TOKEN:abc&appName=t",
                "mongodb+srv://h.example/?authMechanismProperties=***&appName=t",
            ),
            ("mongodb://h/?password=a&b", "mongodb://h/?password=***&***"),
            ("mongodb://h/?pass%77ord=x", "mongodb://h/?pass%77ord=***"),
            ("hunter2", "***"),
            ("hunter2?://x", "***"),
            ("", "***"),
        ] {
            let url = SecretUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
            assert_eq!(serde_json::to_value(&url).unwrap(), serde_json::json!(shown));
        }
    }

    proptest! {
        /// The output does not depend on the password, whatever is in it, encoded or not.
        #[test]
        fn a_password_leaves_no_trace(password in "\\PC{4,40}", user in "[a-z]{0,8}") {
            let url = SecretUrl::new(format!("mongodb://{user}:{password}@h1:27017,h2/db?w=1"));
            prop_assert_eq!(url.to_string(), format!("mongodb://{user}:***@h1:27017,h2/db?w=1"));
        }

        #[test]
        fn a_secret_parameter_leaves_no_trace(
            secret in "[^&@?]{4,40}",
            name in "(PASSWORD|authMechanismProperties|xTokeny|client_secret)",
        ) {
            let url = SecretUrl::new(format!("redis://h?{name}={secret}&db=1"));
            prop_assert_eq!(url.to_string(), format!("redis://h?{name}=***&db=1"));
        }

        /// Without a host the password stands in a port's place.
        #[test]
        fn a_password_without_a_host_leaves_no_trace(password in "[^@?/,\\[\\]]{4,40}") {
            let url = SecretUrl::new(format!("redis://:{password}"));
            prop_assert_eq!(url.to_string(), "redis://:***");
        }
    }
}
