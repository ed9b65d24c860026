//! Says of an event that is refused why, which route took it, whose it is, and its trace.

use super::extract::Extracted;
use super::paths::Slot;
use super::rules::Rules;
use crate::change::Entity;
use crate::dead_letter::{Reason, Rejection};
use crate::trace::Traceparent;

/// An event that can never be applied: a dead letter, unless a route skips it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rejection}")]
pub struct Refused {
    /// Why.
    pub rejection: Rejection,
    /// The route that took it; none if none did.
    pub route: Option<usize>,
    /// The document that it is about, as far as it can be told, without its shard key. Of a skipped event it is not told.
    pub entity: Option<Entity>,
    /// The trace that it belongs to, as far as it can be told.
    pub traceparent: Option<Traceparent>,
}

impl Rules {
    /// The answer for an event that is refused, and the route that took it, by what it read.
    pub(super) fn refused(
        &self,
        event: &[u8],
        rejection: Rejection,
        taken_by: Option<(usize, &Extracted)>,
    ) -> Box<Refused> {
        let route = taken_by.map(|(route, _)| route);
        if rejection.reason == Reason::Skipped {
            return Box::new(Refused { rejection, route, entity: None, traceparent: None });
        }
        let entity = match taken_by {
            Some((route, extracted)) => self.routes[route].entity(extracted),
            None => self.native.as_ref().and_then(|native| native.entity(event, &self.collections)),
        };
        Box::new(Refused { rejection, route, entity, traceparent: self.traceparent(event, route) })
    }

    /// The trace of an event that `route` took. If none did it is the first that is found.
    fn traceparent(&self, event: &[u8], route: Option<usize>) -> Option<Traceparent> {
        let slots: Vec<Slot> = match route {
            Some(at) => self.routes[at].traceparent.into_iter().collect(),
            None => {
                self.routes.iter().filter_map(|route| route.traceparent).chain(self.native_trace).collect()
            }
        };
        if slots.is_empty() {
            return None;
        }
        let mut traces = Extracted::of_traces();
        traces.extract(&self.paths, std::str::from_utf8(event).ok()?).ok()?;
        slots.into_iter().find_map(|slot| traces.trace(slot)).map(Traceparent::from)
    }
}
