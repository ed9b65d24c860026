//! Holds the paths that routes name as one tree, which steers the reading of an event.

use super::transcode::KeyRule;

/// The place of one path's value among an event's extracted values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(pub(super) usize);

/// The tree of all paths to extract.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub(super) root: Node,
    pub(super) nodes: usize,
    pub(super) slots: usize,
    /// What was added to read data from, since this was taken: each path's slot, under the rule it was added with.
    pub(super) reads: Vec<(Slot, KeyRule)>,
    /// Refuse events with top-level keys that no path begins with.
    pub(super) strict: bool,
}

/// A component of a path.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Its place among all nodes of its tree.
    pub(super) number: usize,
    pub(super) children: Vec<(Box<str>, Node)>,
    /// The slot for the value here, and the rule for its keys.
    pub(super) slot: Option<(Slot, KeyRule)>,
    /// The slot for the trace that may be here.
    pub(super) trace: Option<Slot>,
    /// A value is read here, or below, that is more than a trace. Else nothing here may refuse the event.
    pub(super) has_data: bool,
}

impl Paths {
    /// Paths that name every top-level key an event may have.
    pub(super) fn strict() -> Self {
        Paths { strict: true, ..Paths::default() }
    }

    /// Adds a dotted path; the same path always has the same slot, under the stricter of its rules.
    pub(super) fn add(&mut self, path: &str, keys: KeyRule) -> Slot {
        let node = self.root.below(path, true, &mut self.nodes);
        let slots = &mut self.slots;
        let (slot, rule) = node.slot.get_or_insert_with(|| {
            *slots += 1;
            (Slot(*slots - 1), keys)
        });
        if *rule == KeyRule::Data || keys == KeyRule::Merge {
            *rule = keys;
        }
        self.reads.push((*slot, keys));
        *slot
    }

    /// Adds a dotted path to an event's trace. Whatever is there, it does not have the event refused.
    pub(super) fn add_trace(&mut self, path: &str) -> Slot {
        let slots = &mut self.slots;
        *self.root.below(path, false, &mut self.nodes).trace.get_or_insert_with(|| {
            *slots += 1;
            Slot(*slots - 1)
        })
    }

    /// Whether an array can be an event.
    pub(super) fn takes_arrays(&self) -> bool {
        let is_place =
            |(key, node): &(Box<str>, Node)| node.has_data && key.bytes().all(|b| b.is_ascii_digit());
        self.root.children.iter().any(is_place)
    }
}

impl Node {
    /// The node at a dotted path, made if there is none.
    fn below(&mut self, path: &str, has_data: bool, nodes: &mut usize) -> &mut Node {
        let mut node = self;
        for component in path.split('.') {
            let at = node.children.iter().position(|(key, _)| **key == *component).unwrap_or_else(|| {
                node.children.push((component.into(), Node { number: *nodes, ..Node::default() }));
                *nodes += 1;
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
            node.has_data |= has_data;
        }
        node
    }

    pub(super) fn child(&self, key: &str) -> Option<usize> {
        self.children.iter().position(|(k, _)| **k == *key)
    }
}
