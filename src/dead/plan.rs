//! Plans which letters are taken, and in what order: those of one document together, in the order of their offsets.

use std::collections::HashMap;

use super::shelf::LetterPlace;
use crate::change::Entity;
use crate::cli::dead::Extent;

/// Letters of one script, and bytes of them. More of one document go together, if they are not too many.
const LETTERS: usize = 500;
const BYTES: u64 = 4 * 1024 * 1024;
const OF_DOCUMENT: usize = 1_000;
const BYTES_OF_DOCUMENT: u64 = 8 * 1024 * 1024;

/// A letter that may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// Where it is, before any is taken.
    pub(super) place: LetterPlace,
    pub(super) offset: i64,
    pub(super) bytes: u64,
}

/// What is taken.
#[derive(Debug, Default)]
pub(super) struct ReplayPlan {
    /// The letters of each document, or one of which no document is known.
    groups: Vec<(Option<Entity>, Vec<Planned>)>,
    by_document: HashMap<Vec<u8>, usize>,
}

/// Letters that are taken in one step, each with the number of its document.
pub(super) type Batch = Vec<(usize, Planned)>;

impl ReplayPlan {
    /// Adds a letter.
    pub(super) fn add(&mut self, entity: Option<Entity>, planned: Planned) {
        let Some(entity) = entity else { return self.groups.push((None, vec![planned])) };
        let number = self.groups.len();
        let group = *self.by_document.entry(key(&entity)).or_insert(number);
        match self.groups.get_mut(group) {
            Some((_, letters)) => letters.push(planned),
            None => self.groups.push((Some(entity), vec![planned])),
        }
    }

    /// How many letters there are.
    pub(super) fn len(&self) -> u64 {
        self.groups.iter().map(|(_, letters)| letters.len() as u64).sum()
    }

    /// The documents, by their numbers.
    pub(super) fn documents(&self) -> impl Iterator<Item = (usize, &Entity)> {
        self.groups.iter().enumerate().filter_map(|(number, (entity, _))| Some((number, entity.as_ref()?)))
    }

    /// Takes the letters of a document out that its watermark is above.
    pub(super) fn split_off_newer(&mut self, number: usize, watermark: i64) -> Vec<Planned> {
        let Some((_, letters)) = self.groups.get_mut(number) else { return Vec::new() };
        let (older, rest) =
            std::mem::take(letters).into_iter().partition(|planned| planned.offset < watermark);
        *letters = rest;
        older
    }

    /// Leaves out what would be too many: whole documents, so that the rest of one is not taken for older than its
    /// document later.
    pub(super) fn limit(&mut self, extent: &Extent) {
        let Some(mut left) = extent.limit else { return };
        for (_, letters) in &mut self.groups {
            match left.checked_sub(letters.len() as u64) {
                Some(rest) => left = rest,
                None => letters.clear(),
            }
        }
    }

    /// What is taken in each step.
    pub(super) fn batches(mut self, rate: Option<u64>) -> Vec<Batch> {
        let most =
            rate.map_or(LETTERS, |rate| LETTERS.min(usize::try_from(rate / 4).unwrap_or(LETTERS)).max(1));
        let mut batches: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for (number, (_, letters)) in self.groups.iter_mut().enumerate() {
            letters.sort_by_key(|planned| (planned.offset, planned.place));
            for unit in units(letters) {
                let size: u64 = unit.iter().map(|planned| planned.bytes).sum();
                let fits = |batch: &Batch| batch.len() + unit.len() <= most && bytes + size <= BYTES;
                if !batches.last().is_some_and(fits) {
                    batches.push(Batch::new());
                    bytes = 0;
                }
                bytes += size;
                if let Some(batch) = batches.last_mut() {
                    batch.extend(unit.iter().map(|planned| (number, planned.clone())));
                }
            }
        }
        batches
    }
}

