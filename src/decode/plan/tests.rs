//! Tests that plans and the general way agree, whatever the routes and whatever comes.

use super::Plans;
use crate::config::Config;
use crate::decode::Decoder;

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
    match random.u8(..12) {
        0 => toml += "collection_from = 'u'\ncollections = ['a', 'b']\n",
        _ => toml += &format!("collection = '{}'\n", pick(random, &["a", "b"])),
    }
    match random.u8(..12) {
        0 => toml += "id = ['p.i', 'u']\n",
        1 => toml += "id = { path = 'p.i', as = 'int' }\n",
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
                    .map(|n| match random.u8(..8) {
                        0 => format!("{operator}{n} = {{ value = 3 }}"),
                        1 => format!("{operator}{n} = {{ path = 'u', default = 1 }}"),
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
                _ => {}
            }
        }
    }
    toml
}

fn config(random: &mut fastrand::Rng) -> Config {
    let mut toml = "queues = [{ key = 'q' }]\n".to_owned();
    if seldom(random, 4) {
        toml += "native.collections = ['documents']\n";
    }
    (0..random.usize(1..5)).for_each(|_| toml += &route(random));
    toml::from_str(&toml).unwrap_or_else(|error| panic!("{error}: {toml}"))
}

/// What a producer's events of one type have in common.
struct Template(Vec<Part>);

enum Part {
    Text(String),
    Value,
}

