//! Tests updates as yrs makes them, and bytes that are none.

use proptest::prelude::*;
use yrs::updates::encoder::Encode;
use yrs::{Any, Array, Doc, GetString, Map, ReadTxn, StateVector, Text, Transact};

use super::*;

/// A document, and the update of each of its edits.
fn typed(client: u64, edits: usize) -> (String, Vec<Vec<u8>>) {
    let doc = Doc::with_client_id(client);
    let text = doc.get_or_insert_text("text");
    let updates = (0..edits).map(|n| {
        let mut transaction = doc.transact_mut();
        let len = text.len(&transaction);
        match n % 5 {
            4 => text.remove_range(&mut transaction, len / 2, 1),
            _ => text.insert(&mut transaction, len / 3, &format!("{n} ")),
        }
        transaction.encode_update_v1()
    });
    let updates: Vec<_> = updates.collect();
    let typed = text.get_string(&doc.transact());
    (typed, updates)
}

fn loaded(updates: &[Vec<u8>]) -> String {
    let doc = Doc::new();
    let text = doc.get_or_insert_text("text");
    let mut transaction = doc.transact_mut();
    for update in updates {
        transaction.apply_update(Update::decode_v1(update).unwrap()).unwrap();
    }
    text.get_string(&transaction)
}

#[test]
fn many_edits_become_one_update() {
    for edits in [1, 2, 63, 64, 65, 500] {
        let (text, updates) = typed(7, edits);
        updates.iter().for_each(|update| assert_eq!(check(update), Ok(())));
        let merged = merge(updates.clone());
        assert_eq!(merged.len(), 1, "{edits} edits");
        assert_eq!(loaded(&merged), text);
        assert_eq!(loaded(&merge([merged, updates].concat())), text, "twice is once");
    }
}

#[test]
fn a_gap_is_kept_for_what_comes_later() {
    let (text, updates) = typed(7, 20);
    let (early, late): (Vec<_>, Vec<_>) =
        updates.into_iter().enumerate().partition(|(n, _)| *n < 5 || *n > 11);
    let bytes = |some: Vec<(usize, Vec<u8>)>| some.into_iter().map(|(_, update)| update).collect();
    let (early, late): (Vec<_>, Vec<_>) = (merge(bytes(early)), merge(bytes(late)));
    assert_eq!(loaded(&merge([late, early].concat())), text);
}

#[test]
fn every_kind_of_content_is_surveyed() {
    let doc = Doc::new();
    let (map, array) = (doc.get_or_insert_map("map"), doc.get_or_insert_array("array"));
    let xml = doc.get_or_insert_xml_fragment("xml");
    let mut transaction = doc.transact_mut();
    let nested = Any::from_json(r#"{"a":[1,2.5,null,true,{"b":"x"}],"c":-70000}"#).unwrap();
    map.insert(&mut transaction, "any", nested);
    map.insert(&mut transaction, "bytes", vec![1_u8, 2, 3]);
    map.insert(&mut transaction, "text", yrs::TextPrelim::new("inside"));
    array.push_back(&mut transaction, yrs::MapPrelim::from([("k", 1)]));
    yrs::XmlFragment::push_back(&xml, &mut transaction, yrs::XmlElementPrelim::empty("p"));
    let update = transaction.encode_update_v1();
    assert_eq!(survey(&update), Ok(UpdateSurvey::Mergeable));
    assert_eq!(check(&update), Ok(()));
    drop(transaction);
    let state = doc.transact().encode_state_as_update_v1(&StateVector::default());
    assert_eq!(check(&state), Ok(()));

    let subdocument = Doc::new();
    let holder = doc.get_or_insert_map("holder");
    let mut transaction = doc.transact_mut();
    holder.insert(&mut transaction, "doc", subdocument);
    let update = transaction.encode_update_v1();
    assert_eq!(survey(&update), Ok(UpdateSurvey::Opaque));
    let opaque = [update.clone(), update];
    assert_eq!(merge(opaque.to_vec()), opaque, "left alone");
}

#[test]
fn what_is_no_update_is_refused() {
    let (_, updates) = typed(1, 1);
    let whole = &updates[0];
    for cut in 0..whole.len() {
        assert!(check(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(check(&longer).unwrap_err(), "something follows behind its end");
    assert!(check(b"{\"text\":\"no update\"}").is_err());
    // Arrays in arrays, a megabyte deep.
    let mut deep = vec![1, 1, 1, 0, 8, 1, 1, b't', 1];
    deep.extend([117, 1].repeat(1 << 19));
    deep.extend([126, 0]);
    assert_eq!(check(&deep).unwrap_err(), "values in it nest too deep");
    assert_eq!(check(&Update::new().encode_v1()), Ok(()), "nothing is an update");
}

proptest! {
    /// Bytes from outside end neither the test nor the process, and what passes can be merged.
    #[test]
    fn hostile_bytes_do_no_harm(
        mut bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            Just(typed(3, 12).1.concat()),
            Just(merge(typed(3, 40).1).remove(0)),
        ],
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if check(&bytes).is_ok() {
            let (_, other) = typed(3, 5);
            let merged = merge([vec![bytes.clone()], other].concat());
            prop_assert!(!merged.is_empty());
            merged.iter().for_each(|update| assert_eq!(check(update), Ok(())));
        }
    }
}
