//! Counts dead letters by what is wrong with them, for the status and the log.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Dead;
use super::recent::seconds_since;
use crate::format::{cut, number};

/// Groups kept. What comes beyond is counted by its class alone.
const KEPT: usize = 50;
/// Bytes of a reason.
const REASON: usize = 200;
/// Groups that one line of the log names.
const NAMED: usize = 3;
/// The log has a line no more often.
const LINE: Duration = Duration::from_secs(60);
/// How long a letter counts as one that came lately, and of how many parts that is.
const LATELY: Duration = Duration::from_secs(5 * 60);
const PARTS: u64 = 30;

/// Letters of a queue of which the same was wrong.
#[derive(Debug, Clone, Serialize)]
pub struct LetterGroup {
    queue: String,
    class: &'static str,
    /// Without values; none of letters whose reasons were too many.
    reason: String,
    count: u64,
    /// How many the log has not told.
    #[serde(skip)]
    untold: u64,
    #[serde(rename = "seconds_ago", serialize_with = "seconds_since")]
    last: Instant,
}

/// The groups since the start of the process.
#[derive(Debug, Default)]
pub(super) struct LetterGroups {
    groups: Vec<LetterGroup>,
    /// Letters that came in each part of the last minutes, by the part's number.
    lately: [(u64, u64); PARTS as usize],
    told: Option<Instant>,
}

impl LetterGroups {
    /// Counts letters of a queue that came so long after the start.
    pub(super) fn add(&mut self, queue: &str, letters: &[Dead<'_>], since_start: Duration) {
        let now = Instant::now();
        for Dead { rejection, .. } in letters {
            let class = rejection.reason.label();
            let reason = rejection.without_values();
            let reason = &reason[..reason.floor_char_boundary(REASON)];
            let of = |groups: &[LetterGroup], reason: &str| {
                let is_it = |group: &LetterGroup| {
                    group.class == class && group.queue == queue && group.reason == reason
                };
                groups.iter().position(is_it)
            };
            let is_full = self.groups.len() >= KEPT;
            let found = of(&self.groups, reason).or_else(|| is_full.then(|| of(&self.groups, ""))?);
            let at = found.unwrap_or_else(|| {
                let reason = if is_full { String::new() } else { reason.to_owned() };
                let queue = queue.to_owned();
                self.groups.push(LetterGroup { queue, class, reason, count: 0, untold: 0, last: now });
                self.groups.len() - 1
            });
            let group = &mut self.groups[at];
            (group.count, group.untold, group.last) = (group.count + 1, group.untold + 1, now);
        }
        let part = part(since_start);
        let slot = &mut self.lately[(part % PARTS) as usize];
        let before = if slot.0 == part { slot.1 } else { 0 };
        *slot = (part, before + letters.len() as u64);
    }

    /// How many came in the last five minutes.
    pub(super) fn lately(&self, since_start: Duration) -> u64 {
        let now = part(since_start);
        self.lately.iter().filter(|(part, _)| now - *part < PARTS).map(|(_, letters)| letters).sum()
    }

    /// All groups, the largest first.
    pub(super) fn all(&self) -> Vec<LetterGroup> {
        let mut groups = self.groups.clone();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }

    /// What the log is to say of letters that came since its last line, if it is time for one.
    pub(super) fn news(&mut self) -> Option<String> {
        if self.told.is_some_and(|told| told.elapsed() < LINE) {
            return None;
        }
        let mut new: Vec<_> = self.groups.iter_mut().filter(|group| group.untold > 0).collect();
        let count: u64 = new.iter().map(|group| group.untold).sum();
        if count == 0 {
            return None;
        }
        self.told = Some(Instant::now());
        new.sort_by_key(|group| std::cmp::Reverse(group.untold));
        let named = new.iter().take(NAMED).map(|LetterGroup { queue, class, reason, untold, .. }| {
            let reason =
                if reason.is_empty() { String::new() } else { format!(" ({})", cut(reason, REASON)) };
            format!("{} {class} of {queue}{reason}", number(*untold))
        });
        let mut text =
            format!("{} new dead letters: {}", number(count), named.collect::<Vec<_>>().join(", "));
        if count == 1 {
            text = text.replacen("1 new dead letters", "1 new dead letter", 1);
        }
        if new.len() > NAMED {
            text.push_str(&format!(" and {} more reasons", new.len() - NAMED));
        }
        new.iter_mut().for_each(|group| group.untold = 0);
        Some(text)
    }
}

fn part(since_start: Duration) -> u64 {
    // The first part is not the number that unused ones have.
    PARTS + since_start.as_secs() * PARTS / LATELY.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::{Reason, Rejection};

    fn flood(groups: &mut LetterGroups, rejection: &Rejection, count: usize, at: u64) {
        let dead = Dead { offset: 0, event: b"", rejection, traceparent: None, entity: None };
        groups.add("q", &vec![dead; count], Duration::from_secs(at));
    }

    #[test]
    fn reasons_without_values_are_counted_together() {
        let mut groups = LetterGroups::default();
        for n in 0..3 {
            let text = format!("a unique index refuses the document: dup key {n}");
            flood(&mut groups, &Rejection::new(Reason::UniqueIndex, text), 2, 0);
        }
        flood(&mut groups, &Rejection::new(Reason::NotJson, "no"), 9, 0);
        let told: Vec<_> = groups.all().iter().map(|g| (g.class, g.reason.clone(), g.count)).collect();
        assert_eq!(
            told,
            [
                ("not-json", "no".to_owned(), 9),
                ("unique-index", "a unique index refuses the document".to_owned(), 6)
            ]
        );
        assert_eq!(
            groups.news().unwrap(),
            "15 new dead letters: 9 not-json of q (no), 6 unique-index of q (a unique index refuses the document)"
        );
        flood(&mut groups, &Rejection::new(Reason::NotJson, "no"), 1, 0);
        assert_eq!(groups.news(), None, "one line a minute");
        groups.told = None;
        assert_eq!(groups.news().unwrap(), "1 new dead letter: 1 not-json of q (no)");
        groups.told = None;
        assert_eq!(groups.news(), None, "all are told");
    }

    #[test]
    fn many_reasons_are_counted_by_their_class() {
        let mut groups = LetterGroups::default();
        for n in 0..1000 {
            flood(&mut groups, &Rejection::new(Reason::NotJson, format!("at {n}")), 1, 0);
        }
        assert_eq!((groups.all().len(), groups.all()[0].count), (KEPT + 1, 1000 - KEPT as u64));
    }

    #[test]
    fn what_came_lately_is_counted_however_much_it_is() {
        let (mut groups, rejection) = (LetterGroups::default(), Rejection::new(Reason::NotJson, "no"));
        let lately = |groups: &LetterGroups, at| groups.lately(Duration::from_secs(at));
        flood(&mut groups, &rejection, 100_000, 0);
        flood(&mut groups, &rejection, 7, 100);
        assert_eq!((lately(&groups, 100), lately(&groups, 299)), (100_007, 100_007));
        assert_eq!((lately(&groups, 300), lately(&groups, 400), lately(&groups, 90_000)), (7, 0, 0));
        flood(&mut groups, &rejection, 1, 90_000);
        assert_eq!(lately(&groups, 90_000), 1);
    }
}
