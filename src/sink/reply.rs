//! From a command's reply to a verdict on each of its writes.
//!
//! A reply with `ok: 1` may still hold refused statements and a write concern that was not met; the
//! driver turns neither into an error for commands that are run raw.

use bson::{Bson, Document};

use super::command::{Command, Kind};
use super::error::{SinkError, rejection, statement_class};
use crate::class::Class;
use crate::dead_letter::Rejection;

/// What became of one write.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Durable.
    Applied,
    /// The guard held it back, or may have: the document's watermark tells.
    Conflict,
    /// MongoDB refuses it, and always will.
    Refused(Rejection),
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
        verdicts[at] = match (statement_verdict(error), &unmet) {
            // What it was refused for may be rolled back.
            (Verdict::Refused(_), Some(unmet)) => Verdict::Failed(unmet.clone()),
            (verdict, _) => verdict,
        };
        if ordered {
            verdicts[at + 1..].fill(Verdict::Untried);
        }
    }
    // A deletion that found nothing says nothing: there was no document, or the guard held it back.
    if command.kind == Kind::Delete && guarded {
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
    if code == 11000 && is_on_id(error, text) {
        return Verdict::Conflict;
    }
    match statement_class(code) {
        Class::Data => Verdict::Refused(rejection(code, text)),
        Class::Transient | Class::Fatal => {
            Verdict::Failed(SinkError::transient(format!("{text} (code {code})")))
        }
    }
}

/// What is to be done about an `insert`, if anything. A document that is there already is as good as one inserted.
#[must_use]
pub(super) fn insert_error(reply: &Document) -> Option<SinkError> {
    if let Some(unmet) = unmet_concern(reply) {
        return Some(unmet);
    }
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let verdicts = errors.iter().filter_map(Bson::as_document).map(statement_verdict);
    let errors = verdicts.filter_map(|verdict| match verdict {
        Verdict::Failed(error) => Some(error),
        Verdict::Refused(rejection) => Some(SinkError::data(rejection.text, rejection.code)),
        Verdict::Applied | Verdict::Conflict | Verdict::Untried => None,
    });
    // One that may go away first: then all of them are sent again.
    errors.min_by_key(|error| error.class() == Class::Data)
}

/// Whether a duplicate key is one of the `_id` index. Any other index speaks of the event's data.
fn is_on_id(error: &Document, text: &str) -> bool {
    match error.get_document("keyPattern") {
        Ok(pattern) => pattern.len() == 1 && pattern.contains_key("_id"),
        Err(_) => text.contains("index: _id_ "),
    }
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

    fn command(kind: Kind, statements: usize) -> Command {
        Command { collection: CollectionId(0), kind, writes: (0..statements).collect(), body: Vec::new() }
    }

    fn told(kind: Kind, statements: usize, ordered: bool, reply: &Document) -> Vec<String> {
        verdicts(&command(kind, statements), ordered, true, reply)
            .iter()
            .map(|verdict| match verdict {
                Verdict::Refused(rejection) => format!("refused {}", rejection.reason.label()),
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
            {"index": 2, "code": 11000, "errmsg": "E11000 duplicate key error collection: a.b index: _id_ dup key"},
            {"index": 3, "code": 11000, "keyPattern": {"_id": 1, "x": 1}, "errmsg": "E11000"},
        ]};
        assert_eq!(
            told(Kind::Update, 5, false, &reply),
            ["conflict", "refused unique-index", "conflict", "refused unique-index", "applied"]
        );
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
            told(Kind::Update, 4, false, &reply),
            ["failed transient", "failed transient", "refused validation", "refused type-mismatch"]
        );
        let unmet = doc! {"ok": 1, "n": 2, "writeConcernError": {"code": 64, "errmsg": "timed out"}};
        assert_eq!(told(Kind::Update, 2, false, &unmet), ["failed transient", "failed transient"]);
        // What a write was refused for may be rolled back with the rest.
        let unmet = doc! {"ok": 1, "n": 0,
            "writeErrors": [
                {"index": 0, "code": 121, "errmsg": "Document failed validation"},
                {"index": 1, "code": 11000, "errmsg": "E11000", "keyPattern": {"_id": 1}},
            ],
            "writeConcernError": {"code": 189, "errmsg": "Primary stepped down"},
        };
        assert_eq!(told(Kind::Update, 2, false, &unmet), ["failed transient", "conflict"]);
    }

    #[test]
    fn an_ordered_command_stops_at_its_first_error() {
        let reply = doc! {"ok": 1, "n": 1, "writeErrors": [{"index": 1, "code": 14, "errmsg": "x"}]};
        assert_eq!(told(Kind::Update, 3, true, &reply), ["applied", "refused type-mismatch", "untried"]);
        assert_eq!(verdicts(&command(Kind::Update, 1), true, true, &doc! {"ok": 1}).len(), 1);
        let Verdict::Refused(rejection) = &verdicts(&command(Kind::Update, 3), true, true, &reply)[1] else {
            panic!("refused")
        };
        assert_eq!((rejection.reason, rejection.code), (Reason::TypeMismatch, Some(14)));
    }

    #[test]
    fn deletions_that_find_nothing_are_looked_into() {
        assert_eq!(told(Kind::Delete, 2, false, &doc! {"ok": 1, "n": 2}), ["applied", "applied"]);
        assert_eq!(told(Kind::Delete, 2, false, &doc! {"ok": 1, "n": 1}), ["conflict", "conflict"]);
    }
}
