//! Makes a change of an event's bytes: extracts the values that routes name, then maps them.
//!
//! Everything in an event is untrusted. What cannot be applied is refused here with a reason; what
//! passes can still be refused by MongoDB, never by tidegate later.

mod convert;
mod descend;
mod extract;
mod field;
mod merge;
mod native;
mod operators;
mod ops;
mod patch;
mod path;
mod paths;
mod plan;
mod refused;
mod route;
mod rules;
mod source;
mod surrogates;
mod transcode;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bson::spec::ElementType;

use self::extract::Extracted;
use self::merge::merge;
use self::ops::Ops;
use self::plan::Plans;
pub use self::refused::Refused;
use self::route::{Match, skipped};
pub use self::rules::Rules;
use crate::change::{Change, Collections, Effect, EntityRef, FieldOps, MAX_UPDATE};
use crate::config::{self, Config};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, Value, ValueRef};
use crate::trace::TraceRef;

/// Bytes that are kept from event to event, so that most need no new memory.
const KEPT: usize = 256 * 1024;

/// Whether a literal of a route can be a value, and be converted.
///
/// # Errors
/// What is wrong with it.
pub fn check_literal(literal: &toml::Value, to: Option<config::Conversion>) -> Result<(), String> {
    let value = convert::literal(literal)?;
    let converted = to.map(|to| convert::convert(value.get(), to));
    converted.transpose().map(drop).map_err(|fault| fault.to_string())
}

/// Turns events into changes. Keeps its buffers from event to event.
#[derive(Debug)]
pub struct Decoder {
    rules: Arc<Rules>,
    extracted: Extracted,
    extracted_native: Extracted,
    ops: Ops,
    /// The id of the last event, where it was made from parts or converted.
    id: Value,
    plans: Plans,
}

impl Decoder {
    /// A decoder with rules of its own, from a checked configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::of(Rules::new(config, Collections::new(config)))
    }

    /// Gives back the memory that large events took.
    pub(crate) fn shrink(&mut self) {
        self.extracted.shrink();
        self.extracted_native.shrink();
        self.ops.shrink();
    }

    /// A decoder that goes by these rules.
    #[must_use]
    pub fn of(rules: Arc<Rules>) -> Self {
        Decoder {
            rules,
            extracted: Extracted::default(),
            extracted_native: Extracted::default(),
            ops: Ops::default(),
            id: ValueRef::NULL.into(),
            plans: Plans::default(),
        }
    }

    /// Decodes one event.
    ///
    /// # Errors
    /// The event can never be applied: a dead letter, with its reason.
    pub fn decode(&mut self, event: &[u8]) -> Result<Change<'_>, Box<Refused>> {
        self.decode_routed(event).map(|(change, _)| change)
    }

    /// [`decode`](Self::decode) that tells which route took the event.
    ///
    /// # Errors
    /// As for `decode`.
    pub fn decode_routed(&mut self, event: &[u8]) -> Result<(Change<'_>, Option<usize>), Box<Refused>> {
        let text = match std::str::from_utf8(event) {
            Ok(text) => text,
            Err(error) => {
                let text = format!("the event is not UTF-8: {error}");
                return Err(self.refused(event, Rejection::new(Reason::NotUtf8, text)));
            }
        };
        let Decoder { rules, extracted, extracted_native, ops, id, plans } = self;
        ops.clear();
        let mut route = plans.read(&rules.paths, text, extracted);
        let decoded = match route {
            Some(number) => match rules.routes[number].decode(extracted, ops, id) {
                Ok(Match::Change(decoded)) => Ok(decoded),
                // A plan reads no event without an id.
                Ok(Match::NoId(path)) => Err(missing_id(path)),
                Err(rejection) => Err(rejection),
            },
            None => {
                let read = extracted.extract(&rules.paths, text);
                ops.is_mended = extracted.is_mended();
                match read {
                    Ok(()) => {
                        let decoded = rules.decode(text, extracted, extracted_native, ops, id, &mut route);
                        // A route that skips has said as much of an event as any.
                        let taken =
                            decoded.as_ref().map_or_else(|why| why.reason == Reason::Skipped, |_| true);
                        if let (true, Some(number), false) = (taken, route, extracted.is_suspect()) {
                            plans.learn(&rules.paths, text, extracted, &rules.routes, number);
                        }
                        decoded
                    }
                    Err(_) if rules.skips_empty.is_some() && matches!(text.trim(), "" | "null") => {
                        route = rules.skips_empty;
                        Err(skipped())
                    }
                    Err(rejection) => Err(rejection),
                }
            }
        };
        match decoded.and_then(|decoded| decoded.finish(ops, id)) {
            Ok(change) => Ok((change, route)),
            Err(rejection) => Err(rules.refused(event, rejection, route.map(|route| (route, &*extracted)))),
        }
    }

    /// The answer for an event that is refused before it is decoded.
    #[must_use]
    pub fn refused(&self, event: &[u8], rejection: Rejection) -> Box<Refused> {
        self.rules.refused(event, rejection, None)
    }

    /// How many events had halves of surrogate pairs in their values, since this was asked before.
    pub fn take_mended(&mut self) -> u64 {
        self.ops.mended.swap(0, Ordering::Relaxed)
    }
}

