//! Tells what another client has done to a list, by where the element is now that was its head.

/// What another client has done to a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interference {
    /// So many elements are in front of what was the head.
    PushedInFront(u64),
    /// The head is where it was, but what is behind it is not.
    Behind,
    /// The head is not among the first elements.
    HeadGone,
    /// Nobody knows what the head was.
    Unknown,
}

impl Interference {
    /// By the index at which the takeover found the former head, negative where it did not.
    pub(super) fn at(place: i64) -> Self {
        match place {
            0 => Interference::Behind,
            1.. => Interference::PushedInFront(place.unsigned_abs()),
            -1 => Interference::HeadGone,
            _ => Interference::Unknown,
        }
    }

    /// What happened, and who does such a thing.
    #[must_use]
    pub(crate) fn text(self) -> String {
        match self {
            Interference::PushedInFront(1) => {
                "an element appeared in front of the head: a producer pushes with LPUSH where RPUSH is meant".into()
            }
            Interference::PushedInFront(n) => {
                format!("{n} elements appeared in front of the head: a producer pushes with LPUSH where RPUSH is meant")
            }
            Interference::Behind => "another client removes, replaces or inserts elements behind the head, as RPOP, LREM, \
                                 LTRIM, LSET and LINSERT do"
                .into(),
            Interference::HeadGone => {
                "another client removes or replaces the element at the head, as LPOP, BLPOP, LMOVE and LSET do".into()
            }
            Interference::Unknown => "another client removes or inserts elements".into(),
        }
    }

    /// The same in two words, for a summary.
    #[must_use]
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Interference::PushedInFront(_) => {
                "Have the producer push with RPUSH: a queue grows at its tail. CLIENT LIST shows who used LPUSH last."
            }
            Interference::Behind | Interference::HeadGone | Interference::Unknown => {
                "This delivery needs the queue to itself: find the client (CLIENT LIST), or use at-most-once for a list."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_of_the_head_tells_what_was_done() {
        assert_eq!(Interference::at(30), Interference::PushedInFront(30));
        assert_eq!(Interference::at(0), Interference::Behind);
        assert_eq!(Interference::at(-1), Interference::HeadGone);
        assert_eq!(Interference::at(-2), Interference::Unknown);
        assert!(
            Interference::at(1).text().contains("LPUSH")
                && Interference::at(30).text().starts_with("30 elements")
        );
    }
}
