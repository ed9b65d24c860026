//! Takes letters out of their list: puts their events back into the queue, or drops them.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use anyhow::{Context, bail};
use tokio_util::task::AbortOnDropHandle;

use super::chosen::{Chosen, Desk, ReadLetter};
use super::plan::{Places, Planned, ReplayPlan};
use super::progress::{ProgressLine, ask};
use super::queues;
use super::shelf::{LetterPlace, Shelf, Walk};
use super::tell::amount;
use crate::change::EntityRef;
use crate::cli::dead::{self as arguments, Extent, Replay};
use crate::config::{Config, Delivery, Queue};
use crate::sample;
use crate::sink::{FoundWatermark, Guard, Sink};
use crate::source::{Picked, Taking};

/// Letters that are named when they are left.
const NAMED: usize = 20;
/// Documents asked for at once.
const DOCUMENTS: usize = 1_000;

/// A letter with its document's number, and where it was at first.
type Again = (usize, LetterPlace, ReadLetter);

/// What is done with the letters of one queue.
struct Work<'c> {
    queue: &'c Queue,
    shelf: Shelf<'c>,
    desk: Desk,
    taking: Taking,
    /// Says how far documents are. None: that does not matter.
    order: Option<(&'c Sink, Guard)>,
    /// The event that goes in place of the only letter's.
    edited: Option<Vec<u8>>,
    /// Letters in Redis.
    in_redis: u64,
    left: Left,
}

/// Letters that were left where they are.
#[derive(Debug, Default)]
struct Left {
    newer: u64,
    unfit: u64,
    lines: Vec<String>,
}

impl Left {
    fn newer(&mut self, offset: i64) {
        self.newer += 1;
        self.name(offset, "its document has moved on");
    }

    fn name(&mut self, offset: i64, why: &str) {
        if self.lines.len() < NAMED {
            self.lines.push(format!("  {offset}: {why}"));
        }
    }
}

pub(super) async fn drop_letters(
    config: &Config,
    asked: &arguments::Drop,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let chosen = Chosen::new(&asked.which, asked.offset);
    let sink = Sink::alone(config).await?;
    let mut extent = asked.extent.clone();
    let mut dropped = 0;
    for queue in queues(config, asked.which.queue.as_deref())? {
        let mut work = Work::new(config, queue, &sink, Taking::Drop).await?;
        dropped += work.run(&chosen, &mut extent, out).await?;
    }
    Ok(asked.offset.is_none() || dropped > 0)
}

pub(super) async fn replay(config: &Config, asked: &Replay, out: &mut impl Write) -> anyhow::Result<bool> {
    let chosen = Chosen::new(&asked.which, asked.offset);
    let edited = match &asked.event {
        Some(file) => {
            let event = sample::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let event = event.trim_ascii_end().to_vec();
            if let Some(fault) = Desk::new(config).fault(&event) {
                bail!("the event in {} would be a dead letter again: {fault}", file.display());
            }
            Some(event)
        }
        None => None,
    };
    let queues = queues(config, asked.which.queue.as_deref())?;
    if edited.is_some() && queues.len() > 1 {
        bail!("say with --queue which queue the letter is of");
    }
    let sink = Sink::alone(config).await?;
    let mut extent = asked.extent.clone();
    let (mut replayed, mut left) = (0, 0);
    for queue in queues {
        let mut work = Work::new(config, queue, &sink, Taking::Replay).await?;
        work.edited.clone_from(&edited);
        if queue.delivery == Delivery::ExactlyOnce && !asked.even_if_newer {
            let generation = work.shelf.letters.generation().await?;
            work.order = Some((&sink, Guard::new(queue.id()).in_generation(generation)));
        }
        replayed += work.run(&chosen, &mut extent, out).await?;
        left += work.left.newer + work.left.unfit;
    }
    sink.close().await;
    Ok(left == 0 && (asked.offset.is_none() || replayed > 0))
}

impl<'c> Work<'c> {
    async fn new(
        config: &'c Config,
        queue: &'c Queue,
        sink: &'c Sink,
        taking: Taking,
    ) -> anyhow::Result<Self> {
        let shelf = Shelf::open(config, queue, Some(sink)).await?;
        let (desk, left) = (Desk::new(config), Left::default());
        Ok(Work { queue, shelf, desk, taking, order: None, edited: None, in_redis: 0, left })
    }

