//! Lists the faults there are, and draws from them.

use std::fmt;

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
    /// MongoDB answers what servers other than this one would, or this one in trouble.
    Forged(Answer),
    /// Redis answers, and takes no writes.
    Refused(Refusal),
}

/// What MongoDB answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// Codes that do not speak of the content, another for each document, for some of the statements.
    Codes,
    /// That nobody may write to the one collection, in place of each statement.
    ForbiddenStatements,
    /// The same in place of each command.
    ForbiddenCommands,
    /// The right answer, later than it is waited for.
    Slow,
    /// A duplicate key that does not say of which index, and sometimes of none.
    BareDuplicates,
}

/// Why Redis takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// `NOREPLICAS`
    NoReplicas,
    /// `OOM`
    Full,
    /// `NOPERM`
    Rights,
    /// `MISCONF`
    Disk,
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

use Answer::{BareDuplicates, Codes, ForbiddenCommands, ForbiddenStatements, Slow};
use Fault::{
    CutTail, FillMongo, Forged, KillBoth, KillMongo, KillRedis, KillTidegate, Link, PromoteCurrent,
    PromoteLagging, Refused, Restart, StallOwner, StallOwnerLateWrites, UselessLease,
};
use Refusal::{Disk, Full, NoReplicas, Rights};
use Side::{Mongo, Redis};
use Trouble::{Cut, Delay, HoldRequests, LoseBoth, LoseReplies, LoseRequests, Trickle};

/// Every fault comes once in so many rounds, those of processes and answers twice.
pub(crate) const DECK: [Fault; 52] = [
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
    Forged(Codes),
    Forged(Codes),
    Forged(ForbiddenStatements),
    Forged(ForbiddenStatements),
    Forged(ForbiddenCommands),
    Forged(ForbiddenCommands),
    Forged(Slow),
    Forged(Slow),
    Forged(BareDuplicates),
    Forged(BareDuplicates),
    Refused(NoReplicas),
    Refused(Full),
    Refused(Rights),
    Refused(Disk),
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

    /// Whether MongoDB's answers are forged.
    pub(crate) fn forges(self) -> bool {
        matches!(self, Forged(_))
    }

    /// Whether Redis needs an append-only file, to run out of disk.
    pub(crate) fn fills_redis(self) -> bool {
        matches!(self, Refused(Disk))
    }

    /// How long it lasts, in milliseconds.
    pub(crate) fn hold(self) -> std::ops::Range<u64> {
        match self {
            Link(_, Delay | Trickle) => 1500..2600,
            // Long enough for what is held back to be parked, sometimes.
            Forged(Codes | ForbiddenStatements | ForbiddenCommands) => 1000..7000,
            Forged(Slow) => 2000..4000,
            _ => 300..1500,
        }
    }

    /// Whether it takes a second instance to see anything.
    pub(crate) fn needs_two(self) -> bool {
        matches!(self, StallOwner | StallOwnerLateWrites | UselessLease)
    }

    /// Whether there are writes in MongoDB then of which tidegate does not know: not where the fault itself brings
    /// that about, or the owner never waits for anything.
    pub(crate) fn may_find_writes_unanswered(self) -> bool {
        !matches!(self, Restart | StallOwnerLateWrites | UselessLease | Link(Mongo, _) | Forged(_))
    }

    /// What a hard deletion leaves can be undone by a write that reaches MongoDB after its owner is no more, as
    /// documented. So they are for rounds in which no write can be late, and tombstones for the others. Where Redis
    /// loses what it acknowledged, it may forget an applied deletion, and bring back what came before it: nothing
    /// would be left to judge by.
    pub(crate) fn deletions(self) -> Option<Deletions> {
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
            Forged(Codes) => "MongoDB: trouble of its own, per statement",
            Forged(ForbiddenStatements) => "MongoDB: one collection refused, per statement",
            Forged(ForbiddenCommands) => "MongoDB: one collection refused, per command",
            Forged(Slow) => "MongoDB: answers after the timeout",
            Forged(BareDuplicates) => "MongoDB: E11000 without an index",
            Refused(NoReplicas) => "Redis: too few replicas to write",
            Refused(Full) => "Redis: out of memory",
            Refused(Rights) => "Redis: no right to write",
            Refused(Disk) => "Redis: disk full",
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

/// What is left of documents that are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletions {
    Hard,
    Tombstone,
}
