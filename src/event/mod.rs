//! From an event's bytes to a change: extract the values that routes name, then map them.
//!
//! Everything in an event is untrusted. What cannot be applied is refused here with a reason; what
//! passes can still be refused by MongoDB, never by tidegate later.

pub(crate) mod convert;
mod extract;
mod field;
mod native;
mod operators;
mod patch;
pub mod path;
mod route;
mod source;
mod transcode;

use bson::spec::ElementType;

use self::extract::{Extracted, Paths};
use self::native::Native;
use self::route::{Match, Route};
use crate::change::{Change, CollectionId, Effect, EntityRef, FieldOp, FieldOps, Op, write_field_op};
use crate::config::Config;
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, Value, ValueRef};

/// The largest BSON document MongoDB stores, bytes.
pub const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// The configured collections; events can reach no others.
#[derive(Debug, Clone, Default)]
pub struct Collections(Vec<String>);

impl Collections {
    /// All collections that the configuration names.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut names = config.native.collections.clone();
        for route in &config.routes {
            names.extend(route.collection.clone());
            names.extend_from_slice(&route.collections);
        }
        names.sort();
        names.dedup();
        Collections(names)
    }

    /// These, and behind them those that only `config` names: whatever has an id keeps it.
    #[must_use]
    pub fn extended(&self, config: &Config) -> Self {
        let mut names = self.0.clone();
        let more = Collections::new(config).0.into_iter().filter(|name| !self.0.contains(name));
        names.extend(more);
        Collections(names)
    }

    /// The collection of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<CollectionId> {
        let at = self.0.iter().position(|n| n == name)?;
        u16::try_from(at).ok().map(CollectionId)
    }

    /// The name of a collection.
    #[must_use]
    pub fn name(&self, id: CollectionId) -> &str {
        self.0.get(usize::from(id.0)).map_or("", String::as_str)
    }

    /// All names, by id.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

/// Turns events into changes. Keeps its buffers from event to event.
#[derive(Debug)]
pub struct Decoder {
    collections: Collections,
    paths: Paths,
    routes: Vec<Route>,
    native: Option<Native>,
    extracted: Extracted,
    extracted_native: Extracted,
    ops: Ops,
    /// The id of the last event, where it was made from parts or converted.
    id: Value,
}

impl Decoder {
    /// Compiles the routes of a checked configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::with_collections(config, Collections::new(config))
    }

    /// The same, where collections have ids already.
    #[must_use]
    pub fn with_collections(config: &Config, collections: Collections) -> Self {
        let mut paths = Paths::default();
        let routes =
            config.routes.iter().filter_map(|route| Route::new(route, &collections, &mut paths)).collect();
        let allowed = &config.native.collections;
        let native = (!allowed.is_empty()).then(|| Native::new(allowed));
        Decoder {
            collections,
            paths,
            routes,
            native,
            extracted: Extracted::default(),
            extracted_native: Extracted::default(),
            ops: Ops::default(),
            id: ValueRef::NULL.into(),
        }
    }

    /// Decodes one event.
    ///
    /// # Errors
    /// The event can never be applied: a dead letter, with its reason.
    pub fn decode(&mut self, event: &[u8]) -> Result<Change<'_>, Rejection> {
        self.decode_routed(event, &mut None)
    }

    /// [`decode`](Self::decode) that tells which route took the event, be it to refuse it.
    ///
    /// # Errors
    /// As for `decode`.
    pub fn decode_routed(
        &mut self,
        event: &[u8],
        route: &mut Option<usize>,
    ) -> Result<Change<'_>, Rejection> {
        *route = None;
        let event = std::str::from_utf8(event)
            .map_err(|e| Rejection::new(Reason::NotUtf8, format!("the event is not UTF-8: {e}")))?;
        let Decoder { collections, paths, routes, native, extracted, extracted_native, ops, id } = self;
        ops.clear();
        extracted.extract(paths, event)?;
        let mut decoded = match (by_route(routes, extracted, ops, route)?, native) {
            (Ok(decoded), _) => decoded,
            (Err(_), Some(native)) => native.decode(event, collections, extracted_native, ops)?,
            (Err(unrouted), None) => return Err(unrouted),
        };
        ops.check_disjoint()?;
        if let Some(made) = decoded.made_id {
            *id = made;
            decoded.entity.id = id.get();
        }
        decoded.entity.shard_key = &ops.shard_key;
        let effect = match decoded.effect {
            DecodedEffect::Update => Effect::Update(FieldOps::new(&ops.bytes)),
            DecodedEffect::Replace(document) => Effect::Replace(document),
            DecodedEffect::Delete => Effect::Delete,
        };
        let change = Change { entity: decoded.entity, effect, ts: decoded.ts };
        check_size(&change)?;
        Ok(change)
    }
}

