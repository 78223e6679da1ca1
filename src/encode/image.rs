//! Turns pictures into the pixels that CLIP takes, equal to the pixels that Pillow and transformers compute.
//!
//! | module | purpose |
//! |---|---|
//! | [`decode`](mod@decode) | decodes JPEG, PNG and PPM to RGB |
//! | [`resize`](mod@resize) | resamples as Pillow's bicubic filter does, value for value |
//! | [`prepare`] | crops or squashes a picture to a square, and normalises its values |

pub mod decode;
pub mod prepare;
pub mod resize;

pub use decode::decode;
pub use prepare::{ImageSettings, Resize};

/// A picture in 8-bit RGB: row by row, three bytes for each pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Number of columns, in pixels.
    pub width: usize,
    /// Number of rows, in pixels.
    pub height: usize,
    /// The values, of shape `[height, width, 3]`.
    pub data: Vec<u8>,
}
