//! Writes the files of a simulation.
//!
//! ```text
//! synth.json            options of the run; marks a simulated folder, which `synth` may overwrite
//! visual/  audio/       <id>.npy (T,D) per video, or <modality>-00000.parquet, ... shards
//! visual_text.npy  audio_text.npy     (C,D)
//! parser/audio/  parser/frames/  parser/clips/     the same forms, for the parser
//! truth/                annotation folder with the simulated tracks of every video as dense truth, also for train; not for AVE
//! annotations/          annotation folder of the simulated videos, if they differ from those of the input
//! ```

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Serialize;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow, Split};

use super::SynthError;
use super::encoders::{SimulatedEncoder, SynthPreset};
use super::space::EmbeddingSpace;
use super::tracks::{SimulatedTracks, SimulatedTruth};
use super::videos::{SimulatedVideo, choose_videos};
use crate::ingest::annotations::{Annotations, key11};
use crate::ingest::npy::{write_f16, write_f32};
use crate::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};

/// Name of the file that marks a folder as written by `synth`.
pub const MARKER: &str = "synth.json";

/// Version of the generator. The same version, annotations, options and seed give the same bytes. A change of the
/// model or of its constants needs a new version, because scores before and after it cannot be compared.
pub const GENERATOR: u32 = 3;

/// Number of videos that a thread takes at a time, if each video has its own file.
const PIECE: usize = 128;

/// File format of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SynthLayout {
    /// One `<id>.npy` per video. The id is the first 11 characters of the name of the video.
    Npy,
    /// Parquet shards, with features as fixed-size binary.
    Packed {
        /// Number of videos per shard.
        shard_videos: usize,
    },
    /// Parquet shards, with features as fixed-size lists.
    List {
        /// Number of videos per shard.
        shard_videos: usize,
    },
}

/// Options of a simulation.
#[derive(Clone, Debug)]
pub struct SynthOptions {
    /// Output folder. It must be new, empty, or written by an earlier [`run`].
    pub out: PathBuf,
    /// Number of videos to simulate, spread evenly over the list. `None` simulates all videos.
    pub videos: Option<usize>,
    /// How many times each video is simulated; at least 1.
    pub repeat: u32,
    /// Width D of the features; at least [`LEAST_WIDTH`](super::space::LEAST_WIDTH).
    pub width: usize,
    /// Number T of segments of each video; at least 1.
    pub segments: u32,
    /// Seed of all random numbers.
    pub seed: u64,
    /// How hard the features are.
    pub preset: SynthPreset,
    /// Whether features for the parser are written beside those for labelling.
    pub parser: bool,
    /// File format of the features.
    pub layout: SynthLayout,
    /// Type of the values of the features.
    pub float: FloatType,
    /// Number of threads; at least 1.
    pub threads: usize,
}

impl SynthOptions {
    /// Encoders whose features are written: those of labelling first.
    fn encoders(&self) -> impl Iterator<Item = SimulatedEncoder> + use<> {
        let parser = if self.parser {
            &SimulatedEncoder::PARSER[..]
        } else {
            &[]
        };
        SimulatedEncoder::LABEL.into_iter().chain(parser.iter().copied())
    }
}

/// Summary of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct SynthSummary {
    /// Number of videos that were written.
    pub videos: usize,
    /// Number of these videos whose tracks come from dense truth. The tracks of the others were sampled.
    pub dense: usize,
    /// Number of feature files.
    pub files: usize,
    /// Folder of annotations of the simulated videos. `None` if the input annotations fit.
    pub annotations: Option<PathBuf>,
    /// Folder with all simulated events as dense truth. `None` for preset `ave`.
    pub truth: Option<PathBuf>,
    /// Videos that were left out.
    pub rejects: Vec<RejectRow>,
}

/// Simulates features for `annotations`.
///
/// After each piece of work, `done` is called with the number of features written by it and the total number. Each
/// video has one feature per encoder.
///
/// # Errors
/// Returns [`SynthError`] if the videos cannot be chosen or a file cannot be written. Files that were already written
/// stay.
pub fn run(
    annotations: &Annotations,
    options: &SynthOptions,
    done: &(dyn Fn(usize, usize) + Sync),
) -> Result<SynthSummary, SynthError> {
    let members = choose_videos(annotations, options.videos, options.repeat)?;
    let (members, rejects) = nameable(annotations, members, options.layout);
    if members.is_empty() {
        return Err(SynthError::NoVideos);
    }
    prepare(options)?;
    let truth = SimulatedTruth::new(annotations, options.segments, options.seed);
    let spaces: Vec<EmbeddingSpace> = options
        .encoders()
        .map(|encoder| {
            let (width, kind) = (encoder.width(options.width), (encoder, options.preset));
            EmbeddingSpace::new(kind, &annotations.classes, width, options.seed)
        })
        .collect();
    for space in &spaces[..SimulatedEncoder::LABEL.len()] {
        let path = options
            .out
            .join(format!("{}_text.npy", space.encoder().modality()));
        replace(&path, |path| {
            write_f32(path, &[annotations.classes.len(), options.width], &space.text())
        })?;
    }
    let files = write_features(&members, &truth, &spaces, options, done)?;

    let dense = options.out.join("truth");
    // LLP's format separates classes by commas, which names of AVE's categories contain.
    let has_truth = options.preset != SynthPreset::Ave;
    if has_truth {
        write_annotations(&dense, annotations, &members, &|member| {
            truth.tracks(member.of, &member.name)
        })?;
    }
    let subset = members.len() != annotations.videos.len() || options.repeat > 1;
    let folder = options.out.join("annotations");
    if subset {
        write_annotations(&folder, annotations, &members, &|member| {
            let dense = truth.is_dense(member.of);
            if dense {
                truth.tracks(member.of, &member.name)
            } else {
                SimulatedTracks::new()
            }
        })?;
    }
    mark(options, true)?;
    Ok(SynthSummary {
        videos: members.len(),
        dense: members.iter().filter(|member| truth.is_dense(member.of)).count(),
        files,
        annotations: subset.then_some(folder),
        truth: has_truth.then_some(dense),
        rejects,
    })
}

