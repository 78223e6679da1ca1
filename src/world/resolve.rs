//! A change after it was checked against a store version: what labels depend on before and after the change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_schemas::rows::{PredictionTrack, RejectKind, RejectRow, Split};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::{ClassId, Modality, StoreVersion};

use super::changes::{Changes, DenoiseRequest, UserEditRow, WeakEdit, WeakEditRow};
use super::overrides::Overrides;
use super::user::UserEdit;
use super::videos::LoadedVideos;
use super::{epochs, inputs, predictions};
use crate::error::LabelError;
use crate::ingest::absolute;
use crate::ingest::annotations::{AnnotatedVideos, VideoLabel, unknown_class};
use crate::ingest::npy::is_npy;
use crate::ingest::remote;
use crate::world::settings::LabelSettings;
use crate::world::{Both, PromptSet, World};

/// The world before and after a change, and the rows of the change that passed the checks.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The world as the store version records it.
    pub before: World,
    /// The world after the change.
    pub after: World,
    /// Weak labels after the change, for the videos that the change names. `None` if the change removes the video.
    pub(crate) weak: BTreeMap<Arc<str>, Option<WeakNow>>,
    /// User labels to set and to withdraw, in this order.
    pub(crate) user: Vec<UserEdit>,
    /// User labels to set in tracks that are known after the change. Their videos are not in `user`.
    pub(crate) overrides: Overrides,
    /// The predictions that come with the change.
    pub(crate) predictions: Vec<PredictionTrack>,
    /// Whether the caller wants the number of all flips, not only of the changed ones.
    pub(crate) asks_for_flips: bool,
    /// Feature files and folders that must be read again.
    pub(crate) paths: Both<BTreeSet<PathBuf>>,
    /// The files that the rows of the change come from. New rejected rows replace those of an earlier reading of
    /// these files.
    pub(crate) files: BTreeSet<String>,
    /// Rows of the change that were left out.
    pub rejects: Vec<RejectRow>,
    /// Rows of table `videos` of the store version. Only the rows that were needed are loaded.
    pub(crate) known: LoadedVideos,
}

/// The weak label of a video after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeakNow {
    /// Classes in ascending order.
    pub(crate) classes: Vec<ClassId>,
    pub(crate) split: Split,
    pub(crate) source: Arc<str>,
}

impl Resolved {
    /// Checks a change against a store version. Rows that are left out are in [`Resolved::rejects`].
    ///
    /// # Errors
    /// Returns [`LabelError`] if the change as a whole cannot be made.
    pub fn new(store: &Store, snapshot: &Snapshot, changes: &Changes) -> Result<Resolved, LabelError> {
        Resolved::resolve(store, snapshot, changes, false)
    }

    /// Like [`Resolved::new`], and also decides the tracks for which the stored row and the user labels of the change tell the
    /// labels. A graph that holds the version does not learn of such tracks.
    ///
    /// # Errors
    /// Returns the errors of [`Resolved::new`].
    pub fn by_track(store: &Store, snapshot: &Snapshot, changes: &Changes) -> Result<Resolved, LabelError> {
        Resolved::resolve(store, snapshot, changes, true)
    }

    fn resolve(
        store: &Store,
        snapshot: &Snapshot,
        changes: &Changes,
        by_track: bool,
    ) -> Result<Resolved, LabelError> {
        let before = World::read(snapshot)?;
        let mut changes = changes.clone();
        let named = changes.features.iter_mut().chain(&mut changes.removed).flatten();
        for path in named {
            inputs::check_absolute(store, &before)?;
            *path = absolute(path)?;
        }
        let changes = &changes;
        let mut base = before.clone();
        if let Some(version) = changes.to_version {
            base = back_to(
                &base,
                &World::read(&store.at_version(Some(StoreVersion(version)))?)?,
            )?;
        }
        let mut resolved = Resolved {
            after: after(base, changes)?,
            before,
            weak: BTreeMap::new(),
            user: Vec::new(),
            overrides: Overrides::default(),
            predictions: Vec::new(),
            asks_for_flips: changes.epoch.is_some(),
            paths: changes.features.clone().map(|paths| paths.into_iter().collect()),
            files: changes.rows.files.clone(),
            rejects: changes.rows.rejects.clone(),
            known: LoadedVideos::default(),
        };
        resolved.features(changes)?;
        resolved.weak(snapshot, &changes.rows.weak)?;
        let mut user: Vec<&UserEditRow> = changes.rows.user.iter().collect();
        if by_track && changes.has_only_user_labels() {
            user = resolved.override_labels(snapshot, &user)?;
        }
        resolved.resolve_user(snapshot, &user)?;
        if let Some(given) = &changes.rows.predictions {
            check_epoch(given.epoch)?;
            let classes = resolved.after.classes.len();
            let read = predictions::tracks(
                snapshot,
                &mut resolved.known,
                &resolved.weak,
                given,
                &resolved.rejects,
                classes,
            )?;
            resolved.rejects.extend(read.rejects);
            resolved.predictions = read.tracks;
            let (before, after) = (&resolved.before, &resolved.after);
            resolved.after.active = Some(epochs::came(snapshot, before, after, given.epoch)?);
        }
        if let Some(epoch) = changes.epoch {
            if changes.rows.predictions.is_some() {
                return Err(LabelError::Change(
                    "an epoch of the store and predictions of an epoch, expected one of the two".to_owned(),
                ));
            }
            resolved.after.active = Some(epochs::chosen(snapshot, &resolved.before, epoch)?);
        }
        // `to_version` takes the denoising settings from that version. Without this condition, the default of a first
        // epoch would overwrite these settings, and the same change made twice would give two results.
        let comes_first = resolved.before.active.is_none() && changes.to_version.is_none();
        let first_epoch = changes.epoch.is_some() || (comes_first && changes.rows.predictions.is_some());
        remember(&mut resolved.after.delivered, &changes.delivered);
        resolved.after.denoising = denoising(&resolved.after.denoising, &changes.denoising, first_epoch)?;
        Ok(resolved)
    }

