//! Opens a queue's wire when there is something to read, and closes it when there was nothing for a while.

use std::time::Duration;

use tokio::time::Instant;

use super::connect::{Redis, field};
use super::connection::Connection;
use super::error::SourceError;
use super::wire::Wire;

/// A wire that was not used for so long is closed.
const KEPT: Duration = Duration::from_secs(60);

/// One that was used more recently than this is taken for open. Redis, or somebody on the way, closes what is idle.
const SURE: Duration = Duration::from_secs(1);

/// A wire to the server that a queue is taken over at, open while it is used.
///
/// It must not lead to another server, nor to one that was started again since. What was numbered may be lost there, and other
/// events may stand in its places. So a wire that is opened later is compared by the server's `run_id`, which is drawn
/// anew at each start.
#[derive(Debug)]
pub(super) struct OnDemandWire {
    redis: Redis,
    /// Of the server. One that has none has its wire opened before the takeover, which checks the owner, and kept.
    run_id: Option<String>,
    open: Option<(Wire, Instant)>,
}

impl OnDemandWire {
    /// One to the server that `connection` leads to, over which the queue is about to be taken over.
    pub(super) async fn beside(redis: &Redis, connection: &mut Connection) -> Result<Self, SourceError> {
        let run_id = Some(field(connection.info().await?, "run_id:").to_owned()).filter(|id| !id.is_empty());
        let open = match run_id {
            Some(_) => None,
            None => Some((redis.wire().await?, Instant::now())),
        };
        Ok(OnDemandWire { redis: redis.clone(), run_id, open })
    }

    /// Whether it need not be opened.
    #[must_use]
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The wire, opened if it is not.
    ///
    /// # Errors
    /// Lost: it cannot be opened, or another server is found there.
    pub(super) async fn get(&mut self) -> Result<&mut Wire, SourceError> {
        let open = match self.open.take() {
            Some((wire, used)) if self.run_id.is_none() || used.elapsed() < SURE => Some(wire),
            Some((mut wire, _)) => (!wire.was_closed().await).then_some(wire),
            None => None,
        };
        let wire = match open {
            Some(wire) => wire,
            None => self.opened().await?,
        };
        Ok(&mut self.open.insert((wire, Instant::now())).0)
    }

    async fn opened(&self) -> Result<Wire, SourceError> {
        let mut wire = self.redis.wire().await?;
        let mut ask = redis::pipe();
        ask.cmd("INFO").arg("server");
        let info: String = wire.ask(&ask).await?.value(0)?;
        if self.run_id.as_deref() == Some(field(&info, "run_id:")) {
            return Ok(wire);
        }
        // The next takeover has to be where new connections lead to.
        self.redis.leave_shared();
        Err(SourceError::Lost("another server answers, or it was started again".into()))
    }

    /// Closes it if nothing was read for a while. One that cannot be opened later is kept; `key` is looked at for that.
    pub(super) async fn rest(&mut self, key: &str) -> Result<(), SourceError> {
        if self.run_id.is_some() {
            self.open.take_if(|(_, used)| used.elapsed() > KEPT);
        } else if let Some((wire, _)) = &mut self.open {
            let mut keep = redis::pipe();
            keep.cmd("GET").arg(key);
            wire.ask(&keep).await?;
        }
        Ok(())
    }
}
