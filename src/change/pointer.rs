//! Reads JSON Pointers (RFC 6901).

use std::borrow::Cow;

use crate::raw::{self, ValueRef};

/// The tokens of a pointer to something within the document.
pub(crate) fn tokens(pointer: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pointer.split('/').skip(1).map(|token| match token.contains('~') {
        true => token.replace("~1", "/").replace("~0", "~").into(),
        false => token.into(),
    })
}

/// How many tokens a pointer has.
pub(crate) fn depth(pointer: &str) -> usize {
    pointer.split('/').count() - 1
}

/// The document's own fields that a JSON Patch operation reads or writes.
pub(crate) fn fields(step: ValueRef<'_>) -> impl Iterator<Item = Cow<'_, str>> {
    let field = |name| tokens(raw::find(step.bytes, name).and_then(ValueRef::text)?).next();
    [field("path"), field("from")].into_iter().flatten()
}

/// The place in an array that a token names. The RFC knows no leading zeros.
pub(crate) fn index(token: &str) -> Option<i32> {
    let is_index = token.bytes().all(|b| b.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    token.parse().ok().filter(|_| is_index)
}
