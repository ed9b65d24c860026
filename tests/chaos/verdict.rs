//! Judges what became of the events: holds the documents against the record of what was pushed.

use std::collections::BTreeMap;

use bson::{Bson, Document};

use crate::workload::{Fate, Pushed, Record, document_id};

/// What a tombstone has.
const DELETED: &str = "_tidegateDeleted";
/// Of what went wrong, so many cases are told.
const TOLD: usize = 10;

/// The count of a round.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Acknowledged by Redis, and kept.
    pub(crate) events: usize,
    /// Of unknown fate.
    pub(crate) unknown: usize,
    /// Acknowledged and kept, and not applied.
    pub(crate) lost: usize,
    /// Applications beyond the first.
    pub(crate) doubled: usize,
    /// First applications that come after one of a later event.
    pub(crate) out_of_order: usize,
    /// What is in a document and should not be: never pushed, or deleted.
    pub(crate) foreign: usize,
    /// Documents whose counter is not the length of their log.
    pub(crate) torn: usize,
    /// The first cases.
    pub(crate) told: Vec<String>,
}

impl Verdict {
    /// Whether the promise was kept: nothing lost, and nothing twice unless Redis lost something.
    pub(crate) fn is_good(&self, exactly_once: bool) -> bool {
        self.lost + self.out_of_order + self.foreign + self.torn == 0 && !(exactly_once && self.doubled > 0)
    }
}

/// Judges all documents.
pub(crate) fn judge(record: &Record, documents: &BTreeMap<String, Document>) -> Verdict {
    let mut verdict = Verdict::default();
    for (entity, events) in record.0.iter().enumerate() {
        let id = document_id(entity);
        let of_document = of_entity(events, documents.get(&id));
        if !of_document.is_good(true) && verdict.told.len() < TOLD {
            verdict.told.push(format!("{id}: {}", of_document.told.join("; ")));
        }
        verdict.add(of_document);
    }
    let strangers = documents.keys().filter(|id| {
        let entity = id.strip_prefix('e').and_then(|number| number.parse::<usize>().ok());
        entity.is_none_or(|entity| record.0.get(entity).is_none_or(Vec::is_empty))
    });
    verdict.foreign += strangers.count();
    verdict
}

impl Verdict {
    fn add(&mut self, other: Verdict) {
        self.events += other.events;
        self.unknown += other.unknown;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.foreign += other.foreign;
        self.torn += other.torn;
    }
}

/// A deletion takes what came before it. Of one whose fate is unknown nobody knows that either: it is taken for done if
/// the document makes sense then, and only then.
fn of_entity(events: &[Pushed], document: Option<&Document>) -> Verdict {
    let is_certain = |event: &Pushed| event.deletes && event.fate == Fate::Acknowledged;
    let certain = events.iter().rposition(is_certain).map_or(0, |at| at + 1);
    let verdict = alive_from(certain, events, document);
    if verdict.is_good(true) {
        return verdict;
    }
    let mut uncertain = (certain..events.len()).filter(|at| events[*at].deletes);
    let good = uncertain.find_map(|at| {
        let other = alive_from(at + 1, events, document);
        other.is_good(true).then_some(other)
    });
    good.unwrap_or(verdict)
}

/// The verdict if what was pushed before `alive_from` is deleted.
fn alive_from(alive_from: usize, events: &[Pushed], document: Option<&Document>) -> Verdict {
    let mut verdict = Verdict::default();
    let tombstone = document.filter(|document| document.contains_key(DELETED));
    if let Some(tombstone) = tombstone
        && tombstone.keys().any(|key| !["_id", DELETED, "_tidegate"].contains(&key.as_str()))
    {
        verdict.foreign += 1;
        verdict.told.push(format!("is a tombstone, and yet it is {tombstone}"));
    }
    let document = document.filter(|_| tombstone.is_none());
    let log = document.map(log).unwrap_or_default();
    let is_dead = alive_from == events.len();
    if is_dead && document.is_some() {
        verdict.foreign += 1;
        verdict.told.push(format!("is there although it was deleted by {}", alive_from.saturating_sub(1)));
    }
    let mut applied = vec![0_usize; events.len()];
    let mut latest = None;
    for n in &log {
        let n = usize::try_from(*n).ok().filter(|n| (alive_from..events.len()).contains(n));
        let Some(n) = n else {
            verdict.foreign += 1;
            continue;
        };
        applied[n] += 1;
        if events[n].deletes {
            verdict.foreign += 1;
        } else if applied[n] > 1 {
            verdict.doubled += 1;
        } else if latest.replace(n.max(latest.unwrap_or(0))).is_some_and(|latest| latest > n) {
            verdict.out_of_order += 1;
        }
    }
    verdict.unknown = events.iter().filter(|event| event.fate == Fate::Unknown).count();
    verdict.events = events.len() - verdict.unknown;
    let missing: Vec<usize> = (alive_from..events.len())
        .filter(|n| applied[*n] == 0 && events[*n].fate == Fate::Acknowledged)
        .collect();
    verdict.lost += missing.len();
    let count = document.and_then(|document| document.get("count")).and_then(number).unwrap_or(0);
    if count != log.len() as i64 {
        verdict.torn += 1;
        verdict.told.push(format!("counts {count}"));
    }
    if !verdict.is_good(true) {
        let tail = &log[log.len().saturating_sub(40)..];
        verdict.told.push(format!(
            "{} pushed, alive from {alive_from}, missing {missing:?}, {} in the log, which ends with {tail:?}; \
             the document says {:?}",
            events.len(),
            log.len(),
            document.and_then(|document| document.get("_tidegate")),
        ));
    }
    verdict
}

