//! Models Redis: the queue's keys, and the scripts of `source/script.rs`.

use crate::state::{EVENTS, INDEX_BITS, Plan, Set, bit};
use crate::variants::Variant;

/// `head` where the list was empty.
pub(crate) const NOTHING: u8 = 0;
/// `head` after a foreign pop was found.
pub(crate) const MOVED: u8 = 0xff;

/// The keys of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Redis {
    /// The list's elements.
    list: [u8; EVENTS],
    /// Their number.
    pub(crate) len: u8,
    /// Offset of the head.
    pub(crate) base: u8,
    /// Elements below were given out.
    pub(crate) read: u8,
    /// Epoch of the owner; 0 before the first. Its lease may end at any time, so it stops nobody.
    pub(crate) owner: u8,
    /// The element at base, plus 1, in place of its SHA-1: no two elements are equal.
    head: u8,
    /// Dead letters not yet committed.
    pub(crate) dead: Set,
    /// The list of dead letters, and those that are in it more than once.
    pub(crate) dead_list: Set,
    /// See `dead_list`.
    pub(crate) dead_twice: Set,
    /// Epoch of the ownership whose process works on what is to be recovered; 0 is none.
    pub(crate) mark: u8,
    /// A process died at that, and nothing was committed since.
    pub(crate) death: bool,
    /// Elements pushed to this Redis, ever.
    pub(crate) pushed: Set,
}

/// Why a script refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// -1
    Fenced,
    /// -2
    Foreign,
}

impl Redis {
    /// The element at an index.
    pub(crate) fn at(&self, index: u8) -> Option<u8> {
        (index < self.len).then(|| self.list[usize::from(index)])
    }

    /// The elements that are there.
    pub(crate) fn elements(&self) -> Set {
        (0..self.len).filter_map(|index| self.at(index)).fold(0, |set, id| set | bit(id))
    }

    /// `QueueState::epoch`: the highest epoch of any offset or owner.
    pub(crate) fn epoch(&self) -> u8 {
        (self.base >> INDEX_BITS).max(self.read >> INDEX_BITS).max(self.owner)
    }

    /// RPUSH
    pub(crate) fn push(&mut self, id: u8) {
        self.list[usize::from(self.len)] = id;
        self.len += 1;
        self.pushed |= bit(id);
    }

    /// LTRIM count -1
    pub(crate) fn trim(&mut self, count: u8) {
        let count = count.min(self.len);
        self.list.rotate_left(usize::from(count));
        self.len -= count;
        self.list[usize::from(self.len)..].fill(0);
    }

    fn first(&self) -> u8 {
        self.at(0).map_or(NOTHING, |id| id + 1)
    }

    fn is_head_there(&self, variant: Variant) -> bool {
        variant == Variant::HeadUnchecked || self.head == NOTHING || self.head == self.first()
    }

    fn keep_dead(&mut self, letters: Set) {
        self.dead_twice |= self.dead_list & letters;
        self.dead_list |= letters;
    }

    /// TAKE. Answers whether every element given out is where it was.
    pub(crate) fn take(
        &mut self,
        epoch: u8,
        (base, read): (u8, u8),
        variant: Variant,
    ) -> Result<bool, Refused> {
        if (self.base, self.read) != (base, read) {
            return Err(Refused::Fenced);
        }
        self.owner = epoch;
        Ok(self.len >= read.max(base) - base && self.is_head_there(variant))
    }

    /// READ, and the LRANGE before it, of elements `index..end`.
    pub(crate) fn read(
        &mut self,
        (epoch, base): (u8, u8),
        end: u8,
        read: Option<u8>,
        variant: Variant,
    ) -> Result<(), Refused> {
        self.fence(epoch, base)?;
        if self.len < end || !self.is_head_there(variant) {
            self.head = MOVED;
            return Err(Refused::Foreign);
        }
        self.head = self.first();
        if let Some(read) = read {
            self.read = read;
        }
        Ok(())
    }

    /// COMMIT of `count` elements, the last of which was `last`.
    pub(crate) fn commit(
        &mut self,
        (epoch, base): (u8, u8),
        (count, last): (u8, u8),
        letters: Set,
        variant: Variant,
    ) -> Result<(), Refused> {
        self.fence(epoch, base)?;
        if variant != Variant::LastTrimmedUnchecked && self.at(count - 1) != Some(last) {
            self.head = MOVED;
            return Err(Refused::Foreign);
        }
        // A letter kept in memory alone goes straight to the list.
        let letters = if variant == Variant::LettersInMemory { letters } else { letters & self.dead };
        self.keep_dead(letters);
        self.dead &= !letters;
        self.trim(count);
        self.base = base + count;
        self.head = self.first();
        self.death &= variant == Variant::DeathsOutliveCommit;
        Ok(())
    }

    /// RENUMBER
    pub(crate) fn renumber(&mut self, epoch: u8, base: u8) -> Result<u8, Refused> {
        self.fence(epoch, base)?;
        self.keep_dead(self.dead);
        self.dead = 0;
        self.base = epoch << INDEX_BITS;
        self.read = self.base;
        self.head = self.first();
        self.mark = 0;
        Ok(self.base)
    }

    /// TRIES and WORK: what became of who worked here before, and the mark of who does now.
    pub(crate) fn work(&mut self, epoch: u8, lives: impl Fn(u8) -> bool) {
        self.death |= self.mark != 0 && !lives(self.mark);
        self.mark = epoch;
    }

    /// LIVES: the ownership ended, and its process did not.
    pub(crate) fn rest(&mut self, epoch: u8) {
        if self.mark == epoch {
            self.mark = 0;
        }
    }

    /// SET_ASIDE of the element at the base. Answers which it was.
    pub(crate) fn set_aside(&mut self, epoch: u8, base: u8) -> Result<u8, Refused> {
        self.fence(epoch, base)?;
        let id = self.at(0).ok_or(Refused::Foreign)?;
        self.keep_dead(bit(id));
        self.dead &= !bit(id);
        self.trim(1);
        self.base = base + 1;
        self.head = self.first();
        self.death = false;
        Ok(id)
    }

    /// BURY
    pub(crate) fn bury(&mut self, epoch: u8, letters: Set) -> Result<(), Refused> {
        if self.owner != epoch {
            return Err(Refused::Fenced);
        }
        self.dead |= letters;
        Ok(())
    }

    fn fence(&self, epoch: u8, base: u8) -> Result<(), Refused> {
        if self.owner == epoch && self.base == base { Ok(()) } else { Err(Refused::Fenced) }
    }

    /// Elements that were committed away.
    pub(crate) fn trimmed(&self, popped: Set) -> Set {
        self.pushed & !self.elements() & !popped
    }

    /// Whether a dead letter is kept.
    pub(crate) fn is_dead(&self, id: u8) -> bool {
        (self.dead | self.dead_list) & bit(id) != 0
    }

    /// Dead letters of events that were no bad ones.
    pub(crate) fn innocent_dead(&self, plan: &Plan) -> Set {
        (self.dead | self.dead_list) & !plan.bad
    }
}