impl Rules {
    /// What the first matching route makes of an event, or else the native format. `taken_by` is none where no route
    /// takes it.
    fn decode<'a>(
        &'a self,
        event: &str,
        extracted: &'a Extracted,
        extracted_native: &'a mut Extracted,
        ops: &mut Ops,
        made_id: &mut Value,
        taken_by: &mut Option<usize>,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut without_id: Option<&str> = None;
        for (number, route) in self.routes.iter().enumerate().filter(|(_, route)| route.holds(extracted)) {
            *taken_by = Some(number);
            match route.decode(extracted, ops, made_id)? {
                Match::Change(decoded) => return Ok(decoded),
                Match::NoId(path) => without_id = without_id.or(Some(path)),
            }
        }
        *taken_by = None;
        match (&self.native, without_id) {
            (Some(native), _) => native.decode(event, &self.collections, extracted_native, ops),
            (None, Some(path)) => Err(missing_id(path)),
            (None, None) => Err(Rejection::new(Reason::NoRoute, "no route matches the event")),
        }
    }
}

/// What a route or the native format made of an event; an update's operations are in [`Ops`].
struct Decoded<'a> {
    entity: EntityRef<'a>,
    /// The entity's id is not the event's own value, but one that was made; the one there is none.
    has_made_id: bool,
    ts: Option<i64>,
    traceparent: Option<TraceRef<'a>>,
    effect: DecodedEffect<'a>,
}

enum DecodedEffect<'a> {
    Update,
    Replace(&'a [u8]),
    Delete,
}

impl<'a> Decoded<'a> {
    /// The change, whose operations, shard key and perhaps id are kept elsewhere.
    #[inline]
    fn finish(self, ops: &'a Ops, made_id: &'a Value) -> Result<Change<'a>, Rejection> {
        ops.check()?;
        let mut entity = self.entity;
        if self.has_made_id {
            entity.id = made_id.get();
        }
        entity.shard_key = &ops.shard_key;
        let effect = match self.effect {
            DecodedEffect::Update => Effect::Update(FieldOps::new(&ops.bytes)),
            DecodedEffect::Replace(document) => Effect::Replace(document),
            DecodedEffect::Delete => Effect::Delete,
        };
        let change = Change { entity, effect, ts: self.ts, traceparent: self.traceparent };
        check_size(&change)?;
        if ops.is_mended {
            check_id(change.entity)?;
            ops.mended.fetch_add(1, Ordering::Relaxed);
        }
        Ok(change)
    }

    fn update(entity: EntityRef<'a>, ts: Option<i64>) -> Self {
        Decoded { entity, has_made_id: false, ts, traceparent: None, effect: DecodedEffect::Update }
    }

    fn delete(entity: EntityRef<'a>, ts: Option<i64>) -> Self {
        Decoded { entity, has_made_id: false, ts, traceparent: None, effect: DecodedEffect::Delete }
    }

    fn replace(
        entity: EntityRef<'a>,
        ts: Option<i64>,
        document: ValueRef<'a>,
        at: &str,
    ) -> Result<Self, Rejection> {
        if document.kind != ElementType::EmbeddedDocument {
            return Err(Rejection::new(
                Reason::BadEvent,
                format!("{at:?} must be an object to replace with"),
            ));
        }
        for (key, _) in raw::elements(document.bytes) {
            path::check(key)?;
        }
        let effect = DecodedEffect::Replace(document.bytes);
        Ok(Decoded { entity, has_made_id: false, ts, traceparent: None, effect })
    }
}

