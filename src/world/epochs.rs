//! The epochs whose predictions a store has, and which of these epochs count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{EpochRow, Split, VersionRow};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Epochs, Predictions, Videos};

use crate::error::LabelError;
use crate::world::evidence::has_epoch;
use crate::world::{Active, World};

/// Name of the metric that decides which epoch of a training is the best.
const BEST: &str = "val.fused.segment.type_av";

/// The epochs that count after a change that brings predictions of `epoch` from outside.
///
/// The new epoch is added to the epochs that count now. If the classes differ from those of the earlier predictions,
/// only the new epoch counts, because the columns of the earlier predictions no longer match.
pub(crate) fn came(
    snapshot: &Snapshot,
    now: &World,
    after: &World,
    epoch: u64,
) -> Result<Active, LabelError> {
    if snapshot.read::<Epochs>()?.iter().any(|row| row.epoch == epoch) {
        return Err(LabelError::Change(format!(
            "epoch {epoch} is one that this store trained, expected another: `vaplan denoise --epoch {epoch}` goes by it"
        )));
    }
    if has_epoch(snapshot, epoch)? && EpochClasses::read(snapshot, now)?.of(epoch)? != after.classes {
        return Err(LabelError::Change(format!(
            "epoch {epoch} is in the store with other classes, expected an epoch that is not"
        )));
    }
    let mut active = match &after.active {
        Some(active) if active.classes == after.classes => active.clone(),
        _ => Active {
            epochs: BTreeSet::new(),
            classes: after.classes.clone(),
        },
    };
    active.epochs.insert(epoch);
    Ok(active)
}

/// The epochs that count after a change that names this epoch of the store: only this epoch.
pub(crate) fn chosen(snapshot: &Snapshot, now: &World, epoch: u64) -> Result<Active, LabelError> {
    if !has_epoch(snapshot, epoch)? {
        return Err(LabelError::Change(format!(
            "store version {} has no predictions of epoch {epoch} ({})",
            snapshot.version().version,
            said(&predicted(snapshot)?)
        )));
    }
    Ok(Active {
        epochs: BTreeSet::from([epoch]),
        classes: EpochClasses::read(snapshot, now)?.of(epoch)?,
    })
}

/// The classes of the columns of the predictions of each epoch.
pub(crate) struct EpochClasses<'a> {
    snapshot: &'a Snapshot,
    now: &'a World,
    epochs: Vec<EpochRow>,
    versions: Vec<VersionRow>,
}

impl<'a> EpochClasses<'a> {
    /// Reads the tables that tell the classes. `now` is the world of the version.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub(crate) fn read(snapshot: &'a Snapshot, now: &'a World) -> Result<EpochClasses<'a>, LabelError> {
        Ok(EpochClasses {
            snapshot,
            now,
            epochs: snapshot.read::<Epochs>()?,
            versions: snapshot.store().versions()?,
        })
    }

    /// The classes of an epoch.
    ///
    /// # Errors
    /// Returns [`LabelError::Change`] if the epoch is of a version with other classes that cannot be read.
    pub(crate) fn of(&self, epoch: u64) -> Result<Vec<Arc<str>>, LabelError> {
        if let Some(active) = &self.now.active
            && active.epochs.contains(&epoch)
        {
            return Ok(active.classes.clone());
        }
        let mut epochs = self.epochs.iter();
        let learnt = epochs.find(|row| row.epoch == epoch).map(|row| row.labels);
        // Take the latest version that recorded this epoch. Two versions of one epoch have different classes only if all
        // predictions of the epoch were removed between them, and then the later version is right.
        let recorded = || {
            let mut versions = self.versions.iter().rev();
            let own = versions.find(|row| row.epoch == Some(epoch));
            own.map(|row| row.version)
        };
        let of = learnt.or_else(recorded);
        let row = self.versions.iter().find(|row| Some(row.version) == of);
        // Equal text embeddings in equal order mean equal classes, so that version need not be read. It may already be
        // vacuumed.
        match row {
            Some(row) if row.models != self.snapshot.version().models => {
                let then = self.snapshot.store().at_version(Some(StoreVersion(row.version)));
                let then = then.map_err(LabelError::from).and_then(|then| World::read(&then));
                then.map(|then| then.classes).map_err(|error| {
                    LabelError::Change(format!(
                        "epoch {epoch} is of version {}, with other classes, which cannot be read: {error}",
                        row.version
                    ))
                })
            }
            _ => Ok(self.now.classes.clone()),
        }
    }
}

