//! Media files: videos, folders of frames, sound.
//!
//! | module | what |
//! |---|---|
//! | [`find`](mod@find) | which files belong to which video |
//! | [`cut`] | from frames and samples to segments |
//! | [`frames`] | pictures of a folder or of a video, one per segment |
//! | [`ffmpeg`] | pictures of a video, by the ffmpeg program |
//! | `mp4` | which sound an MP4 has, and when it begins |

pub mod cut;
pub mod ffmpeg;
pub mod find;
pub mod frames;
pub(crate) mod mp4;

pub use cut::{Cut, Pick};
pub use find::{Media, Pictures};
