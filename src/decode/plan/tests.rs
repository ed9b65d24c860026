//! Tests that plans and the general way agree, whatever the routes and whatever comes.

use super::Plans;
use super::random::{Template, config};
use crate::config::Config;
use crate::decode::Decoder;

/// What becomes of an event, and whether that needed no more than a plan.
fn outcome(decoder: &mut Decoder, event: &[u8]) -> (String, bool) {
    let outcome = format!("{:?}", decoder.decode_routed(event));
    (outcome, decoder.plans.known.recalled)
}

/// The same as by a decoder that knows no plans. Answers whether there was a plan.
fn compare(experienced: &mut Decoder, fresh: &mut Decoder, event: &[u8]) -> bool {
    fresh.plans = Plans::default();
    let ((planned, is_planned), (general, _)) = (outcome(experienced, event), outcome(fresh, event));
    assert_eq!(planned, general, "{}\n{:?}", String::from_utf8_lossy(event), fresh.rules.routes);
    is_planned
}

#[test]
fn an_event_means_the_same_whether_or_not_there_is_a_plan() {
    let (mut planned, mut all) = (0, 0);
    let seeds = std::env::var("PLAN_SEEDS").map_or(400, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = config(&mut random);
        let templates: Vec<_> = (0..random.usize(1..4)).map(|_| Template::new(&mut random)).collect();
        let (mut experienced, mut fresh) = (Decoder::new(&config), Decoder::new(&config));
        for _ in 0..500 {
            let event = templates[random.usize(..templates.len())].event(&mut random);
            planned += u32::from(compare(&mut experienced, &mut fresh, &event));
            all += 1;
        }
    }
    // Many configurations have no route that takes the events.
    assert!(planned > all / 15, "only {planned} of {all} events were planned");
}

fn decoders(routes: &str) -> (Decoder, Decoder) {
    let config: Config = toml::from_str(&format!("queues = [{{ key = 'q' }}]\n{routes}")).unwrap();
    (Decoder::new(&config), Decoder::new(&config))
}

const TRACE: &str = "\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"";

