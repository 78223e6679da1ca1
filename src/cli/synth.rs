//! `vaplan synth`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Global;
use super::progress::Bar;
use crate::ingest::annotations::Annotations;
use crate::ingest::shards::FloatType;
use crate::synth::ave::{self, AveVideo};
use crate::synth::encoders::SynthPreset;
use crate::synth::write::{SynthLayout, SynthOptions, run as simulate};

/// Simulate features for an annotation folder; results on them say nothing about real data
///
/// The command writes CLIP-like visual features and CLAP-like audio features of every
/// annotated video, and text embeddings of the classes. It also writes features for the
/// parser, whose noise is independent of the noise of the labels. With these files you can
/// try and time the program without downloads. The videos of a split with dense truth follow
/// that truth. For the other videos, events are drawn from the weak label. Some classes are
/// harder than others, noise lasts over several segments, and some objects are in the
/// picture although their event is only audible. docs/synth.md describes the model, and the
/// published scores that preset llp was fitted to.
///
/// The same annotations, options and seed give the same files for every number of threads.
/// The command writes these files into --out:
///
///   visual/, audio/       features for labelling
///   visual_text.npy,
///   audio_text.npy        text embeddings (C,D)
///   parser/audio, parser/frames,
///   parser/clips          features for the parser (train --audio, --visual, --clips); audio
///                         has at most 128 numbers per segment, the others have D
///   truth/                annotations with all simulated events as dense truth (not with preset
///                         ave)
///   annotations/          with --videos or --repeat: annotations of the simulated videos; with
///                         --preset ave: Annotations.txt, trainSet.txt, valSet.txt, testSet.txt
///   synth.json            states that the files are simulated, and with which options
///
/// A folder that has a synth.json is overwritten. Any other folder must be empty.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan synth --annotations annotations --out features
  vaplan synth --annotations annotations --videos 64 --repeat 625 --parquet --out features
  vaplan synth --preset ave --videos 600 --out ave")]
#[command(verbatim_doc_comment)]
pub(super) struct SynthArgs {
    /// Annotations in LLP's format: *train.csv, *val_pd.csv, *test_pd.csv, *eval_audio.csv, *eval_visual.csv. Preset ave
    /// takes none: it writes annotations of its own
    #[arg(
        long,
        value_name = "DIR",
        env = "VAPLAN_ANNOTATIONS",
        required_unless_present = "preset"
    )]
    annotations: Option<PathBuf>,
    /// Folder to write; it must be empty or have a synth.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of videos to simulate, spread evenly over the annotations [default: all; preset ave: 4143]
    #[arg(long, value_name = "N")]
    videos: Option<NonZeroUsize>,
    /// Number of simulated copies of each video; each copy has a name of its own
    #[arg(long, value_name = "K", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    /// Width D of features and text embeddings, at least 8
    #[arg(long, value_name = "D", default_value = "512", value_parser = clap::value_parser!(u32).range(8..=65_536))]
    dim: u32,
    /// Number of segments T of each video
    #[arg(long, value_name = "T", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    segments: u32,
    /// Seed of the random number generators
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Difficulty of all features; llp was fitted to scores that were published for LLP, and ave makes videos of AVE
    /// [default: llp]
    #[arg(long, value_name = "PRESET")]
    preset: Option<PresetName>,
    /// Write no features for the parser, only those for labelling
    #[arg(long)]
    label_only: bool,
    /// Write Parquet shards instead of one npy file per video and modality
    #[arg(long)]
    parquet: bool,
    /// Number of videos per Parquet shard
    #[arg(long, value_name = "N", default_value = "2000", requires = "parquet")]
    shard_videos: NonZeroUsize,
    /// Form of the feature column in Parquet shards; the form packed is read ten times faster than list
    #[arg(long, value_name = "FORM", default_value = "packed", requires = "parquet")]
    column: ShardColumn,
    /// Number type of the features [default: f32 for npy, f16 for Parquet]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<SynthDtype>,
    /// Number of threads; it does not change the files [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PresetName {
    /// Fitted to published scores of LLP.
    Llp,
    /// Less noise than llp.
    Easy,
    /// More noise than llp.
    Hard,
    /// The label features of llp, and less noise in the features of the parser.
    Clear,
    /// Videos of AVE, one audible and visible event each, with annotations in AVE's format.
    Ave,
}

