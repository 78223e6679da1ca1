//! Batched matrix product of segments and prompts, outside differential.
//!
//! ```text
//! segment batches ── cosines ── rule ──┬─ scored
//!                                      └─ faults (NaN, infinite, zero)
//! ```

use std::sync::Arc;

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::records::{Candidate, Cosine, FeatureHash, Score, ScoreRecord, VideoId};
use crate::rule::Rule;

/// Features of several whole videos of one modality.
#[derive(Clone, Debug)]
pub struct SegmentBatch {
    /// Modality of every row.
    pub modality: Modality,
    /// `[rows, D]`, row-major; the spans add up to the rows.
    pub data: Vec<f32>,
    /// Whose rows these are, in order.
    pub spans: Vec<Span>,
}

/// Consecutive rows of one video.
#[derive(Clone, Debug)]
pub struct Span {
    /// Whose.
    pub video: VideoId,
    /// T.
    pub segments: u32,
    /// Its weak label, ascending: only these classes are scored.
    pub weak: Arc<[ClassId]>,
    /// File of the rows.
    pub source: Arc<str>,
    /// First row within the file, from 0.
    pub row: u64,
    /// Hash of its rows.
    pub features: FeatureHash,
}

/// What a row of features must be and is not.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RowFault {
    /// NaN or infinite.
    #[error("feature[{column}] is {value}, expected a finite number")]
    NotFinite {
        /// Column, from 0.
        column: usize,
        /// Value found.
        value: f32,
    },
    /// Every value is zero: it has no direction, so no cosine.
    #[error("feature is all zero, expected a vector with a direction")]
    Zero,
}

/// What scoring says of one span.
pub type Verdict = Result<ScoreRecord, (u64, RowFault)>;

/// PromptEmbeddings that cannot be compared with anything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// A prompt with a value that is no number.
    #[error("text embedding of class {class}: {fault}")]
    Row {
        /// Row, from 0.
        class: usize,
        /// What is wrong with it.
        fault: RowFault,
    },
    /// No classes, no width, or a length that is no multiple of the width.
    #[error(
        "text embeddings hold {values} values, expected a multiple of the width {width}, and at least one"
    )]
    Shape {
        /// Values given.
        values: usize,
        /// D.
        width: usize,
    },
}

/// The prompts of one modality, of unit length, and the rule for their cosines.
#[derive(Clone, Debug)]
pub struct PromptEmbeddings {
    width: usize,
    classes: usize,
    unit: Vec<f32>,
    rule: Rule,
}

impl PromptEmbeddings {
    /// # Shapes
    /// `embeddings`: `[C, width]`, row-major, of any length but zero.
    ///
    /// # Errors
    /// [`PromptError`] for a shape that does not fit, or a row that is zero, NaN or infinite.
    pub fn new(embeddings: &[f32], width: usize, rule: Rule) -> Result<PromptEmbeddings, PromptError> {
        if width == 0 || embeddings.is_empty() || !embeddings.len().is_multiple_of(width) {
            return Err(PromptError::Shape {
                values: embeddings.len(),
                width,
            });
        }
        let mut unit = Vec::with_capacity(embeddings.len());
        for (class, row) in embeddings.chunks_exact(width).enumerate() {
            let norm = checked_norm(row).map_err(|fault| PromptError::Row { class, fault })?;
            unit.extend(row.iter().map(|&value| (f64::from(value) / norm) as f32));
        }
        Ok(PromptEmbeddings {
            width,
            classes: embeddings.len() / width,
            unit,
            rule,
        })
    }