/// The change that the first matching route makes of an event, or why none matches.
fn by_route<'a>(
    routes: &'a [Route],
    extracted: &'a Extracted,
    ops: &mut Ops,
    taken_by: &mut Option<usize>,
) -> Result<Result<Decoded<'a>, Rejection>, Rejection> {
    let mut without_id: Option<&str> = None;
    for (number, route) in routes.iter().enumerate() {
        *taken_by = Some(number);
        match route.decode(extracted, ops)? {
            Match::Change(decoded) => return Ok(Ok(decoded)),
            Match::NoId(path) => without_id = without_id.or(Some(path)),
            Match::Other => {}
        }
    }
    *taken_by = None;
    Ok(Err(match without_id {
        Some(path) => Rejection::new(Reason::MissingId, format!("the event has no id at {path:?}")),
        None => Rejection::new(Reason::NoRoute, "no route matches the event"),
    }))
}

/// What a route or the native format made of an event; an update's operations are in [`Ops`].
struct Decoded<'a> {
    entity: EntityRef<'a>,
    /// The entity's id, where it is not the event's own value; then the one there is none.
    made_id: Option<Value>,
    ts: Option<i64>,
    effect: DecodedEffect<'a>,
}

enum DecodedEffect<'a> {
    Update,
    Replace(&'a [u8]),
    Delete,
}

impl<'a> Decoded<'a> {
    fn update(entity: EntityRef<'a>, ts: Option<i64>) -> Self {
        Decoded { entity, made_id: None, ts, effect: DecodedEffect::Update }
    }

    fn delete(entity: EntityRef<'a>, ts: Option<i64>) -> Self {
        Decoded { entity, made_id: None, ts, effect: DecodedEffect::Delete }
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
        Ok(Decoded { entity, made_id: None, ts, effect: DecodedEffect::Replace(document.bytes) })
    }
}

/// The operations of one update.
#[derive(Debug, Default)]
struct Ops {
    bytes: Vec<u8>,
    count: usize,
    /// The elements of the entity's shard key.
    shard_key: Vec<u8>,
    /// Some paths came from the event, so nobody has compared them yet.
    from_event: bool,
}

impl Ops {
    fn clear(&mut self) {
        self.bytes.clear();
        self.shard_key.clear();
        self.count = 0;
        self.from_event = false;
    }

    fn len(&self) -> usize {
        self.count
    }

    /// Adds an operation whose path is the configuration's.
    fn add(&mut self, op: FieldOp<'_>) -> Result<(), Rejection> {
        if matches!(op.op, Op::Inc | Op::Mul) && op.value.number().is_none() {
            let verb = if op.op == Op::Inc { "incremented" } else { "multiplied" };
            let text = format!("{:?} can only be {verb} by a number", op.path);
            return Err(Rejection::new(Reason::BadNumber, text));
        }
        write_field_op(&mut self.bytes, op);
        self.count += 1;
        Ok(())
    }

