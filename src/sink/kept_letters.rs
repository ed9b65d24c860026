//! Keeps dead letters in MongoDB that are too many for Redis. They are found by queue, offset and digest.
//!
//! A letter that was taken leaves its place behind, without the letter, for as long as records of dead letters are kept.
//! So one that is written late, after another attempt has arrived and was taken, does not come back.

use std::time::Duration;

use bson::spec::{BinarySubtype, ElementType};
use bson::{Binary, Bson, DateTime, Document, doc};

use super::reply::write_error;
use super::{Sink, SinkError};
use crate::config::DEAD;
use crate::dead_letter::Outline;
use crate::raw::{self, Value, begin_document, end_document};

/// The time from which on MongoDB removes a letter, if it ever does.
pub(super) const EXPIRES: &str = "expires";

/// What names a letter of a queue: its offset, and its digest.
type KeptKey = (i64, [u8; 20]);

impl Sink {
    /// Keeps letters of a queue, each for so long from when it was dead.
    ///
    /// # Errors
    /// MongoDB's: not all of them are kept.
    pub(crate) async fn keep_letters(
        &self,
        queue: &str,
        letters: &[(KeptKey, &[u8])],
        max_age: Option<Duration>,
    ) -> Result<(), SinkError> {
        let max_age = max_age.and_then(|age| i64::try_from(age.as_millis()).ok());
        let mut body = Vec::with_capacity(letters.iter().map(|(_, letter)| letter.len() + 128).sum());
        let command = begin_document(&mut body);
        raw::write_text(&mut body, "insert", DEAD);
        raw::write_bool(&mut body, "ordered", false);
        raw::write_key(&mut body, ElementType::EmbeddedDocument, "writeConcern");
        let concern = begin_document(&mut body);
        raw::write_text(&mut body, "w", "majority");
        end_document(&mut body, concern);
        raw::write_key(&mut body, ElementType::Array, "documents");
        let documents = begin_document(&mut body);
        for (at, (key, letter)) in letters.iter().enumerate() {
            raw::write_index_key(&mut body, ElementType::EmbeddedDocument, at);
            let document = begin_document(&mut body);
            write_id(&mut body, queue, *key);
            raw::write(&mut body, "letter", Value::binary(letter).get());
            if let Some((at, age)) = max_age.and_then(|age| Some((at_ms(letter)?, age))) {
                raw::write_key(&mut body, ElementType::DateTime, EXPIRES);
                body.extend_from_slice(&at.saturating_add(age).to_le_bytes());
            }
            end_document(&mut body, document);
        }
        end_document(&mut body, documents);
        end_document(&mut body, command);
        // What is there was written by an attempt before, which is no error.
        let reply = self.run_for_documents(body).await?;
        write_error(&reply).map_or(Ok(()), Err)
    }

    /// Letters of a queue behind one of them, or from the first on. None are answered at the end.
    pub(crate) async fn kept_letters(
        &self,
        queue: &str,
        after: Option<KeptKey>,
    ) -> Result<Vec<(KeptKey, Vec<u8>)>, SinkError> {
        let from = match after {
            Some(key) => id(queue, key),
            None => doc! {"queue": queue, "kept": i64::MIN},
        };
        let range = doc! {"$gt": from, "$lte": id(queue, (i64::MAX, [0xff; 20]))};
        self.find_letters(doc! {"_id": range, "letter": {"$exists": true}}).await
    }

    /// The letters with these names that are there.
    pub(crate) async fn letters_named(
        &self,
        queue: &str,
        keys: &[KeptKey],
    ) -> Result<Vec<(KeptKey, Vec<u8>)>, SinkError> {
        let mut found = Vec::with_capacity(keys.len());
        // A reply holds 16 MiB, and may end before all are in it.
        while found.len() < keys.len() {
            let missing = keys.iter().filter(|key| !found.iter().any(|(known, _)| known == *key));
            let ids: Vec<_> = missing.map(|key| id(queue, *key)).collect();
            let some = self.find_letters(doc! {"_id": {"$in": ids}, "letter": {"$exists": true}}).await?;
            if some.is_empty() {
                break;
            }
            found.extend(some);
        }
        Ok(found)
    }

    async fn find_letters(&self, filter: Document) -> Result<Vec<(KeptKey, Vec<u8>)>, SinkError> {
        let command = doc! {
            "find": DEAD,
            "filter": filter,
            "sort": {"_id": 1},
            "projection": {"letter": 1},
            "singleBatch": true,
            "batchSize": 1000,
            "readConcern": {"level": "majority"},
        };
        let reply = self.run_document(&command).await?;
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let batch = batch.map(Vec::as_slice).unwrap_or_default();
        Ok(batch.iter().filter_map(Bson::as_document).filter_map(read).collect())
    }

    /// Removes letters of a queue; their places stay for a while.
    ///
    /// # Errors
    /// MongoDB's: they may be there.
    pub(crate) async fn take_letters(&self, queue: &str, keys: &[KeptKey]) -> Result<(), SinkError> {
        let ids: Vec<_> = keys.iter().map(|key| id(queue, *key)).collect();
        let taken = doc! {"$unset": {"letter": 1, EXPIRES: 1}, "$set": {"at": DateTime::now()}};
        let command = doc! {
            "update": DEAD,
            "updates": [{"q": {"_id": {"$in": ids}}, "u": taken, "multi": true}],
            "writeConcern": {"w": "majority"},
        };
        let reply = self.run_for_documents(bson::serialize_to_vec(&command)?).await?;
        write_error(&reply).map_or(Ok(()), Err)
    }
}

/// Beside the records of a queue's dead letters, which have its offset in the place of `kept`.
fn id(queue: &str, (offset, sha1): KeptKey) -> Document {
    doc! {"queue": queue, "kept": offset, "sha1": binary(&sha1)}
}

/// The same, as the field `_id`.
fn write_id(out: &mut Vec<u8>, queue: &str, (offset, sha1): KeptKey) {
    raw::write_key(out, ElementType::EmbeddedDocument, "_id");
    let id = begin_document(out);
    raw::write_text(out, "queue", queue);
    raw::write_i64(out, "kept", offset);
    raw::write(out, "sha1", Value::binary(&sha1).get());
    end_document(out, id);
}

fn at_ms(kept: &[u8]) -> Option<i64> {
    Outline::parse(kept).ok()?.at_ms()
}

fn binary(bytes: &[u8]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}

fn read(document: &Document) -> Option<(KeptKey, Vec<u8>)> {
    let id = document.get_document("_id").ok()?;
    let sha1 = id.get_binary_generic("sha1").ok()?.as_slice().try_into().ok()?;
    let letter = document.get_binary_generic("letter").ok()?;
    Some(((id.get_i64("kept").ok()?, sha1), letter.clone()))
}
