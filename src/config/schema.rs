//! Describes every key, as a JSON Schema made from the types: for editors, and for whatever has to know the keys.

use std::sync::LazyLock;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::{Config, KeyPath};

/// How the text of an environment variable or flag becomes a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is; never guessed into anything else, so that a password `000123` stays one.
    Text,
    /// An integer.
    Number,
    /// `true` or `false`.
    Bool,
    /// A TOML value such as `[{ key = "a" }]`.
    Toml,
}

/// The schema with everything in its place.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| generate(true).to_value());

/// Every key that can be set from the environment or by a flag, sorted.
pub(super) static KEYS: LazyLock<Vec<(String, Form)>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    gather("", &SCHEMA, &mut keys);
    keys
});

impl Config {
    /// The JSON Schema of the configuration file, as editors take it.
    #[must_use]
    pub fn schema() -> String {
        let schema = generate(false).to_value();
        serde_json::to_string_pretty(&schema).unwrap_or_else(|_| schema.to_string())
    }
}

fn generate(inline: bool) -> Schema {
    let mut settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(without_null));
    settings.inline_subschemas = inline;
    settings.into_generator().into_root_schema_for::<Config>()
}

/// TOML has no null: what is optional is left out.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    let is_null = |schema: &Value| schema.get("type").is_some_and(|name| name == "null");
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| !is_null(choice));
        if let [Value::Object(only)] = choices.as_mut_slice() {
            let only = std::mem::take(only);
            schema.remove("anyOf");
            for (key, value) in only {
                schema.ensure_object().entry(key).or_insert(value);
            }
        }
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

fn gather(above: &str, schema: &Value, keys: &mut Vec<(String, Form)>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match below["type"].as_str() {
            Some("object") => gather(&key, below, keys),
            Some("array") => keys.push((key, Form::Toml)),
            Some("integer") => keys.push((key, Form::Number)),
            Some("boolean") => keys.push((key, Form::Bool)),
            _ => keys.push((key, Form::Text)),
        }
    }
}

/// What the schema says of a key.
fn at(key: &KeyPath) -> Option<&'static Value> {
    key.0.iter().try_fold(&*SCHEMA, |schema, component| match component.parse::<usize>() {
        Ok(_) => schema.get("items"),
        Err(_) => schema.get("properties")?.get(component),
    })
}

/// What a key takes, if that is more than its type.
pub(super) fn expectation(key: &KeyPath) -> Option<&'static str> {
    let schema = at(key)?;
    let title = schema.get("title").and_then(Value::as_str);
    title.or_else(|| match schema["type"].as_str()? {
        "integer" => Some("a whole number"),
        "array" if schema["items"]["type"] == "object" => Some("a list of tables"),
        _ => None,
    })
}

/// A value that a key could have, as TOML.
pub(super) fn example(key: &str) -> String {
    let example = at(&KeyPath::from(key)).and_then(|schema| schema.get("examples")?.get(0));
    example
        .and_then(|value| toml::Value::try_from(value).ok())
        .map_or_else(String::new, |value| value.to_string())
}

/// The keys of a table.
#[cfg(test)]
pub(super) fn names_below(table: &str) -> Vec<&'static str> {
    let properties = at(&KeyPath::from(table)).and_then(|schema| schema["properties"].as_object());
    properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_has_an_example() {
        for (key, _) in KEYS.iter().filter(|(_, form)| *form == Form::Toml) {
            assert!(example(key).starts_with('['), "{key}");
        }
    }

    #[test]
    fn every_key_is_described() {
        fn look(above: &str, schema: &Value) {
            for (name, below) in schema["properties"].as_object().into_iter().flatten() {
                assert!(below["description"].is_string(), "{above}.{name}");
                look(name, below);
                look(name, &below["items"]);
            }
        }
        look("", &SCHEMA);
    }
}
