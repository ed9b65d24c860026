//! Shows a person the state of an instance, once or again and again: `tidegate status`.

use std::io::{self, Write, stdout};
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::StatusCode;
use hyper::body::Bytes;
use rustix::termios::tcgetwinsize;
use tokio::time::{MissedTickBehavior, interval};

use super::answer::Answer;
use super::endpoint::Endpoint;
use super::report::{Screen, report};
use super::{EXIT_UNREACHED, EXIT_UNWELL, endpoint};
use crate::cli::remote::ShowStatus;
use crate::cli::{Cli, EXIT_CONFIG, EXIT_FAILED, EXIT_OK};
use crate::format::{printable, steers};

/// How often the state is looked at, as the page does.
const EVERY: Duration = Duration::from_secs(1);

/// Asks and tells, and gives the exit code.
pub async fn status(cli: &Cli, asked: &ShowStatus, out: &mut impl Write) -> u8 {
    let at = match endpoint(cli, &asked.place) {
        Ok(at) => at,
        Err(error) => {
            eprintln!("{}", error.lines().map(printable).collect::<Vec<_>>().join("\n"));
            return EXIT_CONFIG;
        }
    };
    // Whoever closed the pipe does not know whether all is well.
    tell(&at, asked, out).await.unwrap_or(EXIT_FAILED)
}

async fn tell(at: &Endpoint, asked: &ShowStatus, out: &mut impl Write) -> io::Result<u8> {
    if !asked.watch {
        let (text, code) = look(at, asked.json).await;
        match code {
            EXIT_UNREACHED => eprint!("{text}"),
            _ => out.write_all(text.as_bytes())?,
        }
        return out.flush().map(|()| code);
    }
    let mut seconds = interval(EVERY);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        seconds.tick().await;
        let (text, code) = look(at, asked.json).await;
        let screen = screen().filter(|_| !asked.json);
        match (screen, code) {
            (Some(screen), _) => out.write_all(drawn(&text, screen, number == 0).as_bytes())?,
            (None, EXIT_UNREACHED) => eprint!("{text}"),
            (None, _) if asked.json => out.write_all(text.as_bytes())?,
            (None, _) => write!(out, "{}{text}", if number == 0 { "" } else { "\n" })?,
        }
        out.flush()?;
    }
    Ok(EXIT_OK)
}

/// What is to be told, and the exit code.
async fn look(at: &Endpoint, json: bool) -> (String, u8) {
    let told = at.get("/status").await.and_then(|(code, body)| read(code, &body));
    match told {
        Ok((text, answer)) => {
            let code = if answer.summary.is_well() { EXIT_OK } else { EXIT_UNWELL };
            if json {
                return (format!("{}\n", harmless(&text)), code);
            }
            let lines = report(&answer, at.authority(), screen());
            (lines.iter().map(|line| format!("{line}\n")).collect(), code)
        }
        Err(error) => (format!("error: {}\n", printable(&format!("{error:#}"))), EXIT_UNREACHED),
    }
}

fn read(code: StatusCode, body: &Bytes) -> anyhow::Result<(String, Answer)> {
    ensure!(code == StatusCode::OK, "it answers with {code}");
    let text = std::str::from_utf8(body).context("the answer is not text")?;
    let answer = serde_json::from_str(text).context("the answer is not what tidegate's /status says")?;
    Ok((text.trim().to_owned(), answer))
}

/// The same JSON, with escapes for what steers a terminal and JSON leaves as it is.
fn harmless(json: &str) -> String {
    let escaped = |c: char| match c {
        '\u{7f}'.. if steers(c) => format!("\\u{:04x}", u32::from(c)),
        _ => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

/// How large the terminal is, if standard output is one.
fn screen() -> Option<Screen> {
    let size = tcgetwinsize(stdout()).ok()?;
    // Some do not know how large they are.
    let or = |cells: u16, usual| if cells == 0 { usual } else { usize::from(cells) };
    Some(Screen { columns: or(size.ws_col, 80), rows: or(size.ws_row, 24) })
}

/// Over what was drawn before. Lines that are wider than they look are cut, so that nothing scrolls.
fn drawn(text: &str, screen: Screen, first: bool) -> String {
    let clear = if first { "\x1b[2J" } else { "" };
    let lines = text.lines().take(screen.rows.saturating_sub(1));
    let lines: String = lines.map(|line| format!("{line}\x1b[K\n")).collect();
    format!("{clear}\x1b[?7l\x1b[H{lines}\x1b[J\x1b[?7h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_and_steers_no_terminal() {
        let keys = "a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}é\n";
        let json = serde_json::to_string(keys).unwrap();
        let told = harmless(&json);
        assert!(!told.contains(steers), "{told}");
        assert_eq!(serde_json::from_str::<String>(&told).unwrap(), keys);
    }

    #[test]
    fn what_is_drawn_fits_and_leaves_nothing_of_what_was() {
        let drawn = drawn("one\ntwo\nthree\n", Screen { columns: 80, rows: 3 }, false);
        assert_eq!(drawn, "\x1b[?7l\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J\x1b[?7h");
    }
}
