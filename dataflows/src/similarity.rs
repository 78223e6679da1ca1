//! The batched matrix product of segments and prompts, as a timely operator outside differential.
//!
//! ```text
//! segment batches ── cosines ── rule ──┬─ scored
//!                                      └─ rejections (NaN, infinite, all zero)
//! ```

use std::sync::Arc;

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::records::{Candidate, Cosine, FeatureHash, Score, ScoreRecord, VideoId};
use crate::rule::Rule;
use crate::workers::panic_point;

/// Features of several videos in one modality. Each video has all its rows in one batch.
#[derive(Clone, Debug)]
pub struct SegmentBatch {
    /// Modality of every row.
    pub modality: Modality,
    /// Features, `[rows, D]`, row-major. The spans cover all rows.
    pub data: Vec<f32>,
    /// The videos of the rows, in order of row.
    pub spans: Vec<Span>,
}

/// Consecutive rows of one video.
#[derive(Clone, Debug)]
pub struct Span {
    /// Video of the rows.
    pub video: VideoId,
    /// Number of rows: the number of segments, T.
    pub segments: u32,
    /// Weak label of the video, ascending. Only these classes get scores.
    pub weak: Arc<[ClassId]>,
    /// File of the rows.
    pub source: Arc<str>,
    /// Position of the first row in the file, from 0.
    pub row: u64,
    /// Hash of the rows.
    pub features: FeatureHash,
}

/// Why a row of features cannot be scored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RowRejection {
    /// The row has a value that is NaN or infinite.
    #[error("feature[{column}] is {value}, expected a finite number")]
    NotFinite {
        /// Column, from 0.
        column: usize,
        /// Value found.
        value: f32,
    },
    /// Every value of the row is zero. Such a vector has no direction, and therefore no cosine.
    #[error("feature is all zero, expected a vector with a direction")]
    Zero,
}

/// The scores of one span; or the first rejected row of the span, by its position in the file, and why it is rejected.
pub type Verdict = Result<ScoreRecord, (u64, RowRejection)>;

/// Why text embeddings cannot be used as prompts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// A text embedding has a value that is NaN or infinite, or is all zero.
    #[error("text embedding of class {class}: {rejection}")]
    Row {
        /// Class of the text embedding (its row), from 0.
        class: usize,
        /// Why the row cannot be used.
        rejection: RowRejection,
    },
    /// There are no values, the width is 0, or the number of values is not a multiple of the width.
    #[error(
        "text embeddings hold {values} values, expected a multiple of the width {width}, and at least one"
    )]
    Shape {
        /// Number of values given.
        values: usize,
        /// The width D.
        width: usize,
    },
}

/// The text embeddings of one modality, scaled to unit length, and the rule that turns cosines into scores.
#[derive(Clone, Debug)]
pub struct PromptEmbeddings {
    width: usize,
    classes: usize,
    unit: Vec<f32>,
    rule: Rule,
}

impl PromptEmbeddings {
    /// Scales the text embeddings to unit length.
    ///
    /// # Shapes
    /// `embeddings`: `[C, width]`, row-major. Rows may have any Euclidean length above 0.
    ///
    /// # Errors
    /// Returns [`PromptError`] if the shape does not fit, or a row is all zero or has a value that is NaN or infinite.
    pub fn new(embeddings: &[f32], width: usize, rule: Rule) -> Result<PromptEmbeddings, PromptError> {
        if width == 0 || embeddings.is_empty() || !embeddings.len().is_multiple_of(width) {
            return Err(PromptError::Shape {
                values: embeddings.len(),
                width,
            });
        }
        let mut unit = Vec::with_capacity(embeddings.len());
        for (class, row) in embeddings.chunks_exact(width).enumerate() {
            let norm = checked_norm(row).map_err(|rejection| PromptError::Row { class, rejection })?;
            unit.extend(row.iter().map(|&value| (f64::from(value) / norm) as f32));
        }
        Ok(PromptEmbeddings {
            width,
            classes: embeddings.len() / width,
            unit,
            rule,
        })
    }

