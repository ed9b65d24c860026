//! Lists what MongoDB's error codes speak of. Only a code that speaks of the content may condemn an event.
//!
//! Codes and names: `src/mongo/base/error_codes.yml` of the server. mongod answers nearly every exception of one
//! statement as a `writeErrors` entry, so trouble of the server arrives there, too.

use crate::dead_letter::Reason;

/// What a refusal speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The event, or the document that it meets: MongoDB can never take it.
    Content(Reason, &'static str),
    /// The server, its load, or the rights: it is waited for.
    Server,
    /// Nobody knows. The document waits, and `dead_letter.patience` decides.
    Unknown,
}

/// The codes that speak of the content, each with why.
const CONTENT: [(i32, Reason, &str); 28] = {
    use Reason::{Refused, TooLarge, TypeMismatch, UniqueIndex, Validation};
    [
        // BadValue: an operator's operand cannot be used, whatever the server's state.
        (2, TypeMismatch, "the update does not fit the field it meets"),
        // FailedToParse: the statement is not understood.
        (9, Refused, "MongoDB cannot parse the update"),
        (14, TypeMismatch, "the update does not fit the field it meets"),
        // Overflow: a sum or product leaves 64 bits.
        (15, Refused, "a number would overflow"),
        (22, Refused, "MongoDB cannot read the update's BSON"),
        // PathNotViable: the path leads through a value that is no object.
        (28, TypeMismatch, "the update's path does not fit the document"),
        // ConflictingUpdateOperators: one update writes a path and its parent.
        (40, TypeMismatch, "the update's path does not fit the document"),
        (52, Refused, "a field name starts with $"),
        // InvalidIdField: an array, a regular expression or undefined as _id.
        (53, Refused, "MongoDB refuses the _id"),
        // NotSingleValueField: an array where a shard key needs one value.
        (54, Refused, "a field that must hold one value holds several"),
        (55, Refused, "a DBRef is malformed"),
        (56, Refused, "a field name is empty"),
        (57, Refused, "a field name contains a dot"),
        // ImmutableField: the update would change _id or a shard key.
        (66, Refused, "the update would change a field that cannot change"),
        // InvalidOptions: options of the statement contradict each other.
        (72, Refused, "MongoDB refuses the update's options"),
        (121, Validation, "the collection's validator refuses the document"),
        // CannotIndexParallelArrays: the document has two arrays where one index has both fields.
        (171, Refused, "an index cannot hold the document's arrays"),
        // ConversionFailure: a value cannot become the type that a pipeline asks for.
        (241, TypeMismatch, "the update does not fit the field it meets"),
        (357, Refused, "MongoDB does not know a BSON type in the update"),
        // NonConformantBSON: strict validation of BSON.
        (378, Refused, "MongoDB cannot read the update's BSON"),
        (10334, TooLarge, "the document would exceed MongoDB's 16 MiB"),
        (11000, UniqueIndex, "a unique index refuses the document"),
        (11001, UniqueIndex, "a unique index refuses the document"),
        // A field name of digits within an array's element contradicts an index on the array.
        (16746, Refused, "an index cannot hold a field name of the document"),
        // A value is no geometry, and a 2dsphere index has its field.
        (16755, Refused, "an index cannot hold the document's geometry"),
        // KeyTooLong, before 4.2 and in servers that kept the bound.
        (17280, TooLarge, "an index cannot hold a value this long"),
        (17419, TooLarge, "the document would exceed MongoDB's 16 MiB"),
        (17420, TooLarge, "the document would exceed MongoDB's 16 MiB"),
    ]
};

/// The node cannot write at all: it is no primary, shuts down, or cannot reach others. The driver's categories
/// `NotPrimaryError`, `ShutdownError` and `NetworkError`.
const AWAY: [i32; 18] =
    [6, 7, 89, 91, 189, 216, 317, 384, 9001, 10058, 10107, 11600, 11602, 13388, 13435, 13436, 202, 333];

/// Codes that speak of the server, of its load, of rights, of its cluster's state, or of what was asked of it besides
/// the content.
const SERVER: [i32; 91] = [
    // Rights, logins, the stable API: whoever set them can mend them.
    11, 13, 18, 31, 33, 214, 322, 323, 324, 337, 347, 390, 391, 392, 404,
    // Time, locks, cancellations, shutdowns: `Interruption`, `ExceededTimeLimitError`, `CancellationError`.
    24, 46, 50, 90, 107, 208, 237, 262, 279, 281, 282, 290, 310, 355, 407, 11601,
    // Write concerns, replication: `WriteConcernError`, `SnapshotError`, read concerns.
    64, 75, 79, 94, 95, 100, 133, 134, 135, 148, 209, 210, 211, 239, 246,
    // Conflicts and transactions, the server's own too: `RetriableError`.
    112, 117, 206, 225, 227, 251, 256, 263, 267, 272, 358, 363, 365, 366, 388, 412,
    // Load and quotas: `SystemOverloadedError`, disks, caches, files; 16500 is Cosmos DB's rate limit,
    // 8000 and 12501 are Atlas' quotas, 14031 is a full disk.
    82, 145, 146, 264, 371, 402, 406, 433, 449, 450, 462, 8000, 12501, 14031, 16500,
    // Shards, chunks, databases on the move: `StaleShardVersionError`, `NeedRetargettingError`.
    63, 70, 83, 149, 150, 175, 194, 215, 249, 250, 319, 338, 13297, 13475,
];

/// What a code speaks of.
pub(super) fn blame(code: i32) -> Blame {
    if let Some((_, reason, what)) = CONTENT.iter().find(|(content, ..)| *content == code) {
        Blame::Content(*reason, what)
    } else if SERVER.contains(&code) || is_away(code) {
        Blame::Server
    } else {
        Blame::Unknown
    }
}

/// Whether a code says that the node cannot write at all.
pub(super) fn is_away(code: i32) -> bool {
    AWAY.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_speaks_of_two_things() {
        let mut all: Vec<i32> = CONTENT.iter().map(|(code, ..)| *code).chain(AWAY).chain(SERVER).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    /// Each was answered for healthy events by a real server, or is by its source.
    #[test]
    fn trouble_of_the_server_is_no_content() {
        for code in [
            371, 365, 388, 82, 1, 8, 70, 96, 175, 215, 249, 264, 319, 402, 433, 449, 450, 462, 8000, 12501,
            16500, 13, 112, 10107, 11600, 14031,
        ] {
            assert!(!matches!(blame(code), Blame::Content(..)), "{code}");
        }
    }
}
