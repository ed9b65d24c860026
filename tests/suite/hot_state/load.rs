//! Generates random events, most of which hot states can follow, and some not.

use serde_json::{Value, json};

use crate::stage::update;

/// The next event of a document; where the document allows, `exact` ones only.
pub(super) fn event(random: &mut fastrand::Rng, id: &str, exact: bool) -> String {
    let n = random.u32(0..1000);
    let native = |effect: Value| {
        let mut event = json!({"collection": "documents", "id": id});
        event.as_object_mut().expect("an object").extend(effect.as_object().expect("one").clone());
        event.to_string()
    };
    let change = match random.u32(0..if exact { 85 } else { 100 }) {
        0..12 => json!({"$set": {format!("text.p{}", n % 7): format!("{n} \"é\"\n")}}),
        12..20 => json!({"$set": {"tree": tree(random, 0)}}),
        20..28 => json!({"$set": {format!("tree.{}", key(random)): tree(random, 1)}}),
        28..34 => json!({"$set": {format!("tree.{}.{}", key(random), key(random)): tree(random, 2)}}),
        34..40 => json!({"$unset": {format!("text.p{}", n % 7): ""}}),
        40..44 => json!({"$unset": {format!("tree.{}", key(random)): ""}}),
        44..48 => json!({"$unset": {format!("tree.{}.{}", key(random), key(random)): ""}}),
        48..50 => json!({"$unset": {["tree", "text", "counts", "log"][n as usize % 4]: ""}}),
        50..64 => json!({"$inc": {"count": 1, format!("counts.c{}", n % 3): i64::from(n) - 500}}),
        64..78 => json!({"$push": {"log": n}}),
        78..82 => json!({"$push": {"log": {"$each": [n, {"at": [n, "x"], "by": {}}]}}}),
        82..84 => json!({"$setOnInsert": {"made": n}, "$set": {"last": n}}),
        84 => json!({"$set": {"log": []}}),
        85 => json!({"$inc": {"half": 0.5}}),
        86 => json!({"$addToSet": {"tags": n % 5}}),
        87 => json!({"$max": {"most": n}}),
        88 => json!({"$push": {"log": {"$each": [n], "$slice": -20}}}),
        89 => json!({"$rename": {"last": "before"}}),
        90 => json!({"$set": {"log.0": n}}),
        91 => json!({"$mul": {"count": 2}}),
        92 => json!({"$pull": {"tags": n % 5}}),
        // Refused, wherever there is a text.
        93 => json!({"$inc": {"text.p1": 1}}),
        94..97 => {
            let text = json!({"p1": format!("new {n}"), "p2": null});
            return native(
                json!({"replace": {"text": text, "count": n, "log": [n], "tree": tree(random, 0)}}),
            );
        }
        97 => {
            return native(
                json!({"merge": {"text": {"p1": null, "p9": n}, "tree": {"k1": {"k2": "merged"}}}}),
            );
        }
        98 => return json!({"type": "TOUCH", "id": id}).to_string(),
        _ => return native(json!({"delete": true})),
    };
    update(id, change)
}

fn key(random: &mut fastrand::Rng) -> String {
    // Numbers are places in arrays, or keys of objects.
    ["k1", "k2", "k3", "0", "1"][random.usize(0..5)].to_owned()
}

fn tree(random: &mut fastrand::Rng, depth: u32) -> Value {
    match random.u32(depth..8) {
        0..4 => {
            let keys = (0..random.usize(0..4)).map(|_| (key(random), tree(random, depth + 1)));
            Value::Object(keys.collect::<Vec<_>>().into_iter().collect())
        }
        4 => json!([1, {"k1": [], "k2": {}}]),
        5 => json!(random.i64(..)),
        6 => json!(f64::from(random.u32(..)) / 8.0),
        _ => json!({"odd.key": random.bool(), "k1": null}),
    }
}