    /// The width D of the embeddings.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of classes, C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The rule that turns cosines into scores.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Computes the cosine of every segment and every prompt.
    ///
    /// The cosines of a row depend on that row only, not on the other rows of the batch. A video that is scored again
    /// in another batch therefore gets the same bits. A property test checks this.
    ///
    /// # Shapes
    /// - `segments`: `[S, D]`, row-major; rows may have any Euclidean length
    /// - returns `[S, C]`, and the rejected rows in ascending order; the cosines of a rejected row have no meaning
    ///
    /// # Panics
    /// Panics if the length of `segments` is not a multiple of [`PromptEmbeddings::width`].
    pub fn cosines(&self, segments: &[f32]) -> (Vec<f32>, Vec<(usize, RowRejection)>) {
        let width = self.width;
        assert!(
            segments.len().is_multiple_of(width),
            "{} values, width {width}",
            segments.len()
        );
        let rows = segments.len() / width;
        let mut cosines = vec![0.0; rows * self.classes];
        product(segments, &self.unit, width, &mut cosines);
        let mut rejections = Vec::new();
        for (row, segment) in segments.chunks_exact(width).enumerate() {
            let out = &mut cosines[row * self.classes..(row + 1) * self.classes];
            let squares = sum_of_squares(segment);
            if (1e-30..1e30).contains(&squares) {
                let inverse = 1.0 / squares.sqrt();
                out.iter_mut().for_each(|cosine| *cosine *= inverse);
                continue;
            }
            // The sum of squares is too small or too large for f32, or a value is not finite. `checked_norm` computes
            // in f64 and tells the two cases apart.
            match checked_norm(segment) {
                Ok(norm) => {
                    let unit: Vec<f32> = segment
                        .iter()
                        .map(|&value| (f64::from(value) / norm) as f32)
                        .collect();
                    product(&unit, &self.unit, width, out);
                }
                Err(rejection) => rejections.push((row, rejection)),
            }
        }
        (cosines, rejections)
    }

    /// Scores every span of a batch. A span with a rejected row gets no scores; the rejection names the position of its
    /// first rejected row in the file.
    ///
    /// # Panics
    /// Panics if the numbers of rows of the spans do not add up to the rows of the batch.
    pub fn score(&self, batch: &SegmentBatch) -> Vec<Verdict> {
        let (cosines, rejections) = self.cosines(&batch.data);
        let mut rejections = rejections.into_iter().peekable();
        let mut scores = vec![0.0; self.classes];
        let mut first = 0;
        let mut verdicts = Vec::with_capacity(batch.spans.len());
        for span in &batch.spans {
            let segments = span.segments as usize;
            let end = first + segments;
            let mut rejection = None;
            while let Some((row, found)) = rejections.next_if(|(row, _)| *row < end) {
                rejection.get_or_insert((span.row + (row - first) as u64, found));
            }
            verdicts.push(match rejection {
                Some(rejection) => Err(rejection),
                None => {
                    let cells = segments * span.weak.len();
                    let mut cosine = vec![Cosine::new(0.0); cells];
                    let mut score = vec![Score::new(0.0).expect("zero is a number"); cells];
                    for segment in 0..segments {
                        let at = (first + segment) * self.classes;
                        let row = &cosines[at..at + self.classes];
                        self.rule.score(row, &mut scores);
                        for (nth, class) in span.weak.iter().enumerate() {
                            let cell = nth * segments + segment;
                            cosine[cell] = Cosine::new(row[class.index()]);
                            score[cell] = Score::new(scores[class.index()])
                                .expect("finite cosines of unit prompts give finite scores");
                        }
                    }
                    Ok(ScoreRecord::new(span.segments, span.weak.to_vec(), cosine, score))
                }
            });
            first = end;
        }
        assert_eq!(first * self.width, batch.data.len(), "spans add up to the rows");
        verdicts
    }
}

