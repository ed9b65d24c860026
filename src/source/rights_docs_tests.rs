//! Holds the rights in `docs/security.md` equal to the commands that the code sends and its scripts call.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::*;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
/// What is generated stands between these lines.
const BEGIN: &str =
    "<!-- Generated from the commands in the code: `UPDATE_DOCS=1 cargo test rights_page` writes it. -->\n";
const END: &str = "<!-- The end of what is generated. -->\n";

/// The names of what a queue of this configuration needs, as Redis' rules have them.
fn names(toml: &str) -> BTreeSet<String> {
    let config: config::Config = toml::from_str(toml).unwrap();
    let queue = &config.queues[0];
    let rights = Rights::of(&config, queue, &config.keys_of(&queue.key));
    let of = rights.commands.iter().map(|(words, _)| name(words)).chain(["MULTI".to_owned()]);
    of.map(|name| rule(&name)).collect()
}

fn rule(name: &str) -> String {
    format!("+{}", name.to_lowercase().replace(' ', "|"))
}

/// Newer than the oldest Redis that has streams enough: an older one refuses the rule as it refuses the command.
const NEW: &str = "+xackdel";

fn line(keys: &str, rules: &BTreeSet<String>) -> String {
    let rules: Vec<_> = rules.iter().filter(|rule| *rule != NEW).map(String::as_str).collect();
    let mut text = format!("    ACL SETUSER tidegate on >secret {keys}\n     ");
    let mut width = 0;
    for rule in rules {
        if width + rule.len() > 105 {
            text.push_str("\n     ");
            width = 0;
        }
        width += rule.len() + 1;
        write!(text, " {rule}").unwrap();
    }
    text + "\n"
}

fn page() -> String {
    let list = names("queues = [{ key = 'collabQueue' }]");
    let stream = names("queues = [{ key = 'collabQueue', kind = 'stream' }]");
    let mut popped = names("queues = [{ key = 'collabQueue', delivery = 'at-most-once' }]");
    // Who may not is not asked to: then nobody can pause the list.
    popped.extend(["GET", "EXISTS"].map(rule));
    let hot = names(
        "queues = [{ key = 'collabQueue' }]\n\
         routes = [{ collection = 'c', id = 'id', set = { a = 'a' }, hot_state = { ttl = '1m' } }]",
    );
    let beyond = |rules: BTreeSet<String>, known: &BTreeSet<String>| {
        let more: Vec<_> =
            rules.difference(known).map(|rule| format!("`{}`", rule.replace('|', "\\|"))).collect();
        if more.is_empty() { "nothing more".to_owned() } else { more.join(" ") }
    };
    let of_letters = calls(include_str!("letters_script.rs"));
    let of_letters = of_letters.iter().map(|(_, call)| rule(call.command()));
    let dead: BTreeSet<_> = of_letters.chain(OF_DEAD.iter().map(|name| rule(name))).collect();
    let pause: BTreeSet<_> = OF_PAUSE.iter().map(|name| rule(name)).collect();
    let watch: BTreeSet<_> = OF_WATCH.iter().map(|name| rule(name)).collect();
    let durable: BTreeSet<_> = OF_DURABLE.iter().map(|name| rule(name)).collect();
    // In Redis 6.2 a new user has all channels at first.
    let keys = "resetchannels ~collabQueue ~collabQueue:dead ~tidegate:* &tidegate:*";
    let mut page = String::new();
    writeln!(page, "A list:\n\n{}", line(keys, &list)).unwrap();
    writeln!(page, "A stream (from Redis 8.2 on also `{NEW}`):\n\n{}", line(keys, &stream)).unwrap();
    writeln!(
        page,
        "A list that is popped, `at-most-once`:\n\n{}",
        line("~collabQueue ~collabQueue:dead ~tidegate:*", &popped)
    )
    .unwrap();
    page.push_str("| For | Also |\n| --- | --- |\n");
    for (what, rules) in [
        ("receipts", "`+publish`".to_owned()),
        ("one connection that waits for all queues, in place of one for each", beyond(watch, &list)),
        ("`/durable`", beyond(durable, &list)),
        ("hot states", beyond(hot, &list)),
        ("`tidegate dead`", beyond(dead, &list)),
        ("`tidegate pause`, `tidegate resume`", beyond(pause, &list)),
        ("Sentinel", "`+role`; at the sentinels `+sentinel\\|get-master-addr-by-name`".to_owned()),
        ("Redis Cluster", "`+cluster\\|slots`; the dead letters are `~{collabQueue}:dead`".to_owned()),
        ("another database than 0", "`+select`".to_owned()),
    ] {
        writeln!(page, "| {what} | {rules} |").unwrap();
    }
    page
}

#[test]
fn rights_page() {
    let text = std::fs::read_to_string(PATH).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the line behind which it is generated");
    let (is, after) = rest.split_once(END).expect("the line at its end");
    let should = format!("\n{}\n", page());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PATH, format!("{before}{BEGIN}{should}{END}{after}")).unwrap();
    } else {
        assert_eq!(is, should, "run UPDATE_DOCS=1 cargo test rights_page");
    }
}