/// Separates the videos whose key can be the name of a file from those whose key cannot. Only layout `Npy` needs
/// this.
fn nameable(
    annotations: &Annotations,
    members: Vec<SimulatedVideo>,
    layout: SynthLayout,
) -> (Vec<SimulatedVideo>, Vec<RejectRow>) {
    if layout != SynthLayout::Npy {
        return (members, Vec::new());
    }
    let mut keys = std::collections::BTreeSet::new();
    let mut rejects = Vec::new();
    let fine = members.into_iter().filter(|member| {
        let key = key11(&member.name);
        let reason = if key.contains(['/', '\\', '\0']) || key.starts_with('.') || key.is_empty() {
            format!(
                "key `{}` is no file name, expected one; --parquet takes any",
                key.escape_debug()
            )
        } else if !keys.insert(key.to_owned()) {
            format!(
                "key `{key}` is that of an earlier video too, expected one video a key; --parquet takes any"
            )
        } else {
            return true;
        };
        let file = &**annotations.videos.get(member.of).source;
        rejects.push(RejectRow::reject(RejectKind::FileName, file, reason).video(&*member.name));
        false
    });
    let fine = fine.collect();
    (fine, rejects)
}

/// Prepares the output folder: marks it as incomplete, and removes the folders of an earlier simulation.
fn prepare(options: &SynthOptions) -> Result<(), SynthError> {
    let out = &options.out;
    fs::create_dir_all(out).map_err(SynthError::io("create", out))?;
    let mut entries = fs::read_dir(out).map_err(SynthError::io("list", out))?;
    if entries.next().is_some() && !out.join(MARKER).is_file() {
        return Err(SynthError::NotOurs { path: out.clone() });
    }
    mark(options, false)?;
    for name in ["visual", "audio", "parser", "truth", "annotations"] {
        let folder = out.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(SynthError::io("remove", &folder))?;
        }
    }
    for encoder in options.encoders() {
        let folder = out.join(encoder.folder());
        fs::create_dir_all(&folder).map_err(SynthError::io("create", &folder))?;
    }
    Ok(())
}

fn mark(options: &SynthOptions, complete: bool) -> Result<(), SynthError> {
    let text = serde_json::json!({
        "simulated": true,
        "complete": complete,
        "program": concat!("vaplan ", env!("CARGO_PKG_VERSION")),
        "generator": GENERATOR,
        "preset": options.preset,
        "parser": options.parser,
        "seed": options.seed,
        "dim": options.width,
        "segments": options.segments,
        "videos": options.videos,
        "repeat": options.repeat,
        "layout": options.layout,
        "dtype": options.float.as_str(),
    });
    replace(&options.out.join(MARKER), |path| {
        fs::write(path, format!("{text:#}\n")).map_err(SynthError::io("write", path))
    })
}

/// Writes a temporary file next to `path` and renames it to `path`, so that a reader never sees a partial file.
fn replace<E: Into<SynthError>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), SynthError> {
    let name = path.file_name().expect("a file has a name").to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    write(&partial).map_err(Into::into)?;
    fs::rename(&partial, path).map_err(SynthError::io("rename", &partial))
}

/// Writes all features. Returns the number of files.
fn write_features(
    members: &[SimulatedVideo],
    truth: &SimulatedTruth<'_>,
    spaces: &[EmbeddingSpace],
    options: &SynthOptions,
    done: &(dyn Fn(usize, usize) + Sync),
) -> Result<usize, SynthError> {
    let piece = match options.layout {
        SynthLayout::Npy => PIECE,
        SynthLayout::Packed { shard_videos } | SynthLayout::List { shard_videos } => shard_videos,
    };
    let pieces: Vec<(usize, &[SimulatedVideo])> = members.chunks(piece).enumerate().collect();
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure: Mutex<Option<SynthError>> = Mutex::new(None);
    let total = members.len() * spaces.len();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let item = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(number, members)) = pieces.get(item / spaces.len()) else {
                break;
            };
            let piece = WorkPiece {
                number,
                members,
                space: &spaces[item % spaces.len()],
            };
            if let Err(error) = piece.write(truth, options) {
                stop.store(true, Ordering::Relaxed);
                failure.lock().expect("no holder panics").get_or_insert(error);
                break;
            }
            done(members.len(), total);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().expect("no holder panicked") {
        Some(error) => Err(error),
        None if options.layout == SynthLayout::Npy => Ok(total),
        None => Ok(pieces.len() * spaces.len()),
    }
}

