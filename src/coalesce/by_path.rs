//! Maps sorted paths to values; a small map is one piece of memory.
//!
//! A lane meets its entities in any order, so that each piece of memory that belongs to one is a cache miss.

use std::collections::BTreeMap;
use std::ops::Bound;

use compact_str::CompactString;

/// As many are found faster one by one than in a tree.
const FEW: usize = 12;

/// The map. It is made for documents with a few pending fields, and gets along with any number.
#[derive(Debug)]
pub(super) enum ByPath<T> {
    Few(Vec<(CompactString, T)>),
    Many(BTreeMap<CompactString, T>),
}

/// Everything in a map, in the order of the paths. Every write is made of this, so it is no chain of adapters, which the
/// compiler inlines or not.
#[derive(Debug)]
pub(super) enum Iter<'m, T> {
    Few(std::slice::Iter<'m, (CompactString, T)>),
    Many(std::collections::btree_map::Iter<'m, CompactString, T>),
}

impl<'m, T> Iterator for Iter<'m, T> {
    type Item = (&'m str, &'m T);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Iter::Few(few) => few.next().map(|(path, value)| (path.as_str(), value)),
            Iter::Many(many) => many.next().map(|(path, value)| (path.as_str(), value)),
        }
    }
}

impl<T> Default for ByPath<T> {
    fn default() -> Self {
        ByPath::Few(Vec::new())
    }
}

impl<T> ByPath<T> {
    pub(super) fn get(&self, path: &str) -> Option<&T> {
        match self {
            ByPath::Few(few) => few.iter().find(|(other, _)| other == path).map(|(_, value)| value),
            ByPath::Many(many) => many.get(path),
        }
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut T> {
        match self {
            ByPath::Few(few) => few.iter_mut().find(|(other, _)| other == path).map(|(_, value)| value),
            ByPath::Many(many) => many.get_mut(path),
        }
    }

    /// The place of a path among few, which holds until something is inserted or removed; `near` is where it may be.
    pub(super) fn place(&self, path: &[u8], near: usize) -> Option<usize> {
        let ByPath::Few(few) = self else { return None };
        let is = |(other, _): &(CompactString, T)| other.as_bytes() == path;
        let near = if near < few.len() { near } else { 0 };
        if few.get(near).is_some_and(is) { Some(near) } else { few.iter().position(is) }
    }

    /// What is at a place.
    pub(super) fn at(&mut self, place: usize) -> Option<(&str, &mut T)> {
        match self {
            ByPath::Few(few) => few.get_mut(place).map(|(path, value)| (path.as_str(), value)),
            ByPath::Many(_) => None,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            ByPath::Few(few) => few.len(),
            ByPath::Many(many) => many.len(),
        }
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    pub(super) fn insert(&mut self, path: &str, value: T) {
        if let ByPath::Few(few) = self
            && few.len() == FEW
        {
            *self = ByPath::Many(std::mem::take(few).into_iter().collect());
        }
        match self {
            ByPath::Few(few) => match few.binary_search_by(|(other, _)| other.as_str().cmp(path)) {
                Ok(at) => few[at].1 = value,
                Err(at) => few.insert(at, (path.into(), value)),
            },
            ByPath::Many(many) => drop(many.insert(path.into(), value)),
        }
    }

    pub(super) fn remove(&mut self, path: &str) -> Option<T> {
        match self {
            ByPath::Few(few) => few.iter().position(|(other, _)| other == path).map(|at| few.remove(at).1),
            ByPath::Many(many) => many.remove(path),
        }
    }

    /// Everything, in the order of the paths.
    pub(super) fn iter(&self) -> Iter<'_, T> {
        match self {
            ByPath::Few(few) => Iter::Few(few.iter()),
            ByPath::Many(many) => Iter::Many(many.iter()),
        }
    }

    /// What sorts behind a path.
    pub(super) fn behind(&self, path: &str) -> impl Iterator<Item = (&str, &T)> {
        let (few, many) = self.either();
        let few = few.map_or(&[][..], |few| &few[few.partition_point(|(other, _)| other.as_str() <= path)..]);
        let behind = (Bound::Excluded(path), Bound::Unbounded);
        let many = many.into_iter().flat_map(move |many| many.range::<str, _>(behind));
        few.iter()
            .map(|(path, value)| (path.as_str(), value))
            .chain(many.map(|(path, value)| (path.as_str(), value)))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (few, many) = match self {
            ByPath::Few(few) => (Some(few), None),
            ByPath::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(_, value)| value);
        few.chain(many.into_iter().flat_map(BTreeMap::values_mut))
    }

    #[allow(clippy::type_complexity, reason = "the two variants' contents")]
    fn either(&self) -> (Option<&Vec<(CompactString, T)>>, Option<&BTreeMap<CompactString, T>>) {
        match self {
            ByPath::Few(few) => (Some(few), None),
            ByPath::Many(many) => (None, Some(many)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_the_same_map() {
        let path = |n: usize| format!("f{:03}", n * 7 % 100);
        let mut map = ByPath::default();
        let mut model = BTreeMap::new();
        for n in 0..3 * FEW {
            map.insert(&path(n), n);
            model.insert(path(n), n);
            if n % 5 == 0 {
                assert_eq!(map.remove(&path(n / 2)), model.remove(&path(n / 2)));
            }
            if let Some(value) = map.get_mut(&path(n)) {
                *value += 1;
                model.entry(path(n)).and_modify(|value| *value += 1);
            }
            for near in [0, n] {
                let place = map.place(path(n).as_bytes(), near);
                assert_eq!(place.is_some(), matches!(map, ByPath::Few(_)) && model.contains_key(&path(n)));
                if let Some((found, value)) = place.and_then(|place| map.at(place)) {
                    assert_eq!((found, Some(&*value)), (&*path(n), model.get(&path(n))));
                }
            }
            map.values_mut().chain(model.values_mut()).for_each(|value| *value += 1);
            let own = |(path, value): (&String, &usize)| (path.clone(), *value);
            let got = |(path, value): (&str, &usize)| (path.to_owned(), *value);
            assert_eq!(map.iter().map(got).collect::<Vec<_>>(), model.iter().map(own).collect::<Vec<_>>());
            let from = path(n / 3);
            let behind = model.range((Bound::Excluded(from.clone()), Bound::Unbounded));
            assert_eq!(map.behind(&from).map(got).collect::<Vec<_>>(), behind.map(own).collect::<Vec<_>>());
            assert_eq!(map.get(&from), model.get(&from));
        }
        assert!(matches!(map, ByPath::Many(_)));
    }
}
