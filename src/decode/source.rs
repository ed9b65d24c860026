//! Takes a route's values from the event, the configuration or the clock.

use bson::spec::ElementType;

use super::convert::{self, convert, text_value};
use super::extract::Extracted;
use super::paths::{Paths, Slot};
use super::transcode::KeyRule;
use super::{entity_id, is_id};
use crate::config::{self, Conversion};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{Number, Value, ValueRef};

/// A path in an event: where its value is, and its text for messages.
#[derive(Debug)]
pub(super) struct At {
    pub(super) slot: Slot,
    pub(super) path: String,
}

impl At {
    pub(super) fn new(paths: &mut Paths, path: &str, keys: KeyRule) -> Self {
        At { slot: paths.add(path, keys), path: path.to_owned() }
    }

    pub(super) fn get<'a>(&self, extracted: &'a Extracted) -> Option<ValueRef<'a>> {
        extracted.get(self.slot)
    }
}

/// A compiled source of a value.
#[derive(Debug)]
pub(super) enum ValueSource {
    /// What the event has, as it is.
    Event(At),
    /// What the event has, converted, or else a default, converted already.
    Converted(At, Option<Conversion>, Option<Value>),
    /// Always the same.
    Fixed(Value),
    /// The time of asking.
    Now,
}

impl ValueSource {
    /// Compiles a source; None if it is none that the check of the configuration lets pass.
    pub(super) fn new(source: &config::Source, paths: &mut Paths) -> Option<Self> {
        let table = match source {
            config::Source::Path(path) => {
                return Some(ValueSource::Event(At::new(paths, path, KeyRule::Data)));
            }
            config::Source::Table(table) => table,
        };
        if let Some(path) = &table.path {
            let default = match (&table.default, table.to) {
                (None, _) => None,
                (Some(default), None) => Some(convert::literal(default).ok()?),
                (Some(default), Some(to)) => Some(convert(convert::literal(default).ok()?.get(), to).ok()?),
            };
            return Some(ValueSource::Converted(At::new(paths, path, KeyRule::Data), table.to, default));
        }
        match &table.value {
            Some(value) => Some(ValueSource::Fixed(convert::literal(value).ok()?)),
            None => Some(ValueSource::Now),
        }
    }

    /// The place in the event, if the value is from there.
    fn at(&self) -> Option<&At> {
        match self {
            ValueSource::Event(at) | ValueSource::Converted(at, ..) => Some(at),
            ValueSource::Fixed(_) | ValueSource::Now => None,
        }
    }

    /// The path, for messages.
    fn path(&self) -> &str {
        self.at().map_or("", |at| &at.path)
    }

    /// Hands the value, if there is one, to `work`.
    ///
    /// # Errors
    /// It cannot be converted, or those of `work`.
    #[inline]
    pub(super) fn with<R>(
        &self,
        extracted: &Extracted,
        work: impl FnOnce(Option<ValueRef<'_>>) -> Result<R, Rejection>,
    ) -> Result<R, Rejection> {
        let made;
        work(match self.at_hand(extracted) {
            Some(value) => value,
            None => {
                made = self.make(extracted)?;
                Some(made.get())
            }
        })
    }

    /// The value, if there is one; none at all where it has to be made.
    #[inline]
    fn at_hand<'a>(&'a self, extracted: &'a Extracted) -> Option<Option<ValueRef<'a>>> {
        match self {
            ValueSource::Event(at) => Some(at.get(extracted)),
            ValueSource::Fixed(value) => Some(Some(value.get())),
            ValueSource::Converted(at, to, default) => match (at.get(extracted), default) {
                (None, None) => Some(None),
                (None | Some(ValueRef { kind: ElementType::Null, .. }), Some(default)) => {
                    Some(Some(default.get()))
                }
                (found, _) => to.is_none().then_some(found),
            },
            ValueSource::Now => None,
        }
    }

    fn make(&self, extracted: &Extracted) -> Result<Value, Rejection> {
        let (at, value, to) = match self {
            ValueSource::Converted(at, Some(to), _) => (at, at.get(extracted).unwrap_or(ValueRef::NULL), *to),
            _ => {
                let now = bson::DateTime::now().timestamp_millis().to_le_bytes();
                return Ok(ValueRef { kind: ElementType::DateTime, bytes: &now }.into());
            }
        };
        convert(value, to).map_err(|fault| {
            let reason = match fault.wanted {
                Conversion::Int | Conversion::Double | Conversion::Decimal => Reason::BadNumber,
                _ => Reason::BadEvent,
            };
            Rejection::new(reason, format!("{:?} holds {fault}", at.path))
        })
    }
}

/// A compiled id.
#[derive(Debug)]
pub(super) enum IdSource {
    /// One value.
    One(ValueSource),
    /// The texts of several, with something between.
    Joined(Vec<ValueSource>, String),
}

impl IdSource {
    pub(super) fn new(id: &config::Id, separator: &str, paths: &mut Paths) -> Option<Self> {
        Some(match id {
            config::Id::One(source) => IdSource::One(ValueSource::new(source, paths)?),
            config::Id::Parts(parts) => {
                let parts = parts.iter().map(|part| ValueSource::new(part, paths)).collect::<Option<_>>()?;
                IdSource::Joined(parts, separator.to_owned())
            }
        })
    }

