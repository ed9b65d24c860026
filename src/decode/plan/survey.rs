//! Finds what is where in an event, so that others like it need not be parsed.

use std::ops::Range;

use super::plain::{parsed, skip};
use crate::decode::paths::{Node, Paths, Slot};
use crate::decode::transcode::KeyRule;

/// Values of an event that is surveyed, and levels they may be nested.
const MOST_VALUES: usize = 64;
const MOST_DEEP: usize = 32;

/// A value that is no object or array, unless it is read whole.
#[derive(Debug)]
pub(super) struct PlanSurveyed {
    /// Where it stands.
    pub(super) place: Range<usize>,
    /// Its slot, and the rule for its keys.
    pub(super) slot: Option<(Slot, KeyRule)>,
    /// The slot for the trace that it may be.
    pub(super) trace: Option<Slot>,
    /// Whether another may be an object or an array. Else what is in it would have to be looked at.
    pub(super) may_nest: bool,
    /// Whether nobody looks at it. Else a parser has to, where it is not plain, even if only to refuse it.
    pub(super) is_skipped: bool,
}

/// Finds out what is where in an event, which is known to be JSON.
pub(super) struct PathSurvey<'e> {
    event: &'e str,
    at: usize,
    /// The values, in the order in which they stand.
    pub(super) values: Vec<PlanSurveyed>,
}

impl<'e> PathSurvey<'e> {
    /// None if the event has no shape, or none that is worth it.
    pub(super) fn of(paths: &Paths, event: &'e str) -> Option<Self> {
        let mut survey = PathSurvey { event, at: 0, values: Vec::new() };
        survey.space();
        survey.object(Some(&paths.root), 0)?;
        Some(survey)
    }

    /// Whether it has a value with this slot.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.values
            .iter()
            .any(|seen| seen.trace == Some(slot) || seen.slot.is_some_and(|(own, _)| own == slot))
    }

    fn object(&mut self, node: Option<&Node>, depth: usize) -> Option<()> {
        self.entered(b'{', depth)?;
        while self.peek()? != b'}' {
            let key = self.string()?;
            // A key with an escape may be a path's key.
            if key.contains('\\') {
                return None;
            }
            let child = node.and_then(|node| Some(&node.children[node.child(key)?].1));
            self.space();
            self.at += 1;
            self.value(child, depth + 1)?;
            self.next_item();
        }
        self.at += 1;
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.entered(b'[', depth)?;
        while self.peek()? != b']' {
            self.value(None, depth + 1)?;
            self.next_item();
        }
        self.at += 1;
        Some(())
    }

    fn value(&mut self, node: Option<&Node>, depth: usize) -> Option<()> {
        self.space();
        let is_read_whole = node.is_some_and(|node| node.slot.is_some() || !node.has_data);
        match self.peek()? {
            b'{' if !is_read_whole => return self.object(node, depth),
            // Places in an array can be a path's keys.
            b'[' if node.is_some_and(|node| !node.children.is_empty()) => return None,
            b'[' if !is_read_whole => return self.array(depth),
            _ => {}
        }
        if self.values.len() == MOST_VALUES {
            return None;
        }
        let start = self.at;
        self.at = parsed(self.event, start, skip)?;
        self.values.push(PlanSurveyed {
            place: start..self.at,
            slot: node.and_then(|node| node.slot),
            trace: node.and_then(|node| node.trace),
            may_nest: node.is_some_and(|node| node.slot.is_some() && node.children.is_empty()),
            is_skipped: node.is_none_or(|node| !node.has_data),
        });
        Some(())
    }

    fn entered(&mut self, bracket: u8, depth: usize) -> Option<()> {
        if self.peek()? != bracket || depth == MOST_DEEP {
            return None;
        }
        self.at += 1;
        self.space();
        Some(())
    }

    /// Goes on to the next item of an object or array, or to its end.
    fn next_item(&mut self) {
        self.space();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.space();
        }
    }

    /// What is between the quotation marks, as it is written.
    fn string(&mut self) -> Option<&'_ str> {
        let end = parsed(self.event, self.at, skip)?;
        let text = self.event.get(self.at + 1..end - 1);
        self.at = end;
        text
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.event.as_bytes().get(self.at).copied()
    }
}
