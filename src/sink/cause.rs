//! Words in one line why MongoDB cannot be asked: the part of the driver's error that people can act on.

use mongodb::error::ErrorKind;

use crate::tls::{TlsNames, explained};

/// What the settings of connections to MongoDB are called.
pub(super) const TLS: TlsNames = TlsNames {
    url: "mongodb.uri",
    mark: "asks for it",
    ca: "tlsCAFile of mongodb.uri",
    certificate: "tlsCertificateKeyFile of mongodb.uri",
};

/// Servers of which it is told; what ails one usually ails all.
const SERVERS: usize = 3;

/// What a server that wants TLS does to whoever does not begin with it.
const ENDED: &str = " (the server ended the connection; does it want TLS, and does mongodb.uri ask for it?)";

/// What an error of the driver says.
pub(super) fn cause(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ServerSelection { message, .. } => selection(message),
        ErrorKind::ConnectionPoolCleared { message, .. } => explained(&cleared(message), &TLS),
        kind => explained(&kind.to_string(), &TLS),
    }
}

/// Of connections that ended together: why the first of them did. `... failed with: Kind: E, labels: { ... }, ...`
fn cleared(message: &str) -> String {
    let cause = message.split_once("failed with: Kind: ").map(|(_, cause)| cause);
    cause.map_or(message, |cause| cause.split(", labels: {").next().unwrap_or(cause)).to_owned()
}

/// Of a search for a server that found none: what each server answered last. The driver has it in its text alone:
/// `...Topology: { Type: T, Set Name: N, Servers: [ { Address: A, Type: T, ..., Error: E }, ... ] }`
fn selection(message: &str) -> String {
    let Some((_, topology)) = message.split_once("Topology: ") else {
        return format!("no MongoDB server can be reached: {message}");
    };
    let (of_all, servers) = topology.split_once("Servers: [ ").unwrap_or((topology, ""));
    let told: Vec<_> = servers.split("{ Address: ").skip(1).map(server).collect();
    let set = of_all.split_once("Set Name: ").map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or(rest));
    let why = match (told.as_slice(), set) {
        ([], Some(set)) => {
            format!("none of the servers named is a member of the replica set \"{set}\" (replicaSet)")
        }
        ([], None) => "none is known".to_owned(),
        (told, _) => {
            let more = told.len().saturating_sub(SERVERS);
            let told = told[..told.len() - more].join("; ");
            if more > 0 { format!("{told}; and {more} more") } else { told }
        }
    };
    format!("no MongoDB server can be reached: {why}")
}

/// `A, Type: T, ..., Error: E }, `
fn server(text: &str) -> String {
    let (address, rest) = text.split_once(", Type: ").unwrap_or((text, ""));
    let field = |name: &str| rest.split_once(name).map(|(_, value)| value);
    let end = |value: &str| -> String {
        let value = value.split(", labels: {").next().unwrap_or(value);
        value.trim_end_matches([' ', '}', ']', ',']).to_owned()
    };
    if let Some(error) = field(", Error: ").or(field(", Compatiblity Error: ")) {
        let error = end(error);
        let error = error.strip_prefix("Kind: ").unwrap_or(&error);
        let ended = if error.ends_with("unexpected end of file") { ENDED } else { "" };
        return format!("{address}: {}{ended}", explained(error, &TLS));
    }
    match rest.split([',', ' ']).next().unwrap_or_default() {
        "Unknown" | "" => format!("{address}: has not answered yet"),
        kind => format!("{address}: is no primary ({kind})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_topology_each_servers_last_error_is_told() {
        let text = "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Set Name: rs0, \
            Servers: [ { Address: a:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {}, \
            source: None, server response: None }, { Address: b:2, Type: RsSecondary, Average RTT: 1ms, Max Wire Version: \
            25 }, { Address: c:3, Type: Unknown } ] }";
        assert_eq!(
            selection(text),
            "no MongoDB server can be reached: a:1: I/O error: Connection refused (os error 111); \
             b:2: is no primary (RsSecondary); c:3: has not answered yet"
        );
        let text = "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Set Name: rs1 }";
        assert_eq!(
            selection(text),
            "no MongoDB server can be reached: none of the servers named is a member of the replica set \"rs1\" (replicaSet)"
        );
    }

    #[test]
    fn of_connections_that_ended_together_the_first_ones_error_is_told() {
        let text = "Connection pool for a:1 cleared because another operation failed with: Kind: SCRAM failure: Authentication \
            failed., labels: {}, source: Some(Error { kind: Command(CommandError { code: 18 }) }), server response: None";
        assert_eq!(cleared(text), "SCRAM failure: Authentication failed.");
        assert_eq!(cleared("something else"), "something else");
    }

    #[test]
    fn of_many_servers_a_few_are_told() {
        let server =
            "{ Address: a:1, Type: Unknown, Error: Kind: I/O error: refused, labels: {}, source: None }";
        let text = format!("Topology: {{ Type: Unknown, Servers: [ {} ] }}", [server; 7].join(", "));
        assert_eq!(selection(&text).matches("a:1").count(), SERVERS);
        assert!(selection(&text).ends_with("; and 4 more"));
    }

    #[test]
    fn a_text_that_is_none_of_the_drivers_of_today_is_still_told() {
        assert_eq!(selection("something else"), "no MongoDB server can be reached: something else");
    }
}
