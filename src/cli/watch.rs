//! `vaplan watch`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
#[cfg(feature = "train")]
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{ClusterArgs, finished};
use super::{Global, notes};
use crate::engine::cluster::settings::ClusterSettings;
use crate::watch::{self, StopHandle, WatchProgress, WatchRequest};

/// Commit the files that appear in a folder, one store version per batch
///
/// The command keeps the dataflow in memory and runs until SIGTERM or SIGINT. Write a delivery under a name that begins
/// with `.` or ends in .tmp or .part, then rename it. Its final name states its kind: NAME.weak.csv, NAME.weak-add.csv,
/// NAME.weak-remove.csv, NAME.user.csv (or .tsv), NAME.thresholds.toml, NAME.audio.parquet, NAME.visual.parquet,
/// folders NAME.audio and NAME.visual of npy files, folders epoch-NNNN*, and epoch-NNNN*.predictions.parquet. With --clip or
/// --clap also media: VIDEO.mp4, VIDEO.wav and other video and sound files, and folders VIDEO.frames.
///
/// With --hosts, the videos and their labels are divided over several processes. Process 0 owns the inbox and commits.
///
/// The command moves a committed delivery to done/. It moves a delivery that cannot be used to failed/ and writes the
/// reason beside it. Each delivery is applied once, even if the process is killed at any moment: every store version
/// records the last 1,024 deliveries.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan watch --store store --inbox inbox
  vaplan watch --store store --inbox inbox --metrics 127.0.0.1:9100
  vaplan watch --store store --inbox inbox --clip clip-model --clap clap-model")]