/// The prompts of both modalities.
#[derive(Clone, Debug)]
pub struct PromptPair {
    /// Prompts for audio.
    pub audio: PromptEmbeddings,
    /// Prompts for visual.
    pub visual: PromptEmbeddings,
}

impl PromptPair {
    /// Returns the prompts of a modality.
    pub fn of(&self, modality: Modality) -> &PromptEmbeddings {
        match modality {
            Modality::Audio => &self.audio,
            Modality::Visual => &self.visual,
        }
    }
}

/// The result of scoring one span.
#[derive(Clone, Debug, PartialEq)]
pub enum Scored {
    /// The scored features of a video and modality.
    Candidate(VideoId, Candidate),
    /// A row that cannot be scored: its video, its modality, its file, its position in the file, and the reason.
    Rejection(VideoId, Modality, Arc<str>, u64, RowRejection),
}

/// Scores each batch when it arrives, on the worker that read it. The tag of a batch (for example its shard) is passed
/// on with the scores.
///
/// Work is proportional to the rows. The operator keeps no state.
///
/// Source: docs/method.md, PLG 2 and 3. Crate `matrixmultiply` computes the matrix product.
pub fn similarity<'scope, T: Timestamp, G: Clone + 'static>(
    batches: Stream<'scope, T, Vec<(G, SegmentBatch)>>,
    prompts: Arc<PromptPair>,
) -> Stream<'scope, T, Vec<(G, Vec<Scored>)>> {
    batches.unary(Pipeline, "Similarity", move |_capability, _info| {
        move |input, output| {
            input.for_each_time(|time, batches| {
                let mut session = output.session(&time);
                for (tag, batch) in batches.flat_map(|batches| batches.drain(..)) {
                    panic_point("similarity");
                    let verdicts = prompts.of(batch.modality).score(&batch);
                    let modality = batch.modality;
                    let scored = batch
                        .spans
                        .into_iter()
                        .zip(verdicts)
                        .map(|(span, verdict)| match verdict {
                            Ok(record) => {
                                let record = Arc::new(record);
                                Scored::Candidate(
                                    span.video,
                                    Candidate {
                                        modality,
                                        source: span.source,
                                        record,
                                        features: span.features,
                                    },
                                )
                            }
                            Err((row, rejection)) => {
                                Scored::Rejection(span.video, modality, span.source, row, rejection)
                            }
                        });
                    session.give((tag, scored.collect()));
                }
            });
        }
    })
}

/// Computes the Euclidean length of a row in f64, so that the squares of finite f32 values neither overflow nor
/// underflow.
fn checked_norm(row: &[f32]) -> Result<f64, RowRejection> {
    if let Some(column) = row.iter().position(|value| !value.is_finite()) {
        return Err(RowRejection::NotFinite {
            column,
            value: row[column],
        });
    }
    let squares: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    if squares == 0.0 {
        Err(RowRejection::Zero)
    } else {
        Ok(squares.sqrt())
    }
}

/// Sums the squares in sixteen lanes. The compiler can then vectorise the loop, and the order of the additions is
/// fixed.
fn sum_of_squares(row: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = row.chunks_exact(16);
    let tail: f32 = chunks.remainder().iter().map(|value| value * value).sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value * value;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Computes `out[S, C] = segments[S, D] · prompts[C, D]ᵀ`.
fn product(segments: &[f32], prompts: &[f32], width: usize, out: &mut [f32]) {
    let (rows, classes) = (segments.len() / width, prompts.len() / width);
    assert_eq!(out.len(), rows * classes, "one cell per segment and class");
    #[expect(unsafe_code, reason = "matrixmultiply's interface is pointers and strides")]
    // SAFETY: the strides stay within the three slices: rows·width, classes·width and rows·classes values.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            width,
            classes,
            1.0,
            segments.as_ptr(),
            width as isize,
            1,
            prompts.as_ptr(),
            1,
            width as isize,
            0.0,
            out.as_mut_ptr(),
            classes as isize,
            1,
        );
    }
}
