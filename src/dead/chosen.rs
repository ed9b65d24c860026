//! Reads letters with what the routes make of them, and chooses among them.

use bson::Bson;

use super::shelf::LetterPlace;
use crate::change::{Collections, Entity};
use crate::cli::dead::Which;
use crate::config::Config;
use crate::dead_letter::Letter;
use crate::decode::Decoder;
use crate::sample::{ExtJson, key_of};

/// A letter, where it is, and all of it as it is kept.
#[derive(Debug)]
pub(super) struct ReadLetter {
    pub(super) place: LetterPlace,
    pub(super) kept: Vec<u8>,
    pub(super) letter: Letter,
    pub(super) document: Option<NamedEntity>,
}

/// The document that an event is for, as the routes are now.
#[derive(Debug)]
pub(super) struct NamedEntity {
    pub(super) entity: Entity,
    pub(super) collection: String,
    pub(super) id: String,
}

/// Reads letters.
#[derive(Debug)]
pub(super) struct Desk {
    decoder: Decoder,
    collections: Collections,
    /// Elements of the lists that are no letters.
    pub(super) unreadable: u64,
}

impl Desk {
    pub(super) fn new(config: &Config) -> Self {
        let (decoder, collections) = (Decoder::new(config), Collections::new(config));
        Desk { decoder, collections, unreadable: 0 }
    }

    /// Reads a letter. What is none is left to whoever put it there.
    pub(super) fn read(&mut self, place: LetterPlace, kept: Vec<u8>) -> Option<ReadLetter> {
        match Letter::parse(&kept) {
            Ok(letter) => {
                let document = self.document(&letter.event);
                Some(ReadLetter { place, kept, letter, document })
            }
            Err(_) => {
                self.unreadable += 1;
                None
            }
        }
    }

    /// The document that an event is for.
    pub(super) fn document(&mut self, event: &[u8]) -> Option<NamedEntity> {
        let change = self.decoder.decode(event).ok()?;
        let collection = self.collections.name(change.entity.collection).to_owned();
        let id = match key_of(change.entity).ok()?.get("_id")? {
            Bson::String(text) => text.clone(),
            id => serde_json::to_string(&ExtJson(id)).ok()?,
        };
        Some(NamedEntity { entity: change.entity.into(), collection, id })
    }

    /// What is wrong with an event, as the routes are now. None: nothing.
    pub(super) fn fault(&mut self, event: &[u8]) -> Option<String> {
        let refused = self.decoder.decode(event).err()?;
        Some(format!("{}: {}", refused.rejection.reason.label(), refused.rejection))
    }
}

/// The letters that are meant.
#[derive(Debug)]
pub(super) struct Chosen<'w> {
    which: &'w Which,
    offset: Option<i64>,
}

impl<'w> Chosen<'w> {
    pub(super) fn new(which: &'w Which, offset: Option<i64>) -> Self {
        Chosen { which, offset }
    }

    pub(super) fn has(&self, read: &ReadLetter) -> bool {
        let ReadLetter { letter, document, .. } = read;
        let Which { class, reason, collection, id, since, until, .. } = self.which;
        let of_document = |wanted: &Option<String>, of: fn(&NamedEntity) -> &str| {
            wanted.as_ref().is_none_or(|wanted| document.as_ref().is_some_and(|found| of(found) == wanted))
        };
        self.offset.is_none_or(|offset| letter.offset == offset)
            && class.as_ref().is_none_or(|class| letter.class == *class)
            && reason.as_ref().is_none_or(|text| letter.reason.contains(text))
            && of_document(collection, |document| &document.collection)
            && of_document(id, |document| &document.id)
            && since.is_none_or(|since| letter.at_ms().is_some_and(|at| at >= since))
            && until.is_none_or(|until| letter.at_ms().is_some_and(|at| at < until))
    }
}
