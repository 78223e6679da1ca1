//! Opens and checks every input of a labelling run, before any work begins.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectRow, Split, TruthRow};
use vaplan_schemas::storage::is_url;
use vaplan_schemas::store::Store;

use super::LabelRequest;
use super::fit::fit_thresholds;
use super::fit::kept::{ThresholdFit, identity};
use crate::engine::plan::{Plan, planned, weak_hash};
use crate::engine::unknown::UnknownVideos;
use crate::error::LabelError;
use crate::ingest::absolute;
use crate::ingest::annotations::{Annotations, read_classes};
use crate::ingest::features::FeatureInput;
use crate::ingest::seen::{SeenInputs, one_spelling};
use crate::ingest::text::TextEmbeddings;
use crate::world::hash::{feed, hash};
use crate::world::settings::LabelSettings;
use crate::world::{Both, Meaning, VideoSet, World};

/// Opens every input.
///
/// # Errors
/// Returns [`LabelError`] if an input cannot be used at all.
pub(crate) fn open(request: &LabelRequest) -> Result<Plan, LabelError> {
    open_without(request, [false; 2])
}

/// The memory of the inputs of a store. A store at a URL has none: its scratch folder is another one on each host, and all
/// processes of a cluster must find the same inputs. Opening the store reports a path that cannot be used.
pub(crate) fn memory(store: &Path) -> SeenInputs {
    match Store::own_dir_at(store) {
        Ok(own) if !is_url(store) => SeenInputs::open(&own),
        _ => SeenInputs::default(),
    }
}

/// Like [`open`], but without the shards of some modalities, because their features do not exist yet. The hash of the inputs
/// does not contain these features.
///
/// # Errors
/// Returns the errors of [`open`].
pub(crate) fn open_without(request: &LabelRequest, later: Both<bool>) -> Result<Plan, LabelError> {
    let mut seen = memory(&request.store);
    let classes = request.classes.as_deref().map(read_classes).transpose()?;
    let annotations = Annotations::read_with_classes(&absolute(&request.annotations)?, classes)?;
    let mut settings = LabelSettings::resolve(&request.settings, &annotations.classes)?;
    let truth = truth(&annotations, &request.splits);
    let Annotations {
        classes,
        videos,
        mut rejects,
        events: _,
    } = annotations;
    let videos = VideoSet::new(videos, &request.splits)?;
    if videos.is_empty() {
        let splits: Vec<&str> = request.splits.iter().map(|split| split.as_str()).collect();
        let first = rejects.first();
        return Err(LabelError::NoVideos {
            rejected: first.map(|row| {
                let line = row.row.map_or_else(String::new, |line| format!(", row {line}"));
                (rejects.len(), format!("`{}`{line}: {}", row.file, row.reason))
            }),
            annotations: request.annotations.clone(),
            splits: splits.join(", "),
        });
    }
    let mut world = World {
        settings: settings.clone(),
        prompts: [
            TextEmbeddings::read(&request.audio_text, &classes)?.into(),
            TextEmbeddings::read(&request.visual_text, &classes)?.into(),
        ],
        features: [vec![absolute(&request.audio)?], vec![absolute(&request.visual)?]],
        label_folders: request.label_folders.clone(),
        columns: request.columns.clone(),
        segment_seconds: request.segment_seconds,
        denoising: [None, None],
        active: None,
        delivered: Vec::new(),
        run: BTreeMap::new(),
        fitted: None,
        classes,
    };
    let texts = [&request.audio_text, &request.visual_text];
    let prompts = world
        .prompt_pair()
        .map_err(|(modality, problem)| LabelError::Prompts {
            path: texts[modality.index()].clone(),
            problem,
        })?;
    let weak_hash = weak_hash(&world.classes, &videos);
    let mut shards = Vec::new();
    let unknown = RefCell::new(UnknownVideos::default());
    for modality in Modality::ALL
        .into_iter()
        .filter(|modality| !later[modality.index()])
    {
        for path in &world.features[modality.index()] {
            let folder = path.to_string_lossy();
            let wanted = |key: &str| {
                let meaning = videos.meaning(key);
                if meaning == Meaning::Unknown {
                    unknown.borrow_mut().note(key, &folder);
                }
                meaning.is_wanted()
            };
            let input = FeatureInput::open(path, modality, &world.columns, &wanted)?;
            shards.extend(planned(input, &world, &weak_hash, &mut seen));
        }
    }
    // Without all features there is nothing to fit to: early versions are then refused.
    if request.settings.fit && later == [false; 2] {
        // The thresholds become part of the settings here, before the settings are hashed: labels of other thresholds are
        // labels of other inputs.
        let source = absolute(&request.annotations)?.display().to_string();
        let shares = request.settings.event_shares;
        let inputs = identity(&settings, shares, &weak_hash, &shards);
        // A store that keeps the fit of these inputs saves the reading of thousands of features.
        let kept = ThresholdFit::of_store(&request.store, &inputs, world.classes.len());
        let fit = kept.unwrap_or_else(|| {
            fit_thresholds((&settings, shares), (&world.classes, &prompts), &videos, &shards)
        });
        fit.apply(&mut settings);
        rejects.extend(fit.notes(&source));
        world.fitted = Some(fit.kept(&inputs));
        world.settings = settings;
    }
    for row in &request.left_out {
        // A row of `encode` can have no file.
        let file = match &*row.file {
            "" => String::new(),
            file => absolute(Path::new(file))?.display().to_string(),
        };
        rejects.push(RejectRow { file, ..row.clone() });
    }
    let inputs = hash(|sum| {
        feed(
            sum,
            [
                &*world.settings_hash(),
                &world.models_hash(),
                &weak_hash,
                &request.segment_seconds.to_string(),
            ],
        );
        for shard in &shards {
            feed(sum, [&*shard.inputs]);
        }
        for event in &truth {
            let (onset, offset) = (event.onset.to_string(), event.offset.to_string());
            feed(
                sum,
                [
                    &*event.video,
                    event.modality.as_str(),
                    &event.class,
                    &onset,
                    &offset,
                ],
            );
        }
        for row in &rejects {
            let file = one_spelling(Path::new(&row.file));
            feed(sum, [&*file.to_string_lossy(), &row.reason]);
        }
    });
    Ok(Plan {
        world,
        videos,
        truth,
        rejects,
        prompts: Arc::new(prompts),
        shards,
        inputs,
        denoised: None,
        unknown: unknown.into_inner(),
        seen: Arc::new(seen),
    })
}

/// The dense truth of the videos of these splits.
fn truth(annotations: &Annotations, splits: &[Split]) -> Vec<TruthRow> {
    // Neighbouring events are of one video, and their rows share its name.
    let mut last: Arc<str> = "".into();
    let mut shared = |name: &str| {
        if *last != *name {
            last = name.into();
        }
        last.clone()
    };
    let mut rows: Vec<TruthRow> = annotations
        .events
        .iter()
        .filter(|event| splits.contains(&annotations.videos.get(event.video).split))
        .map(|event| TruthRow {
            video: shared(annotations.videos.get(event.video).name),
            modality: event.modality,
            class: annotations.classes[event.class.index()].clone(),
            onset: event.onset,
            offset: event.offset,
        })
        .collect();
    let key = |row: &TruthRow| {
        (
            row.video.clone(),
            row.modality,
            row.class.clone(),
            row.onset,
            row.offset,
        )
    };
    rows.sort_by_cached_key(key);
    rows.dedup_by_key(|row| key(row));
    rows
}
