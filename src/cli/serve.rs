//! `vaplan serve`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Global;
use crate::serve::{self, ServeProgress, ServeRequest, ServeStop};

/// Open a page in the browser to see and correct the labels of a store
///
/// The command prints a URL and serves the page until SIGTERM or SIGINT. The page has an overview, lists of the videos
/// that are worth a look, and for each video a timeline beside its sound and picture. A click sets or clears a label. Each
/// correction becomes one store version with its author; it outranks thresholds and denoising until it is withdrawn.
///
/// The server answers only on 127.0.0.1, and only requests with the token of the printed URL. It loads nothing from other
/// hosts. `watch` and other commands can change the store at the same time. From another machine, use a tunnel:
/// `ssh -L 8000:127.0.0.1:8000 HOST`, with --port 8000.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan serve --store store
  vaplan serve --store store --media clips --author Ana
  vaplan serve --store store --port 8000 --read-only")]
pub(super) struct ServeArgs {
    /// Store to show and correct
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Folder with a file for each video, such as VIDEO.mp4 or VIDEO.wav; VIDEO is the full name or its first 11
    /// characters. The folder is listed when the command starts [default: none, timelines only]
    #[arg(long, value_name = "DIR", env = "VAPLAN_MEDIA")]
    media: Option<PathBuf>,
    /// Port on 127.0.0.1; 0 takes a free port
    #[arg(long, value_name = "PORT", default_value_t = 0, env = "VAPLAN_PORT")]
    port: u16,
    /// Refuse corrections
    #[arg(long)]
    read_only: bool,
    /// Author of the corrections, for table `versions` [default: the user name of the system]
    #[arg(long, value_name = "NAME", env = "VAPLAN_AUTHOR")]
    author: Option<String>,
    /// Number of dataflow workers. One worker answers a single correction fastest
    #[arg(long, value_name = "N", default_value = "1", env = "VAPLAN_WORKERS")]
    workers: std::num::NonZeroUsize,
}

pub(super) fn run(args: &ServeArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
    let request = ServeRequest {
        store: args.store.clone(),
        media: args.media.clone(),
        port: args.port,
        read_only: args.read_only,
        author: args.author.clone().or_else(user).map(Into::into),
        workers: args.workers.get(),
        command: global.command_line(),
        stop: ServeStop::default(),
    };
    let stop = request.stop.clone();
    super::signals::on_end(move || stop.stop())?;
    let mut written = Ok(());
    serve::run(&request, &mut |progress| match progress {
        // The URL is the result of the command, so that it is printed with --quiet, too.
        ServeProgress::Listening { url } => {
            written = writeln!(out, "{url}").and_then(|()| out.flush());
            if !global.quiet {
                super::stderr::tell("open this URL in a browser; Ctrl-C ends the server");
            }
        }
        ServeProgress::Stopped if !global.quiet => super::stderr::tell("stopped"),
        ServeProgress::Stopped => {}
    })?;
    written?;
    Ok(ExitCode::SUCCESS)
}
