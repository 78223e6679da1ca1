//! Inputs of a labelling run: videos, prompts and feature shards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::Digest;
use vaplan_dataflows::VideoId;
use vaplan_dataflows::pld::Pld;
use vaplan_dataflows::similarity::PromptPair;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectRow, TruthRow};

use crate::error::LabelError;
use crate::ingest::features::{FeatureInput, Shard};
use crate::ingest::seen::one_spelling;
use crate::world::hash::{feed, hash};
use crate::world::{Active, Both, Meaning, Names, Video, World};

/// Inputs of a labelling run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Classes, rule, thresholds, prompts.
    pub world: World,
    /// Videos to label, in the order of the annotations.
    pub videos: Vec<Video>,
    /// Position in `videos`.
    pub by_id: BTreeMap<VideoId, usize>,
    /// Dense events of these videos.
    pub truth: Vec<TruthRow>,
    /// Odd and bad rows of the annotations.
    pub rejects: Vec<RejectRow>,
    /// PromptEmbeddings of both modalities, of unit length.
    pub prompts: Arc<PromptPair>,
    /// Shards of both modalities.
    pub shards: Vec<PlannedShard>,
    /// SHA-256 of all inputs that the labels depend on, hex.
    pub inputs: String,
    /// Settings and predictions of PLD; none: those of the version before.
    pub denoised: Option<Denoised>,
    pub(crate) names: Names,
}

/// Settings of PLD, and the predictions that count.
pub type Denoised = (Both<Option<Pld>>, Option<Active>);

/// A feature shard and the keys of its scores.
#[derive(Clone, Debug)]
pub struct PlannedShard {
    /// The shard.
    pub shard: Shard,
    /// Modality of the features.
    pub modality: Modality,
    /// SHA-256 of all inputs that its scores depend on, hex: the same on every machine.
    pub inputs: String,
    /// SHA-256 of `inputs`, of this program and of the vector instructions of this processor, hex: scores that are staged
    /// under it are those that this process would compute, to the last bit.
    pub key: String,
}

impl Plan {
    /// The plan for the videos of a store, without shards, dense events and rejected rows.
    ///
    /// # Errors
    /// [`LabelError::Collision`] for two names with one hash, [`LabelError::Change`] for prompts of zeros, NaN or infinity.
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

    /// The meaning of the key of a feature file.
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

pub(crate) fn index(videos: &[Video]) -> Result<BTreeMap<VideoId, usize>, LabelError> {
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

/// Shards of an input, each with the hashes of all that its scores depend on; `videos` is the hash of the weak labels.
pub fn planned(input: FeatureInput, world: &World, videos: &str) -> Vec<PlannedShard> {
    let modality = input.modality;
    let rule = world.settings.of(modality).rule;
    let prompts = world.prompts_hash(modality);
    let inputs = |shard: &Shard| {
        hash(|sum| {
            let fingerprint = shard.fingerprint();
            feed(
                sum,
                [modality.as_str(), &fingerprint, &prompts, videos, rule.name()],
            );
            sum.update(rule.scale().to_bits().to_le_bytes());
        })
    };
    let planned = input.shards.into_iter().map(|shard| {
        let inputs = inputs(&shard);
        PlannedShard {
            key: staged(&inputs),
            inputs,
            shard,
            modality,
        }
    });
    planned.collect()
}

/// Layout of staged shards: to be raised with any change of `StagedShard` that its reader cannot tell.
const STAGED: &str = "2";

/// The key under which the scores of a shard are staged.
fn staged(inputs: &str) -> String {
    hash(|sum| feed(sum, [inputs, env!("CARGO_PKG_VERSION"), STAGED, &vectors()]))
}

/// The vector instructions that `matrixmultiply` and the compiler's own kernels choose from at run time.
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

/// SHA-256 of the classes and of every video's name, split, source and weak label, hex.
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
