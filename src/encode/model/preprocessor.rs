//! Reads `preprocessor_config.json`, in which an export states how pictures are prepared for its vision model.
//!
//! Format: transformers, `CLIPImageProcessor`. Without this file, a model that was trained with another mean or size would
//! get wrong pixels, and its embeddings would be wrong without an error.

use std::path::Path;

use serde::Deserialize;

use crate::encode::image::{ImageSettings, Resize};

/// Name of the file.
pub(super) const FILE: &str = "preprocessor_config.json";

/// The values of the file that change the pixels. All other keys are ignored.
#[derive(Debug, Default, Deserialize)]
struct Preprocessor {
    size: Option<Size>,
    crop_size: Option<Size>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    do_center_crop: Option<bool>,
    do_normalize: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Shortest {
        shortest_edge: usize,
    },
    Both {
        height: usize,
        width: usize,
    },
    /// A size that no square picture has, such as `longest_edge`, which keeps the shape of a picture.
    Other(serde_json::Value),
}

impl Size {
    fn side(&self) -> Result<usize, String> {
        match self {
            Size::Side(side) | Size::Shortest { shortest_edge: side } => Ok(*side),
            Size::Both { height, width } if height == width => Ok(*height),
            Size::Both { height, width } => Err(format!(
                "{FILE}: pictures are {height} by {width} pixels, expected a square"
            )),
            Size::Other(value) => Err(format!(
                "{FILE}: a size is {value}, expected a number of pixels, {{\"shortest_edge\": N}}, or {{\"height\": N, \
                 \"width\": N}}; the model takes square pictures, so write the side of a square in one of these forms"
            )),
        }
    }
}

/// Applies the file of a model folder to the defaults. Returns whether the file states a size.
///
/// # Errors
/// Returns a message if the file cannot be read, or has a value that is not possible.
pub(super) fn apply(folder: &Path, image: &mut ImageSettings) -> Result<bool, String> {
    let text = match std::fs::read_to_string(folder.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(format!("{FILE} cannot be read: {error}")),
    };
    let file: Preprocessor = serde_json::from_str(&text).map_err(|error| {
        format!(
            "{FILE}: {error}, expected size, crop_size, image_mean and image_std as transformers writes them"
        )
    })?;
    // A size of an unknown form is refused even if the size of the crop replaces it: it tells that the pictures are scaled
    // in a way that vaplan does not follow.
    for size in [&file.size, &file.crop_size].into_iter().flatten() {
        if let Size::Other(_) = size {
            size.side()?;
        }
    }
    let crops = file.do_center_crop.unwrap_or(true);
    let size = file.crop_size.filter(|_| crops).or(file.size);
    if let Some(size) = &size {
        image.size = size.side()?;
    }
    if !crops {
        image.resize = Resize::Squash;
    }
    if let Some(mean) = file.image_mean {
        image.mean = mean;
    }
    if let Some(std) = file.image_std {
        image.std = std;
    }
    if file.do_normalize == Some(false) {
        (image.mean, image.std) = ([0.0; 3], [1.0; 3]);
    }
    Ok(size.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Result<bool, String>, ImageSettings) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        let mut image = ImageSettings::default();
        (apply(folder.path(), &mut image), image)
    }

    #[test]
    fn size_mean_and_std_of_an_export_replace_the_defaults() {
        let (sized, image) = read(
            r#"{"size": {"shortest_edge": 256}, "crop_size": {"height": 240, "width": 240}, "do_center_crop": true,
                "image_mean": [0.5, 0.5, 0.25], "image_std": [0.5, 0.25, 0.5], "resample": 3}"#,
        );
        assert_eq!(sized, Ok(true));
        assert_eq!(image.size, 240);
        assert_eq!((image.mean, image.std), ([0.5, 0.5, 0.25], [0.5, 0.25, 0.5]));
        let (sized, image) = read(r#"{"size": 336, "do_center_crop": false, "do_normalize": false}"#);
        assert_eq!((sized, image.size, image.resize), (Ok(true), 336, Resize::Squash));
        assert_eq!((image.mean, image.std), ([0.0; 3], [1.0; 3]));
        let (sized, image) = read("{}");
        assert_eq!((sized, image), (Ok(false), ImageSettings::default()));
        let none = tempfile::tempdir().unwrap();
        assert_eq!(apply(none.path(), &mut ImageSettings::default()), Ok(false));
    }

    #[test]
    fn values_that_cannot_be_are_told() {
        for (text, problem) in [
            (r#"{"image_mean": [0.5]}"#, "preprocessor_config.json: "),
            (
                r#"{"size": {"height": 2, "width": 3}}"#,
                "pictures are 2 by 3 pixels, expected a square",
            ),
            (
                r#"{"size": {"longest_edge": 224}, "crop_size": 224}"#,
                r#"preprocessor_config.json: a size is {"longest_edge":224}, expected a number of pixels"#,
            ),
            (
                r#"{"crop_size": "224"}"#,
                r#"a size is "224", expected a number of pixels"#,
            ),
            ("no json", "preprocessor_config.json: "),
        ] {
            let refused = read(text).0.unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }
}
