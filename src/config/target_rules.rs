//! Holds the rules for the fields that a route writes to.

use super::check::Violations;
use super::{KeyPath, Route};

impl Route {
    /// Fields of the document.
    pub(super) fn check_targets<'r>(&'r self, path: &KeyPath, found: &mut Violations) {
        let mut targets: Vec<(KeyPath, &'r str)> = Vec::new();
        let at = |key: &str, field: &str| path.join(key).join(field);
        let listed = |key: &str, fields: &'r [String]| {
            let key = path.join(key);
            let targets: Vec<_> =
                fields.iter().enumerate().map(|(n, field)| (key.join(n), field.as_str())).collect();
            targets
        };
        let [(_, set), others @ ..] = self.sourced_fields();
        targets.extend(set.keys().map(|field| (at("set", field), field.as_str())));
        targets.extend(listed("unset", &self.unset));
        targets.extend(self.inc.keys().map(|field| (at("inc", field), field.as_str())));
        targets.extend(
            others
                .iter()
                .flat_map(|(key, fields)| fields.keys().map(|field| (at(key, field), field.as_str()))),
        );
        targets.extend(self.pop.keys().map(|field| (at("pop", field), field.as_str())));
        for (field, name) in &self.rename {
            targets.extend([(at("rename", field), field.as_str()), (at("rename", field), name.as_str())]);
        }
        targets.extend(listed("current_date", &self.current_date));
        targets.extend(self.yjs.iter().map(|yjs| (at("yjs", "field"), yjs.field.as_str())));
        for field in self.shard_key.keys() {
            if let Some(fault) = target_fault(field) {
                found.require(false, at("shard_key", field), fault);
            }
        }

        for (number, (key, field)) in targets.iter().enumerate() {
            if let Some(fault) = target_fault(field) {
                found.require(false, key.clone(), fault);
            }
            let rival = targets[..number].iter().find(|(_, earlier)| conflict(earlier, field));
            if let Some((rival, _)) = rival {
                found.require(
                    false,
                    key.clone(),
                    format!("conflicts with `{rival}`: MongoDB refuses to write a field twice in one update"),
                );
            }
        }
    }
}

/// Why a field cannot be written to.
fn target_fault(field: &str) -> Option<&'static str> {
    let mut components = field.split('.');
    if components.clone().any(str::is_empty) {
        Some("is no field: a component is empty")
    } else if field.contains('\0') {
        Some("must not contain NUL")
    } else if components.clone().any(|component| component.starts_with('$')) {
        Some("no component may begin with `$`")
    } else {
        match components.next() {
            Some("_id") => Some("a document's `_id` cannot be changed: it is what `id` says"),
            Some("_tidegate") => Some("`_tidegate` is where tidegate keeps a document's watermarks"),
            Some("_tidegateDeleted") => Some("`_tidegateDeleted` marks the tombstones of deleted documents"),
            _ => None,
        }
    }
}

/// Whether two fields are the same or one is inside the other.
fn conflict(one: &str, other: &str) -> bool {
    let (outer, inner) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::super::violations;

    #[test]
    fn fields_can_be_written() {
        insta::assert_snapshot!(violations(r#"
            queues = [{ key = "q" }]
            [[routes]]
            id = "id"
            collection = "a"
            set = { "" = "x", "a..b" = "x", "_id" = "x", "_tidegate.q" = "x", "$set" = "x", "a.$[]" = "x", "n\u0000" = "x", "fine._id" = "x" }
        "#), @r#"
        `routes[0].set.""`: is no field: a component is empty
        `routes[0].set."$set"`: no component may begin with `$`
        `routes[0].set._id`: a document's `_id` cannot be changed: it is what `id` says
        `routes[0].set."_tidegate.q"`: `_tidegate` is where tidegate keeps a document's watermarks
        `routes[0].set."a.$[]"`: no component may begin with `$`
        `routes[0].set."a..b"`: is no field: a component is empty
        `routes[0].set."n\0"`: must not contain NUL
        "#);
    }

    #[test]
    fn fields_do_not_conflict() {
        insta::assert_snapshot!(violations(r#"
            queues = [{ key = "q" }]
            [[routes]]
            id = "id"
            collection = "a"
            set = { a = "x", ab = "x", "b.c" = "x" }
            unset = ["b", "d", "d"]
            inc = { "a.n" = 1, "b2" = 1 }
            push = { ab = "x" }
        "#), @r#"
        `routes[0].unset[0]`: conflicts with `routes[0].set."b.c"`: MongoDB refuses to write a field twice in one update
        `routes[0].unset[2]`: conflicts with `routes[0].unset[1]`: MongoDB refuses to write a field twice in one update
        `routes[0].inc."a.n"`: conflicts with `routes[0].set.a`: MongoDB refuses to write a field twice in one update
        `routes[0].push.ab`: conflicts with `routes[0].set.ab`: MongoDB refuses to write a field twice in one update
        "#);
    }
}
