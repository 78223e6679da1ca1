//! What was asked, against what the store says now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_dataflows::pld::Pld;
use vaplan_schemas::rows::{PredictionTrack, RejectKind, RejectRow, Split};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::{ClassId, Modality, StoreVersion};

use super::changes::{self, Changes, DenoiseRequest, UserRow, WeakEdit, WeakRow};
use super::videos::Known;
use super::{epochs, inputs, predictions};
use crate::error::LabelError;
use crate::ingest::absolute;
use crate::ingest::annotations::{read_classes, unknown_class};
use crate::ingest::npy;
use crate::ingest::text::TextEmbeddings;
use crate::world::settings::Settings;
use crate::world::{Both, PromptSet, Video, World, at};

/// The world before and after, and what is of single videos.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the version says.
    pub before: World,
    /// What is asked.
    pub after: World,
    /// Weak labels after, of the videos that were named; none: the video goes.
    pub(crate) weak: BTreeMap<Arc<str>, Option<WeakNow>>,
    /// Marks set and withdrawn, in order.
    pub(crate) user: Vec<UserRow>,
    /// Predictions of the epoch that comes.
    pub(crate) predictions: Vec<PredictionTrack>,
    /// Is it asked how many labels PLD flips?
    pub(crate) asks_for_flips: bool,
    /// Features to look at again.
    pub(crate) paths: Both<BTreeSet<PathBuf>>,
    /// Files of changes that were read: their rejects are told anew.
    pub(crate) files: BTreeSet<String>,
    /// What of them was left out.
    pub rejects: Vec<RejectRow>,
    /// Videos as the version has them, so far as they were needed.
    pub(crate) known: Known,
}

/// Weak label of a video after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeakNow {
    /// Ascending.
    pub(crate) classes: Vec<ClassId>,
    pub(crate) split: Split,
    pub(crate) source: Arc<str>,
}

