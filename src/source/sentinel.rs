//! Finds the primary through Redis Sentinel, anew for each connection.

use std::time::Duration;

use super::connection::Connection;
use redis::ConnectionInfo;

use super::access::{Access, info};
use super::error::SourceError;
use super::node::{ask, at};
use crate::caused::Caused;
use crate::config::SecretUrl;

/// Sentinels, and the name under which they know the primary.
#[derive(Debug, Clone)]
pub(super) struct Sentinels {
    infos: Vec<ConnectionInfo>,
    primary: String,
}

impl Sentinels {
    /// Reads their URLs.
    ///
    /// # Errors
    /// Fatal: one cannot be used. It is not repeated in the text.
    pub(super) fn new(urls: &[SecretUrl], primary: &str) -> Result<Self, SourceError> {
        let infos = urls.iter().map(|url| info("redis.sentinels", url)).collect::<Result<_, _>>()?;
        Ok(Sentinels { infos, primary: primary.to_owned() })
    }

    /// `access`, with the address that the first sentinel to answer names.
    ///
    /// # Errors
    /// Lost: none knows the primary.
    pub(super) async fn resolve(&self, access: &Access, timeout: Duration) -> Result<Access, SourceError> {
        let says = |last: &str| format!("no sentinel tells where the primary is: {last}");
        let mut last = Caused::from(says("redis.sentinels is empty"));
        let mut primary = redis::cmd("SENTINEL");
        primary.arg("get-master-addr-by-name").arg(&self.primary);
        for sentinel in &self.infos {
            let sentinel = Access { info: sentinel.clone(), ..access.clone() };
            match ask::<Option<(String, u16)>>(&sentinel, &primary, timeout).await {
                Ok(Some((host, port))) => return Ok(at(access, host, port)),
                Ok(None) => last = says(&format!("it does not know {:?}", self.primary)).into(),
                Err(error) => last = Caused::of(says(&error.to_string()), error),
            }
        }
        Err(SourceError::Lost(last))
    }
}

/// Checks that a server is the primary: for a while, sentinels may name one that was.
pub(super) async fn check_primary(connection: &mut Connection) -> Result<(), SourceError> {
    let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(connection).await?;
    let role: String =
        role.first().and_then(|role| redis::from_redis_value_ref(role).ok()).unwrap_or_default();
    if role == "master" {
        return Ok(());
    }
    Err(SourceError::Lost(format!("the server that the sentinels name is no primary but {role:?}").into()))
}
