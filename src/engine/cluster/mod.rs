//! Links between the processes of one run.
//!
//! | module | contents |
//! |---|---|
//! | [`hosts`] | the hosts file |
//! | `meeting` | how the processes connect, and check that all were started with the same request |
//! | `control` | control links: heartbeats, progress, and the reason why a run ends |
//! | `frame` | the messages of the control links, and how they are encoded |
//! | `link` | the sockets of timely, wrapped so that a lost peer is an error and not a panic |

pub(crate) mod control;
pub(crate) mod frame;
pub mod hosts;
pub(crate) mod link;
pub(crate) mod meeting;
