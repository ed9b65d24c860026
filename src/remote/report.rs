//! Puts what `/status` says on lines, in the page's words.

use std::cmp::Reverse;

use super::answer::{Answer, ToldBuffer, ToldDependency, ToldHeldBack, ToldLetterGroup, ToldQueue, time};
use crate::format::{bytes, cut, events, number, printable, rate, span, table};

/// Queues shown where there is no terminal whose height says how many.
const QUEUES: usize = 40;
/// Queues shown however low the terminal is.
const FEWEST: usize = 3;
/// Lines of a list, as on the page.
const LISTED: usize = 10;
/// Bytes of a queue's key in the table.
const KEY: usize = 60;
/// Events that are so much older than they may be while they wait for company are late.
const LATE: f64 = 5.0;

/// The size of a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Lines of text in which nothing steers a terminal.
struct Lines {
    columns: usize,
    lines: Vec<String>,
}

impl Lines {
    /// A text, on as many lines as it needs: behind so many blanks, and those after the first line behind so many.
    fn say(&mut self, text: &str, (first, others): (usize, usize)) {
        let (mut line, mut width, mut is_begun) = (" ".repeat(first), first, false);
        for word in printable(text).split(' ') {
            let length = word.chars().count();
            if is_begun && width + 1 + length > self.columns {
                self.lines.push(std::mem::replace(&mut line, " ".repeat(others)));
                (width, is_begun) = (others, false);
            }
            if is_begun {
                line.push(' ');
                width += 1;
            }
            line.push_str(word);
            width += length;
            is_begun = true;
        }
        self.lines.push(line);
    }

    /// What is set apart, if there is any of it.
    fn list(&mut self, title: &str, entries: Vec<String>, what: &str) {
        if entries.is_empty() {
            return;
        }
        self.lines.push(String::new());
        self.say(title, (0, 0));
        entries.iter().take(LISTED).for_each(|entry| self.say(entry, (2, 4)));
        if entries.len() > LISTED {
            self.say(&format!("and {} more {what}", number((entries.len() - LISTED) as u64)), (2, 4));
        }
    }
}

/// All of it, line by line: no longer and no wider than a terminal.
pub(super) fn report(answer: &Answer, at: &str, screen: Option<Screen>) -> Vec<String> {
    let columns = screen.map_or(usize::MAX, |screen| screen.columns);
    let (mut head, mut tail) = (Lines { columns, lines: Vec::new() }, Lines { columns, lines: Vec::new() });
    let summary = &answer.summary;
    head.say(&format!("{}: {}", cut(&summary.level, 20), cut(&summary.text, 500)), (0, 0));
    head.say(&cut(&summary.advice, 1000), (0, 0));
    if !summary.error.is_empty() {
        head.say(&format!("The error: {}", cut(&summary.error, 600)), (0, 0));
    }
    head.lines.push(String::new());
    let up = span(time(answer.uptime_seconds));
    head.say(
        &format!("{} {} at {at}, up {up}", cut(&answer.instance, 100), cut(&answer.version, 40)),
        (0, 0),
    );
    head.say(&format!("Redis    {}", server(&answer.dependencies.redis)), (0, 9));
    head.say(&format!("MongoDB  {}", server(&answer.dependencies.mongodb)), (0, 9));
    head.say(&format!("Buffer   {}", memory(&answer.buffer)), (0, 9));
    head.lines.push(String::new());

    let held_back = answer.queues.iter().flat_map(|queue| &queue.held_back).map(refused).collect();
    tail.list("Documents that MongoDB refuses, held back:", held_back, "collections");
    let groups = answer.dead_letter_groups.iter().map(group).collect();
    tail.list("Dead letters since the start of this instance:", groups, "reasons");
    let kept = answer.queues.iter().filter(|queue| queue.dead_letters > 0);
    let kept = kept
        .map(|queue| format!("{} holds {}", cut(&queue.dead_letter_list, 200), number(queue.dead_letters)));
    tail.list("Dead letters that are kept; to read them: tidegate dead list", kept.collect(), "lists");

    let mut queues: Vec<&ToldQueue> = answer.queues.iter().collect();
    queues.sort_by_key(|queue| (is_fine(queue), Reverse(queue.depth)));
    // The table has a line of titles, and one may say what is left out; the shell needs one.
    let taken = head.lines.len() + tail.lines.len() + 3;
    let shown = screen.map_or(QUEUES, |screen| screen.rows.saturating_sub(taken).max(FEWEST));
    let left_out = queues.len().saturating_sub(shown);
    queues.truncate(shown);
    let rows: Vec<_> =
        std::iter::once(TITLES.map(str::to_owned)).chain(queues.into_iter().map(row)).collect();
    let fits = |line: String| line.chars().take(columns).collect();
    head.lines.extend(table(&rows, RIGHT).into_iter().map(fits));
    if left_out > 0 {
        head.say(
            &format!("and {} more; --json has all of them", plural(left_out, "queue", "queues")),
            (0, 0),
        );
    }
    head.lines.append(&mut tail.lines);
    head.lines
}

const TITLES: [&str; 9] =
    ["QUEUE", "WAITING", "OLDEST", "IN/S", "OUT/S", "99 % WITHIN", "FOLDING", "LAST COMMIT", "STATE"];
/// Figures are aligned at their right.
const RIGHT: [bool; 9] = [false, true, true, true, true, true, true, true, false];

