//! Parses Redis' protocol, RESP2, as far as replies are read where they lie.

use std::ops::Range;

use crate::source::error::SourceError;

/// No string or array of Redis is as long.
const MOST: usize = 1 << 32;

/// What of a string that is passed over is waited for at once, bytes.
const PASSED_AT_ONCE: usize = 64 * 1024;

/// Finds where replies end, in however many pieces they arrive.
#[derive(Debug)]
pub(super) struct Scanner {
    at: usize,
    /// Values that the reply still lacks.
    open: u64,
    ends: Vec<usize>,
    /// Of the first reply what begins beyond so many bytes is passed over.
    limit: usize,
    /// Where what is kept of the first reply ends, once there is more of it.
    kept: Option<usize>,
    /// Bytes of the string that is passed over that are yet to come.
    owed: usize,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner::keeping(usize::MAX)
    }
}

impl Scanner {
    /// Keeps of the first reply what begins within `limit` bytes.
    pub(super) fn keeping(limit: usize) -> Self {
        Scanner { at: 0, open: 1, ends: Vec::new(), limit, kept: None, owed: 0 }
    }

    /// Goes on in `bytes`, which hold what they held before and perhaps more, to the end of the `replies`-th reply, and
    /// takes out what is passed over. Answers how many bytes are missing at least.
    ///
    /// # Errors
    /// It is not the protocol.
    pub(super) fn scan(&mut self, bytes: &mut Vec<u8>, replies: usize) -> Result<usize, SourceError> {
        let missing = self.go_on(bytes, replies)?;
        self.take_out(bytes);
        Ok(missing)
    }

    fn go_on(&mut self, bytes: &mut Vec<u8>, replies: usize) -> Result<usize, SourceError> {
        while self.ends.len() < replies {
            if self.owed == 0 {
                let Some((part, end)) = part(bytes, self.at)? else { return Ok(1) };
                if self.ends.is_empty() && self.at > self.limit {
                    self.kept.get_or_insert(self.at);
                }
                let missing = end.saturating_sub(bytes.len());
                if missing > 0 && self.kept.is_none() {
                    return Ok(missing);
                }
                self.open -= 1;
                if let ReplyPart::Array(values) = part {
                    self.open += values as u64;
                }
                (self.at, self.owed) = (end - missing, missing);
            } else {
                let here = self.owed.min(bytes.len() - self.at);
                (self.at, self.owed) = (self.at + here, self.owed - here);
            }
            if self.owed > 0 {
                return Ok(self.owed.min(PASSED_AT_ONCE));
            }
            if self.open == 0 {
                self.take_out(bytes);
                self.kept = None;
                self.ends.push(self.at);
                self.open = 1;
            }
        }
        Ok(0)
    }

    /// Takes out what was passed over.
    fn take_out(&mut self, bytes: &mut Vec<u8>) {
        if let Some(kept) = self.kept {
            bytes.drain(kept..self.at);
            self.at = kept;
        }
    }

    /// Where the replies end.
    pub(super) fn ends(self) -> Vec<usize> {
        self.ends
    }
}

/// A part of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) enum ReplyPart {
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
fn part(bytes: &[u8], at: usize) -> Result<Option<(ReplyPart, usize)>, SourceError> {
    let Some(kind) = bytes.get(at) else { return Ok(None) };
    match kind {
        b'$' | b'*' => {}
        b':' | b'+' | b'-' => {
            let length = bytes[at..].iter().position(|byte| *byte == b'\n');
            return Ok(length.map(|length| (ReplyPart::Other, at + length + 1)));
        }
        _ => return Err(unexpected()),
    }
    Ok(length(bytes, at + 1)?.map(|(length, behind)| match (kind, length) {
        (_, None) => (ReplyPart::Nil, behind),
        (b'*', Some(values)) => (ReplyPart::Array(values), behind),
        (_, Some(length)) => (ReplyPart::Bulk(behind..behind + length), behind + length + 2),
    }))
}

/// Reads a length, if there is one, and answers where its line ends. None: it has no end.
#[inline]
fn length(bytes: &[u8], start: usize) -> Result<Option<(Option<usize>, usize)>, SourceError> {
    const NIL: &[u8] = b"-1\r\n";
    let (mut at, mut sum) = (start, 0);
    loop {
        match bytes.get(at) {
            Some(digit @ b'0'..=b'9') if sum < MOST / 10 => sum = sum * 10 + usize::from(digit - b'0'),
            Some(b'\r') if at > start => break,
            Some(b'-') if at == start => {
                let line = &bytes[at..bytes.len().min(at + NIL.len())];
                let is_whole = line.len() == NIL.len();
                let is_nil = NIL.starts_with(line).then_some(is_whole.then_some((None, at + NIL.len())));
                return is_nil.ok_or_else(unexpected);
            }
            Some(_) => return Err(unexpected()),
            None => return Ok(None),
        }
        at += 1;
    }
    match bytes.get(at + 1) {
        Some(b'\n') => Ok(Some((Some(sum), at + 2))),
        Some(_) => Err(unexpected()),
        None => Ok(None),
    }
}

