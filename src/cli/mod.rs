//! The command line. Each subcommand has one file, which reads the options, calls the library, and prints the result.
#![allow(
    rustdoc::invalid_html_tags,
    reason = "help texts show placeholders such as <id>"
)]

#[cfg(feature = "train")]
mod ablate;
mod audit;
mod calibrate;
mod check;
mod choice;
mod cluster;
mod completions;
mod demo;
mod denoise;
#[cfg(feature = "encode")]
mod encode;
mod eval;
mod export;
#[cfg(feature = "train")]
mod handover;
mod label;
#[cfg(feature = "train")]
mod learning;
mod left_out;
#[cfg(feature = "train")]
pub mod libtorch;
mod log;
mod logging;
#[cfg(feature = "encode")]
mod media;
mod metrics;
#[cfg(feature = "encode")]
mod models;
mod notes;
mod objects;
mod optimize;
mod panics;
#[cfg(all(feature = "encode", feature = "train"))]
mod parse;
mod paths;
#[cfg(feature = "train")]
mod predict;
pub mod program;
mod progress;
#[cfg(feature = "query")]
mod prompt;
#[cfg(feature = "query")]
mod query;
mod relabel;
mod report;
mod report_format;
mod rule;
#[cfg(feature = "train")]
mod run;
mod serve;
mod show;
mod signals;
pub mod stderr;
mod store;
mod synth;
#[cfg(feature = "train")]
mod train;
mod vacuum;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vaplan_schemas::storage::redacted;

/// Make segment-level labels from weakly labelled video, and update them when inputs change
///
/// Exit status: 0 done; 1 done, but rows were rejected; 2 not done.
#[derive(Debug, Parser)]
#[command(
    name = "vaplan",
    version,
    max_term_width = 100,
    mut_args(paths::read_argument),
    mut_subcommands(paths::read)
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The options that every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Print only results and errors
    #[arg(long, short, global = true, env = "VAPLAN_QUIET")]
    pub quiet: bool,
    /// Format of the log lines on standard error
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        env = "VAPLAN_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    /// Folder for what the program keeps on the local disk for stores and inputs at URLs: staged shards and copies of inputs
    /// [default: vaplan in the user's cache folder]
    #[arg(long, global = true, value_name = "DIR", env = "VAPLAN_SCRATCH")]
    pub scratch: Option<std::path::PathBuf>,
    /// Limit of the copies of inputs at URLs in the scratch folder, in bytes [default: 68719476736, 64 GiB]
    #[arg(long, global = true, value_name = "BYTES", env = "VAPLAN_CACHE_BYTES")]
    pub cache_bytes: Option<u64>,
    /// The command line of this command, if it differs from the arguments of the process: `demo` runs several commands
    /// in one process. `None`: the arguments of the process.
    #[arg(skip)]
    pub asked: Option<String>,
}