    /// Adds an operation whose path is the event's.
    fn add_from_event(&mut self, op: FieldOp<'_>) -> Result<(), Rejection> {
        path::check(op.path)?;
        self.from_event = true;
        self.add(op)
    }

    fn check_disjoint(&self) -> Result<(), Rejection> {
        if !self.from_event {
            return Ok(());
        }
        let mut paths = Vec::with_capacity(self.count);
        for op in FieldOps::new(&self.bytes) {
            paths.push(op.path);
            if op.op == Op::Rename {
                paths.extend(op.value.text());
            }
        }
        path::check_disjoint(&paths)
    }
}

/// Turns a merge patch (RFC 7396) into operations on fields: null removes, an object merges, anything
/// else is set.
fn merge(patch: ValueRef<'_>, at: &str, ops: &mut Ops) -> Result<(), Rejection> {
    if patch.kind != ElementType::EmbeddedDocument {
        return Err(Rejection::new(Reason::BadEvent, format!("{at:?} must be an object to merge")));
    }
    merge_below(patch, &mut String::new(), ops)
}

fn merge_below(patch: ValueRef<'_>, path: &mut String, ops: &mut Ops) -> Result<(), Rejection> {
    for (key, value) in raw::elements(patch.bytes) {
        let parent = path.len();
        if parent > 0 {
            path.push('.');
        }
        path.push_str(key);
        match value.kind {
            ElementType::Null => ops.add_from_event(FieldOp { op: Op::Unset, path, value })?,
            ElementType::EmbeddedDocument if raw::elements(value.bytes).next().is_none() => {
                let text =
                    format!("merging an empty object into {path:?} depends on what the document holds there");
                return Err(Rejection::new(Reason::BadEvent, text));
            }
            ElementType::EmbeddedDocument => merge_below(value, path, ops)?,
            _ => ops.add_from_event(FieldOp { op: Op::Set, path, value })?,
        }
        path.truncate(parent);
    }
    Ok(())
}

/// Checks the keys of a value that was read where operators may be.
fn plain_data(value: ValueRef<'_>) -> Result<(), Rejection> {
    transcode::Keys::Data.check_encoded(value)
}

/// Checks a value that is to be an `_id`.
fn entity_id<'a>(id: ValueRef<'a>, at: &str) -> Result<ValueRef<'a>, Rejection> {
    match id.kind {
        ElementType::String if id.text() == Some("") => {
            Err(Rejection::new(Reason::MissingId, format!("the id at {at:?} is empty")))
        }
        ElementType::String | ElementType::Int32 | ElementType::Int64 => Ok(id),
        // Only a route's conversion makes these.
        ElementType::ObjectId | ElementType::Binary => Ok(id),
        _ => Err(Rejection::new(Reason::BadId, format!("the id at {at:?} is neither text nor an integer"))),
    }
}

/// An event's time: milliseconds since the epoch, or RFC 3339. It only feeds the latency metrics, so
/// one that cannot be read is as good as none.
fn event_time(value: ValueRef<'_>) -> Option<i64> {
    match value.number() {
        Some(raw::Number::Int64(ms)) => Some(ms),
        Some(raw::Number::Int32(ms)) => Some(ms.into()),
        Some(raw::Number::Double(ms)) => Some(ms as i64),
        None => bson::DateTime::parse_rfc3339_str(value.text()?).ok().map(bson::DateTime::timestamp_millis),
    }
}

fn check_size(change: &Change<'_>) -> Result<(), Rejection> {
    // Room for what surrounds the update in the command: guard, watermark, names.
    const ROOM: usize = 64 * 1024;
    let bytes = change.effect.len() + change.entity.id.bytes.len();
    if bytes <= MAX_DOCUMENT - ROOM {
        return Ok(());
    }
    Err(Rejection::new(Reason::TooLarge, format!("an update of {bytes} bytes exceeds MongoDB's 16 MiB")))
}

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod route_tests;
#[cfg(test)]
mod tests;
