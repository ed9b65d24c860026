//! What a round is to be: everything that is drawn from the seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL of tidegate, some times, also while it recovers from the last.
    KillTidegate,
    /// SIGTERM of the owner, some times, and another one in its place: what a deployment does.
    Restart,
    /// SIGSTOP of the owner until another instance has taken over.
    StallOwner,
    /// The same, while what the owner sent to MongoDB is still on its way, and arrives after the takeover.
    StallOwnerLateWrites,
    /// The lease ends again and again, whatever the owner does.
    UselessLease,
    /// SIGKILL of MongoDB.
    KillMongo,
    /// No room for what MongoDB writes, and a restart when there is.
    FillMongo,
    /// SIGKILL of Redis, which syncs every write.
    KillRedis,
    /// SIGKILL of both.
    KillBoth,
    /// SIGKILL of Redis, whose AOF then lacks its last bytes.
    CutTail,
    /// A replica that has everything becomes the primary.
    PromoteCurrent,
    /// A replica that lags becomes the primary.
    PromoteLagging,
    /// The network between tidegate and a server.
    Link(Side, Trouble),
}

/// A server, as seen by tidegate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Redis,
    Mongo,
}

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Connections are cut, some times.
    Cut,
    /// Requests vanish.
    LoseRequests,
    /// Replies vanish.
    LoseReplies,
    /// Both vanish.
    LoseBoth,
    /// Requests wait, and arrive when it is over.
    HoldRequests,
    /// Everything takes a second longer, in each direction.
    Delay,
    /// 1 KiB passes a second, in each direction.
    Trickle,
}

use Fault::{
    CutTail, FillMongo, KillBoth, KillMongo, KillRedis, KillTidegate, Link, PromoteCurrent, PromoteLagging,
    Restart, StallOwner, StallOwnerLateWrites, UselessLease,
};
use Side::{Mongo, Redis};
use Trouble::{Cut, Delay, HoldRequests, LoseBoth, LoseReplies, LoseRequests, Trickle};

/// Every fault comes once in so many rounds, those of processes twice.
pub(crate) const DECK: [Fault; 38] = [
    KillTidegate,
    KillTidegate,
    Restart,
    Restart,
    StallOwner,
    StallOwner,
    StallOwnerLateWrites,
    StallOwnerLateWrites,
    UselessLease,
    UselessLease,
    KillMongo,
    KillMongo,
    FillMongo,
    FillMongo,
    KillRedis,
    KillRedis,
    KillBoth,
    KillBoth,
    CutTail,
    CutTail,
    PromoteCurrent,
    PromoteCurrent,
    PromoteLagging,
    PromoteLagging,
    Link(Redis, Cut),
    Link(Redis, LoseRequests),
    Link(Redis, LoseReplies),
    Link(Redis, LoseBoth),
    Link(Redis, HoldRequests),
    Link(Redis, Delay),
    Link(Redis, Trickle),
    Link(Mongo, Cut),
    Link(Mongo, LoseRequests),
    Link(Mongo, LoseReplies),
    Link(Mongo, LoseBoth),
    Link(Mongo, HoldRequests),
    Link(Mongo, Delay),
    Link(Mongo, Trickle),
];

impl Fault {
    /// Whether Redis keeps what it acknowledged, so that delivery is exactly-once.
    pub(crate) fn redis_keeps_its_word(self) -> bool {
        !matches!(self, CutTail | PromoteLagging)
    }

    /// Whether Redis is killed, and so must sync what it acknowledges.
    pub(crate) fn kills_redis(self) -> bool {
        matches!(self, KillRedis | KillBoth | CutTail)
    }

    /// The same of MongoDB. One whose disk is full does not end in order either.
    pub(crate) fn kills_mongo(self) -> bool {
        matches!(self, KillMongo | FillMongo | KillBoth)
    }

    pub(crate) fn has_replica(self) -> bool {
        matches!(self, PromoteCurrent | PromoteLagging)
    }

    /// Whether it takes a second instance to see anything.
    fn needs_two(self) -> bool {
        matches!(self, StallOwner | StallOwnerLateWrites | UselessLease)
    }

    /// Whether there are writes in MongoDB then of which tidegate does not know: not where the fault itself brings
    /// that about, or the owner never waits for anything.
    fn may_find_writes_unanswered(self) -> bool {
        !matches!(self, Restart | StallOwnerLateWrites | UselessLease | Link(Mongo, _))
    }

