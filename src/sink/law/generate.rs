//! Generates random documents and changes whose paths collide often.

use bson::{Bson, Document, doc};
use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::Case;

const PATHS: [&str; 12] = ["a", "a", "b", "a.x", "a.x", "a.y", "a.x.z", "b.0", "b.1.x", "c", "c.5", "a-x"];

/// Draws cases.
pub(super) struct Generator {
    rng: Rng,
    /// Where the case at hand writes; few paths meet often.
    paths: Vec<&'static str>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Generator { rng: Rng::with_seed(seed), paths: PATHS.to_vec() }
    }

    pub(super) fn case(&mut self) -> Case {
        self.paths = match self.rng.u8(0..3) {
            0 => PATHS.to_vec(),
            few => (0..=few).map(|_| PATHS[self.rng.usize(0..PATHS.len())]).collect(),
        };
        let start = self.rng.bool().then(|| self.start());
        let length = self.rng.usize(2..8);
        Case { start, changes: (0..length).map(|_| self.change()).collect() }
    }

    fn start(&mut self) -> Document {
        let mut document = doc! {};
        for field in ["a", "b", "c"] {
            if self.rng.u8(0..4) > 0 {
                document.insert(field, self.stored());
            }
        }
        document
    }

    fn stored(&mut self) -> Bson {
        match self.rng.u8(0..14) {
            0 => Bson::Null,
            1 => "text".into(),
            2 => true.into(),
            3 => 5.into(),
            4 => i32::MAX.into(),
            5 => (i64::MAX - 3).into(),
            6 => 7_i64.into(),
            7 => 0.5.into(),
            8 => Bson::Array(vec![]),
            9 => Bson::Array(vec![1.into(), "x".into(), 1.into()]),
            10 => Bson::Array(vec![doc! {"x": 1}.into(), doc! {"x": {"z": 2}}.into()]),
            11 => doc! {}.into(),
            12 => doc! {"x": 1, "y": [2]}.into(),
            _ => doc! {"x": {"z": "deep"}, "0": 1}.into(),
        }
    }

    fn value(&mut self) -> Json {
        match self.rng.u8(0..12) {
            0 => Json::Null,
            1 => json!("text"),
            2 => json!(true),
            3 | 4 => self.number(),
            5 => json!([]),
            6 => json!([1, 2, 1]),
            7 => json!([{"x": 1}]),
            8 => json!({}),
            9 => json!({"x": 1}),
            10 => json!({"x": {"z": [0]}, "y": null}),
            _ => json!({"x.y": 1}),
        }
    }

    fn number(&mut self) -> Json {
        match self.rng.u8(0..8) {
            0 => json!(0),
            1 => json!(-1),
            2 => json!(i32::MAX),
            3 => json!(0.25),
            4 => json!(1_i64 << 40),
            _ => json!(self.rng.i32(1..5)),
        }
    }

    fn change(&mut self) -> Json {
        match self.rng.u8(0..24) {
            0 => json!({"delete": true}),
            1 => {
                let (a, b) = (self.value(), self.value());
                json!({"replace": {"a": a, "d": b}})
            }
            2..=4 => json!({ "merge": self.merge(2) }),
            5 | 6 => {
                let operations: Vec<_> = (0..self.rng.usize(1..4)).map(|_| self.patch_operation()).collect();
                json!({ "patch": operations })
            }
            _ => {
                let mut update = json!({});
                let mut taken: Vec<&str> = Vec::new();
                for _ in 0..self.rng.usize(1..self.paths.len().min(4) + 1) {
                    let path = self.paths[self.rng.usize(0..self.paths.len())];
                    if taken.iter().any(|other| crate::change::path::overlap(path, other)) {
                        continue;
                    }
                    taken.push(path);
                    let (operator, operand) = self.operation(path, &mut taken);
                    update[operator][path] = operand;
                }
                json!({ "update": update })
            }
        }
    }

    /// A merge patch of any shape: nulls, empty objects and objects where arrays and texts may be.
    fn merge(&mut self, depth: usize) -> Json {
        const KEYS: [&str; 7] = ["a", "b", "c", "x", "y", "z", "0"];
        let keys = if depth == 2 { &KEYS[..3] } else { &KEYS[3..] };
        let mut patch = json!({});
        for key in keys {
            if self.rng.u8(0..3) == 0 {
                patch[*key] = match self.rng.u8(0..6) {
                    0 => Json::Null,
                    1 => self.value(),
                    2 => self.scalar(),
                    3 => json!({}),
                    _ if depth > 0 => self.merge(depth - 1),
                    _ => json!({"z": null}),
                };
                // A key that becomes a path has no dot.
                if patch[*key] == json!({"x.y": 1}) {
                    patch[*key] = json!([7]);
                }
            }
        }
        patch
    }

    fn patch_operation(&mut self) -> Json {
        const POINTERS: [&str; 16] = [
            "/a", "/b", "/c", "/d", "/a/x", "/a/0", "/a/x/z", "/a/y", "/a/y/0", "/b/0", "/b/1", "/b/2",
            "/b/01", "/b/-", "/b/1/x", "/b/0/x/z",
        ];
        let [path, from] = [(); 2].map(|()| POINTERS[self.rng.usize(0..POINTERS.len())]);
        match self.rng.u8(0..8) {
            0 | 1 => json!({"op": "replace", "path": path, "value": self.value()}),
            2 => json!({"op": "remove", "path": path}),
            3 if !path.starts_with(&format!("{from}/")) => json!({"op": "move", "from": from, "path": path}),
            4 => json!({"op": "copy", "from": from, "path": path}),
            _ => json!({"op": "add", "path": path, "value": self.value()}),
        }
    }

    fn scalar(&mut self) -> Json {
        if self.rng.bool() { json!("s") } else { self.number() }
    }

    fn operation(&mut self, path: &str, taken: &mut Vec<&'static str>) -> (&'static str, Json) {
        match self.rng.u8(0..25) {
            22 => ("$push", json!({"$each": [self.scalar()], "$slice": -2})),
            23 => ("$push", json!({"$each": [self.scalar()], "$sort": -1, "$slice": 3})),
            24 => ("$currentDate", json!(true)),
            0..=5 => ("$set", self.value()),
            6 | 7 => ("$unset", json!("")),
            8..=10 => ("$inc", self.number()),
            11 => ("$push", self.value()),
            12 => ("$push", json!({"$each": [self.value(), 3]})),
            13 => ("$push", json!({"$each": [4, 1], "$position": 0, "$slice": 3, "$sort": 1})),
            14 => ("$addToSet", self.value()),
            15 => ("$addToSet", json!({"$each": [1, self.value()]})),
            16 => ("$pullAll", json!([1, self.scalar()])),
            17 => ("$pull", if self.rng.bool() { json!({"$gte": 1}) } else { self.scalar() }),
            18 => ("$pop", json!(if self.rng.bool() { 1 } else { -1 })),
            19 => ("$mul", self.number()),
            20 => (if self.rng.bool() { "$min" } else { "$max" }, self.scalar()),
            _ => {
                let target = ["d", "e.f", "c", "b.2"][self.rng.usize(0..4)];
                if path != "a.x"
                    && !crate::change::path::overlap(path, target)
                    && self.rng.bool()
                    && !taken.iter().any(|other| crate::change::path::overlap(other, target))
                {
                    taken.push(target);
                    ("$rename", json!(target))
                } else {
                    ("$setOnInsert", self.value())
                }
            }
        }
    }
}