    /// Does all of it, and answers how many letters are or would be taken.
    async fn run(
        &mut self,
        chosen: &Chosen<'_>,
        extent: &mut Extent,
        out: &mut impl Write,
    ) -> anyhow::Result<u64> {
        if extent.dry_run {
            return self.take_chosen(chosen, extent, out).await;
        }
        self.shelf.hold().await?;
        let keeper = AbortOnDropHandle::new(tokio::spawn(self.shelf.letters.holder().keep()));
        let taken = self.take_chosen(chosen, extent, out).await;
        drop(keeper);
        // After an error it goes by itself.
        let _ = self.shelf.letters.let_go().await;
        taken
    }

    async fn take_chosen(
        &mut self,
        chosen: &Chosen<'_>,
        extent: &mut Extent,
        out: &mut impl Write,
    ) -> anyhow::Result<u64> {
        let mut plan = self.plan(chosen).await?;
        self.leave_newer(&mut plan).await?;
        plan.limit(extent);
        let planned = plan.len();
        let (verb, done) = match self.taking {
            Taking::Drop => ("drop", "dropped"),
            Taking::Replay => ("replay", "replayed"),
        };
        if extent.dry_run {
            self.tell_left(out)?;
            writeln!(out, "{}: {} would be {done}", self.queue.key, amount(planned))?;
            return Ok(planned);
        }
        ask(verb, planned, extent).await?;
        let taken = self.take(plan, extent, verb).await;
        self.tell_left(out)?;
        let taken = taken?;
        writeln!(out, "{}: {done} {}", self.queue.key, amount(taken))?;
        extent.limit = extent.limit.map(|limit| limit.saturating_sub(taken));
        Ok(taken)
    }

    async fn plan(&mut self, chosen: &Chosen<'_>) -> anyhow::Result<ReplayPlan> {
        let mut plan = ReplayPlan::default();
        let mut walk = Walk::begin(&mut self.shelf).await?;
        while let Some(window) = walk.next(&mut self.shelf).await? {
            for (place, kept) in window {
                self.in_redis += u64::from(matches!(place, LetterPlace::Redis(_)));
                let Some(read) = self.desk.read(place, kept).filter(|read| chosen.has(read)) else {
                    continue;
                };
                let ReadLetter { letter, document, kept, .. } = read;
                if let Some(why) = self.shelf.letters.unfit(&letter).filter(|_| self.taking == Taking::Replay)
                {
                    self.left.unfit += 1;
                    self.left.name(letter.offset, why);
                    continue;
                }
                let is_looked_up = self.order.is_some() && self.edited.is_none();
                let entity = document.map(|document| document.entity).filter(|_| is_looked_up);
                plan.add(entity, Planned { place, offset: letter.offset, bytes: kept.len() as u64 });
            }
        }
        if self.edited.is_some() && plan.len() > 1 {
            bail!("several dead letters have that offset");
        }
        Ok(plan)
    }

    /// Leaves letters whose documents have moved on.
    async fn leave_newer(&mut self, plan: &mut ReplayPlan) -> anyhow::Result<()> {
        let Some((sink, guard)) = &self.order else { return Ok(()) };
        let mut newer = Vec::new();
        let documents: Vec<_> = plan.documents().collect();
        for some in documents.chunks(DOCUMENTS) {
            let entities: Vec<_> = some.iter().map(|(_, entity)| entity.get()).collect();
            let found = watermarks(sink, guard, &entities).await?;
            newer.extend(some.iter().zip(found).filter_map(|((number, _), w)| Some((*number, w?))));
        }
        for (number, watermark) in newer {
            for planned in plan.split_off_newer(number, watermark) {
                self.left.newer(planned.offset);
            }
        }
        Ok(())
    }

    /// Takes what is planned, step by step.
    async fn take(&mut self, plan: ReplayPlan, extent: &Extent, verb: &'static str) -> anyhow::Result<u64> {
        let mut progress = ProgressLine::new(verb, plan.len(), extent.rate);
        let mut places = Places::new(self.in_redis);
        let mut begun = HashSet::new();
        let mut taken = 0;
        for batch in plan.batches(extent.rate) {
            let is_in_redis =
                |(_, planned): &(usize, Planned)| matches!(planned.place, LetterPlace::Redis(_));
            for some in batch.chunk_by(|a, b| is_in_redis(a) == is_in_redis(b)) {
                let n = self.take_some(some, &mut places, &mut begun).await?;
                taken += n;
                progress.add(n).await;
            }
        }
        Ok(taken)
    }

