//! Holds coalescing to its law, against a real server.
//! For any document to start with, the segments written in order leave the same document as the changes applied one by
//! one, and the same changes are refused.
//!
//! `LAW_CASES` says how many sequences of changes are tried, `LAW_SEED` which ones. Numbers compare by
//! value and kind; whether an integer takes 32 or 64 bits may differ where a sum passed 32 bits on the way.

mod generate;
mod plain;
mod rfc;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::Database;
use serde_json::Value as Json;

use self::generate::Generator;
use super::bulk_command::CommandLimits;
use super::command::{Command, Encoder, Guard};
use super::reply::verdicts;
use super::{Tombstones, Verdict, write_concern};
use crate::buffer::Buffer;
use crate::change::Collections;
use crate::change::{EntityRef, Placed};
use crate::coalesce::{PendingUpdate, Segment, Wrong, with_wrong_rule};
use crate::config::{Config, Native};
use crate::decode::Decoder;
use crate::ledger::{Ledger, Unsettled};
use crate::metrics::QueueMetrics;
use crate::raw::Value;
use crate::sink::Write;

#[path = "../../../tests/suite/support/mod.rs"]
pub(super) mod support;

use self::support::Mongo;

/// A document to start with, and the native events that happen to it, without collection and id.
#[derive(Debug, Clone)]
struct Case {
    start: Option<Document>,
    changes: Vec<Json>,
}

/// What became of a case.
#[derive(Debug, PartialEq)]
struct Outcome {
    document: Option<Document>,
    refused: BTreeSet<usize>,
}

const SEQUENCES: usize = 20_000;
const BATCH: usize = 2_000;

/// Cases that failed once.
const REGRESSIONS: &str = include_str!("regressions.jsonl");

#[tokio::test]
async fn coalescing_keeps_the_law() -> anyhow::Result<()> {
    let court = Court::open().await?;
    let number = |name, default| std::env::var(name).ok().map_or(Ok(default), |text| text.parse());
    let (cases, seed) = (number("LAW_CASES", SEQUENCES)?, number("LAW_SEED", 1)? as u64);
    println!("LAW_CASES={cases} LAW_SEED={seed}");
    let mut generator = Generator::new(seed);
    let mut batch: Vec<Case> =
        REGRESSIONS.lines().filter(|l| !l.trim().is_empty()).map(Case::parse).collect();
    let mut left = cases;
    let mut folded = (0, 0);
    while left > 0 || !batch.is_empty() {
        court.inserts.fetch_not(Ordering::Relaxed);
        let take = left.min(BATCH);
        batch.extend((0..take).map(|_| generator.case()));
        left -= take;
        let (broken, writes) = court.judge(&batch).await?;
        folded = (folded.0 + batch.iter().map(|case| case.changes.len()).sum::<usize>(), folded.1 + writes);
        if let Some(at) = broken.first() {
            let case = court.shrink(batch[*at].clone()).await?;
            let (plain, folded) = court.outcomes(std::slice::from_ref(&case)).await?;
            panic!(
                "{} of {} cases break the law; one, shrunk (a line for regressions.jsonl):\n{}\none by one: {:?}\ncoalesced:  {:?}",
                broken.len(),
                batch.len(),
                case.line(),
                plain[0],
                folded.0[0],
            );
        }
        batch.clear();
    }
    println!("{} changes took {} writes", folded.0, folded.1);
    assert!(folded.1 < folded.0, "nothing was folded");
    Ok(())
}

#[tokio::test]
async fn wrong_rules_are_caught() -> anyhow::Result<()> {
    let court = Court::open().await?;
    for wrong in [Wrong::SetHidesInc, Wrong::UnsetUndoesSet] {
        let mut generator = Generator::new(2);
        let cases: Vec<Case> = (0..3000).map(|_| generator.case()).collect();
        let broken = with_wrong_rule(wrong, || court.fold_all(&cases));
        let (plain, folded) = (court.plain(&cases).await?, court.coalesced(&cases, broken).await?);
        let caught = (0..cases.len()).filter(|at| !same(&plain[*at], &folded.0[*at])).count();
        println!("{wrong:?}: caught in {caught} of {} cases", cases.len());
        assert!(caught > 0, "{wrong:?} was not caught");
    }
    Ok(())
}

impl Case {
    fn parse(line: &str) -> Self {
        let json: Json = serde_json::from_str(line).expect("a regression is a line of JSON");
        let start = match &json["start"] {
            Json::Null => None,
            start => match Bson::try_from(start.clone()).expect("extended JSON") {
                Bson::Document(document) => Some(document),
                other => panic!("{other} is no document"),
            },
        };
        Case { start, changes: json["changes"].as_array().expect("changes").clone() }
    }

    fn line(&self) -> String {
        let start = self.start.clone().map(|start| Bson::Document(start).into_canonical_extjson());
        serde_json::json!({ "start": start, "changes": self.changes }).to_string()
    }
}

