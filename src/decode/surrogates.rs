//! Replaces halves of surrogate pairs, which JSON can write and no text can hold.
//!
//! `JSON.stringify` writes half an emoji as `"\ud83d"`, and editors that cut text by UTF-16 units make them daily. Whoever
//! encodes such a text puts U+FFFD in its place, as browsers do; so does this, before an event that cannot be read for them
//! is read once more.

/// What takes the place of half a pair.
pub(super) const REPLACEMENT: char = '\u{fffd}';

/// The event with its halves of pairs replaced; none if there are none.
pub(super) fn mended(event: &str) -> Option<String> {
    let bytes = event.as_bytes();
    let (mut mended, mut taken, mut at) = (String::new(), 0, 0);
    // Outside of strings there is no backslash in JSON.
    while let Some(found) = event.get(at..)?.find('\\') {
        at += found;
        let unit = |at: usize| unit(bytes.get(at..)?);
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + ESCAPE), Some(0xdc00..=0xdfff)) => at += 2 * ESCAPE,
            Some(0xd800..=0xdfff) => {
                mended.push_str(&event[taken..at]);
                mended.push_str("\\ufffd");
                at += ESCAPE;
                taken = at;
            }
            // The next character is escaped, be it a backslash; one of several bytes is no JSON.
            _ => at += if bytes.get(at + 1).is_some_and(u8::is_ascii) { 2 } else { 1 },
        }
    }
    (taken > 0).then(|| mended + &event[taken..])
}

/// Bytes of `\ud83d`.
const ESCAPE: usize = 6;

/// The UTF-16 unit that an escape at the beginning stands for.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.get(..ESCAPE)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_replaced_and_pairs_stay() {
        for (event, expected) in [
            (r#"{"a":"typed \ud83d"}"#, Some(r#"{"a":"typed \ufffd"}"#)),
            (
                r#""\ud83d\ude00 \ude00\ud83d é \uD83D\\ude00""#,
                Some(r#""\ud83d\ude00 \ufffd\ufffd é \ufffd\\ude00""#),
            ),
            (r#""\ud83d\ud83d\ude00""#, Some(r#""\ufffd\ud83d\ude00""#)),
            (r#""\\ud83d \ud83d\ude00 \u00e9""#, None),
            (r#""\ud8"#, None),
            ("\"\\é\"", None),
            ("\\", None),
            ("", None),
        ] {
            assert_eq!(mended(event).as_deref(), expected, "{event}");
        }
    }

    /// Against the standard library's reading of UTF-16.
    #[test]
    fn random_units_are_read_as_utf_16_is() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..5_000 {
            let among = [0xd83d_u16, 0xdbff, 0xdc00, 0xde00, 0x41, 0xe9, 0xd7ff, 0xe000];
            let units: Vec<u16> =
                (0..random.usize(1..8)).map(|_| among[random.usize(..among.len())]).collect();
            let json = units.iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            let json = format!("\"{json}\"");
            let read: String = serde_json::from_str(&mended(&json).unwrap_or(json)).unwrap();
            assert_eq!(read, String::from_utf16_lossy(&units));
        }
    }
}
