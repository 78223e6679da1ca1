//! The inputs of a store after each run, computed directly from the changes, and the files of the changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vaplan::CandidateRule;
use vaplan::ingest::annotations::key11;
use vaplan::world::Both;
use vaplan::world::settings::RuleName;
use vaplan_dataflows::DenoisingRule;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::files::{Content, WIDTH, numbers, write_npy, write_parquet};
use super::script::{CLASSES, SHARDS, VIDEOS};

/// Classes that there may be, by name.
pub(crate) const NAMES: [&str; CLASSES] = ["Bark", "Bell", "Horn", "Saw", "Song"];

/// Full name: every third has the key of the one before.
pub(crate) fn name(nth: usize) -> String {
    match nth {
        0 => "anchor00000_0_10".to_owned(),
        _ if nth.is_multiple_of(3) => format!("vid{:08}_10_20", nth - 1),
        _ => format!("vid{nth:08}_0_10"),
    }
}

/// Name of its features.
pub(crate) fn key(nth: usize, full: bool) -> String {
    let name = name(nth);
    if full { name } else { key11(&name).to_owned() }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weak {
    pub(crate) classes: BTreeSet<String>,
    pub(crate) split: Split,
}

/// What `--to-version` brings back, and the classes it is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settled {
    pub(crate) classes: Vec<String>,
    pub(crate) rule: RuleName,
    pub(crate) scale: Both<f64>,
    pub(crate) thresholds: Both<BTreeMap<String, f64>>,
    pub(crate) prompts: Both<BTreeMap<String, Vec<f32>>>,
    pub(crate) denoising: Both<Option<DenoisingRule>>,
    pub(crate) candidates: CandidateRule,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ActiveEpochs {
    pub(crate) epochs: BTreeSet<u64>,
    pub(crate) classes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EpochPredictionInput {
    pub(crate) classes: Vec<String>,
    pub(crate) tracks: BTreeMap<(String, Modality), Vec<f32>>,
}

pub(crate) type SegmentKey = (String, Modality, String, u32);
pub(crate) type Event = (String, Modality, String, u32, u32);

/// All but the features, which are the files.
#[derive(Clone, Debug)]
pub(crate) struct StoreInputs {
    pub(crate) folder: PathBuf,
    pub(crate) now: Settled,
    pub(crate) videos: BTreeMap<String, Weak>,
    pub(crate) features: Both<Vec<PathBuf>>,
    pub(crate) marks: BTreeMap<SegmentKey, bool>,
    /// By epoch: its classes, and `[T, C]` of each video and modality.
    pub(crate) predictions: BTreeMap<u64, EpochPredictionInput>,
    pub(crate) active: Option<ActiveEpochs>,
    pub(crate) truth: BTreeSet<Event>,
    /// By store version.
    pub(crate) history: BTreeMap<u64, Settled>,
}

impl StoreInputs {
    /// Inputs of ten videos, with their feature files, in a folder.
    pub(crate) fn first(folder: &Path) -> StoreInputs {
        let classes: Vec<String> = NAMES[..4].iter().map(|&name| name.to_owned()).collect();
        let thresholds = |value: f64| classes.iter().map(|class| (class.clone(), value)).collect();
        let prompts = |modality| {
            let of = |class: &String| (class.clone(), prompt_of(modality, class, 0, WIDTH));
            classes.iter().map(of).collect()
        };
        let mut inputs = StoreInputs {
            folder: folder.to_owned(),
            now: Settled {
                rule: RuleName::Softmax,
                scale: [1.0; 2],
                thresholds: [thresholds(0.95), thresholds(1.025)],
                prompts: Modality::ALL.map(prompts),
                denoising: [None; 2],
                candidates: CandidateRule::Weak,
                classes,
            },
            videos: BTreeMap::new(),
            features: [vec![folder.join("audio")], vec![folder.join("visual")]],
            marks: BTreeMap::new(),
            predictions: BTreeMap::new(),
            active: None,
            truth: BTreeSet::new(),
            history: BTreeMap::new(),
        };
        for modality in ["audio", "visual"] {
            std::fs::create_dir_all(folder.join(modality)).unwrap();
        }
        let mut shards: Vec<Vec<_>> = vec![Vec::new(); SHARDS];
        for nth in 0..VIDEOS - 4 {
            let weak = Weak {
                classes: (0..1 + nth % 2)
                    .map(|more| NAMES[(nth + more) % 4].to_owned())
                    .collect(),
                split: [Split::Train, Split::Train, Split::Val, Split::Test][nth % 4],
            };
            if weak.split != Split::Train {
                for class in &weak.classes {
                    let event = (name(nth), Modality::ALL[nth % 2], class.clone(), 1, 3);
                    inputs.truth.insert(event);
                }
            }
            inputs.videos.insert(name(nth), weak);
            let segments = if nth == 7 { 9 } else { 4 };
            let content = Content::Good {
                seed: nth as u8,
                segments,
            };
            // Where two share a key, full names tell.
            let key = key(nth, nth % 3 != 1);
            write_npy(&inputs.npy(&key), &content.rows(key.clone(), Modality::Audio));
            shards[nth % SHARDS].push(content.rows(key, Modality::Visual));
        }
        for (nth, videos) in shards.iter().enumerate() {
            write_parquet(&inputs.shard(nth), "feature", videos);
        }
        // What is never removed: neither folder is ever empty.
        let content = Content::Good { seed: 0, segments: 4 };
        write_npy(
            &inputs.npy("nobody"),
            &content.rows("nobody".to_owned(), Modality::Audio),
        );
        let anchor = [content.rows(name(0), Modality::Visual)];
        write_parquet(&folder.join("visual/z.parquet"), "feature", &anchor);
        inputs
    }

    pub(crate) fn npy(&self, key: &str) -> PathBuf {
        self.folder.join(format!("audio/{key}.npy"))
    }

    pub(crate) fn shard(&self, nth: usize) -> PathBuf {
        self.folder.join(format!("visual/{nth}.parquet"))
    }

    pub(crate) fn both(&self) -> PathBuf {
        self.folder.join("both.parquet")
    }

    /// Position of a class.
    pub(crate) fn has(&self, class: &str) -> bool {
        self.now.classes.iter().any(|known| known == class)
    }

    /// Which video a key means: a full name, or the beginning of one name only.
    pub(crate) fn meaning(&self, key: &str) -> Option<String> {
        if self.videos.contains_key(key) {
            return Some(key.to_owned());
        }
        let mut begin = self.videos.keys().filter(|name| key11(name) == key);
        let first = begin.next()?;
        begin.next().is_none().then(|| first.clone())
    }

    /// Predictions of an epoch, in the order of the present classes. Every one of these classes must have predictions.
    pub(crate) fn predicted(&self, epoch: u64) -> Vec<(String, Modality, Vec<f32>)> {
        let Some(active) = &self.active else {
            return Vec::new();
        };
        let columns: Vec<usize> = self
            .now
            .classes
            .iter()
            .map(|class| active.classes.iter().position(|known| known == class).unwrap())
            .collect();
        let own = self
            .predictions
            .get(&epoch)
            .into_iter()
            .flat_map(|own| &own.tracks);
        own.map(|((video, modality), values)| {
            let rows = values.chunks(active.classes.len());
            let values = rows.flat_map(|row| columns.iter().map(|&column| row[column]));
            (video.clone(), *modality, values.collect())
        })
        .collect()
    }

    /// Writes the annotations, text embeddings and thresholds that say what is so now.
    pub(crate) fn write(&self) {
        let folder = self.folder.join("annotations");
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        write("classes.txt", self.now.classes.join("\n") + "\n");
        for (split, file) in [
            (Split::Train, "law_train.csv"),
            (Split::Val, "law_val_pd.csv"),
            (Split::Test, "law_test_pd.csv"),
        ] {
            // A row that is never right, and whose reject nothing takes away.
            let mut text = "filename\tevent_labels\ntoo\tmany\tfields\n".to_owned();
            for (name, weak) in self.videos.iter().filter(|(_, weak)| weak.split == split) {
                let classes: Vec<&str> = weak.classes.iter().map(String::as_str).collect();
                text += &format!("{name}\t{}\n", classes.join(","));
            }
            write(file, text);
        }
        for modality in Modality::ALL {
            let mut text = "filename\tonset\toffset\tevent_labels\n".to_owned();
            for (video, of, class, onset, offset) in &self.truth {
                if *of == modality {
                    text += &format!("{video}\t{onset}\t{offset}\t{class}\n");
                }
            }
            write(&format!("law_eval_{modality}.csv"), text);
            self.write_texts(&self.text(modality), modality);
        }
        std::fs::write(self.folder.join("settings.toml"), self.toml()).unwrap();
    }

    pub(crate) fn text(&self, modality: Modality) -> PathBuf {
        self.folder.join(format!("{modality}_text.npy"))
    }

    pub(crate) fn write_texts(&self, path: &Path, modality: Modality) {
        let prompts = &self.now.prompts[modality.index()];
        let rows: Vec<&Vec<f32>> = self.now.classes.iter().map(|class| &prompts[class]).collect();
        let values: Vec<f32> = rows.iter().flat_map(|row| row.iter().copied()).collect();
        vaplan::ingest::npy::write_f32(path, &[rows.len(), rows[0].len()], &values).unwrap();
    }

    fn toml(&self) -> String {
        let rule = match self.now.rule {
            RuleName::Softmax => "softmax",
            RuleName::Logit => "logit",
        };
        let mut text = format!("rule = \"{rule}\"\n");
        for modality in Modality::ALL {
            let scale = self.now.scale[modality.index()];
            text += &format!("[{modality}]\nscale = {scale:?}\n[{modality}.classes]\n");
            for class in &self.now.classes {
                text += &format!("{class} = {:?}\n", self.now.thresholds[modality.index()][class]);
            }
        }
        text
    }
}

/// Text embedding of a class by a seed.
pub(crate) fn prompt_of(modality: Modality, class: &str, seed: u8, width: usize) -> Vec<f32> {
    let nth = NAMES.iter().position(|name| *name == class).unwrap();
    numbers(
        1000 + 100 * modality.index() as u64 + 10 * nth as u64 + 1000 * u64::from(seed),
        width,
    )
}
