//! Defines epochs, the numbers of ownerships, and the offsets of events within them: `epoch << 36 | index`.

/// Bits of an offset below the epoch.
pub(crate) const INDEX_BITS: u32 = 36;

/// Whether an epoch has few offsets left above this one, so that it is time for another.
pub(crate) fn is_used_up(offset: i64) -> bool {
    const SPARE: i64 = 1 << 32;
    offset & ((1 << INDEX_BITS) - 1) > (1 << INDEX_BITS) - SPARE
}

/// The first offset of an epoch.
///
/// None beyond 2^27 epochs.
pub(crate) fn first_offset(epoch: i64) -> Option<i64> {
    (0..1 << (63 - INDEX_BITS)).contains(&epoch).then_some(epoch << INDEX_BITS)
}

/// The number of the ownership under which an offset was given out.
#[must_use]
pub fn epoch_of(offset: i64) -> i64 {
    offset >> INDEX_BITS
}

/// Which Redis a queue is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Random.
    pub name: String,
    /// No ownership has had it: this Redis is new, or has lost what it had.
    pub is_new: bool,
}

/// What an ownership gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Its number.
    pub epoch: i64,
    /// The least generation that a stream may be of. Its ids are its own, and may be below those of a former stream.
    pub generation: i64,
}