fn row(queue: &ToldQueue) -> [String; 9] {
    let (owned, recent) = (is_owned(queue), &queue.recent);
    let none = || "–".to_owned();
    let owned_rate = |per_second| if owned { rate(per_second) } else { none() };
    let oldest = match queue.oldest_age_seconds {
        age if age > 0.0 => span(time(age)),
        _ if owned && queue.depth > 0 => "just arrived".to_owned(),
        _ => none(),
    };
    let within = recent.durable_within.p99.as_ref().map(|within| within.seconds);
    [
        cut(&queue.key, KEY),
        number(queue.depth),
        oldest,
        owned_rate(recent.arrived_per_second),
        owned_rate(recent.settled_per_second),
        within.map_or_else(none, |bound| {
            bound.map_or_else(|| "over 1 min".to_owned(), |bound| span(time(bound)))
        }),
        recent.events_per_write.map_or_else(none, |events| format!("{} to 1", rate(events))),
        queue.last_commit_seconds_ago.map_or_else(|| "none yet".to_owned(), ago),
        state(queue),
    ]
}

fn is_owned(queue: &ToldQueue) -> bool {
    matches!(queue.phase.as_str(), "recovering" | "active" | "draining")
}

fn is_fine(queue: &ToldQueue) -> bool {
    matches!(queue.phase.as_str(), "active" | "standby")
        && queue.obstacle.is_none()
        && queue.held_back.is_empty()
        && queue.oldest_age_seconds - queue.window_seconds < LATE
        && retrying(queue).is_none()
}

/// How many lanes try again, and for how long the longest has.
fn retrying(queue: &ToldQueue) -> Option<(usize, f64)> {
    let lanes = queue.lanes.iter().filter(|lane| lane.doing == "retrying");
    let (count, longest) = lanes.fold((0, 0.0_f64), |(n, most), lane| (n + 1, most.max(lane.for_seconds)));
    (count > 0).then_some((count, longest))
}

fn state(queue: &ToldQueue) -> String {
    let owner = queue.owner.as_deref().map_or_else(|| "another instance".to_owned(), |owner| cut(owner, 100));
    let mut words = vec![match queue.phase.as_str() {
        "active" => "owned by this instance".to_owned(),
        "recovering" => "being taken over: settling what was read before".to_owned(),
        "draining" => "flushing, then giving it up".to_owned(),
        "standby" => format!("standing by: {owner} owns it"),
        "paused" => paused(queue),
        "connecting" => format!("not owned: trying to take it over for {}", span(time(queue.phase_seconds))),
        _ => "given up".to_owned(),
    }];
    words.extend(queue.obstacle.as_ref().map(|obstacle| cut(obstacle, 200)));
    words.extend(
        retrying(queue).map(|(n, longest)| format!("{n} retrying MongoDB for {}", span(time(longest)))),
    );
    let held: u64 = queue.held_back.iter().map(|held| held.documents).sum();
    if held > 0 {
        words.push(format!("{} held back", plural(held as usize, "document", "documents")));
    }
    if queue.oldest_age_seconds - queue.window_seconds >= LATE {
        words.push("late".to_owned());
    }
    words.join(", ")
}

fn paused(queue: &ToldQueue) -> String {
    let said = |before: &str, text: &str, most| match text {
        "" => String::new(),
        text => format!("{before}{}", cut(text, most)),
    };
    let (by, reason) = queue.pause.as_ref().map_or(("", ""), |pause| (&pause.by, &pause.reason));
    let time = span(time(queue.phase_seconds));
    format!("paused{} for {time}{}", said(" by ", by, 100), said(": ", reason, 200))
}

fn server(server: &ToldDependency) -> String {
    let words = if server.state == "unknown" { "not asked yet" } else { &server.state };
    let lasting =
        server.for_seconds.map(|seconds| format!(" for {}", span(time(seconds)))).unwrap_or_default();
    let more = match (&server.error, &server.last_outage) {
        (Some(error), _) => cut(error, 500),
        (None, Some(past)) => {
            let (ended, lasted) = (ago(past.ended_seconds_ago), span(time(past.lasted_seconds)));
            format!("last outage {ended}, for {lasted}: {}", cut(&past.error, 500))
        }
        (None, None) if server.state == "unknown" => return words.to_owned(),
        (None, None) => "no outage since the start".to_owned(),
    };
    format!("{}{lasting}: {more}", cut(words, 40))
}

fn memory(buffer: &ToldBuffer) -> String {
    let share = |held: u64, most: u64| held as f64 / most.max(1) as f64;
    let share = share(buffer.events, buffer.max_events).max(share(buffer.bytes, buffer.max_bytes));
    format!(
        "{} % in use: {} of {}, {} of {}",
        number((share * 100.0).round() as u64),
        number(buffer.events),
        plural(buffer.max_events as usize, "event", "events"),
        bytes(buffer.bytes),
        bytes(buffer.max_bytes)
    )
}

fn refused(held: &ToldHeldBack) -> String {
    format!(
        "{} of {} from {}: {} for {}: {}",
        plural(held.documents as usize, "document", "documents"),
        cut(&held.collection, 200),
        cut(&held.queue, 100),
        events(held.events, "waits", "wait"),
        span(time(held.for_seconds)),
        cut(&held.error, 200)
    )
}

fn group(group: &ToldLetterGroup) -> String {
    let ToldLetterGroup { queue, class, reason, count, seconds_ago } = group;
    let reason = if reason.is_empty() { String::new() } else { format!(": {}", cut(reason, 200)) };
    format!("{} × {} of {}{reason} ({})", number(*count), cut(class, 40), cut(queue, 100), ago(*seconds_ago))
}

fn ago(seconds: f64) -> String {
    if seconds < 1.0 { "just now".to_owned() } else { format!("{} ago", span(time(seconds))) }
}

fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", number(n as u64), if n == 1 { one } else { many })
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
