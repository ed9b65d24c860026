//! Puts the whole state into a sentence: whether events are late, why, and what is to be done. It does no I/O.

mod fine;

use std::time::Duration;

use serde::Serialize;

use super::lane::HeldBack;
use super::{Obstacle, Phase};
use crate::format::{cut, events, number, rate, span};
use crate::health::DependencyState;
use crate::source::PauseNote;

/// Events that are so much older than they may be while they wait for company are late.
const LATE: Duration = Duration::from_secs(5);
/// What takes longer than this is more than a hiccup.
const STUCK: Duration = Duration::from_secs(5);

/// What is known.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) stopping: bool,
    pub(super) redis: DependencyState,
    pub(super) mongodb: DependencyState,
    /// How many tasks fail; of one, what it is and what it met.
    pub(super) trouble: Option<(usize, String, String)>,
    pub(super) queues: Vec<QueueFacts>,
    pub(super) dead_lately: u64,
    pub(super) buffer_is_full: bool,
    /// Why receipts cannot be published.
    pub(super) receipts_refused: Option<String>,
}

/// What is known of a queue.
#[derive(Debug, Clone)]
pub(super) struct QueueFacts {
    pub(super) key: String,
    pub(super) at_most_once: bool,
    pub(super) phase: Phase,
    pub(super) phase_for: Duration,
    pub(super) obstacle: Option<Obstacle>,
    /// Who has paused it.
    pub(super) paused: Option<PauseNote>,
    pub(super) depth: u64,
    pub(super) held: u64,
    pub(super) oldest_age: Duration,
    /// The longest that a change may wait for company.
    pub(super) window: Duration,
    pub(super) arrived_per_second: f64,
    pub(super) settled_per_second: f64,
    /// Within how many seconds all recent events became durable.
    pub(super) durable_within: Option<f64>,
    pub(super) foreign_pops: u64,
    /// What was found last.
    pub(super) meddling: Option<Meddling>,
    pub(super) lanes: usize,
    pub(super) lanes_writing: usize,
    /// Lanes that wait for `batch.max_writes_per_second`.
    pub(super) lanes_limited: usize,
    /// For how long a lane's batch has failed.
    pub(super) retrying: Option<Duration>,
    /// The collection of which the most documents are held back.
    pub(super) held_back: Option<HeldBack>,
}

/// What another client was found to do to a queue, and what is to be done.
#[derive(Debug, Clone)]
pub(super) struct Meddling {
    pub(super) text: String,
    pub(super) advice: &'static str,
}

impl Default for Meddling {
    fn default() -> Self {
        Meddling {
            text: "another client removes or inserts elements".to_owned(),
            advice: "This delivery needs the queue to itself: find the client (CLIENT LIST), or use at-most-once for a list.",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Notice,
    /// Events are late, or will never be written.
    Warning,
    /// Nothing gets on.
    Bad,
}

/// The state in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    level: Level,
    /// What is the case, without figures: it changes only when something happens.
    kind: &'static str,
    /// What is the case.
    text: String,
    /// What is to be done.
    advice: String,
    /// What the server that is down says.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn summary(level: Level, kind: &'static str, text: String, advice: impl Into<String>) -> Summary {
    Summary { level, kind, text, advice: advice.into(), error: None }
}

impl Facts {
    /// The worst there is.
    pub(super) fn summary(&self) -> Summary {
        None.or_else(|| self.stopping())
            .or_else(|| self.redis_down())
            .or_else(|| self.redis_refuses())
            .or_else(|| self.mongodb_down())
            .or_else(|| self.starting())
            .or_else(|| self.obstructed())
            .or_else(|| self.refused())
            .or_else(|| self.held_back())
            .or_else(|| self.not_drained())
            .or_else(|| self.late())
            .or_else(|| self.trouble())
            .or_else(|| self.dead_letters())
            .or_else(|| self.paused())
            .or_else(|| self.taking_over())
            .or_else(|| self.recovering())
            .or_else(|| self.foreign_pops())
            .or_else(|| self.receipts_refused())
            .unwrap_or_else(|| self.fine())
    }

