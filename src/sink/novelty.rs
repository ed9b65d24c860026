//! How many of a collection's documents are new when they are written: where nearly all are, inserting them first pays.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::change::CollectionId;

/// Writes that are enough to go by.
const ENOUGH: usize = 16;
/// Writes that are remembered, about: what is written changes.
const MEMORY: usize = 256;
/// Of ten documents, so many must be new: servers try a batch of inserts one by one once one of them is refused.
const OF_TEN: usize = 9;

/// What is known of collections.
#[derive(Debug, Default)]
pub(super) struct Novelty(Mutex<HashMap<CollectionId, Share>>);

/// The last writes to a collection, and how many of them made their documents.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    made: usize,
    of: usize,
}

impl Novelty {
    /// Whether documents of the collection are likely to be new.
    pub(super) fn is_likely(&self, collection: CollectionId) -> bool {
        let Share { made, of } = self.share(collection);
        of >= ENOUGH && made * 10 >= of * OF_TEN
    }

    /// How many of `writes`, to these collections, should be written first, to see what the others are likely to be.
    pub(super) fn sample(&self, collections: impl ExactSizeIterator<Item = CollectionId>) -> usize {
        let writes = collections.len();
        if writes < 8 * ENOUGH {
            return 0;
        }
        let unknown = |collection| self.share(collection).of < ENOUGH;
        if collections.take(2 * ENOUGH).any(unknown) { 2 * ENOUGH } else { 0 }
    }

    /// Learns from writes, some of which made their documents.
    pub(super) fn learn(&self, collection: CollectionId, made: usize, of: usize) {
        let mut shares = self.0.lock();
        let share = shares.entry(collection).or_default();
        share.made += made;
        share.of += of;
        if share.of > MEMORY {
            share.made = share.made * MEMORY / share.of;
            share.of = MEMORY;
        }
    }

    fn share(&self, collection: CollectionId) -> Share {
        self.0.lock().get(&collection).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: CollectionId = CollectionId(3);

    #[test]
    fn what_was_new_lately_is_likely_to_be() {
        let novelty = Novelty::default();
        assert!(!novelty.is_likely(C));
        novelty.learn(C, 15, 15);
        assert!(!novelty.is_likely(C), "15 are not enough");
        novelty.learn(C, 1, 1);
        assert!(novelty.is_likely(C));
        assert!(!novelty.is_likely(CollectionId(4)));
        novelty.learn(C, 1_000_000, 1_000_000);
        novelty.learn(C, 0, 100);
        assert!(
            !novelty.is_likely(C),
            "a hundred that were there are more than a tenth of what is remembered"
        );
        novelty.learn(C, 1_000, 1_000);
        novelty.learn(C, 1_000, 1_000);
        assert!(novelty.is_likely(C));
    }

    #[test]
    fn the_first_large_batch_is_sampled() {
        let novelty = Novelty::default();
        let sample = |writes: usize| novelty.sample(vec![C; writes].into_iter());
        assert_eq!((sample(100), sample(1_000)), (0, 32));
        novelty.learn(C, 0, 32);
        assert_eq!(sample(1_000), 0);
    }
}
