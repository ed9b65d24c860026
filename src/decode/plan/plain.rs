//! Reads values that JSON has one way of writing where they stand, without a parser.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Has a parser read the value at a place in an event; answers where it ends.
pub(super) fn parsed<'e>(
    event: &'e str,
    at: usize,
    read: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::StrRead<'e>>) -> bool,
) -> Option<usize> {
    let mut json = serde_json::Deserializer::from_str(event.get(at..)?);
    read(&mut json).then(|| at + json.into_iter::<IgnoredAny>().byte_offset())
}

pub(super) fn skip<'e>(json: &mut serde_json::Deserializer<serde_json::de::StrRead<'e>>) -> bool {
    IgnoredAny::deserialize(json).is_ok()
}

/// The text up to a quotation mark, if there is nothing in it that JSON has a second way of writing.
#[inline]
pub(super) fn plain_text(bytes: &[u8]) -> Option<&[u8]> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // Eight bytes at a time: the highest bit of each that is special, and perhaps of some behind it.
    let special = |word: u64| {
        let quotes = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
        let escapes = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        let controls = word.wrapping_sub(ONES * 0x20);
        (quotes | escapes | controls) & !word & (ONES << 7)
    };
    let (words, last) = bytes.as_chunks::<8>();
    let found = words.iter().enumerate().find_map(|(n, word)| match special(u64::from_le_bytes(*word)) {
        0 => None,
        special => Some(n * 8 + special.trailing_zeros() as usize / 8),
    });
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    let end = match found {
        Some(end) => end,
        None => words.len() * 8 + last.iter().position(is_special)?,
    };
    (bytes[end] == b'"').then(|| &bytes[..end])
}

/// An integer at the beginning, if JSON has no second way of writing it, and its length.
pub(super) fn plain_integer(bytes: &[u8]) -> Option<(i64, usize)> {
    // More may not fit.
    const MOST: usize = 18;
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let (mut sum, mut end) = (0_i64, sign);
    while let Some(word) = bytes.get(end..)?.first_chunk() {
        let (number, digits) = leading_digits(u64::from_le_bytes(*word));
        if end - sign + digits > MOST {
            return None;
        }
        sum = sum * POWERS_OF_TEN[digits] + number;
        end += digits;
        if digits < word.len() {
            break;
        }
    }
    let behind = loop {
        let byte = *bytes.get(end)?;
        if !byte.is_ascii_digit() {
            break byte;
        }
        if end - sign == MOST {
            return None;
        }
        sum = sum * 10 + i64::from(byte - b'0');
        end += 1;
    };
    let first = bytes[sign];
    // `-0` is a double, and `01` is nothing.
    let is_plain = end > sign && (first != b'0' || end == 1) && !matches!(behind, b'.' | b'e' | b'E');
    is_plain.then_some((if sign == 1 { -sum } else { sum }, end))
}

const POWERS_OF_TEN: [i64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The number that the digits among eight bytes make, those before any other byte, and how many they are.
#[inline]
fn leading_digits(word: u64) -> (i64, usize) {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // Six above the last digit the upper half of a byte is another.
    let above = word.wrapping_add(0x0606_0606_0606_0606) & HIGH;
    let others = ((word & HIGH) | (above >> 4)) ^ 0x3333_3333_3333_3333;
    let digits = others.trailing_zeros() / 8;
    // Zeros in front, then two of one digit come to one of two digits, and so on.
    let ones = word.checked_shl(64 - digits * 8).unwrap_or(0) & !HIGH;
    let twos = ones.wrapping_mul((10 << 8) + 1) >> 8;
    let fours = (twos & 0x00ff_00ff_00ff_00ff).wrapping_mul((100 << 16) + 1) >> 16;
    let number = (fours & 0xffff_0000_ffff).wrapping_mul((10_000 << 32) + 1) >> 32;
    (number.cast_signed(), digits as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_plain_text_is_found_wherever_it_is() {
        for length in 0..40 {
            let text = "x".repeat(length);
            for (end, plain) in [("\"", true), ("\\", false), ("\u{1f}", false), ("", false)] {
                let behind = if end.is_empty() { text.clone() } else { format!("{text}{end}é\"\\") };
                let expected = plain.then_some(text.as_bytes());
                assert_eq!(plain_text(behind.as_bytes()), expected, "{behind:?}");
            }
        }
    }

    #[test]
    fn plain_integers_are_read_and_others_left_alone() {
        assert_eq!(plain_integer(b"0,"), Some((0, 1)));
        for length in 1..=18 {
            let text = &"9081726354453627189"[..length];
            for (sign, number) in [("", text.to_owned()), ("-", format!("-{text}"))] {
                let read = plain_integer(format!("{number}, 12345678").as_bytes());
                assert_eq!(read, Some((number.parse().unwrap(), length + sign.len())), "{number}");
            }
        }
        assert_eq!(plain_integer(b"-123456789012345678}"), Some((-123_456_789_012_345_678, 19)));
        for other in [
            "1234567890123456789,",
            "-0,",
            "01,",
            "1.0,",
            "1e1,",
            "-,",
            "x",
            "12",
            "12345678.5,",
            "1234567890123456789,",
        ] {
            assert_eq!(plain_integer(other.as_bytes()), None, "{other}");
        }
    }
}
