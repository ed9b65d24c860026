//! Explains what sample events become, for whoever writes routes: `tidegate check --event`.

use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::spec::BinarySubtype;
use bson::{Bson, Document};
use serde::de::IgnoredAny;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::change::{Collections, EntityRef, Placed};
use crate::config::{Config, Delivery, Queue, Route};
use crate::dead_letter::Reason;
use crate::decode::Decoder;
use crate::raw::{self, begin_document, end_document};
use crate::sink::{Guard, preview};
use crate::trace::Traceparent;

/// Any offset would do.
const OFFSET: i64 = 1;

/// Reads the file of sample events; `-` is standard input.
///
/// # Errors
/// It cannot be read.
pub fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    match file.to_str() {
        Some("-") => io::stdin().lock().read_to_end(&mut text)?,
        _ => std::fs::File::open(file)?.read_to_end(&mut text)?,
    };
    Ok(text)
}

/// The events of a file: one a line, or a single one on several lines.
#[must_use]
pub fn events(text: &[u8]) -> Vec<&[u8]> {
    let text = text.trim_ascii();
    if serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        return vec![text];
    }
    text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect()
}

/// Writes what becomes of each event; answers whether each is written to MongoDB.
///
/// # Errors
/// `out`'s.
pub fn explain(config: &Config, text: &[u8], out: &mut impl Write) -> io::Result<bool> {
    // Only the first queue: the others' commands differ in the guard's name.
    let mut explainer = Explainer::new(config, config.queues.first());
    let events = events(text);
    let mut all_routed = !events.is_empty();
    if events.is_empty() {
        writeln!(out, "there is no event")?;
    }
    for (number, event) in events.into_iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        all_routed &= explainer.explain(&format!("event {}", number + 1), event, out)?;
    }
    Ok(all_routed)
}

/// Says what becomes of events.
#[derive(Debug)]
pub(crate) struct Explainer<'c> {
    config: &'c Config,
    collections: Collections,
    decoder: Decoder,
    guard: Option<Guard>,
}

impl<'c> Explainer<'c> {
    /// Of events of this queue.
    #[must_use]
    pub(crate) fn new(config: &'c Config, queue: Option<&Queue>) -> Self {
        let guard = queue.filter(|queue| queue.delivery == Delivery::ExactlyOnce);
        let guard = guard.map(|queue| Guard::new(queue.id()));
        Explainer { config, collections: Collections::new(config), decoder: Decoder::new(config), guard }
    }

    /// Writes what becomes of one event; answers whether it is no dead letter.
    pub(crate) fn explain(&mut self, name: &str, event: &[u8], out: &mut impl Write) -> io::Result<bool> {
        let Explainer { config, collections, decoder, guard } = self;
        let decoded = decoder.decode_routed(event);
        let route = decoded.as_ref().map_or_else(|refused| refused.route, |(_, route)| *route);
        writeln!(out, "{name}: {}", by(config, route, decoded.is_ok()))?;
        match decoded {
            Err(refused) if refused.rejection.reason == Reason::Skipped => writeln!(out, "  skipped")?,
            Err(refused) => {
                writeln!(out, "  dead letter: {}: {refused}", refused.rejection.reason.label())?;
                if let Some(trace) = refused.traceparent {
                    writeln!(out, "  traceparent {trace}")?;
                }
                return Ok(false);
            }
            Ok((change, _)) => {
                write!(out, "  collection {:?}", collections.name(change.entity.collection))?;
                for (field, value) in &key_of(change.entity).map_err(io::Error::other)? {
                    write!(out, ", {field} {}", json(value)?)?;
                }
                writeln!(out)?;
                if let Some(trace) = change.traceparent {
                    writeln!(out, "  traceparent {}", Traceparent::from(trace))?;
                }
                let taken_by = route.and_then(|route| config.routes.get(route));
                if taken_by.is_some_and(Route::only_flushes) {
                    writeln!(out, "  nothing is written; what waits for the document is written at once")?;
                    return Ok(true);
                }
                let placed = Placed { offset: OFFSET, hash: 0, change };
                for command in preview(&placed, collections, config, guard.as_ref()) {
                    let command = Bson::Document(command);
                    let text = serde_json::to_string_pretty(&ExtJson(&command)).map_err(io::Error::other)?;
                    writeln!(out, "{text}")?;
                }
            }
        }
        Ok(true)
    }
}