    /// Sets the inputs after the change. A path of the change that lies outside all inputs becomes a new input.
    fn features(&mut self, changes: &Changes) -> Result<(), LabelError> {
        for modality in Modality::ALL {
            let inputs = &mut self.after.features[modality.index()];
            for path in &changes.features[modality.index()] {
                let inside = inputs.iter().any(|input| path.starts_with(input));
                match (inside, remote::exists(path)) {
                    (false, true) if path.is_file() && is_npy(path) => {
                        return Err(LabelError::Change(format!(
                            "{modality} features `{}` are one npy file in none of the inputs, expected a folder of npy \
                             or Parquet files, or a Parquet file",
                            path.display()
                        )));
                    }
                    (false, true) => inputs.push(path.clone()),
                    // The path is a file of an input folder, or an input itself: the inputs stay.
                    (true, true) => {}
                    (true, false) => inputs.retain(|input| input != path),
                    (false, false) => {
                        return Err(LabelError::Change(format!(
                            "{modality} features `{}` are not there, and were not before",
                            path.display()
                        )));
                    }
                }
            }
            for path in &changes.removed[modality.index()] {
                if let Some(position) = inputs.iter().position(|input| input == path) {
                    inputs.remove(position);
                } else if !remote::exists(path) && inputs.iter().any(|input| path.starts_with(input)) {
                    // A file was removed from an input folder. Reading the path again finds that the file is gone.
                } else {
                    let inputs: Vec<String> = inputs
                        .iter()
                        .map(|input| format!("`{}`", input.display()))
                        .collect();
                    return Err(LabelError::Change(format!(
                        "`{}` is none of the {modality} inputs, expected one of {}; a file of a folder is removed by \
                         removing the file",
                        path.display(),
                        inputs.join(", ")
                    )));
                }
                self.paths[modality.index()].insert(path.clone());
            }
        }
        // The rejected rows of a file are replaced when the file is read again. If one file is an input of both
        // modalities, read it for both; otherwise the rejected rows of the other modality would be lost.
        for modality in Modality::ALL {
            let other = 1 - modality.index();
            let inputs = &self.after.features[other];
            let shared = |path: &&PathBuf| inputs.iter().any(|input| path.starts_with(input));
            let shared: Vec<PathBuf> = self.paths[modality.index()]
                .iter()
                .filter(shared)
                .cloned()
                .collect();
            self.paths[other].extend(shared);
        }
        Ok(())
    }

    fn weak(&mut self, snapshot: &Snapshot, rows: &[WeakEditRow]) -> Result<(), LabelError> {
        self.known
            .want(snapshot, rows.iter().map(|row| row.video.clone()))?;
        for rows in rows.chunk_by(|a, b| (a.edit, &a.origin.file) == (b.edit, &b.origin.file)) {
            let mut first: BTreeMap<&Arc<str>, Option<u64>> = BTreeMap::new();
            for row in rows {
                let Some(classes) = self.classes(row) else {
                    continue;
                };
                let reject = |kind, reason| row.origin.reject(kind, Some(&row.video), reason);
                if let Some(earlier) = first.get(&row.video) {
                    let place =
                        earlier.map_or_else(|| "an earlier row".to_owned(), |line| format!("row {line}"));
                    self.rejects.push(reject(
                        RejectKind::RepeatedVideo,
                        format!("video is in {place} too, expected once: the first row counts"),
                    ));
                    continue;
                }
                first.insert(&row.video, row.origin.row);
                match self.edited(row, &classes) {
                    Ok(now) => drop(self.weak.insert(row.video.clone(), now)),
                    Err(reason) => self.rejects.push(reject(RejectKind::UnknownVideo, reason)),
                }
            }
        }
        Ok(())
    }

