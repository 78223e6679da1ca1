//! `vaplan parse`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::Global;
use super::choice::choices;
use super::learning::{MachineArgs, gate};
use super::media::MediaArgs;
use super::progress::Bar;
use crate::encode::EncodeRequest;
use crate::encode::model::Device;
use crate::events::{EventFormat, csv};
use crate::ingest::remote::local_copy;
use crate::parse::{self, ParseProgress, ParseRequest, ParsedVideo};
use crate::parser::Gate;
use crate::show::{self, TimelineStyle};

/// Width of a timeline that is not printed to a terminal.
const WIDTH: usize = 80;

/// Find the events of new videos with a trained model
///
/// The command applies the model folder that `train` or `run` wrote to videos (mp4 ..), sound files (wav ..), folders of
/// frames, and folders that hold any of these. It needs no store. It encodes the media with the encoders that the model
/// names, runs the network, and prints the timeline of each video.
///
/// The encoders must be the same as in training: the model has their SHA-256. If their folders were moved, --clip and --clap
/// name them.
///
/// With --out, the command writes one file per video and format. A run that was interrupted goes on where it stopped, and
/// a video that is done is not parsed again. Files appear complete or not at all.
///
/// A file that cannot be used is named, the others are parsed, and the exit status is then 1. A video with sound alone or
/// pictures alone gives the events of that modality, and a note.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan parse video.mp4 --model store/_vaplan/train/model
  vaplan parse videos/ sounds/ --model model --out events --format elan,webvtt
  vaplan parse clip.wav --model model --clip models/clip --clap models/clap --format json
  vaplan parse videos --model model --clips r2plus1d --out events")]
pub(super) struct ParseArgs {
    /// Videos, sound files, folders of frames, and folders of media
    #[arg(value_name = "MEDIA", required = true)]
    media: Vec<PathBuf>,
    /// Folder of the trained model
    #[arg(long, value_name = "DIR", env = "VAPLAN_MODEL")]
    model: PathBuf,
    /// Folder of the CLIP encoder [default: the folder that the model names]
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLIP")]
    clip: Option<PathBuf>,
    /// Folder of the CLAP encoder [default: the folder that the model names]
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLAP")]
    clap: Option<PathBuf>,
    /// Folder of npy files, or Parquet files, with the clip features of the media, for a network that was trained with --clips;
    /// may be given more than once
    #[arg(long, value_name = "PATH")]
    clips: Vec<PathBuf>,
    /// Folder to write one file per video and format to; the command creates it if it does not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Formats to write, several by comma [default: json with --out, otherwise the timeline]
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', value_parser = choices::<EventFormat>())]
    format: Vec<EventFormat>,
    /// Protocol that turns probabilities into labels [default: that of the training]
    #[arg(long, value_name = "PROTOCOL", value_parser = gate())]
    protocol: Option<Gate>,
    /// Number of segments of every video [default: the duration divided by the length of a segment, at least 1]
    #[arg(long, value_name = "T")]
    segments: Option<NonZeroUsize>,
    /// Frames per second of folders of frames, from 0.001 to 1000000 [default: as in training, or 8]
    #[arg(long, value_name = "RATE")]
    frame_rate: Option<f64>,
    /// Number of segments that an encoder takes at a time
    #[arg(long, value_name = "N", default_value = "32")]
    batch: NonZeroUsize,
    /// Read weights of encoders that are in files beside their ONNX file
    #[arg(long)]
    external_data: bool,
    /// Program ffmpeg, which reads the frames of videos, and sound that vaplan does not read itself
    #[arg(long, value_name = "PROGRAM", default_value = "ffmpeg", env = "VAPLAN_FFMPEG")]
    ffmpeg: PathBuf,
    #[command(flatten)]
    machine: MachineArgs,
}