pub(super) struct Args {
    /// Store to change
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Folder to watch; the command creates it if it does not exist
    #[arg(long, value_name = "DIR", env = "VAPLAN_INBOX")]
    inbox: PathBuf,
    /// Number of dataflow workers; it does not change the tables [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_WORKERS")]
    workers: Option<std::num::NonZeroUsize>,
    /// File to write the status to, as JSON; it is replaced after each batch [default: none]
    #[arg(long, value_name = "FILE", env = "VAPLAN_STATUS")]
    status: Option<PathBuf>,
    #[cfg(feature = "encode")]
    #[command(flatten)]
    media: Media,
    #[cfg(feature = "train")]
    #[command(flatten)]
    training: Training,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Encoders of delivered media.
#[cfg(feature = "encode")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Media")]
struct Media {
    /// Folder of the CLIP model that encodes the pictures of delivered media: the model of the store's visual features
    /// [default: none, pictures are not encoded]
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLIP")]
    clip: Option<PathBuf>,
    /// Folder of the CLAP model that encodes the sound of delivered media: the model of the store's audio features
    /// [default: none, sound is not encoded]
    #[arg(long, value_name = "DIR", env = "VAPLAN_CLAP")]
    clap: Option<PathBuf>,
    /// Number of segments of every delivered medium [default: its duration divided by the store's segment length]
    #[arg(long, value_name = "T")]
    segments: Option<std::num::NonZeroUsize>,
    /// Frames per second, from 0.001 to 1000000: of folders of frames, and of frames taken from videos
    #[arg(long, value_name = "RATE", default_value_t = 8.0)]
    frame_rate: f64,
    /// Program ffmpeg, which reads the frames of videos, and sound that vaplan does not read itself
    #[arg(long, value_name = "PROGRAM", default_value = "ffmpeg", env = "VAPLAN_FFMPEG")]
    ffmpeg: PathBuf,
}

#[cfg(feature = "encode")]
impl Media {
    /// The encoders, if any is named. The length of a segment is that of the store.
    fn request(&self) -> anyhow::Result<Option<crate::encode::EncodeRequest>> {
        use crate::encode::EncodeRequest;
        use crate::ingest::remote::local_copy;
        let rate = self.frame_rate;
        anyhow::ensure!(
            rate.is_finite() && (1e-3..=1e6).contains(&rate),
            "--frame-rate is {rate}, expected 0.001 to 1000000"
        );
        if self.clip.is_none() && self.clap.is_none() {
            return Ok(None);
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let mut request = EncodeRequest {
            ffmpeg: self.ffmpeg.clone(),
            ..EncodeRequest::new(
                Vec::new(),
                self.clip.as_ref().map(|path| local_copy(path)).transpose()?,
                self.clap.as_ref().map(|path| local_copy(path)).transpose()?,
                cores,
            )
        };
        request.cut.frame_rate = rate;
        request.cut.count = self.segments.map(|segments| segments.get());
        Ok(Some(request))
    }
}

/// Options of the training beside the watch.
#[cfg(feature = "train")]
#[derive(Debug, clap::Args)]
struct Training {
    /// Train a parser on the labels of the store while deliveries come, and denoise the labels by its epochs. CONFIG is
    /// a file of `run`; the command reads its sections [train], [train_features] and [denoise] (schedule every or off)
    /// [default: no training]
    #[arg(long, value_name = "CONFIG", env = "VAPLAN_WATCH_TRAIN")]
    train: Option<PathBuf>,
    #[command(flatten)]
    machine: super::learning::MachineArgs,
}

#[cfg(feature = "train")]
impl Args {
    /// Returns whether the watch trains a parser.
    pub(super) fn learns(&self) -> bool {
        self.training.train.is_some()
    }
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut request = request(args)?;
    if let Some(settings) = args.cluster.settings()? {
        if settings.hosts.process() > 0 {
            args.cluster.serve("watch")?;
            return follow(&request, &settings, global, out);
        }
        request.cluster = Some(settings);
    }
    run_request(&request, global, out)
}

/// Runs the workers of a process other than process 0.
fn follow(
    request: &WatchRequest,
    settings: &ClusterSettings,
    global: &Global,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    // A launcher often stops all processes at once. Process 0 then ends the watch, and with it this process.
    super::signals::on_end(|| {
        std::thread::sleep(PATIENCE);
        super::stderr::tell("process 0 has not stopped, so this process leaves the cluster");
        std::process::exit(2);
    })?;
    if !global.quiet {
        let (here, of) = (settings.hosts.here(), settings.hosts.processes());
        super::stderr::tell(&format!(
            "{here} of {of} processes: works for process 0, which has the inbox"
        ));
    }
    let version = watch::follow(request, settings)?;
    finished(version, out)
}

/// Time that a process other than process 0 gives process 0 to stop, after a signal.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a watch with a training beside it.
#[cfg(feature = "train")]
pub(super) fn run_learning(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    use watch::training::OwnTrainingRequest;
    let device = args.training.machine.device()?;
    let mut request = request(args)?;
    let training = |config: &PathBuf| -> Arc<dyn watch::BesideTraining> {
        let config = config.clone();
        Arc::new(OwnTrainingRequest { config, device })
    };
    request.training = args.training.train.as_ref().map(training);
    args.training.machine.set_threads();
    if let Some(settings) = args.cluster.settings()? {
        if settings.hosts.process() > 0 {
            args.cluster.serve("watch")?;
            return follow(&request, &settings, global, out);
        }
        request.cluster = Some(settings);
    }
    run_request(&request, global, out)
}

fn request(args: &Args) -> anyhow::Result<WatchRequest> {
    Ok(WatchRequest {
        store: args.store.clone(),
        inbox: args.inbox.clone(),
        stop: StopHandle::default(),
        workers: super::workers(args.workers),
        cluster: None,
        status: args.status.clone(),
        metrics: args.cluster.metrics(),
        #[cfg(feature = "encode")]
        media: args.media.request()?,
        #[cfg(feature = "train")]
        training: None,
    })
}

fn run_request(request: &WatchRequest, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let stop = request.stop.clone();
    super::signals::on_end(move || stop.stop())?;
    let say = |line: String| {
        if !global.quiet {
            super::stderr::tell(&line);
        }
    };
    let mut written = Ok(());
    watch::run(request, &mut |progress| match progress {
        WatchProgress::Loaded {
            version,
            videos,
            others: false,
        } => say(format!("watching: version {version}, {videos} videos")),
        WatchProgress::Loaded { version, videos, .. } => say(format!(
            "loaded anew: another process made version {version}, {videos} videos"
        )),
        WatchProgress::Metrics(address) => say(format!("metrics at http://{address}/metrics")),
        WatchProgress::Waiting(holder) => say(format!("waiting: the store is being written by {holder}")),
        // Print this line with --quiet too, because it is the error of one delivery.
        WatchProgress::Failed { name, reason } => super::stderr::tell(&format!("{name}: {reason}")),
        WatchProgress::Batch(done) => {
            notes::report(&done.rejected, true);
            let (set, unset) = done.cells;
            let line = match done.version {
                Some(version) => format!(
                    "version {version}: {set} labels set, {unset} unset; {}",
                    done.names.join(", ")
                ),
                None => format!("nothing to do: {} deliveries were done before", done.again),
            };
            let own = writeln!(out, "{line}").and_then(|()| out.flush());
            written = std::mem::replace(&mut written, Ok(())).and(own);
        }
        #[cfg(feature = "train")]
        WatchProgress::Epoch { row, better } => {
            say(super::learning::epoch_line(row, None, better));
        }
        #[cfg(feature = "train")]
        WatchProgress::Denoised {
            epoch,
            version,
            cells: (set, unset),
        } => match version {
            Some(version) => say(format!(
                "version {version}: denoised by epoch {epoch}, {set} labels set, {unset} unset"
            )),
            None => say(format!("denoised by epoch {epoch}: the labels are as they were")),
        },
        #[cfg(feature = "train")]
        WatchProgress::Trained { epoch } => say(format!("trained: the best is epoch {epoch}")),
        #[cfg(feature = "train")]
        WatchProgress::Rests(why) => say(format!("training rests: {why}")),
        #[cfg(feature = "train")]
        WatchProgress::TrainingFailed(reason) => super::stderr::tell(&format!("training: {reason}")),
        WatchProgress::Stopped => say("stopped".to_owned()),
    })?;
    // A failed write to the output does not end the watch. It is reported after the watch has ended.
    written?;
    Ok(ExitCode::SUCCESS)
}
