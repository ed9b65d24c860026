//! Compiles what a configuration says of events.

use std::sync::{Arc, OnceLock};

use super::Decoder;
use super::native::Native;
use super::paths::Paths;
use super::route::Route;
use super::trace::TracePaths;
use crate::change::Collections;
use crate::config::{self, Config};

/// What a configuration says of events, compiled once and shared by its decoders.
#[derive(Debug)]
pub struct Rules {
    pub(super) collections: Collections,
    pub(super) paths: Paths,
    pub(super) routes: Vec<Route>,
    pub(super) native: Option<Native>,
    /// The routes, each with its own rules for what it reads.
    pub(super) single: Vec<SingleRoute>,
    pub(super) traces: TracePaths,
    /// The route that skips what is empty.
    pub(super) skips_empty: Option<usize>,
}

impl Rules {
    /// Compiles the routes and the native format of a checked configuration.
    #[must_use]
    pub fn new(config: &Config, collections: Collections) -> Arc<Self> {
        let single = config.routes.iter().map(|route| SingleRoute {
            config: route.clone(),
            probe: OnceLock::new(),
            whole: OnceLock::new(),
        });
        Arc::new(Rules {
            single: single.collect(),
            traces: TracePaths::new(config),
            ..Self::compiled(config, collections)
        })
    }

    fn compiled(config: &Config, collections: Collections) -> Self {
        let mut paths = Paths::default();
        let routes =
            config.routes.iter().filter_map(|route| Route::new(route, &collections, &mut paths)).collect();
        let allowed = &config.native.collections;
        let native = (!allowed.is_empty()).then(|| Native::new(allowed));
        Rules {
            collections,
            paths,
            routes,
            native,
            single: Vec::new(),
            traces: TracePaths::default(),
            skips_empty: config.routes.iter().position(config::Route::skips_empty),
        }
    }
}

/// A route by itself, so that no other's rules reach its events. It is compiled when the first event asks for it.
#[derive(Debug)]
pub(super) struct SingleRoute {
    config: config::Route,
    /// Tells whether an event is the route's, and reads nothing else.
    pub(super) probe: OnceLock<Arc<Rules>>,
    pub(super) whole: OnceLock<Arc<Rules>>,
}

impl SingleRoute {
    pub(super) fn decoders(&self, collections: &Collections) -> SingleDecoders {
        let compile = |route: config::Route| {
            let config = Config { routes: vec![route], ..Config::default() };
            Arc::new(Rules::compiled(&config, collections.clone()))
        };
        let probe = self.probe.get_or_init(|| compile(self.config.without_effect()));
        let whole = self.whole.get_or_init(|| compile(self.config.clone()));
        SingleDecoders { probe: Decoder::of(Arc::clone(probe)), whole: Decoder::of(Arc::clone(whole)) }
    }
}

/// The decoders of a route by itself.
#[derive(Debug)]
pub(super) struct SingleDecoders {
    pub(super) probe: Decoder,
    pub(super) whole: Decoder,
}