    /// D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Cosine of every segment and every prompt.
    ///
    /// A row's cosines depend on that row alone, not on what shares its batch, so that one video scored again gives
    /// the same bits (a property test holds it to that).
    ///
    /// # Shapes
    /// - `segments`: `[S, D]`, row-major, of any length
    /// - returns `[S, C]`; rows of a faulty segment mean nothing, their faults are listed by row, ascending
    ///
    /// # Panics
    /// Where `segments` is no multiple of [`PromptEmbeddings::width`].
    pub fn cosines(&self, segments: &[f32]) -> (Vec<f32>, Vec<(usize, RowFault)>) {
        let width = self.width;
        assert!(
            segments.len().is_multiple_of(width),
            "{} values, width {width}",
            segments.len()
        );
        let rows = segments.len() / width;
        let mut cosines = vec![0.0; rows * self.classes];
        product(segments, &self.unit, width, &mut cosines);
        let mut faults = Vec::new();
        for (row, segment) in segments.chunks_exact(width).enumerate() {
            let out = &mut cosines[row * self.classes..(row + 1) * self.classes];
            let squares = sum_of_squares(segment);
            if (1e-30..1e30).contains(&squares) {
                let inverse = 1.0 / squares.sqrt();
                out.iter_mut().for_each(|cosine| *cosine *= inverse);
                continue;
            }
            // Too small or large for f32 squares, or no number at all: the slow way tells which.
            match checked_norm(segment) {
                Ok(norm) => {
                    let unit: Vec<f32> = segment
                        .iter()
                        .map(|&value| (f64::from(value) / norm) as f32)
                        .collect();
                    product(&unit, &self.unit, width, out);
                }
                Err(fault) => faults.push((row, fault)),
            }
        }
        (cosines, faults)
    }

    /// Scores every span of a batch; a span with a faulty row is a fault that names the row within its file.
    ///
    /// # Panics
    /// Where the spans do not add up to the rows.
    pub fn score(&self, batch: &SegmentBatch) -> Vec<Verdict> {
        let (cosines, faults) = self.cosines(&batch.data);
        let mut faults = faults.into_iter().peekable();
        let mut scores = vec![0.0; self.classes];
        let mut first = 0;
        let mut verdicts = Vec::with_capacity(batch.spans.len());
        for span in &batch.spans {
            let segments = span.segments as usize;
            let end = first + segments;
            let mut fault = None;
            while let Some((row, found)) = faults.next_if(|(row, _)| *row < end) {
                fault.get_or_insert((span.row + (row - first) as u64, found));
            }
            verdicts.push(match fault {
                Some(fault) => Err(fault),
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

/// PromptEmbeddings of both modalities.
#[derive(Clone, Debug)]
pub struct PromptPair {
    /// For audio.
    pub audio: PromptEmbeddings,
    /// For visual.
    pub visual: PromptEmbeddings,
}

impl PromptPair {
    /// Of a modality.
    pub fn of(&self, modality: Modality) -> &PromptEmbeddings {
        match modality {
            Modality::Audio => &self.audio,
            Modality::Visual => &self.visual,
        }
    }
}

/// A span, scored or faulty.
#[derive(Clone, Debug, PartialEq)]
pub enum Scored {
    /// What a shard says of a video and modality.
    Candidate(VideoId, Candidate),
    /// A row that cannot be scored: its video, modality, file, row within the file, and why.
    Fault(VideoId, Modality, Arc<str>, u64, RowFault),
}

/// Scores batches as they come, on the worker that read them; `tag` (a shard, say) goes along.
///
/// Work is proportional to the rows; nothing is kept.
///
/// Source: METHOD.md, PLG 2 and 3; the matrix product is `matrixmultiply`'s.
pub fn similarity<'scope, T: Timestamp, G: Clone + 'static>(
    batches: Stream<'scope, T, Vec<(G, SegmentBatch)>>,
    prompts: Arc<PromptPair>,
) -> Stream<'scope, T, Vec<(G, Vec<Scored>)>> {
    batches.unary(Pipeline, "Similarity", move |_capability, _info| {
        move |input, output| {
            input.for_each_time(|time, batches| {
                let mut session = output.session(&time);
                for (tag, batch) in batches.flat_map(|batches| batches.drain(..)) {
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
                            Err((row, fault)) => Scored::Fault(span.video, modality, span.source, row, fault),
                        });
                    session.give((tag, scored.collect()));
                }
            });
        }
    })
}

/// Euclidean length in f64, so that no finite row over- or underflows.
fn checked_norm(row: &[f32]) -> Result<f64, RowFault> {
    if let Some(column) = row.iter().position(|value| !value.is_finite()) {
        return Err(RowFault::NotFinite {
            column,
            value: row[column],
        });
    }
    let squares: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    if squares == 0.0 {
        Err(RowFault::Zero)
    } else {
        Ok(squares.sqrt())
    }
}

/// In sixteen lanes, so that the compiler vectorises it and the order of the sum is fixed.
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

/// `out[S, C] = segments[S, D] · prompts[C, D]ᵀ`.
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