    /// The classes of a row in ascending order. If the store lacks one of the classes, the result is `None` and each
    /// unknown class becomes a rejected row: the known classes alone would be another weak label than the user gave.
    fn classes(&mut self, row: &WeakEditRow) -> Option<Vec<ClassId>> {
        let mut ids = BTreeSet::new();
        let mut whole = true;
        for class in &row.classes {
            match self.after.class_id(class) {
                Some(id) => drop(ids.insert(id)),
                None => {
                    let reason = unknown_class(class, &self.after.classes);
                    self.rejects.push(
                        row.origin
                            .reject(RejectKind::UnknownClass, Some(&row.video), reason),
                    );
                    whole = false;
                }
            }
        }
        whole.then(|| ids.into_iter().collect())
    }

    /// The weak label of a video after a row is applied. `None` if the row removes the video.
    fn edited(&self, row: &WeakEditRow, named: &[ClassId]) -> Result<Option<WeakNow>, String> {
        let now = self.weak_of(&row.video);
        let split = row
            .split
            .or(now.as_ref().map(|now| now.split))
            .unwrap_or(Split::Train);
        let source = row.origin.file.clone();
        let Some(now) = now else {
            return match row.edit {
                WeakEdit::Remove => Err("video is not in the store, expected one that is".to_owned()),
                WeakEdit::Set | WeakEdit::Add => Ok(Some(WeakNow {
                    classes: named.to_vec(),
                    split,
                    source,
                })),
            };
        };
        let mut classes: BTreeSet<ClassId> = now.classes.iter().copied().collect();
        match row.edit {
            WeakEdit::Remove if named.is_empty() => return Ok(None),
            WeakEdit::Remove => classes.retain(|class| !named.contains(class)),
            WeakEdit::Set => classes = named.iter().copied().collect(),
            WeakEdit::Add => classes.extend(named),
        }
        let classes: Vec<ClassId> = classes.into_iter().collect();
        // A row that repeats the weak label of the store changes nothing. Keep the source of the label, too.
        let source = match classes == now.classes && split == now.split {
            true => now.source,
            false => source,
        };
        Ok(Some(WeakNow {
            classes,
            split,
            source,
        }))
    }

    /// The weak label of a video whose row is loaded, after the edits so far. Classes that the change removes are
    /// left out. A video with guessed candidates has an empty weak label.
    pub(crate) fn weak_of(&self, name: &str) -> Option<WeakNow> {
        if let Some(edited) = self.weak.get(name) {
            return edited.clone();
        }
        let row = self.known.get(name)?;
        // Guessed candidates are no weak label.
        let given = if row.guessed { &[][..] } else { &row.weak_labels };
        let mut classes: Vec<ClassId> = given
            .iter()
            .filter_map(|class| self.after.class_id(class))
            .collect();
        classes.sort_unstable();
        Some(WeakNow {
            classes,
            split: row.split,
            source: row.source.clone(),
        })
    }

    /// Videos that the change removes.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &Arc<str>> {
        let gone = self.weak.iter().filter(|(_, now)| now.is_none());
        gone.map(|(name, _)| name)
    }

    /// All videos after the change. The rows of all videos must be loaded before the call.
    pub(crate) fn videos(&self) -> AnnotatedVideos {
        let known = self.known.rows().map(|row| &row.video);
        let names: BTreeSet<&Arc<str>> = known.chain(self.weak.keys()).collect();
        let video = |name: &Arc<str>| {
            let now = self.weak_of(name)?;
            let label = VideoLabel {
                split: now.split,
                weak: now.classes.into(),
                source: now.source,
            };
            Some((name.clone(), label))
        };
        names.into_iter().filter_map(video).collect()
    }
}

/// Number of deliveries that a store version remembers. A version with more new deliveries remembers all of its new
/// ones.
const REMEMBERED: usize = 1024;

fn remember(delivered: &mut Vec<Arc<str>>, new: &[Arc<str>]) {
    delivered.extend_from_slice(new);
    let most = REMEMBERED.max(new.len());
    delivered.drain(..delivered.len().saturating_sub(most));
}

/// Classes, settings and prompts after the change.
fn after(before: World, changes: &Changes) -> Result<World, LabelError> {
    let mut world = before.clone();
    if let Some(classes) = &changes.rows.classes {
        world.classes = classes.clone();
    }
    world.settings = before.settings.changed(
        &before.classes,
        &world.classes,
        &changes.settings,
        &changes.thresholds,
    )?;
    for modality in Modality::ALL {
        world.prompts[modality.index()] = prompts(&before, &world.classes, modality, changes)?;
    }
    Ok(world)
}

