//! Remembers which documents were written lately, in little memory and now and then of one too many.

use fastbloom::BloomFilter;

/// Documents that are remembered at least. They take 1 MiB, twice.
const MOST: usize = 1 << 20;
/// Of a document that was not written, one in twenty is taken for one that was.
const BITS: usize = 8 * MOST;
const HASHES: u32 = 2;

/// The documents written last, by the hashes of their entities.
#[derive(Debug, Default)]
pub(super) struct RecentWrites {
    /// None where nothing was written.
    latest: Option<BloomFilter>,
    /// Those before. They are forgotten all at once.
    former: Option<BloomFilter>,
    /// Documents among the latest.
    documents: usize,
}

impl RecentWrites {
    /// Whether a document was written lately. It may not have been.
    pub(super) fn contains(&self, hash: u64) -> bool {
        [&self.latest, &self.former].into_iter().flatten().any(|filter| filter.contains_hash(hash))
    }

    /// Remembers a document.
    pub(super) fn add(&mut self, hash: u64) {
        if self.documents >= MOST {
            self.former = self.latest.take();
            self.documents = 0;
        }
        // Its hash is random already.
        let empty = || BloomFilter::with_num_bits(BITS).seed(&0).hashes(HASHES);
        let was_there = self.latest.get_or_insert_with(empty).insert_hash(hash);
        self.documents += usize::from(!was_there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_remembered_and_little_else() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut recent, mut written) = (RecentWrites::default(), Vec::new());
        assert!(!recent.contains(7));
        for _ in 0..3 * MOST {
            let hash = random.u64(..);
            recent.add(hash);
            written.push(hash);
        }
        assert!(written.iter().rev().take(MOST).all(|hash| recent.contains(*hash)));
        let others = (0..100_000).filter(|_| recent.contains(random.u64(..))).count();
        assert!(others < 10_000, "{others} of 100,000 that were never written");
        let forgotten = written.iter().take(MOST / 2).filter(|hash| recent.contains(**hash)).count();
        assert!(forgotten < MOST / 10, "{forgotten} of the first are remembered");
    }
}
