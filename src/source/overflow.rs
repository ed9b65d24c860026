//! Moves the oldest dead letters out of Redis where there are too many: the owner of the queue does.
//!
//! They are taken out of their list into another one, written to MongoDB, and only then forgotten. Whoever finds that
//! other list goes on from there: MongoDB takes each letter once.

use bson::DateTime;
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
/// Old letters that are dropped at once.
const OLD: u64 = 500;

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

/// When a letter became one, in UTC, or nothing. It is the last field of a letter. The letter
/// stays in Redis: it may be what kills its readers.
const AT: &str = r#"
local function at(letter)
  return letter and string.match(string.sub(letter, -64), '"at":"([%d:.T-]+Z)"}$')
end
"#;

/// Answers when the oldest letter became one.
///
/// KEYS dead-list
const OLDEST: &str = "return at(redis.call('LINDEX', KEYS[1], 0)) or ''";

/// Drops the letters in front that are older than a time, so many at most, while nobody works on them. Answers how many.
///
/// KEYS owner dead-list dead-owner · ARGV epoch time letters
const DROP_OLD: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local old = 0
while old < tonumber(ARGV[3]) do
  if (at(redis.call('LINDEX', KEYS[2], old)) or ARGV[2]) >= ARGV[2] then break end
  old = old + 1
end
redis.call('LTRIM', KEYS[2], old, -1)
return old";

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

    /// When the oldest dead letter became one.
    pub(crate) async fn oldest_letter_at(&self) -> Result<Option<DateTime>, SourceError> {
        let script = Script::new(&format!("{AT}{OLDEST}"));
        let at: String = script.key(&self.keys().dead_list).invoke_async(&mut self.connection()).await?;
        Ok(DateTime::parse_rfc3339_str(at).ok())
    }

    /// Drops dead letters that are older than `time`, a few of the oldest. Answers how many.
    pub(crate) async fn drop_letters_before(&self, time: DateTime) -> Result<u64, SourceError> {
        let keys = self.keys();
        let script = Script::new(&format!("{AT}{DROP_OLD}"));
        let mut call = script.prepare_invoke();
        call.key(&[&keys.owner, &keys.dead_list, &keys.dead_owner]);
        call.arg(self.args().0).arg(time.try_to_rfc3339_string().unwrap_or_default()).arg(OLD);
        fenced(call.invoke_async(&mut self.connection()).await?)
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
