//! Holds JSON that need not be right: an object may have a key twice, a number may be any text.

use std::fmt::Write;

use serde_json::Value;

#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A number, a word, or whatever else is to stand there.
    Raw(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    pub(super) fn new(value: Value) -> Self {
        match value {
            Value::String(text) => Node::Text(text),
            Value::Array(items) => Node::List(items.into_iter().map(Node::new).collect()),
            Value::Object(entries) => {
                Node::Map(entries.into_iter().map(|(key, value)| (key, Node::new(value))).collect())
            }
            scalar => Node::Raw(scalar.to_string()),
        }
    }

    /// How many nodes there are, this one included.
    pub(super) fn count(&self) -> usize {
        1 + match self {
            Node::Raw(_) | Node::Text(_) => 0,
            Node::List(items) => items.iter().map(Node::count).sum(),
            Node::Map(entries) => entries.iter().map(|(_, node)| node.count()).sum(),
        }
    }

    /// The node of that number, counted from the root, which is 0.
    pub(super) fn at(&mut self, mut number: usize) -> Option<&mut Node> {
        self.find(&mut number)
    }

    /// Counts down to zero on the way, so that no node is counted twice.
    fn find(&mut self, left: &mut usize) -> Option<&mut Node> {
        if *left == 0 {
            return Some(self);
        }
        *left -= 1;
        match self {
            Node::Raw(_) | Node::Text(_) => None,
            Node::List(items) => items.iter_mut().find_map(|node| node.find(left)),
            Node::Map(entries) => entries.iter_mut().find_map(|(_, node)| node.find(left)),
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) {
        match self {
            Node::Raw(raw) => out.push_str(raw),
            Node::Text(text) => quote(text, out),
            Node::List(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Node::Map(entries) => {
                out.push('{');
                for (n, (key, node)) in entries.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    quote(key, out);
                    out.push(':');
                    node.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // Writing to a text does not fail.
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