    /// What a hard deletion leaves can be undone by a write that reaches MongoDB after its owner is no more, as
    /// documented. So they are for rounds in which no write can be late, and tombstones for the others. Where Redis
    /// loses what it acknowledged, it may forget an applied deletion, and bring back what came before it: nothing
    /// would be left to judge by.
    fn deletions(self) -> Option<Deletions> {
        match self {
            KillTidegate | Restart | KillMongo => Some(Deletions::Hard),
            CutTail | PromoteLagging => None,
            _ => Some(Deletions::Tombstone),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            KillTidegate => "tidegate killed",
            Restart => "tidegate terminated",
            StallOwner => "owner stopped past its lease",
            StallOwnerLateWrites => "owner stopped, its writes arrive late",
            UselessLease => "lease made useless",
            KillMongo => "MongoDB killed",
            FillMongo => "MongoDB's disk full",
            KillRedis => "Redis killed, AOF always",
            KillBoth => "Redis and MongoDB killed",
            CutTail => "Redis killed, AOF tail cut",
            PromoteCurrent => "up-to-date replica promoted",
            PromoteLagging => "lagging replica promoted",
            Link(side, trouble) => {
                let trouble = match trouble {
                    Cut => "connections cut",
                    LoseRequests => "requests black-holed",
                    LoseReplies => "replies black-holed",
                    LoseBoth => "black-holed both ways",
                    HoldRequests => "requests held, then delivered",
                    Delay => "delayed 1 s each way",
                    Trickle => "trickling at 1 KiB/s",
                };
                return f.pad(&format!("{}: {trouble}", if *side == Redis { "Redis" } else { "MongoDB" }));
            }
        };
        f.pad(text)
    }
}

/// So many documents that most events are the first of theirs.
const MANY: usize = 5_000;

/// What is left of documents that are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletions {
    Hard,
    Tombstone,
}

/// One round.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) round: u64,
    pub(crate) fault: Fault,
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
        let slow = matches!(fault, Link(_, Delay | Trickle));
        let hold = if slow { 1500..2600 } else { 300..1500 };
        // Some give up while the fault lasts, some sit it out.
        let mut timeout =
            || rng.choice([300, 700, 3000]).map_or(Duration::from_secs(1), Duration::from_millis);
        let (redis_timeout, mongodb_timeout) = (timeout(), timeout());
        // A source of its own, so that rounds are what they were before there were streams.
        let mut kind = stream(seed, round, Stream::Kind);
        let trim = kind.choice(["\"keep\"", "\"delete\"", "{ maxlen = 50 }"]);
        let hot = fault.redis_keeps_its_word() && stream(seed, round, Stream::Hot).bool();
        // Mostly documents that are new: those are inserted. Who looks at hot states looks at each document.
        let mut many = stream(seed, round, Stream::Many);
        let many = (!hot && many.u8(..3) == 0).then(|| many.usize(MANY..20_000));
        Self {
            seed,
            round,
            fault,
            instances: if fault.needs_two() { 2 } else { rng.usize(1..=2) },
            entities: {
                // A server that syncs every document is slow.
                let few = rng.usize(if fault.kills_mongo() { 200..=250 } else { 200..=500 });
                many.filter(|_| !fault.kills_mongo()).unwrap_or(few)
            },
            deletions: fault.deletions(),
            owner_only: rng.bool(),
            unanswered: fault.may_find_writes_unanswered() && rng.bool(),
            taken_over: !fault.redis_keeps_its_word() && rng.bool(),
            kill_too: !fault.needs_two() && !matches!(fault, KillTidegate | Restart) && rng.u8(..3) == 0,
            trim: trim.filter(|_| kind.u8(..3) == 0),
            hot,
            before: Duration::from_millis(rng.u64(200..700)),
            hold: Duration::from_millis(rng.u64(hold)),
            redis_timeout,
            mongodb_timeout,
            max_delay: Duration::from_millis(rng.u64(1..=50)),
            max_ops: if rng.bool() { 1000 } else { 40 },
            // With a small buffer on top, a server that syncs every document cannot keep up with the producers.
            max_events: if fault.kills_mongo() || rng.bool() { 100_000 } else { 1_000 },
            lanes: rng.usize(1..=4),
        }
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
             redis.timeout = \"{}ms\"\n\
             mongodb.timeout = \"{}ms\"\n\
             batch = {{ max_delay = \"{}ms\", max_ops = {max_ops} }}\n\
             buffer.max_events = {max_events}\n\
             [[queues]]\n\
             key = \"{queue}\"\n\
             {stream}{tombstones}{tombstones_hot}{no_event}{hot}",
            redis_timeout.as_millis(),
            mongodb_timeout.as_millis(),
            max_delay.as_millis(),
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
        let new = if self.entities >= MANY { ", new documents" } else { "" };
        write!(f, "{:>4}  {}, {two}{taken_over}{unanswered}{kill}{stream}{hot}{new}", self.round, self.fault)
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
    let mut faults: Vec<_> = (38..76).map(|round| Plan::draw(3, round).fault).collect();
    faults.sort_unstable();
    assert_eq!(faults, DECK);
}
