//! Draws from the seed what a round is to be.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::deck::{DECK, Deletions, Fault};
use crate::timing;

/// So many documents that most events are the first of theirs.
const MANY: usize = 5_000;
/// Of so many, a busy server does not write a thousand at once within a short timeout, however often it is asked to.
const SMALL_BATCH: usize = 100;

/// One round.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) round: u64,
    pub(crate) fault: Fault,
    /// Tidegate is a release build.
    pub(crate) release: bool,
    pub(crate) instances: usize,
    pub(crate) entities: usize,
    /// Whether documents are deleted and made anew, and how.
    pub(crate) deletions: Option<Deletions>,
    /// The network fails for the owner alone.
    pub(crate) owner_only: bool,
    /// What the owner has written last is applied, but unanswered, when it strikes.
    pub(crate) unanswered: bool,
    /// The queue is taken over while Redis writes what it is going to lose.
    pub(crate) taken_over: bool,
    /// An instance of tidegate is killed while the fault lasts.
    pub(crate) kill_too: bool,
    /// Whether the queue is a stream, and then what becomes of its settled entries.
    pub(crate) trim: Option<&'static str>,
    /// Whether documents have hot states, which gateways fill.
    pub(crate) hot: bool,
    /// How long all is well, and then how long it is not.
    pub(crate) before: Duration,
    pub(crate) hold: Duration,
    /// Of the daemon's configuration.
    pub(crate) redis_timeout: Duration,
    pub(crate) mongodb_timeout: Duration,
    pub(crate) max_delay: Duration,
    pub(crate) max_ops: usize,
    pub(crate) max_events: usize,
    pub(crate) lanes: usize,
}

impl Plan {
    /// Draws a round. The same seed and number always make the same one.
    pub(crate) fn draw(seed: u64, round: u64) -> Self {
        let fault = deal(seed, round);
        let mut rng = stream(seed, round, Stream::Plan);
        // Some give up while the fault lasts, some sit it out.
        let mut timeout =
            || rng.choice([300, 700, 3000]).map_or(Duration::from_secs(1), Duration::from_millis);
        let (redis_timeout, mongodb_timeout) = (timeout(), timeout());
        // A source of its own, so that rounds are what they were before there were streams.
        let mut kind = stream(seed, round, Stream::Kind);
        let trim = kind.choice(["\"keep\"", "\"delete\"", "{ maxlen = 50 }"]);
        let release = stream(seed, round, Stream::Build).u8(..3) > 0;
        let hot = fault.redis_keeps_its_word() && stream(seed, round, Stream::Hot).bool();
        // Mostly documents that are new: those are inserted. Who looks at hot states looks at each document.
        let mut many = stream(seed, round, Stream::Many);
        let many = (!hot && many.u8(..3) == 0).then(|| many.usize(MANY..20_000));
        let many = many.filter(|_| !fault.kills_mongo());
        let is_hasty = many.is_some() && mongodb_timeout < Duration::from_secs(1);
        let largest = if is_hasty { SMALL_BATCH } else { 1000 };
        Self {
            seed,
            round,
            fault,
            release,
            instances: if fault.needs_two() { 2 } else { rng.usize(1..=2) },
            entities: {
                // A server that syncs every document is slow.
                let few = rng.usize(if fault.kills_mongo() { 200..=250 } else { 200..=500 });
                many.unwrap_or(few)
            },
            deletions: fault.deletions(),
            owner_only: rng.bool(),
            unanswered: fault.may_find_writes_unanswered() && rng.bool(),
            taken_over: !fault.redis_keeps_its_word() && rng.bool(),
            kill_too: !fault.needs_two()
                && !matches!(fault, Fault::KillTidegate | Fault::Restart)
                && rng.u8(..3) == 0,
            trim: trim.filter(|_| kind.u8(..3) == 0),
            hot,
            before: Duration::from_millis(rng.u64(200..700)),
            hold: Duration::from_millis(rng.u64(fault.hold())),
            redis_timeout,
            mongodb_timeout,
            max_delay: Duration::from_millis(rng.u64(1..=50)),
            max_ops: if rng.bool() { largest } else { 40 },
            // With a small buffer on top, a server that syncs every document cannot keep up with the producers.
            max_events: if fault.kills_mongo() || rng.bool() { 100_000 } else { 1_000 },
            lanes: rng.usize(1..=4),
        }
    }

    /// The same, with a release build only if there is one.
    pub(crate) fn with(mut self, release_build: bool) -> Self {
        self.release &= release_build;
        self
    }

