//! Tests a write that arrives late, against a real server.

use bson::{Document, RawDocumentBuf, doc};
use mongodb::Database;

use super::bulk_command::CommandLimits;
use super::command::{Encoder, Guard};
use super::law::support::Mongo;
use super::{Tombstones, write_concern};
use crate::change::Collections;
use crate::change::Placed;
use crate::coalesce::PendingUpdate;
use crate::config::Config;
use crate::decode::Decoder;

/// The commands of three events of one document: it is made, deleted, and made again.
fn commands(deletes: &str) -> [Vec<u8>; 3] {
    let config: Config = toml::from_str(&format!(
        "queues = [{{ key = 'q' }}]\n\
         [[routes]]\nwhen = {{ t = 'set' }}\ncollection = '{deletes}'\nid = 'id'\nset = {{ v = 'v' }}\n\
         [[routes]]\nwhen = {{ t = 'delete' }}\ncollection = '{deletes}'\nid = 'id'\ndelete = true\n\
         deletes = '{deletes}'\n"
    ))
    .unwrap();
    assert_eq!(config.violations(crate::decode::check_literal), []);
    let collections = Collections::new(&config);
    let guard = Guard::new("q");
    let encoder = Encoder {
        collections: &collections,
        limits: CommandLimits { max_bytes: 1 << 20, max_statements: 1 },
        write_concern: &write_concern("1"),
        guard: Some(&guard),
        tombstones: &Tombstones::new(&config, &collections),
        ordered: false,
    };
    let mut decoder = Decoder::new(&config);
    let mut offset = 0;
    [r#"{"t":"set","id":1,"v":"old"}"#, r#"{"t":"delete","id":1}"#, r#"{"t":"set","id":1,"v":"new"}"#].map(
        |event| {
            offset += 1;
            let placed = Placed { offset, hash: 0, change: decoder.decode(event.as_bytes()).unwrap() };
            let segment = PendingUpdate::new(&placed).take_first().unwrap();
            encoder.command(placed.change.entity, &segment).body
        },
    )
}

async fn send(database: &Database, command: &[u8]) -> anyhow::Result<()> {
    database.run_raw_command(RawDocumentBuf::from_bytes(command.to_vec())?).await?;
    Ok(())
}

/// The request of a stalled former owner arrives when its event was applied by the next one, and the document
/// deleted since. A hard deletion leaves nothing that could stop it.
#[tokio::test]
async fn a_late_request_revives_what_was_deleted_unless_there_is_a_tombstone() -> anyhow::Result<()> {
    let mut server = Mongo::shared().await?;
    let name = server.database_name("late");
    let database = server.database(&name).await?;
    for (deletes, revived) in [("hard", true), ("tombstone", false)] {
        let [set, delete, set_again] = commands(deletes);
        let documents = database.collection::<Document>(deletes);
        for command in [&set, &delete, &set] {
            send(&database, command).await?;
        }
        let found = documents.find_one(doc! {"_id": 1}).await?;
        let is_back = found.as_ref().is_some_and(|document| document.contains_key("v"));
        assert_eq!(is_back, revived, "{deletes}: {found:?}");

        // What comes later makes a document like any other.
        send(&database, &delete).await?;
        send(&database, &set_again).await?;
        let found = documents.find_one(doc! {"_id": 1}).await?.unwrap_or_default();
        assert_eq!(found.get_str("v").ok(), Some("new"), "{deletes}");
        assert!(!found.contains_key("_tidegateDeleted"), "{deletes}: {found}");
    }
    Ok(())
}
