//! What keeps several processes from doing a run together.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its index, from 0.
    pub process: usize,
    /// Its `host:port`.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.process, self.address)
    }
}

/// Where the addresses of the processes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostSource {
    /// A file with one address per line.
    File(PathBuf),
    /// A list with commas.
    List(String),
}

impl HostSource {
    fn unit(&self) -> &'static str {
        match self {
            HostSource::File(_) => "line",
            HostSource::List(_) => "entry",
        }
    }
}

impl fmt::Display for HostSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostSource::File(path) => write!(f, "hosts file `{}`", path.display()),
            HostSource::List(list) => write!(f, "hosts list `{list}`"),
        }
    }
}

/// What the user can do about an address that cannot be listened at.
fn listen_advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            "another program or process of a cluster listens there: end it, or choose another port in the hosts of every process"
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not listen at this port: choose a port from 1024 in the hosts of every process"
        }
        _ => {
            "this host has no such address: check --process, or name an address of this host by `--bind ADDRESS:PORT`"
        }
    }
}

/// What keeps several processes from doing a run together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The hosts file cannot be read.
    #[error("cannot read hosts file `{path}`")]
    HostsUnread {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The hosts file names no host.
    #[error("{of} names no host, expected one host:port per {}", of.unit())]
    HostsEmpty {
        /// Where the hosts come from.
        of: HostSource,
    },
    /// A line that is no `host:port`.
    #[error(
        "{of}, {} {line}: `{found}`, expected host:port with a port from 1 to 65535, and an IPv6 address in brackets, as in \
         [::1]:2101", of.unit()
    )]
    HostLine {
        /// Where the hosts come from.
        of: HostSource,
        /// From 1.
        line: usize,
        /// What it says.
        found: String,
    },
    /// Two processes with one address.
    #[error(
        "{of}, {} {line}: `{found}` is {} {first} already, expected one address a process", of.unit(), of.unit()
    )]
    HostTwice {
        /// Where the hosts come from.
        of: HostSource,
        /// From 1.
        line: usize,
        /// The line that has it too.
        first: usize,
        /// The address.
        found: String,
    },
    /// An index beyond the hosts.
    #[error("process {process}, expected 0 to {last}: {of} names {} hosts", last + 1)]
    Process {
        /// What was asked.
        process: usize,
        /// The last there is.
        last: usize,
        /// Where the hosts come from.
        of: HostSource,
    },
    /// No variable of the launcher has the index of this process.
    #[error("--process {launcher}: {problem}")]
    Launcher {
        /// The launcher, as the user named it.
        launcher: String,
        /// What is missing or wrong.
        problem: String,
    },
    /// No secret was given.
    #[error(
        "the processes of --hosts need a shared secret, expected --secret-file FILE or the environment variable \
         VAPLAN_SECRET with the same secret for every process: `openssl rand -hex 32` makes one"
    )]
    SecretMissing,
    /// The file of the secret cannot be read.
    #[error("cannot read secret file `{path}`")]
    SecretUnread {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A secret that can be guessed.
    #[error(
        "the secret of {from} has {found} bytes, expected at least {least}: `openssl rand -hex 32` makes one"
    )]
    SecretShort {
        /// Where the secret comes from.
        from: String,
        /// Its length.
        found: usize,
        /// The shortest length.
        least: usize,
    },
    /// Another process has another secret.
    #[error(
        "{peer} and this process have different secrets: give every process the same --secret-file or VAPLAN_SECRET"
    )]
    Secret {
        /// Which.
        peer: Peer,
    },
    /// The address of this process cannot be listened at.
    #[error(
        "{here} cannot listen at {}: {}",
        bind.as_ref().map_or_else(|| "its address".to_owned(), |bind| format!("`{bind}`")),
        listen_advice(source.kind())
    )]
    Listen {
        /// The address of `--bind`, if there is one.
        bind: Option<String>,
        /// This process.
        here: Peer,
        /// Why not: in use, of another machine.
        #[source]
        source: io::Error,
    },
    /// Some process did not come.
    #[error(
        "{who} did not come within {seconds} s{}; start it with the same arguments and its own --process, check that its \
         port can be reached from this host, or wait longer with --cluster-timeout",
        last.as_ref().map_or(String::new(), |last| format!(": {last}"))
    )]
    Absent {
        /// Which, with their addresses.
        who: String,
        /// How long it was waited for.
        seconds: u64,
        /// What the last attempt said, where there was one.
        last: Option<String>,
    },
    /// Processes that were asked different things.
    #[error(
        "expected all processes to be asked the same: {0}; start every process with the same hosts, arguments, inputs and \
         program, and its own --process"
    )]
    Differ(String),
    /// Two processes of one index.
    #[error(
        "{0} came twice, expected one process of each index: give every process its own --process, and end the processes of \
         an earlier run"
    )]
    Twice(Peer),
    /// A process that went away before the end.
    #[error(
        "{peer} was lost: {why}; the last version is whole, and a new run with the same arguments reuses finished work"
    )]
    Lost {
        /// Which.
        peer: Peer,
        /// What showed it.
        why: String,
    },
    /// A process that ended with an error of its own.
    #[error("{peer} failed: {reason}")]
    Failed {
        /// Which.
        peer: Peer,
        /// Its error.
        reason: String,
    },
    /// Process 0 ended the run. Holds the reason that process 0 sent.
    #[error("{0}")]
    EndedByLeader(String),
    /// A process whose plan differs from that of process 0, although the arguments are equal.
    #[error(
        "{here} plans another run than {leader}: expected one file system with the same inputs, and one program version"
    )]
    Plan {
        /// This process.
        here: Peer,
        /// Process 0.
        leader: Peer,
    },
    /// A process that has another store than process 0.
    #[error("store `{store}` is not that of {leader}, expected one folder that all processes see")]
    Store {
        /// Where this process looked.
        store: PathBuf,
        /// Process 0.
        leader: Peer,
    },
    /// A part of this process went away.
    #[error("a thread of this process panicked")]
    Panicked,
}
