//! Orders what is pending in a lane, by age and by deadline. Time is passed in, never read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tokio::time::Instant;

/// The order of what is pending. Whatever is pending has a place, a number that is free again once it is removed.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// By place.
    slots: Vec<Option<Scheduled>>,
    /// The oldest first, with places that are free again, or another's, in between.
    by_age: VecDeque<Ticket>,
    /// The earliest first, with what is out of date in between: of those that wait long, and of the prompt ones.
    by_deadline: [BinaryHeap<Reverse<(Due, Ticket)>>; 2],
    live: usize,
    /// The tickets given out.
    tickets: u64,
}

/// When something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// Whether it waits no longer than what has no timing of its own.
    pub(super) is_prompt: bool,
}

#[derive(Debug, Clone, Copy)]
struct Scheduled {
    ticket: Ticket,
    due: Option<Due>,
}

/// Who has a place, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    number: u64,
    place: usize,
}

/// So many entries may be out of date, and as many as there are others.
const STALE: usize = 64;

impl Schedule {
    /// Puts what has just come at a free place. Without `due` it has no deadline.
    pub(super) fn insert(&mut self, place: usize, due: Option<Due>) {
        let ticket = Ticket { number: self.tickets, place };
        self.tickets += 1;
        if self.slots.len() <= place {
            self.slots.resize(place + 1, None);
        }
        debug_assert!(self.slots[place].is_none(), "a place is one's own");
        self.slots[place] = Some(Scheduled { ticket, due });
        self.live += 1;
        self.by_age.push_back(ticket);
        self.push(due, ticket);
    }

    fn push(&mut self, due: Option<Due>, ticket: Ticket) {
        if let Some(due) = due {
            self.by_deadline[usize::from(due.is_prompt)].push(Reverse((due, ticket)));
        }
    }

    /// Gives what is at a place another deadline.
    pub(super) fn set_deadline(&mut self, place: usize, due: Option<Due>) {
        if let Some(slot) = self.slots.get_mut(place).and_then(Option::as_mut)
            && slot.due != due
        {
            slot.due = due;
            let ticket = slot.ticket;
            self.push(due, ticket);
            self.forget_stale_deadlines();
        }
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, place: usize) {
        if self.slots.get_mut(place).and_then(Option::take).is_some() {
            self.live -= 1;
            self.forget_stale();
        }
    }

    /// The place of the oldest.
    pub(super) fn oldest(&self) -> Option<usize> {
        self.by_age.front().map(|ticket| ticket.place)
    }

    /// The place of what is due first, and when that is.
    pub(super) fn first_due(&self) -> Option<(usize, Due)> {
        [false, true]
            .into_iter()
            .filter_map(|is_prompt| self.first_due_of(is_prompt))
            .min_by_key(|(_, due)| due.at)
    }

    /// The same, of prompt ones or of the others.
    pub(super) fn first_due_of(&self, is_prompt: bool) -> Option<(usize, Due)> {
        let first = self.by_deadline[usize::from(is_prompt)].peek();
        first.map(|Reverse((due, ticket))| (ticket.place, *due))
    }

    /// All places, the oldest first.
    pub(super) fn by_age(&self) -> Vec<usize> {
        self.by_age
            .iter()
            .filter(|ticket| is_live(&self.slots, **ticket))
            .map(|ticket| ticket.place)
            .collect()
    }

    /// How many places are taken.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// What is in front is always live, so that it can be looked at for nothing. What is behind is forgotten once it is
    /// the greater part.
    fn forget_stale(&mut self) {
        while self.by_age.pop_front_if(|ticket| !is_live(&self.slots, *ticket)).is_some() {}
        if self.by_age.len() > 2 * self.live + STALE {
            self.by_age.retain(|ticket| is_live(&self.slots, *ticket));
        }
        self.forget_stale_deadlines();
    }

    fn forget_stale_deadlines(&mut self) {
        for by_deadline in &mut self.by_deadline {
            while let Some(Reverse((due, ticket))) = by_deadline.peek()
                && !is_due(&self.slots, *due, *ticket)
            {
                by_deadline.pop();
            }
            if by_deadline.len() > 2 * self.live + STALE {
                by_deadline.retain(|Reverse((due, ticket))| is_due(&self.slots, *due, *ticket));
            }
        }
    }
}

fn is_live(slots: &[Option<Scheduled>], ticket: Ticket) -> bool {
    slots[ticket.place].is_some_and(|slot| slot.ticket == ticket)
}

fn is_due(slots: &[Option<Scheduled>], due: Due, ticket: Ticket) -> bool {
    slots[ticket.place].is_some_and(|slot| slot.ticket == ticket && slot.due == Some(due))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        /// Whatever comes, gets other deadlines and goes, the order is that of a plain list, and memory is bounded.
        #[test]
        fn the_order_is_that_of_a_plain_list(
            steps in prop::collection::vec(
                (0_u8..5, 0_usize..8, prop::option::of((0_u64..50, any::<bool>()))),
                1..400,
            ),
        ) {
            let start = Instant::now();
            let at = |(ms, is_prompt)| Due { at: start + Duration::from_millis(ms), is_prompt };
            let mut schedule = Schedule::default();
            let mut listed: Vec<(usize, Option<Due>)> = Vec::new();
            for (step, place, due) in steps {
                let due = due.map(at);
                match (step, listed.iter().position(|(other, _)| *other == place)) {
                    (0 | 1, None) => {
                        schedule.insert(place, due);
                        listed.push((place, due));
                    }
                    (2 | 3, found) => {
                        schedule.set_deadline(place, due);
                        found.into_iter().for_each(|found| listed[found].1 = due);
                    }
                    (4, Some(found)) => {
                        schedule.remove(place);
                        listed.remove(found);
                    }
                    _ => {}
                }
                let places: Vec<_> = listed.iter().map(|(place, _)| *place).collect();
                prop_assert_eq!(schedule.by_age(), places);
                prop_assert_eq!(schedule.len(), listed.len());
                prop_assert_eq!(schedule.oldest(), listed.first().map(|(place, _)| *place));
                let dues = || listed.iter().filter_map(|(_, due)| *due);
                prop_assert_eq!(schedule.first_due().map(|(_, due)| due.at), dues().map(|due| due.at).min());
                for is_prompt in [false, true] {
                    let first = schedule.first_due_of(is_prompt);
                    let expected = dues().filter(|due| due.is_prompt == is_prompt).min();
                    prop_assert_eq!(first.map(|(_, due)| due), expected);
                    if let Some((place, due)) = first {
                        prop_assert!(listed.contains(&(place, Some(due))));
                    }
                    let held = schedule.by_deadline[usize::from(is_prompt)].len();
                    prop_assert!(held <= 2 * schedule.live + STALE + 1, "{held}");
                }
                prop_assert!(schedule.by_age.len() <= 2 * schedule.live + STALE + 1);
            }
        }
    }
}
