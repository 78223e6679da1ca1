//! Every input opened and checked, before any work.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vaplan_dataflows::VideoId;
use vaplan_dataflows::pld::Pld;
use vaplan_dataflows::similarity::PromptPair;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectRow, Severity, Split, TruthRow};

use super::settings::Settings;
use super::world::{Active, Both, Video, World, at};
use super::{LabelError, Request};
use crate::ingest::annotations::{Annotations, KeyError, Roster, read_classes};
use crate::ingest::features::{FeatureInput, Shard};
use crate::ingest::seen::one_spelling;
use crate::ingest::text::TextEmbeddings;

/// All that a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Classes, rule, thresholds, prompts.
    pub world: World,
    /// Videos of the splits asked for, in the order of the annotations.
    pub videos: Vec<Video>,
    /// Position in `videos`.
    pub by_id: BTreeMap<VideoId, usize>,
    /// Dense events of these videos.
    pub truth: Vec<TruthRow>,
    /// Odd and bad rows of the annotations.
    pub rejects: Vec<RejectRow>,
    /// Prompts of both modalities, of unit length.
    pub prompts: Arc<PromptPair>,
    /// Shards of both modalities.
    pub shards: Vec<PlannedShard>,
    /// SHA-256 of all that the answer depends on, hex.
    pub inputs: String,
    /// What PLD goes by; none: what the version before says.
    pub denoised: Option<Denoised>,
    names: Names,
}

/// What PLD goes by: its settings, and the predictions that count.
pub type Denoised = (Both<Option<Pld>>, Option<Active>);

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

/// What keys of feature files mean for a run.
#[derive(Clone, Debug)]
pub struct Names {
    roster: Roster,
    /// Of a position in the roster: position in [`Plan::videos`]; none: known, but not asked for.
    chosen: Vec<Option<usize>>,
}

impl Names {
    /// Of all known names, each with its position in [`Plan::videos`] where it is asked for.
    pub fn new(names: impl IntoIterator<Item = (Arc<str>, Option<usize>)>) -> Names {
        let (names, chosen): (Vec<_>, _) = names.into_iter().unzip();
        Names {
            roster: Roster::new(names),
            chosen,
        }
    }

    /// What a key means.
    pub fn meaning(&self, key: &str) -> Meaning {
        match self.roster.resolve(key) {
            Ok(position) => self.chosen[position].map_or(Meaning::Other, Meaning::Video),
            Err(KeyError::Unknown) => Meaning::Other,
            Err(ambiguous) => Meaning::Ambiguous(ambiguous.to_string()),
        }
    }
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
        let world = World {
            settings,
            prompts: [
                TextEmbeddings::read(&request.audio_text, &annotations.classes)?.into(),
                TextEmbeddings::read(&request.visual_text, &annotations.classes)?.into(),
            ],
            features: [vec![request.audio.clone()], vec![request.visual.clone()]],
            segment_seconds: request.segment_seconds,
            denoising: [None, None],
            active: None,
            delivered: Vec::new(),
            run: BTreeMap::new(),
            classes: annotations.classes.clone(),
        };
        let texts = [&request.audio_text, &request.visual_text];
        let prompts = world
            .prompt_pair()
            .map_err(|(modality, problem)| LabelError::Prompts {
                path: texts[at(modality)].clone(),
                problem,
            })?;
        let names = annotations.videos.iter().map(|video| video.name.clone());
        let names = Names::new(names.zip(chosen.iter().copied()));
        let weak_hash = weak_hash(&annotations.classes, &videos);
        let mut shards = Vec::new();
        for modality in Modality::ALL {
            for path in &world.features[at(modality)] {
                // An ambiguous key is opened, so that it can be rejected by name.
                let wanted = |key: &str| names.meaning(key) != Meaning::Other;
                let input = FeatureInput::open(path, modality, &wanted)?;
                shards.extend(planned(input, &world, &weak_hash));
            }
        }
        let truth = truth(&annotations, &chosen);
        let mut rejects = annotations.rejects;
        rejects.extend_from_slice(&request.left_out);
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
            for row in &rejects {
                let file = one_spelling(Path::new(&row.file));
                feed(sum, [&*file.to_string_lossy(), &row.reason]);
            }
        });
        Ok(Plan {
            world,
            videos,
            by_id,
            truth,
            rejects,
            prompts: Arc::new(prompts),
            shards,
            inputs,
            denoised: None,
            names,
        })
    }

    /// Of the videos of a store, without shards, dense events and rejects.
    ///
    /// # Errors
    /// [`LabelError::Collision`]; [`LabelError::World`] for prompts that are no directions.
    pub fn of_store(world: &World, videos: Vec<Video>, names: Names) -> Result<Plan, LabelError> {
        let prompts = world
            .prompt_pair()
            .map_err(|(modality, problem)| LabelError::Change(format!("{modality} prompts: {problem}")))?;
        Ok(Plan {
            by_id: index(&videos)?,
            world: world.clone(),
            videos,
            truth: Vec::new(),
            rejects: Vec::new(),
            prompts: Arc::new(prompts),
            shards: Vec::new(),
            inputs: String::new(),
            denoised: None,
            names,
        })
    }

    /// What the key of a feature file means.
    pub fn meaning(&self, key: &str) -> Meaning {
        self.names.meaning(key)
    }

    /// Name of a video of the plan.
    pub fn name(&self, video: VideoId) -> Option<&Arc<str>> {
        self.by_id
            .get(&video)
            .map(|&position| &self.videos[position].name)
    }
}