/// What is pending for a case: segments, with the places of the events they cover.
type Folded = Vec<VecDeque<Segment>>;

/// A server, and what is needed to write to it as the daemon does.
struct Court {
    _server: Mongo,
    database: Database,
    collections: Collections,
    config: Config,
    ledger: Arc<Ledger>,
    /// Whether documents are inserted where they can be.
    inserts: AtomicBool,
}

impl Court {
    async fn open() -> anyhow::Result<Self> {
        let mut server = Mongo::shared().await?;
        let database = server.database_name("law");
        let native = Native { collections: vec!["folded".into()] };
        let config = Config { native, ..Config::default() };
        let buffer = Buffer::new(&config.buffer);
        Ok(Court {
            database: server.database(&database).await?,
            _server: server,
            collections: Collections::new(&config),
            ledger: Ledger::new(Arc::new(QueueMetrics::new("law", &[])), buffer),
            config,
            inserts: AtomicBool::new(false),
        })
    }

    /// The places of the cases that break the law, and how many writes coalescing took.
    async fn judge(&self, cases: &[Case]) -> anyhow::Result<(Vec<usize>, usize)> {
        let (plain, (folded, writes)) = self.outcomes(cases).await?;
        Ok(((0..cases.len()).filter(|at| !same(&plain[*at], &folded[*at])).collect(), writes))
    }

    async fn outcomes(&self, cases: &[Case]) -> anyhow::Result<(Vec<Outcome>, (Vec<Outcome>, usize))> {
        let folded = self.fold_all(cases);
        Ok((self.plain(cases).await?, self.coalesced(cases, folded).await?))
    }

    /// Leaves out change after change for as long as the law stays broken.
    async fn shrink(&self, mut case: Case) -> anyhow::Result<Case> {
        loop {
            let mut smaller: Vec<Case> = (0..case.changes.len())
                .map(|at| {
                    let mut smaller = case.clone();
                    smaller.changes.remove(at);
                    smaller
                })
                .collect();
            for field in case.start.iter().flat_map(Document::keys) {
                let mut less = case.clone();
                less.start.as_mut().map(|start| start.remove(field));
                smaller.push(less);
            }
            smaller.extend(case.start.is_some().then(|| Case { start: None, ..case.clone() }));
            match self.judge(&smaller).await?.0.first() {
                Some(at) => case = smaller.swap_remove(*at),
                None => return Ok(case),
            }
        }
    }

    fn decoder(&self) -> Decoder {
        Decoder::new(&self.config)
    }

    fn event(at: usize, change: &Json) -> Vec<u8> {
        let mut event = change.clone();
        event["collection"] = "folded".into();
        event["id"] = at.into();
        event.to_string().into_bytes()
    }

    /// Folds each case's changes; the event at place `n` has the offset `n + 1`.
    fn fold_all(&self, cases: &[Case]) -> Folded {
        let mut decoder = self.decoder();
        let fold = |(at, case): (usize, &Case)| {
            let mut pending: Option<PendingUpdate> = None;
            for (n, change) in case.changes.iter().enumerate() {
                let event = Self::event(at, change);
                let change = decoder.decode(&event).unwrap_or_else(|e| panic!("{change}: {e}"));
                let placed = Placed { offset: n as i64 + 1, hash: 0, change };
                match &mut pending {
                    Some(pending) => {
                        pending.fold(&placed, 1 << 20);
                    }
                    None => pending = Some(PendingUpdate::new(&placed)),
                }
            }
            pending.map(PendingUpdate::into_segments).unwrap_or_default()
        };
        cases.iter().enumerate().map(fold).collect()
    }

    fn single(&self, at: usize, change: &Json, offset: i64) -> Segment {
        let event = Self::event(at, change);
        let mut decoder = self.decoder();
        let change = decoder.decode(&event).expect("it was decoded before");
        PendingUpdate::new(&Placed { offset, hash: 0, change }).take_first().expect("one segment")
    }

