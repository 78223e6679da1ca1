//! `vaplan ablate`.

use std::io::Write;
use std::process::ExitCode;

use vaplan_schemas::rows::Split;

use super::Global;
use super::learning::{How, Source};
use super::progress::Bar;
use crate::parser::Supervision;
use crate::parser::ablate::{self, Progress, Request};

/// Train every line of the ablation over several seeds, and print their scores
///
/// Lines: HAN on weak labels as published, on pseudo labels, on pseudo labels with the richness-aware loss. Each network is
/// scored on --split at its best epoch on val. No version is written to the store. The scores of a network that is done are
/// kept in its folder: asked again, or after a kill, it is not trained again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    how: How,
    /// Seeds of each line
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// Lines of the table
    #[arg(
        long,
        value_name = "LINES",
        value_delimiter = ',',
        default_value = "weak,pseudo,pseudo+richness"
    )]
    lines: Vec<Supervision>,
    /// Part of the data set to score: train, val or test
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    split: Split,
    /// Form of the result: a table of means, or JSON with every run, unrounded
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// Form of the result.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let request = Request {
        store: args.source.store.clone(),
        version: args.source.version(),
        features: args.source.features(),
        settings: args.how.settings()?,
        supervisions: args.lines.clone(),
        seeds: args.seeds.clone(),
        split: args.split,
        threads: args.how.threads(),
        device: args.how.device(),
        kept: args.source.folder().join("ablate"),
    };
    let bar = Bar::new("training", "videos", global);
    let ablation = ablate::run(&request, &mut |progress| match progress {
        Progress::Planned(videos) => bar.total(videos),
        Progress::Videos(videos) => bar.add(videos),
        Progress::Run(run) => bar.say(&format!(
            "{}, seed {}: best epoch {}, segment Type@AV {:.2}",
            run.supervision.as_str(),
            run.seed,
            run.epoch,
            run.scores[0].1[3]
        )),
    })?;
    bar.finish();
    match args.format {
        Format::Table => write!(out, "{ablation}")?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&ablation)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