    /// A source of the round's other random choices.
    pub(crate) fn stream(&self, stream: Stream) -> Rng {
        self::stream(self.seed, self.round, stream)
    }

    /// The daemon's configuration.
    pub(crate) fn config(&self, queue: &str) -> String {
        let Self { redis_timeout, mongodb_timeout, max_delay, max_ops, max_events, lanes, .. } = self;
        // Native deletions are hard, but a route may take them.
        let tombstones = match self.deletions {
            Some(Deletions::Tombstone) => {
                "[[routes]]\n\
                 when = { delete = true }\n\
                 collection = \"documents\"\n\
                 id = \"id\"\n\
                 delete = true\n\
                 deletes = \"tombstone\"\n"
            }
            Some(Deletions::Hard) | None => "",
        };
        let (hot, no_event) = if self.hot {
            let no_event = "[[routes]]\n\
                 when = { type = \"none\" }\n\
                 collection = \"documents\"\n\
                 id = \"id\"\n\
                 set = { nothing = \"nothing\" }\n";
            ("hot_state = { ttl = \"10m\" }\n", no_event)
        } else {
            ("", "")
        };
        let tombstones_hot = if tombstones.is_empty() { "" } else { hot };
        let stream = self.trim.map(|trim| format!("kind = \"stream\"\ntrim = {trim}\n")).unwrap_or_default();
        format!(
            "native.collections = [\"documents\", \"probes\"]\n\
             lease.ttl = \"1s\"\n\
             lanes.count = {lanes}\n\
             log.level = \"info,tidegate=debug\"\n\
             receipts.enabled = true\n\
             redis.timeout = \"{}ms\"\n\
             mongodb.timeout = \"{}ms\"\n\
             batch = {{ max_delay = \"{}ms\", max_ops = {max_ops} }}\n\
             buffer.max_events = {max_events}\n\
             [[queues]]\n\
             key = \"{queue}\"\n\
             {stream}{}{tombstones}{tombstones_hot}{no_event}{hot}",
            redis_timeout.as_millis(),
            mongodb_timeout.as_millis(),
            max_delay.as_millis(),
            timing::routes(hot),
        )
    }
}

/// The first number is all that it takes to repeat the round.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let two = if self.instances == 2 { "two" } else { "one" };
        let unanswered = if self.unanswered { ", unanswered writes" } else { "" };
        let taken_over = if self.taken_over { ", taken over" } else { "" };
        let kill = if self.kill_too { ", killed too" } else { "" };
        let stream = if self.trim.is_some() { ", stream" } else { "" };
        let hot = if self.hot { ", hot states" } else { "" };
        let release = if self.release { ", release build" } else { "" };
        let new = if self.entities >= MANY { ", new documents" } else { "" };
        write!(
            f,
            "{:>4}  {}, {two}{taken_over}{unanswered}{kill}{stream}{hot}{new}{release}",
            self.round, self.fault
        )
    }
}

/// Independent sources of randomness within a round.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Deck,
    Plan,
    Faults,
    Producer(u64),
    Kind,
    Hot,
    Many,
    Build,
}

fn stream(seed: u64, round: u64, stream: Stream) -> Rng {
    let stream = match stream {
        Stream::Deck => 0,
        Stream::Plan => 1,
        Stream::Faults => 2,
        Stream::Producer(n) => 3 + n,
        Stream::Kind => 1000,
        Stream::Hot => 1001,
        Stream::Many => 1002,
        Stream::Build => 1003,
    };
    // Seeds that differ in a bit make sequences that have nothing in common.
    let mut mixed = Rng::with_seed(seed);
    for part in [round, stream] {
        mixed = Rng::with_seed(mixed.u64(..) ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
    mixed
}

/// Deals faults from a shuffled deck, and then from the next.
fn deal(seed: u64, round: u64) -> Fault {
    let cards = DECK.len() as u64;
    let mut deck = DECK;
    stream(seed, round / cards, Stream::Deck).shuffle(&mut deck);
    deck[(round % cards) as usize]
}

#[test]
fn a_deck_has_every_fault_and_a_seed_has_one_sequence() {
    let deal = |seed, rounds: std::ops::Range<u64>| -> Vec<_> {
        rounds.map(|round| Plan::draw(seed, round).to_string()).collect()
    };
    assert_eq!(deal(7, 0..80), deal(7, 0..80));
    assert_eq!(deal(7, 0..80)[50..], deal(7, 50..80));
    assert_ne!(deal(7, 0..80), deal(8, 0..80));
    let mut faults: Vec<_> = (52..104).map(|round| Plan::draw(3, round).fault).collect();
    faults.sort_unstable();
    assert_eq!(faults, DECK);
}
