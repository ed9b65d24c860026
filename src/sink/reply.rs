//! Makes a verdict on each write of a command's reply.
//!
//! A reply with `ok: 1` may still hold refused statements and a write concern that was not met; the
//! driver turns neither into an error for commands that are run raw.

use bson::{Bson, Document};

use super::bulk_command::StatementKind;
use super::command::Command;
use super::error::{SinkError, rejection};
use crate::dead_letter::Rejection;
use crate::retry::Class;

/// MongoDB's refusal of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Why.
    pub(crate) rejection: Rejection,
    /// Whether it cannot be a race. A duplicate key that does not say of which index may be one of `_id`.
    pub(crate) is_certain: bool,
}

/// What became of one write.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// Durable.
    Applied,
    /// The guard held it back, or may have: the document's watermark tells.
    Conflict,
    /// MongoDB refuses its content, and always will.
    Refused(Refusal),
    /// MongoDB answered, and refuses it for something else than its content: it is to wait, others need not.
    Held(SinkError),
    /// Not tried, since an earlier one of an ordered command was not applied.
    Untried,
    /// Nobody knows: it is to be sent again.
    Failed(SinkError),
}

/// Reads a reply; answers one verdict per statement.
#[must_use]
pub(super) fn verdicts(command: &Command, ordered: bool, guarded: bool, reply: &Document) -> Vec<Verdict> {
    let statements = command.writes.len();
    let unmet = unmet_concern(reply);
    let mut verdicts = vec![unmet.clone().map_or(Verdict::Applied, Verdict::Failed); statements];
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    for error in errors.iter().filter_map(Bson::as_document) {
        let Some(at) = integer(error, "index").and_then(|at| usize::try_from(at).ok()) else { continue };
        if at >= statements {
            continue;
        }
        // Whatever it says: what it was refused for, or what it met, may be rolled back.
        verdicts[at] = unmet.clone().map_or_else(|| statement_verdict(error), Verdict::Failed);
        if ordered {
            verdicts[at + 1..].fill(Verdict::Untried);
        }
    }
    // A deletion that found nothing says nothing: there was no document, or the guard held it back.
    if command.kind == StatementKind::Delete && guarded {
        let applied = verdicts.iter().filter(|v| matches!(v, Verdict::Applied)).count();
        if integer(reply, "n").is_none_or(|n| usize::try_from(n).unwrap_or(0) < applied) {
            for verdict in &mut verdicts {
                if matches!(verdict, Verdict::Applied) {
                    *verdict = Verdict::Conflict;
                }
            }
        }
    }
    verdicts
}

/// That the write concern was not met, if it was not.
fn unmet_concern(reply: &Document) -> Option<SinkError> {
    let concern = reply.get_document("writeConcernError").ok()?;
    let text = concern.get_str("errmsg").unwrap_or("no reason given");
    Some(SinkError::transient(format!("the write concern was not met: {text}")))
}

/// How many documents an `update` made.
#[must_use]
pub(super) fn made(reply: &Document) -> usize {
    reply.get_array("upserted").map_or(0, Vec::len)
}

fn statement_verdict(error: &Document) -> Verdict {
    let code = integer(error, "code").and_then(|code| i32::try_from(code).ok()).unwrap_or(0);
    let text = error.get_str("errmsg").unwrap_or("no reason given");
    let is_duplicate = matches!(code, 11000 | 11001);
    match index(error) {
        Some(Index::Id) if is_duplicate => Verdict::Conflict,
        of_index => match rejection(code, text) {
            Some(rejection) => {
                Verdict::Refused(Refusal { rejection, is_certain: !is_duplicate || of_index.is_some() })
            }
            None => Verdict::Held(SinkError::answered(text, code)),
        },
    }
}

/// What is wrong with what a command wrote, if anything is. A document that is there already is as good as one inserted.
#[must_use]
pub(super) fn write_error(reply: &Document) -> Option<SinkError> {
    if let Some(unmet) = unmet_concern(reply) {
        return Some(unmet);
    }
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let verdicts = errors.iter().filter_map(Bson::as_document).map(statement_verdict);
    let errors = verdicts.filter_map(|verdict| match verdict {
        Verdict::Failed(error) | Verdict::Held(error) => Some(error),
        Verdict::Refused(Refusal { rejection, .. }) => Some(SinkError::data(rejection.text, rejection.code)),
        Verdict::Applied | Verdict::Conflict | Verdict::Untried => None,
    });
    // One that may go away first: then all of them are sent again.
    errors.min_by_key(|error| error.class() == Class::Data)
}

/// The index that a duplicate key is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    /// `_id`
    Id,
    /// Another: it speaks of the event's data.
    Other,
}

/// The index that a refusal names. Only mongod tells its key pattern. DocumentDB and Cosmos DB say it in words of their own, and
/// words are not gone by: an index named `user_id_1` has them, too.
fn index(error: &Document) -> Option<Index> {
    let pattern = error.get_document("keyPattern").ok()?;
    Some(if pattern.len() == 1 && pattern.contains_key("_id") { Index::Id } else { Index::Other })
}

