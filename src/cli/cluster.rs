//! The options of commands that several processes can run together.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::progress::Bar;
use crate::engine::cluster::hosts::{Hosts, bind_address};
use crate::engine::cluster::secret::Secret;
use crate::engine::cluster::settings::ClusterSettings;
use crate::error::cluster::ClusterError;

/// The commands that several processes can run together.
pub(super) const COMMANDS: &str = "`label`, `relabel`, `denoise`, `run`, `watch`, `encode` and `predict`";

/// The environment variable of the processes.
const HOSTS: &str = "VAPLAN_HOSTS";

/// The environment variable of the secret.
const SECRET: &str = "VAPLAN_SECRET";

/// The options of commands that several processes can run together.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Several processes")]
pub(super) struct ClusterArgs {
    /// Processes of the cluster: a file with one host:port per line, or a list host:port,host:port. Start every process
    /// with the same arguments and its own --process. All processes need one secret, and the same store and inputs: at URLs, or
    /// on a file system that all see at the same paths
    #[arg(
        long,
        value_name = "FILE|LIST",
        env = "VAPLAN_HOSTS",
        requires = "process",
        value_parser = hosts_text
    )]
    hosts: Option<String>,
    /// Number of this process, its entry in --hosts counted from 0; process 0 commits. `slurm` and `mpi` take the number
    /// from the launcher, and `hostname` from the end of the host name, as in vaplan-2
    #[arg(long, value_name = "I", env = "VAPLAN_PROCESS", requires = "hosts")]
    process: Option<String>,
    /// Address at which this process listens, if it differs from its entry in --hosts, for example 0.0.0.0:2101
    #[arg(long, value_name = "ADDRESS:PORT", env = "VAPLAN_BIND", value_parser = bind_address)]
    bind: Option<String>,
    /// File with the secret by which the processes of --hosts recognise each other, at least 16 bytes [default: the
    /// environment variable VAPLAN_SECRET]. Connections are authenticated, not encrypted
    #[arg(long, value_name = "FILE", env = "VAPLAN_SECRET_FILE")]
    secret_file: Option<PathBuf>,
    /// Time that the processes of --hosts wait for each other at the start. A process that is silent for 15 s, or for
    /// this time if it is shorter, counts as lost
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        env = "VAPLAN_CLUSTER_TIMEOUT"
    )]
    cluster_timeout: u64,
    /// Address to serve numbers of this process for Prometheus on, at http://ADDRESS/metrics, and a page for health checks at
    /// /healthz. It must be a loopback address; port 0 takes a free port [default: none]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "VAPLAN_METRICS",
        help_heading = "Options"
    )]
    metrics: Option<SocketAddr>,
}

impl ClusterArgs {
    /// The address of `--metrics`.
    pub(super) fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Serves the numbers of this process, if the user asked for it. `command` is the name of the command.
    pub(super) fn serve(&self, command: &'static str) -> anyhow::Result<()> {
        let Some(address) = self.metrics else {
            return Ok(());
        };
        let process = self.process.as_deref().map(process_number).transpose()?;
        super::metrics::serve(address, command, process.unwrap_or(0))
    }

    /// Returns whether the user named hosts.
    #[cfg(feature = "encode")]
    pub(super) fn given(&self) -> bool {
        self.hosts.is_some()
    }

    /// Returns how this process takes part in a cluster; `None` if it works alone.
    pub(super) fn settings(&self) -> anyhow::Result<Option<ClusterSettings>> {
        let (Some(hosts), Some(process)) = (&self.hosts, &self.process) else {
            return Ok(None);
        };
        let hosts = Hosts::of_text(hosts, process_number(process)?)?;
        if hosts.processes() == 1 {
            return Ok(None);
        }
        let secret = match &self.secret_file {
            Some(path) => Secret::read(path)?,
            None => {
                let text = std::env::var(SECRET).map_err(|_| ClusterError::SecretMissing)?;
                Secret::new(&text, &format!("variable {SECRET}"))?
            }
        };
        Ok(Some(ClusterSettings {
            hosts,
            secret,
            bind: self.bind.clone(),
            timeout: Duration::from_secs(self.cluster_timeout),
        }))
    }
}

/// Prints which process of how many this is.
pub(super) fn starting(settings: &ClusterSettings, bar: &Bar) {
    let (here, of) = (settings.hosts.here(), settings.hosts.processes());
    bar.say(&format!("{here} of {of} processes: starting"));
}

