//! Finds the letters of a queue wherever they are: kept in MongoDB, on their way there, and in Redis.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::Context;

use crate::config::{Config, Queue};
use crate::sink::Sink;
use crate::source::{LetterKey, LetterList, Redis, letter_key};

/// Where a letter is. The oldest are in MongoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum LetterPlace {
    /// Kept there.
    Mongodb(LetterKey),
    /// Taken out of its list, and not yet there.
    Moving,
    /// The n-th of the list.
    Redis(u64),
}

/// A letter, as it is kept.
pub(super) type PlacedLetter = (LetterPlace, Vec<u8>);

/// The letters of a queue.
#[derive(Debug)]
pub(super) struct Shelf<'c> {
    pub(super) letters: LetterList,
    /// None: it cannot be reached, and is passed over.
    sink: Option<&'c Sink>,
    /// The queue's name in MongoDB.
    id: &'c str,
    /// How long letters are kept.
    max_age: Option<Duration>,
}

/// MongoDB, if it can be reached.
pub(super) async fn reachable(config: &Config) -> Option<Sink> {
    match Sink::alone(config).await {
        Ok(sink) => Some(sink),
        Err(error) => {
            eprintln!("warning: letters that are kept in MongoDB are passed over: {error}");
            None
        }
    }
}

impl<'c> Shelf<'c> {
    pub(super) async fn open(
        config: &Config,
        queue: &'c Queue,
        sink: Option<&'c Sink>,
    ) -> anyhow::Result<Self> {
        let redis = Redis::new(&config.redis)?;
        let opened = LetterList::open(&redis, config, queue).await;
        let letters = opened.with_context(|| format!("queue {}", queue.key))?;
        Ok(Shelf { letters, sink, id: queue.id(), max_age: config.dead_letter.max_age.limit() })
    }

    fn sink(&self) -> anyhow::Result<&'c Sink> {
        self.sink.context("MongoDB cannot be reached")
    }

    /// Holds the letters, and ends what another process has begun.
    pub(super) async fn hold(&mut self) -> anyhow::Result<()> {
        self.letters.hold().await?;
        let returned = self.letters.put_back_before().await?;
        if !returned.is_empty() {
            self.forget(&returned).await?;
            self.letters.known().await?;
        }
        let moving = self.letters.moving().await?;
        if !moving.is_empty() {
            let named: Vec<_> = moving.iter().map(|kept| (letter_key(kept), &kept[..])).collect();
            self.sink()?.keep_letters(self.id, &named, self.max_age).await?;
            self.letters.arrived(&moving).await?;
        }
        Ok(())
    }

    /// Removes letters that MongoDB keeps.
    pub(super) async fn forget(&self, keys: &[LetterKey]) -> anyhow::Result<()> {
        Ok(self.sink()?.take_letters(self.id, keys).await?)
    }

    /// The letters that MongoDB keeps under these names.
    pub(super) async fn named(&self, keys: &[LetterKey]) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
        let found = self.sink()?.letters_named(self.id, keys).await?;
        let mut found: HashMap<LetterKey, Vec<u8>> = found.into_iter().collect();
        Ok(keys.iter().map(|key| found.remove(key)).collect())
    }
}

/// Goes through the letters that are there when it begins, oldest first.
#[derive(Debug)]
pub(super) struct Walk {
    /// The last of MongoDB's that was answered. None once all were.
    kept: Option<Option<LetterKey>>,
    moving: VecDeque<Vec<u8>>,
    place: u64,
    end: u64,
}

impl Walk {
    pub(super) async fn begin(shelf: &mut Shelf<'_>) -> anyhow::Result<Self> {
        // What leaves the list meanwhile is found where it goes.
        let end = shelf.letters.count().await?;
        let moving = shelf.letters.moving().await?.into();
        Ok(Walk { kept: shelf.sink.map(|_| None), moving, place: 0, end })
    }

    /// The next letters.
    pub(super) async fn next(&mut self, shelf: &mut Shelf<'_>) -> anyhow::Result<Option<Vec<PlacedLetter>>> {
        if let Some(after) = self.kept {
            let some = shelf.sink()?.kept_letters(shelf.id, after).await?;
            if let Some((last, _)) = some.last() {
                self.kept = Some(Some(*last));
                // They may be there already.
                let is_there = |kept: &Vec<u8>| some.iter().any(|(_, known)| known == kept);
                self.moving.retain(|kept| !is_there(kept));
                return Ok(Some(
                    some.into_iter().map(|(key, kept)| (LetterPlace::Mongodb(key), kept)).collect(),
                ));
            }
            self.kept = None;
        }
        if !self.moving.is_empty() {
            return Ok(Some(self.moving.drain(..).map(|kept| (LetterPlace::Moving, kept)).collect()));
        }
        if self.place >= self.end {
            return Ok(None);
        }
        let window = shelf.letters.from(self.place).await?;
        let places = (self.place..self.end).map(LetterPlace::Redis);
        self.place += window.len() as u64;
        Ok((!window.is_empty()).then(|| places.zip(window).collect()))
    }
}
