//! `vaplan encode`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use vaplan_schemas::rows::{Severity, Split};

use super::Global;
use super::progress::Bar;
use crate::encode::flow::Threads;
use crate::encode::image::Resize;
use crate::encode::media::{Cut, Pick};
use crate::encode::model::{Device, SessionOptions};
use crate::encode::write::Form;
use crate::encode::{self, Listener, Progress, Request};
use crate::ingest::shards::FloatType;

/// Encode videos, frames and sound by CLIP and CLAP
///
/// Reads media folders, cuts each video into segments, and writes one embedding per segment and modality, and one
/// text embedding per class: what `vaplan label` takes. Models are the usual ONNX exports, each a folder with
/// vision_model.onnx or audio_model.onnx (or model.onnx), text_model.onnx and tokenizer.json.
///
/// Embeddings are kept by content: a second run, a changed prompt or a new class encodes no media again, and an
/// interrupted run goes on where it was. Written into --out: visual/, audio/, visual_text.parquet,
/// audio_text.parquet, encode.json (which models), rejects.jsonl (what was left out), cache/.
///
/// Media that cannot be read are left out, listed, and make the exit status 1.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of <video>.mp4, <video>.wav and folders <video>/ of frames; may be given more than once
    #[arg(long, value_name = "DIR", required = true)]
    media: Vec<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder of the CLIP model; without, pictures are not encoded
    #[arg(
        long,
        value_name = "DIR",
        env = "VAPLAN_CLIP",
        required_unless_present = "clap"
    )]
    clip: Option<PathBuf>,
    /// Folder of the CLAP model, or of a classifier of sound; without, sound is not encoded
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLAP")]
    clap: Option<PathBuf>,
    /// Annotations in LLP's format: encode their videos and classes [default: all videos, and no classes]
    #[arg(long, value_name = "DIR", env = "VAPLAN_ANNOTATIONS")]
    annotations: Option<PathBuf>,
    /// Names of the classes in order, one a line [default: those of the annotations]
    #[arg(long, value_name = "FILE", env = "VAPLAN_CLASSES")]
    classes: Option<PathBuf>,
    /// Splits to encode, with --annotations
    #[arg(
        long,
        value_name = "SPLITS",
        value_delimiter = ',',
        default_value = "train,val,test",
        env = "VAPLAN_SPLIT"
    )]
    split: Vec<Split>,
    /// TOML with prompts per modality and class [default: "A photo of {class}.", "This is a sound of {class}."]
    #[arg(long, value_name = "FILE", env = "VAPLAN_PROMPTS")]
    prompts: Option<PathBuf>,
    /// Length of a segment in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1.0,
        env = "VAPLAN_SEGMENT_SECONDS"
    )]
    segment_seconds: f64,
    /// Segments of every video [default: by its duration]
    #[arg(long, value_name = "T")]
    segments: Option<NonZeroUsize>,
    /// Frames per second of folders of frames, and of those taken from videos
    #[arg(long, value_name = "RATE", default_value_t = 8.0)]
    frame_rate: f64,
    /// Which frame stands for a segment
    #[arg(long, value_name = "PICK", default_value = "centre")]
    frame: Frame,
    /// How a frame becomes square [default: as vaplan.toml of the model says, or crop]
    #[arg(long, value_name = "HOW")]
    resize: Option<Square>,
    /// Type of the values written
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    dtype: Dtype,
    /// Write one npy file per video, in the public layout, not Parquet shards
    #[arg(long)]
    npy: bool,
    /// Embeddings by content, kept for later runs [default: cache/ in --out]
    #[arg(long, value_name = "DIR", env = "VAPLAN_CACHE")]
    cache: Option<PathBuf>,
    /// Segments of a batch
    #[arg(long, value_name = "N", default_value = "32")]
    batch: NonZeroUsize,
    /// What models run on
    #[arg(long, value_name = "DEVICE", default_value = "cpu", env = "VAPLAN_DEVICE")]
    device: DeviceName,
    /// Read weights that lie in files beside a model
    #[arg(long)]
    external_data: bool,
    /// Cores to use; sessions and readers share them [default: all]
    #[arg(long, value_name = "N", env = "VAPLAN_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Sessions of each model; each holds all its weights
    #[arg(long, value_name = "N", default_value = "1")]
    sessions: NonZeroUsize,
    /// Threads that read and decode media [default: a quarter of the cores]
    #[arg(long, value_name = "N")]
    readers: Option<NonZeroUsize>,
    /// Workers of the dataflow; they only pass batches on
    #[arg(long, value_name = "N", default_value = "1", env = "VAPLAN_WORKERS")]
    workers: NonZeroUsize,
    /// The ffmpeg program, for the frames of videos
    #[arg(long, value_name = "PROGRAM", default_value = "ffmpeg", env = "VAPLAN_FFMPEG")]
    ffmpeg: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Frame {
    /// That in the middle of the segment.
    Centre,
    /// As many as there are segments, spread over all frames: VALOR's.
    Linspace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Square {
    /// Short side to size, then the middle: CLIP's.
    Crop,
    /// Both sides to size: VALOR's.
    Squash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Dtype {
    /// 16 bits.
    F16,
    /// 32 bits.
    F32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DeviceName {
    /// The processor.
    Cpu,
    /// CUDA where the library has it, else the processor, with a warning.
    Auto,
    /// CUDA, or not at all.
    Cuda,
}

impl Args {
    fn request(&self) -> anyhow::Result<Request> {
        for (flag, value) in [
            ("--segment-seconds", self.segment_seconds),
            ("--frame-rate", self.frame_rate),
        ] {
            anyhow::ensure!(
                value.is_finite() && (1e-3..=1e6).contains(&value),
                "{flag} is {value}, expected 0.001 to 1000000"
            );
        }
        let cores = self
            .threads
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get);
        let sessions = self.sessions.get();
        let models = usize::from(self.clip.is_some()) + usize::from(self.clap.is_some());
        Ok(Request {
            out: self.out.clone(),
            cache: self.cache.clone(),
            media: self.media.clone(),
            annotations: self.annotations.clone(),
            classes: self.classes.clone(),
            splits: self.split.clone(),
            clip: self.clip.clone(),
            clap: self.clap.clone(),
            prompts: self.prompts.clone(),
            cut: Cut {
                seconds: self.segment_seconds,
                frame_rate: self.frame_rate,
                count: self.segments.map(NonZeroUsize::get),
                pick: match self.frame {
                    Frame::Centre => Pick::Centre,
                    Frame::Linspace => Pick::Linspace,
                },
            },
            resize: self.resize.map(|resize| match resize {
                Square::Crop => Resize::Crop,
                Square::Squash => Resize::Squash,
            }),
            form: Form {
                npy: self.npy,
                float: match self.dtype {
                    Dtype::F16 => FloatType::F16,
                    Dtype::F32 => FloatType::F32,
                },
            },
            batch: self.batch.get(),
            session: SessionOptions {
                device: match self.device {
                    DeviceName::Cpu => Device::Cpu,
                    DeviceName::Auto => Device::Auto,
                    DeviceName::Cuda => Device::Cuda,
                },
                // All sessions run at once where both modalities are encoded.
                threads: cores.div_ceil(sessions * models.max(1)),
                external_data: self.external_data,
            },
            sessions,
            threads: Threads {
                workers: self.workers.get(),
                readers: self.readers.map_or_else(|| (cores / 4).max(1), NonZeroUsize::get),
                // Each session has one in work and one to go on with.
                credits: 2 * sessions * models.max(1),
            },
            ffmpeg: self.ffmpeg.clone(),
        })
    }
}

/// How many rejects are shown beside their count.
const SHOWN: usize = 5;

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let bar = Arc::new(Bar::new("encoding", "videos", global));
    let told = bar.clone();
    let listener: Listener = Arc::new(move |progress| match progress {
        Progress::Planned { videos } => told.total(videos),
        Progress::Read { videos } => told.add(videos),
        Progress::Encoded { .. } => {}
        Progress::Writing => told.message("writing"),
    });
    let summary = encode::run(&args.request()?, &listener)?;
    bar.finish();
    for severity in [Severity::Reject, Severity::Note] {
        let rows: Vec<_> = summary
            .rejects
            .iter()
            .filter(|row| row.severity == severity)
            .collect();
        for row in rows.iter().take(SHOWN) {
            bar.say(&format!(
                "{}: {}",
                row.video.as_deref().unwrap_or(&row.file),
                row.reason
            ));
        }
        if rows.len() > SHOWN {
            bar.say(&format!("... and {} more in rejects.jsonl", rows.len() - SHOWN));
        }
    }
    if summary.absent > 0 {
        bar.say(&format!("{} annotated videos have no media", summary.absent));
    }
    for written in &summary.written {
        writeln!(
            out,
            "{:<7} {} segments of {} videos, width {}",
            written.modality.as_str(),
            written.segments,
            written.videos,
            written.width
        )?;
    }
    let segments: u64 = summary.written.iter().map(|written| written.segments).sum();
    writeln!(
        out,
        "encoded {} segments and {} prompts; {} segments were in the cache",
        summary.encoded,
        summary.prompts,
        segments.saturating_sub(summary.encoded)
    )?;
    writeln!(out, "left out {}", summary.left_out())?;
    Ok(if summary.left_out() > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}
