//! `vaplan run`, and `vaplan plan CONFIG.toml`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;

use super::cluster::{ClusterArgs, finished, starting};
use super::learning::epoch_line;
use super::progress::Bar;
use super::relabel::PlanArgs;
use super::report_format::{ReportFormat, print_json};
use super::{Global, libtorch, notes};
use crate::engine::{Listener, Progress as Labelling};
use crate::run::config::{Config, DEFAULT};
use crate::run::learner::LearnerProgress;
use crate::run::{self, RunListener, RunProgress, RunRequest, Todo};

/// Do the whole job that a file describes: label, train, denoise, train again, score
///
/// The command labels the features and trains the parser on the labels. It flips the labels that the parser
/// contradicts, trains the parser again on the denoised labels, and prints a table with the scores of labels and
/// parsers against the dense truth. Every stage and every epoch is one store version.
///
/// If another command changed thresholds, denoising or predictions of the store since the last run, the command refuses
/// to take the change back without --force, and lists what differs from the file.
///
/// With --hosts, several processes label and denoise together; the training is the work of process 0.
///
/// Finished work is not repeated. A run that was killed continues at its stage, shard and epoch. A finished run only
/// prints its table. A changed file repeats the stages that depend on the change; `vaplan plan CONFIG` lists them.
///
/// `--print-default` prints every key with its default; docs/run.md explains the keys. Paths are relative to the file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan run --print-default > run.toml
  vaplan plan run.toml
  vaplan run run.toml --threads 4")]
pub(super) struct Args {
    /// TOML file that describes the run
    #[arg(value_name = "CONFIG", required_unless_present = "print_default")]
    config: Option<PathBuf>,
    /// Read the file, open the inputs that it names, and stop. The store does not change
    #[arg(long)]
    check: bool,
    /// Print a file with every key and its default, and stop
    #[arg(long, conflicts_with = "config")]
    print_default: bool,
    /// Take back what another command changed of thresholds, denoising or predictions since the last run
    #[arg(long)]
    force: bool,
    /// If the file has media: commit the labels of the videos that are encoded already after this number of videos (`5000`)
    /// or this time (`30s`, `10m`, `2h`), while other videos are being encoded; whole buckets only, of about 1,024 videos
    /// each [default: one version when all media are encoded]
    #[cfg(feature = "encode")]
    #[arg(long, value_name = "N|TIME", env = "VAPLAN_COMMIT_EVERY")]
    commit_every: Option<crate::label::early::CommitEvery>,
    /// Format of the final table
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ReportFormat,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Options that depend on the machine and do not belong into the file of the run.
#[derive(Debug, clap::Args)]
struct Machine {
    /// Number of dataflow workers; it does not change the tables [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_WORKERS")]
    workers: Option<NonZeroUsize>,
    /// Number of threads of libtorch; results are equal bit for bit only for equal numbers [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Device to train on: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", env = "VAPLAN_DEVICE", value_parser = crate::parser::device)]
    device: tch::Device,
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let Some(config) = &args.config else {
        return print_default(out);
    };
    let device = crate::parser::available(args.machine.device).map_err(anyhow::Error::msg)?;
    let mut request = RunRequest {
        config: config.clone(),
        workers: args.machine.workers.unwrap_or_else(cores).get(),
        threads: args.machine.threads.unwrap_or_else(cores),
        device,
        force: args.force,
        cluster: None,
        #[cfg(feature = "encode")]
        commit_every: args.commit_every,
        command: global.command_line(),
    };
    if args.check {
        return check(&request, out);
    }
    libtorch::set_threads(request.threads.get());
    let bar = Arc::new(Bar::new("running", "videos", global));
    args.cluster.serve("run")?;
    if let Some(settings) = args.cluster.settings()? {
        starting(&settings, &bar);
        if settings.hosts.process() > 0 {
            let version = run::cluster::follow(&request, &settings, &labelling(&bar))?;
            bar.finish();
            return finished(version, out);
        }
        request.cluster = Some(settings);
    }
    let mut progress = |progress: RunProgress<'_>| match progress {
        RunProgress::Stage { name, done: true } => bar.say(&format!("{name}: done before")),
        RunProgress::Stage { name, done: false } => bar.message(name.to_owned()),
        RunProgress::Waiting(holder) => bar.say(&format!("waiting: the store is being written by {holder}")),
        RunProgress::Epoch { row, better } => {
            bar.say(&epoch_line(row, None, better));
        }
        RunProgress::Calibrated(gain) => bar.say(&gain.to_string()),
        RunProgress::Denoised { epoch, set, unset } => bar.say(&format!(
            "denoised by epoch {epoch}: {set} labels set, {unset} unset"
        )),
    };
    let listener = RunListener {
        progress: &mut progress,
        #[cfg(feature = "encode")]
        encode: super::media::MediaArgs::listener(&bar),
        label: labelling(&bar),
        step: stepping(&bar),
    };
    let summary = run::run(&request, listener)?;
    bar.finish();
    let rejected = notes::report(&summary.rejected, global.quiet);
    match args.format {
        ReportFormat::Json => {
            let table = serde_json::json!({
                "versions": summary.versions,
                "rows": summary.table.named_rows(),
                "parsers": summary.table.named_parsers(),
                "denoising": summary.table.denoising,
            });
            print_json(&table, out)?;
        }
        ReportFormat::Table => {
            if summary.versions == 0 {
                writeln!(out, "nothing to do: the store holds what the file asks for")?;
            }
            write!(out, "{}", summary.table)?;
        }
    }
    Ok(ExitCode::from(u8::from(rejected > 0)))
}