    /// What of the event it is made of.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        let parts = match self {
            IdSource::One(source) => std::slice::from_ref(source),
            IdSource::Joined(parts, _) => parts,
        };
        parts.iter().filter_map(ValueSource::at).map(|at| at.slot)
    }

    /// The `_id` that the event names. One that is not as it stands in the event is put into `made`.
    ///
    /// # Errors
    /// What it has there can be no id.
    #[inline(always)]
    pub(super) fn take<'a>(
        &'a self,
        extracted: &'a Extracted,
        made: &mut Value,
    ) -> Result<TakenValue<'a>, Rejection> {
        match self {
            IdSource::One(ValueSource::Event(at)) if let Some(id) = at.get(extracted).filter(is_id) => {
                Ok(TakenValue::Borrowed(id))
            }
            _ => self.make(extracted, made),
        }
    }

    fn make<'a>(&'a self, extracted: &'a Extracted, made: &mut Value) -> Result<TakenValue<'a>, Rejection> {
        match self {
            IdSource::One(source) => {
                let is_there = part(source, extracted, |id| {
                    *made = entity_id(id, source.path())?.into();
                    Ok(())
                })?;
                Ok(is_there.map_or(TakenValue::Nothing(source.path()), |()| TakenValue::Made))
            }
            IdSource::Joined(parts, separator) => {
                let mut joined = String::new();
                for source in parts {
                    let push = |value: ValueRef<'_>| push_part(&mut joined, value, source.path(), separator);
                    if part(source, extracted, push)?.is_none() {
                        return Ok(TakenValue::Nothing(source.path()));
                    }
                }
                joined.truncate(joined.len() - separator.len());
                *made = text_value(&joined);
                Ok(TakenValue::Made)
            }
        }
    }
}

/// What an event has for an id.
pub(super) enum TakenValue<'a> {
    /// The id, as it stands in the event or the configuration.
    Borrowed(ValueRef<'a>),
    /// It was made.
    Made,
    /// Nothing or null, at this path.
    Nothing(&'a str),
}

/// Hands a value other than null that is to be a part of an id to `work`; one that cannot be converted makes a bad id.
fn part<R>(
    source: &ValueSource,
    extracted: &Extracted,
    work: impl FnOnce(ValueRef<'_>) -> Result<R, Rejection>,
) -> Result<Option<R>, Rejection> {
    match source.at_hand(extracted) {
        None => {
            let made = source.make(extracted);
            let made = made.map_err(|rejection| Rejection { reason: Reason::BadId, ..rejection })?;
            if made.get().kind == ElementType::Null { Ok(None) } else { work(made.get()).map(Some) }
        }
        Some(Some(value)) if value.kind != ElementType::Null => work(value).map(Some),
        Some(_) => Ok(None),
    }
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
