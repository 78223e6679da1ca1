//! Epochs that a store has predictions of, and which of them count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{EpochRow, Split};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Epochs, Predictions, Videos};

use crate::error::LabelError;
use crate::world::kept::has_epoch;
use crate::world::{Active, World};

/// What the best of several epochs is told by, where a training says so.
const BEST: &str = "val.fused.segment.type_av";

/// Which predictions count after those of an epoch came from outside: also that epoch, or it alone where the classes
/// are others than those that were predicted.
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
    if has_epoch(snapshot, epoch)? && classes_of(snapshot, now, epoch)? != after.classes {
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

/// What counts when it is this epoch of the store, and no other.
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
        classes: classes_of(snapshot, now, epoch)?,
    })
}

/// What the columns of an epoch's predictions are.
fn classes_of(snapshot: &Snapshot, now: &World, epoch: u64) -> Result<Vec<Arc<str>>, LabelError> {
    if let Some(active) = &now.active
        && active.epochs.contains(&epoch)
    {
        return Ok(active.classes.clone());
    }
    let mut epochs = snapshot.read::<Epochs>()?.into_iter();
    let learnt = epochs.find(|row| row.epoch == epoch).map(|row| row.labels);
    let versions = snapshot.store().versions()?;
    // The last: all of an epoch have the same classes, unless all that there were went.
    let recorded = || {
        versions
            .iter()
            .rev()
            .find(|row| row.epoch == Some(epoch))
            .map(|row| row.version)
    };
    let of = learnt.or_else(recorded);
    let row = versions.iter().find(|row| Some(row.version) == of);
    // The same text embeddings in the same order are the same classes, and that version may be vacuumed.
    match row {
        Some(row) if row.models != snapshot.version().models => {
            let then = snapshot.store().at_version(Some(StoreVersion(row.version)));
            let then = then.map_err(LabelError::from).and_then(|then| World::read(&then));
            then.map(|then| then.classes).map_err(|error| {
                LabelError::Change(format!(
                    "epoch {epoch} is of version {}, with other classes, which cannot be read: {error}",
                    row.version
                ))
            })
        }
        _ => Ok(now.classes.clone()),
    }
}

/// Splits of whose videos the store has predictions, by epoch.
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

/// The epochs there are, for a message.
fn said(predicted: &BTreeMap<u64, BTreeSet<Split>>) -> String {
    let mut told: Vec<String> = Vec::new();
    let epochs: Vec<(&u64, &BTreeSet<Split>)> = predicted.iter().collect();
    for run in epochs.chunk_by(|a, b| *a.0 + 1 == *b.0 && a.1 == b.1) {
        let (first, last) = (run[0].0, run[run.len() - 1].0);
        let splits: Vec<&str> = run[0].1.iter().map(|split| split.as_str()).collect();
        let span = match first == last {
            true => first.to_string(),
            false => format!("{first} to {last}"),
        };
        told.push(format!("{span} of {}", splits.join(", ")));
    }
    match told.is_empty() {
        true => "it has none of any epoch".to_owned(),
        false => format!("it has epochs {}", told.join("; ")),
    }
}

/// The epoch to go by where none is named: of the trainings that predicted videos of a split the last, and of its epochs
/// that did the best, or the last; none: no epoch did.
///
/// # Errors
/// Where a table does not read back.
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

/// That the epoch, or any, has no predictions of videos of a split, and what there is.
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