    /// Writes the segments of all cases, one a case and round; refused ones event by event.
    async fn coalesced(&self, cases: &[Case], folded: Folded) -> anyhow::Result<(Vec<Outcome>, usize)> {
        self.start("folded", cases).await?;
        let mut queues = folded;
        let mut refused: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); cases.len()];
        let mut count = 0;
        loop {
            let mut writes = Vec::new();
            for (at, queue) in queues.iter_mut().enumerate() {
                if let Some(segment) = queue.pop_front() {
                    writes.push(self.write(at, segment));
                }
            }
            if writes.is_empty() {
                break;
            }
            count += writes.len();
            for (write, verdict) in writes.iter().zip(self.send(&writes).await?) {
                let at = write.hash as usize;
                let segment = &write.segment;
                match verdict {
                    // A deletion that found nothing.
                    Verdict::Applied | Verdict::Conflict => {}
                    Verdict::Refused(_) if segment.events == 1 => {
                        refused[at].insert(segment.first as usize - 1);
                    }
                    Verdict::Refused(_) => {
                        for offset in (segment.first..=segment.last).rev() {
                            let single = self.single(at, &cases[at].changes[offset as usize - 1], offset);
                            queues[at].push_front(single);
                        }
                    }
                    other => anyhow::bail!("{other:?}"),
                }
            }
        }
        Ok((self.finish("folded", refused).await?, count))
    }

    fn write(&self, at: usize, segment: Segment) -> Write {
        let id = Value::from(crate::raw::Number::int(at as i64));
        let collection = self.collections.find("folded").expect("it is configured");
        let entity = EntityRef { collection, id: id.get(), shard_key: &[] };
        let unsettled: Unsettled = self.ledger.receive(0);
        Write::new(entity.into(), at as u64, segment, unsettled, None)
    }

    async fn send(&self, writes: &[Write]) -> anyhow::Result<Vec<Verdict>> {
        let guard = Guard::new("law");
        let encoder = Encoder {
            collections: &self.collections,
            limits: CommandLimits { max_bytes: 16 << 20, max_statements: 100_000 },
            write_concern: &write_concern("1"),
            guard: Some(&guard),
            tombstones: &Tombstones::default(),
            ordered: false,
        };
        let mut all = vec![Verdict::Untried; writes.len()];
        let inserts = if self.inserts.load(Ordering::Relaxed) { writes } else { &[] };
        for command in encoder.inserts(inserts.iter().enumerate()) {
            for (at, verdict) in self.run(command).await? {
                if matches!(verdict, Verdict::Applied) {
                    all[at] = verdict;
                }
            }
        }
        let untried: Vec<_> = (0..all.len()).filter(|at| matches!(all[*at], Verdict::Untried)).collect();
        for command in encoder.commands(untried.into_iter().map(|at| (at, &writes[at]))) {
            for (at, verdict) in self.run(command).await? {
                all[at] = verdict;
            }
        }
        Ok(all)
    }

    async fn run(&self, mut command: Command) -> anyhow::Result<Vec<(usize, Verdict)>> {
        let body = RawDocumentBuf::from_bytes(std::mem::take(&mut command.body))?;
        let reply = self.database.run_raw_command(body).await?;
        let verdicts = verdicts(&command, false, true, &reply);
        Ok(command.writes.into_iter().zip(verdicts).collect())
    }

    async fn start(&self, collection: &str, cases: &[Case]) -> anyhow::Result<()> {
        let collection = self.database.collection::<Document>(collection);
        collection.drop().await?;
        let documents = cases.iter().enumerate().filter_map(|(at, case)| {
            let mut document = doc! {"_id": at as i32};
            document.extend(case.start.clone()?);
            Some(document)
        });
        let documents: Vec<_> = documents.collect();
        if !documents.is_empty() {
            collection.insert_many(documents).await?;
        }
        Ok(())
    }

    async fn finish(&self, collection: &str, refused: Vec<BTreeSet<usize>>) -> anyhow::Result<Vec<Outcome>> {
        let mut documents = self.documents(collection).await?;
        let outcome = |(at, refused)| Outcome { document: documents.remove(&at), refused };
        Ok(refused.into_iter().enumerate().map(outcome).collect())
    }

    /// The cases' documents, as they are.
    async fn documents(&self, collection: &str) -> anyhow::Result<BTreeMap<usize, Document>> {
        let mut cursor = self.database.collection::<Document>(collection).find(doc! {}).await?;
        let mut documents = BTreeMap::new();
        while cursor.advance().await? {
            let mut document = cursor.deserialize_current()?;
            document.remove("_tidegate");
            documents.insert(document.get_i32("_id")? as usize, document);
        }
        Ok(documents)
    }
}

fn same(a: &Outcome, b: &Outcome) -> bool {
    let documents = match (&a.document, &b.document) {
        (Some(a), Some(b)) => same_fields(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    documents && a.refused == b.refused
}

fn same_fields(a: &Document, b: &Document) -> bool {
    a.len() == b.len()
        && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same_value(value, other)))
}

fn same_value(a: &Bson, b: &Bson) -> bool {
    match (a, b) {
        (Bson::Document(a), Bson::Document(b)) => same_fields(a, b),
        (Bson::Array(a), Bson::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b))
        }
        (Bson::Double(a), Bson::Double(b)) => a == b || (a - b).abs() <= a.abs().max(b.abs()) * 1e-12,
        // Only `$currentDate` makes dates here, each at its own time.
        (Bson::DateTime(_), Bson::DateTime(_)) => true,
        (Bson::Int32(a), Bson::Int64(b)) | (Bson::Int64(b), Bson::Int32(a)) => i64::from(*a) == *b,
        (a, b) => a == b,
    }
}
