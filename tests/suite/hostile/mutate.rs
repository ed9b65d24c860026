//! Mutates an event's structure, and its bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;

use super::tree::Node;

/// Scalars at and beyond the edges, some of them no JSON at all.
const SCALARS: [&str; 38] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "-1",
    "1.5",
    "1E5",
    "0.1",
    "00",
    ".5",
    "1e400",
    "-1e400",
    "1e-400",
    "NaN",
    "Infinity",
    "2147483647",
    "2147483648",
    "-2147483649",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "123456789012345678901234567890123456789012345678901234567890",
    "1.7976931348623157e308",
    "4.9e-324",
    r#""""#,
    r#""\u0000""#,
    r#""\ud800""#,
    r#""\udbff\udfff\u202e""#,
    r#"{"$oid":"65a1b2c3d4e5f60718293a4b"}"#,
    r#"{"$numberLong":"x"}"#,
    r#"{"$date":1}"#,
    "{}",
    "[]",
];

/// Keys that mean something to somebody, or to nobody.
const KEYS: [&str; 40] = [
    "",
    "\0",
    "a\0b",
    ".",
    "a.",
    ".a",
    "a..b",
    "a.b",
    "$",
    "$set",
    "$inc",
    "$push",
    "$pull",
    "$where",
    "$each",
    "$slice",
    "$sort",
    "$position",
    "$ne",
    "$in",
    "$type",
    "$literal",
    "a.$",
    "a.$[]",
    "a.$[x].b",
    "_id",
    "_id.a",
    "_tidegate",
    "_tidegate.q",
    "_tidegateDeleted",
    "0",
    "-1",
    "01",
    "a.100000",
    "log",
    "title",
    "kind",
    "collection",
    "id",
    "replace",
];

/// Bytes that break what is around them.
const BYTES: [&[u8]; 14] = [
    b"\0",
    b"\"",
    b"\\",
    b"\\u",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\n",
];

/// Changes one thing in the structure; `other` is an event to take parts from.
pub(super) fn structure(node: &mut Node, other: &Node, rng: &mut Rng) {
    let number = rng.usize(..node.count());
    let Some(target) = node.at(number) else { return };
    match rng.u8(..14) {
        0..3 => *target = Node::Raw(rng.choice(SCALARS).unwrap_or("0").to_owned()),
        3 => swap(node, rng),
        4..7 => *target = part(other, rng),
        7 => *target = nested(target.clone(), rng),
        8 => *target = Node::Text(text(rng)),
        9 => remove(target, rng),
        10 | 11 => insert(target, other, rng),
        12 => rename(target, rng),
        _ => match target {
            Node::Text(text) => reencode(text, rng),
            Node::List(items) if !items.is_empty() => {
                let item = items[rng.usize(..items.len())].clone();
                let times = rng.choice([1, 2, 10, 500]).unwrap_or(1);
                items.extend(std::iter::repeat_n(item, times));
            }
            // The same key twice.
            Node::Map(entries) if !entries.is_empty() => {
                let key = entries[rng.usize(..entries.len())].0.clone();
                entries.push((key, part(other, rng)));
            }
            _ => {}
        },
    }
}

fn swap(node: &mut Node, rng: &mut Rng) {
    let (a, b) = (rng.usize(..node.count()), rng.usize(..node.count()));
    let Some(first) = node.at(a).cloned() else { return };
    let Some(second) = node.at(b).map(|second| std::mem::replace(second, first)) else { return };
    // Where one lay within the other there may be no such node any more.
    if let Some(place) = node.at(a) {
        *place = second;
    }
}

fn part(other: &Node, rng: &mut Rng) -> Node {
    let mut other = other.clone();
    let number = rng.usize(..other.count());
    other.at(number).cloned().unwrap_or(Node::List(Vec::new()))
}

