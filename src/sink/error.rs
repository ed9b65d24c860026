//! What MongoDB's errors mean: try again, give the event up, or give up starting.

use mongodb::error::{Error, ErrorKind};

use crate::class::Class;
use crate::dead_letter::{Reason, Rejection};

/// An error of MongoDB.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct SinkError {
    class: Class,
    text: String,
    code: Option<i32>,
}

impl SinkError {
    /// An error that the same again may well not meet.
    #[must_use]
    pub fn transient(text: impl Into<String>) -> Self {
        SinkError { class: Class::Transient, text: text.into(), code: None }
    }

    /// A refusal of what was sent, which the same again would meet.
    #[must_use]
    pub(super) fn data(text: impl Into<String>, code: Option<i32>) -> Self {
        SinkError { class: Class::Data, text: text.into(), code }
    }

    /// An error that no start can overcome.
    #[must_use]
    pub fn fatal(text: impl Into<String>) -> Self {
        SinkError { class: Class::Fatal, text: text.into(), code: None }
    }

    /// What is to be done about it.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// MongoDB's code of it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// Whether the server did not answer at all.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.class == Class::Transient && self.code.is_none()
    }

    /// The refusal of a statement, in a dead letter's words.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        match self.code {
            Some(code) => rejection(code, &self.text),
            None => Rejection::new(Reason::Refused, format!("MongoDB refused the update: {}", self.text)),
        }
    }
}

impl From<Error> for SinkError {
    fn from(error: Error) -> Self {
        let text = match &*error.kind {
            // The driver's text repeats the whole topology.
            ErrorKind::ServerSelection { .. } => "no MongoDB server can be reached".to_owned(),
            kind => kind.to_string(),
        };
        let (class, code) = match &*error.kind {
            ErrorKind::Command(command) => (command_class(command.code), Some(command.code)),
            ErrorKind::Authentication { .. } | ErrorKind::InvalidArgument { .. } => (Class::Fatal, None),
            ErrorKind::InvalidTlsConfig { .. } => (Class::Fatal, None),
            _ => (Class::Transient, None),
        };
        SinkError { class, text, code }
    }
}

/// A command refused as a whole. Only codes that speak of its content condemn it: anything else says
/// something of the server, and must never turn events into dead letters.
fn command_class(code: i32) -> Class {
    match code {
        // BadValue, FailedToParse, TypeMismatch, Overflow, InvalidBSON, DollarPrefixedFieldName,
        // EmptyFieldName, DottedFieldName, BSONObjectTooLarge, oversize after the update
        2 | 9 | 14 | 15 | 22 | 52 | 56 | 57 | 10334 | 17419 | 17420 => Class::Data,
        // AuthenticationFailed, AuthenticationRestrictionUnmet
        18 | 323 => Class::Fatal,
        _ => Class::Transient,
    }
}

/// A statement refused within a command that was carried out. Here the content is to blame, unless the
/// code is one of those that speak of the server.
pub(super) fn statement_class(code: i32) -> Class {
    match code {
        // InternalError aside, what drivers retry, and what rights, shutdowns, locks, migrations cause:
        // <https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml>
        6 | 7 | 13 | 24 | 46 | 50 | 63 | 64 | 79 | 89 | 91 | 100 | 112 | 133 | 134 | 150 | 189 | 202
        | 225 | 234 | 251 | 262 | 290 | 317 | 357 | 358 | 384 | 9001 | 10058 | 10107 | 11600 | 11601
        | 11602 | 13297 | 13388 | 13435 | 13436 | 14031 => Class::Transient,
        _ => Class::Data,
    }
}

/// The refusal of a statement, in a dead letter's words.
pub(super) fn rejection(code: i32, text: &str) -> Rejection {
    let (reason, what) = match code {
        121 => (Reason::Validation, "the collection's validator refuses the document"),
        11000 | 11001 => (Reason::UniqueIndex, "a unique index refuses the document"),
        2 | 14 => (Reason::TypeMismatch, "the update does not fit the field it meets"),
        28 | 40 => (Reason::TypeMismatch, "the update's path does not fit the document"),
        10334 | 17419 | 17420 => (Reason::TooLarge, "the document would exceed MongoDB's 16 MiB"),
        _ => (Reason::Refused, "MongoDB refused the update"),
    };
    Rejection { reason, text: format!("{what}: {text}"), code: Some(code) }
}
