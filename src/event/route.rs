//! Routes: how any producer's events become changes. First match wins.

use bson::spec::ElementType;

use super::extract::{Extracted, Paths, Slot};
use super::transcode::Keys;
use super::{Collections, Decoded, Ops, entity_id, event_time, merge};
use crate::change::{CollectionId, EntityRef, FieldOp, Op};
use crate::config::{self, Amount, Scalar};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{Number, Value, ValueRef};

/// A path in an event: where its value is, and its text for messages.
#[derive(Debug)]
struct Source {
    slot: Slot,
    path: String,
}

impl Source {
    fn new(paths: &mut Paths, path: &str, keys: Keys) -> Self {
        Source { slot: paths.add(path, keys), path: path.to_owned() }
    }

    fn get<'a>(&self, extracted: &'a Extracted) -> Option<ValueRef<'a>> {
        extracted.get(self.slot)
    }
}

/// A compiled route.
#[derive(Debug)]
pub(super) struct Route {
    when: Vec<(Source, Scalar)>,
    collection: Target,
    id: Source,
    ts: Option<Source>,
    effect: RouteEffect,
}

#[derive(Debug)]
enum Target {
    Fixed(CollectionId),
    From(Source, Vec<(String, CollectionId)>),
}

#[derive(Debug)]
enum RouteEffect {
    Update { fields: Vec<Field>, merge: Option<Source> },
    Replace(Source),
    Delete,
}

#[derive(Debug)]
struct Field {
    op: Op,
    path: String,
    operand: Operand,
}

#[derive(Debug)]
enum Operand {
    Fixed(Value),
    From(Source),
}

/// What a route says of an event.
pub(super) enum Match<'a> {
    /// The event is this route's.
    Change(Decoded<'a>),
    /// A `when` did not hold.
    Other,
    /// Every `when` held, but the event has no id here.
    NoId,
}

impl Route {
    pub(super) fn new(route: &config::Route, collections: &Collections, paths: &mut Paths) -> Option<Self> {
        let when = route
            .when
            .iter()
            .map(|(path, value)| (Source::new(paths, path, Keys::Data), value.clone()))
            .collect();
        let collection = match (&route.collection, &route.collection_from) {
            (Some(name), _) => Target::Fixed(collections.find(name)?),
            (None, Some(path)) => {
                let allowed =
                    route.collections.iter().filter_map(|name| Some((name.clone(), collections.find(name)?)));
                Target::From(Source::new(paths, path, Keys::Data), allowed.collect())
            }
            (None, None) => return None,
        };
        let effect = if route.delete {
            RouteEffect::Delete
        } else if let Some(path) = &route.replace {
            RouteEffect::Replace(Source::new(paths, path, Keys::Document))
        } else {
            let merge = route.merge.as_ref().map(|path| Source::new(paths, path, Keys::Merge));
            RouteEffect::Update { fields: fields(route, paths), merge }
        };
        Some(Route {
            when,
            collection,
            id: Source::new(paths, &route.id, Keys::Data),
            ts: route.ts.as_ref().map(|path| Source::new(paths, path, Keys::Data)),
            effect,
        })
    }

    pub(super) fn id_path(&self) -> &str {
        &self.id.path
    }

    pub(super) fn decode<'a>(&self, extracted: &'a Extracted, ops: &mut Ops) -> Result<Match<'a>, Rejection> {
        if !self.when.iter().all(|(source, value)| equals(source.get(extracted), value)) {
            return Ok(Match::Other);
        }
        let Some(id) = self.id.get(extracted).filter(|id| id.kind != ElementType::Null) else {
            return Ok(Match::NoId);
        };
        let entity = EntityRef { collection: self.target(extracted)?, id: entity_id(id, &self.id.path)? };
        let ts = self.ts.as_ref().and_then(|source| source.get(extracted)).and_then(event_time);
        let decoded = match &self.effect {
            RouteEffect::Delete => Decoded::delete(entity, ts),
            RouteEffect::Replace(source) => {
                let document = source.get(extracted).ok_or_else(|| nothing_at(&source.path))?;
                Decoded::replace(entity, ts, document, &source.path)?
            }
            RouteEffect::Update { fields, merge: source } => {
                let mut written = false;
                for field in fields {
                    written |= field.write(extracted, ops)?;
                }
                if let Some(source) = source
                    && let Some(patch) = source.get(extracted)
                {
                    merge(patch, &source.path, ops)?;
                    written = true;
                }
                if !written {
                    let text = "the event has none of the values that its route writes";
                    return Err(Rejection::new(Reason::BadEvent, text));
                }
                Decoded::update(entity, ts)
            }
        };
        Ok(Match::Change(decoded))
    }

    fn target(&self, extracted: &Extracted) -> Result<CollectionId, Rejection> {
        match &self.collection {
            Target::Fixed(id) => Ok(*id),
            Target::From(source, allowed) => {
                let name = source.get(extracted).and_then(ValueRef::text).ok_or_else(|| {
                    let text = format!("{:?} does not name a collection", source.path);
                    Rejection::new(Reason::UnknownCollection, text)
                })?;
                allowed.iter().find(|(n, _)| n == name).map(|(_, id)| *id).ok_or_else(|| {
                    let text = format!("the collection {name:?} is not among the route's collections");
                    Rejection::new(Reason::UnknownCollection, text)
                })
            }
        }
    }
}

impl Field {
    /// Writes the operation, if the event has its operand.
    fn write(&self, extracted: &Extracted, ops: &mut Ops) -> Result<bool, Rejection> {
        let value = match &self.operand {
            Operand::Fixed(value) => value.get(),
            Operand::From(source) => match source.get(extracted) {
                Some(value) => value,
                None => return Ok(false),
            },
        };
        ops.add(FieldOp { op: self.op, path: &self.path, value })?;
        Ok(true)
    }
}

fn fields(route: &config::Route, paths: &mut Paths) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut add = |op, path: &String, operand| fields.push(Field { op, path: path.clone(), operand });
    for (path, source) in &route.set {
        add(Op::Set, path, Operand::From(Source::new(paths, source, Keys::Data)));
    }
    for path in &route.unset {
        add(Op::Unset, path, Operand::Fixed(ValueRef::NULL.into()));
    }
    for (path, amount) in &route.inc {
        let operand = match amount {
            Amount::Int(n) => Operand::Fixed(Number::int(*n).into()),
            Amount::Float(n) => Operand::Fixed(Number::Double(*n).into()),
            Amount::Path(source) => Operand::From(Source::new(paths, source, Keys::Data)),
        };
        add(Op::Inc, path, operand);
    }
    for (path, source) in &route.push {
        add(Op::Push, path, Operand::From(Source::new(paths, source, Keys::Data)));
    }
    fields
}

fn nothing_at(path: &str) -> Rejection {
    Rejection::new(Reason::BadEvent, format!("the event has no value at {path:?}"))
}

/// Whether an event's value equals a configured one; numbers compare by value.
fn equals(value: Option<ValueRef<'_>>, expected: &Scalar) -> bool {
    let Some(value) = value else { return false };
    match expected {
        Scalar::String(text) => value.text() == Some(text),
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