/// Servers and proxies disagree on the type of counts.
fn integer(document: &Document, key: &str) -> Option<i64> {
    match document.get(key)? {
        Bson::Int32(n) => Some((*n).into()),
        Bson::Int64(n) => Some(*n),
        Bson::Double(n) => Some(*n as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::CollectionId;
    use crate::dead_letter::Reason;
    use bson::doc;

    fn command(kind: StatementKind, statements: usize) -> Command {
        Command { collection: CollectionId(0), kind, writes: (0..statements).collect(), body: Vec::new() }
    }

    fn told(kind: StatementKind, statements: usize, ordered: bool, reply: &Document) -> Vec<String> {
        verdicts(&command(kind, statements), ordered, true, reply)
            .iter()
            .map(|verdict| match verdict {
                Verdict::Refused(refusal) if !refusal.is_certain => "perhaps refused".to_owned(),
                Verdict::Refused(refusal) => format!("refused {}", refusal.rejection.reason.label()),
                Verdict::Held(error) => format!("held {}", error.code().unwrap_or(0)),
                Verdict::Failed(error) => format!("failed {}", error.class().label()),
                other => format!("{other:?}").to_lowercase(),
            })
            .collect()
    }

    #[test]
    fn only_a_duplicate_of_id_is_a_conflict() {
        let reply = doc! {"ok": 1, "n": 1, "writeErrors": [
            {"index": 0, "code": 11000, "keyPattern": {"_id": 1}, "errmsg": "E11000"},
            {"index": 1, "code": 11000, "keyPattern": {"email": 1}, "errmsg": "E11000"},
            {"index": 2, "code": 11000, "keyPattern": {"_id": 1, "x": 1}, "errmsg": "E11000"},
        ]};
        assert_eq!(
            told(StatementKind::Update, 4, false, &reply),
            ["conflict", "refused unique-index", "refused unique-index", "applied"]
        );
    }

    /// What DocumentDB, Cosmos DB and old servers say, and what an index of another field looks like.
    #[test]
    fn a_duplicate_that_does_not_name_its_index_is_doubtful() {
        for text in [
            "Duplicate key violation on the requested collection: Index '_id_'",
            "Failed _id or unique index constraint",
            "E11000 duplicate key error collection: a.b index: _id_ dup key: { _id: 1 }",
            "E11000 duplicate key error collection: a.b index: user_id_1 dup key: { user_id: 1 }",
        ] {
            let reply = doc! {"ok": 1, "writeErrors": [{"index": 0, "code": 11000, "errmsg": text}]};
            assert_eq!(told(StatementKind::Update, 2, false, &reply), ["perhaps refused", "applied"]);
        }
    }

    #[test]
    fn codes_that_speak_of_the_server_condemn_no_event() {
        let reply = doc! {"ok": 1, "writeErrors": [
            {"index": 0, "code": 13, "errmsg": "not authorized"},
            {"index": 1, "code": 112, "errmsg": "WriteConflict"},
            {"index": 2, "code": 121, "errmsg": "Document failed validation"},
            {"index": 3, "code": 14, "errmsg": "Cannot increment"},
        ]};
        assert_eq!(
            told(StatementKind::Update, 4, false, &reply),
            ["held 13", "held 112", "refused validation", "refused type-mismatch"]
        );
        let unmet = doc! {"ok": 1, "n": 2, "writeConcernError": {"code": 64, "errmsg": "timed out"}};
        assert_eq!(told(StatementKind::Update, 2, false, &unmet), ["failed transient", "failed transient"]);
        // What a write was refused for may be rolled back with the rest.
        let unmet = doc! {"ok": 1, "n": 0,
            "writeErrors": [
                {"index": 0, "code": 121, "errmsg": "Document failed validation"},
                {"index": 1, "code": 11000, "errmsg": "E11000", "keyPattern": {"_id": 1}},
            ],
            "writeConcernError": {"code": 189, "errmsg": "Primary stepped down"},
        };
        assert_eq!(told(StatementKind::Update, 2, false, &unmet), ["failed transient", "failed transient"]);
    }

    #[test]
    fn an_ordered_command_stops_at_its_first_error() {
        let reply = doc! {"ok": 1, "n": 1, "writeErrors": [{"index": 1, "code": 14, "errmsg": "x"}]};
        assert_eq!(
            told(StatementKind::Update, 3, true, &reply),
            ["applied", "refused type-mismatch", "untried"]
        );
        assert_eq!(verdicts(&command(StatementKind::Update, 1), true, true, &doc! {"ok": 1}).len(), 1);
        let Verdict::Refused(refusal) = &verdicts(&command(StatementKind::Update, 3), true, true, &reply)[1]
        else {
            panic!("refused")
        };
        let Rejection { reason, code, .. } = refusal.rejection;
        assert_eq!((reason, code), (Reason::TypeMismatch, Some(14)));
    }

    #[test]
    fn deletions_that_find_nothing_are_looked_into() {
        assert_eq!(told(StatementKind::Delete, 2, false, &doc! {"ok": 1, "n": 2}), ["applied", "applied"]);
        assert_eq!(told(StatementKind::Delete, 2, false, &doc! {"ok": 1, "n": 1}), ["conflict", "conflict"]);
    }
}
