//! Reads back what is kept of a dead letter, its event byte for byte.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use super::{Reason, Rejection};

/// A dead letter, as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The event, as it came.
    pub event: Vec<u8>,
    /// What is wrong with it, in words.
    pub reason: String,
    /// Why, as the metric's label has it.
    pub class: String,
    /// MongoDB's error code, where MongoDB refused.
    pub code: Option<i32>,
    /// Its offset in the queue.
    pub offset: i64,
    /// The queue's key.
    pub queue: String,
    /// When it became a dead letter.
    pub at: String,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// A dead letter as JSON has it. Its event is one of three.
#[derive(serde::Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    event_base64: Option<String>,
    event_text: Option<Text>,
    reason: String,
    class: String,
    code: Option<i32>,
    offset: i64,
    queue: String,
    at: String,
    traceparent: Option<String>,
}

impl Letter {
    /// Reads a letter.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(kept: &[u8]) -> Result<Self, serde_json::Error> {
        let stored: Stored<'_> = serde_json::from_slice(kept)?;
        let event = match (stored.event, stored.event_base64, stored.event_text) {
            (Some(event), ..) => event.get().as_bytes().to_vec(),
            (None, Some(text), _) => STANDARD.decode(text).map_err(serde_json::Error::custom)?,
            (None, None, Some(Text(bytes))) => bytes,
            (None, None, None) => return Err(serde_json::Error::custom("it has no event")),
        };
        let Stored { reason, class, code, offset, queue, at, traceparent, .. } = stored;
        Ok(Letter { event, reason, class, code, offset, queue, at, traceparent })
    }

    /// The letter as one line of JSON, whatever its event is.
    #[must_use]
    pub fn line(&self) -> String {
        let text = std::str::from_utf8(&self.event).ok().filter(|text| !text.contains(['\n', '\r']));
        let event = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        let event = event.filter(|event| event.get().len() == self.event.len());
        let letter = super::DeadLetter {
            event,
            event_base64: event.is_none().then(|| STANDARD.encode(&self.event)),
            reason: &self.reason,
            class: &self.class,
            code: self.code,
            offset: self.offset,
            queue: &self.queue,
            traceparent: self.traceparent.as_deref(),
            at: self.at_in_utc(),
        };
        letter.json()
    }

    /// When it became a dead letter, milliseconds since the Unix epoch, if it says so.
    #[must_use]
    pub fn at_ms(&self) -> Option<i64> {
        ms_of(&self.at)
    }

    /// When it became a dead letter, as all letters have it if it can be read.
    fn at_in_utc(&self) -> String {
        let at = bson::DateTime::parse_rfc3339_str(&self.at).ok();
        at.and_then(|at| at.try_to_rfc3339_string().ok()).unwrap_or_else(|| self.at.clone())
    }

    /// What is wrong with it, without values: letters that have the same are counted together.
    #[must_use]
    pub fn reason_without_values(&self) -> String {
        let reason = Reason::ALL.into_iter().find(|reason| reason.label() == self.class);
        let rejection =
            Rejection { reason: reason.unwrap_or(Reason::Refused), text: self.reason.clone(), code: None };
        rejection.without_values().to_owned()
    }
}

/// What of a letter is looked at where there are many.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Outline<'a> {
    /// Its offset in the queue.
    pub(crate) offset: i64,
    /// When it became a dead letter.
    at: &'a str,
}

impl<'a> Outline<'a> {
    /// Reads it of a letter.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(kept: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(kept)
    }

    /// When it became a dead letter, milliseconds since the Unix epoch, if it says so.
    #[must_use]
    pub(crate) fn at_ms(&self) -> Option<i64> {
        ms_of(self.at)
    }
}

fn ms_of(at: &str) -> Option<i64> {
    bson::DateTime::parse_rfc3339_str(at).ok().map(bson::DateTime::timestamp_millis)
}

/// A JSON string that need not be UTF-8: Redis made it of an event that nobody read.
struct Text(Vec<u8>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EventBytes;
        impl Visitor<'_> for EventBytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(bytes.to_vec()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                self.visit_bytes(text.as_bytes())
            }
        }
        deserializer.deserialize_byte_buf(EventBytes)
    }
}

