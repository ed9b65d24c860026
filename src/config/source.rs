//! Defines where a route takes a value from: a path into the event, a literal, or the clock.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::check::Violations;
use super::{Conversion, KeyPath, SourceTable};

/// The source of a value: `"payload.text"`, or a table such as `{ path = "ts", as = "date" }`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Source {
    /// What is at a path.
    Path(String),
    /// A source that says more.
    Table(Box<SourceTable>),
}

/// A document's `_id`: one source, or several whose texts are joined.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Id {
    /// One source.
    One(Source),
    /// The parts, in order.
    Parts(Vec<Source>),
}

/// What `inc` adds.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Amount {
    /// Always this integer.
    Int(i64),
    /// Always this number.
    Float(f64),
    /// The number from there.
    From(Source),
}

impl Default for Id {
    fn default() -> Self {
        Id::from("")
    }
}

impl Id {
    /// Whether none was given.
    pub(super) fn is_none(&self) -> bool {
        self.is_path("")
    }

    /// Whether it is what is at `path`, as it is.
    pub(super) fn is_path(&self, path: &str) -> bool {
        matches!(self, Id::One(Source::Path(own)) if own == path)
    }

    /// Its sources, each with its key.
    fn sources(&self, key: &KeyPath) -> Vec<(KeyPath, &Source)> {
        match self {
            Id::One(source) => vec![(key.clone(), source)],
            Id::Parts(parts) => {
                parts.iter().enumerate().map(|(number, part)| (key.join(number), part)).collect()
            }
        }
    }

    /// Reports what is wrong with it; answers the paths that it takes.
    pub(super) fn check(&self, key: &KeyPath, found: &mut Violations) -> Vec<(KeyPath, &str)> {
        let parts = match self {
            Id::One(_) => None,
            Id::Parts(parts) => Some(parts),
        };
        found.require(parts.is_none_or(|parts| !parts.is_empty()), key.clone(), "must have a part");
        let mut paths = Vec::new();
        for (key, source) in self.sources(key) {
            paths.extend(source.check(&key, found));
            let Source::Table(table) = source else { continue };
            let good = match (table.to, parts) {
                (None | Some(Conversion::Int | Conversion::String), _) => true,
                (Some(Conversion::ObjectId | Conversion::Uuid), parts) => parts.is_none(),
                _ => false,
            };
            let message = match parts {
                None => "an id can be \"string\", \"int\", \"objectId\" or \"uuid\"",
                Some(_) => "a part of an id can be \"string\" or \"int\": it becomes text",
            };
            found.require(good, key.join("as"), message);
            found.require(!table.now, key.join("now"), "an id cannot be a time");
            for (name, literal) in [("value", &table.value), ("default", &table.default)] {
                let good = literal.as_ref().is_none_or(|v| v.is_str() || v.is_integer());
                found.require(good, key.join(name), "an id is text or an integer");
            }
        }
        paths
    }
}

impl Amount {
    /// Reports what is wrong with it; answers the path that it takes.
    pub(super) fn check(&self, key: &KeyPath, found: &mut Violations) -> Option<(KeyPath, &str)> {
        let source = match self {
            Amount::Int(_) => return None,
            Amount::Float(number) => {
                found.require(number.is_finite(), key.clone(), "must be a finite number");
                return None;
            }
            Amount::From(source) => source,
        };
        if let Source::Table(table) = source {
            let good = matches!(table.to, None | Some(Conversion::Int | Conversion::Double));
            found.require(good, key.join("as"), "an amount can be \"int\" or \"double\"");
            found.require(!table.now, key.join("now"), "a time is no amount");
            for (name, literal) in [("value", &table.value), ("default", &table.default)] {
                let good =
                    literal.as_ref().is_none_or(|v| v.is_integer() || v.is_float() || table.to.is_some());
                found.require(good, key.join(name), "must be a number");
            }
        }
        source.check(key, found)
    }
}

impl Source {
    /// Reports what is wrong with it as the source of an operator; answers the path that it takes.
    pub(super) fn check_for(
        &self,
        operator: &str,
        key: &KeyPath,
        found: &mut Violations,
    ) -> Option<(KeyPath, &str)> {
        if let Source::Table(table) = self {
            table.check_modifiers(operator, key, found);
        }
        self.check(key, found)
    }

    /// Reports what is wrong with it; answers the path that it takes.
    pub(super) fn check(&self, key: &KeyPath, found: &mut Violations) -> Option<(KeyPath, &str)> {
        let table = match self {
            Source::Path(path) => return Some((key.clone(), path)),
            Source::Table(table) => table,
        };
        let origins = [table.path.is_some(), table.value.is_some(), table.now];
        let message = "needs one of `path`, `value` and `now = true`";
        found.require(origins.into_iter().filter(|is| *is).count() == 1, key.clone(), message);
        for (name, is) in [("as", table.to.is_some()), ("default", table.default.is_some())] {
            found.require(
                !is || table.path.is_some(),
                key.join(name),
                "only means something together with `path`",
            );
        }
        for (name, literal) in [("value", &table.value), ("default", &table.default)] {
            let Some(literal) = literal else { continue };
            let to = table.to.filter(|_| table.path.is_some());
            if let Err(fault) = (found.check_literal)(literal, to) {
                found.require(false, key.join(name), fault);
            }
        }
        table.path.as_ref().map(|path| (key.join("path"), path.as_str()))
    }
}

macro_rules! from_text {
    ($($type:ident: $make:expr),*) => { $(
        impl From<String> for $type {
            fn from(path: String) -> Self {
                $make(path)
            }
        }

        impl From<&str> for $type {
            fn from(path: &str) -> Self {
                $make(path.to_owned())
            }
        }
    )* };
}