/// Each is learnt from one event, if at all, and then asked about one that is not what it looks like.
#[test]
fn events_that_only_look_like_others_are_not_taken_for_them() {
    let set = "[[routes]]\ncollection = 'a'\nid = 'i'\nset = { v = 'v' }\n";
    let often: Vec<_> = (0..300).map(|n| format!("f{n} = 'v'")).collect();
    for (routes, events) in [
        // The route before is for those that have its id.
        (
            format!("[[routes]]\ncollection = 'b'\nid = 'j'\nset = {{ v = 'v' }}\n{set}"),
            vec![
                r#"{"i":"x","j":null,"v":1}"#.to_owned(),
                r#"{"i":"x","j":"y","v":1}"#.to_owned(),
                r#"{"i":"x","j":null,"v":1}"#.to_owned(),
            ],
        ),
        // What is read whole may have below it what the route before asks for.
        (
            format!("[[routes]]\nwhen = {{ 'v.k' = 'A' }}\ncollection = 'b'\nid = 'i'\nunset = ['u']\n{set}"),
            vec![
                r#"{"i":"x","v":{"k":"B"}}"#.to_owned(),
                r#"{"i":"x","v":{"k":"A"}}"#.to_owned(),
                r#"{"i":"x","v":5}"#.to_owned(),
                r#"{"i":"x","v":{"k":"A"}}"#.to_owned(),
                r#"{"i":"x","v": {"k":"A"}}"#.to_owned(),
                r#"{"i":"x","v":[5]}"#.to_owned(),
            ],
        ),
        // A blank hides an object from who looks at one byte.
        (
            format!("[[routes]]\nwhen = {{ 'm.k' = 'A' }}\ncollection = 'b'\nid = 'i'\nunset = ['u']\n{set}"),
            vec![
                r#"{"i":"x","m":1,"v":1}"#.to_owned(),
                r#"{"i":"x","m": {"k":"A"},"v":1}"#.to_owned(),
                r#"{"i":"x","m":	{"k":"A"},"v":1}"#.to_owned(),
                r#"{"i":"x","m":1,"v": 1}"#.to_owned(),
            ],
        ),
        // The trace is in what is only compared.
        (
            "[[routes]]\nwhen = { m = 7 }\ncollection = 'b'\nid = 'i'\nset = { v = 'v' }\n\
             [[routes]]\ncollection = 'a'\nid = 'i'\ntraceparent = 'm.tr'\nset = { v = 'v' }\n"
                .to_owned(),
            vec![format!(r#"{{"i":"x","m":{{"tr":{TRACE}}},"v":1}}"#); 3],
        ),
        // The trace is what is written.
        (
            "[[routes]]\ncollection = 'a'\nid = 'i'\ntraceparent = 'v'\nset = { v = 'v' }\n".to_owned(),
            vec![r#"{"i":"x","v":"none"}"#.to_owned(), format!(r#"{{"i":"x","v":{TRACE}}}"#)],
        ),
        // Of two traces at one path the valid one counts.
        (
            format!("{set}traceparent = 'tr'\n"),
            vec![format!(r#"{{"i":"x","tr":{TRACE},"tr":"none","v":1}}"#); 3],
        ),
        // A trace that is data, too, may have escapes.
        (
            format!("{set}traceparent = 'v'\n"),
            vec![
                r#"{"i":"x","v":"none"}"#.to_owned(),
                format!(r#"{{"i":"x","v":{}}}"#, TRACE.replace("00-4", "\\u0030\\u0030-4")),
            ],
        ),
        // A part of the id is null, so that the event is the next route's.
        (
            format!("[[routes]]\ncollection = 'b'\nid = ['i', 'j']\nset = {{ v = 'v' }}\n{set}"),
            vec![
                r#"{"i":"x","j":7,"v":1}"#.to_owned(),
                r#"{"i":"x","j":null,"v":1}"#.to_owned(),
                r#"{"i":"x","j":"","v":1}"#.to_owned(),
            ],
        ),
        // Short values are encoded over what stands before them.
        (
            "[[routes]]\ncollection = 'a'\nid = 'i'\nset = { j = 'j', v = 'v', w = 'v' }\nmax = { k = 'k' }\n".to_owned(),
            vec![
                r#"{"i":"x","j":1,"k":2,"v":3}"#.to_owned(),
                r#"{"i":7,"j":-8,"k":9,"v":"y"}"#.to_owned(),
                r#"{"i":"x","j":"","k":2147483648,"v":-2147483649}"#.to_owned(),
                r#"{"i":"x","j":{"i":""},"k":[],"v":2147483647}"#.to_owned(),
            ],
        ),
        // What is refused, is by the same words, with the same entity.
        (
            "[[routes]]\nwhen = { t = 'S' }\nskip = true\n\
             [[routes]]\ncollection_from = 'c'\ncollections = ['a']\nid = { path = 'i', as = 'int' }\ninc = { n = 'v' }\n"
                .to_owned(),
            vec![
                r#"{"t":"S"}"#.to_owned(),
                r#"{"t":"S"}"#.to_owned(),
                r#"{"c":"a","i":"7","v":1}"#.to_owned(),
                r#"{"c":"b","i":"7","v":1}"#.to_owned(),
                r#"{"c":"a","i":"seven","v":1}"#.to_owned(),
                r#"{"c":"a","i":"","v":1}"#.to_owned(),
                r#"{"c":"a","i":"7","v":"one"}"#.to_owned(),
            ],
        ),
        // A wide integer, where nobody looks, is looked for when another number is large.
        (
            format!("[[routes]]\nwhen = {{ m = 7 }}\ncollection = 'b'\nid = 'i'\nunset = ['u']\n{set}"),
            vec![
                r#"{"i":"x","m":1e30,"v":1,"n":1}"#.to_owned(),
                r#"{"i":"x","m":1e30,"v":1,"n":123456789012345678901}"#.to_owned(),
                r#"{"i":"x","m":1,"v":1,"n":123456789012345678901}"#.to_owned(),
                r#"{"i":"x","m":1,"v":1e30,"n":123456789012345678901}"#.to_owned(),
            ],
        ),
        // The same value often comes to more than a document can hold.
        (
            format!("[[routes]]\ncollection = 'a'\nid = 'i'\nset = {{ {} }}\n", often.join(", ")),
            vec![
                r#"{"i":"x","v":"small"}"#.to_owned(),
                format!(r#"{{"i":"x","v":"{}"}}"#, "x".repeat(60_000)),
            ],
        ),
        // An event that was refused for its size has taught something.
        (
            set.to_owned(),
            vec![
                format!(r#"{{"i":"x","v":"{}"}}"#, "x".repeat(17 << 20)),
                r#"{"i":"x","v":"small"}"#.to_owned(),
                format!(r#"{{"i":"x","v":"{}"}}"#, "x".repeat(17 << 20)),
            ],
        ),
    ] {
        let (mut experienced, mut fresh) = decoders(&routes);
        for event in events {
            compare(&mut experienced, &mut fresh, event.as_bytes());
        }
    }
}

#[test]
fn events_of_the_usual_kind_are_planned() {
    let (mut decoder, _) = decoders(
        "[[routes]]\nwhen = { type = 'A' }\ncollection = 'a'\nid = 'p.id'\nts = 'ts'\nset = { t = 'p.t', u = 'p.u' }\n\
         inc = { n = 1 }\n\
         [[routes]]\nwhen = { type = 'E' }\ncollection = 'a'\nid = 'p.id'\nset = { t = 'p.t', d = { value = 'fixed' } }\n\
         push = { log = 'p.u' }\n",
    );
    let mut planned = |event: &str| outcome(&mut decoder, event.as_bytes()).1;
    assert!(!planned(r#"{"type":"A","ts":1,"p":{"id":"x","t":"some","u":5}}"#));
    assert!(planned(r#"{"type":"A","ts":2,"p":{"id":7,"t":"text","u":"é"}}"#));
    assert!(!planned(r#"{"type":"E","more":null,"p":{"id":"x","t":"some"}}"#));
    assert!(planned(r#"{"type":"E","more":0.5,"p":{"id":"y","t":"a\\nb"}}"#));
    assert!(planned(r#"{"type":"E","more":"","p":{"id":"y","t":{"a":[1.5,null]}}}"#));
    assert!(planned(r#"{"type":"A","ts":2,"p":{"id":"","t":"refused","u":5}}"#));
    for other in [
        r#"{"type":"B","ts":2,"p":{"id":7,"t":"text","u":5}}"#,
        r#"{"type":"A","ts":2,"p":{"id":"x","t":{"$a":1},"u":5}}"#,
        r#"{"type":"A","ts":2,"p":{"id":null,"t":"text","u":5}}"#,
        r#"{"type":"A","ts":2,"p":{"id":"x","t":123456789012345678901,"u":5}}"#,
        r#"{"type":"E","more":[],"p":{"id":"x","t":"some"}}"#,
        r#"{"type":"A","ts":1,"p":{"id":"x","t":"some","u":5}} "#,
        r#"{"type":"A","p":{"id":"x","t":"some","u":5},"ts":1}"#,
        r#"{"type":"A","p":{"id":"x","t":"some","u":5}}"#,
    ] {
        assert!(!planned(other), "{other}");
    }
}
