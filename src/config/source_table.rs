//! Defines a source that has more than a path: conversion, default, literal, and how `push` takes it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::check::Violations;
use super::units::Literal;
use super::{KeyPath, word};

/// A source that is a table: one of `path`, `value` and `now`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourceTable {
    /// What is at a path.
    pub path: Option<String>,
    /// The type to convert it to.
    #[serde(rename = "as", deserialize_with = "some_word")]
    pub to: Option<Conversion>,
    /// Taken where the event has nothing or null at the path.
    #[schemars(with = "Literal")]
    pub default: Option<toml::Value>,
    /// Always this.
    #[schemars(with = "Literal")]
    pub value: Option<toml::Value>,
    /// The time at which the event is decoded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub now: bool,
    /// `push`, `add_to_set`: the value is an array of elements, not one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub each: bool,
    /// `push`: where the elements go; negative counts from the end.
    pub position: Option<i64>,
    /// `push`: how many elements the array keeps; negative keeps the last.
    pub slice: Option<i64>,
    /// `push`: the order of the elements: 1, -1, or fields to these.
    #[schemars(with = "Literal")]
    pub sort: Option<toml::Value>,
}

impl SourceTable {
    /// The modifiers of `push`, each with its value.
    #[must_use]
    pub fn push_modifiers(&self) -> Vec<(&'static str, toml::Value)> {
        let number = |name, value: Option<i64>| value.map(|n| (name, toml::Value::Integer(n)));
        let sort = self.sort.clone().map(|sort| ("$sort", sort));
        [number("$position", self.position), number("$slice", self.slice), sort]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Reports modifiers that do not belong where the source is, or are none.
    pub(super) fn check_modifiers(&self, operator: &str, key: &KeyPath, found: &mut Violations) {
        let good = !self.each || matches!(operator, "push" | "add_to_set");
        found.require(good, key.join("each"), "only means something in `push` and `add_to_set`");
        for (modifier, _) in self.push_modifiers() {
            let message = "only means something in `push`";
            found.require(operator == "push", key.join(&modifier[1..]), message);
        }
        let direction = |value: &toml::Value| matches!(value.as_integer(), Some(1 | -1));
        let good = self.sort.as_ref().is_none_or(|sort| match sort.as_table() {
            Some(fields) => !fields.is_empty() && fields.values().all(direction),
            None => direction(sort),
        });
        found.require(good, key.join("sort"), "must be 1, -1, or a table of fields to these");
    }
}

/// The types that a value can be converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Conversion {
    /// From milliseconds since 1970, or RFC 3339.
    Date,
    /// From 24 hexadecimal digits.
    ObjectId,
    /// From a number without fraction, or its text.
    Int,
    /// From a number, or its text.
    Double,
    /// From a number, or its text.
    Decimal,
    /// From text, a number, true or false.
    String,
    /// From base64.
    Binary,
    /// From a UUID's text.
    Uuid,
}

impl Conversion {
    /// The word in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Conversion::Date => "date",
            Conversion::ObjectId => "objectId",
            Conversion::Int => "int",
            Conversion::Double => "double",
            Conversion::Decimal => "decimal",
            Conversion::String => "string",
            Conversion::Binary => "binary",
            Conversion::Uuid => "uuid",
        }
    }
}

fn some_word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    word(deserializer).map(Some)
}
