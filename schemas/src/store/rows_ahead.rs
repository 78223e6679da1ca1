//! Rows that a writer names before the store is open, so that their files are read in the same round of requests as the logs.

use std::sync::Arc;

use super::data_file::{DataFile, HeldFiles, TOGETHER_BYTES};
use super::delta::DeltaFolder;
use super::logged::{LoggedFile, LoggedFiles};
use super::scan::{Filter, may_hold};
use crate::storage::whole_bytes;
use crate::tables::Table;

/// The rows that a writer will scan, by table. [`Store::open_to_write`](super::Store::open_to_write) reads their files together with
/// the logs, so that a scan of these rows makes no request of its own. The default names no rows.
///
/// Reading ahead changes no result. A file that was not read ahead is read by the scan, and a file that was read ahead in vain costs
/// one request.
///
/// ```
/// use vaplan_schemas::store::{Filter, RowsAhead};
/// use vaplan_schemas::tables::Labels;
/// let rows = RowsAhead::default().and::<Labels>(Filter::videos(["-rf_0_10".into()]));
/// assert!(!rows.is_none() && RowsAhead::default().is_none());
/// ```
#[derive(Clone, Debug, Default)]
pub struct RowsAhead(Vec<TableAhead>);

#[derive(Clone, Debug)]
struct TableAhead {
    table: &'static str,
    filter: Filter,
    may_hold: for<'a> fn(&Filter, &'a LoggedFiles) -> Vec<(u32, &'a LoggedFile)>,
}

impl RowsAhead {
    /// Adds the rows of a table that a filter selects. If not all files fit, those of the tables that were added first are read
    /// ahead.
    #[must_use]
    pub fn and<T: Table>(mut self, filter: Filter) -> RowsAhead {
        self.0.push(TableAhead {
            table: T::NAME,
            filter,
            may_hold: may_hold::<T>,
        });
        self
    }

    /// Whether there are no rows.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The files to read ahead: at most `most` files that a scan would read whole. Of each table they take at most as many bytes
    /// as one scan fetches together. `known` gives the folder and the files of a table, if they are known.
    pub(super) fn files<'a>(
        &self,
        most: usize,
        held: &Arc<HeldFiles>,
        known: impl Fn(&str) -> Option<(DeltaFolder, &'a LoggedFiles)>,
    ) -> Vec<DataFile> {
        let mut files = Vec::new();
        for own in &self.0 {
            let Some((folder, logged)) = known(own.table) else {
                continue;
            };
            let mut bytes = 0;
            let fits = |file: &&LoggedFile| {
                bytes += file.bytes;
                bytes <= TOGETHER_BYTES
            };
            let whole = (own.may_hold)(&own.filter, logged).into_iter();
            let whole = whole
                .map(|(_, file)| file)
                .filter(|file| file.bytes <= whole_bytes());
            files.extend(
                whole
                    .take_while(fits)
                    .map(|file| folder.data_file(file).held_by(held)),
            );
        }
        files.truncate(most);
        files
    }
}