    /// Takes letters in one step, which are all in the same place.
    async fn take_some(
        &mut self,
        some: &[(usize, Planned)],
        places: &mut Places,
        begun: &mut HashSet<usize>,
    ) -> anyhow::Result<u64> {
        let mut read = self.read_again(some, places).await?;
        self.leave_newer_now(&mut read, begun).await?;
        let (mut picked, mut named) = (Vec::new(), Vec::new());
        for (_, _, ReadLetter { place, kept, letter, .. }) in &read {
            match *place {
                LetterPlace::Redis(place) => picked.push(Picked { place, kept, letter }),
                LetterPlace::Mongodb(key) => named.push((key, letter)),
                LetterPlace::Moving => {}
            }
        }
        if !picked.is_empty() {
            self.shelf.letters.take(&picked, self.taking).await?;
        }
        if !named.is_empty() {
            let keys: Vec<_> = named.iter().map(|(key, _)| *key).collect();
            if self.taking == Taking::Replay {
                self.shelf.letters.put_back(&named).await?;
            }
            self.shelf.forget(&keys).await?;
            self.shelf.letters.known().await?;
        }
        for (number, place, _) in &read {
            if let LetterPlace::Redis(place) = place {
                places.take(*place);
            }
            begun.insert(*number);
        }
        Ok(read.len() as u64)
    }

    /// Letters that are planned, each with its document's number, where it was, and what it is now.
    async fn read_again(&mut self, some: &[(usize, Planned)], places: &Places) -> anyhow::Result<Vec<Again>> {
        let (mut now, mut keys, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
        for (_, planned) in some {
            now.push(match planned.place {
                LetterPlace::Redis(place) => {
                    indexes.push(places.now(place));
                    LetterPlace::Redis(places.now(place))
                }
                LetterPlace::Mongodb(key) => {
                    keys.push(key);
                    planned.place
                }
                LetterPlace::Moving => planned.place,
            });
        }
        let found = match keys.is_empty() {
            true => self.shelf.letters.at(&indexes).await?,
            false => self.shelf.named(&keys).await?,
        };
        let mut read = Vec::with_capacity(some.len());
        for ((number, planned), (place, kept)) in some.iter().zip(now.into_iter().zip(found)) {
            let letter = kept.and_then(|kept| self.desk.read(place, kept));
            let Some(mut letter) = letter.filter(|read| read.letter.offset == planned.offset) else {
                bail!("somebody else has removed dead letters of {}: run it again", self.queue.key);
            };
            if let Some(event) = &self.edited {
                letter.document = self.desk.document(event);
                letter.letter.event.clone_from(event);
                // It is an event, whatever the entry was.
                letter.letter.reason.clear();
            }
            read.push((*number, planned.place, letter));
        }
        Ok(read)
    }

    /// Leaves letters whose documents have moved on since the plan was made. Those whose letters are being put back do so
    /// by that.
    async fn leave_newer_now(&mut self, read: &mut Vec<Again>, begun: &HashSet<usize>) -> anyhow::Result<()> {
        let Some((sink, guard)) = &self.order else { return Ok(()) };
        let known = read.iter().filter(|(number, ..)| !begun.contains(number));
        let known = known.filter_map(|(_, place, read)| Some((*place, read.document.as_ref()?.entity.get())));
        let (places, entities): (Vec<_>, Vec<_>) = known.unzip();
        let found = watermarks(sink, guard, &entities).await?;
        let found: HashMap<LetterPlace, Option<i64>> = places.into_iter().zip(found).collect();
        read.retain(|(_, place, ReadLetter { letter, .. })| {
            let watermark = found.get(place).copied().flatten();
            let is_newer = watermark.is_some_and(|watermark| letter.offset < watermark);
            if is_newer {
                self.left.newer(letter.offset);
            }
            !is_newer
        });
        Ok(())
    }

    fn tell_left(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        let Left { newer, unfit, lines } = &self.left;
        let left = newer + unfit;
        if left == 0 {
            return Ok(());
        }
        writeln!(out, "{}: {} left where they are:", self.queue.key, amount(left))?;
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        if left > lines.len() as u64 {
            writeln!(out, "  and {} more", left - lines.len() as u64)?;
        }
        if *newer > 0 {
            writeln!(out, "  --even-if-newer replays those whose documents have moved on all the same")?;
        }
        Ok(())
    }
}

/// How far documents are, where that is known.
async fn watermarks(
    sink: &Sink,
    guard: &Guard,
    entities: &[EntityRef<'_>],
) -> anyhow::Result<Vec<Option<i64>>> {
    if entities.is_empty() {
        return Ok(Vec::new());
    }
    let found =
        sink.watermarks(entities, Some(guard)).await.context("how far documents are cannot be looked up")?;
    let watermark = |found| match found {
        FoundWatermark::Watermark(w) => Some(w),
        _ => None,
    };
    Ok(found.into_iter().map(|(found, _)| watermark(found)).collect())
}