/// Goes through a reply.
#[derive(Debug, Clone)]
pub(in crate::source) struct ReplyWalk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ReplyWalk<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        ReplyWalk { bytes, at }
    }

    /// How many bytes are behind it.
    pub(in crate::source) fn at(&self) -> usize {
        self.at
    }

    /// The next part.
    pub(in crate::source) fn next(&mut self) -> Result<ReplyPart, SourceError> {
        let (part, end) =
            part(self.bytes, self.at)?.filter(|(_, end)| *end <= self.bytes.len()).ok_or_else(unexpected)?;
        self.at = end;
        Ok(part)
    }

    /// The values of the array that comes next; none of nothing.
    pub(in crate::source) fn array(&mut self) -> Result<Option<usize>, SourceError> {
        match self.next()? {
            ReplyPart::Array(values) => Ok(Some(values)),
            ReplyPart::Nil => Ok(None),
            ReplyPart::Bulk(_) | ReplyPart::Other => Err(unexpected()),
        }
    }

    /// Where the string that comes next is.
    pub(in crate::source) fn bulk(&mut self) -> Result<Range<usize>, SourceError> {
        match self.next()? {
            ReplyPart::Bulk(range) => Ok(range),
            ReplyPart::Array(_) | ReplyPart::Nil | ReplyPart::Other => Err(unexpected()),
        }
    }

    /// Whether there is no other part: the rest of what was announced was passed over, or there is none.
    pub(in crate::source) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
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
        let (kept, ends) = scanned(Scanner::default(), bytes, cuts);
        assert_eq!(kept, bytes);
        ends
    }

    /// What is kept of six replies that arrive in pieces, and where they end.
    fn scanned(mut scanner: Scanner, bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut kept, mut arrived) = (Vec::new(), 0);
        for cut in cuts {
            kept.extend_from_slice(&bytes[arrived..*cut]);
            arrived = *cut;
            let missing = scanner.scan(&mut kept, 6).unwrap();
            assert!(missing > 0 && missing <= bytes.len() - cut, "{missing} missing behind {cut}");
        }
        kept.extend_from_slice(&bytes[arrived..]);
        assert_eq!(scanner.scan(&mut kept, 6).unwrap(), 0);
        (kept, scanner.ends())
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
        let mut walk = ReplyWalk::new(REPLIES.as_bytes(), 0);
        assert_eq!((walk.array().unwrap(), walk.array().unwrap()), (Some(2), Some(3)));
        let text = walk.bulk().unwrap();
        assert_eq!(walk.text(text), b"a\r\n");
        let empty = walk.bulk().unwrap();
        assert_eq!(walk.text(empty), b"");
        assert_eq!((walk.next().unwrap(), walk.next().unwrap()), (ReplyPart::Nil, ReplyPart::Other));
        assert_eq!((walk.array().unwrap(), walk.array().unwrap()), (Some(0), None));
        assert!(walk.bulk().is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["?\r\n", "$x\r\n", "*\r\n", "$-2\r\n", "$1\n", "$99999999999\r\n", "_\r\n", "$-1x"] {
            assert!(Scanner::default().scan(&mut text.into(), 1).is_err(), "{text:?}");
        }
        assert!(ReplyWalk::new(b"$5\r\nab\r\n", 0).next().is_err());
        assert!(ReplyWalk::new(b"", 0).next().is_err());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(mut cuts in prop::collection::vec(0..REPLIES.len(), 0..20)) {
            cuts.sort_unstable();
            prop_assert_eq!(ends(REPLIES.as_bytes(), &cuts), ends(REPLIES.as_bytes(), &[]));
        }

        #[test]
        fn what_is_beyond_the_limit_is_passed_over(
            limit in 0..80_usize,
            mut cuts in prop::collection::vec(0_usize..150, 0..12),
        ) {
            let strings: String = (0..8).map(|n| format!("${n}\r\n{}\r\n", "x".repeat(n))).collect();
            let rest = "*2\r\n:1\r\n:2\r\n+OK\r\n$1\r\nx\r\n:7\r\n:8\r\n";
            let text = format!("*8\r\n{strings}{rest}");
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(text.len() - 1));
            cuts.sort_unstable();
            let (kept, ends) = scanned(Scanner::keeping(limit), text.as_bytes(), &cuts);
            prop_assert_eq!(std::str::from_utf8(&kept[ends[0]..]).unwrap(), rest);
            prop_assert!(text.as_bytes().starts_with(&kept[..ends[0]]));
            let mut walk = ReplyWalk::new(&kept[..ends[0]], 0);
            prop_assert_eq!(walk.array().unwrap(), Some(8));
            let mut strings = 0;
            while !walk.is_at_end() {
                let before = walk.at;
                prop_assert!(before <= limit.max(4));
                prop_assert_eq!(walk.bulk().unwrap().len(), strings);
                strings += 1;
            }
            prop_assert!(walk.at > limit || strings == 8);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop::sample::select(b"*$:-+0129\r\na".to_vec()), 0..60)) {
            let _ = Scanner::default().scan(&mut bytes.clone(), 3);
            let _ = Scanner::keeping(bytes.len() / 2).scan(&mut bytes.clone(), 3);
            let mut walk = ReplyWalk::new(&bytes, 0);
            while walk.next().is_ok() {}
        }
    }
}