fn log(document: &Document) -> Vec<i64> {
    let log = document.get_array("log").map(Vec::as_slice).unwrap_or_default();
    // Nothing that was pushed is negative.
    log.iter().map(|n| number(n).unwrap_or(-1)).collect()
}

fn number(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(n) => Some((*n).into()),
        Bson::Int64(n) => Some(*n),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    const OK: Pushed = Pushed { fate: Fate::Acknowledged, deletes: false };
    const PERHAPS: Pushed = Pushed { fate: Fate::Unknown, deletes: false };
    const DELETE: Pushed = Pushed { fate: Fate::Acknowledged, deletes: true };
    const PERHAPS_DELETE: Pushed = Pushed { fate: Fate::Unknown, deletes: true };

    /// Lost, doubled, out of order, foreign, torn.
    fn counts(events: &[Pushed], log: &[i64]) -> [usize; 5] {
        let document = doc! { "log": log.to_vec(), "count": log.len() as i64 };
        let verdict = judge(&Record(vec![events.to_vec()]), &[("e0".to_owned(), document)].into());
        assert_eq!(verdict.told.is_empty(), verdict.is_good(true));
        [verdict.lost, verdict.doubled, verdict.out_of_order, verdict.foreign, verdict.torn]
    }

    #[test]
    fn only_the_very_sequence_is_good() {
        assert_eq!(counts(&[OK; 4], &[0, 1, 2, 3]), [0; 5]);
        assert_eq!(counts(&[OK; 4], &[0, 1, 3]), [1, 0, 0, 0, 0]);
        assert_eq!(counts(&[OK; 4], &[0, 1, 2, 3, 2, 3]), [0, 2, 0, 0, 0]);
        assert_eq!(counts(&[OK; 4], &[0, 2, 1, 3]), [0, 0, 1, 0, 0]);
        assert_eq!(counts(&[OK; 4], &[0, 1, 2, 3, 4]), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn what_nobody_knows_of_may_be_there_or_not() {
        assert_eq!(counts(&[OK, PERHAPS, OK], &[0, 1, 2]), [0; 5]);
        assert_eq!(counts(&[OK, PERHAPS, OK], &[0, 2]), [0; 5]);
        assert_eq!(counts(&[OK, PERHAPS, OK], &[0, 2, 1]), [0, 0, 1, 0, 0]);
        assert_eq!(counts(&[OK, PERHAPS, OK], &[0, 1, 1, 2]), [0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_deletion_begins_anew() {
        assert_eq!(counts(&[OK, OK, DELETE, OK, OK], &[3, 4]), [0; 5]);
        assert_eq!(counts(&[OK, OK, DELETE, OK, OK], &[0, 1, 3, 4]), [0, 0, 0, 2, 0]);
        assert_eq!(counts(&[OK, DELETE], &[0])[3], 2);
        let nothing = judge(&Record(vec![vec![OK, DELETE], vec![]]), &BTreeMap::new());
        assert!(nothing.is_good(true), "{nothing:?}");
        let gone = judge(&Record(vec![vec![OK, OK]]), &BTreeMap::new());
        assert_eq!(gone.lost, 2);
    }

    #[test]
    fn a_deletion_of_which_nobody_knows_may_have_been_done() {
        let events = [OK, OK, PERHAPS_DELETE, PERHAPS, OK, OK];
        for log in [&[0, 1, 3, 4, 5][..], &[0, 1, 4, 5], &[3, 4, 5], &[4, 5]] {
            assert_eq!(counts(&events, log), [0; 5], "{log:?}");
        }
        for log in [&[1, 3, 4, 5][..], &[4], &[0, 1, 2, 4, 5], &[4, 5, 0, 1], &[4, 5, 5]] {
            assert_ne!(counts(&events, log), [0; 5], "{log:?}");
        }
        // What an acknowledged one has deleted stays deleted.
        assert_eq!(counts(&[OK, DELETE, OK, PERHAPS_DELETE, OK], &[0, 2, 4])[3], 1);
        assert_eq!(counts(&[OK, PERHAPS_DELETE, OK, DELETE, OK], &[4]), [0; 5]);
        let perhaps_gone = judge(&Record(vec![vec![OK, PERHAPS_DELETE]]), &BTreeMap::new());
        assert!(perhaps_gone.is_good(true), "{perhaps_gone:?}");
    }

    #[test]
    fn a_tombstone_is_no_document() {
        let verdict = |events: &[Pushed], document: Document| {
            let documents = [("e0".to_owned(), document)].into();
            judge(&Record(vec![events.to_vec()]), &documents)
        };
        let tombstone = doc! { DELETED: bson::DateTime::MIN, "_tidegate": { "q": 2 } };
        assert!(verdict(&[OK, DELETE], tombstone.clone()).is_good(true));
        assert_eq!(verdict(&[OK, DELETE, OK], tombstone.clone()).lost, 1);
        let mut revived = tombstone.clone();
        revived.extend(doc! { "log": [2_i64], "count": 1 });
        assert!(!verdict(&[OK, DELETE, OK], revived).is_good(true));
    }

    #[test]
    fn counters_and_strangers_count() {
        let document = doc! { "log": [0_i64, 1], "count": 3 };
        let verdict = judge(&Record(vec![vec![OK; 2]]), &[("e0".to_owned(), document.clone())].into());
        assert_eq!((verdict.torn, verdict.is_good(false)), (1, false));
        let verdict = judge(&Record(vec![vec![]]), &[("e0".to_owned(), document)].into());
        assert!(!verdict.is_good(false), "{verdict:?}");
    }

    #[test]
    fn twice_is_good_only_where_redis_lost_something() {
        let verdict = Verdict { doubled: 1, ..Verdict::default() };
        assert!(verdict.is_good(false) && !verdict.is_good(true));
    }
}
