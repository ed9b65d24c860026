//! Finds what the Lua scripts call in their texts, so that nothing else lists the rights that they need.
//!
//! A script that Redis refuses a command keeps what it has written before. So a script that must do all of it or
//! nothing, and writes more than once, says `whole()` in front of its first write. There it asks whether anything can
//! be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// An argument of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// As it stands there.
    Text(String),
    /// One of the queue's keys, or of a document's, by its name.
    Key(String),
    /// What is worked out when the script runs.
    Other,
}

/// A command that a script calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) words: Vec<Word>,
    /// Lua's expression for its key.
    key: Option<String>,
}

impl Call {
    /// The command's name.
    pub(super) fn command(&self) -> &str {
        match self.words.first() {
            Some(Word::Text(name)) => name,
            _ => "",
        }
    }

    /// What its key must be, if that matters: a string is overwritten whatever it was.
    pub(super) fn kind(&self) -> Option<&'static str> {
        kind_of(self.command())
    }
}

/// What the key of a command must be.
pub(super) fn kind_of(command: &str) -> Option<&'static str> {
    match command.as_bytes() {
        [b'H', ..] => Some("hash"),
        [b'X', ..] => Some("stream"),
        [b'Z', ..] => Some("zset"),
        [b'L', ..] | [b'R', b'P', ..] | [b'B', b'L', ..] => Some("list"),
        _ => None,
    }
}

/// The calls in the source of scripts. A script's keys are those of the last line of a comment that has `KEYS`. A
/// script may have names of its own for keys; those of documents are `state` and `fill`.
pub(super) fn calls(source: &str) -> Vec<(Vec<String>, Call)> {
    let mut keys = Vec::new();
    let mut found = Vec::new();
    let mut at = 0;
    for line in source.split_inclusive('\n') {
        if let Some(names) = line.trim_start().strip_prefix("///").and_then(|line| line.split_once("KEYS ")) {
            let names = names.1.split('·').next().unwrap_or_default();
            keys =
                names.split_whitespace().map(|name| name.trim_end_matches(',').replace('-', "_")).collect();
        }
        for (start, _) in line.match_indices("call(") {
            let before = &line[..start];
            if before.ends_with("redis.") || before.ends_with("redis.p") {
                found.push((keys.clone(), call(&source[at + start + "call(".len()..], &keys)));
            }
        }
        at += line.len();
    }
    found
}

/// The call whose arguments the text begins with.
fn call(text: &str, keys: &[String]) -> Call {
    let arguments = arguments(text);
    let key = |argument: &str| match argument {
        "queue" | "state" | "fill" => Some(argument.to_owned()),
        // What is known of a stream.
        "known" => Some("stream".to_owned()),
        _ => {
            let number = argument.strip_prefix("KEYS[")?.strip_suffix(']')?.parse::<usize>().ok()?;
            // Without a comment it has no other name.
            Some(keys.get(number.checked_sub(1)?).cloned().unwrap_or_else(|| argument.to_owned()))
        }
    };
    let word = |argument: &&str| match (
        argument.strip_prefix('\'').and_then(|a| a.strip_suffix('\'')),
        key(argument),
    ) {
        (Some(text), _) if !text.contains('\'') => Word::Text(text.to_owned()),
        (_, Some(key)) => Word::Key(key),
        _ => Word::Other,
    };
    let expression = arguments.iter().find(|argument| key(argument).is_some());
    let expression = expression.map(|argument| match *argument {
        "queue" => "KEYS[1]".to_owned(),
        // Of many documents, one tells.
        "state" => "KEYS[2]".to_owned(),
        other => other.to_owned(),
    });
    Call { words: arguments.iter().map(word).collect(), key: expression }
}