fn prompts(
    before: &World,
    classes: &[Arc<str>],
    modality: Modality,
    changes: &Changes,
) -> Result<PromptSet, LabelError> {
    let old = &before.prompts[modality.index()];
    let mut missing: BTreeSet<&Arc<str>> = BTreeSet::new();
    let mut set = match &changes.rows.texts[modality.index()] {
        Some(rows) => {
            let (width, data, texts) = rows.of(classes)?;
            PromptSet { width, data, texts }
        }
        None => {
            let mut set = PromptSet {
                width: old.width,
                data: Vec::new(),
                texts: Vec::new(),
            };
            for class in classes {
                match before.class_id(class) {
                    Some(id) => {
                        set.data.extend(old.row(id));
                        set.texts.push(old.texts[id.index()].clone());
                    }
                    None => {
                        missing.insert(class);
                        set.data.resize(set.data.len() + old.width, 0.0);
                        set.texts.push(None);
                    }
                }
            }
            set
        }
    };
    let own = changes.rows.prompts.iter();
    for prompt in own.filter(|prompt| prompt.modality == modality) {
        let (class, embedding) = (&prompt.class, &prompt.embedding);
        let Some(position) = classes.iter().position(|known| known == class) else {
            return Err(LabelError::Change(format!(
                "{modality} prompt: {}",
                unknown_class(class, classes)
            )));
        };
        let bad = |problem: String| {
            LabelError::Change(format!(
                "{modality} prompt of `{class}`, `{}`: {problem}",
                prompt.origin
            ))
        };
        if embedding.len() != set.width {
            let (found, width) = (embedding.len(), set.width);
            return Err(bad(format!(
                "holds {found} values, expected {width} as the other classes"
            )));
        }
        if let Some(at) = embedding.iter().position(|value| !value.is_finite()) {
            let value = embedding[at];
            return Err(bad(format!("value {at} is {value}, expected a finite number")));
        }
        if embedding.iter().all(|value| *value == 0.0) {
            return Err(bad("all values are 0, expected a direction".to_owned()));
        }
        set.data[position * set.width..][..set.width].copy_from_slice(embedding);
        set.texts[position] = None;
        missing.remove(class);
    }
    match missing.first() {
        None => Ok(set),
        Some(class) => Err(LabelError::Change(format!(
            "class `{class}` is new and has no {modality} text embedding: give all with --{modality}-text, or this one \
             with --prompt '{modality}/{class}=FILE.npy'"
        ))),
    }
}

/// The world `now` with the settings, prompts and denoising of `then`; both must have the same classes.
fn back_to(now: &World, then: &World) -> Result<World, LabelError> {
    if now.classes != then.classes {
        return Err(LabelError::Change(
            "the classes of that version are others than now, expected the same: change the classes first"
                .to_owned(),
        ));
    }
    Ok(World {
        settings: LabelSettings::clone(&then.settings),
        prompts: then.prompts.clone(),
        denoising: then.denoising,
        ..now.clone()
    })
}

/// Largest number of an epoch from outside. The tables hold numbers up to 2^63 - 1, and later epochs of the store count on
/// from here.
pub const MOST_EPOCH: u64 = 1 << 53;

fn check_epoch(epoch: u64) -> Result<(), LabelError> {
    match epoch {
        1..=MOST_EPOCH => Ok(()),
        _ => Err(LabelError::Change(format!(
            "the epoch is {epoch}, expected a number from 1 to {MOST_EPOCH}"
        ))),
    }
}

fn denoising(
    now: &Both<Option<DenoisingRule>>,
    request: &DenoiseRequest,
    first_epoch: bool,
) -> Result<Both<Option<DenoisingRule>>, LabelError> {
    let mut after = *now;
    let off = now.iter().all(Option::is_none);
    for modality in Modality::ALL {
        let own = &mut after[modality.index()];
        let on = match &request.modalities {
            Some(modalities) => modalities.contains(&modality),
            None => own.is_some() || (off && first_epoch && modality == Modality::Visual),
        };
        let base = own.unwrap_or_default();
        let changed = match request.rule.as_deref() {
            Some(name) if name != base.name() => DenoisingRule::new(name, &request.parameters),
            _ => base.with(&request.parameters),
        };
        let changed = changed.map_err(|error| LabelError::Change(format!("denoising: {error}")))?;
        *own = on.then_some(changed);
    }
    let names_rule = request.rule.is_some() || !request.parameters.is_empty();
    if names_rule && after.iter().all(Option::is_none) {
        return Err(LabelError::Change(
            "the change names a denoising rule or its parameters, but no modality is denoised after it, so they would have \
             no effect: name the modalities to denoise (`--denoise visual`), or leave the rule out"
                .to_owned(),
        ));
    }
    Ok(after)
}
