//! Makes the index of a later version from that of an earlier version.
//!
//! A commit never changes a data file, so that the rows of a version that are in no file of the earlier version are in its
//! new files. The videos of these files are read again; all other entries are copied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::store::{DataFile, Filter, Snapshot};
use vaplan_schemas::tables::{Labels, Predictions, Table, Truth, Videos};

use super::ReviewIndex;
use super::read::{IndexBasis, names, read_entries};
use crate::error::LabelError;

/// An index and the files that it was read from.
#[derive(Clone, Debug)]
pub struct HeldIndex {
    /// The index.
    pub index: Arc<ReviewIndex>,
    basis: IndexBasis,
    files: TableFiles,
}

/// The paths of the data files of each table.
type TableFiles = BTreeMap<&'static str, BTreeSet<PathBuf>>;

impl HeldIndex {
    /// Reads all entries of a version.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn read(snapshot: &Snapshot) -> Result<HeldIndex, LabelError> {
        let basis = IndexBasis::read(snapshot)?;
        Ok(HeldIndex {
            index: Arc::new(ReviewIndex::read(snapshot, &basis)?),
            basis,
            files: files(snapshot)?,
        })
    }

    /// The index of a later version. Reads all entries if the classes, the epochs of the parser or the truth changed, or if
    /// more than a quarter of the videos are in new files.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn advance(&self, snapshot: &Snapshot) -> Result<HeldIndex, LabelError> {
        let basis = IndexBasis::read(snapshot)?;
        let now = files(snapshot)?;
        let same = self.basis.classes == basis.classes && self.basis.parser == basis.parser;
        if !same || self.files[Truth::NAME] != now[Truth::NAME] {
            return HeldIndex::read(snapshot);
        }
        let is_new = |table: &'static str| {
            let before = &self.files[table];
            move |file: &DataFile| !before.contains(&file.path)
        };
        let mut changed = names(&snapshot.read_some::<Videos>(is_new(Videos::NAME))?, |row| {
            &row.video
        });
        changed.extend(names(
            &snapshot.read_some::<Labels>(is_new(Labels::NAME))?,
            |row| &row.video,
        ));
        // Predictions of epochs that do not count change no entry, and there can be many of them.
        if basis.parser.is_some() {
            let new = is_new(Predictions::NAME);
            let changes = snapshot.files(Predictions::NAME)?.iter().any(&new);
            let rows = changes
                .then(|| snapshot.read_some::<Predictions>(new))
                .transpose()?;
            let counts = |epoch| {
                basis
                    .parser
                    .as_ref()
                    .is_some_and(|parser| parser.epochs.contains(&epoch))
            };
            let rows = rows.into_iter().flatten().filter(|row| counts(row.epoch));
            changed.extend(rows.map(|row| row.video));
        }
        if changed.len() * 4 > self.index.len() + 64 {
            return HeldIndex::read(snapshot);
        }
        self.with(snapshot, basis, now, changed)
    }

    /// The index of a later version, if the versions since changed only user labels of these videos.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn advance_by(
        &self,
        snapshot: &Snapshot,
        changed: BTreeSet<Arc<str>>,
    ) -> Result<HeldIndex, LabelError> {
        self.with(snapshot, self.basis.clone(), files(snapshot)?, changed)
    }

    fn with(
        &self,
        snapshot: &Snapshot,
        basis: IndexBasis,
        files: TableFiles,
        changed: BTreeSet<Arc<str>>,
    ) -> Result<HeldIndex, LabelError> {
        let filter = Filter::videos(changed.iter().cloned());
        let entries = read_entries(snapshot, &basis, &filter)?;
        let mut entries: BTreeMap<_, _> = entries
            .into_iter()
            .map(|entry| (entry.name.clone(), entry))
            .collect();
        let changed = changed.into_iter().map(|name| {
            let entry = entries.remove(&name);
            (name, entry)
        });
        let index = self.index.with(snapshot.version().version, changed);
        // A removed video is in no new file if a deletion vector removed its rows. The number of videos then differs.
        let videos: u64 = snapshot.files(Videos::NAME)?.iter().map(|file| file.rows).sum();
        if index.len() as u64 != videos {
            return HeldIndex::read(snapshot);
        }
        Ok(HeldIndex {
            index: Arc::new(index),
            basis,
            files,
        })
    }
}

/// The paths of the data files of the tables that entries are read from.
fn files(snapshot: &Snapshot) -> Result<TableFiles, LabelError> {
    let tables = [Videos::NAME, Labels::NAME, Predictions::NAME, Truth::NAME];
    let paths = |table| -> Result<_, LabelError> {
        let files = snapshot.files(table)?.into_iter();
        Ok((table, files.map(|file| file.path).collect()))
    };
    tables.into_iter().map(paths).collect()
}
