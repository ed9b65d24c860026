//! Makes random routes, and events that mostly look alike.

use crate::config::Config;

/// Paths that routes name: some are others' parents, some lead through arrays.
const PATHS: &[&str] =
    &["t", "u", "p", "p.i", "p.t", "p.k", "p.n", "p.n.x", "p.n.tr", "p.0", "tr", "tr.x", "q.i"];

/// Those that routes mostly name.
const USUAL: &[&str] = &["u", "p.t", "p.k", "tr", "q.i"];

/// Values that are alike for everybody who does not look twice.
const PLAIN: &[&str] =
    &["\"A\"", "\"B\"", "\"some text\"", "\"é and more words\"", "7", "-7", "1700000000000"];

const ODD: &[&str] = &[
    "\"\"",
    "\"with \\n\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"2026-01-02T03:04:05Z\"",
    "\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"",
    "\"no end",
    "-0",
    "-",
    "01",
    "0.5",
    "1e999",
    "1e30",
    "1e30",
    "8.9e18",
    "9e18",
    "1e19",
    "7.0",
    "7 7",
    "-12",
    "123456789012345678",
    "999999999999999999",
    "-999999999999999999",
    "1234567890123456789",
    "-9223372036854775808",
    "-9223372036854775809",
    "9223372036854775807",
    "9223372036854775808",
    "123456789012345678901",
    "null",
    "true",
    "tru",
    "{}",
    "[]",
    " {\"x\":1}",
    "{\"x\":1}",
    "{\"$x\":1}",
    "{\"x.y\":1}",
    "{\"x\":{\"y.z\":1}}",
    "{\"x\":[{\"\":1}]}",
    "{\"é\":1,\"x\\u0000\":1}",
    "{\"x\":1,\"x\":2}",
    "{\"i\":\"id\",\"t\":\"A\",\"k\":1,\"n\":{\"x\":1}}",
    "{\"tr\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}",
    "{ \"x\" : [ 1.5 , { } ] }",
    "[1,\"A\",{\"x\":null}]",
    "\t[\"A\"]",
];

