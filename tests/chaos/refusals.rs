//! Has servers refuse, or answer what they should not.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use bson::{Bson, Document};
use fastrand::Rng;

use crate::deck::{Answer, Refusal};
use crate::faults::last;
use crate::plan::Plan;
use crate::support::{Code, On, command_error, write_error};
use crate::world::World;

/// What servers answer that do not say of which index a duplicate key is: DocumentDB, Cosmos DB, Amazon DocumentDB.
const BARE: [&str; 3] = [
    "Duplicate key violation on the requested collection: Index '_id_'",
    "Failed _id or unique index constraint",
    "E11000 duplicate key error collection",
];

/// Has MongoDB answer otherwise for a while.
pub(crate) async fn forge(
    world: &mut World,
    plan: &Plan,
    rng: &mut Rng,
    answer: Answer,
) -> anyhow::Result<()> {
    let forge = world.forge.as_ref().context("nothing stands before MongoDB")?;
    let writes = || On::writes().collection("documents");
    let salt = rng.u64(..);
    match answer {
        Answer::Codes => {
            let codes: Vec<Code> = Code::all().filter(|code| !code.is_of_content()).collect();
            forge.rule(writes().refuse(move |statement| {
                let drawn = hash(statement.id_text(), salt);
                let code = codes[(drawn / 3) as usize % codes.len()];
                drawn.is_multiple_of(3).then(|| write_error(code.number, code.name))
            }));
        }
        Answer::ForbiddenStatements => {
            forge.rule(writes().refuse(|_| Some(write_error(13, "not authorized to write"))));
        }
        Answer::ForbiddenCommands => {
            forge.rule(writes().answer(command_error(13, "Unauthorized", "not authorized to write")));
        }
        Answer::Slow => {
            forge.rule(writes().delay(plan.mongodb_timeout + Duration::from_millis(rng.u64(100..800))));
        }
        Answer::BareDuplicates => {
            let text = BARE[salt as usize % BARE.len()];
            let mut seen = HashSet::new();
            // A race that somebody else lost, too: once for a document.
            forge.rule(writes().refuse(move |statement| {
                let id = statement.id_text();
                let races = hash(id, salt).is_multiple_of(3) && seen.insert(id.to_owned());
                races.then(|| write_error(11000, text))
            }));
            forge.rule(writes().rewrite(move |_, reply| bare(reply, text)));
        }
    }
    last(world, plan, rng).await?;
    world.forge.as_ref().context("it was there")?.heal();
    Ok(())
}

/// Takes out of a reply which indexes its duplicate keys are of.
fn bare(reply: &mut Document, text: &str) {
    let Ok(errors) = reply.get_array_mut("writeErrors") else { return };
    for error in errors.iter_mut().filter_map(Bson::as_document_mut) {
        if error.get_i32("code").is_ok_and(|code| code == 11000) {
            error.remove("keyPattern");
            error.remove("keyValue");
            error.insert("errmsg", text);
        }
    }
}

/// The same for a text each time, and another for another salt.
fn hash(text: &str, salt: u64) -> u64 {
    let mixed = text.bytes().fold(salt, |mixed, byte| Rng::with_seed(mixed ^ u64::from(byte)).u64(..));
    mixed >> 1
}

/// Has Redis take no writes for a while.
pub(crate) async fn refuse(
    world: &mut World,
    plan: &Plan,
    rng: &mut Rng,
    refusal: Refusal,
) -> anyhow::Result<()> {
    let config = |key: &str, value: &str| ["CONFIG", "SET", key, value].map(str::to_owned).to_vec();
    let rights = |rights: &str| ["ACL", "SETUSER", "default", rights].map(str::to_owned).to_vec();
    let (on, off) = match refusal {
        Refusal::NoReplicas => (config("min-replicas-to-write", "1"), config("min-replicas-to-write", "0")),
        Refusal::Full => (config("maxmemory", "1000"), config("maxmemory", "0")),
        Refusal::Rights => (rights("-@write"), rights("+@all")),
        Refusal::Disk => {
            world.redis.limit_disk(Some(1 << rng.u32(10..16)))?;
            last(world, plan, rng).await?;
            return world.redis.limit_disk(None);
        }
    };
    let mut connection = world.connect().await?;
    let mut tell = async |words: &[String]| -> anyhow::Result<()> {
        let mut command = redis::cmd(&words[0]);
        command.arg(&words[1..]);
        Ok(command.query_async(&mut connection).await?)
    };
    tell(&on).await?;
    last(world, plan, rng).await?;
    tell(&off).await
}
