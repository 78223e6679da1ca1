//! Computes which frames and samples belong to which segment.
//!
//! The number of segments of a video is `max(1, round(duration / length))`: the last segment may be cut off if at least
//! half of it exists. The duration is that of the pictures; for a video without pictures, it is that of the sound.
//! Both modalities therefore have equally many segments. Sound that is longer is cut, and sound that ends earlier is
//! continued with silence.

use serde::{Deserialize, Serialize};

/// The rule that chooses the frame of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// The frame in the middle of the segment.
    #[default]
    Centre,
    /// T of the N frames, spread evenly from the first to the last: `round(linspace(0, N - 1, T))`, as in VALOR,
    /// `utils/clip_preprocess.py`.
    Linspace,
}

/// The settings for cutting videos into segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Length of a segment, in seconds.
    pub seconds: f64,
    /// Frames per second, both in folders of frames and in the frames that ffmpeg takes from videos.
    pub frame_rate: f64,
    /// Number of segments of every video; if `None`, the duration of a video decides.
    pub count: Option<usize>,
    /// The rule that chooses the frame of a segment.
    pub pick: Pick,
}

impl Default for Cut {
    /// Segments of 1 s, and 8 frames per second, as in the public frames of LLP.
    fn default() -> Cut {
        Cut {
            seconds: 1.0,
            frame_rate: 8.0,
            count: None,
            pick: Pick::Centre,
        }
    }
}

impl Cut {
    /// Returns the number of segments of a duration in seconds.
    pub fn segments(&self, duration: f64) -> usize {
        self.count
            .unwrap_or_else(|| ((duration / self.seconds).round() as usize).max(1))
    }

    /// Returns the number of segments of this number of frames.
    pub fn segments_of_frames(&self, frames: usize) -> usize {
        self.segments(frames as f64 / self.frame_rate)
    }

    /// Returns the frame in the middle of a segment. The video may have fewer frames.
    pub fn centre(&self, segment: usize) -> usize {
        ((segment as f64 + 0.5) * self.seconds * self.frame_rate) as usize
    }

    /// Returns the frame of each segment of a video with this number of frames, which must be at least 1.
    pub fn frames(&self, frames: usize) -> Vec<usize> {
        let segments = self.segments_of_frames(frames);
        let last = frames - 1;
        (0..segments)
            .map(|segment| match self.pick {
                Pick::Centre => self.centre(segment).min(last),
                Pick::Linspace if segments == 1 => 0,
                // Ties round to even, as in numpy.
                Pick::Linspace => {
                    (segment as f64 * last as f64 / (segments - 1) as f64).round_ties_even() as usize
                }
            })
            .collect()
    }

    /// Returns the first sample of a segment at a rate. The first sample of the next segment is the end of this
    /// segment.
    pub fn sample(&self, segment: usize, rate: u32) -> u64 {
        (segment as f64 * self.seconds * f64::from(rate)).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_segment_is_at_least_half_there() {
        let cut = Cut::default();
        // A video of LLP has 82 frames, which are 10.25 s.
        assert_eq!(cut.segments_of_frames(82), 10);
        assert_eq!(
            (cut.segments(9.5), cut.segments(9.49), cut.segments(0.01)),
            (10, 9, 1)
        );
        let short = Cut {
            seconds: 0.96,
            ..Cut::default()
        };
        assert_eq!(
            (
                short.segments(10.03),
                short.sample(1, 48_000),
                short.sample(3, 44_100)
            ),
            (10, 46_080, 127_008)
        );
        assert_eq!(
            Cut {
                count: Some(10),
                ..Cut::default()
            }
            .segments(3.0),
            10
        );
    }

    #[test]
    fn centres_and_linspace_are_those_of_their_formulas() {
        let cut = Cut::default();
        assert_eq!(cut.frames(82), [4, 12, 20, 28, 36, 44, 52, 60, 68, 76]);
        // Half of the tenth segment exists, so its centre is after the end of the video.
        assert_eq!(cut.frames(76).last(), Some(&75));
        assert_eq!(cut.frames(1), [0]);
        let valor = Cut {
            pick: Pick::Linspace,
            count: Some(10),
            ..Cut::default()
        };
        assert_eq!(valor.frames(82), [0, 9, 18, 27, 36, 45, 54, 63, 72, 81]);
        assert_eq!(valor.frames(6), [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]);
        assert_eq!(
            Cut {
                count: Some(1),
                ..valor
            }
            .frames(6),
            [0]
        );
    }
}