/// Name and value of a field of a stream's entry.
pub type EntryField = (Vec<u8>, Vec<u8>);

/// The fields of a stream's entry whose event is all of them, in their order.
///
/// # Errors
/// The event is no such entry.
pub fn fields_of(event: &[u8]) -> Result<Vec<EntryField>, serde_json::Error> {
    struct EntryFields(Vec<EntryField>);
    impl<'de> Deserialize<'de> for EntryFields {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Pairs;
            impl<'de> Visitor<'de> for Pairs {
                type Value = EntryFields;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object of strings")
                }

                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<EntryFields, A::Error> {
                    let mut fields = Vec::new();
                    while let Some((Text(name), Text(value))) = map.next_entry()? {
                        fields.push((name, value));
                    }
                    Ok(EntryFields(fields))
                }
            }
            deserializer.deserialize_map(Pairs)
        }
    }
    serde_json::from_slice(event).map(|EntryFields(fields)| fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::{Dead, render};
    use proptest::prelude::*;

    fn kept(event: &[u8], reason: Reason) -> Vec<u8> {
        let rejection = Rejection { reason, text: "a: b".into(), code: Some(121) };
        let dead = Dead { offset: 7, event, rejection: &rejection, traceparent: None, entity: None };
        render(&dead, "q", bson::DateTime::from_millis(5)).into_bytes()
    }

    #[test]
    fn numbers_and_spaces_stay_as_they_came() {
        for event in ["{\"a\" : 10.0, \"b\":1e2,\n \"c\":12345678901234567890.10}", "\"\\u00e9\"", "7"] {
            let letter = Letter::parse(&kept(event.as_bytes(), Reason::Validation)).unwrap();
            assert_eq!(String::from_utf8(letter.event.clone()).unwrap(), event);
            assert!(!letter.line().contains('\n'), "{}", letter.line());
            assert_eq!(Letter::parse(letter.line().as_bytes()).unwrap(), letter);
            assert_eq!((letter.offset, letter.at_ms(), letter.code), (7, Some(5), Some(121)));
            assert_eq!(letter.reason_without_values(), "a");
        }
    }

    #[test]
    fn what_redis_made_a_text_of_is_read_back() {
        // As `cjson.encode` does: https://github.com/redis/redis/blob/unstable/deps/lua/src/lua_cjson.c
        let mut letter = br#"{"event_text":"{\"a\":\"\/\u0000\u007f"#.to_vec();
        letter.extend(
            b"\xff\\\"}\",\"reason\":\"r\",\"class\":\"crash\",\"offset\":1,\"queue\":\"q\",\"at\":\"x\"}",
        );
        let letter = Letter::parse(&letter).unwrap();
        assert_eq!((letter.event, letter.at.as_str()), (b"{\"a\":\"/\0\x7f\xff\"}".to_vec(), "x"));
    }

    #[test]
    fn what_is_no_letter_is_refused() {
        for text in ["", "{}", "[]", r#"{"reason":"r","class":"c","offset":1,"queue":"q","at":"t"}"#] {
            assert!(Letter::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_is_made_of_its_event_again() {
        let fields = fields_of(b"{\"a\":\"1\",\"a\":\"\xff\\u0001\"}").unwrap();
        assert_eq!(fields, [(b"a".to_vec(), b"1".to_vec()), (b"a".to_vec(), b"\xff\x01".to_vec())]);
        assert!(fields_of(b"{\"a\":1}").is_err() && fields_of(b"[]").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(event in prop::collection::vec(any::<u8>(), 0..40)) {
            // A text that is JSON loses spaces around it, which mean nothing.
            prop_assume!(event.trim_ascii().len() == event.len() || serde_json::from_slice::<serde_json::Value>(&event).is_err());
            let letter = Letter::parse(&kept(&event, Reason::NotUtf8)).unwrap();
            prop_assert_eq!(&letter.event, &event);
            prop_assert_eq!(Letter::parse(letter.line().as_bytes()).unwrap(), letter);
        }
    }
}
