//! Many entries in the order of their keys: what comes behind all that a table has is appended, at a third of the cost.

use std::ops::Bound;

use redb::{Key, ReadableTable as _, Table};

use super::StoreError;

type Bytes = &'static [u8];

/// Puts entries, each key after the one before; `None` takes one out.
pub(super) fn put_sorted<'k, K, R>(
    table: &mut Table<'_, K, Bytes>,
    entries: impl ExactSizeIterator<Item = (K::SelfType<'k>, Option<R>)>,
    mut write: impl FnMut(R, &mut Vec<u8>) -> Result<(), StoreError>,
) -> Result<(), StoreError>
where
    K: Key + 'static,
{
    let mut entries = entries.peekable();
    let Some((first, _)) = entries.peek() else {
        return Ok(());
    };
    let mut bytes = Vec::new();
    if !is_behind(table, first)? {
        for (key, entry) in entries {
            match entry {
                Some(entry) => {
                    bytes.clear();
                    write(entry, &mut bytes)?;
                    table.insert(key, bytes.as_slice())?;
                }
                None => drop(table.remove(key)?),
            }
        }
        return Ok(());
    }
    let mut end = table.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?;
    // Nothing stands there to be taken out.
    for (key, entry) in entries.filter_map(|(key, entry)| Some((key, entry?))) {
        bytes.clear();
        write(entry, &mut bytes)?;
        end.insert_before(key, bytes.as_slice())?;
    }
    Ok(end.close()?)
}

/// Whether a key comes after all that are there.
fn is_behind<K: Key + 'static>(
    table: &Table<'_, K, Bytes>,
    key: &K::SelfType<'_>,
) -> Result<bool, StoreError> {
    let Some((last, _)) = table.last()? else {
        return Ok(true);
    };
    let (last, key) = (K::as_bytes(&last.value()).as_ref().to_vec(), K::as_bytes(key));
    Ok(K::compare(&last, key.as_ref()).is_lt())
}

/// What a value is in the store.
pub(super) fn encode(value: &impl serde::Serialize, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
    *bytes = postcard::to_extend(value, std::mem::take(bytes))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Database, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("table");

    fn put(db: &Database, entries: &[(u64, Option<u8>)]) {
        let write = db.begin_write().unwrap();
        {
            let mut table = write.open_table(TABLE).unwrap();
            let entries = entries.iter().copied();
            put_sorted(&mut table, entries, |byte, bytes| {
                bytes.push(byte);
                Ok(())
            })
            .unwrap();
        }
        write.commit().unwrap();
    }

    fn all(db: &Database) -> Vec<(u64, Vec<u8>)> {
        use redb::ReadableDatabase as _;
        let table = db.begin_read().unwrap().open_table(TABLE).unwrap();
        let entries = table.iter().unwrap().map(|entry| {
            let (key, value) = entry.unwrap();
            (key.value(), value.value().to_vec())
        });
        entries.collect()
    }

    #[test]
    fn what_is_behind_all_others_and_what_is_among_them_end_up_the_same() {
        let db = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .unwrap();
        put(&db, &[]);
        put(&db, &[(10, Some(1)), (20, Some(2)), (25, None), (30, Some(3))]);
        // Behind all.
        put(&db, &[(40, Some(4)), (50, Some(5))]);
        // Among them, one in place of another, one taken out, and one behind all.
        put(&db, &[(20, Some(7)), (30, None), (45, Some(8)), (60, Some(9))]);
        let expected = [(10, 1), (20, 7), (40, 4), (45, 8), (50, 5), (60, 9)];
        assert_eq!(all(&db), expected.map(|(key, byte)| (key, vec![byte])));
    }
}
