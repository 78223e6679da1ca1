//! Options of the commands that encode media: `encode`, and `label` with `--media`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::Modality;

use super::progress::Bar;
use crate::encode::image::Resize;
use crate::encode::media::{Cut, Pick};
use crate::encode::model::Device;
use crate::encode::{EncodeListener, EncodeProgress, EncodeRequest};
use crate::ingest::remote::local_copy;
use crate::ingest::shards::FloatType;

/// Media, models, and how media become the input of the models.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Media")]
pub(super) struct MediaArgs {
    /// Folder of <video>.mp4, <video>.wav, and folders <video>/ of frames; may be given several times
    #[arg(long, value_name = "DIR")]
    media: Vec<PathBuf>,
    /// Folder of the CLIP model [default: none, pictures are not encoded]
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLIP")]
    clip: Option<PathBuf>,
    /// Folder of the CLAP model, or of a sound classifier [default: none, sound is not encoded]
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLAP")]
    clap: Option<PathBuf>,
    /// TOML file with prompts per modality and class [default: "A photo of {class}.", "This is a sound of {class}."]
    #[arg(long, value_name = "FILE", env = "VAPLAN_PROMPTS")]
    prompts: Option<PathBuf>,
    /// Number of segments of every video [default: the duration divided by --segment-seconds, rounded, at least 1]
    #[arg(long, value_name = "T")]
    segments: Option<NonZeroUsize>,
    /// Frames per second, from 0.001 to 1000000: of folders of frames, and of frames taken from videos
    #[arg(long, value_name = "RATE", default_value_t = 8.0)]
    frame_rate: f64,
    /// Frame that represents a segment
    #[arg(long, value_name = "PICK", default_value = "centre")]
    frame: Frame,
    /// How a frame becomes square [default: the setting in vaplan.toml of the model, or crop]
    #[arg(long, value_name = "HOW")]
    resize: Option<Square>,
    /// Number type of the features
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    dtype: Dtype,
    /// Folder that keeps embeddings by content, for later runs [default: cache/ beside the features]
    #[arg(long, value_name = "DIR", env = "VAPLAN_CACHE")]
    cache: Option<PathBuf>,
    /// Number of segments per batch
    #[arg(long, value_name = "N", default_value = "32")]
    batch: NonZeroUsize,
    /// Device that the models run on
    #[arg(long, value_name = "DEVICE", default_value = "cpu", env = "VAPLAN_DEVICE")]
    device: DeviceName,
    /// Read weights that are in files beside the ONNX file of a model
    #[arg(long)]
    external_data: bool,
    /// Number of cores that the sessions share [default: all cores]
    #[arg(long, value_name = "N", env = "VAPLAN_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Number of sessions of each model; each session holds all weights of the model in memory
    #[arg(long, value_name = "N", default_value = "1")]
    sessions: NonZeroUsize,
    /// Number of threads that read and decode media [default: a quarter of the cores, at least 1]
    #[arg(long, value_name = "N")]
    readers: Option<NonZeroUsize>,
    /// Program ffmpeg, which reads the frames of videos, and sound that vaplan does not read itself
    #[arg(long, value_name = "PROGRAM", default_value = "ffmpeg", env = "VAPLAN_FFMPEG")]
    ffmpeg: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Frame {
    /// The frame in the middle of the segment
    Centre,
    /// As many frames as there are segments, spread evenly over all frames, as VALOR does
    Linspace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Square {
    /// Resize the short side to the model's size, then cut out the middle, as CLIP does
    Crop,
    /// Resize both sides to the model's size, as VALOR does
    Squash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Dtype {
    /// 16-bit floats
    F16,
    /// 32-bit floats
    F32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DeviceName {
    /// The processor
    Cpu,
    /// CUDA if the ONNX Runtime library supports it, otherwise the processor, with a warning
    Auto,
    /// CUDA; if it is not available, the command fails
    Cuda,
}

impl MediaArgs {
    /// Returns whether media of this modality are encoded.
    pub(super) fn has(&self, modality: Modality) -> bool {
        let model = match modality {
            Modality::Visual => &self.clip,
            Modality::Audio => &self.clap,
        };
        self.any() && model.is_some()
    }

    /// Returns whether any media folder is given.
    pub(super) fn any(&self) -> bool {
        !self.media.is_empty()
    }

    /// Returns the request of an encoding. The caller adds the output folder, the videos and the classes.
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
        let own = |path: &PathBuf| local_copy(path);
        let (clip, clap) = (
            self.clip.as_ref().map(own).transpose()?,
            self.clap.as_ref().map(own).transpose()?,
        );
        let media: Vec<PathBuf> = self.media.iter().map(own).collect::<Result<_, _>>()?;
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
            ..EncodeRequest::new(media, clip, clap, cores)
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

    /// Returns a listener that shows the progress of encoding on a bar.
    pub(super) fn listener(bar: &Arc<Bar>) -> EncodeListener {
        let own_bar = bar.clone();
        Arc::new(move |progress| match progress {
            EncodeProgress::Waiting(holder) => {
                own_bar.say(&format!("waiting: the folder is being written by {holder}"))
            }
            EncodeProgress::Planned { videos } => own_bar.total(videos),
            EncodeProgress::Read { videos } => own_bar.add(videos),
            EncodeProgress::Encoded { .. } => {}
            EncodeProgress::Committed { version, videos } => {
                own_bar.say(&format!(
                    "version {version}: the labels of {videos} videos; encoding goes on"
                ));
            }
            EncodeProgress::Writing => own_bar.message("writing"),
        })
    }
}
