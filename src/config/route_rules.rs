//! Checks a route: one collection, one kind of effect, fields that can be written together.

use super::check::{Violations, check_collection};
use super::{Deletes, Id, KeyPath, Route, Skip};

impl Route {
    /// Reports what is wrong with the route at `path`.
    pub(super) fn check(&self, path: &KeyPath, found: &mut Violations) {
        if self.skip.is_some() {
            return self.check_skip(path, found);
        }
        let key = path.join("id");
        found.require(!self.id.is_none(), key, "is missing, or empty: which document is it?");
        self.check_collection(path, found);
        self.check_effect(path, found);
        self.check_timing(path, found);
        self.check_sources(path, found);
        self.check_targets(path, found);
    }

    /// A route that skips does nothing else.
    fn check_skip(&self, path: &KeyPath, found: &mut Violations) {
        let key = path.join("skip");
        let alone = Route { when: self.when.clone(), skip: self.skip, ..Route::default() };
        found.require(*self == alone, path.clone(), "`skip` goes with `when` only: nothing is written");
        found.require(self.skip != Some(Skip::Matching(false)), key.clone(), "must be true, or \"empty\"");
        let is_empty = self.skips_empty();
        found.require(
            !is_empty || self.when.is_empty(),
            key.clone(),
            "an empty event has nothing for `when`",
        );
        found.require(
            is_empty || !self.when.is_empty(),
            key,
            "needs a `when`: without, every event would be thrown away",
        );
        self.check_paths(self.when_sources(path), found);
    }

    fn when_sources<'a>(&'a self, path: &KeyPath) -> Vec<(KeyPath, &'a str)> {
        self.when.keys().map(|source| (path.join("when").join(source), source.as_str())).collect()
    }

    fn check_paths(&self, sources: Vec<(KeyPath, &str)>, found: &mut Violations) {
        for (key, source) in sources {
            if source == "$" || source.starts_with("$.") {
                let message = format!(
                    "{source:?} is looked for in a field that is called \"$\": paths begin with the event's own fields"
                );
                found.doubt(key.clone(), message);
            }
            let is_path = source.split('.').all(|component| !component.is_empty());
            found.require(is_path, key, format!("{source:?} is no path: a component is empty"));
        }
    }

    fn check_collection(&self, path: &KeyPath, found: &mut Violations) {
        let is_from = self.collection_from.is_some();
        found.require(
            self.collection.is_some() != is_from,
            path.clone(),
            if is_from {
                "`collection` and `collection_from` exclude each other"
            } else {
                "needs `collection`, or `collection_from` with `collections`"
            },
        );
        found.require(
            !is_from || !self.collections.is_empty(),
            path.join("collections"),
            "must list what `collection_from` may name: events are not trusted to",
        );
        found.require(
            is_from || self.collections.is_empty(),
            path.join("collections"),
            "only means something together with `collection_from`",
        );
        if let Some(name) = &self.collection {
            check_collection(name, path.join("collection"), found);
        }
        for (number, name) in self.collections.iter().enumerate() {
            check_collection(name, path.join("collections").join(number), found);
        }
    }

    /// Whether it writes anything.
    pub(super) fn has_effect(&self) -> bool {
        self.updates() || self.replace.is_some() || self.delete
    }

    fn updates(&self) -> bool {
        !self.unset.is_empty()
            || !self.inc.is_empty()
            || !self.pop.is_empty()
            || !self.rename.is_empty()
            || !self.current_date.is_empty()
            || self.yjs.is_some()
            || self.sourced_fields().iter().any(|(_, fields)| !fields.is_empty())
            || self.patch.is_some()
            || self.merge.is_some()
    }

    fn check_effect(&self, path: &KeyPath, found: &mut Violations) {
        let kinds =
            [self.updates(), self.replace.is_some(), self.delete].into_iter().filter(|kind| *kind).count();
        found.require(
            kinds > 0 || self.flush,
            path.clone(),
            "has no effect: give it `set`, `inc`, `push` or another operator, `merge` or `patch`, or `replace`, or `delete`, or `skip`, or `flush`",
        );
        found.require(
            self.delete || self.deletes == Deletes::Hard,
            path.join("deletes"),
            "only means something together with `delete`",
        );
        found.require(
            kinds < 2,
            path.clone(),
            "`replace` and `delete` go neither together nor with operators, `merge` or `patch`",
        );
    }

    /// Paths into the event.
    fn check_sources(&self, path: &KeyPath, found: &mut Violations) {
        let single = [
            ("collection_from", &self.collection_from),
            ("ts", &self.ts),
            ("traceparent", &self.traceparent),
            ("merge", &self.merge),
            ("patch", &self.patch),
            ("replace", &self.replace),
        ];
        let amounts: Vec<_> = self
            .inc
            .iter()
            .filter_map(|(field, amount)| amount.check(&path.join("inc").join(field), found))
            .collect();
        let mut sources = Vec::new();
        if !self.id.is_none() {
            sources = self.id.check(&path.join("id"), found);
        }
        if let Some(separator) = &self.id_separator {
            let key = path.join("id_separator");
            let joins = matches!(self.id, Id::Parts(_));
            found.require(joins, key.clone(), "only means something where `id` is a list");
            found.require(!separator.is_empty(), key, "must not be empty: ids would run into each other");
        }
        sources.extend(
            single.into_iter().filter_map(|(key, source)| Some((path.join(key), source.as_deref()?))),
        );
        sources.extend(self.when_sources(path));
        for (key, fields) in self.sourced_fields() {
            for (field, source) in fields {
                sources.extend(source.check_for(key, &path.join(key).join(field), found));
            }
        }
        sources.extend(amounts);
        for (field, source) in &self.shard_key {
            sources.extend(source.check_for("shard_key", &path.join("shard_key").join(field), found));
        }
        if let Some(yjs) = &self.yjs {
            let key = path.join("yjs");
            yjs.check(&key, found);
            sources.push((key.join("update"), yjs.update.as_str()));
        }
        for (field, end) in &self.pop {
            let key = path.join("pop").join(field);
            found.require(matches!(end, 1 | -1), key, "must be -1 for the first element or 1 for the last");
        }
        self.check_paths(sources, found);
    }
}