impl Resolved {
    /// Reads every file of the changes and checks them against the version.
    ///
    /// # Errors
    /// [`LabelError`] for a change that cannot be made as a whole; a bad row is in [`Resolved::rejects`].
    pub fn new(store: &Store, snapshot: &Snapshot, changes: &Changes) -> Result<Resolved, LabelError> {
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
            predictions: Vec::new(),
            asks_for_flips: changes.epoch.is_some(),
            paths: changes.features.clone().map(|paths| paths.into_iter().collect()),
            files: BTreeSet::new(),
            rejects: Vec::new(),
            known: Known::default(),
        };
        resolved.features(changes)?;
        for (edit, path) in &changes.weak {
            resolved.weak(snapshot, *edit, path)?;
        }
        for path in &changes.user {
            resolved.user(snapshot, path)?;
        }
        if let Some((path, epoch)) = &changes.predictions {
            let read = predictions::read(
                snapshot,
                &mut resolved.known,
                &resolved.weak,
                path,
                *epoch,
                resolved.after.classes.len(),
            )?;
            resolved.files.extend(read.files);
            resolved.rejects.extend(read.rejects);
            resolved.predictions = read.tracks;
            let (before, after) = (&resolved.before, &resolved.after);
            resolved.after.active = Some(epochs::came(snapshot, before, after, *epoch)?);
        }
        if let Some(epoch) = changes.epoch {
            if changes.predictions.is_some() {
                return Err(LabelError::Change(
                    "an epoch of the store and predictions of an epoch, expected one of the two".to_owned(),
                ));
            }
            resolved.after.active = Some(epochs::chosen(snapshot, &resolved.before, epoch)?);
        }
        // A version that is gone back to says how labels are denoised, or the same once more would be another change.
        let comes_first = resolved.before.active.is_none() && changes.to_version.is_none();
        let first_epoch = changes.epoch.is_some() || (comes_first && changes.predictions.is_some());
        remember(&mut resolved.after.delivered, &changes.delivered);
        resolved.after.denoising = denoising(&resolved.after.denoising, &changes.denoising, first_epoch)?;
        Ok(resolved)
    }

    /// Which inputs there are after: a path that is in none of them is added.
    fn features(&mut self, changes: &Changes) -> Result<(), LabelError> {
        for modality in Modality::ALL {
            let inputs = &mut self.after.features[at(modality)];
            for path in &changes.features[at(modality)] {
                let inside = inputs.iter().any(|input| path.starts_with(input));
                match (inside, path.exists()) {
                    (false, true) if path.is_file() && is_npy(path) => {
                        return Err(LabelError::Change(format!(
                            "{modality} features `{}` are one npy file in none of the inputs, expected a folder of npy \
                             or Parquet files, or a Parquet file",
                            path.display()
                        )));
                    }
                    (false, true) => inputs.push(path.clone()),
                    // A file that went from a folder, or a listed file that went.
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
            for path in &changes.removed[at(modality)] {
                if let Some(position) = inputs.iter().position(|input| input == path) {
                    inputs.remove(position);
                } else if !path.exists() && inputs.iter().any(|input| path.starts_with(input)) {
                    // Gone from a folder: that is what looking again finds.
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
                self.paths[at(modality)].insert(path.clone());
            }
        }
        // What is rejected in a file is told of the file: where it counts for both modalities, both are read again.
        for modality in Modality::ALL {
            let other = 1 - at(modality);
            let inputs = &self.after.features[other];
            let shared = |path: &&PathBuf| inputs.iter().any(|input| path.starts_with(input));
            let shared: Vec<PathBuf> = self.paths[at(modality)].iter().filter(shared).cloned().collect();
            self.paths[other].extend(shared);
        }
        Ok(())
    }

    fn weak(
        &mut self,
        snapshot: &Snapshot,
        edit: WeakEdit,
        path: &std::path::Path,
    ) -> Result<(), LabelError> {
        let path = &absolute(path)?;
        self.files.insert(path.display().to_string());
        let rows = changes::weak(edit, path, &self.after.classes, &mut self.rejects)?;
        self.known
            .want(snapshot, rows.iter().map(|(name, _)| name.clone()))?;
        for (name, row) in rows {
            match self.edited(&name, &row) {
                Ok(now) => drop(self.weak.insert(name, now)),
                Err(reason) => {
                    let reject =
                        changes::reject(RejectKind::UnknownVideo, &row.file, row.line, Some(&name), reason);
                    self.rejects.push(reject);
                }
            }
        }
        Ok(())
    }

    /// Weak label of a video after a row.
    fn edited(&self, name: &Arc<str>, row: &WeakRow) -> Result<Option<WeakNow>, String> {
        let now = self.weak_of(name);
        let split = row
            .split
            .or(now.as_ref().map(|now| now.split))
            .unwrap_or(Split::Train);
        let source = row.file.clone();
        let Some(now) = now else {
            return match row.edit {
                WeakEdit::Remove => Err("video is not in the store, expected one that is".to_owned()),
                WeakEdit::Set | WeakEdit::Add => Ok(Some(WeakNow {
                    classes: row.classes.clone(),
                    split,
                    source,
                })),
            };
        };
        let mut classes: BTreeSet<ClassId> = now.classes.iter().copied().collect();
        match row.edit {
            WeakEdit::Remove if row.classes.is_empty() => return Ok(None),
            WeakEdit::Remove => classes.retain(|class| !row.classes.contains(class)),
            WeakEdit::Set => classes = row.classes.iter().copied().collect(),
            WeakEdit::Add => classes.extend(&row.classes),
        }
        let classes: Vec<ClassId> = classes.into_iter().collect();
        // A row that says what is so already changes nothing, the file that is named included.
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

    /// Weak label of a video that was wanted before, with the edits so far; classes that retire are left out.
    pub(crate) fn weak_of(&self, name: &str) -> Option<WeakNow> {
        if let Some(edited) = self.weak.get(name) {
            return edited.clone();
        }
        let row = self.known.get(name)?;
        let mut classes: Vec<ClassId> = row
            .weak_labels
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

    /// Videos that go.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &Arc<str>> {
        let gone = self.weak.iter().filter(|(_, now)| now.is_none());
        gone.map(|(name, _)| name)
    }

    /// All videos there are after; all were wanted before.
    pub(crate) fn videos(&self) -> Vec<Video> {
        let known = self.known.rows().map(|row| &row.video);
        let names: BTreeSet<&Arc<str>> = known.chain(self.weak.keys()).collect();
        let video = |name: &Arc<str>| {
            let now = self.weak_of(name)?;
            Some(Video {
                id: VideoId::of(name),
                name: name.clone(),
                split: now.split,
                weak: now.classes.into(),
                source: now.source,
            })
        };
        names.into_iter().filter_map(video).collect()
    }

    fn user(&mut self, snapshot: &Snapshot, path: &std::path::Path) -> Result<(), LabelError> {
        let path = &absolute(path)?;
        self.files.insert(path.display().to_string());
        let rows = changes::user(path, &self.after.classes, &mut self.rejects)?;
        self.known
            .want(snapshot, rows.iter().map(|row| row.video.clone()))?;
        for row in rows {
            if self.weak_of(&row.video).is_some() {
                self.user.push(row);
            } else {
                let reason = "video is not in the store, expected one that is".to_owned();
                let kind = RejectKind::UnknownVideo;
                self.rejects.push(changes::reject(
                    kind,
                    &row.file,
                    row.line,
                    Some(&row.video),
                    reason,
                ));
            }
        }
        Ok(())
    }
}

/// Is it named as features of one video are?
pub(crate) fn is_npy(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "npy")
}

/// As many deliveries a version remembers, or as many as it took in itself.
const REMEMBERED: usize = 1024;

fn remember(delivered: &mut Vec<Arc<str>>, new: &[Arc<str>]) {
    delivered.extend_from_slice(new);
    let most = REMEMBERED.max(new.len());
    delivered.drain(..delivered.len().saturating_sub(most));
}

/// Classes, settings and prompts after.
fn after(before: World, changes: &Changes) -> Result<World, LabelError> {
    let mut world = before.clone();
    if let Some(path) = &changes.classes {
        world.classes = read_classes(path)?;
    }
    world.settings = before.settings.changed(
        &before.classes,
        &world.classes,
        &changes.settings,
        &changes.thresholds,
    )?;
    for modality in Modality::ALL {
        world.prompts[at(modality)] = prompts(&before, &world.classes, modality, changes)?;
    }
    Ok(world)
}

fn prompts(
    before: &World,
    classes: &[Arc<str>],
    modality: Modality,
    changes: &Changes,
) -> Result<PromptSet, LabelError> {
    let old = &before.prompts[at(modality)];
    let mut missing: BTreeSet<&Arc<str>> = BTreeSet::new();
    let mut set = match &changes.texts[at(modality)] {
        Some(path) => TextEmbeddings::read(path, classes)?.into(),
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
    for (_, class, path) in changes.prompts.iter().filter(|(of, ..)| *of == modality) {
        let Some(position) = classes.iter().position(|known| known == class) else {
            return Err(LabelError::Change(format!(
                "{modality} prompt: {}",
                unknown_class(class, classes)
            )));
        };
        let array = npy::read_floats(path)?;
        let bad = |problem: String| {
            LabelError::Change(format!(
                "{modality} prompt of `{class}`, `{}`: {problem}",
                path.display()
            ))
        };
        if array.data.len() != set.width {
            let (found, width) = (array.data.len(), set.width);
            return Err(bad(format!(
                "holds {found} values, expected {width} as the other classes"
            )));
        }
        if let Some(at) = array.data.iter().position(|value| !value.is_finite()) {
            return Err(bad(format!(
                "value {at} is {}, expected a finite number",
                array.data[at]
            )));
        }
        if array.data.iter().all(|value| *value == 0.0) {
            return Err(bad("all values are 0, expected a direction".to_owned()));
        }
        set.data[position * set.width..][..set.width].copy_from_slice(&array.data);
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

/// The world now with the settings, prompts and denoising of another, where classes are the same.
fn back_to(now: &World, then: &World) -> Result<World, LabelError> {
    if now.classes != then.classes {
        return Err(LabelError::Change(
            "the classes of that version are others than now, expected the same: change the classes first"
                .to_owned(),
        ));
    }
    Ok(World {
        settings: Settings::clone(&then.settings),
        prompts: then.prompts.clone(),
        denoising: then.denoising,
        ..now.clone()
    })
}

fn denoising(
    now: &Both<Option<Pld>>,
    request: &DenoiseRequest,
    first_epoch: bool,
) -> Result<Both<Option<Pld>>, LabelError> {
    let mut after = *now;
    let off = now.iter().all(Option::is_none);
    for modality in Modality::ALL {
        let own = &mut after[at(modality)];
        let on = match &request.modalities {
            Some(modalities) => modalities.contains(&modality),
            None => own.is_some() || (off && first_epoch && modality == Modality::Visual),
        };
        let base = own.unwrap_or_default();
        let changed = Pld::new(
            request.k.unwrap_or(base.k()),
            request.alpha.unwrap_or(base.alpha()),
            request.guard.unwrap_or(base.guard()),
        );
        let changed = changed.map_err(|error| LabelError::Change(format!("denoising: {error}")))?;
        *own = on.then_some(changed);
    }
    Ok(after)
}
