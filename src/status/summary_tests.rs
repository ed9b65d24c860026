//! Tests how each situation reads to the person on call.

use super::*;

fn queue() -> QueueFacts {
    QueueFacts {
        key: "edits".into(),
        at_most_once: false,
        phase: Phase::Active,
        phase_for: Duration::from_secs(60),
        obstacle: None,
        paused: None,
        depth: 0,
        held: 0,
        oldest_age: Duration::ZERO,
        window: Duration::ZERO,
        arrived_per_second: 0.0,
        settled_per_second: 0.0,
        durable_within: None,
        foreign_pops: 0,
        meddling: None,
        lanes: 4,
        lanes_limited: 0,
        lanes_writing: 0,
        retrying: None,
        held_back: None,
    }
}

fn facts(queue: QueueFacts) -> Facts {
    Facts {
        stopping: false,
        redis: DependencyState::Up(Duration::from_secs(60)),
        mongodb: DependencyState::Up(Duration::from_secs(60)),
        trouble: None,
        queues: vec![queue],
        dead_lately: 0,
        buffer_is_full: false,
        receipts_refused: None,
    }
}

fn down(seconds: u64) -> DependencyState {
    DependencyState::Down(Duration::from_secs(seconds), "connection refused".into())
}

fn told(facts: &Facts) -> String {
    let Summary { level, kind, text, advice, error } = facts.summary();
    format!("{level:?}, {kind}\n{text}\n{advice}\n{}", error.unwrap_or_default())
}

