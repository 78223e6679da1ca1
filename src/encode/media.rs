//! Reads media files: videos, folders of frames, and sound files.
//!
//! | module | purpose |
//! |---|---|
//! | [`find`](mod@find) | finds the files of each video |
//! | [`cut`] | computes which frames and samples belong to which segment |
//! | [`frames`] | chooses one picture of a folder of frames for each segment |
//! | [`ffmpeg`] | runs the ffmpeg program, and reads one picture of a video for each segment |
//! | `mp4` | finds the default sound track of an MP4 file, and when its sound begins |
//! | `codec` | finds out the codec of that track |

pub(crate) mod codec;
pub mod cut;
pub mod ffmpeg;
pub mod find;
pub mod frames;
pub(crate) mod mp4;

pub use cut::{Cut, Pick};
pub use find::{Media, Pictures};
