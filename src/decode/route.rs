//! Compiles routes, and makes changes of events by them. The first match wins.

use bson::spec::ElementType;

use super::extract::Extracted;
use super::field::{Field, Yjs, fields};
use super::patch::read_patch;
use super::paths::{Paths, Slot};
use super::source::{At, IdSource, TakenValue, ValueSource};
use super::transcode::KeyRule;
use super::{Collections, Decoded, Ops, check_id, event_time, merge};
use crate::change::{CollectionId, Entity, EntityRef};
use crate::config::{self, Scalar};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, Number, Value, ValueRef};

/// Between the parts of an id, unless the route says otherwise.
const ID_SEPARATOR: &str = ":";

/// A compiled route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) when: Vec<(At, Scalar)>,
    pub(super) collection: Target,
    pub(super) id: IdSource,
    pub(super) shard_key: Vec<(String, ValueSource)>,
    pub(super) ts: Option<At>,
    pub(super) traceparent: Option<Slot>,
    pub(super) effect: RouteEffect,
    /// Its events write nothing.
    pub(super) flushes: bool,
    /// All that it reads: what `when` asks for, then the rest.
    reads: Vec<(Slot, KeyRule)>,
}

#[derive(Debug)]
pub(super) enum Target {
    Fixed(CollectionId),
    From(At, Vec<(String, CollectionId)>),
}

#[derive(Debug)]
pub(super) enum RouteEffect {
    Update {
        fields: Vec<Field>,
        yjs: Option<Yjs>,
        merge: Option<At>,
        patch: Option<At>,
    },
    Replace(At),
    Delete,
    Skip,
    /// Of what is no event: nothing that can be read is this route's.
    SkipEmpty,
}

/// What a route says of an event for which every `when` holds.
pub(super) enum Match<'a> {
    /// The event is this route's.
    Change(Decoded<'a>),
    /// The event has nothing at this path of the id.
    NoId(&'a str),
}

impl Route {
    pub(super) fn new(route: &config::Route, collections: &Collections, paths: &mut Paths) -> Option<Self> {
        let when = route
            .when
            .iter()
            .map(|(path, value)| (At::new(paths, path, KeyRule::Data), value.clone()))
            .collect();
        if route.skip.is_some() {
            let effect = if route.skips_empty() { RouteEffect::SkipEmpty } else { RouteEffect::Skip };
            return Some(Route {
                when,
                collection: Target::Fixed(CollectionId(0)),
                id: IdSource::Joined(Vec::new(), String::new()),
                shard_key: Vec::new(),
                ts: None,
                traceparent: None,
                effect,
                flushes: false,
                reads: std::mem::take(&mut paths.reads),
            });
        }
        let collection = match (&route.collection, &route.collection_from) {
            (Some(name), _) => Target::Fixed(collections.find(name)?),
            (None, Some(path)) => {
                let allowed =
                    route.collections.iter().filter_map(|name| Some((name.clone(), collections.find(name)?)));
                Target::From(At::new(paths, path, KeyRule::Data), allowed.collect())
            }
            (None, None) => return None,
        };
        let effect = if route.delete {
            RouteEffect::Delete
        } else if let Some(path) = &route.replace {
            RouteEffect::Replace(At::new(paths, path, KeyRule::Document))
        } else {
            let merge = route.merge.as_ref().map(|path| At::new(paths, path, KeyRule::Merge));
            let patch = route.patch.as_ref().map(|path| At::new(paths, path, KeyRule::Data));
            let yjs = route.yjs.as_ref().map(|yjs| Yjs::new(yjs, paths));
            RouteEffect::Update { fields: fields(route, paths)?, yjs, merge, patch }
        };
        let shard_key = route
            .shard_key
            .iter()
            .map(|(field, source)| Some((field.clone(), ValueSource::new(source, paths)?)))
            .collect::<Option<_>>()?;
        Some(Route {
            when,
            shard_key,
            collection,
            id: IdSource::new(&route.id, route.id_separator.as_deref().unwrap_or(ID_SEPARATOR), paths)?,
            ts: route.ts.as_ref().map(|path| At::new(paths, path, KeyRule::Data)),
            traceparent: route.traceparent.as_ref().map(|path| paths.add_trace(path)),
            effect,
            flushes: route.only_flushes(),
            reads: std::mem::take(&mut paths.reads),
        })
    }

    /// What it reads of an event for which every `when` holds.
    pub(super) fn reads_for_change(&self) -> impl Iterator<Item = Slot> {
        self.reads[self.when.len()..].iter().map(|(slot, _)| *slot)
    }

    /// Whether every `when` holds.
    #[inline]
    pub(super) fn holds(&self, extracted: &Extracted) -> bool {
        !matches!(self.effect, RouteEffect::SkipEmpty)
            && self.when.iter().all(|(source, value)| equals(source.get(extracted), value))
    }

    pub(super) fn decode<'a>(
        &'a self,
        extracted: &'a Extracted,
        ops: &mut Ops,
        made_id: &mut Value,
    ) -> Result<Match<'a>, Rejection> {
        if matches!(self.effect, RouteEffect::Skip) {
            return Err(skipped());
        }
        let id = self.id.take(extracted, made_id);
        if !matches!(id, Ok(TakenValue::Nothing(_))) {
            extracted.check_keys(&self.reads)?;
        }
        let (id, has_made_id) = match id? {
            TakenValue::Borrowed(id) => (id, false),
            // Until the decoder has put it there is no reference to it.
            TakenValue::Made => (ValueRef::NULL, true),
            TakenValue::Nothing(path) => return Ok(Match::NoId(path)),
        };
        for (field, source) in &self.shard_key {
            write_shard_key(field, source, extracted, &mut ops.shard_key)?;
        }
        // The decoder borrows the shard key once all is written.
        let entity = EntityRef { collection: self.target(extracted)?, id, shard_key: &[] };
        let ts = self.ts.as_ref().and_then(|source| source.get(extracted)).and_then(event_time);
        let decoded = match &self.effect {
            RouteEffect::Skip | RouteEffect::SkipEmpty => return Err(skipped()),
            RouteEffect::Delete => Decoded::delete(entity, ts),
            RouteEffect::Replace(source) => {
                let document = source.get(extracted).ok_or_else(|| nothing_at(&source.path))?;
                Decoded::replace(entity, ts, document, &source.path)?
            }
            RouteEffect::Update { fields, yjs, merge: merged, patch } => {
                for field in fields {
                    field.write(extracted, ops)?;
                }
                if let Some(yjs) = yjs {
                    yjs.write(extracted, ops)?;
                }
                let mut written = ops.len() > 0;
                if let Some(source) = merged
                    && let Some(value) = source.get(extracted)
                {
                    merge(value, &source.path, ops)?;
                    written = true;
                }
                if let Some(value) = patch.as_ref().and_then(|source| source.get(extracted)) {
                    read_patch(value, ops)?;
                    written = true;
                }
                if !written && !self.flushes {
                    let text = "the event has none of the values that its route writes";
                    return Err(Rejection::new(Reason::BadEvent, text));
                }
                Decoded::update(entity, ts)
            }
        };
        let traceparent = self.traceparent.and_then(|slot| extracted.trace(slot));
        Ok(Match::Change(Decoded { has_made_id, traceparent, ..decoded }))
    }

    /// The entity of an event that this route took and refused, without its shard key.
    pub(super) fn entity(&self, extracted: &Extracted) -> Option<Entity> {
        let mut made = ValueRef::NULL.into();
        let id = match self.id.take(extracted, &mut made).ok()? {
            TakenValue::Borrowed(id) => id,
            TakenValue::Made => made.get(),
            TakenValue::Nothing(_) => return None,
        };
        let entity = EntityRef { collection: self.target(extracted).ok()?, id, shard_key: &[] };
        if extracted.is_mended() {
            check_id(entity).ok()?;
        }
        Some(entity.into())
    }

    #[inline(always)]
    fn target(&self, extracted: &Extracted) -> Result<CollectionId, Rejection> {
        match &self.collection {
            Target::Fixed(id) => Ok(*id),
            Target::From(source, allowed) => named_collection(source.get(extracted), &source.path, allowed),
        }
    }
}

