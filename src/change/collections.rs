//! Lists the collections that events can reach, and gives each an id.

use super::CollectionId;
use crate::config::Config;

/// The configured collections; events can reach no others.
#[derive(Debug, Clone, Default)]
pub struct Collections(Vec<String>);

impl Collections {
    /// All collections that the configuration names.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut names = config.native.collections.clone();
        for route in &config.routes {
            names.extend(route.collection.clone());
            names.extend_from_slice(&route.collections);
        }
        names.sort();
        names.dedup();
        Collections(names)
    }

    /// These, and behind them those that only `config` names: whatever has an id keeps it.
    #[must_use]
    pub fn extended(&self, config: &Config) -> Self {
        let mut names = self.0.clone();
        let more = Collections::new(config).0.into_iter().filter(|name| !self.0.contains(name));
        names.extend(more);
        Collections(names)
    }

    /// The collection of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<CollectionId> {
        let at = self.0.iter().position(|n| n == name)?;
        u16::try_from(at).ok().map(CollectionId)
    }

    /// The name of a collection.
    #[must_use]
    pub fn name(&self, id: CollectionId) -> &str {
        self.0.get(usize::from(id.0)).map_or("", String::as_str)
    }

    /// All names, by id.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}
