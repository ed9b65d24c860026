//! Checks and merges the binary updates of Yjs documents, without ever holding a document.
//!
//! A field that holds a Yjs document has an array of updates and its length. Whoever loads the document applies
//! all of them. Yjs updates may be applied in any order, and more than once. Merging only makes them fewer.

mod survey;

use std::panic::{AssertUnwindSafe, catch_unwind};

use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{IdSet, Update};

use self::survey::{UpdateSurvey, survey};

/// The array of updates, below the field of a Yjs document.
pub(crate) const UPDATES: &str = "updates";

/// The length of the array.
pub(crate) const COUNT: &str = "count";

/// Updates merged at once. Merging compares each with all others, so more are merged in rounds.
const AT_ONCE: usize = 64;

/// Checks an update that came from outside.
///
/// # Errors
/// It is none in lib0 v1 encoding: says why.
pub(crate) fn check(update: &[u8]) -> Result<(), String> {
    match survey(update) {
        Ok(UpdateSurvey::Mergeable) => decode(update).map(drop),
        Ok(UpdateSurvey::Opaque) => Ok(()),
        Err(what) => Err(what.to_owned()),
    }
}

/// Merges updates that were checked. What cannot be merged without a change is left as it is.
#[must_use]
pub(crate) fn merge(updates: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut mergeable, mut merged): (Vec<_>, Vec<_>) =
        updates.into_iter().partition(|update| survey(update) == Ok(UpdateSurvey::Mergeable));
    while mergeable.len() > 1 {
        let mut next = Vec::with_capacity(mergeable.len() / AT_ONCE + 1);
        for some in mergeable.chunks(AT_ONCE) {
            match merge_some(some) {
                Some(one) => next.push(one),
                None => merged.extend_from_slice(some),
            }
        }
        mergeable = next;
    }
    merged.extend(mergeable);
    merged
}

/// Merges a few updates. None if the result would not say exactly what they say.
fn merge_some(updates: &[Vec<u8>]) -> Option<Vec<u8>> {
    if let [one] = updates {
        return Some(one.clone());
    }
    let merging = || -> Option<Vec<u8>> {
        let (mut inserted, mut deleted) = (IdSet::default(), IdSet::default());
        let mut decoded = Vec::with_capacity(updates.len());
        for update in updates {
            let update = Update::decode_v1(update).ok()?;
            inserted.merge_with(update.insertions(true));
            deleted.merge_with(update.delete_set().clone());
            decoded.push(update);
        }
        let merged = Update::merge_updates(decoded).encode_v1();
        let again = Update::decode_v1(&merged).ok()?;
        (again.insertions(true) == inserted && *again.delete_set() == deleted).then_some(merged)
    };
    catch_unwind(AssertUnwindSafe(merging)).ok().flatten()
}

fn decode(update: &[u8]) -> Result<Update, String> {
    let decoding = || Update::decode_v1(update).map_err(|error| error.to_string());
    catch_unwind(AssertUnwindSafe(decoding)).unwrap_or_else(|_| Err("it cannot be decoded".into()))
}

#[cfg(test)]
mod tests;
