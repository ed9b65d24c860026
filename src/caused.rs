//! Keeps what an error came from, apart from its text. The cause may quote what nobody is to see.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// An error's text, and the error that it came from, if any.
#[derive(Debug, Clone)]
pub struct Caused {
    text: String,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl Caused {
    /// What is said of an error.
    pub(crate) fn of(text: impl Into<String>, cause: impl Error + Send + Sync + 'static) -> Self {
        Caused { text: text.into(), cause: Some(Arc::new(cause)) }
    }

    /// The same cause, with another text.
    pub(crate) fn saying(self, text: String) -> Self {
        Caused { text, ..self }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl From<String> for Caused {
    fn from(text: String) -> Self {
        Caused { text, cause: None }
    }
}

impl From<&str> for Caused {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Display for Caused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Caused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
