//! How a process takes part in a cluster.

use std::time::Duration;

use super::hosts::Hosts;
use super::secret::Secret;

/// How a process takes part in a cluster. All processes must have the same hosts, secret and time limit.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The processes, and which of them this process is.
    pub hosts: Hosts,
    /// The shared secret.
    pub secret: Secret,
    /// The address at which this process listens; `None`: its own address in `hosts`.
    pub bind: Option<String>,
    /// How long the processes wait for each other at the start.
    pub timeout: Duration,
}
