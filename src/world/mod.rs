//! The values that the labels of a store depend on, changes of a store as data, and the videos that a change touches.
//!
//! No code of this module writes a store: [`engine`](crate::engine) makes store versions from the results of this
//! module.
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | rule, scale and thresholds |
//! | [`shares`] | shares of events, as a prior for thresholds |
//! | [`state`] | [`World`]: everything that labels depend on except single videos, as a store version records it |
//! | [`video`] | one video, and which video the key of a feature file names |
//! | `inputs` | the paths of the inputs of a store, and their move to another folder |
//! | [`evidence`] | user labels and predictions that a store version holds |
//! | `bucketed` | the predictions that count, on disk by bucket |
//! | [`rejects`] | rejections of the label graph as rows of table `rejects` |
//! | [`changes`] | [`Changes`](changes::Changes): the changes that a user asks for |
//! | [`resolve`] | the world before and after a change |
//! | `overrides` | user labels that decide stored tracks alone |
//! | [`scope`] | the videos and tracks that a change can touch |
//! | [`flips`] | the labels that PLD flips after a change of predictions or settings |
//! | [`epochs`], `predictions` | the epochs of a store, and predictions that come with a change |

pub(crate) mod both;
pub(crate) mod bucketed;
pub mod changes;
pub mod epochs;
pub mod evidence;
pub mod flips;
pub(crate) mod hash;
pub(crate) mod inputs;
mod overrides;
pub(crate) mod predictions;
pub mod rejects;
pub mod resolve;
pub mod scope;
pub mod settings;
pub mod shares;
pub mod state;
pub(crate) mod user;
pub mod video;
pub(crate) mod videos;

pub use both::Both;
pub use state::{Active, KeptFit, PromptSet, World};
pub use video::{KnownVideo, Meaning, Video, VideoSet};
