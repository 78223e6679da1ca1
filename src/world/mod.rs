//! What the labels of a store are made by, changes of it as data, and which videos a change touches.
//!
//! Nothing here writes a store: [`engine`](crate::engine) turns what this module says into store versions.
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | rule, scale and thresholds |
//! | [`state`] | [`World`]: everything labels depend on beside single videos, read back from a store version |
//! | [`video`] | one video, and which video the key of a feature file names |
//! | `inputs` | where the inputs of a store are, and how they move |
//! | [`kept`] | user labels and predictions that a store version holds |
//! | [`rejects`] | rejected records of the graph as rows of table `rejects` |
//! | [`changes`] | [`Changes`](changes::Changes): what a user asks to change |
//! | [`resolve`] | the world before and after a change |
//! | [`scope`] | which videos and tracks a change can touch |
//! | [`flips`] | which labels PLD flips by other predictions or settings |
//! | [`epochs`], `predictions` | epochs of a store, and those that come with a change |

pub(crate) mod both;
pub mod changes;
pub mod epochs;
pub mod flips;
pub(crate) mod hash;
pub(crate) mod inputs;
pub mod kept;
pub(crate) mod predictions;
pub mod rejects;
pub mod resolve;
pub mod scope;
pub mod settings;
pub mod state;
pub mod video;
pub(crate) mod videos;

pub use both::Both;
pub(crate) use both::at;
pub use state::{Active, PromptSet, World};
pub use video::{Meaning, Names, Video};