/// Prints the result in a process that does not commit, and returns the exit status of the process that does.
pub(super) fn followed(version: u64, rejects: Option<u64>, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let Some(rejects) = rejects else {
        writeln!(out, "nothing to do: version {version} holds these labels")?;
        return Ok(ExitCode::SUCCESS);
    };
    writeln!(
        out,
        "version {version}: committed by process 0, which has the counts"
    )?;
    Ok(ExitCode::from(u8::from(rejects > 0)))
}

/// Prints the latest version in a process that helped process 0 until the end of its command.
pub(super) fn finished(version: u64, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    writeln!(
        out,
        "version {version}: committed by process 0, which has the report"
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a hosts file or a list of hosts. A list, and a single address, have no `://`.
fn hosts_text(text: &str) -> Result<String, String> {
    match text.contains("://") {
        true => Ok(super::paths::only_local(text.as_ref(), "--hosts")?
            .display()
            .to_string()),
        false => Ok(text.to_owned()),
    }
}

/// Refuses a command that runs in one process and writes, if the environment says that several processes run it. Each of them
/// would do the whole work and write the same store or files.
///
/// # Errors
/// Returns an error that names the command, or that the hosts cannot be read.
pub(super) fn refuse_several(command: &str) -> anyhow::Result<()> {
    let hosts = std::env::var(HOSTS).unwrap_or_default();
    if hosts.is_empty() {
        return Ok(());
    }
    let text = hosts_text(&hosts).map_err(|problem| anyhow::anyhow!("variable {HOSTS}: {problem}"))?;
    let processes = Hosts::of_text(&text, 0)?.processes();
    anyhow::ensure!(
        processes == 1,
        "`{command}` runs in one process and writes, but variable {HOSTS} names {processes} processes: start it once, \
         without {HOSTS}. {COMMANDS} share their work between processes"
    );
    Ok(())
}

/// The variables of launchers that hold the number of a process.
const LAUNCHERS: [(&str, &[&str]); 2] = [
    ("slurm", &["SLURM_PROCID"]),
    ("mpi", &["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"]),
];

/// Reads the number of a process: a number, or the name of a launcher.
fn process_number(text: &str) -> Result<usize, ClusterError> {
    let problem = |problem: String| ClusterError::Launcher {
        launcher: text.to_owned(),
        problem,
    };
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    if let Some((_, variables)) = LAUNCHERS.iter().find(|(name, _)| *name == text) {
        let found = variables
            .iter()
            .find_map(|name| Some((name, std::env::var(name).ok()?)));
        let Some((name, value)) = found else {
            let names = variables.join(" or ");
            return Err(problem(format!(
                "expected the environment variable {names}, which the launcher sets"
            )));
        };
        let number = value.parse();
        return number.map_err(|_| problem(format!("{name} is `{value}`, expected a number from 0")));
    }
    if text == "hostname" {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        return ordinal(name).ok_or_else(|| {
            problem(format!(
                "the host name is `{name}`, expected a name that ends in -0, -1 and so on"
            ))
        });
    }
    Err(problem(
        "expected a number from 0, `slurm`, `mpi` or `hostname`".to_owned(),
    ))
}

/// The number at the end of a host name, as Kubernetes gives it to the pods of a StatefulSet.
fn ordinal(host: &str) -> Option<usize> {
    let (_, digits) = host.rsplit_once('-')?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_of_a_stateful_set_ends_in_the_number_of_its_process() {
        for (host, number) in [
            ("vaplan-0", Some(0)),
            ("my-set-12", Some(12)),
            ("vaplan", None),
            ("vaplan-", None),
            ("vaplan-a1", None),
            ("vaplan-+1", None),
        ] {
            assert_eq!(ordinal(host), number, "{host}");
        }
    }

    #[test]
    fn a_process_is_a_number_or_comes_from_a_launcher() {
        assert_eq!(process_number("3").unwrap(), 3);
        let told = |text: &str| process_number(text).unwrap_err().to_string();
        assert_eq!(
            told("-1"),
            "--process -1: expected a number from 0, `slurm`, `mpi` or `hostname`"
        );
        if std::env::var_os("SLURM_PROCID").is_none() {
            let expected =
                "--process slurm: expected the environment variable SLURM_PROCID, which the launcher sets";
            assert_eq!(told("slurm"), expected);
        }
    }
}
