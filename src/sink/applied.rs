//! Tells whether an event has been applied to its document, for whoever asks from outside.

use bson::{Bson, Document, doc};

use super::command::Guard;
use super::watermark::{FoundWatermark, watermark};
use super::{Sink, SinkError};
use crate::epoch::epoch_of;

/// A document, by what a client says of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedDocument {
    pub(crate) collection: String,
    pub(crate) id: Bson,
}

impl Sink {
    /// Whether the events of the queue `id` for a document are applied up to an offset, and the one there is no dead letter on
    /// record. No says nothing of a document that was deleted.
    pub(crate) async fn has_applied(
        &self,
        id: &str,
        document: &NamedDocument,
        offset: i64,
    ) -> Result<bool, SinkError> {
        let guard = Guard::new(id);
        let find = doc! {
            "find": &document.collection,
            // A client's document must not be taken for operators.
            "filter": {"_id": {"$eq": document.id.clone()}},
            "limit": 2,
            "projection": {guard.path(): 1},
            "singleBatch": true,
            "readConcern": {"level": self.read_concern},
        };
        let reply = self.ask(&find).await?;
        let found = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let found = found.map(Vec::as_slice).unwrap_or_default();
        // Of several, on as many shards, it is not known which is meant.
        let [Bson::Document(found)] = found else { return Ok(false) };
        if !covers(found, &guard, offset) {
            return Ok(false);
        }
        Ok(self.recorded_dead(id, offset, offset).await?.is_empty())
    }
}

/// Offsets of another epoch cannot be compared.
fn covers(document: &Document, guard: &Guard, offset: i64) -> bool {
    match watermark(document, Some(guard)).0 {
        FoundWatermark::Watermark(w) => w >= offset && epoch_of(w) == epoch_of(offset),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::first_offset;

    #[test]
    fn a_watermark_covers_what_is_before_it_in_its_epoch() {
        let at = |epoch, index| first_offset(epoch).unwrap() + index;
        let covers = |w: i64, offset| super::covers(&doc! {"_tidegate": {"q": w}}, &Guard::new("q"), offset);
        assert!(covers(at(3, 7), at(3, 7)) && covers(at(3, 7), at(3, 0)));
        assert!(!covers(at(3, 7), at(3, 8)));
        assert!(!covers(at(4, 7), at(3, 7)), "the event may have another number by then");
        assert!(!covers(at(2, 7), at(3, 7)));
        assert!(!super::covers(&doc! {"_id": 1}, &Guard::new("q"), at(3, 0)));
    }
}
