//! Where a route's values come from: the event, the configuration, the clock.

use bson::spec::ElementType;

use super::convert::{self, convert, text_value};
use super::entity_id;
use super::extract::Extracted;
use super::paths::{Paths, Slot};
use super::transcode::Keys;
use crate::config::{self, Conversion};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{Number, Value, ValueRef};

/// A path in an event: where its value is, and its text for messages.
#[derive(Debug)]
pub(super) struct At {
    slot: Slot,
    pub(super) path: String,
}

impl At {
    pub(super) fn new(paths: &mut Paths, path: &str, keys: Keys) -> Self {
        At { slot: paths.add(path, keys), path: path.to_owned() }
    }

    pub(super) fn get<'a>(&self, extracted: &'a Extracted) -> Option<ValueRef<'a>> {
        extracted.get(self.slot)
    }
}

/// A compiled source of a value.
#[derive(Debug)]
pub(super) enum Source {
    /// What the event has, as it is.
    Event(At),
    /// What the event has, converted, or else a default, converted already.
    Converted(At, Option<Conversion>, Option<Value>),
    /// Always the same.
    Fixed(Value),
    /// The time of asking.
    Now,
}

/// A value, the event's or made for it.
#[derive(Debug)]
pub(super) enum Taken<'a> {
    /// Borrowed from the event or the configuration.
    Borrowed(ValueRef<'a>),
    /// Made from it.
    Made(Value),
}

impl Taken<'_> {
    pub(super) fn get(&self) -> ValueRef<'_> {
        match self {
            Taken::Borrowed(value) => *value,
            Taken::Made(value) => value.get(),
        }
    }
}

impl Source {
    /// Compiles a source; None if it is none that the check of the configuration lets pass.
    pub(super) fn new(source: &config::Source, paths: &mut Paths) -> Option<Self> {
        let table = match source {
            config::Source::Path(path) => return Some(Source::Event(At::new(paths, path, Keys::Data))),
            config::Source::Table(table) => table,
        };
        if let Some(path) = &table.path {
            let default = match (&table.default, table.to) {
                (None, _) => None,
                (Some(default), None) => Some(convert::literal(default).ok()?),
                (Some(default), Some(to)) => Some(convert(convert::literal(default).ok()?.get(), to).ok()?),
            };
            return Some(Source::Converted(At::new(paths, path, Keys::Data), table.to, default));
        }
        match &table.value {
            Some(value) => Some(Source::Fixed(convert::literal(value).ok()?)),
            None => Some(Source::Now),
        }
    }

    /// The path, for messages.
    fn path(&self) -> &str {
        match self {
            Source::Event(at) | Source::Converted(at, ..) => &at.path,
            Source::Fixed(_) | Source::Now => "",
        }
    }

    /// The value, if there is one.
    ///
    /// # Errors
    /// It cannot be converted.
    pub(super) fn take<'a>(&'a self, extracted: &'a Extracted) -> Result<Option<Taken<'a>>, Rejection> {
        let (at, to, default) = match self {
            Source::Event(at) => return Ok(at.get(extracted).map(Taken::Borrowed)),
            Source::Fixed(value) => return Ok(Some(Taken::Borrowed(value.get()))),
            Source::Now => {
                let now = bson::DateTime::now().timestamp_millis().to_le_bytes();
                let now = ValueRef { kind: ElementType::DateTime, bytes: &now };
                return Ok(Some(Taken::Made(now.into())));
            }
            Source::Converted(at, to, default) => (at, to, default),
        };
        let found = at.get(extracted);
        if let Some(default) = default
            && found.is_none_or(|value| value.kind == ElementType::Null)
        {
            return Ok(Some(Taken::Borrowed(default.get())));
        }
        let (Some(value), Some(to)) = (found, *to) else { return Ok(found.map(Taken::Borrowed)) };
        match convert(value, to) {
            Ok(value) => Ok(Some(Taken::Made(value))),
            Err(fault) => {
                let reason = match fault.wanted {
                    Conversion::Int | Conversion::Double | Conversion::Decimal => Reason::BadNumber,
                    _ => Reason::BadEvent,
                };
                Err(Rejection::new(reason, format!("{:?} holds {fault}", at.path)))
            }
        }
    }
}

/// A compiled id.
#[derive(Debug)]
pub(super) enum Id {
    /// One value.
    One(Source),
    /// The texts of several, with something between.
    Joined(Vec<Source>, String),
}

impl Id {
    pub(super) fn new(id: &config::Id, separator: &str, paths: &mut Paths) -> Option<Self> {
        Some(match id {
            config::Id::One(source) => Id::One(Source::new(source, paths)?),
            config::Id::Parts(parts) => {
                let parts = parts.iter().map(|part| Source::new(part, paths)).collect::<Option<_>>()?;
                Id::Joined(parts, separator.to_owned())
            }
        })
    }

    /// The `_id` that the event names, or the path at which it has nothing or null.
    ///
    /// # Errors
    /// What it has there can be no id.
    pub(super) fn take<'a>(
        &'a self,
        extracted: &'a Extracted,
    ) -> Result<Result<Taken<'a>, &'a str>, Rejection> {
        match self {
            Id::One(source) => {
                let Some(id) = take_id(source, extracted)? else { return Ok(Err(source.path())) };
                entity_id(id.get(), source.path())?;
                Ok(Ok(id))
            }
            Id::Joined(parts, separator) => {
                let mut joined = String::new();
                for source in parts {
                    let Some(part) = take_id(source, extracted)? else { return Ok(Err(source.path())) };
                    push_part(&mut joined, part.get(), source.path(), separator)?;
                }
                joined.truncate(joined.len() - separator.len());
                Ok(Ok(Taken::Made(text_value(&joined))))
            }
        }
    }
}

/// A value other than null that is to be an id; one that cannot be converted makes a bad id.
fn take_id<'a>(source: &'a Source, extracted: &'a Extracted) -> Result<Option<Taken<'a>>, Rejection> {
    let taken =
        source.take(extracted).map_err(|rejection| Rejection { reason: Reason::BadId, ..rejection })?;
    Ok(taken.filter(|id| id.get().kind != ElementType::Null))
}

/// Appends a part and the separator.
fn push_part(joined: &mut String, part: ValueRef<'_>, path: &str, separator: &str) -> Result<(), Rejection> {
    entity_id(part, path)?;
    let integer;
    let text = match (part.text(), part.number()) {
        (Some(text), _) => text,
        (None, Some(Number::Int32(n))) => {
            integer = n.to_string();
            &integer
        }
        (None, Some(Number::Int64(n))) => {
            integer = n.to_string();
            &integer
        }
        _ => {
            let text = format!("the part of the id at {path:?} is neither text nor an integer");
            return Err(Rejection::new(Reason::BadId, text));
        }
    };
    let start = joined.len();
    joined.push_str(text);
    joined.push_str(separator);
    // Else two entities could have the same id: `a:b` and `c`, `a` and `b:c`. A part that ends with half a
    // separator would do.
    if joined[start..].find(separator) == Some(text.len()) {
        return Ok(());
    }
    let text = format!("the part of the id at {path:?} contains the separator {separator:?}");
    Err(Rejection::new(Reason::BadId, text))
}
