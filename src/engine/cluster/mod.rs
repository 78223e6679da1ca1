//! Links between the processes of one run.
//!
//! | module | contents |
//! |---|---|
//! | [`hosts`] | the hosts file, or the list of hosts |
//! | [`secret`] | the shared secret, and the handshake of a connection |
//! | [`settings`] | how a process takes part in a cluster |
//! | `door` | accepts connections and checks their handshakes |
//! | `meeting` | how the processes connect, and check that all were started with the same request |
//! | `control` | control links: heartbeats, progress, and the reason why a run ends |
//! | `frame` | the messages of the control links, and how they are encoded |
//! | `link` | the sockets of timely, wrapped so that a lost peer is an error and not a panic |
//! | `member` | this process in a cluster whose processes have met |
//! | [`outcome`] | the result of a process |
//! | [`resident`] | graphs that stay in memory, for `run` and `watch` |
//! | `follow` | what the processes other than process 0 do when all videos are labelled |

pub(crate) mod control;
mod door;
pub(crate) mod follow;
pub(crate) mod frame;
pub mod hosts;
pub(crate) mod link;
pub(crate) mod meeting;
pub(crate) mod member;
pub mod outcome;
mod peak;
pub mod resident;
pub mod secret;
pub mod settings;
