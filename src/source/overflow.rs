//! Moves the oldest dead letters out of Redis where there are too many: the owner of the queue does.
//!
//! They are taken out of their list into another one, written to MongoDB, and only then forgotten. Whoever finds that
//! other list goes on from there: MongoDB takes each letter once.

use redis::Script;

use super::connection::Connection;
use super::error::SourceError;
use super::lease::{Lease, fenced};
use super::letters::{LetterList, held};
use super::list::{hex, sha1};
use super::lua::whole;

/// Letters that are moved at once, and about how many bytes of them.
const LETTERS: u64 = 5_000;
const BYTES: u64 = 4 * 1024 * 1024;
/// What is larger does not fit a document of MongoDB's, with all that belongs to it.
const LARGEST: u64 = 15 * 1024 * 1024;

/// Takes the oldest letters out of their list if there are more than are to stay, into the list of those on their way.
/// Does nothing while somebody works on the letters. Answers 1 if some are on their way, 2 if the oldest is too large: it
/// goes to the end.
///
/// KEYS owner dead-list dead-moving dead-owner · ARGV epoch ttl-ms stay letters bytes largest
const MOVE_OUT: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('LLEN', KEYS[3]) > 0 then return 1 end
if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
local over = redis.call('LLEN', KEYS[2]) - ARGV[3]
if over <= 0 then return 0 end
whole()
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local moved, bytes, result = 0, 0, 1
while moved < math.min(over, tonumber(ARGV[4])) do
  local letter = redis.call('LINDEX', KEYS[2], moved)
  local is_too_large = #letter > tonumber(ARGV[6])
  if moved > 0 and (is_too_large or bytes + #letter > tonumber(ARGV[5])) then break end
  moved, bytes = moved + 1, bytes + #letter
  if is_too_large then
    redis.call('RPUSH', KEYS[2], letter)
    result = 2
    break
  end
  redis.call('RPUSH', KEYS[3], letter)
end
redis.call('LTRIM', KEYS[2], moved, -1)
return result";

/// Forgets letters on their way that have arrived, if they are still those.
///
/// KEYS owner dead-moving · ARGV epoch sha1
const ARRIVED: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.sha1hex(table.concat(redis.call('LRANGE', KEYS[2], 0, -1))) ~= ARGV[2] then return 0 end
return redis.call('DEL', KEYS[2])";

/// Drops the oldest letters, if the last of them is where it was and nobody works on them.
///
/// KEYS owner dead-list dead-owner · ARGV epoch letters sha1
const DROP_OLD: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local last = redis.call('LINDEX', KEYS[2], ARGV[2] - 1)
if redis.call('EXISTS', KEYS[3]) == 1 or not last or redis.sha1hex(last) ~= ARGV[3] then return 0 end
redis.call('LTRIM', KEYS[2], ARGV[2], -1)
return 1";

/// What came of moving letters out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// There is nothing to move now.
    Nothing,
    /// These are on their way: they are to be written to MongoDB.
    Letters(Vec<Vec<u8>>),
    /// The oldest was too large, and is now the last.
    TooLarge,
}

impl Lease {
    /// Takes the oldest dead letters out of their list, if there are more than `stay`.
    pub(crate) async fn move_out(&self, stay: u64) -> Result<Outgoing, SourceError> {
        let keys = self.keys();
        let script = Script::new(&whole(MOVE_OUT));
        let mut call = script.prepare_invoke();
        call.key(&[&keys.owner, &keys.dead_list, &keys.dead_moving, &keys.dead_owner]);
        call.arg(self.args()).arg(stay).arg(LETTERS).arg(BYTES).arg(LARGEST);
        match fenced(call.invoke_async(&mut self.connection()).await?)? {
            0 => Ok(Outgoing::Nothing),
            1 => Ok(Outgoing::Letters(moving(&mut self.connection(), &keys.dead_moving).await?)),
            _ => Ok(Outgoing::TooLarge),
        }
    }

    /// Forgets letters that MongoDB has.
    pub(crate) async fn arrived(&self, letters: &[Vec<u8>]) -> Result<(), SourceError> {
        let script = Script::new(ARRIVED);
        let mut call = script.prepare_invoke();
        call.key(&[&self.keys().owner, &self.keys().dead_moving]).arg(self.args().0);
        self.invoke(call.arg(hex(&sha1(&letters.concat())))).await
    }

    /// The oldest dead letters, a few.
    pub(crate) async fn oldest_letters(&self, count: usize) -> Result<Vec<Vec<u8>>, SourceError> {
        let mut range = redis::cmd("LRANGE");
        range.arg(&self.keys().dead_list).arg(0).arg(count.saturating_sub(1));
        Ok(range.query_async(&mut self.connection()).await?)
    }

    /// Drops the `count` oldest dead letters, `last` being the last of them; answers whether it did.
    pub(crate) async fn drop_oldest(&self, count: usize, last: &[u8]) -> Result<bool, SourceError> {
        let keys = self.keys();
        let script = Script::new(DROP_OLD);
        let mut call = script.prepare_invoke();
        call.key(&[&keys.owner, &keys.dead_list, &keys.dead_owner]);
        call.arg(self.args().0).arg(count).arg(hex(&sha1(last)));
        Ok(fenced(call.invoke_async(&mut self.connection()).await?)? == 1)
    }
}

impl LetterList {
    /// The letters on their way to MongoDB.
    pub(crate) async fn moving(&mut self) -> Result<Vec<Vec<u8>>, SourceError> {
        moving(&mut self.connection, &self.keys.dead_moving).await
    }

    /// Forgets letters on their way that MongoDB has.
    pub(crate) async fn arrived(&mut self, letters: &[Vec<u8>]) -> Result<(), SourceError> {
        let script = Script::new(ARRIVED);
        let mut call = script.prepare_invoke();
        call.key(&[&self.keys.dead_owner, &self.keys.dead_moving]).arg(&self.token);
        held(call.arg(hex(&sha1(&letters.concat()))).invoke_async(&mut self.connection).await?)
    }
}

async fn moving(connection: &mut Connection, key: &str) -> Result<Vec<Vec<u8>>, SourceError> {
    Ok(redis::cmd("LRANGE").arg(key).arg(0).arg(-1).query_async(connection).await?)
}