    fn sum(&self, of: impl Fn(&QueueFacts) -> u64) -> u64 {
        self.queues.iter().map(of).sum()
    }

    fn arrived_per_second(&self) -> f64 {
        self.queues.iter().map(|queue| queue.arrived_per_second).sum()
    }

    fn settled_per_second(&self) -> f64 {
        self.queues.iter().map(|queue| queue.settled_per_second).sum()
    }

    fn stopping(&self) -> Option<Summary> {
        if !self.stopping {
            return None;
        }
        let text = match self.sum(|queue| queue.held) {
            0 => "Stopping: everything that was read is written.".to_owned(),
            held => format!("Stopping: {} to be written.", events(held, "is still", "are still")),
        };
        let advice = "No more is read. What is not written by shutdown.deadline stays in Redis.";
        Some(summary(Level::Notice, "stopping", text, advice))
    }

    fn redis_down(&self) -> Option<Summary> {
        let DependencyState::Down(time, error) = &self.redis else { return None };
        let also = match self.mongodb {
            DependencyState::Down(..) => " MongoDB is down, too.",
            DependencyState::Up(_) | DependencyState::Refuses(..) | DependencyState::Unknown => "",
        };
        let time = span(*time);
        let text =
            format!("Redis has been down for {time}: no event can be read, and producers can push none.");
        let advice = format!(
            "See that Redis runs and that redis.url is right; tidegate tries again until it is back.{also}"
        );
        Some(Summary { error: Some(error.clone()), ..summary(Level::Bad, "redis-down", text, advice) })
    }

    fn redis_refuses(&self) -> Option<Summary> {
        let DependencyState::Refuses(time, error) = &self.redis else { return None };
        let text =
            format!("{error}, for {}: nothing is drained that needs it, nothing is lost.", span(*time));
        let advice = if error.contains("refuses the credentials") {
            "Put right what redis.url_file, redis.password_file or redis.password_command gives: it is read again. What stands \
             in the configuration itself is read on SIGHUP."
        } else {
            "Grant it, or see what Redis lacks: disk, replicas, a primary. tidegate goes on by itself then."
        };
        Some(summary(Level::Bad, "redis-refuses", text, advice))
    }

    fn mongodb_down(&self) -> Option<Summary> {
        let DependencyState::Down(time, error) = &self.mongodb else { return None };
        // Before Redis has answered, nobody knows how much is there.
        let known = matches!(self.redis, DependencyState::Up(_));
        let waiting = match self.sum(|queue| queue.depth) {
            _ if !known => "events wait in Redis, nothing is lost".to_owned(),
            0 => "no event waits in Redis".to_owned(),
            depth => format!("{} in Redis, nothing is lost", events(depth, "waits", "wait")),
        };
        let in_memory = self.sum(|queue| if queue.at_most_once { queue.held } else { 0 });
        let memory = match in_memory {
            0 => String::new(),
            held => format!(" {} in memory only: do not restart tidegate.", events(held, "is", "are")),
        };
        let arriving = match self.arrived_per_second() {
            none if none < 0.05 => String::new(),
            some => format!(" {} arrive a second; see that Redis has room for them.", rate(some)),
        };
        let text = format!("MongoDB has been down for {}: {waiting}.{memory}", span(*time));
        let advice = format!(
            "See that MongoDB runs and has a primary; tidegate tries again until it is back.{arriving}"
        );
        Some(Summary { error: Some(error.clone()), ..summary(Level::Bad, "mongodb-down", text, advice) })
    }

    fn starting(&self) -> Option<Summary> {
        let missing = match (&self.redis, &self.mongodb) {
            (DependencyState::Unknown, DependencyState::Unknown) => "Redis and MongoDB have",
            (DependencyState::Unknown, _) => "Redis has",
            (_, DependencyState::Unknown) => "MongoDB has",
            _ => return None,
        };
        let text = format!("Starting: {missing} not answered yet.");
        Some(summary(Level::Notice, "starting", text, "This takes a few seconds at most."))
    }

