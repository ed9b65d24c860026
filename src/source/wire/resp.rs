//! Redis' protocol, RESP2, as far as replies are read where they lie.

use std::ops::Range;

use crate::source::error::SourceError;

/// The most bytes of a string, and elements of an array, that can be meant: Redis has fewer.
const MOST: i64 = 1 << 40;

/// Finds where replies end, in however many pieces they arrive.
#[derive(Debug)]
pub(super) struct Scanner {
    at: usize,
    /// Values that the reply still lacks.
    open: u64,
    ends: Vec<usize>,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner { at: 0, open: 1, ends: Vec::new() }
    }
}

impl Scanner {
    /// Goes on in `bytes`, which hold what they held before and perhaps more, to the end of the `replies`-th reply.
    /// Answers how many bytes are missing at least.
    ///
    /// # Errors
    /// It is not the protocol.
    pub(super) fn scan(&mut self, bytes: &[u8], replies: usize) -> Result<usize, SourceError> {
        while self.ends.len() < replies {
            let Some((part, end)) = part(bytes, self.at)? else { return Ok(1) };
            if end > bytes.len() {
                return Ok(end - bytes.len());
            }
            self.at = end;
            self.open -= 1;
            if let Part::Array(values) = part {
                self.open += values as u64;
            }
            if self.open == 0 {
                self.ends.push(end);
                self.open = 1;
            }
        }
        Ok(0)
    }

    /// Where the replies end.
    pub(super) fn ends(self) -> Vec<usize> {
        self.ends
    }
}

/// A part of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) enum Part {
    /// An array: so many values follow.
    Array(usize),
    /// A string, and where it is.
    Bulk(Range<usize>),
    /// Nothing.
    Nil,
    /// A number, a status or an error.
    Other,
}

/// The part that begins at `at`, and where it ends, which may be behind the last byte. None: its first line has no end.
fn part(bytes: &[u8], at: usize) -> Result<Option<(Part, usize)>, SourceError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some((kind, line)) = rest.split_first() else { return Ok(None) };
    let Some(length) = line.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let behind = at + length + 2;
    if !matches!(kind, b'$' | b'*') {
        let known = matches!(kind, b':' | b'+' | b'-');
        return if known { Ok(Some((Part::Other, behind))) } else { Err(unexpected()) };
    }
    let count = line[..length].strip_suffix(b"\r").and_then(number).ok_or_else(unexpected)?;
    let Ok(count) = usize::try_from(count) else { return Ok(Some((Part::Nil, behind))) };
    Ok(Some(match kind {
        b'*' => (Part::Array(count), behind),
        _ => (Part::Bulk(behind..behind + count), behind + count + 2),
    }))
}

/// Reads a length; -1 stands for nothing.
fn number(digits: &[u8]) -> Option<i64> {
    if digits == b"-1" {
        return Some(-1);
    }
    let add = |sum: i64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        Some(sum * 10 + digit).filter(|sum| *sum < MOST)
    };
    digits.iter().try_fold(0, add).filter(|_| !digits.is_empty())
}

/// Goes through a reply.
#[derive(Debug, Clone)]
pub(in crate::source) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Walk { bytes, at }
    }

    /// The next part.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::source) fn next(&mut self) -> Result<Part, SourceError> {
        let (part, end) =
            part(self.bytes, self.at)?.filter(|(_, end)| *end <= self.bytes.len()).ok_or_else(unexpected)?;
        self.at = end;
        Ok(part)
    }

    /// The values of the array that comes next; none of nothing.
    ///
    /// # Errors
    /// It is no array.
    pub(in crate::source) fn array(&mut self) -> Result<Option<usize>, SourceError> {
        match self.next()? {
            Part::Array(values) => Ok(Some(values)),
            Part::Nil => Ok(None),
            Part::Bulk(_) | Part::Other => Err(unexpected()),
        }
    }

    /// Where the string that comes next is.
    ///
    /// # Errors
    /// It is no string.
    pub(in crate::source) fn bulk(&mut self) -> Result<Range<usize>, SourceError> {
        match self.next()? {
            Part::Bulk(range) => Ok(range),
            Part::Array(_) | Part::Nil | Part::Other => Err(unexpected()),
        }
    }

    /// The bytes at a place.
    pub(in crate::source) fn text(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }
}

fn unexpected() -> SourceError {
    SourceError::Lost("Redis answers with what was not asked for".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPLIES: &str =
        "*2\r\n*3\r\n$3\r\na\r\n\r\n$0\r\n\r\n$-1\r\n:7\r\n*0\r\n*-1\r\n+OK\r\n-ERR no\r\n$2\r\n\r\n\r\n";

    fn ends(bytes: &[u8], cuts: &[usize]) -> Vec<usize> {
        let mut scanner = Scanner::default();
        for cut in cuts {
            let missing = scanner.scan(&bytes[..*cut], 6).unwrap();
            assert!(missing > 0 && missing <= bytes.len() - cut, "{missing} missing behind {cut}");
        }
        assert_eq!(scanner.scan(bytes, 6).unwrap(), 0);
        scanner.ends()
    }

    #[test]
    fn replies_end_where_they_end() {
        let mut ends = ends(REPLIES.as_bytes(), &[]);
        ends.insert(0, 0);
        let replies: Vec<_> = ends.windows(2).map(|ends| &REPLIES[ends[0]..ends[1]]).collect();
        assert_eq!(replies[1..], ["*0\r\n", "*-1\r\n", "+OK\r\n", "-ERR no\r\n", "$2\r\n\r\n\r\n"]);
    }

    #[test]
    fn parts_are_found_where_they_lie() {
        let mut walk = Walk::new(REPLIES.as_bytes(), 0);
        assert_eq!((walk.array().unwrap(), walk.array().unwrap()), (Some(2), Some(3)));
        let text = walk.bulk().unwrap();
        assert_eq!(walk.text(text), b"a\r\n");
        let empty = walk.bulk().unwrap();
        assert_eq!(walk.text(empty), b"");
        assert_eq!((walk.next().unwrap(), walk.next().unwrap()), (Part::Nil, Part::Other));
        assert_eq!((walk.array().unwrap(), walk.array().unwrap()), (Some(0), None));
        assert!(walk.bulk().is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["?\r\n", "$x\r\n", "*\r\n", "$-2\r\n", "$1\n", "$99999999999999\r\n", "_\r\n"] {
            assert!(Scanner::default().scan(text.as_bytes(), 1).is_err(), "{text:?}");
        }
        assert!(Walk::new(b"$5\r\nab\r\n", 0).next().is_err());
        assert!(Walk::new(b"", 0).next().is_err());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(mut cuts in prop::collection::vec(0..REPLIES.len(), 0..20)) {
            cuts.sort_unstable();
            prop_assert_eq!(ends(REPLIES.as_bytes(), &cuts), ends(REPLIES.as_bytes(), &[]));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop::sample::select(b"*$:-+0129\r\na".to_vec()), 0..60)) {
            let mut scanner = Scanner::default();
            let _ = scanner.scan(&bytes, 3);
            let mut walk = Walk::new(&bytes, 0);
            while walk.next().is_ok() {}
        }
    }
}