from_text!(Source: Source::Path, Id: |path| Id::One(Source::Path(path)), Amount: |path| Amount::From(Source::Path(path)));

// Not `untagged`: that would neither name the key inside a table that is wrong, nor what it may be.

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path or a table such as { value = 1 } (quote a dotted field: \"a.b\")")
    }

    fn visit_str<E>(self, path: &str) -> Result<Source, E> {
        Ok(path.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
        SourceTable::deserialize(MapAccessDeserializer::new(map)).map(|table| Source::Table(Box::new(table)))
    }
}

struct IdVisitor;

impl<'de> Visitor<'de> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, a table such as { path = \"id\", as = \"objectId\" }, or a list of them")
    }

    fn visit_str<E>(self, path: &str) -> Result<Id, E> {
        Ok(path.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Id, A::Error> {
        SourceVisitor.visit_map(map).map(Id::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Id, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element()? {
            parts.push(part);
        }
        Ok(Id::Parts(parts))
    }
}

struct AmountVisitor;

impl<'de> Visitor<'de> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or the path to one (quote a dotted field: \"a.b\")")
    }

    fn visit_i64<E>(self, n: i64) -> Result<Amount, E> {
        Ok(Amount::Int(n))
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Amount, E> {
        i64::try_from(n)
            .map(Amount::Int)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(n), &self))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Amount, E> {
        Ok(Amount::Float(n))
    }

    fn visit_str<E>(self, path: &str) -> Result<Amount, E> {
        Ok(path.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Amount, A::Error> {
        SourceVisitor.visit_map(map).map(Amount::From)
    }
}

#[cfg(test)]
mod tests {
    fn violations(route: &str) -> String {
        let head = "queues = [{ key = \"q\" }]\n[[routes]]\ncollection = \"a\"";
        super::super::violations(&format!("{head}\n{route}"))
    }

    #[test]
    fn good_sources() {
        for route in [
            r#"set.a = { value = "x" }"#,
            r#"set.a = { path = "ts", as = "date", default = "2024-01-01T00:00:00Z" }"#,
            r#"set = { a = { now = true }, b = "b" }"#,
            r#"set.a = { value = [1, { e = 2.5 }] }"#,
            r#"set.a = { value = 2024-01-01T00:00:00Z }"#,
            r#"inc = { n = { path = "n", default = 0 }, m = { path = "m", as = "int", default = "1" } }"#,
            r#"push = { l = { path = "l", as = "objectId" } }"#,
        ] {
            assert_eq!(violations(&format!("id = \"id\"\n{route}")), "", "{route}");
        }
        for id in [
            r#"id = ["a", { path = "b", as = "int" }]"#,
            r#"id = { path = "id", as = "objectId" }"#,
            r#"id = { value = "one" }"#,
        ] {
            assert_eq!(violations(&format!("{id}\ndelete = true")), "", "{id}");
        }
        let joined = "id = [\"a\"]\nid_separator = \"/\"\ndelete = true";
        assert_eq!(violations(joined), "");
    }

    #[test]
    fn sources_make_sense() {
        insta::assert_snapshot!(violations(r#"
            id = "id"
            id_separator = "-"
            set = { a = {}, b = { value = 1, path = "x" }, c = { value = "1", as = "int" }, d = { now = true, default = 1 }, e = { path = "a..b" }, f = { path = "x", as = "int", default = "1.5" }, g = { value = { "$oid" = "x" } }, h = { value = 2024-01-01 }, i = { value = nan }, j = { now = false } }
            inc = { n = { value = "x" }, m = { now = true }, o = { path = "x", as = "decimal" } }
        "#), @r#"
        `routes[0].inc.m.now`: a time is no amount
        `routes[0].inc.n.value`: must be a number
        `routes[0].inc.o.as`: an amount can be "int" or "double"
        `routes[0].id_separator`: only means something where `id` is a list
        `routes[0].set.a`: needs one of `path`, `value` and `now = true`
        `routes[0].set.b`: needs one of `path`, `value` and `now = true`
        `routes[0].set.c.as`: only means something together with `path`
        `routes[0].set.d.default`: only means something together with `path`
        `routes[0].set.f.default`: a string that cannot be converted to "int": that needs a whole number of 64 bits, or its text
        `routes[0].set.g.value`: the key "$oid" starts with "$"
        `routes[0].set.h.value`: a date needs a time and an offset, such as 2024-01-31T12:00:00Z
        `routes[0].set.i.value`: must be a finite number
        `routes[0].set.j`: needs one of `path`, `value` and `now = true`
        `routes[0].set.e.path`: "a..b" is no path: a component is empty
        "#);
    }

    #[test]
    fn ids_make_sense() {
        insta::assert_snapshot!(violations("id = []\ndelete = true"), @"`routes[0].id`: must have a part");
        let parts = r#"
            id = [{ now = true }, { path = "a", as = "uuid" }, ""]
            id_separator = ""
            delete = true"#;
        insta::assert_snapshot!(violations(parts), @r#"
        `routes[0].id[0].now`: an id cannot be a time
        `routes[0].id[1].as`: a part of an id can be "string" or "int": it becomes text
        `routes[0].id_separator`: must not be empty: ids would run into each other
        `routes[0].id[2]`: "" is no path: a component is empty
        "#);
        let one = "id = { path = \"a\", as = \"double\", default = 1.5 }\ndelete = true";
        insta::assert_snapshot!(violations(one), @r#"
        `routes[0].id.as`: an id can be "string", "int", "objectId" or "uuid"
        `routes[0].id.default`: an id is text or an integer
        "#);
    }
}
