//! Checks the dotted paths that events write to.

use std::collections::HashSet;

use super::transcode::MAX_DEPTH;
use crate::change::path::{DELETED_FIELD, NEW_FIELD, WATERMARK_FIELD, ancestors, overlap};
use crate::dead_letter::{Reason, Rejection};

/// Checks a path that an event wants to write to.
///
/// # Errors
/// `_id`, the watermark, and components that are empty, contain NUL or start with `$`.
pub(super) fn check(path: &str) -> Result<(), Rejection> {
    let mut components = path.split('.');
    let first = components.clone().next().unwrap_or_default();
    if matches!(first, "_id" | WATERMARK_FIELD | DELETED_FIELD | NEW_FIELD) {
        return Err(Rejection::new(
            Reason::ProtectedField,
            format!("{first:?} must not be written by events"),
        ));
    }
    if path.contains('\0') {
        return Err(Rejection::new(Reason::BadKey, format!("the path {path:?} contains NUL")));
    }
    if path.split('.').nth(MAX_DEPTH).is_some() {
        return Err(Rejection::new(Reason::TooDeep, format!("a path has more than {MAX_DEPTH} components")));
    }
    match components.find(|c| c.is_empty() || c.starts_with('$')) {
        None => Ok(()),
        Some("") => Err(Rejection::new(Reason::BadKey, format!("the path {path:?} has an empty component"))),
        Some(_) => Err(Rejection::new(
            Reason::BadKey,
            format!("the path {path:?} has a component that starts with \"$\""),
        )),
    }
}

/// Checks that no path of one update is another's parent or twin, as MongoDB would (code 40).
///
/// # Errors
/// The first two that are.
pub(super) fn check_disjoint(paths: &[&str]) -> Result<(), Rejection> {
    const FEW: usize = 8;
    let conflict = |a: &str, b: &str| {
        let text = format!("one event writes to both {a:?} and {b:?}");
        Err(Rejection { reason: Reason::PathConflict, text, code: Some(40) })
    };
    if paths.len() <= FEW {
        for (i, a) in paths.iter().enumerate() {
            if let Some(b) = paths[i + 1..].iter().find(|b| overlap(a, b)) {
                return conflict(a, b);
            }
        }
        return Ok(());
    }
    let mut all = HashSet::with_capacity(paths.len());
    if let Some(twin) = paths.iter().find(|path| !all.insert(**path)) {
        return conflict(twin, twin);
    }
    for path in paths {
        if let Some(parent) = ancestors(path).find(|parent| all.contains(parent)) {
            return conflict(parent, path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_and_malformed_paths_are_refused() {
        let reason = |path| check(path).unwrap_err().reason;
        for path in ["_id", "_id.x", "_tidegate", "_tidegate.q", "_tidegateDeleted", "_tidegateNew"] {
            assert_eq!(reason(path), Reason::ProtectedField, "{path}");
        }
        for path in ["", ".", "a.", ".a", "a..b", "a.$", "a.$[].b", "$a", "a\0"] {
            assert_eq!(reason(path), Reason::BadKey, "{path}");
        }
        for path in ["a", "a._id", "a.0.b", "_idx"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn overlapping_paths_are_found_among_few_and_many() {
        for extra in [vec![], (0..20).map(|i| format!("x{i}.y")).collect::<Vec<_>>()] {
            let with = |paths: &[&str]| {
                let mut all: Vec<&str> = extra.iter().map(String::as_str).collect();
                all.extend(paths);
                check_disjoint(&all).map_err(|e| e.reason)
            };
            assert_eq!(with(&["a", "a-b", "a.c"]), Err(Reason::PathConflict));
            assert_eq!(with(&["a.c", "a"]), Err(Reason::PathConflict));
            assert_eq!(with(&["a", "a"]), Err(Reason::PathConflict));
            assert_eq!(with(&["a", "ab", "a-b.c", "b.a"]), Ok(()));
        }
    }
}
