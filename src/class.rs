//! Classes of errors: try again, give the event up, or give up starting.

/// What is to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Network, elections, overload: the same again may well work.
    Transient,
    /// The command or statement itself is refused, and will be for ever.
    Data,
    /// Wrong credentials or a server too old: no event can be written at all.
    Fatal,
}

impl Class {
    /// All classes.
    pub const ALL: [Class; 3] = [Class::Transient, Class::Data, Class::Fatal];

    /// The metric's label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Class::Transient => "transient",
            Class::Data => "data",
            Class::Fatal => "fatal",
        }
    }
}
