//! Turns a picture into the values that a vision model takes.

use serde::{Deserialize, Serialize};

use super::Rgb;
use super::resize::{Window, resize};

/// The way in which a picture becomes square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Resize the short side to the size, then take the middle, as `CLIPImageProcessor` of transformers does. If the
    /// margin is odd, torchvision and OpenAI's code round half of it, so their middle can begin one pixel later.
    #[default]
    Crop,
    /// Resize both sides to the size, which changes the aspect ratio, as VALOR does in `utils/clip_preprocess.py`.
    Squash,
}

/// How pictures are prepared for a vision model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageSettings {
    /// Number of pixels on a side.
    pub size: usize,
    /// Means of red, green and blue, for values from 0 to 1.
    pub mean: [f64; 3],
    /// Standard deviations of red, green and blue, for values from 0 to 1.
    pub std: [f64; 3],
    /// The way in which a picture becomes square.
    pub resize: Resize,
}

impl Default for ImageSettings {
    /// The settings of OpenAI's CLIP models ViT-B/32, B/16 and L/14.
    fn default() -> ImageSettings {
        ImageSettings {
            size: 224,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
            resize: Resize::Crop,
        }
    }
}

impl ImageSettings {
    /// Makes the picture square and resizes it to the model's size. Returns 8-bit pixels of shape `[size, size, 3]`.
    pub fn square(&self, picture: &Rgb) -> Vec<u8> {
        let size = self.size;
        let (width, height) = match self.resize {
            Resize::Squash => (size, size),
            // The long side is rounded down, as in transformers.
            Resize::Crop if picture.width <= picture.height => (size, size * picture.height / picture.width),
            Resize::Crop => (size * picture.width / picture.height, size),
        };
        let window = Window {
            left: (width - size) / 2,
            top: (height - size) / 2,
            width: size,
            height: size,
        };
        resize(picture, width, height, window).data
    }

    /// Appends the normalised values `(value / 255 - mean) / std`, of shape `[3, size, size]`.
    ///
    /// # Panics
    /// Panics if `square` does not have `size * size` pixels.
    pub fn normalise(&self, square: &[u8], out: &mut Vec<f32>) {
        assert_eq!(
            square.len(),
            self.size * self.size * 3,
            "pixels are of another size"
        );
        for channel in 0..3 {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let table: [f32; 256] = std::array::from_fn(|value| ((value as f64 / 255.0 - mean) / std) as f32);
            out.extend(
                square
                    .iter()
                    .skip(channel)
                    .step_by(3)
                    .map(|&value| table[usize::from(value)]),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::image::decode;
    use crate::ingest::{npy, shared};

    fn images() -> Option<(std::path::PathBuf, serde_json::Value)> {
        let golden = shared("golden images")?.join("golden");
        let text = std::fs::read_to_string(golden.join("images/images.json")).unwrap();
        Some((golden, serde_json::from_str(&text).unwrap()))
    }

    fn read(path: &std::path::Path) -> Rgb {
        decode(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Returns the picture as Pillow decodes it; vaplan's decoder gives other values only for JPEG.
    fn pillow(golden: &std::path::Path, file: &str) -> Rgb {
        if file.ends_with(".jpg") {
            return read(&golden.join("images/jpeg420_320x240__pil_decoded.png"));
        }
        read(&golden.join(file))
    }

    #[test]
    fn crops_are_pillows_in_every_value() {
        let Some((golden, json)) = images() else { return };
        let settings = ImageSettings::default();
        for image in json["images"].as_array().unwrap() {
            let file = image["file"].as_str().unwrap();
            let picture = pillow(&golden, file);
            let size = image["size_wh"].as_array().unwrap();
            assert_eq!(
                [picture.width as u64, picture.height as u64],
                [size[0].as_u64().unwrap(), size[1].as_u64().unwrap()]
            );
            let expected = read(&golden.join(image["crop224_u8"].as_str().unwrap()));
            assert_eq!(settings.square(&picture), expected.data, "{file}");
        }
    }

    #[test]
    fn pixel_values_are_those_of_transformers() {
        let Some((golden, json)) = images() else { return };
        let settings = ImageSettings::default();
        for image in json["images"].as_array().unwrap() {
            let mut values = Vec::new();
            let picture = pillow(&golden, image["file"].as_str().unwrap());
            settings.normalise(&settings.square(&picture), &mut values);
            let golden_value = &image["pixel_values_224"];
            let near = |from: usize, key: &str| {
                for (value, golden_value) in values[from..].iter().zip(golden_value[key].as_array().unwrap())
                {
                    let golden_value = golden_value.as_f64().unwrap();
                    assert!(
                        (f64::from(*value) - golden_value).abs() < 1e-6,
                        "{value} against {golden_value}"
                    );
                }
            };
            near(0, "first8");
            near(75_000, "mid8");
            let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
            assert!((sum - golden_value["sum"].as_f64().unwrap()).abs() < 0.05);
        }
        let small = ImageSettings {
            size: 64,
            ..ImageSettings::default()
        };
        let golden_values = npy::read_floats(&golden.join("clip/pixel_values_64_first4.npy")).unwrap();
        let mut values = Vec::new();
        for name in json["order_in_npy"].as_array().unwrap().iter().take(4) {
            let picture = pillow(&golden, &format!("images/{}", name.as_str().unwrap()));
            small.normalise(&small.square(&picture), &mut values);
        }
        assert_eq!(values.len(), golden_values.data.len());
        let worst = values
            .iter()
            .zip(&golden_values.data)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-6, "{worst}");
    }

    #[test]
    fn our_jpeg_decoder_is_within_4_of_libjpeg() {
        let Some((golden, _)) = images() else { return };
        let ours = read(&golden.join("images/jpeg420_320x240.jpg"));
        let theirs = read(&golden.join("images/jpeg420_320x240__pil_decoded.png"));
        assert_eq!((ours.width, ours.height), (theirs.width, theirs.height));
        let worst = ours
            .data
            .iter()
            .zip(&theirs.data)
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(worst.unwrap() <= 4, "{worst:?}");
    }

    #[test]
    fn squashing_keeps_all_of_the_picture() {
        // The left tenth is black; a crop of the middle third does not contain this part.
        let data = (0..30 * 10)
            .flat_map(|at| [if at % 30 < 3 { 0 } else { 255 }; 3])
            .collect();
        let picture = Rgb {
            width: 30,
            height: 10,
            data,
        };
        let settings = |resize| ImageSettings {
            size: 10,
            resize,
            ..ImageSettings::default()
        };
        assert!(
            settings(Resize::Crop)
                .square(&picture)
                .iter()
                .all(|&value| value == 255)
        );
        let squashed = settings(Resize::Squash).square(&picture);
        assert!(squashed[0] < 64 && squashed[9 * 3] == 255, "{squashed:?}");
    }
}
