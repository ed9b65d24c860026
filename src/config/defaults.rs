//! Lists the default values. `config.toml` shows each of them; a test holds the two equal.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;

use super::{
    Batch, Buffer, DeadLetter, Http, Lanes, Lease, Log, LogFormat, Mongodb, Patience, Receipts, Redis,
    SecretCommand, SecretUrl, Shutdown, Tls, Tombstones,
};

impl Default for Redis {
    fn default() -> Self {
        Redis {
            url: SecretUrl::new("redis://127.0.0.1:6379"),
            url_file: None,
            username: None,
            password_file: None,
            password_command: SecretCommand::default(),
            sentinels: Vec::new(),
            sentinel_primary: "mymaster".into(),
            cluster: Vec::new(),
            tls: Tls::default(),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Mongodb {
    fn default() -> Self {
        Mongodb {
            uri: SecretUrl::new("mongodb://127.0.0.1:27017"),
            uri_file: None,
            database: "collab".into(),
            write_concern: "majority".into(),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            max_ops: 1000,
            max_bytes: ByteSize::mib(8),
            max_delay: Duration::from_millis(50),
            backlog_delay: Duration::from_secs(2),
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer { max_bytes: ByteSize::mib(64), max_events: 1_000_000 }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes { count: 4 }
    }
}

impl Default for Tombstones {
    fn default() -> Self {
        Tombstones { ttl: Duration::from_secs(24 * 3600) }
    }
}

impl Default for DeadLetter {
    fn default() -> Self {
        DeadLetter { suffix: ":dead".into(), patience: Patience::of(Duration::from_secs(15 * 60)) }
    }
}

impl Default for Receipts {
    fn default() -> Self {
        Receipts {
            enabled: false,
            channel: "tidegate:durable:".into(),
            dead_channel: "tidegate:dead:".into(),
        }
    }
}

impl Default for Lease {
    fn default() -> Self {
        Lease { ttl: Duration::from_secs(10) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http { listen: SocketAddr::from(([127, 0, 0, 1], 9464)), show_payloads: false }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { deadline: Duration::from_secs(25) }
    }
}
