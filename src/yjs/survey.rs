//! Walks over an update's bytes, before a library that trusts them more is asked.
//!
//! The library follows nested values by recursion. A hostile update could make it overflow the stack, which ends the
//! process. Nor does it give back every kind of content byte by byte.
//!
//! Format: `encodeStateAsUpdate` of Yjs, lib0 v1 encoding (`UpdateEncoderV1`).

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpdateSurvey {
    /// Well formed, of contents that merging keeps as they are.
    Mergeable,
    /// Well formed, but it has content that a merge might change: subdocuments, big integers, and JSON as
    /// Yjs wrote it before version 13.
    Opaque,
}

/// Levels that values in an update may nest.
const MAX_DEPTH: usize = 100;

const CUT: &str = "it ends too early";
const UNKNOWN: &str = "it has content of an unknown kind";

type BlockFound<T> = Result<T, &'static str>;

/// Walks over an update.
pub(super) fn survey(update: &[u8]) -> BlockFound<UpdateSurvey> {
    let mut walk = UpdateWalk { rest: update, opaque: false };
    for _ in 0..walk.number()? {
        let structs = walk.number()?;
        walk.id()?;
        for _ in 0..structs {
            walk.item()?;
        }
    }
    for _ in 0..walk.number()? {
        walk.number()?;
        for _ in 0..walk.number()? {
            walk.id()?;
        }
    }
    match (walk.rest, walk.opaque) {
        ([], true) => Ok(UpdateSurvey::Opaque),
        ([], false) => Ok(UpdateSurvey::Mergeable),
        _ => Err("something follows behind its end"),
    }
}

struct UpdateWalk<'a> {
    rest: &'a [u8],
    opaque: bool,
}

impl<'a> UpdateWalk<'a> {
    fn byte(&mut self) -> BlockFound<u8> {
        let (first, rest) = self.rest.split_first().ok_or(CUT)?;
        self.rest = rest;
        Ok(*first)
    }

    fn skip(&mut self, bytes: u64) -> BlockFound<&'a [u8]> {
        let bytes = usize::try_from(bytes).map_err(|_| CUT)?;
        let (skipped, rest) = self.rest.split_at_checked(bytes).ok_or(CUT)?;
        self.rest = rest;
        Ok(skipped)
    }

    /// An unsigned number: seven bits a byte, the lowest first.
    fn number(&mut self) -> BlockFound<u64> {
        let mut number = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number in it is too long")
    }

    /// Client and clock, or clock and length.
    fn id(&mut self) -> BlockFound<()> {
        self.number()?;
        self.number().map(drop)
    }

    fn buffer(&mut self) -> BlockFound<&'a [u8]> {
        let bytes = self.number()?;
        self.skip(bytes)
    }

    fn text(&mut self) -> BlockFound<()> {
        std::str::from_utf8(self.buffer()?).map(drop).map_err(|_| "text in it is not UTF-8")
    }

    fn item(&mut self) -> BlockFound<()> {
        const HAS_ORIGIN: u8 = 0x80;
        const HAS_RIGHT_ORIGIN: u8 = 0x40;
        const HAS_PARENT_KEY: u8 = 0x20;
        let info = self.byte()?;
        // Garbage, or a gap.
        if info == 0 || info == 10 {
            return self.number().map(drop);
        }
        if info & HAS_ORIGIN != 0 {
            self.id()?;
        }
        if info & HAS_RIGHT_ORIGIN != 0 {
            self.id()?;
        }
        if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
            match self.number()? {
                1 => self.text()?,
                _ => self.id()?,
            }
            if info & HAS_PARENT_KEY != 0 {
                self.text()?;
            }
        }
        self.content(info & 0x1f)
    }

    fn content(&mut self, kind: u8) -> BlockFound<()> {
        match kind {
            // Deleted.
            1 => self.number().map(drop),
            // JSON.
            2 => {
                self.opaque = true;
                for _ in 0..self.number()? {
                    self.text()?;
                }
                Ok(())
            }
            // Binary.
            3 => self.buffer().map(drop),
            // Text, embedded object.
            4 | 5 => self.text(),
            // Formatting.
            6 => {
                self.text()?;
                self.text()
            }
            // A shared type; elements and hooks have names.
            7 => match self.byte()? {
                0..=2 | 4 | 6 => Ok(()),
                3 | 5 => self.text(),
                _ => Err(UNKNOWN),
            },
            8 => {
                for _ in 0..self.number()? {
                    self.value(0)?;
                }
                Ok(())
            }
            // A subdocument: its id and options.
            9 => {
                self.opaque = true;
                self.text()?;
                self.value(0)
            }
            _ => Err(UNKNOWN),
        }
    }

    fn value(&mut self, depth: usize) -> BlockFound<()> {
        if depth > MAX_DEPTH {
            return Err("values in it nest too deep");
        }
        match self.byte()? {
            // undefined, null, false, true
            127 | 126 | 121 | 120 => Ok(()),
            // An integer: six bits, then seven a byte.
            125 => self.number().map(drop),
            124 => self.skip(4).map(drop),
            123 => self.skip(8).map(drop),
            // A big integer.
            122 => {
                self.opaque = true;
                self.skip(8).map(drop)
            }
            119 => self.text(),
            118 => {
                for _ in 0..self.number()? {
                    self.text()?;
                    self.value(depth + 1)?;
                }
                Ok(())
            }
            117 => {
                for _ in 0..self.number()? {
                    self.value(depth + 1)?;
                }
                Ok(())
            }
            116 => self.buffer().map(drop),
            _ => Err(UNKNOWN),
        }
    }
}
