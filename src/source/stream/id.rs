//! Converts ids of stream entries to offsets and back: `ms << 20 | seq`.

use std::fmt;

/// Bits of an offset for the number within a millisecond.
const SEQ_BITS: u32 = 20;
const MAX_SEQ: u64 = (1 << SEQ_BITS) - 1;
const MAX_MS: u64 = (1 << (63 - SEQ_BITS)) - 1;

/// The id of a stream entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    ms: u64,
    seq: u64,
}

impl EntryId {
    /// Reads `ms-seq`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(EntryId { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }

    /// The id at an offset.
    pub(super) fn at(offset: i64) -> Self {
        let offset = u64::try_from(offset).unwrap_or(0);
        EntryId { ms: offset >> SEQ_BITS, seq: offset & MAX_SEQ }
    }

    /// The id before an offset: what is behind it begins at the offset, or does not fit.
    pub(super) fn before(offset: i64) -> Self {
        Self::at(offset.saturating_sub(1))
    }

    /// Its offset. None of an id that does not fit into one; behind each that does, there is another offset.
    pub(super) fn offset(self) -> Option<i64> {
        let fits = self.ms <= MAX_MS && self.seq <= MAX_SEQ;
        fits.then(|| self.nearest()).filter(|offset| *offset < i64::MAX)
    }

    /// Its offset, or the greatest below it.
    pub(super) fn nearest(self) -> i64 {
        let seq = if self.ms > MAX_MS { MAX_SEQ } else { self.seq.min(MAX_SEQ) };
        i64::try_from(self.ms.min(MAX_MS) << SEQ_BITS | seq).unwrap_or(i64::MAX)
    }

    /// The least id above it.
    pub(super) fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => EntryId { seq, ..self },
            None => EntryId { ms: self.ms.saturating_add(1), seq: 0 },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// When the entry at an offset was added, milliseconds since the Unix epoch, by Redis' clock.
#[must_use]
pub(crate) fn ms_of(offset: i64) -> i64 {
    offset >> SEQ_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> EntryId {
        EntryId::parse(text).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert_eq!(id("0-0").offset(), Some(0));
        assert_eq!(id("3-5").offset(), Some(3 << 20 | 5));
        assert_eq!(id("3-1048575").offset(), Some((4 << 20) - 1));
        assert_eq!(id("3-1048576").offset(), None);
        assert_eq!(id("3-1048576").nearest(), (4 << 20) - 1);
        assert_eq!(id("8796093022207-1048574").offset(), Some(i64::MAX - 1));
        assert_eq!(id("8796093022207-1048575").offset(), None);
        assert_eq!(id("8796093022208-0").offset(), None);
        assert_eq!(id("18446744073709551615-7").nearest(), i64::MAX);
        assert_eq!((EntryId::parse("5"), EntryId::parse("a-b"), EntryId::parse("")), (None, None, None));
    }

    #[test]
    fn behind_the_last_that_fits_begins_what_does_not() {
        let end = id("3-1048575").offset().unwrap() + 1;
        assert_eq!(EntryId::before(end), id("3-1048575"));
        assert!(id("3-1048576") > EntryId::before(end) && id("3-1048576") < EntryId::at(end));
        assert_eq!((id("3-5").next(), id("3-18446744073709551615").next()), (id("3-6"), id("4-0")));
    }

    proptest! {
        #[test]
        fn offsets_and_ids_are_the_same_order(a in 0..i64::MAX, b in 0..i64::MAX) {
            prop_assert_eq!(EntryId::at(a).offset(), Some(a));
            prop_assert_eq!(a.cmp(&b), EntryId::at(a).cmp(&EntryId::at(b)));
            prop_assert_eq!(id(&EntryId::at(a).to_string()), EntryId::at(a));
        }
    }
}
