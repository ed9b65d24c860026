//! Queues in partitions: `key = "collab:{0..15}"` names sixteen lists.

use super::Queue;

/// More would only cost heartbeats.
const MAX_PARTITIONS: u32 = 1024;

impl Queue {
    /// The Redis keys that the key names: itself, or one for each number of the range in it.
    ///
    /// # Errors
    /// It has a range that is none: says what is wrong.
    pub fn keys(&self) -> Result<Vec<String>, String> {
        let Some((before, first, last, after)) = range(&self.key) else { return Ok(vec![self.key.clone()]) };
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
            return Err(format!("{{{first}..{last}}} must be two numbers"));
        };
        if first >= last || last - first >= MAX_PARTITIONS {
            return Err(format!(
                "{{{first}..{last}}} must go up, and name at most {MAX_PARTITIONS} partitions"
            ));
        }
        if range(after).is_some() {
            return Err("can have only one range".into());
        }
        Ok((first..=last).map(|n| format!("{before}{n}{after}")).collect())
    }

    /// The queues that it names.
    pub(super) fn expanded(self) -> Vec<Queue> {
        // What is wrong was reported before.
        let keys = self.keys().unwrap_or_default();
        keys.into_iter().map(|key| Queue { key, ..self.clone() }).collect()
    }
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
    fn what_is_no_range_is_told() {
        assert_eq!(keys("q{0..x}").unwrap_err(), "{0..x} must be two numbers");
        assert_eq!(keys("q{-1..2}").unwrap_err(), "{-1..2} must be two numbers");
        for range in ["{3..3}", "{5..1}", "{0..1024}"] {
            assert!(keys(range).unwrap_err().starts_with(&format!("{range} must go up")), "{range}");
        }
        assert_eq!(keys("{0..1}:{0..1}").unwrap_err(), "can have only one range");
    }
}