/// Parts of a document's letters that are taken in one step each: mostly one.
fn units(letters: &[Planned]) -> Vec<&[Planned]> {
    let mut units = Vec::new();
    let mut rest = letters;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take(OF_DOCUMENT).take_while(|planned| {
            bytes += planned.bytes;
            bytes <= BYTES_OF_DOCUMENT
        });
        let (unit, others) = rest.split_at(fitting.count().max(1));
        units.push(unit);
        rest = others;
    }
    units
}

/// Letters of the same document have the same.
fn key(entity: &Entity) -> Vec<u8> {
    let entity = entity.get();
    let mut key = entity.collection.0.to_le_bytes().to_vec();
    key.push(entity.id.kind as u8);
    key.extend_from_slice(entity.id.bytes);
    key.extend_from_slice(entity.shard_key);
    key
}

/// Where letters are by now, of which some were taken: a Fenwick tree of how many are gone before a place.
#[derive(Debug)]
pub(super) struct Places(Vec<u64>);

impl Places {
    /// None of so many is taken.
    pub(super) fn new(letters: u64) -> Self {
        Places(vec![0; usize::try_from(letters).unwrap_or(0) + 1])
    }

    /// Where a letter is now.
    pub(super) fn now(&self, place: u64) -> u64 {
        let (mut at, mut gone) = (usize::try_from(place).unwrap_or(0), 0);
        while at > 0 {
            gone += self.0.get(at).copied().unwrap_or(0);
            at &= at - 1;
        }
        place - gone
    }

    /// A letter is gone.
    pub(super) fn take(&mut self, place: u64) {
        let mut at = usize::try_from(place).unwrap_or(0) + 1;
        while let Some(gone) = self.0.get_mut(at) {
            *gone += 1;
            at += at & at.wrapping_neg();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::{CollectionId, EntityRef};
    use crate::raw::{Number, Value};

    fn entity(id: i64) -> Entity {
        let id = Value::from(Number::int(id));
        EntityRef { collection: CollectionId(0), id: id.get(), shard_key: &[] }.into()
    }

    proptest! {
        #[test]
        fn places_are_those_of_the_list(order in Just((0_u64..60).collect::<Vec<_>>()).prop_shuffle()) {
            let mut list: Vec<u64> = (0..60).collect();
            let mut places = Places::new(60);
            for letter in order {
                let now = usize::try_from(places.now(letter)).unwrap();
                prop_assert_eq!(list.get(now), Some(&letter));
                list.remove(now);
                places.take(letter);
            }
        }

        #[test]
        fn every_letter_goes_once_and_a_documents_in_order(
            letters in prop::collection::vec((0_i64..9, 0_i64..1000, 1_u64..3_000_000), 0..300),
            rate in prop::option::of(1_u64..3000),
        ) {
            let mut plan = ReplayPlan::default();
            for (place, (id, offset, bytes)) in (0..).zip(&letters) {
                let document = (*id > 0).then(|| entity(*id));
                plan.add(document, Planned { place: LetterPlace::Redis(place), offset: *offset, bytes: *bytes });
            }
            let batches = plan.batches(rate);
            let mut last = HashMap::new();
            let mut seen = Vec::new();
            for (number, planned) in batches.iter().flatten() {
                seen.push(planned.place);
                let before = last.insert(*number, planned.offset);
                prop_assert!(before.is_none_or(|before| before <= planned.offset));
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..letters.len() as u64).map(LetterPlace::Redis).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_limit_takes_whole_documents() {
        let mut plan = ReplayPlan::default();
        for (place, id) in [(0, 1), (1, 1), (2, 2), (3, 1), (4, 3)] {
            plan.add(Some(entity(id)), Planned { place: LetterPlace::Redis(place), offset: 1, bytes: 1 });
        }
        plan.limit(&Extent { limit: Some(2), ..Extent::default() });
        let taken: Vec<_> = plan.batches(None).iter().flatten().map(|(_, planned)| planned.place).collect();
        assert_eq!(taken, [2, 4].map(LetterPlace::Redis));
    }
}
