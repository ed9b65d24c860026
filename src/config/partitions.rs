//! Expands queues in partitions: `key = "collab:{0..15}"` names sixteen lists.

use super::Queue;

/// More would only cost heartbeats.
const MAX_PARTITIONS: u32 = 1024;

impl Queue {
    /// The Redis keys that the key names: itself, or one for each number of the range in it.
    ///
    /// # Errors
    /// It has a range that is none: says what is wrong.
    pub fn keys(&self) -> Result<Vec<String>, String> {
        names(&self.key)
    }

    /// The ids of these keys: an id has the range that the key has.
    ///
    /// # Errors
    /// They are not as many: says what is wrong.
    pub(super) fn ids(&self) -> Result<Vec<String>, String> {
        let keys = self.keys()?;
        let Some(id) = &self.id else { return Ok(keys) };
        let ids = names(id)?;
        if ids.len() == keys.len() {
            return Ok(ids);
        }
        Err(format!("must name as many queues as the key: that names {}, this {}", keys.len(), ids.len()))
    }

    /// The queues that it names.
    pub(super) fn expanded(self) -> Vec<Queue> {
        // What is wrong was reported before.
        let (keys, ids) = (self.keys().unwrap_or_default(), self.ids().unwrap_or_default());
        let id = |id| self.id.is_some().then_some(id);
        let pattern = (keys.len() > 1).then(|| self.key.clone());
        let queue = |(key, name)| Queue { key, id: id(name), pattern: pattern.clone(), ..self.clone() };
        keys.into_iter().zip(ids).map(queue).collect()
    }
}

/// A text, or one for each number of the range in it.
fn names(text: &str) -> Result<Vec<String>, String> {
    let Some((before, first, last, after)) = range(text) else { return Ok(vec![text.to_owned()]) };
    let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
        return Err(format!("{{{first}..{last}}} must be two numbers"));
    };
    if first >= last || last - first >= MAX_PARTITIONS {
        return Err(format!("{{{first}..{last}}} must go up, and name at most {MAX_PARTITIONS} partitions"));
    }
    if range(after).is_some() {
        return Err("can have only one range".into());
    }
    Ok((first..=last).map(|n| format!("{before}{n}{after}")).collect())
}

/// What is before, between and behind `{a..b}`.
fn range(key: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, rest) = key.split_once('{')?;
    let (range, after) = rest.split_once('}')?;
    match range.split_once("..") {
        Some((first, last)) => Some((before, first, last, after)),
        // A hash tag.
        None => {
            let skipped = key.len() - after.len();
            let (_, first, last, behind) = self::range(after)?;
            let before_end = skipped + after.find('{')?;
            Some((&key[..before_end], first, last, behind))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(key: &str) -> Result<Vec<String>, String> {
        let queue: Queue = toml::from_str(&format!("key = {key:?}")).unwrap();
        queue.keys()
    }

    #[test]
    fn a_range_names_partitions() {
        let sixteen = keys("collab:{0..15}").unwrap();
        assert_eq!((sixteen.len(), &*sixteen[0], &*sixteen[15]), (16, "collab:0", "collab:15"));
        assert_eq!(keys("{a}:x{8..9}y").unwrap(), ["{a}:x8y", "{a}:x9y"]);
        assert_eq!(keys("plain").unwrap(), ["plain"]);
        assert_eq!(keys("collab:{7}").unwrap(), ["collab:{7}"], "a hash tag");
        assert_eq!(keys("{open").unwrap(), ["{open"]);
    }

    #[test]
    fn ids_follow_the_range_of_the_key() {
        let queue = |text: &str| -> Queue { toml::from_str(text).unwrap() };
        let names = |text: &str| -> Vec<(String, String)> {
            let queues = queue(text).expanded().into_iter();
            queues.map(|queue| (queue.key.clone(), queue.id().to_owned())).collect()
        };
        let pair = |key: &str, id: &str| (key.to_owned(), id.to_owned());
        let two = names("key = 'q:{0..1}'\nid = 'eu:q:{0..1}'");
        assert_eq!(two, [pair("q:0", "eu:q:0"), pair("q:1", "eu:q:1")]);
        assert_eq!(names("key = 'q:{0..1}'"), [pair("q:0", "q:0"), pair("q:1", "q:1")]);
        assert_eq!(names("key = 'q'\nid = 'eu:q'"), [pair("q", "eu:q")]);
        let wrong = queue("key = 'q:{0..1}'\nid = 'eu'").ids().unwrap_err();
        assert_eq!(wrong, "must name as many queues as the key: that names 2, this 1");
    }

    #[test]
    fn what_is_no_range_is_told() {
        assert_eq!(keys("q{0..x}").unwrap_err(), "{0..x} must be two numbers");
        assert_eq!(keys("q{-1..2}").unwrap_err(), "{-1..2} must be two numbers");
        for range in ["{3..3}", "{5..1}", "{0..1024}"] {
            assert!(keys(range).unwrap_err().starts_with(&format!("{range} must go up")), "{range}");
        }
        assert_eq!(keys("{0..1}:{0..1}").unwrap_err(), "can have only one range");
    }
}
