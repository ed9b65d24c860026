//! Words each problem of a configuration as one line.
//!
//! A line names where the value came from, the key, and what to do. It never shows a URL: the
//! values of other keys are shown, those that may hold a password are not.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::value::Value;

use super::schema::{self, KEYS};

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is no TOML.
    #[error("{}:{line}:{column}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What the parser expected.
        message: String,
    },
    /// Keys that are unknown or have values they cannot have: one line each, at least one.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl ConfigError {
    /// Places a syntax error. The parser's own wording shows the line, which may hold a password.
    pub(super) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError::Syntax {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: parser_message(error),
        }
    }
}

/// A parser's message on one line, unless it repeats something like a URL.
pub(super) fn parser_message(error: &toml::de::Error) -> String {
    let message = error.message().trim().lines().collect::<Vec<_>>().join(", ");
    if may_be_secret(&message) { "invalid TOML".to_owned() } else { message }
}

/// One thing wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from: the file, an environment variable, a `--set` flag.
    pub origin: Option<String>,
    /// The key; empty when it is not one key's problem.
    pub key: KeyPath,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.0.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A key with all the keys above it, shown as `routes[1].set."a.b"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPath(pub(super) Vec<String>);

impl KeyPath {
    /// The key below this one.
    pub(super) fn join(&self, component: impl ToString) -> Self {
        let mut path = self.0.clone();
        path.push(component.to_string());
        KeyPath(path)
    }

    /// The value there.
    pub(super) fn find<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(root, |value, component| match value {
            Value::Dict(_, dict) => dict.get(component),
            Value::Array(_, items) => items.get(component.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

impl From<&str> for KeyPath {
    fn from(dotted: &str) -> Self {
        KeyPath(dotted.split('.').map(str::to_owned).collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for (place, component) in self.0.iter().enumerate() {
            let dot = if place == 0 { "" } else { "." };
            if may_be_secret(component) {
                write!(f, "{dot}\"...\"")?;
            } else if place > 0 && component.parse::<usize>().is_ok() {
                write!(f, "[{component}]")?;
            } else if !component.is_empty() && component.chars().all(is_bare) {
                write!(f, "{dot}{component}")?;
            } else {
                write!(f, "{dot}{component:?}")?;
            }
        }
        Ok(())
    }
}

/// Whether a text could be a URL or a part of one that holds a password.
pub(super) fn may_be_secret(text: &str) -> bool {
    text.contains("://") || text.contains('@')
}

/// Words one of figment's errors about the value at its path in `root`.
pub(super) fn problem(error: figment::Error, root: &Value, origin: impl Fn(&KeyPath) -> String) -> Problem {
    let mut key = KeyPath(error.path);
    let message = match error.kind {
        Kind::UnknownField(field, known) => {
            let origin = Some(origin(&key));
            return Problem { origin, message: unknown(&key, &field, known), key: KeyPath::default() };
        }
        Kind::MissingField(field) => {
            let origin = Some(origin(&key));
            key = key.join(field);
            return Problem { origin, key, message: "missing".into() };
        }
        Kind::UnknownVariant(_, known) => {
            let known = known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>();
            format!("expected {}, found {}", known.join(" or "), found(&key, root))
        }
        Kind::InvalidType(_, expected)
        | Kind::InvalidValue(_, expected)
        | Kind::InvalidLength(_, expected)
        | Kind::Message(expected) => {
            format!("expected {}, found {}", expectation(&key, &expected), found(&key, root))
        }
        _ => format!("this cannot be {}", found(&key, root)),
    };
    Problem { origin: Some(origin(&key)), key, message }
}

/// What a key takes, in a user's words instead of serde's.
fn expectation(key: &KeyPath, serde: &str) -> String {
    if let Some(text) = schema::expectation(key) {
        return text.to_owned();
    }
    match serde {
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "path string" => "a string".to_owned(),
        _ if serde.starts_with("struct ") => "a table".to_owned(),
        _ => serde.to_owned(),
    }
}

/// Words the value at `key`, unless it may be secret: anything below `redis` and `mongodb` and
/// whatever looks like a URL is named by its type alone.
fn found(key: &KeyPath, root: &Value) -> String {
    let server = matches!(key.0.first().map(String::as_str), Some("redis" | "mongodb"));
    let harmless = !server || key.0.last().is_some_and(|last| last == "timeout");
    match key.find(root) {
        Some(Value::String(_, text)) if harmless && text.chars().count() <= 60 && !may_be_secret(text) => {
            format!("the string {text:?}")
        }
        Some(Value::String(..) | Value::Char(..)) => "a string".to_owned(),
        Some(Value::Bool(..)) if !harmless => "true or false".to_owned(),
        Some(Value::Bool(_, value)) => value.to_string(),
        Some(Value::Num(..)) if !harmless => "a number".to_owned(),
        Some(value @ Value::Num(_, number)) => match (value.to_i128(), number.to_f64()) {
            (Some(number), _) => format!("the number {number}"),
            (None, Some(number)) => format!("the number {number:?}"),
            (None, None) => "a number".to_owned(),
        },
        Some(Value::Dict(..)) => "a table".to_owned(),
        Some(Value::Array(..)) => "a list".to_owned(),
        Some(Value::Empty(..)) | None => "nothing".to_owned(),
    }
}

/// Words an unknown key of the file; `known` are the keys beside it.
fn unknown(key: &KeyPath, field: &str, known: &[&str]) -> String {
    let above = KeyPath(key.0[..key.0.len().saturating_sub(1)].to_vec());
    let beside = nearest(field, known.iter().copied()).map(|name| above.join(name).to_string());
    // A known key in the wrong table, or written with the wrong separator.
    let elsewhere =
        || KEYS.iter().map(|(name, _)| name.as_str()).find(|name| name.rsplit('.').next() == Some(field));
    // A dotted field that is not in quotes is a table to TOML.
    if let [routes, _, set, field_above, _] = key.0.as_slice()
        && beside.is_none()
        && routes == "routes"
        && ["set", "inc", "push", "add_to_set", "min", "max", "mul", "set_on_insert"].contains(&set.as_str())
    {
        let field = format!("{field_above}.{field}");
        if !may_be_secret(&field) {
            return format!("unknown key `{key}`; if a field is meant, quote it: {field:?}");
        }
    }
    let suggestion = beside
        .or_else(|| elsewhere().map(str::to_owned))
        .or_else(|| nearest_key(&key.to_string()).map(str::to_owned));
    match suggestion {
        Some(name) => format!("unknown key `{key}`; did you mean `{name}`?"),
        None => {
            let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
            format!("unknown key `{key}`; known here: {}", known.join(", "))
        }
    }
}

/// The known dotted key that is nearest to `key`, if one is near.
pub(super) fn nearest_key(key: &str) -> Option<&'static str> {
    nearest(key, KEYS.iter().map(|(name, _)| name.as_str()))
}

/// The nearest of `known`, if at most a third of `word` has to change.
fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let bound = (word.chars().count() / 3).max(1);
    known
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, name)| name)
}
