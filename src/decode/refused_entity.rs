//! Finds the document that a refused event was meant for; only receipts need it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Decoder;
use crate::change::{Entity, EntityRef};
use crate::raw::{Number, Value, ValueRef};

/// What a native event says of itself first.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    collection: Cow<'a, str>,
    #[serde(borrow)]
    id: &'a RawValue,
}

impl Decoder {
    /// The entity that a refused event is about, as far as it can be told. `route` is the one that took it.
    pub fn whose(&mut self, event: &[u8], route: Option<usize>) -> Option<Entity> {
        match route {
            Some(at) => self.single(at).probe.decode(event).ok().map(|change| change.entity.into()),
            None => {
                let named: Named<'_> = serde_json::from_slice(event).ok()?;
                let allowed = self.rules.native.as_ref()?.allows(&named.collection);
                let collection = self.rules.collections.find(&named.collection).filter(|_| allowed)?;
                let id = match serde_json::from_str::<serde_json::Value>(named.id.get()).ok()? {
                    serde_json::Value::Number(id) => Value::from(Number::int(id.as_i64()?)),
                    serde_json::Value::String(id) if !id.is_empty() => text(&id),
                    _ => return None,
                };
                Some(EntityRef { collection, id: id.get(), shard_key: &[] }.into())
            }
        }
    }
}

fn text(text: &str) -> Value {
    let mut bytes = Vec::new();
    crate::raw::write_text_value(&mut bytes, text);
    ValueRef { kind: bson::spec::ElementType::String, bytes: &bytes }.into()
}