/// The videos of one shard, or several videos with their own files.
struct WorkPiece<'a> {
    number: usize,
    members: &'a [SimulatedVideo],
    space: &'a EmbeddingSpace,
}

impl WorkPiece<'_> {
    fn write(&self, truth: &SimulatedTruth<'_>, options: &SynthOptions) -> Result<(), SynthError> {
        let encoder = self.space.encoder();
        let folder = options.out.join(encoder.folder());
        let layout = match options.layout {
            SynthLayout::Npy => return self.write_npy(&folder, truth, options),
            SynthLayout::Packed { .. } => FeatureLayout::Packed,
            SynthLayout::List { .. } => FeatureLayout::List,
        };
        let format = ShardFormat {
            modality: encoder.modality(),
            width: self.space.width(),
            float: options.float,
            layout,
            model: None,
        };
        replace(
            &folder.join(format!("{}-{:05}.parquet", encoder.modality(), self.number)),
            |path| {
                let mut shard = ShardWriter::create(path, format)?;
                for member in self.members {
                    shard.append(&member.name, &self.features(member, truth, options))?;
                }
                shard.finish()?;
                Ok::<(), SynthError>(())
            },
        )
    }

    fn write_npy(
        &self,
        folder: &Path,
        truth: &SimulatedTruth<'_>,
        options: &SynthOptions,
    ) -> Result<(), SynthError> {
        let shape = [options.segments as usize, self.space.width()];
        for member in self.members {
            let features = self.features(member, truth, options);
            replace(
                &folder.join(format!("{}.npy", key11(&member.name))),
                |path| match options.float {
                    FloatType::F16 => write_f16(path, &shape, &features),
                    FloatType::F32 => write_f32(path, &shape, &features),
                },
            )?;
        }
        Ok(())
    }

    fn features(
        &self,
        member: &SimulatedVideo,
        truth: &SimulatedTruth<'_>,
        options: &SynthOptions,
    ) -> Vec<f32> {
        let tracks = truth.tracks(member.of, &member.name);
        self.space.features(&member.name, &tracks, options.segments)
    }
}

/// Writes an annotation folder in LLP's format for these videos, with these tracks as dense truth.
fn write_annotations(
    folder: &Path,
    annotations: &Annotations,
    members: &[SimulatedVideo],
    tracks: &dyn Fn(&SimulatedVideo) -> SimulatedTracks,
) -> Result<(), SynthError> {
    fs::create_dir_all(folder).map_err(SynthError::io("create", folder))?;
    let class = |class: vaplan_schemas::ClassId| &*annotations.classes[class.index()];
    let file = |name: &str, text: &str| {
        replace(&folder.join(name), |path| {
            let write = || fs::File::create(path)?.write_all(text.as_bytes());
            write().map_err(SynthError::io("write", path))
        })
    };
    file("classes.txt", &(annotations.classes.join("\n") + "\n"))?;
    let splits = [
        (Split::Train, "train"),
        (Split::Val, "val_pd"),
        (Split::Test, "test_pd"),
    ];
    for (split, name) in splits {
        let mut text = String::from("filename\tevent_labels\n");
        let head = text.len();
        for member in members {
            let video = annotations.videos.get(member.of);
            if video.split == split {
                let labels: Vec<&str> = video.weak.iter().map(|&id| class(id)).collect();
                text.push_str(&format!("{}\t{}\n", member.name, labels.join(",")));
            }
        }
        if text.len() > head {
            file(&format!("AVVP_{name}.csv"), &text)?;
        }
    }
    let mut dense = Modality::ALL.map(|_| String::from("filename\tonset\toffset\tevent_labels\n"));
    for member in members {
        for ((modality, id), track) in tracks(member) {
            for (onset, offset) in runs(&track) {
                let line = format!("{}\t{onset}\t{offset}\t{}\n", member.name, class(id));
                dense[modality as usize].push_str(&line);
            }
        }
    }
    for (text, modality) in dense.iter().zip(Modality::ALL) {
        file(&format!("AVVP_eval_{modality}.csv"), text)?;
    }
    Ok(())
}

/// Maximal runs of true, each as its first segment and the first segment after it.
fn runs(track: &[bool]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for segment in (0..track.len()).filter(|&segment| track[segment]) {
        match runs.last_mut() {
            Some(run) if run.1 == segment => run.1 += 1,
            _ => runs.push((segment, segment + 1)),
        }
    }
    runs
}
