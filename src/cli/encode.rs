//! `vaplan encode`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use vaplan_schemas::rows::{Severity, Split};

use super::Global;
use super::cluster::{ClusterArgs, starting};
use super::media::MediaArgs;
use super::progress::Bar;
use crate::encode::cluster::EncodeOutcome;
use crate::encode::{self, EncodeRequest};

/// Encode videos, frames and sound by CLIP and CLAP
///
/// The command reads media folders and cuts each video into segments. It writes one embedding per segment and modality,
/// and one text embedding per class and modality. `vaplan label` reads both. Models are the usual ONNX exports. Each
/// model is a folder with vision_model.onnx or audio_model.onnx (or model.onnx), text_model.onnx and tokenizer.json.
///
/// Embeddings are kept by content. Therefore a second run, a changed prompt or a new class encodes no media again, and
/// a run after an interrupted one continues where that one stopped. The command writes into --out: visual/, audio/,
/// visual_text.parquet, audio_text.parquet, encode.json (the models), rejects.jsonl (media that were left out, and
/// notes) and cache/.
///
/// Media that cannot be read are left out, listed, and make the exit status 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan encode --media videos --clip models/clip --clap models/clap --out features
  vaplan encode --media videos --clip models/clip --annotations annotations --segments 10 --out features")]
#[command(mut_arg("media", |media| media.required(true)))]
pub(super) struct Args {
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Annotations in LLP's format, whose videos and classes are encoded [default: all videos, and no classes]
    #[arg(long, value_name = "DIR", env = "VAPLAN_ANNOTATIONS")]
    annotations: Option<PathBuf>,
    /// File with the class names in order, one per line [default: the classes of the annotations]
    #[arg(long, value_name = "FILE", env = "VAPLAN_CLASSES")]
    classes: Option<PathBuf>,
    /// Splits to encode; only with --annotations
    #[arg(
        long,
        value_name = "SPLITS",
        value_delimiter = ',',
        default_value = "train,val,test",
        env = "VAPLAN_SPLIT"
    )]
    split: Vec<Split>,
    /// Length of a segment in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1.0,
        env = "VAPLAN_SEGMENT_SECONDS"
    )]
    segment_seconds: f64,
    /// Write one npy file per video and modality instead of Parquet shards
    #[arg(long)]
    npy: bool,
    /// Number of dataflow workers; they only pass batches on to the sessions
    #[arg(long, value_name = "N", default_value = "1", env = "VAPLAN_WORKERS")]
    workers: NonZeroUsize,
    #[command(flatten)]
    media: MediaArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Args {
    fn request(&self) -> anyhow::Result<EncodeRequest> {
        let mut request = EncodeRequest {
            out: self.out.clone(),
            annotations: self.annotations.clone(),
            classes: self.classes.clone(),
            splits: self.split.clone(),
            ..self.media.request(self.segment_seconds)?
        };
        request.form.npy = self.npy;
        request.threads.workers = self.workers.get();
        Ok(request)
    }
}

/// Number of rejected rows, and of notes, that are printed.
const SHOWN: usize = 5;

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let bar = Arc::new(Bar::new("encoding", "videos", global));
    let (request, listener) = (args.request()?, MediaArgs::listener(&bar));
    args.cluster.serve("encode")?;
    let outcome = match args.cluster.settings()? {
        Some(settings) => {
            starting(&settings, &bar);
            encode::cluster::run(&request, &settings, &listener)?
        }
        None => EncodeOutcome::Led(Box::new(encode::run(&request, &listener)?)),
    };
    bar.finish();
    let summary = match outcome {
        EncodeOutcome::Led(summary) => *summary,
        EncodeOutcome::Followed { encoded, rejects } => {
            writeln!(
                out,
                "encoded {encoded} segments in this process; process 0 writes the features"
            )?;
            return Ok(ExitCode::from(u8::from(rejects > 0)));
        }
    };
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
    writeln!(
        out,
        "encoded {} segments and {} prompts; {} segments were in the cache",
        summary.encoded,
        summary.prompts,
        summary.segments().saturating_sub(summary.encoded)
    )?;
    writeln!(out, "left out {}", summary.left_out())?;
    Ok(if summary.left_out() > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}
