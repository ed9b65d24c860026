//! Checks how long changes may wait: what a route says of it makes sense, and fits the rest of the configuration.

use std::time::Duration;

use super::check::Violations;
use super::{Config, KeyPath, Route};

/// The longest that a change may wait. Everything that waits is in memory, and in Redis.
const LONGEST: Duration = Duration::from_secs(3600);

/// Events that wait for so much longer than their window raise the alert `TidegateEventsOld`.
const ALERT: Duration = Duration::from_secs(60);

impl Route {
    /// Reports what is wrong with the timing of the route at `path`.
    pub(super) fn check_timing(&self, path: &KeyPath, found: &mut Violations) {
        let window = |key, what: Option<Duration>| {
            let key = path.join(key);
            (what.is_none_or(|what| what <= LONGEST), key)
        };
        for (holds, key) in [window("max_delay", self.max_delay), window("pace", self.pace)] {
            found.require(holds, key, "must be at most 1h: what waits is in memory");
        }
        found.require(self.pace != Some(Duration::ZERO), path.join("pace"), "must be longer than 0s");
        let set = [self.max_delay.is_some(), self.pace.is_some(), self.flush];
        found.require(
            set.into_iter().filter(|is_set| *is_set).count() < 2,
            path.clone(),
            "`max_delay`, `pace` and `flush` exclude each other",
        );
        let beside = self.history.is_some() || self.hot_state.is_some();
        let message = "writes nothing by itself: there is nothing for `history` or `hot_state`";
        found.require(!self.only_flushes() || !beside, path.join("flush"), message);
    }

    /// Whether it writes nothing by itself.
    #[must_use]
    pub fn only_flushes(&self) -> bool {
        self.flush && !self.has_effect()
    }

    /// The longest that its changes may wait, if it says so.
    #[must_use]
    pub fn window(&self) -> Option<Duration> {
        self.max_delay.or(self.pace)
    }
}

impl Config {
    /// The longest that any change may wait, and what says so.
    #[must_use]
    pub fn longest_window(&self) -> (Duration, KeyPath) {
        let routes = self.routes.iter().enumerate().filter_map(|(number, route)| {
            let key = if route.max_delay.is_some() { "max_delay" } else { "pace" };
            Some((route.window()?, KeyPath::from("routes").join(number).join(key)))
        });
        let default = (self.batch.max_delay, KeyPath::from("batch.max_delay"));
        routes.fold(default, |longest, other| if other.0 > longest.0 { other } else { longest })
    }

    /// Warns of windows that are longer than something which should be longer.
    pub(super) fn warn_of_windows(&self, warnings: &mut Vec<String>) {
        let (window, key) = self.longest_window();
        let shown = |time: Duration| humantime_serde::re::humantime::format_duration(time).to_string();
        if window > ALERT {
            warnings.push(format!(
                "`{key}` is {}: documents in MongoDB may be that old, and the alert TidegateEventsOld waits as \
                 much longer",
                shown(window)
            ));
        }
        if window > self.shutdown.deadline {
            warnings.push(format!(
                "`{key}` is {}, longer than `shutdown.deadline`: at its end an instance has {} to write what waits",
                shown(window),
                shown(self.shutdown.deadline)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(routes: &str) -> Config {
        toml::from_str(&format!("queues = [{{ key = \"q\" }}]\n{routes}")).unwrap()
    }

    fn route(keys: &str) -> String {
        format!(
            "[[routes]]\nwhen = {{ type = \"x\" }}\ncollection = \"c\"\nid = \"of\"\nunset = [\"a\"]\n{keys}\n"
        )
    }

    #[test]
    fn a_route_has_one_timing_that_fits_into_memory() {
        let of = |keys: &str| {
            let problems = config(&route(keys)).violations(crate::decode::check_literal);
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        for right in ["", "max_delay = '2s'", "max_delay = '0s'", "pace = '1h'", "flush = true"] {
            assert_eq!(of(right), "", "{right}");
        }
        insta::assert_snapshot!(of("max_delay = '61m'\npace = '0s'\nflush = true"), @"
        `routes[0].max_delay`: must be at most 1h: what waits is in memory
        `routes[0].pace`: must be longer than 0s
        `routes[0]`: `max_delay`, `pace` and `flush` exclude each other
        ");
        for two in
            ["max_delay = '2s'\npace = '2s'", "pace = '2s'\nflush = true", "max_delay = '2s'\nflush = true"]
        {
            assert_eq!(of(two), "`routes[0]`: `max_delay`, `pace` and `flush` exclude each other");
        }
    }

    #[test]
    fn a_route_that_only_flushes_has_nothing_to_keep() {
        let route = |keys: &str| {
            config(&format!(
                "[[routes]]\nwhen = {{ t = 1 }}\ncollection = \"c\"\nid = \"of\"\nflush = true\n{keys}\n"
            ))
        };
        assert_eq!(route("").violations(crate::decode::check_literal), []);
        let problems = route("history = 'h'").violations(crate::decode::check_literal);
        insta::assert_snapshot!(problems[0], @"`routes[0].flush`: writes nothing by itself: there is nothing for `history` or `hot_state`");
    }

    #[test]
    fn warns_of_windows_that_are_longer_than_what_should_be_longer() {
        let of = |text: &str| {
            let mut warnings = Vec::new();
            config(text).warn_of_windows(&mut warnings);
            warnings.join("\n")
        };
        assert_eq!(of(&route("max_delay = '25s'")), "");
        let both = format!("{}{}", route("max_delay = '30s'"), route("pace = '2m'"));
        insta::assert_snapshot!(of(&both), @"
        `routes[1].pace` is 2m: documents in MongoDB may be that old, and the alert TidegateEventsOld waits as much longer
        `routes[1].pace` is 2m, longer than `shutdown.deadline`: at its end an instance has 25s to write what waits
        ");
        let shut = of("batch.max_delay = '40s'");
        assert!(shut.starts_with("`batch.max_delay` is 40s, longer than"), "{shut}");
    }
}