    /// Whether both servers have been back long enough for what they held up to go on.
    fn servers_answer(&self) -> bool {
        let answers =
            |health: &DependencyState| matches!(health, DependencyState::Up(time) if *time >= STUCK);
        answers(&self.redis) && answers(&self.mongodb)
    }

    fn obstructed(&self) -> Option<Summary> {
        let (queue, obstacle) =
            self.queues.iter().find_map(|queue| Some((queue, queue.obstacle.as_ref()?)))?;
        let text = format!("{} is not drained: {}.", queue.key, obstacle.text);
        Some(summary(Level::Bad, "obstructed", text, obstacle.advice))
    }

    fn refused(&self) -> Option<Summary> {
        if !self.servers_answer() {
            return None;
        }
        let stuck = self.queues.iter().filter_map(|queue| Some((queue, queue.retrying?)));
        let (queue, time) = stuck.max_by_key(|(_, time)| *time).filter(|(_, time)| *time >= STUCK)?;
        let text = format!("MongoDB answers, but writes of {} have failed for {}.", queue.key, span(time));
        let advice = "The last error is told below, under MongoDB. Usual causes: rights on one collection, a write concern that cannot be met.";
        Some(summary(Level::Bad, "refused", text, advice))
    }

    fn held_back(&self) -> Option<Summary> {
        let held = self.queues.iter().filter_map(|queue| Some((queue, queue.held_back.as_ref()?)));
        let (queue, held) = held.max_by_key(|(_, held)| held.documents)?;
        let documents = match held.documents {
            1 => "1 document".to_owned(),
            documents => format!("{} documents", number(documents as u64)),
        };
        let text = format!(
            "MongoDB refuses to write {documents} of {} from {}: {} for {}. Other documents are written.",
            held.collection,
            queue.key,
            events(held.events, "waits", "wait"),
            span(held.since.elapsed())
        );
        let advice = "See what MongoDB says. Rights, quotas and the like are waited for; what nobody knows becomes a dead letter after dead_letter.patience.";
        Some(Summary {
            error: Some(held.error.clone()),
            ..summary(Level::Warning, "held-back", text, advice)
        })
    }

    fn not_drained(&self) -> Option<Summary> {
        if !self.servers_answer() {
            return None;
        }
        let queue =
            self.queues.iter().find(|queue| queue.phase == Phase::Connecting && queue.phase_for >= STUCK)?;
        let time = span(queue.phase_for);
        let text = format!("{} is not being drained: taking it over has not worked for {time}.", queue.key);
        Some(summary(
            Level::Bad,
            "not-drained",
            text,
            "The log says what is in the way; tidegate tries again until it works.",
        ))
    }

    fn late(&self) -> Option<Summary> {
        let over = |queue: &&QueueFacts| queue.oldest_age.saturating_sub(queue.window);
        let queue = self.queues.iter().max_by_key(over)?;
        if over(&queue) < LATE {
            return None;
        }
        let depth = number(queue.depth);
        let (arrive, settle) = (queue.arrived_per_second, queue.settled_per_second);
        let rates = format!("{} arrive a second, {} are settled", rate(arrive), rate(settle));
        let outlook = if settle < 0.05 {
            "None was settled in the last seconds".to_owned()
        } else if settle > arrive * 1.02 {
            let left = Duration::from_secs_f64(queue.depth as f64 / (settle - arrive));
            format!("{rates}: they catch up in about {}", span(left.max(Duration::from_secs(1))))
        } else {
            format!("{rates}: they fall behind")
        };
        let text = format!(
            "Events of {} are late: the oldest has waited {}, {depth} are in the queue.",
            queue.key,
            span(queue.oldest_age)
        );
        let advice = if queue.lanes_limited > 0 {
            "batch.max_writes_per_second holds writes back: raise it if MongoDB can take more.".to_owned()
        } else if queue.lanes_writing * 2 >= queue.lanes {
            format!(
                "{} of {} lanes wait for MongoDB: look at its load. More lanes (lanes.count) help if it has cores to spare.",
                queue.lanes_writing, queue.lanes
            )
        } else if self.buffer_is_full {
            "The buffer is full: another queue may hold it, or buffer.max_bytes is too small.".to_owned()
        } else {
            "MongoDB keeps up; look at the processors of tidegate and Redis.".to_owned()
        };
        Some(summary(Level::Warning, "late", text, format!("{outlook}. {advice}")))
    }

