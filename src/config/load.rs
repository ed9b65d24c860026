//! Loads values: defaults, then the file, then the environment, then flags, each over the one before it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{may_be_secret, nearest_key, parser_message, problem};
use super::schema::{Form, KEYS, example};
use super::{CheckLiteral, Config, ConfigError, KeyPath, Problem, Queue, SecretUrl};

/// Environment variables that begin with this are ours.
const PREFIX: &str = "TIDEGATE_";

/// Left to the test suite.
const TEST_PREFIX: &str = "TIDEGATE_TEST_";

/// The keys of a configuration that have a value, and their values; secrets are hidden.
pub(super) fn values(config: &Config) -> Vec<(String, toml::Value)> {
    let mut found = Vec::new();
    flatten("", toml::Table::try_from(config).unwrap_or_default(), &mut found);
    found
}

fn flatten(above: &str, table: toml::Table, found: &mut Vec<(String, toml::Value)>) {
    for (key, value) in table {
        let key = if above.is_empty() { key } else { format!("{above}.{key}") };
        match value {
            toml::Value::Table(keys) => flatten(&key, keys, found),
            value => found.push((key, value)),
        }
    }
}

impl Config {
    /// Loads and checks the configuration: defaults, `file`, the environment's `TIDEGATE_` variables
    /// (`TIDEGATE_MONGODB__URI` is `mongodb.uri`), `overrides` (dotted key and value), the last
    /// one wins.
    ///
    /// # Errors
    /// Says everything that is wrong, one line each. No message shows a URL.
    pub fn load(
        file: &Path,
        overrides: &[(String, String)],
        check_literal: CheckLiteral,
    ) -> Result<Config, ConfigError> {
        Self::load_from(file, env::vars_os(), overrides, check_literal)
    }

    /// [`load`](Self::load) with the environment passed in.
    pub(crate) fn load_from(
        file: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: &[(String, String)],
        check_literal: CheckLiteral,
    ) -> Result<Config, ConfigError> {
        let text =
            fs::read_to_string(file).map_err(|error| ConfigError::Read { file: file.to_owned(), error })?;
        let dict: Dict = toml::from_str(&text).map_err(|error| ConfigError::syntax(file, &text, &error))?;
        // Defaults need no layer: serde takes them for absent keys.
        let mut figment = Figment::new().merge(Layer { origin: file.display().to_string(), dict });
        let mut problems = Vec::new();

        // Sorted, so that messages come in the same order everywhere.
        let mut variables: Vec<_> = environment.into_iter().filter_map(ours).collect();
        variables.sort();
        for (name, value) in variables {
            match variable(&name, &value) {
                Ok(layer) => figment = figment.merge(layer),
                Err(problem) => problems.push(problem),
            }
        }
        for (key, value) in overrides {
            match flag(key, value) {
                Ok(layer) => figment = figment.merge(layer),
                Err(problem) => problems.push(problem),
            }
        }

        let mut config = extract(&figment, file, &mut problems);
        if let Some(config) = &mut config
            && problems.is_empty()
        {
            let origin = |key: &KeyPath| origin_of(&figment, file, key);
            config.redis.read_url_file(origin, &mut problems);
            config.mongodb.read_uri_file(origin, &mut problems);
            let violations = config.violations(check_literal);
            problems.extend(violations.into_iter().map(|v| Problem { origin: Some(origin(&v.key)), ..v }));
        }
        match config {
            Some(config) if problems.is_empty() => {
                Ok(Config { queues: config.queues.into_iter().flat_map(Queue::expanded).collect(), ..config })
            }
            _ => Err(ConfigError::Invalid(problems)),
        }
    }
}

