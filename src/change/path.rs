//! Names the fields that tidegate keeps in documents, and compares dotted paths.

/// The field of every document that holds its watermarks.
pub const WATERMARK_FIELD: &str = "_tidegate";

/// The field that a tombstone has: when its document was deleted.
pub const DELETED_FIELD: &str = "_tidegateDeleted";

/// The field that a document which is just being made has, for as long as that takes.
pub const NEW_FIELD: &str = "_tidegateNew";

/// Whether one path is the other or lies below it.
#[must_use]
pub fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.starts_with(short) && matches!(long.as_bytes().get(short.len()), None | Some(b'.'))
}

/// The proper prefixes of a path that are paths themselves, longest first.
pub fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('.').map(|(at, _)| &path[..at])
}
