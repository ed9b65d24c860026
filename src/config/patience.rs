//! Defines how long something is waited for: a duration, or for ever.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The word for waiting for ever.
const NEVER: &str = "never";

/// How long something is waited for before it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(Option<Duration>);

impl Patience {
    /// It is never given up.
    pub const NEVER: Patience = Patience(None);

    /// It is given up after so long.
    #[must_use]
    pub const fn of(limit: Duration) -> Self {
        Patience(Some(limit))
    }

    /// The limit. None if it is never given up.
    #[must_use]
    pub fn limit(self) -> Option<Duration> {
        self.0
    }
}

impl Serialize for Patience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(limit) => humantime_serde::serialize(&limit, serializer),
            None => serializer.serialize_str(NEVER),
        }
    }
}

impl<'de> Deserialize<'de> for Patience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == NEVER {
            return Ok(Patience(None));
        }
        let limit = serde::de::value::StrDeserializer::<D::Error>::new(&text);
        humantime_serde::deserialize(limit).map(Patience::of)
    }
}