/// For each epoch, the splits of the videos that the store has predictions of.
fn predicted(snapshot: &Snapshot) -> Result<BTreeMap<u64, BTreeSet<Split>>, LabelError> {
    let of = splits(snapshot)?;
    let mut found: BTreeMap<u64, BTreeSet<Split>> = BTreeMap::new();
    for row in snapshot.map_files::<Predictions, _>(&Filter::all(), |tracks| {
        let keys = tracks
            .iter()
            .filter_map(|found| Some((found.row.epoch, *of.get(&found.row.video)?)));
        keys.collect::<BTreeSet<_>>()
    })? {
        for (epoch, split) in row {
            found.entry(epoch).or_default().insert(split);
        }
    }
    Ok(found)
}

fn splits(snapshot: &Snapshot) -> Result<BTreeMap<Arc<str>, Split>, LabelError> {
    let videos = snapshot.read::<Videos>()?.into_iter();
    Ok(videos.map(|row| (row.video, row.split)).collect())
}

/// Lists the epochs that the store has predictions of, for a message.
fn said(predicted: &BTreeMap<u64, BTreeSet<Split>>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let epochs: Vec<(&u64, &BTreeSet<Split>)> = predicted.iter().collect();
    for run in epochs.chunk_by(|a, b| *a.0 + 1 == *b.0 && a.1 == b.1) {
        let (first, last) = (run[0].0, run[run.len() - 1].0);
        let splits: Vec<&str> = run[0].1.iter().map(|split| split.as_str()).collect();
        let span = match first == last {
            true => first.to_string(),
            false => format!("{first} to {last}"),
        };
        parts.push(format!("{span} of {}", splits.join(", ")));
    }
    match parts.is_empty() {
        true => "it has none of any epoch".to_owned(),
        false => format!("it has epochs {}", parts.join("; ")),
    }
}

/// The epoch to use if the user names none. `None` means that the store has no predictions of videos of the split.
///
/// The function considers the last training that predicted videos of the split. From the epochs of this training it
/// chooses the epoch with the highest validation score; the earlier epoch wins a tie. Without any score it chooses
/// the last epoch.
///
/// # Errors
/// Returns [`LabelError`] if a table cannot be read.
pub fn best(snapshot: &Snapshot, split: Split) -> Result<Option<u64>, LabelError> {
    let predicted = predicted(snapshot)?;
    let with: Vec<u64> = predicted
        .iter()
        .filter(|(_, splits)| splits.contains(&split))
        .map(|(epoch, _)| *epoch)
        .collect();
    let Some(last) = with.last() else {
        return Ok(None);
    };
    let rows = snapshot.read::<Epochs>()?;
    let run = rows.iter().find(|row| row.epoch == *last).map(|row| &row.run);
    let score = |row: &EpochRow| {
        let mut metrics = row.metrics.iter();
        metrics.find(|(name, _)| &**name == BEST).map(|(_, score)| *score)
    };
    let own = rows
        .iter()
        .filter(|row| Some(&row.run) == run && with.contains(&row.epoch));
    let scored = own.filter_map(|row| Some((score(row)?, row.epoch)));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    Ok(Some(best.map_or(*last, |(_, epoch)| epoch)))
}

/// Whether the store has predictions of videos of the split by the epoch.
///
/// # Errors
/// Returns [`LabelError`] if a table cannot be read.
pub fn predicts(snapshot: &Snapshot, epoch: u64, split: Split) -> Result<bool, LabelError> {
    let predicted = predicted(snapshot)?;
    Ok(predicted
        .get(&epoch)
        .is_some_and(|splits| splits.contains(&split)))
}

/// The error that the epoch (`None`: that any epoch) has no predictions of videos of the split. The message lists the
/// epochs that the store has.
pub fn missing(snapshot: &Snapshot, split: Split, epoch: Option<u64>) -> LabelError {
    let of = epoch.map_or_else(|| "any epoch".to_owned(), |epoch| format!("epoch {epoch}"));
    match predicted(snapshot) {
        Ok(predicted) => LabelError::Change(format!(
            "store version {} has no predictions of {split} videos by {of} ({}): name one with --epoch, or train",
            snapshot.version().version,
            said(&predicted)
        )),
        Err(error) => error,
    }
}
