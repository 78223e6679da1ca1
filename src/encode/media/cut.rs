//! From frames and samples to segments.
//!
//! A video has as many segments as begin with half their length or more still to come: `max(1, round(duration /
//! length))`. Its pictures tell the duration, or its sound where it has none: both modalities have equally many
//! segments. Sound that goes on longer is cut; where it ends before, the rest is silence.

use serde::{Deserialize, Serialize};

/// Which frame stands for a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// That in the middle of the segment.
    #[default]
    Centre,
    /// One of as many as there are segments, spread from the first to the last frame: VALOR,
    /// `utils/clip_preprocess.py`, `round(linspace(0, N - 1, T))`.
    Linspace,
}

/// How a video becomes segments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// Length of a segment, seconds.
    pub seconds: f64,
    /// Frames per second: of folders of frames, and of those taken from videos.
    pub frame_rate: f64,
    /// Segments of every video; none: by its duration.
    pub count: Option<usize>,
    /// Which frame stands for a segment.
    pub pick: Pick,
}

impl Default for Cut {
    /// One second; 8 frames a second, as LLP's are extracted publicly.
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
    /// Segments of so many seconds.
    pub fn segments(&self, duration: f64) -> usize {
        self.count
            .unwrap_or_else(|| ((duration / self.seconds).round() as usize).max(1))
    }

    /// Segments of so many frames.
    pub fn segments_of_frames(&self, frames: usize) -> usize {
        self.segments(frames as f64 / self.frame_rate)
    }

    /// The frame in the middle of a segment, where there are enough.
    pub fn centre(&self, segment: usize) -> usize {
        ((segment as f64 + 0.5) * self.seconds * self.frame_rate) as usize
    }

    /// The frame of each segment, of so many frames, from 1.
    pub fn frames(&self, frames: usize) -> Vec<usize> {
        let segments = self.segments_of_frames(frames);
        let last = frames - 1;
        (0..segments)
            .map(|segment| match self.pick {
                Pick::Centre => self.centre(segment).min(last),
                Pick::Linspace if segments == 1 => 0,
                // numpy rounds half to even.
                Pick::Linspace => {
                    (segment as f64 * last as f64 / (segments - 1) as f64).round_ties_even() as usize
                }
            })
            .collect()
    }

    /// First sample of a segment at a rate; that of the next is its end.
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
        // LLP's sample: 82 frames are 10.25 s.
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
        // Half of the tenth second: its centre is beyond the end.
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
