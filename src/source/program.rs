//! Runs the program that prints a password.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Characters of what it complains of that are told.
const COMPLAINT: usize = 200;

/// What a program prints, without the end of its last line. Where it fails, the first line that it complains with is told,
/// and never what it printed. What tidegate is configured with is not passed on to it.
pub(super) async fn printed_by(command: &[String]) -> Result<String, String> {
    let [program, arguments @ ..] = command else { return Err("no program is named".into()) };
    let mut child = Command::new(program);
    child.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    for name in std::env::vars_os().map(|(name, _): (OsString, _)| name) {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            child.env_remove(name);
        }
    }
    let output = match tokio::time::timeout(LIMIT, child.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{program} cannot be run: {error}")),
        Err(_) => return Err(format!("{program} has not ended within {LIMIT:?}")),
    };
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: String =
            complaint.lines().next().unwrap_or_default().chars().take(COMPLAINT).collect();
        return Err(format!("{program} has failed ({}): {complaint}", output.status));
    }
    let printed = String::from_utf8(output.stdout).map_err(|_| format!("{program} printed no UTF-8"))?;
    let printed = without_line_end(&printed);
    if printed.is_empty() { Err(format!("{program} printed nothing")) } else { Ok(printed.to_owned()) }
}

/// A text without the end of its last line.
pub(super) fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str) -> Result<String, String> {
        printed_by(&["sh".into(), "-c".into(), script.into()]).await
    }

    #[tokio::test]
    async fn what_it_prints_is_taken_as_it_is() {
        for (printed, taken) in [("a b ", "a b "), ("a\\n", "a"), ("a\\r\\n", "a"), ("a\\n\\n", "a\n")] {
            assert_eq!(sh(&format!("printf '{printed}'; echo noise >&2")).await, Ok(taken.to_owned()));
        }
    }

    #[tokio::test]
    async fn why_it_fails_is_told_and_what_it_printed_is_not() {
        let told = sh("echo hunter2; echo 'no session' >&2; echo more >&2; exit 3").await.unwrap_err();
        assert_eq!(told, "sh has failed (exit status: 3): no session");
        assert_eq!(sh("true").await.unwrap_err(), "sh printed nothing");
        let none = printed_by(&["/nowhere/to/be/found".into()]).await.unwrap_err();
        assert!(none.starts_with("/nowhere/to/be/found cannot be run: "), "{none}");
    }
}
