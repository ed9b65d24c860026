//! Remembers a few plans that served before, the last one first.

/// How many are remembered, those of a queue's most frequent types of events.
const MOST: usize = 16;
/// Events that a pause lasts at most.
const LONGEST_PAUSE: u32 = 64;

/// A memory.
#[derive(Debug)]
pub(super) struct Memory<T> {
    known: Vec<T>,
    /// Events not to ask about: those that are ever new shall not cost more for it.
    unasked: PlanPause,
    /// Events not to learn from: there was nothing to be learnt from others.
    unlearned: PlanPause,
    /// Whether there was something for the last event.
    #[cfg(test)]
    pub(super) recalled: bool,
}

/// A pause, of so many events; the next one is longer.
#[derive(Debug, Default)]
struct PlanPause {
    left: u32,
    length: u32,
}

impl PlanPause {
    fn begin(&mut self) {
        self.length = (self.length * 2).clamp(1, LONGEST_PAUSE);
        self.left = self.length;
    }

    /// Whether it lasts for one event more.
    fn lasts(&mut self) -> bool {
        let lasts = self.left > 0;
        self.left = self.left.saturating_sub(1);
        lasts
    }
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Memory {
            known: Vec::new(),
            unasked: PlanPause::default(),
            unlearned: PlanPause::default(),
            #[cfg(test)]
            recalled: false,
        }
    }
}

impl<T: PartialEq> Memory<T> {
    /// What the first makes of an event that can make something of it.
    #[inline]
    pub(super) fn recall<R>(&mut self, mut serve: impl FnMut(&T) -> Option<R>) -> Option<R> {
        #[cfg(test)]
        {
            self.recalled = false;
        }
        if self.unasked.left > 0 {
            return None;
        }
        let (at, served) = self.known.iter().enumerate().find_map(|(at, known)| Some((at, serve(known)?)))?;
        if at > 0 {
            self.known[..=at].rotate_right(1);
        }
        self.unasked.length = 0;
        #[cfg(test)]
        {
            self.recalled = true;
        }
        Some(served)
    }

    /// Remembers what is worked out for an event for which there was nothing.
    pub(super) fn learn(&mut self, work_out: impl FnOnce() -> Option<T>) {
        if self.unasked.lasts() || self.unlearned.lasts() {
            return;
        }
        match work_out().filter(|new| !self.known.contains(new)) {
            None => self.unlearned.begin(),
            Some(new) => {
                self.unlearned.length = 0;
                if self.known.len() == MOST {
                    self.unasked.begin();
                    self.known.pop();
                }
                self.known.push(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serves(memory: &mut Memory<usize>, event: usize) -> bool {
        let served = memory.recall(|known| (*known == event).then_some(())).is_some();
        if !served {
            memory.learn(|| (event > 0).then_some(event));
        }
        served
    }

    #[test]
    fn a_few_are_remembered() {
        let mut memory = Memory::default();
        assert!((1..=MOST).all(|event| !serves(&mut memory, event)));
        assert!((1..=MOST).all(|event| serves(&mut memory, event)));
        assert!(!serves(&mut memory, MOST + 1));
        assert!(serves(&mut memory, 7) || serves(&mut memory, 7));
    }

    #[test]
    fn what_never_comes_again_is_hardly_asked_about() {
        let mut memory = Memory::default();
        assert!((1_000..3_000).all(|event| !serves(&mut memory, event)));
        assert_eq!(memory.unasked.length, LONGEST_PAUSE);
        // And yet what does is learnt.
        assert!((0..200).any(|_| serves(&mut memory, 1)));
        let mut memory = Memory::default();
        assert!((0..2_000).all(|_| !serves(&mut memory, 0)));
        assert_eq!(memory.unlearned.length, LONGEST_PAUSE);
    }
}