#[cfg(test)]
mod tests {
    fn violations(routes: &str) -> String {
        super::super::violations(&format!("queues = [{{ key = \"q\" }}]\n{routes}"))
    }

    #[test]
    fn a_path_of_another_language_is_doubted() {
        let toml = r#"
            queues = [{ key = "q" }]
            [[routes]]
            collection = "a"
            id = "$.id"
            set = { a = "$.a", b = { value = "$.b" }, c = "c.$.d" }
        "#;
        let config: super::super::Config = toml::from_str(toml).unwrap();
        insta::assert_snapshot!(config.warnings().join("\n"), @r#"
`routes[0].id`: "$.id" is looked for in a field that is called "$": paths begin with the event's own fields
`routes[0].set.a`: "$.a" is looked for in a field that is called "$": paths begin with the event's own fields
"#);
    }

    #[test]
    fn a_route_names_one_collection() {
        insta::assert_snapshot!(violations(r#"
            [[routes]]
            id = "id"
            delete = true
            [[routes]]
            id = "id"
            delete = true
            collection = "a"
            collection_from = "kind"
            [[routes]]
            id = "id"
            delete = true
            collection_from = "kind"
            collections = ["a", "tidegate"]
            [[routes]]
            id = "id"
            delete = true
            collection = "system.users"
            collections = ["a"]
        "#), @"
        `routes[0]`: needs `collection`, or `collection_from` with `collections`
        `routes[1]`: `collection` and `collection_from` exclude each other
        `routes[1].collections`: must list what `collection_from` may name: events are not trusted to
        `routes[2].collections[1]`: is a collection in which tidegate keeps its own state
        `routes[3].collections`: only means something together with `collection_from`
        `routes[3].collection`: must not begin with `system.`: those collections are MongoDB's own
        ");
    }

    #[test]
    fn a_route_has_one_kind_of_effect() {
        insta::assert_snapshot!(violations(r#"
            [[routes]]
            id = "id"
            collection = "a"
            [[routes]]
            id = "id"
            collection = "a"
            delete = true
            replace = "state"
            [[routes]]
            id = "id"
            collection = "a"
            replace = "state"
            unset = ["old"]
            [[routes]] # fine
            id = "id"
            collection = "a"
            set = { a = "a" }
            unset = ["b"]
            inc = { c = 1, d = 0.5, e = "n" }
            push = { f = "f" }
            merge = "changes"
        "#), @"
        `routes[0]`: has no effect: give it `set`, `inc`, `push` or another operator, `merge` or `patch`, or `replace`, or `delete`, or `skip`, or `flush`
        `routes[1]`: `replace` and `delete` go neither together nor with operators, `merge` or `patch`
        `routes[2]`: `replace` and `delete` go neither together nor with operators, `merge` or `patch`
        ");
    }

    #[test]
    fn paths_have_components() {
        insta::assert_snapshot!(violations(r#"
            [[routes]]
            when = { "" = 1, "a..b" = 2 }
            id = ""
            ts = "ts."
            traceparent = "a..b"
            collection_from = ".kind"
            collections = ["a"]
            set = { a = "" }
            push = { b = "x..y" }
            inc = { c = ".", d = nan }
            merge = ""
            [[routes]]
            id = "id"
            collection = "a"
            replace = "a..b"
        "#), @r#"
        `routes[0].id`: is missing, or empty: which document is it?
        `routes[0].inc.d`: must be a finite number
        `routes[0].collection_from`: ".kind" is no path: a component is empty
        `routes[0].ts`: "ts." is no path: a component is empty
        `routes[0].traceparent`: "a..b" is no path: a component is empty
        `routes[0].merge`: "" is no path: a component is empty
        `routes[0].when.""`: "" is no path: a component is empty
        `routes[0].when."a..b"`: "a..b" is no path: a component is empty
        `routes[0].set.a`: "" is no path: a component is empty
        `routes[0].push.b`: "x..y" is no path: a component is empty
        `routes[0].inc.c`: "." is no path: a component is empty
        `routes[1].replace`: "a..b" is no path: a component is empty
        "#);
    }

    #[test]
    fn operators_and_their_operands_go_together() {
        insta::assert_snapshot!(violations(r#"
            [[routes]]
            id = "id"
            collection = "a"
            set = { a = { path = "a", each = true }, b = { path = "b", slice = 1 } }
            push = { c = { path = "c", sort = 2 }, d = { path = "d", sort = { x = "up" } } }
            pop = { e = 0 }
            rename = { f = "a.b", _id = "g" }
            current_date = ["h", "h"]
            shard_key = { "" = "i", j = "" }
            yjs = { update = "k..l", field = "h.x", compact_above = 1, max_bytes = "5MiB" }
        "#), @r#"
        `routes[0].set.a.each`: only means something in `push` and `add_to_set`
        `routes[0].set.b.slice`: only means something in `push`
        `routes[0].push.c.sort`: must be 1, -1, or a table of fields to these
        `routes[0].push.d.sort`: must be 1, -1, or a table of fields to these
        `routes[0].yjs.compact_above`: must be at least 2
        `routes[0].yjs.max_bytes`: must be from 1 byte to 4MiB
        `routes[0].pop.e`: must be -1 for the first element or 1 for the last
        `routes[0].shard_key.j`: "" is no path: a component is empty
        `routes[0].yjs.update`: "k..l" is no path: a component is empty
        `routes[0].shard_key.""`: is no field: a component is empty
        `routes[0].rename._id`: a document's `_id` cannot be changed: it is what `id` says
        `routes[0].rename.f`: conflicts with `routes[0].set.a`: MongoDB refuses to write a field twice in one update
        `routes[0].current_date[1]`: conflicts with `routes[0].current_date[0]`: MongoDB refuses to write a field twice in one update
        `routes[0].yjs.field`: conflicts with `routes[0].current_date[0]`: MongoDB refuses to write a field twice in one update
        "#);
    }
}
