//! A table of a write transaction that tells the write-ahead log of every row that is put and removed.
//!
//! The table itself can only be read through this, so no change of a row goes past the log.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::ops::{Bound, Deref};

use redb::{AccessGuard, CursorError, CursorMut, Key, StorageError, Table, Value};

use crate::error::{Error, Result};
use crate::store::wal::{Record, Step};

/// An open table, and the record of what is done to it.
pub(crate) struct Rows<'t, K: Key + 'static, V: Value + 'static> {
    table: Table<'t, K, V>,
    number: u8,
    record: &'t RefCell<Record>,
}

impl<'t, K: Key + 'static, V: Value + 'static> Rows<'t, K, V> {
    /// `number` stands for the table in the log, and never changes its meaning (docs/catalog-format.md).
    pub(crate) fn new(table: Table<'t, K, V>, number: u8, record: &'t RefCell<Record>) -> Self {
        Self { table, number, record }
    }

    pub(crate) fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<Option<AccessGuard<'_, V>>, StorageError> {
        note_put::<K, V>(self.record, self.number, key.borrow(), value.borrow());
        self.table.insert(key, value)
    }

    pub(crate) fn remove<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<AccessGuard<'_, V>>, StorageError> {
        let bytes = K::as_bytes(key.borrow());
        self.record.borrow_mut().removed(self.number, bytes.as_ref());
        drop(bytes);
        self.table.remove(key)
    }

    pub(crate) fn upper_bound_mut<'k>(
        &mut self,
        bound: Bound<impl Borrow<K::SelfType<'k>>>,
    ) -> Result<RowCursor<'_, K, V>, StorageError> {
        Ok(RowCursor {
            cursor: self.table.upper_bound_mut(bound)?,
            number: self.number,
            record: self.record,
        })
    }

    /// Does again what a record tells.
    pub(crate) fn redo(&mut self, step: &Step<'_>) -> Result<()> {
        let fits = |width: Option<usize>, bytes: &[u8]| width.is_none_or(|width| width == bytes.len());
        if !fits(K::fixed_width(), step.key) || step.value.is_some_and(|value| !fits(V::fixed_width(), value)) {
            return Err(Error::damaged(
                "a row in the write-ahead log has another length than its table's",
            ));
        }
        match step.value {
            Some(value) => drop(self.insert(K::from_bytes(step.key), V::from_bytes(value))?),
            None => drop(self.remove(K::from_bytes(step.key))?),
        }
        Ok(())
    }
}

impl<'t, K: Key + 'static, V: Value + 'static> Deref for Rows<'t, K, V> {
    type Target = Table<'t, K, V>;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

/// A cursor for a run of ascending keys.
pub(crate) struct RowCursor<'a, K: Key + 'static, V: Value + 'static> {
    cursor: CursorMut<'a, K, V>,
    number: u8,
    record: &'a RefCell<Record>,
}

impl<K: Key + 'static, V: Value + 'static> RowCursor<'_, K, V> {
    pub(crate) fn insert_before<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<(), CursorError> {
        let (key, value) = (key.borrow(), value.borrow());
        self.cursor.insert_before(key, value)?;
        note_put::<K, V>(self.record, self.number, key, value);
        Ok(())
    }

    pub(crate) fn close(self) -> Result<(), StorageError> {
        self.cursor.close()
    }
}

fn note_put<K: Key, V: Value>(record: &RefCell<Record>, number: u8, key: &K::SelfType<'_>, value: &V::SelfType<'_>) {
    let (key, value) = (K::as_bytes(key), V::as_bytes(value));
    record.borrow_mut().put(number, key.as_ref(), value.as_ref());
}