impl Global {
    /// Returns the command line as a user would type it, without secrets in URLs. The `versions` table records it.
    fn command_line(&self) -> String {
        let words = self.asked.clone().unwrap_or_else(|| {
            let words = std::env::args_os()
                .skip(1)
                .map(|word| quoted(&word.to_string_lossy()));
            std::iter::once("vaplan".to_owned())
                .chain(words)
                .collect::<Vec<_>>()
                .join(" ")
        });
        redacted(&words)
    }
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines of text for people
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "encode")]
    Encode(encode::Args),
    Label(label::LabelArgs),
    Relabel(relabel::Args),
    Plan(relabel::PlanArgs),
    #[cfg(feature = "train")]
    Run(run::Args),
    #[cfg(feature = "train")]
    Train(train::Args),
    #[cfg(feature = "train")]
    Predict(predict::Args),
    #[cfg(all(feature = "encode", feature = "train"))]
    Parse(parse::ParseArgs),
    #[cfg(feature = "train")]
    Ablate(ablate::Args),
    Denoise(denoise::DenoiseArgs),
    Calibrate(calibrate::CalibrateArgs),
    Audit(audit::AuditArgs),
    Watch(watch::Args),
    Serve(serve::ServeArgs),
    Eval(eval::EvalArgs),
    #[cfg(feature = "query")]
    Query(query::QueryArgs),
    Show(show::ShowArgs),
    Report(report::ReportArgs),
    Log(log::LogArgs),
    Export(export::ExportArgs),
    Check(check::CheckArgs),
    Optimize(optimize::Args),
    Store(store::StoreArgs),
    Vacuum(vacuum::Args),
    Synth(synth::SynthArgs),
    #[cfg(feature = "encode")]
    Models(models::Args),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Returns the name of the command if it runs in one process and writes a store or files. Several processes that run it at once
    /// would write the same things.
    fn writes_alone(&self) -> Option<&'static str> {
        match self {
            // These commands take `--hosts`.
            #[cfg(feature = "encode")]
            Command::Encode(_) => None,
            #[cfg(feature = "train")]
            Command::Run(_) | Command::Predict(_) => None,
            Command::Label(_) | Command::Relabel(_) | Command::Denoise(_) | Command::Watch(_) => None,
            // These commands read.
            Command::Plan(_)
            | Command::Eval(_)
            | Command::Show(_)
            | Command::Log(_)
            | Command::Check(_)
            | Command::Completions(_) => None,
            #[cfg(feature = "query")]
            Command::Query(args) => args.writes().then_some("query --out"),
            Command::Calibrate(args) => args.writes().then_some("calibrate --out or --plot"),
            Command::Audit(args) => args.writes().then_some("audit --out or --verdicts"),
            #[cfg(feature = "train")]
            Command::Train(_) => Some("train"),
            #[cfg(feature = "train")]
            Command::Ablate(_) => Some("ablate"),
            #[cfg(all(feature = "encode", feature = "train"))]
            Command::Parse(_) => Some("parse"),
            #[cfg(feature = "encode")]
            Command::Models(_) => Some("models"),
            Command::Serve(_) => Some("serve"),
            Command::Report(_) => Some("report"),
            Command::Export(_) => Some("export"),
            Command::Optimize(_) => Some("optimize"),
            Command::Store(_) => Some("store"),
            Command::Vacuum(_) => Some("vacuum"),
            Command::Synth(_) => Some("synth"),
            Command::Demo(_) => Some("demo"),
        }
    }
}

#[cfg(feature = "train")]
const NOT_LINKED: &str = "this program is not linked to libtorch, which the command computes with";

impl Cli {
    /// Returns whether the command computes with libtorch, so that `vaplan-torch` must run it.
    #[cfg(feature = "train")]
    pub fn needs_libtorch(&self) -> bool {
        match &self.command {
            Command::Run(args) => args.needs_libtorch(),
            Command::Train(_) | Command::Predict(_) | Command::Ablate(_) | Command::Demo(_) => true,
            #[cfg(feature = "encode")]
            Command::Parse(_) => true,
            Command::Plan(args) => args.of_a_run(),
            Command::Watch(args) => args.learns(),
            _ => false,
        }
    }

    /// Runs the command. Results go to `out`, everything else to standard error.
    ///
    /// # Errors
    /// Returns the error that prevented the command from completing. The exit status is then 2.
    #[cfg(feature = "train")]
    pub fn run(&self, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let global = &self.global;
        match &self.command {
            Command::Run(args) => self.begin(|| run::run(args, global, out)),
            Command::Train(args) => self.begin(|| train::run(args, global, out)),
            Command::Predict(args) => self.begin(|| predict::run(args, global, out)),
            #[cfg(feature = "encode")]
            Command::Parse(args) => self.begin(|| parse::run(args, global, out)),
            Command::Ablate(args) => self.begin(|| ablate::run(args, global, out)),
            Command::Demo(args) => self.begin(|| demo::run(args, global, out)),
            Command::Plan(args) if args.of_a_run() => self.begin(|| run::plan(args, global, out)),
            Command::Watch(args) if args.learns() => self.begin(|| watch::run_learning(args, global, out)),
            _ => self.run_without_libtorch(out),
        }
    }

    /// Runs the command. Results go to `out`, everything else to standard error.
    ///
    /// # Errors
    /// Returns the error that prevented the command from completing. The exit status is then 2.
    #[cfg(not(feature = "train"))]
    pub fn run(&self, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        self.run_without_libtorch(out)
    }

