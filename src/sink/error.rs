//! Tells what an error of MongoDB means: try again, give the event up, or give up starting.

use mongodb::error::{Error, ErrorKind};

use super::cause::cause;
use super::code::{Blame, blame, is_away};
use crate::caused::Caused;
use crate::dead_letter::{Reason, Rejection};
use crate::retry::Class;

/// An error of MongoDB.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{told}")]
pub(crate) struct SinkError {
    class: Class,
    #[source]
    told: Caused,
    code: Option<i32>,
}

impl SinkError {
    /// An error that the same again may well not meet.
    #[must_use]
    pub(crate) fn transient(told: impl Into<Caused>) -> Self {
        SinkError { class: Class::Transient, told: told.into(), code: None }
    }

    /// An answer that refuses what was sent for something else than its content.
    #[must_use]
    pub(super) fn answered(text: &str, code: i32) -> Self {
        SinkError { class: Class::Transient, told: format!("{text} (code {code})").into(), code: Some(code) }
    }

    /// A refusal of what was sent, which the same again would meet.
    #[must_use]
    pub(super) fn data(told: impl Into<Caused>, code: Option<i32>) -> Self {
        SinkError { class: Class::Data, told: told.into(), code }
    }

    /// An error that no start can overcome.
    #[must_use]
    pub(crate) fn fatal(told: impl Into<Caused>) -> Self {
        SinkError { class: Class::Fatal, told: told.into(), code: None }
    }

    /// What is to be done about it.
    #[must_use]
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// MongoDB's code of it.
    #[must_use]
    pub(crate) fn code(&self) -> Option<i32> {
        self.code
    }

    /// Whether the server did not answer at all.
    #[must_use]
    pub(crate) fn is_outage(&self) -> bool {
        self.class == Class::Transient && self.code.is_none()
    }

    /// Whether the server answered, and is there, but refuses.
    #[must_use]
    pub(crate) fn is_refusal(&self) -> bool {
        self.code.is_some_and(|code| !is_away(code))
    }

    /// Whether nobody knows what its code speaks of.
    #[must_use]
    pub(crate) fn is_unknown(&self) -> bool {
        self.code.is_some_and(|code| blame(code) == Blame::Unknown)
    }

    /// Whether its code speaks of the server, its load or its rights.
    #[must_use]
    pub(crate) fn is_of_server(&self) -> bool {
        self.code.is_some_and(|code| blame(code) == Blame::Server)
    }

    /// The refusal of a statement, in a dead letter's words.
    #[must_use]
    pub(crate) fn rejection(&self) -> Rejection {
        self.code.and_then(|code| rejection(code, self.told.text())).unwrap_or_else(|| Rejection {
            reason: Reason::Refused,
            text: format!("MongoDB refused the update: {}", self.told),
            code: self.code,
        })
    }
}

impl From<Error> for SinkError {
    fn from(error: Error) -> Self {
        let text = cause(&error.kind);
        let is_login = match &*error.kind {
            ErrorKind::Command(command) => command.code == AUTHENTICATION_FAILED,
            ErrorKind::ConnectionPoolCleared { message, .. } => message.contains("code: 18,"),
            kind => matches!(kind, ErrorKind::Authentication { .. }),
        };
        let text = if is_login { format!("MongoDB refuses the credentials: {text}") } else { text };
        let (class, code) = match &*error.kind {
            ErrorKind::Command(command) => (command_class(command.code), Some(command.code)),
            ErrorKind::Authentication { .. } | ErrorKind::InvalidArgument { .. } => (Class::Fatal, None),
            ErrorKind::InvalidTlsConfig { .. } => (Class::Fatal, None),
            _ => (Class::Transient, None),
        };
        SinkError { class, told: Caused::of(text, error), code }
    }
}

/// What could not be made a command of. The same again is read anew.
impl From<bson::error::Error> for SinkError {
    fn from(error: bson::error::Error) -> Self {
        SinkError::transient(Caused::of(error.to_string(), error))
    }
}

/// What is to be done about a command that was refused as a whole.
fn command_class(code: i32) -> Class {
    match (code, blame(code)) {
        // And AuthenticationRestrictionUnmet, APIStrictError.
        (AUTHENTICATION_FAILED | 214 | 323, _) => Class::Fatal,
        (_, Blame::Content(..)) => Class::Data,
        (_, Blame::Server | Blame::Unknown) => Class::Transient,
    }
}

/// The refusal of a statement for its content, in a dead letter's words. None where the code speaks of something else.
pub(super) fn rejection(code: i32, text: &str) -> Option<Rejection> {
    match blame(code) {
        Blame::Content(reason, what) => {
            let own = misfit(code, text).map(str::to_owned);
            let text = own.unwrap_or_else(|| format!("{what}: {text}"));
            Some(Rejection { reason, text, code: Some(code) })
        }
        Blame::Server | Blame::Unknown => None,
    }
}

/// What a pipeline of tidegate's own has said of a document that does not fit, by having it converted to a number, out of
/// MongoDB's message of that failure.
fn misfit(code: i32, text: &str) -> Option<&str> {
    let (_, said) = text.split_once("parse number '").filter(|_| code == CONVERSION_FAILURE)?;
    said.rsplit_once("' in $convert").map(|(said, _)| said)
}

const CONVERSION_FAILURE: i32 = 241;

const AUTHENTICATION_FAILED: i32 = 18;