impl From<PresetName> for SynthPreset {
    fn from(name: PresetName) -> SynthPreset {
        match name {
            PresetName::Llp => SynthPreset::Llp,
            PresetName::Easy => SynthPreset::Easy,
            PresetName::Hard => SynthPreset::Hard,
            PresetName::Clear => SynthPreset::Clear,
            PresetName::Ave => SynthPreset::Ave,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ShardColumn {
    /// One fixed-size binary value per segment.
    Packed,
    /// One fixed-size list of numbers per segment.
    List,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SynthDtype {
    /// 16-bit floats.
    F16,
    /// 32-bit floats.
    F32,
}

impl SynthArgs {
    /// The videos of preset ave; `None` for another preset.
    fn ave(&self) -> anyhow::Result<Option<Vec<AveVideo>>> {
        if self.preset != Some(PresetName::Ave) {
            return Ok(None);
        }
        anyhow::ensure!(
            self.annotations.is_none() && self.repeat == 1,
            "--preset ave is given with {}, expected --preset ave alone: it makes as many videos as --videos asks for, and \
             their annotations",
            if self.repeat == 1 {
                "--annotations"
            } else {
                "--repeat"
            }
        );
        let count = self.videos.map_or(ave::AVE_VIDEOS, NonZeroUsize::get);
        Ok(Some(ave::ave_videos(count, self.segments, self.seed)))
    }

    fn options(&self) -> SynthOptions {
        let shard_videos = self.shard_videos.get();
        let layout = match (self.parquet, self.column) {
            (false, _) => SynthLayout::Npy,
            (true, ShardColumn::Packed) => SynthLayout::Packed { shard_videos },
            (true, ShardColumn::List) => SynthLayout::List { shard_videos },
        };
        let float = match self.dtype {
            Some(SynthDtype::F16) => FloatType::F16,
            Some(SynthDtype::F32) => FloatType::F32,
            None if self.parquet => FloatType::F16,
            None => FloatType::F32,
        };
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        SynthOptions {
            out: self.out.clone(),
            videos: self.videos.map(NonZeroUsize::get),
            repeat: self.repeat,
            width: self.dim as usize,
            segments: self.segments,
            seed: self.seed,
            preset: self.preset.map(SynthPreset::from).unwrap_or_default(),
            parser: !self.label_only,
            layout,
            float,
            threads: self.threads.map_or_else(cores, NonZeroUsize::get),
        }
    }
}

pub(super) fn run(args: &SynthArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let options = args.options();
    let ave = args.ave()?;
    let annotations = match (&ave, &args.annotations) {
        (Some(videos), _) => ave::simulated(videos),
        (None, Some(folder)) => Annotations::read(folder)?,
        (None, None) => anyhow::bail!("--annotations is missing, expected a folder, or --preset ave"),
    };
    let bar = Bar::new("simulating", "features of a video", global);
    let summary = simulate(&annotations, &options, &|added, total| {
        bar.total(total as u64);
        bar.add(added as u64);
    })?;
    bar.finish();
    for reject in &summary.rejects {
        let video = reject.video.as_deref().unwrap_or_default().escape_debug();
        bar.say(&format!(
            "{}: video `{video}` left out: {}",
            reject.file, reject.reason
        ));
    }
    writeln!(
        out,
        "simulated {} videos x {} segments x {} numbers per modality, seed {}: {} files in {}",
        summary.videos,
        options.segments,
        options.width,
        options.seed,
        summary.files,
        options.out.display()
    )?;
    if options.parser {
        let folder = options.out.join("parser");
        writeln!(
            out,
            "features for the parser: {0}/audio, {0}/frames, {0}/clips",
            folder.display()
        )?;
    }
    if let Some(videos) = &ave {
        let folder = ave::write(&options.out, videos)?;
        writeln!(out, "annotations in AVE's format: {}", folder.display())?;
    }
    if let Some(truth) = &summary.truth {
        writeln!(
            out,
            "events of {} videos are their dense truth, those of {} are drawn from the weak label: {}",
            summary.dense,
            summary.videos - summary.dense,
            truth.display()
        )?;
    }
    if let Some(folder) = &summary.annotations {
        writeln!(out, "annotations of these videos: {}", folder.display())?;
    }
    writeln!(out, "results on these features are simulated")?;
    Ok(if summary.rejects.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