fn missing_id(path: &str) -> Rejection {
    Rejection::new(Reason::MissingId, format!("the event has no id at {path:?}"))
}

/// Checks the keys of a value that was read where operators may be.
fn plain_data(value: ValueRef<'_>) -> Result<(), Rejection> {
    transcode::KeyRule::Data.check_encoded(value)
}

/// Whether a value can be an `_id`. Only a route's conversion makes one that is neither text nor an integer.
#[inline]
fn is_id(id: &ValueRef<'_>) -> bool {
    use ElementType::{Binary, Int32, Int64, ObjectId};
    match id.kind {
        ElementType::String => !id.is_text(""),
        kind => matches!(kind, Int32 | Int64 | ObjectId | Binary),
    }
}

/// Checks a value that is to be an `_id`.
fn entity_id<'a>(id: ValueRef<'a>, at: &str) -> Result<ValueRef<'a>, Rejection> {
    if is_id(&id) {
        return Ok(id);
    }
    Err(match id.kind {
        ElementType::String => Rejection::new(Reason::MissingId, format!("the id at {at:?} is empty")),
        _ => Rejection::new(Reason::BadId, format!("the id at {at:?} is neither text nor an integer")),
    })
}

/// Checks the id of an event that had halves of surrogate pairs. Those that were different would be the same.
fn check_id(entity: EntityRef<'_>) -> Result<(), Rejection> {
    let is_mended =
        |value: ValueRef<'_>| value.text().is_some_and(|text| text.contains(surrogates::REPLACEMENT));
    let mut values = raw::bare_elements(entity.shard_key).map(|(_, value)| value).chain([entity.id]);
    match values.any(is_mended) {
        true => Err(Rejection::new(Reason::BadId, "the id, or the shard key, has half of a surrogate pair")),
        false => Ok(()),
    }
}

/// An event's time: milliseconds since the epoch, or RFC 3339. It only feeds the latency metrics, so
/// one that cannot be read is as good as none.
fn event_time(value: ValueRef<'_>) -> Option<i64> {
    match value.number() {
        Some(raw::Number::Int64(ms)) => Some(ms),
        Some(raw::Number::Int32(ms)) => Some(ms.into()),
        Some(raw::Number::Double(ms)) => Some(ms as i64),
        None => text_time(value.text()?),
    }
}

fn text_time(text: &str) -> Option<i64> {
    bson::DateTime::parse_rfc3339_str(text).ok().map(bson::DateTime::timestamp_millis)
}

#[inline]
fn check_size(change: &Change<'_>) -> Result<(), Rejection> {
    let bytes = change.effect.len() + change.entity.id.bytes.len();
    if bytes <= MAX_UPDATE { Ok(()) } else { Err(too_large(bytes)) }
}

fn too_large(bytes: usize) -> Rejection {
    Rejection::new(Reason::TooLarge, format!("an update of {bytes} bytes exceeds MongoDB's 16 MiB"))
}

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod extract_tests;
#[cfg(test)]
mod native_tests;
#[cfg(test)]
mod route_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace_tests;