#[test]
fn all_is_well() {
    let busy = QueueFacts {
        depth: 80,
        arrived_per_second: 1204.0,
        settled_per_second: 1198.4,
        durable_within: Some(0.1),
        ..queue()
    };
    insta::assert_snapshot!(told(&facts(busy.clone())), @r"
    Ok, fine
    Everything is durable within 100 ms.
    1,204 events arrive a second, 1,198 are settled. There is nothing to do.
    ");
    insta::assert_snapshot!(told(&facts(queue())), @r"
    Ok, fine
    Everything is durable, and nothing waits.
    No events arrive. There is nothing to do.
    ");
    insta::assert_snapshot!(told(&facts(QueueFacts { depth: 1, ..queue() })), @r"
    Ok, fine
    1 event is on the way.
    No events arrive. There is nothing to do.
    ");
    let typed =
        QueueFacts { held: 40, window: Duration::from_secs(60), durable_within: Some(58.0), ..busy.clone() };
    insta::assert_snapshot!(told(&facts(typed)), @r"
    Ok, fine
    What is due is durable within 58 s; 40 events wait for company, up to 1 min.
    1,204 events arrive a second, 1,198 are settled. There is nothing to do.
    ");
    let after = QueueFacts { durable_within: Some(30.0), ..busy.clone() };
    insta::assert_snapshot!(told(&facts(after)), @r"
    Ok, fine
    Everything is durable; lately it took up to 30 s.
    1,204 events arrive a second, 1,198 are settled. There is nothing to do.
    ");
    insta::assert_snapshot!(told(&Facts { dead_lately: 3, ..facts(busy) }), @r"
    Warning, dead-letters
    3 dead letters in the last 5 minutes. What can be written is durable within 100 ms.
    1,204 events arrive a second, 1,198 are settled. Dead letters can never be written. They are kept, and the reasons are below; tidegate dead looks after them.
    ");
    insta::assert_snapshot!(told(&facts(QueueFacts { phase: Phase::Standby, depth: 9, ..queue() })), @r"
    Ok, standing-by
    Standing by: another instance drains the queue.
    This one takes over when the other ends or was not heard of for lease.ttl.
    ");
}

#[test]
fn a_server_is_away() {
    let waiting = QueueFacts {
        depth: 31_204,
        held: 900,
        oldest_age: Duration::from_secs(12),
        arrived_per_second: 400.0,
        ..queue()
    };
    insta::assert_snapshot!(told(&Facts { mongodb: down(12), ..facts(waiting.clone()) }), @r"
    Bad, mongodb-down
    MongoDB has been down for 12 s: 31,204 events wait in Redis, nothing is lost.
    See that MongoDB runs and has a primary; tidegate tries again until it is back. 400 arrive a second; see that Redis has room for them.
    connection refused
    ");
    let popped = QueueFacts { at_most_once: true, depth: 0, ..waiting.clone() };
    insta::assert_snapshot!(told(&Facts { mongodb: down(200), ..facts(popped) }), @r"
    Bad, mongodb-down
    MongoDB has been down for 3 min 20 s: no event waits in Redis. 900 events are in memory only: do not restart tidegate.
    See that MongoDB runs and has a primary; tidegate tries again until it is back. 400 arrive a second; see that Redis has room for them.
    connection refused
    ");
    insta::assert_snapshot!(told(&Facts { redis: down(3), mongodb: down(4), ..facts(waiting) }), @r"
    Bad, redis-down
    Redis has been down for 3 s: no event can be read, and producers can push none.
    See that Redis runs and that redis.url is right; tidegate tries again until it is back. MongoDB is down, too.
    connection refused
    ");
    let unknown = Facts { redis: DependencyState::Unknown, mongodb: down(9), ..facts(queue()) };
    insta::assert_snapshot!(told(&unknown), @r"
    Bad, mongodb-down
    MongoDB has been down for 9 s: events wait in Redis, nothing is lost.
    See that MongoDB runs and has a primary; tidegate tries again until it is back.
    connection refused
    ");
    insta::assert_snapshot!(told(&Facts { redis: DependencyState::Unknown, ..facts(queue()) }), @r"
    Notice, starting
    Starting: Redis has not answered yet.
    This takes a few seconds at most.
    ");
}

#[test]
fn events_are_late() {
    let late = QueueFacts {
        depth: 120_000,
        oldest_age: Duration::from_secs(34),
        arrived_per_second: 4000.0,
        settled_per_second: 21_000.0,
        lanes_writing: 4,
        ..queue()
    };
    insta::assert_snapshot!(told(&facts(late.clone())), @r"
    Warning, late
    Events of edits are late: the oldest has waited 34 s, 120,000 are in the queue.
    4,000 arrive a second, 21,000 are settled: they catch up in about 7 s. 4 of 4 lanes wait for MongoDB: look at its load. More lanes (lanes.count) help if it has cores to spare.
    ");
    let losing = QueueFacts { settled_per_second: 3000.0, lanes_writing: 0, ..late.clone() };
    insta::assert_snapshot!(told(&facts(losing)), @r"
    Warning, late
    Events of edits are late: the oldest has waited 34 s, 120,000 are in the queue.
    4,000 arrive a second, 3,000 are settled: they fall behind. MongoDB keeps up; look at the processors of tidegate and Redis.
    ");
    let stuck = QueueFacts { settled_per_second: 0.0, retrying: Some(Duration::from_secs(90)), ..late };
    insta::assert_snapshot!(told(&facts(stuck)), @r"
    Bad, refused
    MongoDB answers, but writes of edits have failed for 1 min 30 s.
    The last error is told below, under MongoDB. Usual causes: rights on one collection, a write concern that cannot be met.
    ");
    let not_owned = QueueFacts { phase: Phase::Connecting, ..queue() };
    let just_back = DependencyState::Up(Duration::from_secs(1));
    insta::assert_snapshot!(told(&Facts { mongodb: just_back, ..facts(not_owned.clone()) }), @r"
    Notice, taking-over
    edits is about to be taken over.
    This takes a few seconds at most.
    ");
    insta::assert_snapshot!(told(&facts(not_owned)), @r"
    Bad, not-drained
    edits is not being drained: taking it over has not worked for 1 min.
    The log says what is in the way; tidegate tries again until it works.
    ");
}

#[test]
fn what_goes_by_itself() {
    let held = QueueFacts { held: 1, ..queue() };
    insta::assert_snapshot!(told(&Facts { stopping: true, ..facts(held.clone()) }), @r"
    Notice, stopping
    Stopping: 1 event is still to be written.
    No more is read. What is not written by shutdown.deadline stays in Redis.
    ");
    insta::assert_snapshot!(told(&facts(QueueFacts { phase: Phase::Recovering, ..held })), @r"
    Notice, recovering
    Taking edits over: 1 event is being settled that a former owner had read.
    Then new events are read. There is nothing to do.
    ");
    insta::assert_snapshot!(told(&facts(QueueFacts { foreign_pops: 2, ..queue() })), @r"
    Notice, foreign-pops
    edits: another client removes or inserts elements; some events may be lost or applied twice.
    Found so far: 2. This delivery needs the queue to itself: find the client (CLIENT LIST), or use at-most-once for a list.
    ");
    let pushed = crate::source::Interference::PushedInFront(30);
    let meddling = Some(Meddling { text: pushed.text(), advice: pushed.advice() });
    insta::assert_snapshot!(told(&facts(QueueFacts { foreign_pops: 2, meddling, ..queue() })), @r"
    Notice, foreign-pops
    edits: 30 elements appeared in front of the head: a producer pushes with LPUSH where RPUSH is meant; some events may be lost or applied twice.
    Found so far: 2. Have the producer push with RPUSH: a queue grows at its tail. CLIENT LIST shows who used LPUSH last.
    ");
}

#[test]
fn what_redis_refuses_is_told_with_its_reason() {
    let refuses = |text: &str| DependencyState::Refuses(Duration::from_secs(65), text.into());
    let redis = refuses("Redis refuses: user worker may not HDEL on tidegate:{q}:dead");
    insta::assert_snapshot!(told(&Facts { redis, ..facts(queue()) }), @r"
    Bad, redis-refuses
    Redis refuses: user worker may not HDEL on tidegate:{q}:dead, for 1 min 5 s: nothing is drained that needs it, nothing is lost.
    Grant it, or see what Redis lacks: disk, replicas, a primary. tidegate goes on by itself then.
    ");
    let redis = refuses("Redis refuses the credentials: WRONGPASS invalid username-password pair");
    insta::assert_snapshot!(told(&Facts { redis, ..facts(queue()) }), @r"
    Bad, redis-refuses
    Redis refuses the credentials: WRONGPASS invalid username-password pair, for 1 min 5 s: nothing is drained that needs it, nothing is lost.
    Put right what redis.url_file, redis.password_file or redis.password_command gives: it is read again. What stands in the configuration itself is read on SIGHUP.
    ");
    let receipts_refused = Some("Redis refuses: NOPERM this user has no permissions".to_owned());
    insta::assert_snapshot!(told(&Facts { receipts_refused, ..facts(queue()) }), @r"
    Notice, receipts-refused
    Receipts cannot be published: Redis refuses: NOPERM this user has no permissions. Events are written all the same.
    Whoever listens is told nothing; GET /durable/QUEUE/OFFSET answers. Grant the user PUBLISH and the channels.
    ");
}

#[test]
fn a_task_that_fails_beside_the_draining() {
    let fails = |tasks| Some((tasks, "making the index i of \"c\"".to_owned(), "it is a view".to_owned()));
    insta::assert_snapshot!(told(&Facts { trouble: fails(1), ..facts(queue()) }), @r#"
    Warning, trouble
    Events are written, but making the index i of "c" fails.
    What MongoDB says is below. tidegate tries again until it works, without a restart.
    it is a view
    "#);
    let several = Facts { trouble: fails(3), ..facts(queue()) };
    assert!(told(&several).contains("fails. 2 more tasks fail, too."));
    // What is late is worse.
    let late = QueueFacts { oldest_age: Duration::from_secs(60), ..queue() };
    assert!(told(&Facts { trouble: fails(1), ..facts(late) }).contains("Warning, late"));
}

#[test]
fn who_has_paused_a_queue_is_told() {
    let note = |by: &str, reason: &str| Some(PauseNote::now(by.to_owned(), reason.to_owned()));
    let paused =
        QueueFacts { phase: Phase::Paused, paused: note("anna", "moving house"), depth: 1203, ..queue() };
    let one = told(&facts(paused.clone()));
    assert!(one.starts_with("Notice, paused\nedits has been paused by anna for "), "{one}");
    assert!(
        one.contains(": 1,203 events wait in Redis.\nmoving house. tidegate resume edits lets it go on."),
        "{one}"
    );
    let other = QueueFacts { key: "others".into(), paused: note("", ""), ..paused.clone() };
    let both = Facts { queues: vec![QueueFacts { depth: 0, ..other }, paused], ..facts(queue()) };
    let both = told(&both);
    assert!(both.starts_with("Notice, paused\nothers has been paused for "), "{both}");
    assert!(
        both.contains(": no event waits in Redis. Another queue is paused, too.\ntidegate resume others"),
        "{both}"
    );
}