fn choose(annotations: &Annotations, splits: &[Split]) -> (Vec<Video>, Vec<Option<usize>>) {
    let mut videos = Vec::new();
    let mut chosen = Vec::with_capacity(annotations.videos.len());
    for video in &annotations.videos {
        chosen.push(splits.contains(&video.split).then_some(videos.len()));
        if splits.contains(&video.split) {
            videos.push(Video {
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

fn index(videos: &[Video]) -> Result<BTreeMap<VideoId, usize>, LabelError> {
    let mut by_id = BTreeMap::new();
    for (position, video) in videos.iter().enumerate() {
        if let Some(other) = by_id.insert(video.id, position) {
            let other: &Video = &videos[other];
            return Err(LabelError::Collision {
                first: other.name.to_string(),
                second: video.name.to_string(),
            });
        }
    }
    Ok(by_id)
}

/// Shards of an input, each with the hash of all that its scores depend on; `videos` is that of the weak labels.
pub fn planned(input: FeatureInput, world: &World, videos: &str) -> Vec<PlannedShard> {
    let modality = input.modality;
    let rule = world.settings.of(modality).rule;
    let prompts = world.prompts_hash(modality);
    let key = |shard: &Shard| {
        hash(|sum| {
            let fingerprint = shard.fingerprint();
            feed(
                sum,
                [modality.as_str(), &fingerprint, &prompts, videos, rule.name()],
            );
            sum.update(rule.scale().to_bits().to_le_bytes());
        })
    };
    let planned = input.shards.into_iter().map(|shard| PlannedShard {
        key: key(&shard),
        shard,
        modality,
    });
    planned.collect()
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
pub fn weak_hash(classes: &[Arc<str>], videos: &[Video]) -> String {
    let mut sources: BTreeMap<&str, PathBuf> = BTreeMap::new();
    for video in videos {
        let spelled = || one_spelling(Path::new(&*video.source));
        sources.entry(&video.source).or_insert_with(spelled);
    }
    hash(|sum| {
        for class in classes {
            feed(sum, [&**class]);
        }
        for video in videos {
            let source = sources[&*video.source].to_string_lossy();
            feed(sum, [&*video.name, video.split.as_str(), &source]);
            for class in video.weak.iter() {
                sum.update(class.0.to_le_bytes());
            }
        }
    })
}

pub(crate) fn hash(fill: impl FnOnce(&mut Sha256)) -> String {
    let mut sum = Sha256::new();
    fill(&mut sum);
    sum.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Each with its length, so that no two lists of texts feed the same bytes.
pub(crate) fn feed<'a>(sum: &mut Sha256, texts: impl IntoIterator<Item = &'a str>) {
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
