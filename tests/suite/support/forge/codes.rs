//! Lists every error code that MongoDB's server has a name for, and a few of other servers.

/// Codes and names: `src/mongo/base/error_codes.yml` of the server at 007ba934, but for what comes behind the comment.
const TABLE: &str = include_str!("error_codes.txt");

/// The codes that speak of the content of a write: of these alone an event may die.
const CONTENT: [i32; 28] = [
    2, 9, 14, 15, 22, 28, 40, 52, 53, 54, 55, 56, 57, 66, 72, 121, 171, 241, 357, 378, 10334, 11000, 11001,
    16746, 16755, 17280, 17419, 17420,
];

/// An error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) number: i32,
    pub(crate) name: &'static str,
}

impl Code {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| {
            let (number, name) = line.split_once(' ')?;
            Some(Code { number: number.parse().ok()?, name })
        })
    }

    /// Whether it speaks of the content.
    pub(crate) fn is_of_content(self) -> bool {
        CONTENT.contains(&self.number)
    }
}
