//! Reads dead letters, and moves them out of their list, for a person who works on them: `tidegate dead`.
//!
//! One process at a time changes the letters of a queue. It holds a key that expires. So the places of letters in their
//! list change by nothing but what it does itself, and what is added behind them.

use std::time::{Duration, Instant};

use redis::Script;

use super::connect::Redis;
use super::connection::Connection;
use super::error::SourceError;
use super::lease::millis;
use super::letters_script as script;
use super::list::{hex, sha1};
use super::lua::whole;
use crate::config::{self, Keys, QueueKind};
use crate::dead_letter::{Letter, NO_EVENT_FIELD, Outline, fields_of};

/// How long letters stay with a process that is not heard of.
const TTL: Duration = Duration::from_secs(5);
/// Letters asked for at once, and about how many bytes of them.
const WINDOW: usize = 2_000;
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Fields that a script can pass on of one entry.
const FIELDS: usize = 1_000;

/// What names a letter that MongoDB keeps: its offset, and its digest.
pub(crate) type LetterKey = (i64, [u8; 20]);

/// What becomes of letters that are taken out of their list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taking {
    /// They go.
    Drop,
    /// Their events go back to the queue.
    Replay,
}

/// A letter to be taken.
#[derive(Debug)]
pub(crate) struct Picked<'a> {
    /// Its place in the list.
    pub(crate) place: u64,
    /// All of it, as it is kept.
    pub(crate) kept: &'a [u8],
    /// The letter, with the event that goes to the queue.
    pub(crate) letter: &'a Letter,
}

/// The dead letters of a queue.
#[derive(Debug)]
pub(crate) struct LetterList {
    pub(super) connection: Connection,
    pub(super) keys: Keys,
    queue: config::Queue,
    /// How many letters are asked for next.
    window: usize,
    /// Names this process while it holds them.
    pub(super) token: String,
}

impl LetterList {
    /// Connects to where they are.
    ///
    /// # Errors
    /// Redis's.
    pub(crate) async fn open(
        redis: &Redis,
        config: &config::Config,
        queue: &config::Queue,
    ) -> Result<Self, SourceError> {
        let connection = redis.of_queue(&queue.key).connect().await?;
        let token = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        Ok(LetterList {
            connection,
            keys: config.keys_of(&queue.key),
            queue: queue.clone(),
            window: 64,
            token,
        })
    }

    /// How many streams were in the queue's place, with the present one: watermarks are told apart by that.
    pub(crate) async fn generation(&mut self) -> Result<i64, SourceError> {
        if self.queue.kind != QueueKind::Stream {
            return Ok(1);
        }
        let found: Option<i64> = redis::cmd("HGET")
            .arg(&self.keys.stream)
            .arg("generation")
            .query_async(&mut self.connection)
            .await?;
        Ok(found.unwrap_or(1))
    }

    /// How many are in the list.
    pub(crate) async fn count(&mut self) -> Result<u64, SourceError> {
        Ok(redis::cmd("LLEN").arg(&self.keys.dead_list).query_async(&mut self.connection).await?)
    }

    /// Letters from a place on, as they are kept: a few, or none at the end.
    pub(crate) async fn from(&mut self, place: u64) -> Result<Vec<Vec<u8>>, SourceError> {
        let last = place + self.window as u64 - 1;
        let mut range = redis::cmd("LRANGE");
        range.arg(&self.keys.dead_list).arg(place).arg(last);
        let letters: Vec<Vec<u8>> = range.query_async(&mut self.connection).await?;
        let bytes: usize = letters.iter().map(Vec::len).sum();
        if let Some(size) = bytes.checked_div(letters.len()) {
            self.window = (WINDOW_BYTES / size.max(1)).clamp(1, WINDOW);
        }
        Ok(letters)
    }

    /// The letters at these places.
    pub(crate) async fn at(&mut self, places: &[u64]) -> Result<Vec<Option<Vec<u8>>>, SourceError> {
        let mut pipe = redis::pipe();
        for place in places {
            pipe.cmd("LINDEX").arg(&self.keys.dead_list).arg(place);
        }
        Ok(pipe.query_async(&mut self.connection).await?)
    }

