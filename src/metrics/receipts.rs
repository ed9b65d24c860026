//! Counts receipts.

use metrics::Counter;

use super::{Metric, counter};

/// What became of receipts.
#[derive(Clone)]
pub struct ReceiptMetrics {
    /// `receipts_published_total`
    pub published: Counter,
    /// `receipts_dropped_total`
    pub dropped: Counter,
}

impl std::fmt::Debug for ReceiptMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiptMetrics").finish_non_exhaustive()
    }
}

impl Default for ReceiptMetrics {
    /// Registers them.
    fn default() -> Self {
        ReceiptMetrics {
            published: counter(Metric::ReceiptsPublished, &[]),
            dropped: counter(Metric::ReceiptsDropped, &[]),
        }
    }
}
