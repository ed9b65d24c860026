//! Why an event can never be applied.

/// The closed set of reasons, as the metric's label; the dead letter itself carries a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not valid UTF-8.
    NotUtf8,
    /// Not valid JSON.
    NotJson,
    /// JSON of another shape than an event has.
    BadEvent,
    /// Nested too deep.
    TooDeep,
    /// Larger than a document may be.
    TooLarge,
    /// The same key twice in one object.
    DuplicateKey,
    /// A key that is empty, contains NUL, starts with `$`, or contains `.` where it would become a path.
    BadKey,
    /// An integer beyond 64 bits, or an amount that is no number.
    BadNumber,
    /// No id.
    MissingId,
    /// An id that is neither text nor an integer.
    BadId,
    /// An attempt to write `_id` or the watermark.
    ProtectedField,
    /// A collection that is not configured.
    UnknownCollection,
    /// No route matches.
    NoRoute,
    /// One event writes a path and its parent.
    PathConflict,
    /// MongoDB: the collection's validator refused the document.
    Validation,
    /// MongoDB: a unique index on another field than `_id`.
    UniqueIndex,
    /// MongoDB: the update does not fit the type of a field.
    TypeMismatch,
    /// MongoDB refused for another reason.
    Refused,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 18] = [
        Reason::NotUtf8,
        Reason::NotJson,
        Reason::BadEvent,
        Reason::TooDeep,
        Reason::TooLarge,
        Reason::DuplicateKey,
        Reason::BadKey,
        Reason::BadNumber,
        Reason::MissingId,
        Reason::BadId,
        Reason::ProtectedField,
        Reason::UnknownCollection,
        Reason::NoRoute,
        Reason::PathConflict,
        Reason::Validation,
        Reason::UniqueIndex,
        Reason::TypeMismatch,
        Reason::Refused,
    ];

    /// The metric's label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Reason::NotUtf8 => "not-utf8",
            Reason::NotJson => "not-json",
            Reason::BadEvent => "bad-event",
            Reason::TooDeep => "too-deep",
            Reason::TooLarge => "too-large",
            Reason::DuplicateKey => "duplicate-key",
            Reason::BadKey => "bad-key",
            Reason::BadNumber => "bad-number",
            Reason::MissingId => "missing-id",
            Reason::BadId => "bad-id",
            Reason::ProtectedField => "protected-field",
            Reason::UnknownCollection => "unknown-collection",
            Reason::NoRoute => "no-route",
            Reason::PathConflict => "path-conflict",
            Reason::Validation => "validation",
            Reason::UniqueIndex => "unique-index",
            Reason::TypeMismatch => "type-mismatch",
            Reason::Refused => "refused",
        }
    }
}

/// Why one event was refused: the class for the metric and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Rejection {
    /// The class.
    pub reason: Reason,
    /// What is wrong, in words; goes into the dead letter.
    pub text: String,
    /// MongoDB's error code, where MongoDB refused.
    pub code: Option<i32>,
}

impl Rejection {
    /// A rejection that MongoDB has no part in.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Rejection { reason, text: text.into(), code: None }
    }
}
