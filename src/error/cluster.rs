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
    #[error("hosts file `{path}` names no host, expected one host:port a line")]
    HostsEmpty {
        /// Which file.
        path: PathBuf,
    },
    /// A line that is no `host:port`.
    #[error("hosts file `{path}`, line {line}: `{found}`, expected host:port with a port from 1 to 65535")]
    HostLine {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What it says.
        found: String,
    },
    /// Two processes with one address.
    #[error(
        "hosts file `{path}`, line {line}: `{found}` is line {first} already, expected one address a process"
    )]
    HostTwice {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The line that has it too.
        first: usize,
        /// The address.
        found: String,
    },
    /// An index beyond the hosts.
    #[error("process {process}, expected 0 to {last}: hosts file `{path}` names {} hosts", last + 1)]
    Process {
        /// What was asked.
        process: usize,
        /// The last there is.
        last: usize,
        /// Which file.
        path: PathBuf,
    },
    /// The address of this process cannot be listened at.
    #[error("{here} cannot listen at its address")]
    Listen {
        /// This process.
        here: Peer,
        /// Why not: in use, of another machine.
        #[source]
        source: io::Error,
    },
    /// Some process did not come.
    #[error("{who} did not come within {seconds} s{}", last.as_ref().map_or(String::new(), |last| format!(": {last}")))]
    Absent {
        /// Which, with their addresses.
        who: String,
        /// How long it was waited for.
        seconds: u64,
        /// What the last attempt said, where there was one.
        last: Option<String>,
    },
    /// Processes that were asked different things.
    #[error("expected all processes to be asked the same: {0}")]
    Differ(String),
    /// Two processes of one index.
    #[error("{0} came twice, expected one process of each index")]
    Twice(Peer),
    /// A process that went away before the end.
    #[error("{peer} was lost: {why}")]
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
