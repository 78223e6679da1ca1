//! Data that the evaluator is timed on.

use std::path::{Path, PathBuf};

use vaplan::eval::{BitMatrix, DenseTruth, VideoParse};
use vaplan::ingest::annotations::Annotations;
use vaplan_schemas::rows::Split;

/// Predictions and dense truth of the same videos.
#[derive(Clone, Debug)]
pub struct EvalData {
    /// Origin of the data.
    pub name: &'static str,
    /// Number of classes C.
    pub classes: usize,
    /// Prediction and truth of each video, as matrices of shape (C, 10).
    pub videos: Vec<(VideoParse, VideoParse)>,
}

impl EvalData {
    /// Loads the 1,200 LLP test videos with the golden predictions `test_noisy` from `../shared`, or from the folder in
    /// `VAPLAN_SHARED`. If the files are not there, makes 1,200 simulated videos.
    pub fn load() -> EvalData {
        let shared = std::env::var_os("VAPLAN_SHARED").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
            PathBuf::from,
        );
        EvalData::llp(&shared).unwrap_or_else(EvalData::simulated)
    }

    fn llp(shared: &Path) -> Option<EvalData> {
        let bytes = std::fs::read(shared.join("golden/eval/test_noisy.npy")).ok()?;
        let names = std::fs::read_to_string(shared.join("golden/eval/test_videos.txt")).ok()?;
        let annotations = Annotations::read(&shared.join("llp")).ok()?;
        let truth = DenseTruth::of_annotations(&annotations, Split::Test).ok()?;
        let classes = truth.classes.len();
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let mut videos = Vec::new();
        // The file has u8 values of shape (N, 2, 10, 4): audio before visual, with the bits of the classes packed
        // big-endian.
        for (name, video) in names.lines().zip(bytes[header..].chunks_exact(80)) {
            let matrix = |bytes: &[u8]| {
                let mut matrix = BitMatrix::new(classes, 10);
                for class in 0..classes {
                    for segment in (0..10).filter(|t| bytes[4 * t + class / 8] >> (7 - class % 8) & 1 == 1) {
                        matrix.set(class, segment);
                    }
                }
                matrix
            };
            let parse = VideoParse {
                audio: matrix(&video[..40]),
                visual: matrix(&video[40..]),
            };
            let truth = truth.videos.iter().find(|truth| &*truth.name == name)?;
            videos.push((parse, truth.parse(classes, 10)));
        }
        Some(EvalData {
            name: "LLP test, golden predictions `noisy`",
            classes,
            videos,
        })
    }

    /// Makes 1,200 videos of 25 classes and 10 segments. One to three classes are true in each video. A prediction
    /// begins up to two segments later than the truth, so that it may miss an event.
    fn simulated() -> EvalData {
        let mut state = 1u64;
        // SplitMix64 is random enough for benchmarks and gives the same numbers on every machine.
        let mut below = move |n: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % n) as usize
        };
        let mut videos = Vec::new();
        for _ in 0..1200 {
            let (mut parse, mut truth) = (VideoParse::new(25, 10), VideoParse::new(25, 10));
            for _ in 0..1 + below(3) {
                let class = below(25);
                for (parse, truth) in [
                    (&mut parse.audio, &mut truth.audio),
                    (&mut parse.visual, &mut truth.visual),
                ] {
                    let (onset, length) = (below(10), 1 + below(10));
                    truth.set_range(class, onset, onset + length);
                    parse.set_range(class, onset + below(3), onset + length);
                }
            }
            videos.push((parse, truth));
        }
        EvalData {
            name: "simulated",
            classes: 25,
            videos,
        }
    }
}