/// The collection that an event names, if its route has it.
fn named_collection(
    name: Option<ValueRef<'_>>,
    path: &str,
    allowed: &[(String, CollectionId)],
) -> Result<CollectionId, Rejection> {
    let unknown = |text| Rejection::new(Reason::UnknownCollection, text);
    let name = name.and_then(ValueRef::text);
    let name = name.ok_or_else(|| unknown(format!("{path:?} does not name a collection")))?;
    let found = allowed.iter().find(|(own, _)| own == name).map(|(_, id)| *id);
    found.ok_or_else(|| unknown(format!("the collection {name:?} is not among the route's collections")))
}

/// Appends an element of the shard key.
fn write_shard_key(
    field: &str,
    source: &ValueSource,
    extracted: &Extracted,
    out: &mut Vec<u8>,
) -> Result<(), Rejection> {
    source.with(extracted, |value| match value {
        Some(value) if !matches!(value.kind, ElementType::Array | ElementType::EmbeddedDocument) => {
            raw::write(out, field, value);
            Ok(())
        }
        Some(_) => {
            let text = format!("the shard key {field:?} must be a single value");
            Err(Rejection::new(Reason::BadId, text))
        }
        None => {
            let text = format!("the event has no value for the shard key {field:?}");
            Err(Rejection::new(Reason::MissingId, text))
        }
    })
}

pub(super) fn skipped() -> Rejection {
    Rejection::new(Reason::Skipped, "a route skips the event")
}

fn nothing_at(path: &str) -> Rejection {
    Rejection::new(Reason::BadEvent, format!("the event has no value at {path:?}"))
}

/// Whether an event's value equals a configured one; numbers compare by value.
fn equals(value: Option<ValueRef<'_>>, expected: &Scalar) -> bool {
    let Some(value) = value else { return false };
    match expected {
        Scalar::String(text) => value.is_text(text),
        Scalar::Bool(b) => value.kind == ElementType::Boolean && value.bytes == [u8::from(*b)],
        Scalar::Int(n) => match value.number() {
            Some(Number::Int32(v)) => i64::from(v) == *n,
            Some(Number::Int64(v)) => v == *n,
            Some(Number::Double(v)) => v == *n as f64,
            None => false,
        },
        Scalar::Float(n) => match value.number() {
            Some(Number::Int32(v)) => f64::from(v) == *n,
            Some(Number::Int64(v)) => v as f64 == *n,
            Some(Number::Double(v)) => v == *n,
            None => false,
        },
    }
}