impl Template {
    fn new(random: &mut fastrand::Rng) -> Self {
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

    fn event(&self, random: &mut fastrand::Rng) -> Vec<u8> {
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

fn outcome(decoder: &mut Decoder, event: &[u8]) -> String {
    let mut route = None;
    let change = format!("{:?}", decoder.decode_routed(event, &mut route));
    format!("{change} by {route:?}")
}

/// The same as by a decoder that knows no plans. Answers whether there was a plan.
fn compare(experienced: &mut Decoder, fresh: &mut Decoder, event: &[u8]) -> bool {
    fresh.plans = Plans::default();
    fresh.single.iter_mut().flatten().for_each(|single| single.whole.plans = Plans::default());
    let (planned, general) = (outcome(experienced, event), outcome(fresh, event));
    assert_eq!(planned, general, "{}\n{:?}", String::from_utf8_lossy(event), fresh.rules.routes);
    experienced.plans.known.recalled
}

#[test]
fn an_event_means_the_same_whether_or_not_there_is_a_plan() {
    let (mut planned, mut all) = (0, 0);
    let seeds = std::env::var("PLAN_SEEDS").map_or(400, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = config(&mut random);
        let templates: Vec<_> = (0..random.usize(1..4)).map(|_| Template::new(&mut random)).collect();
        let (mut experienced, mut fresh) = (Decoder::new(&config), Decoder::new(&config));
        for _ in 0..500 {
            let event = templates[random.usize(..templates.len())].event(&mut random);
            planned += u32::from(compare(&mut experienced, &mut fresh, &event));
            all += 1;
        }
    }
    // Most configurations have a route that no plan can be made for, or none that takes the events.
    assert!(planned > all / 50, "only {planned} of {all} events were planned");
}

fn decoders(routes: &str) -> (Decoder, Decoder) {
    let config: Config = toml::from_str(&format!("queues = [{{ key = 'q' }}]\n{routes}")).unwrap();
    (Decoder::new(&config), Decoder::new(&config))
}

const TRACE: &str = "\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"";

/// Each is learnt from one event, if at all, and then asked about one that is not what it looks like.
#[test]
fn events_that_only_look_like_others_are_not_taken_for_them() {
    let set = "[[routes]]\ncollection = 'a'\nid = 'i'\nset = { v = 'v' }\n";
    let often: Vec<_> = (0..300).map(|n| format!("f{n} = 'v'")).collect();
    for (routes, events) in [
        // The route before is for those that have its id.
        (
            format!("[[routes]]\ncollection = 'b'\nid = 'j'\nset = {{ v = 'v' }}\n{set}"),
            vec![
                r#"{"i":"x","j":null,"v":1}"#.to_owned(),
                r#"{"i":"x","j":"y","v":1}"#.to_owned(),
                r#"{"i":"x","j":null,"v":1}"#.to_owned(),
            ],
        ),
        // What is read whole may have below it what the route before asks for.
        (
            format!("[[routes]]\nwhen = {{ 'v.k' = 'A' }}\ncollection = 'b'\nid = 'i'\nunset = ['u']\n{set}"),
            vec![
                r#"{"i":"x","v":{"k":"B"}}"#.to_owned(),
                r#"{"i":"x","v":{"k":"A"}}"#.to_owned(),
                r#"{"i":"x","v":5}"#.to_owned(),
                r#"{"i":"x","v":{"k":"A"}}"#.to_owned(),
                r#"{"i":"x","v": {"k":"A"}}"#.to_owned(),
                r#"{"i":"x","v":[5]}"#.to_owned(),
            ],
        ),
        // A blank hides an object from who looks at one byte.
        (
            format!("[[routes]]\nwhen = {{ 'm.k' = 'A' }}\ncollection = 'b'\nid = 'i'\nunset = ['u']\n{set}"),
            vec![
                r#"{"i":"x","m":1,"v":1}"#.to_owned(),
                r#"{"i":"x","m": {"k":"A"},"v":1}"#.to_owned(),
                r#"{"i":"x","m":	{"k":"A"},"v":1}"#.to_owned(),
                r#"{"i":"x","m":1,"v": 1}"#.to_owned(),
            ],
        ),
        // The trace is in what is only compared.
        (
            "[[routes]]\nwhen = { m = 7 }\ncollection = 'b'\nid = 'i'\nset = { v = 'v' }\n\
             [[routes]]\ncollection = 'a'\nid = 'i'\ntraceparent = 'm.tr'\nset = { v = 'v' }\n"
                .to_owned(),
            vec![format!(r#"{{"i":"x","m":{{"tr":{TRACE}}},"v":1}}"#); 3],
        ),
        // The trace is what is written.
        (
            "[[routes]]\ncollection = 'a'\nid = 'i'\ntraceparent = 'v'\nset = { v = 'v' }\n".to_owned(),
            vec![r#"{"i":"x","v":"none"}"#.to_owned(), format!(r#"{{"i":"x","v":{TRACE}}}"#)],
        ),
        // A wide integer, where nobody looks, is looked for when another number is large.
        (
            format!("[[routes]]\nwhen = {{ m = 7 }}\ncollection = 'b'\nid = 'i'\nunset = ['u']\n{set}"),
            vec![
                r#"{"i":"x","m":1e30,"v":1,"n":1}"#.to_owned(),
                r#"{"i":"x","m":1e30,"v":1,"n":123456789012345678901}"#.to_owned(),
                r#"{"i":"x","m":1,"v":1,"n":123456789012345678901}"#.to_owned(),
                r#"{"i":"x","m":1,"v":1e30,"n":123456789012345678901}"#.to_owned(),
            ],
        ),
        // The same value often comes to more than a document can hold.
        (
            format!("[[routes]]\ncollection = 'a'\nid = 'i'\nset = {{ {} }}\n", often.join(", ")),
            vec![
                r#"{"i":"x","v":"small"}"#.to_owned(),
                format!(r#"{{"i":"x","v":"{}"}}"#, "x".repeat(60_000)),
            ],
        ),
        // An event that was refused for its size has taught something.
        (
            set.to_owned(),
            vec![
                format!(r#"{{"i":"x","v":"{}"}}"#, "x".repeat(17 << 20)),
                r#"{"i":"x","v":"small"}"#.to_owned(),
                format!(r#"{{"i":"x","v":"{}"}}"#, "x".repeat(17 << 20)),
            ],
        ),
    ] {
        let (mut experienced, mut fresh) = decoders(&routes);
        for event in events {
            compare(&mut experienced, &mut fresh, event.as_bytes());
        }
    }
}

#[test]
fn events_of_the_usual_kind_are_planned() {
    let (mut decoder, _) = decoders(
        "[[routes]]\nwhen = { type = 'A' }\ncollection = 'a'\nid = 'p.id'\nts = 'ts'\nset = { t = 'p.t', u = 'p.u' }\n\
         inc = { n = 1 }\n\
         [[routes]]\nwhen = { type = 'E' }\ncollection = 'a'\nid = 'p.id'\nset = { t = 'p.t', d = { value = 'fixed' } }\n\
         push = { log = 'p.u' }\n",
    );
    let mut planned = |event: &str| {
        outcome(&mut decoder, event.as_bytes());
        decoder.plans.known.recalled
    };
    assert!(!planned(r#"{"type":"A","ts":1,"p":{"id":"x","t":"some","u":5}}"#));
    assert!(planned(r#"{"type":"A","ts":2,"p":{"id":7,"t":"text","u":"é"}}"#));
    assert!(!planned(r#"{"type":"E","more":null,"p":{"id":"x","t":"some"}}"#));
    assert!(planned(r#"{"type":"E","more":0.5,"p":{"id":"y","t":"a\\nb"}}"#));
    assert!(planned(r#"{"type":"E","more":"","p":{"id":"y","t":{"a":[1.5,null]}}}"#));
    for other in [
        r#"{"type":"B","ts":2,"p":{"id":7,"t":"text","u":5}}"#,
        r#"{"type":"A","ts":2,"p":{"id":"","t":"text","u":5}}"#,
        r#"{"type":"A","ts":2,"p":{"id":"x","t":{"$a":1},"u":5}}"#,
        r#"{"type":"A","ts":2,"p":{"id":null,"t":"text","u":5}}"#,
        r#"{"type":"A","ts":2,"p":{"id":"x","t":123456789012345678901,"u":5}}"#,
        r#"{"type":"E","more":[],"p":{"id":"x","t":"some"}}"#,
        r#"{"type":"A","ts":1,"p":{"id":"x","t":"some","u":5}} "#,
        r#"{"type":"A","p":{"id":"x","t":"some","u":5},"ts":1}"#,
        r#"{"type":"A","p":{"id":"x","t":"some","u":5}}"#,
    ] {
        assert!(!planned(other), "{other}");
    }
}
