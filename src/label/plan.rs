//! Every input opened and checked, before any work.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vaplan_dataflows::VideoId;
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::similarity::{PromptPair, Prompts};
use vaplan_schemas::rows::{ClassRow, RejectRow, Severity, Split, TruthRow};
use vaplan_schemas::{ClassId, Modality};

use super::settings::Settings;
use super::{LabelError, Request};
use crate::ingest::annotations::{Annotations, KeyError, Roster, read_classes};
use crate::ingest::features::{FeatureInput, Shard};
use crate::ingest::text::TextEmbeddings;

/// All that a run needs to know.
#[derive(Debug)]
pub struct Plan {
    /// Class names, in order.
    pub classes: Vec<Arc<str>>,
    /// Videos of the splits asked for, in the order of the annotations.
    pub videos: Vec<PlannedVideo>,
    /// Position in `videos`.
    pub by_id: BTreeMap<VideoId, usize>,
    /// Dense events of these videos.
    pub truth: Vec<TruthRow>,
    /// Odd and bad rows of the annotations.
    pub rejects: Vec<RejectRow>,
    /// Rule, scales, thresholds.
    pub settings: Settings,
    /// Rows of the `classes` table.
    pub class_rows: Vec<ClassRow>,
    /// Prompts of both modalities.
    pub prompts: Arc<PromptPair>,
    /// Shards of both modalities.
    pub shards: Vec<PlannedShard>,
    /// SHA-256 of all that the answer depends on, hex.
    pub inputs: String,
    /// SHA-256 of the settings, hex.
    pub settings_hash: String,
    /// SHA-256 of the text embeddings, hex.
    pub models_hash: String,
    roster: Roster,
    /// Of a position in the annotations: position in `videos`, where its split is asked for.
    chosen: Vec<Option<usize>>,
}

/// A video to label.
#[derive(Clone, Debug)]
pub struct PlannedVideo {
    /// Hash of the name.
    pub id: VideoId,
    /// Full name.
    pub name: Arc<str>,
    /// Part of the data set.
    pub split: Split,
    /// Weak label, ascending.
    pub weak: Arc<[ClassId]>,
    /// Annotation file of it.
    pub source: Arc<str>,
}

/// A shard and what its scores are staged under.
#[derive(Clone, Debug)]
pub struct PlannedShard {
    /// Where the features are.
    pub shard: Shard,
    /// Which of the two.
    pub modality: Modality,
    /// Hash of all that its scores depend on, hex.
    pub key: String,
}

/// What the key of a feature file means for a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// This video, by its position in [`Plan::videos`].
    Video(usize),
    /// A video that is not asked for, or of no annotation.
    Other,
    /// More than one video.
    Ambiguous(String),
}

