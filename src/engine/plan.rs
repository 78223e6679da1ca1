//! Inputs of a labelling run: videos, prompts and feature shards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::Digest;
use vaplan_dataflows::VideoId;
use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_dataflows::similarity::PromptPair;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectRow, Split, TruthRow};

use super::unknown::UnknownVideos;
use crate::error::LabelError;
use crate::ingest::annotations::AnnotatedVideos;
use crate::ingest::features::{FeatureInput, Shard};
use crate::ingest::seen::{SeenInputs, one_spelling};
use crate::world::hash::{feed, hash};
use crate::world::{Active, Both, Meaning, VideoSet, World};

/// Inputs of a labelling run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Classes, rules, thresholds, prompts and the other settings.
    pub world: World,
    /// Videos to label, and all others whose names are known.
    pub videos: VideoSet,
    /// Dense truth of these videos.
    pub truth: Vec<TruthRow>,
    /// Rejected rows and notes of the annotations.
    pub rejects: Vec<RejectRow>,
    /// Prompts of both modalities, scaled to unit length.
    pub prompts: Arc<PromptPair>,
    /// Shards of both modalities.
    pub shards: Vec<PlannedShard>,
    /// SHA-256 of all inputs that the labels depend on, in hex.
    pub inputs: String,
    /// Denoising rules, and the epochs whose predictions count; `None` takes both from the version before.
    pub denoised: Option<DenoisingState>,
    /// Features in npy files that belong to no annotated video. Their files are not read.
    pub unknown: UnknownVideos,
    /// The files of the shards, and which of them are the same as in earlier commands.
    pub(crate) seen: Arc<SeenInputs>,
}

/// The denoising rule of each modality, and the epochs whose predictions count.
pub type DenoisingState = (Both<Option<DenoisingRule>>, Option<Active>);

/// A feature shard and the keys of its scores.
#[derive(Clone, Debug)]
pub struct PlannedShard {
    /// The shard.
    pub shard: Shard,
    /// Modality of the features.
    pub modality: Modality,
    /// SHA-256 of all inputs that the scores of the shard depend on, in hex. The hash is the same on every machine.
    pub inputs: String,
    /// SHA-256 of `inputs`, of this program's version and of the vector instructions of this processor, in hex. Scores
    /// that are staged under this key are equal, to the last bit, to the scores that this process would compute.
    pub key: String,
}

impl Plan {
    /// Makes a plan that labels all videos of a store, without shards, dense truth and rejected rows.
    ///
    /// # Errors
    /// Returns [`LabelError::Collision`] if two video names have the same hash, and [`LabelError::Change`] if a prompt
    /// is all zero or has a value that is NaN or infinite.
    pub fn of_store(world: &World, videos: AnnotatedVideos) -> Result<Plan, LabelError> {
        let prompts = world
            .prompt_pair()
            .map_err(|(modality, problem)| LabelError::Change(format!("{modality} prompts: {problem}")))?;
        Ok(Plan {
            videos: VideoSet::new(videos, &Split::ALL)?,
            world: world.clone(),
            truth: Vec::new(),
            rejects: Vec::new(),
            prompts: Arc::new(prompts),
            shards: Vec::new(),
            inputs: String::new(),
            denoised: None,
            unknown: UnknownVideos::default(),
            seen: Arc::default(),
        })
    }

    /// Returns the SHA-256 of all that the labels of a run depend on, in hex. Processes that label together compare it.
    pub fn hash(&self) -> String {
        hash(|sum| {
            let world = &self.world;
            let weak = weak_hash(&world.classes, &self.videos);
            let denoised = format!("{:?}", (&world.denoising, &world.active));
            feed(
                sum,
                [
                    &*weak,
                    &world.settings_hash(),
                    &world.models_hash(),
                    &world.segment_seconds.to_string(),
                    &denoised,
                ],
            );
            feed(sum, self.shards.iter().map(|shard| &*shard.inputs));
        })
    }

