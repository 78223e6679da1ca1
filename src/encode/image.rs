//! Pictures to the pixels that CLIP takes, equal to Pillow's and transformers'.
//!
//! | module | what |
//! |---|---|
//! | [`decode`](mod@decode) | JPEG, PNG and PPM to RGB |
//! | [`resize`](mod@resize) | Pillow's bicubic, value for value |
//! | [`prepare`] | crop or squash, then mean and standard deviation |

pub mod decode;
pub mod prepare;
pub mod resize;

pub use decode::decode;
pub use prepare::{ImageSettings, Resize};

/// A picture of 8-bit RGB, row-major, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `[height, width, 3]`.
    pub data: Vec<u8>,
}