impl Plan {
    /// Opens every input.
    ///
    /// # Errors
    /// [`LabelError`] for an input that cannot be used at all.
    pub fn new(request: &Request) -> Result<Plan, LabelError> {
        let classes = request.classes.as_deref().map(read_classes).transpose()?;
        let annotations = Annotations::read_with_classes(&request.annotations, classes)?;
        let settings = Settings::resolve(&request.settings, &annotations.classes)?;
        let (videos, chosen) = choose(&annotations, &request.splits);
        if videos.is_empty() {
            let splits: Vec<&str> = request.splits.iter().map(|split| split.as_str()).collect();
            return Err(LabelError::NoVideos {
                annotations: request.annotations.clone(),
                splits: splits.join(", "),
            });
        }
        let by_id = index(&videos)?;
        let texts = Modality::ALL.map(|modality| match modality {
            Modality::Audio => TextEmbeddings::read(&request.audio_text, &annotations.classes),
            Modality::Visual => TextEmbeddings::read(&request.visual_text, &annotations.classes),
        });
        let [audio_text, visual_text] = texts;
        let (audio_text, visual_text) = (audio_text?, visual_text?);
        let prompts = PromptPair {
            audio: prompts(&audio_text, settings.audio.rule)?,
            visual: prompts(&visual_text, settings.visual.rule)?,
        };
        let class_rows = class_rows(&annotations.classes, &settings, &audio_text, &visual_text);

        let roster = annotations.roster();
        let wanted = |key: &str| match roster.resolve(key) {
            Ok(position) => chosen[position].is_some(),
            Err(KeyError::Unknown) => false,
            // Opened, so that it can be rejected by name.
            Err(_) => true,
        };
        let weak_hash = weak_hash(&annotations.classes, &videos);
        let mut shards = Vec::new();
        for (path, text, modality) in [
            (&request.audio, &audio_text, Modality::Audio),
            (&request.visual, &visual_text, Modality::Visual),
        ] {
            let rule = settings.of(modality).rule;
            for shard in FeatureInput::open(path, modality, &wanted)?.shards {
                let key = hash(|sum| {
                    let fingerprint = shard.fingerprint();
                    feed(
                        sum,
                        [
                            modality.as_str(),
                            &fingerprint,
                            &text.sha256,
                            &weak_hash,
                            rule.name(),
                        ],
                    );
                    sum.update(rule.scale().to_bits().to_le_bytes());
                });
                shards.push(PlannedShard { shard, modality, key });
            }
        }
        let truth = truth(&annotations, &chosen);
        let settings_text = serde_json::to_string(&settings).expect("settings are plain numbers and names");
        let settings_hash = hash(|sum| feed(sum, [&*settings_text]));
        let models_hash = hash(|sum| feed(sum, [&*audio_text.sha256, &visual_text.sha256]));
        let inputs = hash(|sum| {
            feed(
                sum,
                [
                    &*settings_hash,
                    &models_hash,
                    &weak_hash,
                    &request.segment_seconds.to_string(),
                ],
            );
            for shard in &shards {
                feed(sum, [&*shard.key]);
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
            for row in &annotations.rejects {
                feed(sum, [&*row.file, &row.reason]);
            }
        });
        Ok(Plan {
            classes: annotations.classes,
            videos,
            by_id,
            truth,
            rejects: annotations.rejects,
            settings,
            class_rows,
            prompts: Arc::new(prompts),
            shards,
            inputs,
            settings_hash,
            models_hash,
            roster,
            chosen,
        })
    }

    /// What the key of a feature file means.
    pub fn meaning(&self, key: &str) -> Meaning {
        match self.roster.resolve(key) {
            Ok(position) => self.chosen[position].map_or(Meaning::Other, Meaning::Video),
            Err(KeyError::Unknown) => Meaning::Other,
            Err(ambiguous) => Meaning::Ambiguous(ambiguous.to_string()),
        }
    }

    /// Name of a video of the plan.
    pub fn name(&self, video: VideoId) -> Option<&Arc<str>> {
        self.by_id
            .get(&video)
            .map(|&position| &self.videos[position].name)
    }
}

fn choose(annotations: &Annotations, splits: &[Split]) -> (Vec<PlannedVideo>, Vec<Option<usize>>) {
    let mut videos = Vec::new();
    let mut chosen = Vec::with_capacity(annotations.videos.len());
    for video in &annotations.videos {
        chosen.push(splits.contains(&video.split).then_some(videos.len()));
        if splits.contains(&video.split) {
            videos.push(PlannedVideo {
                id: VideoId::of(&video.name),
                name: video.name.clone(),
                split: video.split,
                weak: video.weak.clone().into(),
                source: video.source.clone(),
            });
        }
    }
    (videos, chosen)
}

fn index(videos: &[PlannedVideo]) -> Result<BTreeMap<VideoId, usize>, LabelError> {
    let mut by_id = BTreeMap::new();
    for (position, video) in videos.iter().enumerate() {
        if let Some(other) = by_id.insert(video.id, position) {
            let other: &PlannedVideo = &videos[other];
            return Err(LabelError::Collision {
                first: other.name.to_string(),
                second: video.name.to_string(),
            });
        }
    }
    Ok(by_id)
}

fn prompts(text: &TextEmbeddings, rule: Rule) -> Result<Prompts, LabelError> {
    Prompts::new(&text.data, text.width, rule).map_err(|problem| LabelError::Prompts {
        path: text.path.clone(),
        problem,
    })
}

fn class_rows(
    classes: &[Arc<str>],
    settings: &Settings,
    audio: &TextEmbeddings,
    visual: &TextEmbeddings,
) -> Vec<ClassRow> {
    let mut rows = Vec::with_capacity(classes.len() * 2);
    for (position, class) in classes.iter().enumerate() {
        for modality in Modality::ALL {
            let text = match modality {
                Modality::Audio => audio,
                Modality::Visual => visual,
            };
            let own = settings.of(modality);
            let position = position as u32;
            rows.push(ClassRow {
                class: class.clone(),
                position,
                modality,
                prompt: text.prompts.get(position as usize).cloned().flatten(),
                rule: own.rule.name().into(),
                scale: own.rule.scale(),
                threshold: own.thresholds[position as usize],
                cutoff: own.cutoff(ClassId(position)),
            });
        }
    }
    rows
}

fn truth(annotations: &Annotations, chosen: &[Option<usize>]) -> Vec<TruthRow> {
    let mut rows: Vec<TruthRow> = annotations
        .events
        .iter()
        .filter(|event| chosen[event.video].is_some())
        .map(|event| TruthRow {
            video: annotations.videos[event.video].name.clone(),
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

/// Of the classes and of every video's name, split and weak label.
fn weak_hash(classes: &[Arc<str>], videos: &[PlannedVideo]) -> String {
    hash(|sum| {
        for class in classes {
            feed(sum, [&**class]);
        }
        for video in videos {
            feed(sum, [&*video.name, video.split.as_str(), &video.source]);
            for class in video.weak.iter() {
                sum.update(class.0.to_le_bytes());
            }
        }
    })
}

fn hash(fill: impl FnOnce(&mut Sha256)) -> String {
    let mut sum = Sha256::new();
    fill(&mut sum);
    sum.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Each with its length, so that no two lists of texts feed the same bytes.
fn feed<'a>(sum: &mut Sha256, texts: impl IntoIterator<Item = &'a str>) {
    for text in texts {
        sum.update((text.len() as u64).to_le_bytes());
        sum.update(text);
    }
}

impl Meaning {
    /// The reject of a key that means more than one video.
    pub fn reject(&self, file: &str, row: u64) -> Option<RejectRow> {
        let Meaning::Ambiguous(reason) = self else {
            return None;
        };
        Some(RejectRow {
            file: file.to_owned(),
            row: Some(row),
            video: None,
            severity: Severity::Reject,
            reason: reason.clone(),
        })
    }
}
