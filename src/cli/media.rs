//! Flags of all that encodes media: `encode`, and `label` straight from media.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::Modality;

use super::progress::Bar;
use crate::encode::image::Resize;
use crate::encode::media::{Cut, Pick};
use crate::encode::model::Device;
use crate::encode::{EncodeListener, EncodeProgress, EncodeRequest};
use crate::ingest::shards::FloatType;

/// Media, models, and how one becomes the other's input.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Media")]
pub(super) struct MediaArgs {
    /// Folder of <video>.mp4, <video>.wav and folders <video>/ of frames; may be given more than once
    #[arg(long, value_name = "DIR")]
    media: Vec<PathBuf>,
    /// Folder of the CLIP model; without, pictures are not encoded
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLIP")]
    clip: Option<PathBuf>,
    /// Folder of the CLAP model, or of a classifier of sound; without, sound is not encoded
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLAP")]
    clap: Option<PathBuf>,
    /// TOML with prompts per modality and class [default: "A photo of {class}.", "This is a sound of {class}."]
    #[arg(long, value_name = "FILE", env = "VAPLAN_PROMPTS")]
    prompts: Option<PathBuf>,
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
    /// Embeddings by content, kept for later runs [default: cache/ beside them]
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
    /// The ffmpeg program, for the frames of videos and for sound that vaplan does not read itself
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

impl MediaArgs {
    /// Are there media to encode for this modality?
    pub(super) fn has(&self, modality: Modality) -> bool {
        let model = match modality {
            Modality::Visual => &self.clip,
            Modality::Audio => &self.clap,
        };
        self.any() && model.is_some()
    }

    /// Are there media to encode?
    pub(super) fn any(&self) -> bool {
        !self.media.is_empty()
    }

    /// What is asked; where to, of which videos and classes, is the caller's to say.
    pub(super) fn request(&self, segment_seconds: f64) -> anyhow::Result<EncodeRequest> {
        for (flag, value) in [
            ("--segment-seconds", segment_seconds),
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
        let (clip, clap) = (self.clip.clone(), self.clap.clone());
        let mut request = EncodeRequest {
            cache: self.cache.clone(),
            prompts: self.prompts.clone(),
            cut: Cut {
                seconds: segment_seconds,
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
            batch: self.batch.get(),
            ffmpeg: self.ffmpeg.clone(),
            ..EncodeRequest::new(self.media.clone(), clip, clap, cores)
        }
        .with_sessions(self.sessions.get(), cores);
        request.form.float = match self.dtype {
            Dtype::F16 => FloatType::F16,
            Dtype::F32 => FloatType::F32,
        };
        request.session.device = match self.device {
            DeviceName::Cpu => Device::Cpu,
            DeviceName::Auto => Device::Auto,
            DeviceName::Cuda => Device::Cuda,
        };
        request.session.external_data = self.external_data;
        if let Some(readers) = self.readers {
            request.threads.readers = readers.get();
        }
        Ok(request)
    }

    /// Tells a bar how encoding goes.
    pub(super) fn listener(bar: &Arc<Bar>) -> EncodeListener {
        let told = bar.clone();
        Arc::new(move |progress| match progress {
            EncodeProgress::Waiting(holder) => {
                told.say(&format!("waiting: the folder is being written by {holder}"))
            }
            EncodeProgress::Planned { videos } => told.total(videos),
            EncodeProgress::Read { videos } => told.add(videos),
            EncodeProgress::Encoded { .. } => {}
            EncodeProgress::Writing => told.message("writing"),
        })
    }
}
