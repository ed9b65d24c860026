//! What another client has done to a list, as far as can be told from where the element is that was its head.

/// What another client has done to a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meddling {
    /// So many elements are in front of what was the head.
    PushedInFront(u64),
    /// The head is where it was, but what is behind it is not.
    Behind,
    /// The head is not among the first elements.
    HeadGone,
    /// Nobody knows what the head was.
    Unknown,
}

impl Meddling {
    /// By the index at which the takeover found the former head, negative where it did not.
    pub(super) fn at(place: i64) -> Self {
        match place {
            0 => Meddling::Behind,
            1.. => Meddling::PushedInFront(place.unsigned_abs()),
            -1 => Meddling::HeadGone,
            _ => Meddling::Unknown,
        }
    }

    /// What happened, and who does such a thing.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Meddling::PushedInFront(1) => {
                "an element appeared in front of the head: a producer pushes with LPUSH where RPUSH is meant".into()
            }
            Meddling::PushedInFront(n) => {
                format!("{n} elements appeared in front of the head: a producer pushes with LPUSH where RPUSH is meant")
            }
            Meddling::Behind => "another client removes, replaces or inserts elements behind the head, as RPOP, LREM, \
                                 LTRIM, LSET and LINSERT do"
                .into(),
            Meddling::HeadGone => {
                "another client removes or replaces the element at the head, as LPOP, BLPOP, LMOVE and LSET do".into()
            }
            Meddling::Unknown => "another client removes or inserts elements".into(),
        }
    }

    /// The same in two words, for a summary.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Meddling::PushedInFront(_) => {
                "Have the producer push with RPUSH: a queue grows at its tail. CLIENT LIST shows who used LPUSH last."
            }
            Meddling::Behind | Meddling::HeadGone | Meddling::Unknown => {
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
        assert_eq!(Meddling::at(30), Meddling::PushedInFront(30));
        assert_eq!(Meddling::at(0), Meddling::Behind);
        assert_eq!(Meddling::at(-1), Meddling::HeadGone);
        assert_eq!(Meddling::at(-2), Meddling::Unknown);
        assert!(
            Meddling::at(1).text().contains("LPUSH") && Meddling::at(30).text().starts_with("30 elements")
        );
    }
}
