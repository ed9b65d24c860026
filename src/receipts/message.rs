//! Writes a receipt as those who listen see it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::spec::{BinarySubtype, ElementType};
use serde_json::{Value, json};

use super::{News, Receipt};
use crate::change::Collections;
use crate::config;
use crate::raw::{Number, ValueRef};

/// Channel and message of a receipt.
pub(super) fn message(
    receipt: &Receipt,
    collections: &Collections,
    channels: &config::Receipts,
) -> (String, String) {
    let collection = receipt.entity.as_ref().map(|(collection, _)| collections.name(*collection));
    let id = receipt.entity.as_ref().map(|(_, id)| id_json(id.get()));
    // As text: it may have more digits than a JavaScript number.
    let offset = receipt.offset.to_string();
    let queue = &*receipt.queue;
    match &receipt.news {
        News::Durable { events, ms } => {
            let message = json!({ "id": id, "offset": offset, "events": events, "ms": ms, "queue": queue });
            (format!("{}{}", channels.channel, collection.unwrap_or_default()), message.to_string())
        }
        News::Dead(refusal) => {
            let message = json!({
                "id": id,
                "offset": offset,
                "reason": refusal.reason,
                "class": refusal.class,
                "code": refusal.code,
                "queue": queue,
            });
            (dead_channel(&channels.dead_channel, collection), message.to_string())
        }
    }
}

/// The prefix and the collection; where none is known, the prefix without the colon at its end.
fn dead_channel(prefix: &str, collection: Option<&str>) -> String {
    match collection {
        Some(collection) => format!("{prefix}{collection}"),
        None => prefix.strip_suffix(':').unwrap_or(prefix).to_owned(),
    }
}

/// An id as the event has it: a number, or a text. ObjectIds and UUIDs are written as usual, other binaries in base64.
fn id_json(id: ValueRef<'_>) -> Value {
    if let Some(text) = id.text() {
        return text.into();
    }
    if let Some(number) = id.number() {
        return match number {
            Number::Int32(n) => n.into(),
            Number::Int64(n) => n.into(),
            Number::Double(n) => n.into(),
        };
    }
    let binary = id.binary().unwrap_or_default();
    match id.kind {
        ElementType::ObjectId => hex(id.bytes).into(),
        ElementType::Binary if id.bytes.get(4) == Some(&BinarySubtype::Uuid.into()) => uuid(binary).into(),
        _ => STANDARD.encode(binary).into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uuid(bytes: &[u8]) -> String {
    <[u8; 16]>::try_from(bytes).map_or_else(|_| hex(bytes), |bytes| bson::Uuid::from_bytes(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::PublishRefusal;
    use super::*;
    use crate::change::CollectionId;
    use crate::config::{Config, Native};
    use crate::raw;

    fn encoded(value: impl Into<bson::Bson>) -> raw::Value {
        let document = bson::serialize_to_vec(&bson::doc! {"": value.into()}).unwrap();
        raw::elements(&document).next().unwrap().1.into()
    }

    fn told(id: Option<raw::Value>, news: News) -> (String, Value) {
        let native = Native { collections: vec!["documents".into()] };
        let collections = Collections::new(&Config { native, ..Config::default() });
        let entity = id.map(|id| (CollectionId(0), id));
        let receipt = Receipt { queue: "q".into(), entity, offset: 7 << 36, news };
        let (channel, message) = message(&receipt, &collections, &config::Receipts::default());
        (channel, serde_json::from_str(&message).unwrap())
    }

    #[test]
    fn ids_are_shown_as_events_have_them() {
        let hex = "65a0b1c2d3e4f5a6b7c8d9e0";
        let uuid = "0191e1f8-6c5b-7b53-9a1e-2f0c8a3d4e5f";
        let object_id: bson::oid::ObjectId = hex.parse().unwrap();
        for (id, shown) in [
            (encoded("doc:1"), json!("doc:1")),
            (encoded(7), json!(7)),
            (encoded(i64::MAX), json!(i64::MAX)),
            (encoded(object_id), json!(hex)),
            (encoded(bson::Uuid::parse_str(uuid).unwrap()), json!(uuid)),
            (raw::Value::binary(b"\xff"), json!("/w==")),
        ] {
            let (channel, message) = told(Some(id), News::Durable { events: 3, ms: Some(12) });
            assert_eq!(channel, "tidegate:durable:documents");
            let rest = json!({"id": shown, "offset": "481036337152", "events": 3, "ms": 12, "queue": "q"});
            assert_eq!(message, rest);
        }
    }

    #[test]
    fn what_has_no_known_collection_is_told_all_the_same() {
        let refusal = || Box::new(PublishRefusal { reason: "no".into(), class: Some("bad-key"), code: None });
        let (channel, message) = told(Some(encoded("a")), News::Dead(refusal()));
        assert_eq!((&*channel, &message["id"]), ("tidegate:dead:documents", &json!("a")));
        let (channel, message) = told(None, News::Dead(refusal()));
        let expected = json!({
            "id": null, "offset": "481036337152", "reason": "no", "class": "bad-key", "code": null, "queue": "q"
        });
        assert_eq!((&*channel, message), ("tidegate:dead", expected));
    }
}
