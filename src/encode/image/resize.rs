//! Resamples pictures as Pillow's bicubic filter does, value for value.
//!
//! Source: Pillow, `src/libImaging/Resample.c` (`precompute_coeffs`, `normalize_coeffs_8bpc`,
//! `ImagingResampleHorizontal_8bpc`). The horizontal pass comes first, and its values are rounded to 8 bits. Weights
//! have 22 bits after the point. The crate `fast_image_resize` is not used, because its values differ by up to 2 of
//! 255.

use super::Rgb;

/// Half width of the bicubic filter, in pixels.
const SUPPORT: f64 = 2.0;
/// Number of bits of a weight after the point.
const PRECISION: u32 = 32 - 8 - 2;

/// A rectangular part of a resized picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first column.
    pub left: usize,
    /// The first row.
    pub top: usize,
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
}

/// Resizes a picture to `width` by `height` pixels, and returns a window of the result. The function does not compute
/// pixels outside the window.
///
/// # Panics
/// Panics if the window reaches beyond the resized picture.
pub fn resize(picture: &Rgb, width: usize, height: usize, window: Window) -> Rgb {
    assert!(
        window.left + window.width <= width && window.top + window.height <= height,
        "{window:?} lies outside {width} by {height}"
    );
    // If one dimension keeps its size, it is not resampled, as in Pillow.
    let columns = (picture.width != width).then(|| weights(picture.width, width));
    let rows = (picture.height != height).then(|| weights(picture.height, height));
    let wanted = window.top..window.top + window.height;
    let first = rows
        .as_ref()
        .map_or(wanted.start, |rows| rows[wanted.start].first);
    let last = rows.as_ref().map_or(wanted.end, |rows| {
        rows[wanted.clone()]
            .iter()
            .map(Weights::end)
            .max()
            .unwrap_or(first)
    });
    let across = horizontal(picture, columns.as_deref(), first..last, window);
    match rows {
        None => across,
        Some(rows) => vertical(&across, &rows[wanted], first),
    }
}

/// The input pixels, from `first` on, and their weights for one pixel of the result.
struct Weights {
    first: usize,
    values: Vec<i32>,
}

impl Weights {
    fn end(&self) -> usize {
        self.first + self.values.len()
    }
}

fn weights(from: usize, to: usize) -> Vec<Weights> {
    let scale = from as f64 / to as f64;
    let filter_scale = scale.max(1.0);
    let support = SUPPORT * filter_scale;
    (0..to)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            // `as usize` rounds towards zero and turns negative numbers into 0. Pillow does the same with a cast to int
            // and a check.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let raw: Vec<f64> = (first..end)
                .map(|x| bicubic((x as f64 - center + 0.5) / filter_scale))
                .collect();
            let sum: f64 = raw.iter().sum();
            let values = raw.iter().map(|&weight| fixed(weight / sum)).collect();
            Weights { first, values }
        })
        .collect()
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

fn round(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// Computes the horizontal pass: the columns of the window, for these rows of the picture.
fn horizontal(
    picture: &Rgb,
    columns: Option<&[Weights]>,
    rows: std::ops::Range<usize>,
    window: Window,
) -> Rgb {
    let mut data = Vec::with_capacity(rows.len() * window.width * 3);
    for row in rows.clone() {
        let line = &picture.data[row * picture.width * 3..(row + 1) * picture.width * 3];
        let Some(columns) = columns else {
            data.extend_from_slice(&line[window.left * 3..(window.left + window.width) * 3]);
            continue;
        };
        for column in &columns[window.left..window.left + window.width] {
            let mut sums = [HALF; 3];
            let pixels = line[column.first * 3..column.end() * 3].chunks_exact(3);
            for (pixel, &weight) in pixels.zip(&column.values) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            data.extend(sums.map(round));
        }
    }
    Rgb {
        width: window.width,
        height: rows.len(),
        data,
    }
}

/// Computes the vertical pass; `first` is the row of the whole picture that `picture` begins with.
fn vertical(picture: &Rgb, rows: &[Weights], first: usize) -> Rgb {
    let stride = picture.width * 3;
    let mut data = Vec::with_capacity(rows.len() * stride);
    let mut sums = vec![0; stride];
    for row in rows {
        sums.fill(HALF);
        let lines =
            picture.data[(row.first - first) * stride..(row.end() - first) * stride].chunks_exact(stride);
        for (line, &weight) in lines.zip(&row.values) {
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum += i32::from(value) * weight;
            }
        }
        data.extend(sums.iter().map(|&sum| round(sum)));
    }
    Rgb {
        width: picture.width,
        height: rows.len(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_that_part_of_the_whole() {
        let data: Vec<u8> = (0..37 * 23 * 3).map(|at| (at * 7919 % 251) as u8).collect();
        let picture = Rgb {
            width: 37,
            height: 23,
            data,
        };
        let all = |width, height| Window {
            left: 0,
            top: 0,
            width,
            height,
        };
        for (width, height) in [(20, 11), (60, 23), (37, 50)] {
            let whole = resize(&picture, width, height, all(width, height));
            let window = Window {
                left: 3,
                top: 5,
                width: 9,
                height: 6,
            };
            let part = resize(&picture, width, height, window);
            for row in 0..6 {
                let from = ((row + 5) * width + 3) * 3;
                assert_eq!(part.data[row * 27..(row + 1) * 27], whole.data[from..from + 27]);
            }
        }
        assert_eq!(resize(&picture, 37, 23, all(37, 23)), picture);
    }
}