    fn trouble(&self) -> Option<Summary> {
        let (count, task, error) = self.trouble.as_ref()?;
        let also = match count - 1 {
            0 => String::new(),
            1 => " Another task fails, too.".to_owned(),
            more => format!(" {more} more tasks fail, too."),
        };
        let text = format!("Events are written, but {task} fails.{also}");
        let advice = "What MongoDB says is below. tidegate tries again until it works, without a restart.";
        Some(Summary { error: Some(error.clone()), ..summary(Level::Warning, "trouble", text, advice) })
    }

    fn paused(&self) -> Option<Summary> {
        let mut paused = self.queues.iter().filter_map(|queue| Some((queue, queue.paused.as_ref()?)));
        let (queue, note) = paused.next()?;
        let by = if note.by.is_empty() { String::new() } else { format!(" by {}", cut(&note.by, 100)) };
        let also = match paused.count() {
            0 => String::new(),
            1 => " Another queue is paused, too.".to_owned(),
            more => format!(" {} more queues are paused, too.", number(more as u64)),
        };
        let waiting = match queue.depth {
            0 => "no event waits in Redis".to_owned(),
            depth => format!("{} in Redis", events(depth, "waits", "wait")),
        };
        let text = format!("{} has been paused{by} for {}: {waiting}.{also}", queue.key, span(note.lasts()));
        let why =
            if note.reason.is_empty() { String::new() } else { format!("{}. ", cut(&note.reason, 300)) };
        let advice = format!("{why}tidegate resume {} lets it go on.", queue.key);
        Some(summary(Level::Notice, "paused", text, advice))
    }

    fn taking_over(&self) -> Option<Summary> {
        let queue = self.queues.iter().find(|queue| queue.phase == Phase::Connecting)?;
        let text = format!("{} is about to be taken over.", queue.key);
        Some(summary(Level::Notice, "taking-over", text, "This takes a few seconds at most."))
    }

    fn recovering(&self) -> Option<Summary> {
        let queue = self.queues.iter().find(|queue| queue.phase == Phase::Recovering)?;
        let held = events(queue.held, "is", "are");
        let text = format!("Taking {} over: {held} being settled that a former owner had read.", queue.key);
        Some(summary(Level::Notice, "recovering", text, "Then new events are read. There is nothing to do."))
    }

    fn foreign_pops(&self) -> Option<Summary> {
        let queue = self.queues.iter().find(|queue| queue.foreign_pops > 0)?;
        let Meddling { text, advice } = queue.meddling.clone().unwrap_or_default();
        let text = format!("{}: {text}; some events may be lost or applied twice.", queue.key);
        let advice = format!("Found so far: {}. {advice}", number(queue.foreign_pops));
        Some(summary(Level::Notice, "foreign-pops", text, advice))
    }

    fn receipts_refused(&self) -> Option<Summary> {
        let error = self.receipts_refused.as_ref()?;
        let text = format!("Receipts cannot be published: {error}. Events are written all the same.");
        let advice = "Whoever listens is told nothing; GET /durable/QUEUE/OFFSET answers. Grant the user PUBLISH and the channels.";
        Some(summary(Level::Notice, "receipts-refused", text, advice))
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
