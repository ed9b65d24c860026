//! Holds the rules for URLs that can be checked without a server.

use super::check::Violations;
use super::{KeyPath, SecretUrl};

/// What may stand behind the question mark of a Redis URL. Anything else would be passed over in silence.
const OF_REDIS: [&str; 1] = ["protocol"];
const OF_SOCKETS: [&str; 4] = ["db", "user", "pass", "protocol"];

/// A URL of one of these schemes, that names a server.
pub(super) fn check_url(url: &SecretUrl, key: impl Into<KeyPath>, schemes: &[&str], found: &mut Violations) {
    let key = key.into();
    let expected = || schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ");
    let scheme = url.scheme().filter(|scheme| schemes.contains(scheme));
    let Some(scheme) = scheme else {
        return found.require(false, key, format!("must begin with {}", expected()));
    };
    let rest = &url.expose()[scheme.len() + "://".len()..];
    found.require(!rest.trim_matches('/').is_empty(), key.clone(), "must name a server");
    found.require(!rest.contains(char::is_control), key.clone(), "must not contain control characters");
    check_query(scheme, rest, key, found);
}

/// The parameters of a Redis URL. MongoDB's driver refuses its own.
fn check_query(scheme: &str, rest: &str, key: KeyPath, found: &mut Violations) {
    let known: &[&str] = match scheme {
        "redis" | "rediss" => &OF_REDIS,
        "unix" => &OF_SOCKETS,
        _ => return,
    };
    // A password that is not encoded may have a question mark.
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    let Some((_, query)) = address.split_once('?') else { return };
    for name in query.split('&').map(|parameter| parameter.split('=').next().unwrap_or_default()) {
        if known.contains(&name) {
            continue;
        }
        // Others may be a part of a password.
        let message = match name {
            "db" => {
                "has no parameter `db`: the database is the last part of the path, as in redis://host:6379/1"
                    .to_owned()
            }
            _ => format!("has a parameter that would be passed over; known here: {}", known.join(", ")),
        };
        found.require(false, key.clone(), message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations;

    fn of(url: &str) -> String {
        violations(&format!("queues = [{{ key = 'a' }}]\nnative.collections = ['c']\nredis.url = '{url}'"))
    }

    #[test]
    fn what_would_be_passed_over_is_refused() {
        for url in [
            "redis://h/1?protocol=resp3",
            "redis://:what?db=1@h/1",
            "unix:///run/redis.sock?db=1&user=u&pass=p",
            "rediss://h:6380",
        ] {
            assert_eq!(of(url), "", "{url}");
        }
        insta::assert_snapshot!(of("redis://h?db=1"), @"`redis.url`: has no parameter `db`: the database is the last part of the path, as in redis://host:6379/1");
        insta::assert_snapshot!(of("redis://h?ssl=hunter2&password=hunter2"), @"
`redis.url`: has a parameter that would be passed over; known here: protocol
`redis.url`: has a parameter that would be passed over; known here: protocol
");
        insta::assert_snapshot!(of("unix:///run/redis.sock?database=1"), @"`redis.url`: has a parameter that would be passed over; known here: db, user, pass, protocol");
    }
}