    /// Waits until no other process changes the letters, for so long as one that has died would hold them.
    ///
    /// # Errors
    /// Another holds them; Redis's.
    pub(crate) async fn hold(&mut self) -> Result<(), SourceError> {
        let begun = Instant::now();
        loop {
            let mut set = redis::cmd("SET");
            set.arg(&self.keys.dead_owner).arg(&self.token).arg("NX").arg("PX").arg(millis(TTL));
            if set.query_async::<Option<String>>(&mut self.connection).await?.is_some() {
                return Ok(());
            }
            if begun.elapsed() > TTL + Duration::from_secs(1) {
                let text = format!(
                    "another process changes the dead letters of {} now: try again when it is done",
                    self.queue.key
                );
                return Err(SourceError::Refused(text.into()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What holds on to the letters, for a task that runs beside.
    #[must_use]
    pub(crate) fn holder(&self) -> Holder {
        let LetterList { connection, keys, token, .. } = self;
        Holder { connection: connection.clone(), key: keys.dead_owner.clone(), token: token.clone() }
    }

    /// Lets others change them.
    pub(crate) async fn let_go(&mut self) -> Result<(), SourceError> {
        let script = Script::new(script::LET_GO);
        let mut call = script.key(&self.keys.dead_owner);
        let _: i64 = call.arg(&self.token).invoke_async(&mut self.connection).await?;
        Ok(())
    }

    /// Why a letter cannot be put back, if that is so.
    #[must_use]
    pub(crate) fn unfit(&self, letter: &Letter) -> Option<&'static str> {
        if !self.is_of_fields(letter) {
            return None;
        }
        match fields_of(&letter.event) {
            Ok(fields) if fields.is_empty() => Some("its entry has no fields, which no stream takes"),
            Ok(fields) if fields.len() > FIELDS => Some("its entry has too many fields"),
            Ok(_) => None,
            Err(_) => Some("its event is not the fields of an entry"),
        }
    }

    /// Whether a letter has all fields of an entry, in place of one that is the event.
    fn is_of_fields(&self, letter: &Letter) -> bool {
        let is_stream = self.queue.kind == QueueKind::Stream;
        is_stream && (self.queue.flat || letter.reason == NO_EVENT_FIELD)
    }

    /// Takes letters out of their list, all of them or none, and does with them what is asked.
    ///
    /// # Errors
    /// They are not where they were, or are held by another; Redis's.
    pub(crate) async fn take(&mut self, picked: &[Picked<'_>], how: Taking) -> Result<(), SourceError> {
        let script = match (how, self.queue.kind) {
            (Taking::Drop, _) => script::DROP,
            (Taking::Replay, QueueKind::List) => script::REPLAY,
            (Taking::Replay, QueueKind::Stream) => script::REPLAY_ENTRY,
        };
        let script = Script::new(&whole(script));
        let mut call = script.prepare_invoke();
        call.key(&[&self.keys.queue, &self.keys.dead_list, &self.keys.dead_owner]);
        call.arg(&self.token).arg(millis(TTL));
        for Picked { place, kept, letter } in picked {
            call.arg(place).arg(hex(&sha1(kept)));
            match how {
                Taking::Drop => drop(call.arg(0)),
                Taking::Replay => self.add_words(&mut call, letter),
            }
        }
        let answer: i64 = call.invoke_async(&mut self.connection).await?;
        held(answer)
    }

    /// Adds what a script pushes of a letter, behind the number of words that this is.
    fn add_words(&self, call: &mut redis::ScriptInvocation<'_>, letter: &Letter) {
        match self.queue.kind {
            QueueKind::List => drop(call.arg(1).arg(&letter.event)),
            QueueKind::Stream if !self.is_of_fields(letter) => {
                call.arg(2).arg(self.queue.field()).arg(&letter.event);
            }
            QueueKind::Stream => {
                let fields = fields_of(&letter.event).unwrap_or_default();
                call.arg(2 * fields.len());
                for (name, value) in &fields {
                    call.arg(name).arg(value);
                }
            }
        }
    }

    /// Puts events back of letters that MongoDB keeps, all of them or none. Until [`Self::known`], they are noted.
    ///
    /// # Errors
    /// The letters are held by another; Redis's.
    pub(crate) async fn put_back(&mut self, letters: &[(LetterKey, &Letter)]) -> Result<(), SourceError> {
        let script = match self.queue.kind {
            QueueKind::List => script::RETURN,
            QueueKind::Stream => script::RETURN_ENTRY,
        };
        let script = Script::new(&whole(script));
        let mut call = script.prepare_invoke();
        call.key(&[&self.keys.queue, &self.keys.dead_taken, &self.keys.dead_owner]);
        call.arg(&self.token).arg(millis(TTL));
        for ((offset, sha1), letter) in letters {
            call.arg(format!("{offset} {}", hex(sha1)));
            self.add_words(&mut call, letter);
        }
        held(call.invoke_async(&mut self.connection).await?)
    }

    /// The letters that MongoDB keeps, and whose events are back.
    pub(crate) async fn put_back_before(&mut self) -> Result<Vec<LetterKey>, SourceError> {
        let mut keys = redis::cmd("HKEYS");
        let noted: Vec<String> = keys.arg(&self.keys.dead_taken).query_async(&mut self.connection).await?;
        Ok(noted.iter().filter_map(|noted| parse_key(noted)).collect())
    }

    /// MongoDB knows which are back.
    pub(crate) async fn known(&mut self) -> Result<(), SourceError> {
        let script = Script::new(script::KNOWN);
        let mut call = script.prepare_invoke();
        call.key(&[&self.keys.dead_taken, &self.keys.dead_owner]).arg(&self.token);
        held(call.invoke_async(&mut self.connection).await?)
    }

    /// Appends letters to their list.
    ///
    /// # Errors
    /// They are held by another; Redis's.
    pub(crate) async fn import(&mut self, letters: &[String]) -> Result<(), SourceError> {
        let script = Script::new(script::IMPORT);
        let mut call = script.prepare_invoke();
        call.key(&[&self.keys.dead_list, &self.keys.dead_owner]);
        call.arg(&self.token).arg(millis(TTL)).arg(letters);
        let answer: i64 = call.invoke_async(&mut self.connection).await?;
        held(answer)
    }
}

/// Holds on to the letters of a queue.
#[derive(Debug)]
pub(crate) struct Holder {
    connection: Connection,
    key: String,
    token: String,
}

impl Holder {
    /// Holds on to them until an error, which whoever works on them meets, too.
    pub(crate) async fn keep(mut self) {
        let script = Script::new(script::KEEP);
        loop {
            tokio::time::sleep(TTL / 4).await;
            let mut call = script.key(&self.key);
            let kept = call.arg(&self.token).arg(millis(TTL)).invoke_async::<i64>(&mut self.connection);
            if kept.await.is_err() {
                return;
            }
        }
    }
}

/// What names a letter where it is kept in MongoDB.
pub(crate) fn letter_key(kept: &[u8]) -> LetterKey {
    (Outline::parse(kept).map_or(0, |letter| letter.offset), sha1(kept))
}

fn parse_key(text: &str) -> Option<LetterKey> {
    let (offset, sha1) = text.split_once(' ')?;
    let mut digest = [0; 20];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(sha1.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((offset.parse().ok()?, digest))
}

/// What the scripts answer.
pub(super) fn held(answer: i64) -> Result<(), SourceError> {
    let text = match answer {
        -1 => "they were held for too long by this process, and another may change them",
        -2 => "somebody else has removed some of them",
        _ => return Ok(()),
    };
    Err(SourceError::Lost(format!("the dead letters cannot be changed: {text}; run it again").into()))
}