/// Keys and values from one place.
struct Layer {
    origin: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

/// The name of a variable that is meant for tidegate, and its value.
fn ours((name, value): (OsString, OsString)) -> Option<(String, OsString)> {
    let name = name.to_string_lossy().into_owned();
    let key = name.strip_prefix(PREFIX)?;
    (!name.starts_with(TEST_PREFIX) && !is_service_link(key)).then_some((name, value))
}

/// Kubernetes puts variables such as `TIDEGATE_SERVICE_HOST` and `TIDEGATE_PORT_9464_TCP_ADDR` into
/// every container beside a service called `tidegate` (or `tidegate-...`). They are not ours, and
/// they must not stop the start.
fn is_service_link(key: &str) -> bool {
    let key = format!("_{key}_");
    let port_number = |(_, after): (&str, &str)| after.starts_with(|c: char| c.is_ascii_digit());
    key.ends_with("_SERVICE_HOST_")
        || key.contains("_SERVICE_PORT_")
        || key.ends_with("_PORT_")
        || key.split_once("_PORT_").is_some_and(port_number)
}

fn variable(name: &str, value: &OsString) -> Result<Layer, Problem> {
    let origin = format!("environment variable {name}");
    let key = name[PREFIX.len()..].replace("__", ".").to_ascii_lowercase();
    let value = value.to_str().ok_or_else(|| Problem {
        origin: Some(origin.clone()),
        key: KeyPath::default(),
        message: "not UTF-8".into(),
    })?;
    layer(origin, &key, value, |known| format!("{PREFIX}{}", known.replace('.', "__").to_ascii_uppercase()))
}

fn flag(key: &str, value: &str) -> Result<Layer, Problem> {
    layer("--set".to_owned(), key, value, |known| format!("`{known}`"))
}

/// One text value under a dotted key; `name` words a known key the way this origin writes it.
fn layer(origin: String, key: &str, text: &str, name: impl Fn(&str) -> String) -> Result<Layer, Problem> {
    let Some((_, form)) = KEYS.iter().find(|(known, _)| known == key) else {
        let suggestion = nearest_key(key).or_else(|| {
            // A table where one of its keys is needed.
            KEYS.iter()
                .map(|(known, _)| known.as_str())
                .filter(|known| known.strip_prefix(key).is_some_and(|below| below.starts_with('.')))
                .min_by_key(|known| known.len())
        });
        let key = KeyPath::from(key);
        let message = match suggestion {
            Some(known) => format!("unknown key `{key}`; did you mean {}?", name(known)),
            None => format!("unknown key `{key}`"),
        };
        return Err(Problem { origin: Some(origin), key: KeyPath::default(), message });
    };
    let value = match form {
        Form::Text => Value::from(text),
        // What is neither stays text, and the extraction says what was expected.
        Form::Number => text.trim().parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
        Form::Bool => text.trim().parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
        Form::Toml => {
            let parser = toml::de::ValueDeserializer::new(text.trim());
            serde::Deserialize::deserialize(parser).map_err(|error| Problem {
                origin: Some(origin.clone()),
                key: KeyPath::from(key),
                message: format!(
                    "expected a TOML value such as {}: {}",
                    example(key),
                    parser_message(&error)
                ),
            })?
        }
    };
    let dict = match figment::util::nest(key, value) {
        Value::Dict(_, dict) => dict,
        _ => Dict::new(),
    };
    Ok(Layer { origin, dict })
}

/// The name of the layer that the value at `key` came from; for one that is absent, of what is
/// nearest above it, and at last the file.
fn origin_of(figment: &Figment, file: &Path, key: &KeyPath) -> String {
    let root = Value::from(merged(figment));
    (1..=key.0.len())
        .rev()
        .find_map(|length| KeyPath(key.0[..length].to_vec()).find(&root))
        .and_then(|value| figment.get_metadata(value.tag()))
        .map_or_else(|| file.display().to_string(), |metadata| metadata.name.to_string())
}

fn merged(figment: &Figment) -> Dict {
    // The layers give no errors of their own, so neither does merging them.
    figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default()
}

/// Gives the merged values their types. Serde stops at the first problem; to report all of them, the
/// value at fault is taken out, or a missing one put in, and the rest is tried again.
fn extract(figment: &Figment, file: &Path, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut root = Value::from(merged(figment));
    let (mut removed, mut inserted) = (Vec::new(), Vec::new());
    loop {
        let error = match root.deserialize::<Config>() {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let key = KeyPath(error.path.clone());
        if let Kind::MissingField(field) = &error.kind {
            let key = key.join(field);
            if !removed.contains(&key) {
                problems.push(problem(error, &root, |key| origin_of(figment, file, key)));
            }
            // Keys that cannot be left out are text. One that is not ends the search, not the process.
            let is_text = !inserted.contains(&key);
            if !is_text || !edit(&mut root, &key, |dict, last| drop(dict.insert(last, "".into()))) {
                return None;
            }
            inserted.push(key);
        } else {
            problems.push(problem(error, &root, |key| origin_of(figment, file, key)));
            if !edit(&mut root, &key, |dict, last| drop(dict.remove(&last))) {
                return None;
            }
            removed.push(key);
        }
    }
}

/// Changes the table that holds `key`. What a list holds stays: the other elements' numbers would
/// change.
fn edit(root: &mut Value, key: &KeyPath, change: impl FnOnce(&mut Dict, String)) -> bool {
    let Some((last, above)) = key.0.split_last() else { return false };
    let table = above.iter().try_fold(root, |value, component| match value {
        Value::Dict(_, dict) => dict.get_mut(component),
        Value::Array(_, items) => items.get_mut(component.parse::<usize>().ok()?),
        _ => None,
    });
    let Some(Value::Dict(_, dict)) = table else { return false };
    change(dict, last.clone());
    true
}

impl super::Redis {
    /// The URL, as it is now if it is in a file.
    pub(crate) fn url_now(&self) -> Result<SecretUrl, String> {
        self.url_file.as_ref().map_or_else(|| Ok(self.url.clone()), |path| url_in(path))
    }

    fn read_url_file(&mut self, origin: impl Fn(&KeyPath) -> String, problems: &mut Vec<Problem>) {
        read_secret(&mut self.url, &mut self.url_file, "redis.url_file", origin, problems);
    }
}

impl super::Mongodb {
    /// The connection string, as it is now if it is in a file.
    pub(crate) fn uri_now(&self) -> Result<SecretUrl, String> {
        self.uri_file.as_ref().map_or_else(|| Ok(self.uri.clone()), |path| url_in(path))
    }

    fn read_uri_file(&mut self, origin: impl Fn(&KeyPath) -> String, problems: &mut Vec<Problem>) {
        read_secret(&mut self.uri, &mut self.uri_file, "mongodb.uri_file", origin, problems);
    }
}

/// Puts the file's content, trimmed, in the URL's place.
fn read_secret(
    url: &mut SecretUrl,
    file: &mut Option<PathBuf>,
    key: &str,
    origin: impl Fn(&KeyPath) -> String,
    problems: &mut Vec<Problem>,
) {
    // An empty path is how a variable that is set but empty says "none".
    *file = file.take().filter(|path| !path.as_os_str().is_empty());
    match file.as_ref().map(|path| url_in(path)) {
        None => {}
        Some(Ok(read)) => *url = read,
        Some(Err(message)) => {
            let key = KeyPath::from(key);
            problems.push(Problem { origin: Some(origin(&key)), key, message });
        }
    }
}

/// The URL that a file holds.
fn url_in(path: &Path) -> Result<SecretUrl, String> {
    match fs::read_to_string(path) {
        Ok(content) if content.trim().is_empty() => Err(format!("{} is empty", path.display())),
        Ok(content) => Ok(SecretUrl::new(content.trim())),
        // Whoever put the URL itself here must not see it in a log.
        Err(error) if may_be_secret(&path.to_string_lossy()) => {
            Err(format!("cannot read it ({error}); it must be a path, not a URL"))
        }
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}