    /// Runs the command, as [`Cli::run`] does, if the command does not compute with libtorch.
    ///
    /// Nothing that this function calls may call libtorch: the linker then leaves libtorch out of `vaplan`.
    ///
    /// # Errors
    /// As [`Cli::run`]; also if the command computes with libtorch.
    pub fn run_without_libtorch(&self, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let global = &self.global;
        self.begin(|| match &self.command {
            #[cfg(feature = "encode")]
            Command::Encode(args) => encode::run(args, global, out),
            Command::Label(args) => label::run(args, global, out),
            Command::Relabel(args) => relabel::run(args, global, out),
            Command::Plan(args) => relabel::plan(args, out),
            Command::Calibrate(args) => calibrate::run(args, global, out),
            Command::Audit(args) => audit::run(args, global, out),
            Command::Denoise(args) => denoise::run(args, global, out),
            Command::Watch(args) => watch::run(args, global, out),
            Command::Serve(args) => serve::run(args, global, out),
            Command::Eval(args) => eval::run(args, global, out),
            #[cfg(feature = "query")]
            Command::Query(args) => query::run(args, global, out),
            Command::Show(args) => show::run(args, global, out),
            Command::Report(args) => report::run(args, global, out),
            Command::Log(args) => log::run(args, global, out),
            Command::Export(args) => export::run(args, global, out),
            Command::Check(args) => check::run(args, global, out),
            Command::Optimize(args) => optimize::run(args, global, out),
            #[cfg(feature = "encode")]
            Command::Models(args) => models::run(args, global, out),
            Command::Store(args) => store::run(args, global, out),
            Command::Vacuum(args) => vacuum::run(args, global, out),
            Command::Synth(args) => synth::run(args, global, out),
            Command::Completions(args) => completions::run(args, global, out),
            #[cfg(not(feature = "train"))]
            Command::Demo(args) => demo::run(args, global, out),
            #[cfg(feature = "train")]
            Command::Run(args) if !args.needs_libtorch() => run::print_default(out),
            #[cfg(feature = "train")]
            Command::Run(_)
            | Command::Train(_)
            | Command::Predict(_)
            | Command::Ablate(_)
            | Command::Demo(_) => {
                anyhow::bail!(NOT_LINKED)
            }
            #[cfg(all(feature = "encode", feature = "train"))]
            Command::Parse(_) => {
                anyhow::bail!(NOT_LINKED)
            }
        })
    }

    fn begin(&self, command: impl FnOnce() -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
        logging::start(&self.global);
        panics::silence_contained();
        if let Some(folder) = &self.global.scratch {
            vaplan_schemas::storage::scratch::set(folder.clone());
        }
        if let Some(bytes) = self.global.cache_bytes {
            vaplan_schemas::storage::scratch::set_cache_bytes(bytes);
        }
        if let Some(command) = self.command.writes_alone() {
            cluster::refuse_several(command)?;
        }
        let done = command();
        objects::log_requests();
        done
    }

    /// Returns the options that every command takes.
    pub fn global(&self) -> &Global {
        &self.global
    }
}

/// Returns the number of workers that the user gave, or one per core.
fn workers(asked: Option<std::num::NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
    asked.map_or_else(cores, |workers| workers.get())
}

/// Quotes a word if a shell would not take it as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,=:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("{word:?}")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Splits a line as a shell does, with single and double quotes.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for letter in line.chars() {
            match (quote, letter) {
                (Some(open), _) if open == letter => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                (None, ' ') => words.extend(word.take()),
                _ => word.get_or_insert_default().push(letter),
            }
        }
        words.extend(word);
        words
    }

    #[test]
    fn every_command_has_examples_and_every_example_is_a_command_line() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            if ["demo", "help", "plan"].contains(&name) {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_else(|| panic!("`{name}` has no examples"));
            let lines = help.lines().filter_map(|line| line.strip_prefix("  vaplan "));
            let lines: Vec<&str> = lines.collect();
            assert!(!lines.is_empty(), "`{name}`: {help}");
            for line in lines {
                // What a shell does with the output is not the program's.
                let words = words(&format!("vaplan {line}")).into_iter();
                let parsed = Cli::try_parse_from(words.take_while(|word| word != "|" && word != ">"));
                assert!(parsed.is_ok(), "`{line}`: {}", parsed.err().unwrap());
            }
        }
    }
}
