//! Media files: videos, folders of frames, sound.
//!
//! | module | what |
//! |---|---|
//! | [`find`](mod@find) | which files belong to which video |
//! | [`cut`] | from frames and samples to segments |
//! | [`frames`] | pictures of a folder or of a video, one per segment |
//! | [`ffmpeg`] | pictures of a video, by the ffmpeg program |
//! | `edits` | where the sound of an mp4 begins |

pub mod cut;
pub(crate) mod edits;
pub mod ffmpeg;
pub mod find;
pub mod frames;

pub use cut::{Cut, Pick};
pub use find::{Media, Pictures};