fn nested(mut node: Node, rng: &mut Rng) -> Node {
    let levels = match rng.u8(..10) {
        0..6 => rng.usize(1..5),
        // Around the limits of parsers and of MongoDB.
        6..9 => rng.usize(90..140),
        _ => rng.usize(400..900),
    };
    let list = rng.bool();
    for _ in 0..levels {
        node = if list { Node::List(vec![node]) } else { Node::Map(vec![("a".to_owned(), node)]) };
    }
    node
}

fn text(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => String::new(),
        1 => "\0".to_owned(),
        2 => "x".repeat(rng.usize(1..3_000)),
        3 => "\u{1F600}\u{200d}\u{fffd}".repeat(rng.usize(1..100)),
        4 => key(rng),
        5 => format!("{}", rng.i64(..)),
        6 => "2023-11-14T22:13:20.999999999Z".to_owned(),
        _ => (0..rng.usize(..40)).map(|_| rng.char(..)).collect(),
    }
}

fn key(rng: &mut Rng) -> String {
    match rng.u8(..20) {
        0 => "k".repeat(rng.usize(1..4_000)),
        1 => vec!["a"; rng.usize(1..250)].join("."),
        _ => rng.choice(KEYS).unwrap_or_default().to_owned(),
    }
}

fn remove(node: &mut Node, rng: &mut Rng) {
    match node {
        Node::List(items) if !items.is_empty() => drop(items.remove(rng.usize(..items.len()))),
        Node::Map(entries) if !entries.is_empty() => drop(entries.remove(rng.usize(..entries.len()))),
        _ => {}
    }
}

fn insert(node: &mut Node, other: &Node, rng: &mut Rng) {
    let new =
        if rng.bool() { part(other, rng) } else { Node::Raw(rng.choice(SCALARS).unwrap_or("0").to_owned()) };
    match node {
        Node::List(items) => items.insert(rng.usize(..=items.len()), new),
        Node::Map(entries) => entries.insert(rng.usize(..=entries.len()), (key(rng), new)),
        Node::Raw(_) | Node::Text(_) => *node = Node::Map(vec![(key(rng), new)]),
    }
}

fn rename(node: &mut Node, rng: &mut Rng) {
    match node {
        Node::Map(entries) if !entries.is_empty() => {
            let at = rng.usize(..entries.len());
            entries[at].0 = key(rng);
        }
        _ => *node = Node::Raw(rng.choice(SCALARS).unwrap_or("0").to_owned()),
    }
}

/// Damages what is within base64, such as a Yjs update.
fn reencode(text: &mut String, rng: &mut Rng) {
    match STANDARD.decode(&*text) {
        Ok(mut inner) if inner.len() > 2 => {
            for _ in 0..rng.usize(1..4) {
                bytes(&mut inner, b"\x01\x01\x80\xff", rng);
            }
            *text = STANDARD.encode(inner);
        }
        _ => text.push_str(rng.choice(KEYS).unwrap_or_default()),
    }
}

/// Changes one thing in the bytes; `other` is an event to take a piece from.
pub(super) fn bytes(event: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let from = rng.usize(..=event.len());
    let to = (from + rng.usize(..20)).min(event.len());
    match rng.u8(..8) {
        0 | 1 if from < event.len() => event[from] ^= 1 << rng.u8(..8),
        2 if from < event.len() => event[from] = rng.u8(..),
        3 => drop(event.drain(from..to)),
        4 => event.truncate(from),
        5 => {
            let piece = event[from..to].repeat(rng.choice([1, 1, 3, 100]).unwrap_or(1));
            event.splice(to..to, piece);
        }
        6 => {
            let token = rng.choice(BYTES).unwrap_or(b"\0");
            event.splice(from..from, token.iter().copied());
        }
        _ => {
            let start = rng.usize(..=other.len());
            let end = (start + rng.usize(..60)).min(other.len());
            event.splice(from..to, other[start..end].iter().copied());
        }
    }
}