fn labelling(bar: &Arc<Bar>) -> Listener {
    let bar = bar.clone();
    Listener::new(move |progress| match progress {
        Labelling::Waiting(holder) => bar.say(&format!("waiting: the store is being written by {holder}")),
        Labelling::Planned { shards, staged } => {
            if staged > 0 {
                bar.say(&format!(
                    "going on: {staged} of {shards} shards were scored by a run before"
                ));
            }
        }
        Labelling::Shard { .. } => bar.message("labelling"),
        Labelling::Committing => bar.message("committing"),
    })
}

/// Progress of the current training.
struct Pace {
    begun: Instant,
    videos: u64,
    name: String,
    /// Number of videos of all trainings so far, counted once per epoch.
    total: u64,
}

fn stepping(bar: &Arc<Bar>) -> run::learner::OnLearnerProgress {
    let bar = bar.clone();
    let pace = Mutex::new(Pace {
        begun: Instant::now(),
        videos: 0,
        name: String::new(),
        total: 0,
    });
    Box::new(move |doing| {
        let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
        match doing {
            LearnerProgress::Read => bar.message("reading features"),
            LearnerProgress::Stage {
                name,
                done,
                epochs,
                videos,
            } => {
                *pace = Pace {
                    begun: Instant::now(),
                    videos: 0,
                    name: name.to_owned(),
                    total: pace.total + (epochs - done) * videos,
                };
                bar.total(pace.total);
                if done > 0 && done < epochs {
                    bar.say(&format!("{name}: going on after epoch {done} of {epochs}"));
                } else {
                    bar.say(&format!("{name}: {epochs} epochs of {videos} videos"));
                }
            }
            LearnerProgress::Step(step) => {
                pace.videos += step.videos as u64;
                let speed = pace.videos as f64 / pace.begun.elapsed().as_secs_f64().max(1e-9);
                bar.message(format!(
                    "{}: loss {:.3}, {speed:.0} videos/s",
                    pace.name, step.loss
                ));
                bar.add(step.videos as u64);
            }
        }
    })
}

/// Prints a file with every key and its default.
pub(super) fn print_default(out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    out.write_all(DEFAULT.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Returns whether the command reads a run, whose networks are libtorch's.
    pub(super) fn needs_libtorch(&self) -> bool {
        self.config.is_some()
    }
}

fn check(request: &RunRequest, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    Config::read(&request.config)?;
    let Some(todo) = Todo::new(request)? else {
        writeln!(out, "well: all is to be done, media first")?;
        return Ok(ExitCode::SUCCESS);
    };
    let (all, open) = (
        todo.stages.len() + 1,
        todo.open().count() + usize::from(todo.labels),
    );
    writeln!(out, "well: {open} of {all} stages are to be done")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints which stages of a run are done.
pub(super) fn plan(args: &PlanArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let config = args.config.as_ref().context("expected CONFIG")?;
    let request = RunRequest {
        config: config.to_owned(),
        workers: 1,
        threads: NonZeroUsize::MIN,
        device: tch::Device::Cpu,
        force: false,
        cluster: None,
        #[cfg(feature = "encode")]
        commit_every: None,
        command: global.command_line(),
    };
    let todo = Todo::new(&request)?;
    if args.format == ReportFormat::Json {
        // Without a list, everything is to be done, media first.
        let stages = todo.map(|todo| {
            let open: Vec<&str> = todo.open().map(|stage| stage.name.as_str()).collect();
            let label = serde_json::json!({ "name": "label", "done": !todo.labels });
            let rest = todo.stages.iter().map(|stage| {
                serde_json::json!({ "name": stage.name, "done": !open.contains(&stage.name.as_str()) })
            });
            std::iter::once(label).chain(rest).collect::<Vec<_>>()
        });
        print_json(&serde_json::json!({ "stages": stages }), out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(todo) = todo else {
        writeln!(
            out,
            "all is to be done, media first: what else there is depends on them"
        )?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut line = |name: &str, done: bool| {
        let what = if done { "done" } else { "to be done" };
        writeln!(out, "{name:<10} {what}")
    };
    line("label", !todo.labels)?;
    let open: Vec<&str> = todo.open().map(|stage| stage.name.as_str()).collect();
    for stage in &todo.stages {
        line(&stage.name, !open.contains(&stage.name.as_str()))?;
    }
    Ok(ExitCode::SUCCESS)
}
