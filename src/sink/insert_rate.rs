//! Learns how many of a collection's documents are new, of those not written lately. Where nearly all are, inserting
//! them first pays.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Write;
use super::recent_writes::RecentWrites;
use crate::change::CollectionId;

/// Writes that are enough to go by.
const ENOUGH: usize = 16;
/// Writes that are remembered, about: what is written changes.
const MEMORY: usize = 256;
/// Writes of the first large batch that are made first.
pub(super) const SAMPLE: usize = 2 * ENOUGH;
/// Of ten documents, so many must be new: servers try a batch of inserts one by one once one of them is refused.
const OF_TEN: usize = 9;

/// What is known of collections, and of documents.
#[derive(Debug, Default)]
pub(super) struct InsertRate {
    shares: Mutex<HashMap<CollectionId, InsertShare>>,
    /// These are there: their writes tell nothing of others.
    written: Mutex<RecentWrites>,
}

/// The last writes to a collection of documents not written lately, and how many of them made their documents.
#[derive(Debug, Default, Clone, Copy)]
struct InsertShare {
    made: usize,
    of: usize,
}

impl InsertRate {
    /// Whether a write is likely to make its document.
    pub(super) fn makes(&self, write: &Write) -> bool {
        self.is_likely(write.entity.get().collection) && !self.written.lock().contains(write.hash)
    }

    /// Those are there now.
    pub(super) fn wrote<'w>(&self, writes: impl Iterator<Item = &'w Write>) {
        let mut written = self.written.lock();
        writes.for_each(|write| written.add(write.hash));
    }

    /// How many of these were not written lately.
    pub(super) fn firsts<'w>(&self, writes: impl Iterator<Item = &'w Write>) -> usize {
        let written = self.written.lock();
        writes.filter(|write| !written.contains(write.hash)).count()
    }

    /// Whether documents of the collection that were not written lately are likely to be new.
    pub(super) fn is_likely(&self, collection: CollectionId) -> bool {
        let InsertShare { made, of } = self.share(collection);
        of >= ENOUGH && made * 10 >= of * OF_TEN
    }

    /// How many of so many writes should be made first, to see what the others are likely to be. The collections are those
    /// of the first [`SAMPLE`], as far as they may make a document.
    pub(super) fn sample(&self, writes: usize, mut first: impl Iterator<Item = CollectionId>) -> usize {
        let is_worth_it = writes >= 4 * SAMPLE && first.any(|collection| self.share(collection).of < ENOUGH);
        if is_worth_it { SAMPLE } else { 0 }
    }

    /// Learns from writes of documents not written lately: some made their documents.
    pub(super) fn learn(&self, collection: CollectionId, made: usize, of: usize) {
        let mut shares = self.shares.lock();
        let share = shares.entry(collection).or_default();
        share.made += made;
        share.of += of;
        if share.of > MEMORY {
            share.made = share.made * MEMORY / share.of;
            share.of = MEMORY;
        }
    }

    fn share(&self, collection: CollectionId) -> InsertShare {
        self.shares.lock().get(&collection).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: CollectionId = CollectionId(3);

    #[test]
    fn what_was_new_lately_is_likely_to_be() {
        let rate = InsertRate::default();
        assert!(!rate.is_likely(C));
        rate.learn(C, 15, 15);
        assert!(!rate.is_likely(C), "15 are not enough");
        rate.learn(C, 1, 1);
        assert!(rate.is_likely(C));
        assert!(!rate.is_likely(CollectionId(4)));
        rate.learn(C, 1_000_000, 1_000_000);
        rate.learn(C, 0, 100);
        assert!(!rate.is_likely(C), "a hundred that were there are more than a tenth of what is remembered");
        rate.learn(C, 1_000, 1_000);
        rate.learn(C, 1_000, 1_000);
        assert!(rate.is_likely(C));
    }

    #[test]
    fn the_first_large_batch_is_sampled() {
        let rate = InsertRate::default();
        let sample = |writes: usize| rate.sample(writes, [C].into_iter());
        assert_eq!((sample(100), sample(1_000)), (0, SAMPLE));
        // Deletions tell nothing.
        assert_eq!(rate.sample(1_000, [].into_iter()), 0);
        rate.learn(C, 0, 32);
        assert_eq!(sample(1_000), 0);
    }
}
