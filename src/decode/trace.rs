//! Finds the trace of an event that is refused, of which nothing else is known.

use super::extract::Extracted;
use super::paths::{Paths, Slot};
use crate::config::Config;
use crate::trace::TraceRef;

/// A native event's key for its trace.
pub(super) const NATIVE: &str = "traceparent";

/// Where routes and the native format have an event's trace.
#[derive(Debug, Default)]
pub(super) struct TracePaths {
    paths: Paths,
    /// By route.
    routes: Vec<Option<Slot>>,
    native: Option<Slot>,
}

impl TracePaths {
    pub(super) fn new(config: &Config) -> Self {
        let mut paths = Paths::default();
        let routes = config.routes.iter().map(|route| Some(paths.add_trace(route.traceparent.as_ref()?)));
        let routes = routes.collect();
        let native = (!config.native.collections.is_empty()).then(|| paths.add_trace(NATIVE));
        TracePaths { routes, native, paths }
    }

    /// The trace of an event that `route` took, or none: then it is the first that is found.
    pub(super) fn find<'e>(
        &self,
        extracted: &'e mut Extracted,
        event: &[u8],
        route: Option<usize>,
    ) -> Option<TraceRef<'e>> {
        if self.native.is_none() && self.routes.iter().all(Option::is_none) {
            return None;
        }
        extracted.extract(&self.paths, std::str::from_utf8(event).ok()?).ok()?;
        let extracted = &*extracted;
        match route {
            Some(at) => extracted.trace((*self.routes.get(at)?)?),
            None => {
                self.routes.iter().chain([&self.native]).flatten().find_map(|slot| extracted.trace(*slot))
            }
        }
    }
}
