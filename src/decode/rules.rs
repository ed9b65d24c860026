//! Compiles what a configuration says of events.

use std::sync::Arc;

use super::native::{Native, TRACEPARENT};
use super::paths::{Paths, Slot};
use super::route::Route;
use crate::change::Collections;
use crate::config::{self, Config};

/// What a configuration says of events, compiled once and shared by its decoders.
#[derive(Debug)]
pub struct Rules {
    pub(super) collections: Collections,
    pub(super) paths: Paths,
    pub(super) routes: Vec<Route>,
    pub(super) native: Option<Native>,
    /// Where a native event has its trace.
    pub(super) native_trace: Option<Slot>,
    /// The route that skips what is empty.
    pub(super) skips_empty: Option<usize>,
}

impl Rules {
    /// Compiles the routes and the native format of a checked configuration.
    #[must_use]
    pub fn new(config: &Config, collections: Collections) -> Arc<Self> {
        let mut paths = Paths::default();
        let routes = config.routes.iter();
        let routes = routes.filter_map(|route| Route::new(route, &collections, &mut paths)).collect();
        let allowed = &config.native.collections;
        let native = (!allowed.is_empty()).then(|| Native::new(allowed));
        Arc::new(Rules {
            native_trace: native.as_ref().map(|_| paths.add_trace(TRACEPARENT)),
            skips_empty: config.routes.iter().position(config::Route::skips_empty),
            collections,
            paths,
            routes,
            native,
        })
    }
}