/// What is between here and the closing parenthesis, cut at its commas.
fn arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start) = (0_u32, None, 0);
    let mut found = Vec::new();
    for (at, character) in text.char_indices() {
        match (quoted, character) {
            (Some(quote), _) if quote == character => quoted = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quoted = Some(character),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')') if depth == 0 => {
                found.push(text[start..at].trim());
                break;
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    found
}

/// The script, with what `whole()` in it stands for. The script ends there, with nothing written, if a key has another
/// type than its commands want, or if the user lacks a right for any of them. Rights to read count, too: a script may
/// read after it has written, and take a refusal for an empty key. Redis before 7.0 tells types only.
pub(super) fn whole(script: &str) -> String {
    let (mut kinds, mut checks) = (BTreeMap::new(), BTreeSet::new());
    for (_, call) in calls(script) {
        let Some(key) = call.key.clone().filter(|key| key.starts_with("KEYS[")) else { continue };
        // What a document's key holds is looked at by the script itself.
        if let Some(kind) = call.kind()
            && !call.words.contains(&Word::Key("state".to_owned()))
        {
            kinds.insert(key.clone(), kind);
        }
        checks.insert(check(&call, &key));
    }
    let mut lua = String::from("do\nfor _, k in ipairs({ ");
    for (key, kind) in kinds {
        // What is written to a text never fails.
        let _ = write!(lua, "{{ {key}, '{kind}' }}, ");
    }
    lua.push_str(
        "}) do
  local found = redis.call('TYPE', k[1])['ok']
  if found ~= 'none' and found ~= k[2] then
    return redis.error_reply('WRONGTYPE ' .. k[1] .. ' is a ' .. found .. ', not a ' .. k[2])
  end
end
if redis.acl_check_cmd then
  for _, c in ipairs({ ",
    );
    for check in checks {
        lua.push_str(&check);
    }
    lua.push_str(
        "}) do
    local known, may = pcall(redis.acl_check_cmd, unpack(c))
    if known and not may then
      return redis.error_reply('NOPERM this user may not ' .. c[1] .. ' on one of the keys of the queue')
    end
  end
end
end",
    );
    script.replacen("whole()", &lua, 1)
}

/// A command as it is asked about: that of its arguments which is no key counts for nothing.
fn check(call: &Call, key: &str) -> String {
    let words = call.words.iter().map(|word| match word {
        Word::Text(text) => format!("'{text}'"),
        Word::Key(_) => key.to_owned(),
        Word::Other => "'0'".to_owned(),
    });
    format!("{{ {} }}, ", words.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes nothing.
    const READS: [&str; 26] = [
        "EXISTS", "GET", "HEXISTS", "HGET", "HKEYS", "HLEN", "HMGET", "HVALS", "LINDEX", "LLEN", "LRANGE",
        "MGET", "PING", "PTTL", "TIME", "TYPE", "XINFO", "XLEN", "XPENDING", "XRANGE", "XREAD", "ZCARD",
        "ZRANGE", "ZSCORE", "INFO", "SCRIPT",
    ];

    fn writes(call: &Call) -> bool {
        !READS.contains(&call.command())
    }

    const SOURCES: [&str; 7] = [
        include_str!("script.rs"),
        concat!(include_str!("stream/helpers.rs"), include_str!("stream/script.rs")),
        include_str!("hot_state.rs"),
        include_str!("instances.rs"),
        include_str!("identity.rs"),
        include_str!("letters_script.rs"),
        include_str!("overflow.rs"),
    ];

    #[test]
    fn calls_are_read_with_their_keys() {
        let source = "/// Moves. KEYS queue dead-list · ARGV a\nlocal x = redis.call('HINCRBY', KEYS[2], 'n', \
                      redis.call('HGET', KEYS[1], 'a,b') or f(1, 2))";
        let told = |words: &[Word]| {
            let word = |word: &Word| match word {
                Word::Text(text) => text.clone(),
                Word::Key(key) => format!("<{key}>"),
                Word::Other => "?".to_owned(),
            };
            words.iter().map(word).collect::<Vec<_>>().join(" ")
        };
        let found: Vec<_> = calls(source).iter().map(|(_, call)| told(&call.words)).collect();
        assert_eq!(found, ["HINCRBY <dead_list> n ?", "HGET <queue> a,b"]);
    }

    #[test]
    fn every_call_has_a_command_and_a_key_that_is_known() {
        for (_, call) in SOURCES.into_iter().flat_map(calls) {
            let names_key = call.words.iter().any(|word| matches!(word, Word::Key(_)));
            assert!(!call.command().is_empty() && (names_key || call.command() == "TIME"), "{call:?}");
            for word in &call.words {
                let Word::Key(name) = word else { continue };
                let known = crate::config::Keys::named(name).is_some();
                assert!(known || ["state", "fill"].contains(&&**name), "{name} of {call:?}");
            }
        }
    }

    /// Scripts of which any beginning does no harm: what they write they write again, or only widens what is done
    /// again.
    const HARMLESS: [&str; 12] = [
        "IDENTIFY",
        "WORK",
        "LIVES",
        "READ",
        "MARK",
        "BURY",
        "TRIES",
        "PART",
        "LOOK",
        "CLAIM",
        "HEARTBEAT",
        "PARK",
    ];

    #[test]
    fn whoever_writes_more_than_once_writes_all_or_nothing() {
        let mut seen = 0;
        for source in SOURCES {
            for script in source.split("const ").skip(1) {
                let Some((name, text)) = script.split_once(": &str =") else { continue };
                // What comes behind belongs to the next one.
                let text = text.split("\n/// ").next().unwrap_or_default();
                let calls = calls(text);
                let count =
                    calls.iter().filter(|(_, call)| writes(call) && call.command() != "PEXPIRE").count();
                if count < 2 || HARMLESS.contains(&name) {
                    continue;
                }
                seen += 1;
                let (before, _) =
                    text.split_once("whole()").unwrap_or_else(|| panic!("{name} has no whole()"));
                let early = super::calls(before).into_iter().find(|(_, call)| writes(call));
                let in_function = early.as_ref().is_some_and(|_| before.contains("local function"));
                assert!(early.is_none() || in_function, "{name} writes before whole(): {early:?}");
            }
        }
        assert!(seen >= 8, "{seen} scripts");
    }

    #[test]
    fn what_whole_stands_for() {
        let script = "if x then return -1 end\nwhole()\nredis.call('RPUSH', KEYS[2], 1)\n\
                      redis.call('XGROUP', 'SETID', queue, name, 7)\nredis.call('GET', KEYS[3])";
        let lua = whole(script);
        assert!(lua.contains("{ { KEYS[1], 'stream' }, { KEYS[2], 'list' }, }"), "{lua}");
        assert!(
            lua.contains(
                "{ { 'GET', KEYS[3] }, { 'RPUSH', KEYS[2], '0' }, { 'XGROUP', 'SETID', KEYS[1], '0', '0' }, }"
            ),
            "{lua}"
        );
        assert!(!lua.contains("whole()"), "{lua}");
    }
}
