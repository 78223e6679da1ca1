//! Files of programs before the current layout of a table ([`Table::FORMER`]).
//!
//! The columns of one Delta table have one type, so files of two layouts cannot be in one version of a table. A commit
//! that touches a table in the former layout therefore writes all its files anew. The cost is that of the whole table,
//! once.

use std::collections::{BTreeMap, BTreeSet};

use super::logged::{Home, LoggedFile};
use super::{Commit, snapshot};
use crate::error::StoreError;
use crate::tables::{self, ForTable, Table};

struct Renew<'a, 'b>(&'a mut Commit<'b>);

impl ForTable for Renew<'_, '_> {
    type Out = Result<(), StoreError>;

    fn table<T: Table>(&mut self) -> Result<(), StoreError> {
        self.0.renew_table::<T>()
    }
}

impl Commit<'_> {
    /// Writes the files of touched tables anew that have the former layout of their table.
    pub(super) fn renew(&mut self) -> Result<(), StoreError> {
        tables::each(&mut Renew(self)).into_iter().collect()
    }

    fn renew_table<T: Table>(&mut self) -> Result<(), StoreError> {
        let Some(before) = self.former::<T>()? else {
            return Ok(());
        };
        let mut due: BTreeMap<u32, Vec<T::Row>> = BTreeMap::new();
        let (mut patched, mut fixed) = (false, Vec::new());
        for (name, file) in self
            .touch::<T>()?
            .iter()
            .filter(|(name, _)| before.contains(*name))
        {
            match Home::of(file) {
                Home::Bucket(bucket) => drop(due.insert(bucket, Vec::new())),
                Home::Patch => patched = true,
                Home::Fixed => fixed.push(name.clone()),
            }
        }
        if patched {
            let all = (0..self.cuts::<T>()).collect();
            for (bucket, rows) in self.take_from_patches::<T>(&all)? {
                due.entry(bucket).or_default().extend(rows);
            }
        }
        self.rewrite::<T>(due)?;
        fixed.iter().try_for_each(|name| self.rewrite_fixed::<T>(name))
    }

    /// The names of the files of the version before, if they have the former layout of the table and this commit touches
    /// the table.
    pub(super) fn former<T: Table>(&self) -> Result<Option<BTreeSet<String>>, StoreError> {
        let (Some(column), Some(previous)) = (T::FORMER, &self.previous) else {
            return Ok(None);
        };
        let Some(delta) = previous
            .delta(T::NAME)
            .filter(|_| self.touched.contains_key(T::NAME))
        else {
            return Ok(None);
        };
        if !self.store.folder(T::NAME).has_column(delta, column)? {
            return Ok(None);
        }
        Ok(Some(previous.logged(T::NAME)?.keys().cloned().collect()))
    }

    /// Writes the rows of a file of an append-only table anew, without its deleted rows.
    pub(super) fn rewrite_fixed<T: Table>(&mut self, name: &str) -> Result<(), StoreError> {
        let Some(file) = self.touch::<T>()?.remove(name) else {
            return Ok(());
        };
        let rows = snapshot::decode::<T>(&self.data_file::<T>(&file))?;
        self.write::<T>(prefix(&file), &rows)
    }
}

/// The part of a file name before the hash of the content.
fn prefix(file: &LoggedFile) -> &str {
    file.name
        .rsplit_once('-')
        .map_or(&*file.name, |(prefix, _)| prefix)
}
