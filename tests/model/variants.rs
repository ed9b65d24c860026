//! Lists the protocol and the wrong ones: each differs from it in one place, and must be refuted.

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// As the code has it.
    Coded,
    /// A write is guarded by its last event's offset, not its first's.
    GuardOnLast,
    /// What is read is committed before it is durable.
    CommitWhatIsRead,
    /// E11000 is taken for "done" without a look at the watermark.
    ConflictIsDone,
    /// A dead letter is kept in memory until it is committed.
    LettersInMemory,
    /// Reading does not raise `read`.
    ReadUnrecorded,
    /// Reading raises `read` by one element more than was read.
    ReadInexact,
    /// After recovery, numbers go on where they were.
    NotRenumbered,
    /// Epochs are taken from Redis alone.
    EpochFromRedis,
    /// Commit does not look at the last element that it trims.
    LastTrimmedUnchecked,
    /// Neither takeover nor reading looks at the head.
    HeadUnchecked,
    /// Where MongoDB refuses a write, that is believed without a look at the watermark.
    RefusalBelieved,
    /// Dead letters are recorded in Redis alone, which may fall back, and not in MongoDB, where what a
    /// watermark says is done is looked up.
    LettersInRedisAlone,
    /// What an ownership could not flush when it was handed over is committed with the rest.
    HandOverCommits,
    /// The mark of who works on what is unsettled stays where the ownership was handed over.
    MarkOutlivesHandOver,
    /// A commit does not forget who died over what it trims.
    DeathsOutliveCommit,
    /// A watermark of another numbering counts as one of the owner's.
    UnprovenIsDone,
    /// Only a watermark above the owner's epoch counts as one of another numbering, not one above the event's.
    UnprovenAboveOwner,
    /// MongoDB is not asked whether the ownership is the latest.
    UnprovenUnconfirmed,
    /// MongoDB is asked that before the watermark is read, not after it.
    ConfirmedBeforeLook,
    /// What has a watermark of another numbering is written without a look at what it is by then.
    UnprovenUncompared,
}

/// What a deletion leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletes {
    /// Nothing, not even the watermark: as the code has it.
    Hard,
    /// The watermark.
    Tombstone,
}