impl ParseArgs {
    fn request(&self) -> anyhow::Result<ParseRequest> {
        if let Some(rate) = self.frame_rate {
            let fits = rate.is_finite() && (1e-3..=1e6).contains(&rate);
            anyhow::ensure!(fits, "--frame-rate is {rate}, expected 0.001 to 1000000");
        }
        let device = self.machine.device()?;
        let mut encoding = EncodeRequest::new(Vec::new(), None, None, self.machine.threads());
        encoding.batch = self.batch.get();
        encoding.ffmpeg = self.ffmpeg.clone();
        encoding.session.external_data = self.external_data;
        encoding.session.device = match device {
            tch::Device::Cuda(_) => Device::Cuda,
            _ => Device::Cpu,
        };
        // Both encoders run at the same time and share the cores.
        let encoding = encoding.with_sessions(1, self.machine.threads().div_ceil(2));
        Ok(ParseRequest {
            media: self.media.clone(),
            model: local_copy(&self.model)?,
            clip: self.clip.as_ref().map(|path| local_copy(path)).transpose()?,
            clap: self.clap.as_ref().map(|path| local_copy(path)).transpose()?,
            clips: self.clips.clone(),
            segments: self.segments.map(NonZeroUsize::get),
            frame_rate: self.frame_rate,
            protocol: self.protocol,
            out: self.out.clone(),
            formats: match (self.format.as_slice(), &self.out) {
                ([], Some(_)) => vec![EventFormat::Json],
                (formats, _) => formats.to_vec(),
            },
            device,
            encoding,
        })
    }
}

pub(super) fn run(args: &ParseArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let request = args.request()?;
    if request.out.is_none() {
        anyhow::ensure!(
            request.formats.len() <= 1,
            "several formats need a folder for their files: expected --out DIR"
        );
    }
    args.machine.set_threads();
    let bar = Arc::new(Bar::new("parsing", "videos", global));
    let (mut printed, mut failure) = (0_usize, None);
    let summary = parse::run(
        &request,
        &MediaArgs::listener(&bar),
        &mut |progress| match progress {
            ParseProgress::Waiting(holder) => {
                bar.say(&format!("waiting: the folder is being written by {holder}"))
            }
            ParseProgress::Planned { videos, done } => {
                bar.total(videos as u64);
                if done > 0 {
                    bar.say(&format!("{done} videos are done"));
                }
            }
            ParseProgress::Row(row) => {
                let name = row.video.as_deref().unwrap_or(&row.file);
                bar.say(&format!("{name}: {}", row.reason));
            }
            ParseProgress::Parsed(video) => {
                if request.out.is_none() && failure.is_none() {
                    failure = print(video, request.formats.first().copied(), printed, out).err();
                    printed += 1;
                }
            }
        },
    )?;
    bar.finish();
    if let Some(error) = failure {
        return Err(error);
    }
    if let Some(folder) = &request.out {
        writeln!(
            out,
            "{} videos parsed, {} done before, {} left out: {}",
            summary.parsed,
            summary.done,
            summary.failed(),
            folder.display()
        )?;
    }
    Ok(ExitCode::from(u8::from(summary.failed() > 0)))
}

/// Prints the video that comes after `before` others.
fn print(
    video: &ParsedVideo,
    format: Option<EventFormat>,
    before: usize,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match format {
        None => {
            let plain = anstream::AutoStream::choice(&std::io::stdout()) == anstream::ColorChoice::Never;
            let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0));
            if before > 0 {
                writeln!(out)?;
            }
            show::render(&video.timeline, TimelineStyle { plain, width }, out)?;
        }
        Some(EventFormat::Csv) => {
            let text = csv::text([&video.events]);
            let from = if before == 0 {
                0
            } else {
                text.find('\n').map_or(0, |end| end + 1)
            };
            write!(out, "{}", &text[from..])?;
        }
        Some(format) => {
            anyhow::ensure!(
                before == 0 || format == EventFormat::Json,
                "format {} has one file per video, expected --out DIR for several videos",
                crate::choice::Choice::name(format)
            );
            write!(out, "{}", format.file(&video.events).text)?;
        }
    }
    Ok(())
}
