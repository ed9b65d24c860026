//! Formats numbers and times for people.

use std::time::Duration;

/// `31,204`
#[must_use]
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 event waits`, `31,204 events wait`
#[must_use]
pub(crate) fn events(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 event {one}") } else { format!("{} events {many}", number(n)) }
}

/// `60 ms`, `2.5 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`
#[must_use]
pub(crate) fn span(time: Duration) -> String {
    let ms = time.as_millis();
    let seconds = time.as_secs();
    let two = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {smaller}"),
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..10 if ms % 1000 >= 100 => format!("{:.1} s", (time.as_secs_f64() * 10.0).floor() / 10.0),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A rate, without digits that mean nothing: `0.4`, `12`, `1,204`
#[must_use]
pub(crate) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        return format!("{per_second:.1}");
    }
    number(per_second.round() as u64)
}

/// `17 B`, `1.2 MiB`, `64 MiB`
#[must_use]
pub(crate) fn bytes(n: u64) -> String {
    let (mut amount, mut unit) = (n as f64, "B");
    for larger in ["KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, larger);
    }
    let digits = usize::from(unit != "B" && amount < 100.0);
    let amount = format!("{amount:.digits$}");
    format!("{} {unit}", amount.strip_suffix(".0").unwrap_or(&amount))
}

/// The first so many bytes of a text, and a sign that there was more.
#[must_use]
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes)])
}

/// A text in which nothing steers a terminal: control characters, and what changes the direction of writing, are escaped.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    let escaped = |c: char| if steers(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Rows of cells as lines, each column as wide as its widest cell; of which the cells are aligned at the right, is said.
#[must_use]
pub(crate) fn table<const N: usize>(rows: &[[String; N]], right: [bool; N]) -> Vec<String> {
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).zip(right).map(|((cell, width), right)| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Whether a terminal does something else with it than show it.
#[must_use]
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(
            printable("déjà \u{1b}[31m\n\u{9b}2J\u{202e}\u{7f}"),
            r"déjà \u{1b}[31m\u{a}\u{9b}2J\u{202e}\u{7f}"
        );
        assert!(
            (0..=0x10_ffff)
                .filter_map(char::from_u32)
                .all(|c| !printable(&c.to_string()).contains(char::is_control))
        );
    }

    #[test]
    fn numbers_and_times_are_short() {
        let numbers = [0, 999, 1000, 31_204, 1_000_000].map(number).join(" ");
        assert_eq!(numbers, "0 999 1,000 31,204 1,000,000");
        let times = [0, 60, 1000, 2500, 9_990, 12_700, 60_000, 200_000, 7_500_000, 356_400_000];
        let times: Vec<_> = times.into_iter().map(|ms| span(Duration::from_millis(ms))).collect();
        let told = "0 ms, 60 ms, 1 s, 2.5 s, 9.9 s, 12 s, 1 min, 3 min 20 s, 2 h 5 min, 4 d 3 h";
        assert_eq!(times.join(", "), told);
        assert_eq!(
            [17, 1_258_291, 64 << 20, 150 << 10].map(bytes).join(", "),
            "17 B, 1.2 MiB, 64 MiB, 150 KiB"
        );
        assert_eq!([0.0, 0.42, 9.96, 1204.4].map(rate).join(" "), "0 0.4 10 1,204");
        assert_eq!(events(1, "waits", "wait"), "1 event waits");
        assert_eq!(events(1000, "waits", "wait"), "1,000 events wait");
    }
}