fn pick(random: &mut fastrand::Rng, among: &[&'static str]) -> &'static str {
    among[random.usize(..among.len())]
}

/// One in so many times.
fn seldom(random: &mut fastrand::Rng, of: u32) -> bool {
    random.u32(..of) == 0
}

fn path(random: &mut fastrand::Rng) -> &'static str {
    let among = if seldom(random, 6) { PATHS } else { USUAL };
    pick(random, among)
}

fn route(random: &mut fastrand::Rng) -> String {
    let mut toml = "[[routes]]\n".to_owned();
    let mut when = Vec::new();
    for path in ["t", "u", "p", "p.k", "p.n.x", "tr"] {
        if seldom(random, if path == "t" { 2 } else { 15 }) {
            when.push(format!("'{path}' = {}", pick(random, &["'A'", "'B'", "7", "7.5", "true", "1e30"])));
        }
    }
    if !when.is_empty() {
        toml += &format!("when = {{ {} }}\n", when.join(", "));
    }
    if !when.is_empty() && seldom(random, 16) {
        return toml + "skip = true\n";
    }
    match random.u8(..12) {
        0 => toml += "collection_from = 'u'\ncollections = ['a', 'b']\n",
        _ => toml += &format!("collection = '{}'\n", pick(random, &["a", "b"])),
    }
    match random.u8(..12) {
        0 | 4 => toml += "id = ['p.i', 'u']\n",
        1 | 5 => toml += "id = { path = 'p.i', as = 'int' }\n",
        2 => toml += &format!("id = '{}'\n", path(random)),
        _ => toml += "id = 'p.i'\n",
    }
    if random.bool() {
        toml += &format!("ts = '{}'\n", pick(random, &["u", "p.k", "ts"]));
    }
    if seldom(random, 3) {
        toml += &format!(
            "traceparent = '{}'\n",
            pick(random, &["tr", "tr.x", "p.n.tr", "p.tr", "u", "t.tr", "p.0"])
        );
    }
    match random.u8(..16) {
        0 => toml += "delete = true\n",
        1 => toml += "replace = 'p'\n",
        2 => toml += &format!("merge = '{}'\n", pick(random, &["p", "p.n"])),
        _ => {
            for (operator, most) in
                [("set", 3), ("inc", 1), ("push", 1), ("max", 1), ("set_on_insert", 1), ("mul", 1)]
            {
                // Most values are no numbers.
                let most = if matches!(operator, "inc" | "mul") && !seldom(random, 4) { 0 } else { most };
                let fields: Vec<_> = (0..random.usize(..=most))
                    .map(|n| match random.u8(..10) {
                        0 => format!("{operator}{n} = {{ value = 3 }}"),
                        1 => format!("{operator}{n} = {{ path = 'u', default = 1 }}"),
                        2 => format!("{operator}{n} = {{ path = '{}', as = 'string' }}", path(random)),
                        3 => format!("{operator}{n} = {{ path = '{}', as = 'date' }}", path(random)),
                        _ => format!("{operator}{n} = '{}'", path(random)),
                    })
                    .collect();
                toml += &format!("{operator} = {{ {} }}\n", fields.join(", "));
            }
            if random.bool() {
                toml += "unset = ['gone']\n";
            }
            match random.u8(..30) {
                0 => toml += "pull = { some = 'u' }\n",
                1 => toml += "add_to_set = { some = 'p.n' }\n",
                2 => toml += "patch = 'p.n'\n",
                3 => toml += "shard_key = { u = 'u' }\n",
                4 => toml += "current_date = ['now']\n",
                5 => toml += "yjs = { field = 'doc', update = 'u' }\n",
                _ => {}
            }
        }
    }
    toml
}

pub(super) fn config(random: &mut fastrand::Rng) -> Config {
    let mut toml = "queues = [{ key = 'q' }]\n".to_owned();
    if seldom(random, 4) {
        toml += "native.collections = ['documents']\n";
    }
    (0..random.usize(1..5)).for_each(|_| toml += &route(random));
    toml::from_str(&toml).unwrap_or_else(|error| panic!("{error}: {toml}"))
}

/// What a producer's events of one type have in common.
pub(super) struct Template(Vec<Part>);

enum Part {
    Text(String),
    Value,
}

impl Template {
    pub(super) fn new(random: &mut fastrand::Rng) -> Self {
        let mut template = Template(Vec::new());
        if seldom(random, 12) {
            template.text(r#"{"collection":"documents","id":"#);
            template.0.push(Part::Value);
            template.text(r#","update":{"$set":{"t":"#);
            template.0.push(Part::Value);
            template.text("}}}");
            return template;
        }
        let blank = |random: &mut fastrand::Rng| if seldom(random, 20) { "\n " } else { "" };
        template.text(blank(random));
        template.object(random, 0);
        template.text(blank(random));
        template
    }

    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.0.push(Part::Text(text.to_owned())),
        }
    }

    fn object(&mut self, random: &mut fastrand::Rng, depth: usize) {
        let keys: &[&str] = match depth {
            0 => &["t", "u", "p", "ts", "tr", "more", "q"],
            1 => &["i", "t", "k", "n", "tr", "0"],
            _ => &["x", "tr", "i"],
        };
        let space = if seldom(random, 8) { " " } else { "" };
        self.text("{");
        let mut first = true;
        let mut keys = keys.to_vec();
        if seldom(random, 3) {
            random.shuffle(&mut keys);
        }
        if seldom(random, 25) {
            keys.push(pick(random, &["t", "p", "tr", "more", "p.i", "", "$x"]));
        }
        for key in keys {
            let is_usual = matches!((depth, key), (0, "t" | "p") | (1, "i"));
            if seldom(random, if is_usual { 25 } else { 2 }) {
                continue;
            }
            let key = if seldom(random, 60) { "\\u0074" } else { key };
            self.text(&format!("{}{space}\"{key}\"{space}:{space}", if first { "" } else { "," }));
            first = false;
            match (depth, key) {
                (0, "p") | (1, "n") if !seldom(random, 8) => self.object(random, depth + 1),
                (0 | 1, "q" | "more" | "tr") if seldom(random, 3) => self.object(random, depth + 1),
                (0, "t") if !seldom(random, 10) => self.text(pick(random, &["\"A\"", "\"B\"", "7", "true"])),
                (_, "more") if seldom(random, 2) => {
                    self.text("[");
                    self.0.push(Part::Value);
                    self.text(",{\"y\":1}]");
                }
                _ => self.0.push(Part::Value),
            }
            self.text(if seldom(random, 25) { " " } else { "" });
        }
        self.text(if seldom(random, 25) { "\t}" } else { "}" });
    }

    pub(super) fn event(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut event = String::new();
        let is_odd = random.bool();
        for part in &self.0 {
            match part {
                Part::Text(text) => event += text,
                Part::Value if !is_odd || !seldom(random, 4) => event += pick(random, PLAIN),
                Part::Value if seldom(random, 12) => {
                    let depth = [1, 30, 89, 90, 91, 120, 124, 125, 126, 127, 128][random.usize(..11)];
                    event += &format!("{}{}", "[".repeat(depth), "]".repeat(depth));
                }
                Part::Value => event += pick(random, ODD),
            }
        }
        let mut event = event.into_bytes();
        if is_odd && seldom(random, 6) {
            // Mostly where a value begins or ends.
            let near = event.len() - random.usize(..event.len());
            let edge = event[near..].iter().position(|byte| b":,}]\"".contains(byte));
            let at = (near + edge.unwrap_or(0) + random.usize(..2)).min(event.len() - 1);
            match random.u8(..4) {
                0 => event.insert(at, b" \t{[,\"0-.e\\\x80"[random.usize(..12)]),
                1 => drop(event.remove(at)),
                2 => event[at] = random.u8(..),
                _ => event.truncate(at),
            }
        }
        event
    }
}
