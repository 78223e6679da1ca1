//! Links between the processes of one run.
//!
//! | module | what |
//! |---|---|
//! | [`hosts`] | the hosts file |
//! | `meeting` | how the processes find each other and agree on what is asked |
//! | `control` | signs of life, and why a run ends; `frame` is what is said |
//! | `link` | timely's sockets, so that a lost peer is an error and not a panic |

pub(crate) mod control;
pub(crate) mod frame;
pub mod hosts;
pub(crate) mod link;
pub(crate) mod meeting;
