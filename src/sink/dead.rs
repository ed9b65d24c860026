//! Records dead letters in MongoDB, for the case that Redis forgets them.
//!
//! A later event of the same document moves the watermark past a dead letter's. If Redis then falls back to a state before
//! the dead letter was recorded there, the next owner finds the event below the watermark and would take it for applied.
//! So what MongoDB has refused is on record in MongoDB, too, and is looked up where a watermark says "applied".

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};

use super::reply::write_error;
use super::{Sink, SinkError};
use crate::config::DEAD;
use crate::dead_letter::{Dead, Reason, Rejection};

impl Sink {
    /// Records that an event can never be applied.
    ///
    /// # Errors
    /// MongoDB's: it is not on record.
    pub(crate) async fn record_dead(&self, queue: &str, dead: &Dead<'_>) -> Result<(), SinkError> {
        let Dead { offset, rejection, traceparent, .. } = dead;
        let mut record = doc! {
            "reason": &rejection.text,
            "class": rejection.reason.label(),
            "code": rejection.code,
            "at": bson::DateTime::now(),
        };
        if let Some(trace) = traceparent {
            record.insert("traceparent", trace.as_str());
        }
        // Like an epoch, it must stay known whatever the writes' concern is.
        let command = doc! {
            "update": DEAD,
            "updates": [{"q": {"_id": id(queue, *offset)}, "u": {"$set": record}, "upsert": true}],
            "writeConcern": {"w": "majority"},
        };
        let body = bson::serialize_to_vec(&command)?;
        let reply = self.run_for_documents(body).await?;
        write_error(&reply).map_or(Ok(()), Err)
    }

    /// The dead letters on record among the events of a queue from `first` to `last`.
    pub(crate) async fn recorded_dead(
        &self,
        queue: &str,
        first: i64,
        last: i64,
    ) -> Result<BTreeMap<i64, Rejection>, SinkError> {
        let mut recorded = BTreeMap::new();
        let mut from = first;
        loop {
            let command = doc! {
                "find": DEAD,
                "filter": {"_id": {"$gte": id(queue, from), "$lte": id(queue, last)}},
                "sort": {"_id": 1},
                "singleBatch": true,
                "batchSize": 1000,
                "readConcern": {"level": "majority"},
            };
            let reply = self.run_document(&command).await?;
            let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
            let found: Vec<_> = batch
                .map(Vec::as_slice)
                .unwrap_or_default()
                .iter()
                .filter_map(Bson::as_document)
                .filter_map(read)
                .collect();
            let Some((offset, _)) = found.last() else { return Ok(recorded) };
            from = offset + 1;
            recorded.extend(found);
        }
    }
}

fn id(queue: &str, offset: i64) -> Document {
    doc! {"queue": queue, "offset": offset}
}

fn read(record: &Document) -> Option<(i64, Rejection)> {
    let offset = record.get_document("_id").ok()?.get_i64("offset").ok()?;
    let class = record.get_str("class").unwrap_or_default();
    let reason = Reason::ALL.into_iter().find(|reason| reason.label() == class).unwrap_or(Reason::Refused);
    let text = record.get_str("reason").unwrap_or_default().to_owned();
    Some((offset, Rejection { reason, text, code: record.get_i32("code").ok() }))
}
