//! Defines how values with units are written, and how the schema names what a key takes.

use std::borrow::Cow;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer};

use super::Patience;

/// How a duration is written.
pub(crate) struct Span;

/// How a duration is written that may be left out.
pub(super) struct MaybeSpan;

/// How a size is written: with the largest unit that leaves a whole number, so that nothing is rounded.
pub(crate) struct Size;

/// How a literal of TOML is written.
pub(super) struct Literal;

impl Span {
    pub(crate) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        humantime_serde::serialize(span, serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        humantime_serde::deserialize(deserializer)
    }
}

impl MaybeSpan {
    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        humantime_serde::serialize(span, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        humantime_serde::deserialize(deserializer)
    }
}

impl Size {
    const UNITS: [(u64, &str); 3] = [(bytesize::GIB, "GiB"), (bytesize::MIB, "MiB"), (bytesize::KIB, "KiB")];

    /// Words a size: `8MiB`.
    pub(super) fn text(size: ByteSize) -> String {
        let bytes = size.as_u64();
        Self::UNITS
            .iter()
            .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit))
            .map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
    }

    pub(crate) fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Self::text(*size))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        ByteSize::deserialize(deserializer)
    }
}

/// Describes each of them: its name in the schema, and what is there.
macro_rules! described {
    ($($type:ident: $name:literal, $schema:tt;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

described! {
    Span: "Duration", { "type": "string", "title": "a duration such as \"50ms\" or \"10s\"" };
    MaybeSpan: "OptionalDuration", { "type": "string", "title": "a duration such as \"50ms\" or \"10s\"" };
    Size: "Size", { "type": ["string", "integer"], "title": "a size such as \"8MiB\", or a number of bytes" };
    Patience: "Patience", { "type": "string", "title": "a duration such as \"15m\", or \"never\"" };
    Literal: "Literal", { "title": "any value" };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_size_is_not_rounded(bytes: u64) {
            let size = ByteSize::b(bytes);
            prop_assert_eq!(Size::text(size).parse::<ByteSize>().unwrap(), size);
        }
    }
}