/// What names a document: its `_id`, and its shard key where there is one.
pub(crate) fn key_of(entity: EntityRef<'_>) -> bson::error::Result<Document> {
    let mut key = Vec::new();
    let start = begin_document(&mut key);
    raw::write(&mut key, "_id", entity.id);
    key.extend_from_slice(entity.shard_key);
    end_document(&mut key, start);
    bson::deserialize_from_slice(&key)
}

fn json(value: &Bson) -> io::Result<String> {
    serde_json::to_string(&ExtJson(value)).map_err(io::Error::other)
}

/// Which route it was.
fn by(config: &Config, route: Option<usize>, decoded: bool) -> String {
    let Some((number, route)) = route.and_then(|number| Some((number, config.routes.get(number)?))) else {
        return if decoded { "a native event" } else { "matches nothing" }.to_owned();
    };
    match toml::Value::try_from(&route.when) {
        _ if route.skips_empty() => format!("routes[{number}], which takes empty events"),
        Ok(when) if !route.when.is_empty() => format!("routes[{number}], when = {when}"),
        _ => format!("routes[{number}], which matches any event with an id"),
    }
}

/// BSON as relaxed extended JSON, its fields in order.
pub(crate) struct ExtJson<'a>(pub(crate) &'a Bson);

impl Serialize for ExtJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let typed = |serializer: S, kind: &str, text: String| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(kind, &text)?;
            map.end()
        };
        match self.0 {
            Bson::Document(document) => serializer.collect_map(document.iter().map(|(k, v)| (k, ExtJson(v)))),
            Bson::Array(values) => serializer.collect_seq(values.iter().map(ExtJson)),
            Bson::Null => serializer.serialize_unit(),
            Bson::Boolean(b) => serializer.serialize_bool(*b),
            Bson::Int32(n) => serializer.serialize_i32(*n),
            Bson::Int64(n) => serializer.serialize_i64(*n),
            Bson::Double(n) => serializer.serialize_f64(*n),
            Bson::String(text) => serializer.serialize_str(text),
            Bson::ObjectId(id) => typed(serializer, "$oid", id.to_hex()),
            Bson::Decimal128(n) => typed(serializer, "$numberDecimal", n.to_string()),
            Bson::DateTime(time) => match time.try_to_rfc3339_string() {
                Ok(text) => typed(serializer, "$date", text),
                // Years beyond 9999.
                Err(_) => {
                    let mut map = serializer.serialize_map(Some(1))?;
                    let ms = Bson::String(time.timestamp_millis().to_string());
                    map.serialize_entry("$date", &ExtJson(&Bson::Document(bson::doc! {"$numberLong": ms})))?;
                    map.end()
                }
            },
            Bson::Binary(binary) if binary.subtype == BinarySubtype::Uuid => match binary.to_uuid() {
                Ok(uuid) => typed(serializer, "$uuid", uuid.to_string()),
                Err(_) => serializer.serialize_unit(),
            },
            Bson::Binary(binary) => {
                let subtype = format!("{:02x}", u8::from(binary.subtype));
                let fields = bson::doc! {"base64": STANDARD.encode(&binary.bytes), "subType": subtype};
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("$binary", &ExtJson(&Bson::Document(fields)))?;
                map.end()
            }
            // Nothing else is ever encoded.
            other => serializer.serialize_str(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(routes: &str, events: &str) -> (bool, String) {
        let head = "queues = [{ key = \"q.1\" }]\nnative.collections = [\"notes\"]";
        let config: Config = toml::from_str(&format!("{head}\n{routes}")).unwrap();
        let mut out = Vec::new();
        let routed = explain(&config, events.as_bytes(), &mut out).unwrap();
        (routed, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_page_on_routes_shows_what_is_printed() {
        let page = include_str!("../docs/routes.md");
        let block = |kind: &str| {
            let (_, rest) = page.split_once(&format!("\n```{kind}\n")).unwrap();
            rest.split_once("```\n").unwrap().0
        };
        let config: Config = toml::from_str(block("toml")).unwrap();
        assert_eq!(config.violations(crate::decode::check_literal), []);
        let mut out = Vec::new();
        assert!(!explain(&config, block("json").as_bytes(), &mut out).unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), block("text"));
    }

    const ROUTE: &str = r#"
        [[routes]]
        when = { type = "EDIT", v = 2 }
        collection = "documents"
        id = { path = "id", as = "objectId" }
        set = { at = { path = "ts", as = "date" }, z = { path = "u", as = "uuid" }, a = { path = "b", as = "binary" } }
        inc = { total = { path = "n", as = "int", default = 1 } }
    "#;

    #[test]
    fn an_event_is_shown_as_its_command() {
        let event = "{\n\"type\":\"EDIT\",\"v\":2,\"id\":\"65a0b1c2d3e4f5a6b7c8d9e0\",\"ts\":0,\n\
                     \"u\":\"0191e1f8-6c5b-7b53-9a1e-2f0c8a3d4e5f\",\"b\":\"AAE=\"}\n";
        let (routed, text) = explained(ROUTE, event);
        assert!(routed);
        insta::assert_snapshot!(text, @r#"
        event 1: routes[0], when = { type = "EDIT", v = 2 }
          collection "documents", _id {"$oid":"65a0b1c2d3e4f5a6b7c8d9e0"}
        {
          "update": "documents",
          "ordered": false,
          "writeConcern": {
            "w": "majority"
          },
          "updates": [
            {
              "q": {
                "_id": {
                  "$oid": "65a0b1c2d3e4f5a6b7c8d9e0"
                },
                "_tidegate.q%2E1": {
                  "$not": {
                    "$gte": 1
                  }
                }
              },
              "u": {
                "$set": {
                  "a": {
                    "$binary": {
                      "base64": "AAE=",
                      "subType": "00"
                    }
                  },
                  "at": {
                    "$date": "1970-01-01T00:00:00Z"
                  },
                  "z": {
                    "$uuid": "0191e1f8-6c5b-7b53-9a1e-2f0c8a3d4e5f"
                  },
                  "_tidegate.q%2E1": 1
                },
                "$unset": {
                  "_tidegateDeleted": null
                },
                "$inc": {
                  "total": 1
                }
              },
              "upsert": true
            }
          ]
        }
        "#);
    }

    #[test]
    fn what_is_not_routed_is_told() {
        let events = "{\"type\":\"EDIT\",\"v\":2,\"id\":\"x\"}\n\n{\"type\":\"LEAVE\"}\r\n{\n\
                      {\"collection\":\"notes\",\"id\":1,\"delete\":true}\n";
        let (routed, text) = explained(ROUTE, events);
        assert!(!routed);
        insta::assert_snapshot!(text, @r#"
        event 1: routes[0], when = { type = "EDIT", v = 2 }
          dead letter: bad-id: "id" holds a string that cannot be converted to "objectId": that needs 24 hexadecimal digits

        event 2: matches nothing
          dead letter: bad-event: a native event has no field "type"

        event 3: matches nothing
          dead letter: not-json: the event is not JSON: EOF while parsing an object at line 1 column 1

        event 4: a native event
          collection "notes", _id 1
        {
          "delete": "notes",
          "ordered": false,
          "writeConcern": {
            "w": "majority"
          },
          "deletes": [
            {
              "q": {
                "_id": 1,
                "_tidegate.q%2E1": {
                  "$not": {
                    "$gte": 1
                  }
                }
              },
              "limit": 1
            }
          ]
        }
        "#);
        let flush = "[[routes]]\nwhen = { type = 'LEFT' }\ncollection = 'notes'\nid = 'of'\nflush = true\n";
        let (routed, text) = explained(flush, "{\"type\":\"LEFT\",\"of\":\"n1\"}");
        assert!(routed);
        insta::assert_snapshot!(text, @r#"
        event 1: routes[0], when = { type = "LEFT" }
          collection "notes", _id "n1"
          nothing is written; what waits for the document is written at once
        "#);
        assert_eq!(explained(ROUTE, "\n"), (false, "there is no event\n".to_owned()));
    }
}