    /// Returns which video a key of a feature file stands for.
    pub fn meaning(&self, key: &str) -> Meaning {
        self.videos.meaning(key)
    }

    /// Returns the name of a video; `None` if the plan does not label the video.
    pub fn name(&self, video: VideoId) -> Option<&str> {
        self.videos.get(video).map(|video| video.name)
    }
}

/// Adds to each shard of an input the hash of all inputs that its scores depend on, and its staging key. `videos` is
/// the hash of the weak labels (see [`weak_hash`]), and `seen` tells which files are the same as before.
pub(crate) fn planned(
    input: FeatureInput,
    world: &World,
    videos: &str,
    seen: &mut SeenInputs,
) -> Vec<PlannedShard> {
    let modality = input.modality;
    let rule = world.settings.of(modality).rule;
    let prompts = world.prompts_hash(modality);
    seen.look_at(input.shards.iter().flat_map(Shard::files));
    let mut inputs = |shard: &Shard| {
        let fingerprint = shard.fingerprint_as(seen);
        hash(|sum| {
            feed(
                sum,
                [modality.as_str(), &fingerprint, &prompts, videos, rule.name()],
            );
            sum.update(rule.scale().to_bits().to_le_bytes());
            // Features of videos without a weak label are then scored for all classes.
            if world.guesses(&[]) {
                feed(sum, ["candidates"]);
            }
        })
    };
    let machine = vectors();
    let planned = input.shards.into_iter().map(|shard| {
        let inputs = inputs(&shard);
        PlannedShard {
            key: staging_key(&inputs, env!("CARGO_PKG_VERSION"), &machine),
            inputs,
            shard,
            modality,
        }
    });
    planned.collect()
}

/// Layout version of staged shards. Raise it with each change of `StagedShard` that the reader would not detect;
/// otherwise a run would read old staged scores wrongly.
const STAGED: &str = "4";

/// The key under which the scores of a shard are staged. Scores of another program version, or of a processor with other
/// vector instructions, are scored again, because they can differ in the last bits.
fn staging_key(inputs: &str, program: &str, vectors: &str) -> String {
    hash(|sum| feed(sum, [inputs, program, STAGED, vectors]))
}

/// Names the vector instructions that `matrixmultiply` and the kernels of this program choose from at run time. Scores
/// can differ in the last bits between processors with different vector instructions.
fn vectors() -> String {
    let mut found = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("avx", std::arch::is_x86_feature_detected!("avx")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
        ];
        found.extend(known.iter().filter(|(_, there)| *there).map(|(name, _)| name));
    }
    found.join(" ")
}

/// SHA-256 of the classes and of the name, split, source and weak label of every video, in hex.
pub fn weak_hash(classes: &[Arc<str>], videos: &VideoSet) -> String {
    let mut sources: BTreeMap<&str, PathBuf> = BTreeMap::new();
    for video in videos.iter() {
        let spelled = || one_spelling(Path::new(&**video.source));
        sources.entry(video.source).or_insert_with(spelled);
    }
    hash(|sum| {
        for class in classes {
            feed(sum, [&**class]);
        }
        for video in videos.iter() {
            let source = sources[&**video.source].to_string_lossy();
            feed(sum, [video.name, video.split.as_str(), &source]);
            for class in video.weak.iter() {
                sum.update(class.0.to_le_bytes());
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_other_inputs_programs_and_processors_are_staged_under_other_keys() {
        let machine = vectors();
        let own = staging_key("inputs", "0.1.0", &machine);
        assert_eq!(own, staging_key("inputs", "0.1.0", &machine));
        for other in [
            staging_key("others", "0.1.0", &machine),
            staging_key("inputs", "0.1.1", &machine),
            staging_key("inputs", "0.1.0", &format!("{machine} avx1024")),
        ] {
            assert_ne!(own, other);
        }
        assert!(machine.starts_with(std::env::consts::ARCH), "{machine}");
    }
}
