//! Makes a stream of hostile events of valid ones; each depends on the seed and its number alone.

use std::path::Path;

use anyhow::Context;
use fastrand::Rng;
use serde_json::Value;

use super::mutate;
use super::tree::Node;
use crate::stage::logged;

/// Every so many events, one that is as good as they come.
pub(super) const GOOD_EVERY: usize = 97;
/// The documents of those.
pub(super) const GOOD_DOCUMENTS: usize = 8;

/// Hostile events, and the routes that they are for.
pub(super) struct Events {
    seed: u64,
    corpus: Vec<Node>,
    routes: toml::Table,
}

impl Events {
    /// The valid events and the routes of `tests/suite/hostile` and of all `examples/routes`.
    pub(super) fn new(seed: u64) -> anyhow::Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut events = Events { seed, corpus: Vec::new(), routes: toml::Table::new() };
        let ours = repository.join("tests/suite/hostile");
        events.read(&ours.join("routes.toml"), &ours.join("corpus.jsonl"))?;
        let mut examples: Vec<_> = std::fs::read_dir(repository.join("examples/routes"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<anyhow::Result<_>>()?;
        // A folder may be listed in any order; events depend on the seed alone.
        examples.sort();
        for example in examples {
            events.read(&example.join("config.toml"), &example.join("events.jsonl"))?;
        }
        Ok(events)
    }

    fn read(&mut self, config: &Path, events: &Path) -> anyhow::Result<()> {
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let mut config: toml::Table = toml::from_str(&read(config)?)?;
        let routes = config.remove("routes").context("no routes")?;
        match self.routes.get_mut("routes").and_then(toml::Value::as_array_mut) {
            Some(all) => all.extend(routes.as_array().context("routes are a list")?.iter().cloned()),
            None => drop(self.routes.insert("routes".to_owned(), routes)),
        }
        for line in read(events)?.lines() {
            self.corpus.push(Node::new(serde_json::from_str::<Value>(line)?));
        }
        Ok(())
    }

    /// All routes, as a piece of the configuration file.
    pub(super) fn routes(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(&self.routes)?)
    }

    /// All collections that events may write to.
    pub(super) fn collections(&self) -> Vec<&str> {
        let routes = self.routes.get("routes").and_then(toml::Value::as_array).into_iter().flatten();
        let named = routes.flat_map(|route| {
            let many = route.get("collections").and_then(toml::Value::as_array).into_iter().flatten();
            route.get("collection").into_iter().chain(many).filter_map(toml::Value::as_str)
        });
        named.chain(["documents"]).collect()
    }

    /// The events that all others are made of.
    pub(super) fn valid(&self) -> impl Iterator<Item = String> {
        self.corpus.iter().map(Node::render)
    }

    /// Event number `number`.
    pub(super) fn event(&self, number: usize) -> Vec<u8> {
        if number.is_multiple_of(GOOD_EVERY) {
            return good(number / GOOD_EVERY).into_bytes();
        }
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number as u64);
        let mut node = self.pick(&mut rng).clone();
        for _ in 0..rng.choice([0, 0, 1, 1, 1, 2, 3, 6]).unwrap_or(1) {
            mutate::structure(&mut node, self.pick(&mut rng), &mut rng);
        }
        // A document at a time gathers what many events do to it, and then the next has its turn.
        let document = number / 2_000 * 50 + rng.usize(..50);
        spread(&mut node, document);
        if rng.u16(..400) == 0 {
            let at = rng.usize(..node.count());
            let large = "y".repeat(1 << rng.u32(12..19));
            node.at(at).into_iter().for_each(|node| *node = Node::Text(large.clone()));
        }
        let mut event = node.render().into_bytes();
        if rng.u8(..8) == 0 {
            let other = self.pick(&mut rng).render();
            for _ in 0..rng.usize(1..5) {
                mutate::bytes(&mut event, other.as_bytes(), &mut rng);
            }
        }
        match rng.u32(..40_000) {
            0..40 => event.clear(),
            // A few MiB of anything, of JSON, or of a document that MongoDB could have.
            40 => event = (0..rng.usize(..1 << 20)).map(|_| rng.u8(..)).collect(),
            41 => event = format!("[{}1]", "1,".repeat(rng.usize(..1 << 20))).into_bytes(),
            42 => event = large(document, rng.usize(..4 << 20)),
            _ => {}
        }
        event
    }

    fn pick(&self, rng: &mut Rng) -> &Node {
        &self.corpus[rng.usize(..self.corpus.len())]
    }
}

/// Event number `n` of those that nothing is wrong with.
fn good(n: usize) -> String {
    logged(&good_document(n % GOOD_DOCUMENTS), n / GOOD_DOCUMENTS)
}

/// The id of a document that only good events are for.
pub(super) fn good_document(n: usize) -> String {
    format!("good{n}")
}

/// The corpus speaks of document "d1" only; a log that a million events append to is another test.
fn spread(node: &mut Node, document: usize) {
    match node {
        Node::Text(text) if text == "d1" => *text = format!("d{document}"),
        Node::Raw(_) | Node::Text(_) => {}
        Node::List(items) => items.iter_mut().for_each(|item| spread(item, document)),
        Node::Map(entries) => entries.iter_mut().for_each(|(_, node)| spread(node, document)),
    }
}

fn large(document: usize, bytes: usize) -> Vec<u8> {
    let text = "z".repeat(bytes);
    format!(r#"{{"collection":"documents","id":"d{document}","update":{{"$set":{{"large":"{text}"}}}}}}"#)
        .into_bytes()
}
