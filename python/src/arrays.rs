//! Evaluate, generate, denoise and events on arrays.

use std::collections::BTreeMap;
use std::path::PathBuf;

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use vaplan::choice::Choice;
use vaplan::eval::{
    BitMatrix, ClassFScores, DenseTruth, EvalScores, Evaluator, Level, PredictedLabels, Protocol, VideoParse,
};
use vaplan::ingest::annotations::{Annotations, read_classes};
use vaplan::rows::Split;
use vaplan_dataflows::dense::{DenoisedMatrices, PredictedMatrices, denoised_labels, plg_labels};
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::{DenoisingRule, Score};

use crate::error::{BadCell, IntoException};
use crate::numbers::{Allowed, Numbers, Table, columns, rows, spans};
use crate::work::{on_cores, work};

/// Predictions of both modalities, and the probabilities of the whole video that the protocol needs.
struct Predicted<'a> {
    segments: [Table<'a>; 2],
    whole: Option<[Table<'a>; 2]>,
    classes: usize,
}

/// Names of the arguments of a function, for messages.
struct ArgumentNames {
    segments: [&'static str; 2],
    whole: [&'static str; 2],
}

impl<'a> Predicted<'a> {
    /// `whole` is the array of each modality: twice the same for protocol `fused`.
    fn new(
        names: &ArgumentNames,
        protocol: Protocol,
        segments: [&'a Numbers<'_>; 2],
        whole: Option<[&'a Numbers<'_>; 2]>,
        [videos, rows, classes]: [usize; 3],
    ) -> PyResult<Predicted<'a>> {
        let allowed = match protocol {
            Protocol::Labels => Allowed::Label,
            _ => Allowed::Probability,
        };
        let [audio, visual] = [0, 1].map(|modality| {
            Table::new(
                names.segments[modality],
                allowed,
                segments[modality],
                [rows, classes],
            )
        });
        let whole = whole.map(|whole| {
            let [audio, visual] = [0, 1].map(|modality| {
                Table::new(
                    names.whole[modality],
                    Allowed::Probability,
                    whole[modality],
                    [videos, classes],
                )
            });
            Ok::<_, PyErr>([audio?, visual?])
        });
        Ok(Predicted {
            segments: [audio?, visual?],
            whole: whole.transpose()?,
            classes,
        })
    }

    /// The labels of one video and modality.
    fn labels(
        &self,
        modality: usize,
        video: usize,
        span: std::ops::Range<usize>,
        scratch: &mut [Vec<f64>; 2],
    ) -> Result<BitMatrix, BadCell> {
        let [cells, whole] = scratch;
        let table = &self.segments[modality];
        if table.has_labels() {
            return table.matrix(span);
        }
        table.read(span, cells)?;
        let Some(tables) = &self.whole else {
            return Ok(BitMatrix::of_cells(self.classes, cells, |cell| {
                Protocol::sets(cell, None)
            }));
        };
        tables[modality].read(video..video + 1, whole)?;
        for row in cells.chunks_exact_mut(self.classes) {
            for (cell, whole) in row.iter_mut().zip(whole.iter()) {
                *cell = f64::from(u8::from(Protocol::sets(*cell, Some(*whole))));
            }
        }
        Ok(BitMatrix::of_cells(self.classes, cells, |cell| cell != 0.0))
    }
}

fn protocol(name: &str, has_whole: bool) -> PyResult<Protocol> {
    let known = [
        Protocol::Labels,
        Protocol::Segment,
        Protocol::Fused,
        Protocol::Own,
    ];
    let protocol = known.into_iter().find(|known| known.as_str() == name);
    let protocol = protocol.ok_or_else(|| PyValueError::new_err(format!("protocol is {name:?}")))?;
    if has_whole != matches!(protocol, Protocol::Fused | Protocol::Own) {
        return Err(PyValueError::new_err(format!(
            "protocol {name:?} does not fit the probabilities of whole videos that were given"
        )));
    }
    Ok(protocol)
}

pub(crate) fn level<'py>(py: Python<'py>, level: &Level) -> PyResult<Bound<'py, PyDict>> {
    let scores = PyDict::new(py);
    scores.set_item("audio", level.audio)?;
    scores.set_item("visual", level.visual)?;
    scores.set_item("audio_visual", level.audio_visual)?;
    scores.set_item("type_av", level.type_av)?;
    scores.set_item("event_av", level.event_av)?;
    Ok(scores)
}

fn report<'py>(
    py: Python<'py>,
    scores: &EvalScores,
    classes: &[ClassFScores],
) -> PyResult<Bound<'py, PyDict>> {
    let report = PyDict::new(py);
    report.set_item("segment", level(py, &scores.segment)?)?;
    report.set_item("event", level(py, &scores.event)?)?;
    let of_class = |score: fn(&ClassFScores) -> Option<f64>| -> Vec<f64> {
        classes
            .iter()
            .map(|class| score(class).unwrap_or(f64::NAN))
            .collect()
    };
    let per_class = PyDict::new(py);
    for (name, score) in [
        ("audio", (|class| class.audio) as fn(&ClassFScores) -> Option<f64>),
        ("visual", |class| class.visual),
        ("audio_visual", |class| class.audio_visual),
        ("event_av", |class| class.event_av),
    ] {
        per_class.set_item(name, PyArray1::from_vec(py, of_class(score)))?;
    }
    report.set_item("per_class", per_class)?;
    Ok(report)
}

/// Number of videos whose matrices are in memory at once.
const BLOCK: usize = 4096;

/// F-scores of predictions against truth. `whole` has the probabilities of whole videos: of audio, then of visual.
#[pyfunction]
pub(crate) fn evaluate<'py>(
    py: Python<'py>,
    predictions: (Numbers<'py>, Numbers<'py>),
    truth: (Numbers<'py>, Numbers<'py>),
    lengths: PyReadonlyArray1<'py, i64>,
    protocol_name: &str,
    whole: Option<(Numbers<'py>, Numbers<'py>)>,
) -> PyResult<Bound<'py, PyDict>> {
    let spans = spans(&lengths)?;
    let classes = columns(&truth.0);
    let size = [spans.len(), rows(&spans), classes];
    if spans.is_empty() || classes == 0 {
        return Err(PyValueError::new_err(
            "audio_true has no video or no class, expected at least one",
        ));
    }
    let protocol = protocol(protocol_name, whole.is_some())?;
    let names = ArgumentNames {
        segments: ["audio_pred", "visual_pred"],
        whole: match protocol {
            Protocol::Fused => ["video_prob", "video_prob"],
            _ => ["audio_prob", "visual_prob"],
        },
    };
    let own = whole.as_ref().map(|whole| [&whole.0, &whole.1]);
    let predicted = Predicted::new(&names, protocol, [&predictions.0, &predictions.1], own, size)?;
    let truth = [
        Table::new("audio_true", Allowed::Label, &truth.0, [size[1], classes])?,
        Table::new("visual_true", Allowed::Label, &truth.1, [size[1], classes])?,
    ];
    let (scores, per_class) = work(py, || {
        let mut evaluator = Evaluator::new(classes);
        for first in (0..spans.len()).step_by(BLOCK) {
            let block = first..(first + BLOCK).min(spans.len());
            let made = on_cores(block, |scratch: &mut [Vec<f64>; 2], video| {
                let span = &spans[video];
                let prediction = VideoParse {
                    audio: predicted.labels(0, video, span.clone(), scratch)?,
                    visual: predicted.labels(1, video, span.clone(), scratch)?,
                };
                let truth = VideoParse {
                    audio: truth[0].matrix(span.clone())?,
                    visual: truth[1].matrix(span.clone())?,
                };
                Ok::<_, BadCell>((prediction, truth))
            })?;
            // In the order of the videos, so that the sums are the same on any number of cores.
            for (prediction, truth) in &made {
                evaluator.add(prediction, truth);
            }
        }
        Ok::<_, BadCell>((evaluator.scores(), evaluator.class_scores()))
    })?;
    report(py, &scores.expect("there is a video"), &per_class)
}

/// F-scores of predictions against the dense truth of an annotation folder. `names` has one name per video.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the Python file names them")]
pub(crate) fn evaluate_folder<'py>(
    py: Python<'py>,
    annotations: PathBuf,
    classes_file: Option<PathBuf>,
    split: &str,
    names: Vec<String>,
    predictions: (Numbers<'py>, Numbers<'py>),
    lengths: PyReadonlyArray1<'py, i64>,
    protocol_name: &str,
    whole: Option<(Numbers<'py>, Numbers<'py>)>,
) -> PyResult<Bound<'py, PyDict>> {
    let split: Split = split.parse().map_err(PyValueError::new_err)?;
    let spans = spans(&lengths)?;
    let protocol = protocol(protocol_name, whole.is_some())?;
    let (annotations, truth) = work(py, || {
        let classes = classes_file.as_deref().map(read_classes).transpose();
        let classes = classes.map_err(IntoException::into_exception)?;
        let annotations = Annotations::read_with_classes(&annotations, classes);
        let annotations = annotations.map_err(IntoException::into_exception)?;
        let truth = DenseTruth::of_annotations(&annotations, split).map_err(IntoException::into_exception)?;
        Ok::<_, PyErr>((annotations, truth))
    })?;
    let classes = truth.classes.len();
    let found = columns(&predictions.0);
    if found != classes {
        return Err(PyValueError::new_err(format!(
            "predictions have {found} classes, expected the {classes} of the annotations"
        )));
    }
    let size = [spans.len(), rows(&spans), classes];
    let whole_names = match protocol {
        Protocol::Fused => ["predictions[\"video_prob\"]"; 2],
        _ => ["predictions[\"audio_prob\"]", "predictions[\"visual_prob\"]"],
    };
    let argument_names = ArgumentNames {
        segments: ["predictions[\"audio\"]", "predictions[\"visual\"]"],
        whole: whole_names,
    };
    let own = whole.as_ref().map(|whole| [&whole.0, &whole.1]);
    let predicted = Predicted::new(
        &argument_names,
        protocol,
        [&predictions.0, &predictions.1],
        own,
        size,
    )?;
    if names.len() != spans.len() {
        return Err(PyValueError::new_err(
            "predictions have another number of names than of videos",
        ));
    }
    let roster = annotations.roster();
    let places: BTreeMap<&str, usize> = truth.videos.iter().map(|video| &*video.name).zip(0..).collect();
    let mut matrices = vec![PredictedLabels::default(); truth.videos.len()];
    let report_of = work(py, || {
        let mut scratch = [Vec::new(), Vec::new()];
        for (video, (name, span)) in names.iter().zip(&spans).enumerate() {
            let place = roster.resolve(name).map_err(|error| {
                PyValueError::new_err(format!(
                    "predictions, video {name:?}: {error}, expected a video of the annotations"
                ))
            })?;
            // A video of another split is in the annotations, and does not count.
            let Some(&place) = places.get(annotations.videos.get(place).name) else {
                continue;
            };
            if matrices[place].audio.is_some() {
                return Err(PyValueError::new_err(format!(
                    "predictions name video {:?} twice, expected one key per video",
                    truth.videos[place].name
                )));
            }
            let mut of = |modality| {
                let labels = predicted.labels(modality, video, span.clone(), &mut scratch);
                labels.map_err(IntoException::into_exception)
            };
            matrices[place] = PredictedLabels {
                audio: Some(of(0)?),
                visual: Some(of(1)?),
            };
        }
        vaplan::eval::evaluate(&truth, &matrices, true).map_err(IntoException::into_exception)
    })?;
    let of_classes: Vec<ClassFScores> = report_of
        .per_class
        .iter()
        .flatten()
        .map(|class| class.scores)
        .collect();
    let out = report(py, &report_of.scores, &of_classes)?;
    out.set_item("videos", report_of.videos)?;
    let names = |names: &[std::sync::Arc<str>]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    out.set_item("missing", names(&report_of.missing.audio))?;
    out.set_item("classes", names(&truth.classes))?;
    Ok(out)
}

/// The rule of this name and scale.
fn rule(name: &str, scale: f64) -> PyResult<Rule> {
    use vaplan::RuleName;
    if !(scale.is_finite() && scale > 0.0) {
        return Err(PyValueError::new_err(format!(
            "scale is {scale}, expected a finite number above 0"
        )));
    }
    match RuleName::parse(name) {
        Ok(RuleName::Softmax) => Ok(Rule::Softmax { scale }),
        Ok(RuleName::Logit) => Ok(Rule::Logit { scale }),
        Err(error) => Err(PyValueError::new_err(error.to_string())),
    }
}

type Matrix<'py, T> = Bound<'py, PyArray2<T>>;

fn matrix<T: numpy::Element>(
    py: Python<'_>,
    values: Vec<T>,
    rows: usize,
    columns: usize,
) -> PyResult<Matrix<'_, T>> {
    PyArray1::from_vec(py, values).reshape([rows, columns])
}

/// PLG labels `[rows, C]`.
#[pyfunction]
pub(crate) fn generate<'py>(
    py: Python<'py>,
    cosine: Numbers<'py>,
    weak: Numbers<'py>,
    lengths: PyReadonlyArray1<'py, i64>,
    rule_name: &str,
    scale: f64,
    thresholds: Vec<f64>,
) -> PyResult<Matrix<'py, bool>> {
    let rule = rule(rule_name, scale)?;
    let spans = spans(&lengths)?;
    let (rows, classes) = (rows(&spans), columns(&weak));
    let cosine = Table::new("cosine", Allowed::Finite, &cosine, [rows, classes])?;
    let weak = Table::new("weak", Allowed::Label, &weak, [spans.len(), classes])?;
    let limits: Option<Vec<Score>> = thresholds
        .iter()
        .map(|threshold| {
            Score::new(rule.score_threshold(*threshold, classes)).filter(|limit| limit.get().is_finite())
        })
        .collect();
    let limits = limits.filter(|limits| limits.len() == classes).ok_or_else(|| {
        PyValueError::new_err(format!(
            "threshold is {thresholds:?}, expected {classes} finite numbers"
        ))
    })?;
    let labels = work(py, || {
        let mut labels = vec![false; rows * classes];
        let mut cosines = Vec::new();
        for (video, span) in spans.iter().enumerate().filter(|_| classes > 0) {
            cosine.read(span.clone(), &mut cosines)?;
            let own = &mut labels[span.start * classes..span.end * classes];
            plg_labels(rule, &cosines, &weak.read_bits(video..video + 1)?, &limits, own);
        }
        Ok::<_, BadCell>(labels)
    })?;
    matrix(py, labels, rows, classes)
}

/// PLD: labels, losses and flips, each `[rows, C]`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the Python file names them")]
pub(crate) fn denoise<'py>(
    py: Python<'py>,
    probability: Numbers<'py>,
    labels: Numbers<'py>,
    weak: Numbers<'py>,
    lengths: PyReadonlyArray1<'py, i64>,
    k: u32,
    alpha: f64,
    guard: f64,
) -> PyResult<(Matrix<'py, bool>, Matrix<'py, f64>, Matrix<'py, bool>)> {
    let rule = DenoisingRule::pld(k, alpha, guard).map_err(IntoException::into_exception)?;
    let spans = spans(&lengths)?;
    let (rows, classes) = (rows(&spans), columns(&weak));
    let probability = Table::new("probability", Allowed::Probability, &probability, [rows, classes])?;
    let labels = Table::new("labels", Allowed::Label, &labels, [rows, classes])?;
    let weak = Table::new("weak", Allowed::Label, &weak, [spans.len(), classes])?;
    let (after, losses, flips) = work(py, || {
        let cells = rows * classes;
        let (mut after, mut losses, mut flips) = (vec![false; cells], vec![0.0; cells], vec![false; cells]);
        let mut values = Vec::new();
        for (video, span) in spans.iter().enumerate().filter(|_| classes > 0) {
            probability.read(span.clone(), &mut values)?;
            let probabilities: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            let cells = span.start * classes..span.end * classes;
            let out = DenoisedMatrices {
                labels: &mut after[cells.clone()],
                losses: &mut losses[cells.clone()],
                flips: &mut flips[cells],
            };
            let weak = weak.read_bits(video..video + 1)?;
            let own = PredictedMatrices {
                probabilities: &probabilities,
                labels: &labels.read_bits(span.clone())?,
                margins: None,
            };
            denoised_labels(rule, own, &weak, out);
        }
        Ok::<_, BadCell>((after, losses, flips))
    })?;
    Ok((
        matrix(py, after, rows, classes)?,
        matrix(py, losses, rows, classes)?,
        matrix(py, flips, rows, classes)?,
    ))
}

type Column<'py> = Bound<'py, PyArray1<i64>>;

/// The maximal runs of set labels: video, class, onset and offset of each, in segments.
#[pyfunction]
pub(crate) fn events<'py>(
    py: Python<'py>,
    labels: Numbers<'py>,
    lengths: PyReadonlyArray1<'py, i64>,
) -> PyResult<(Column<'py>, Column<'py>, Column<'py>, Column<'py>)> {
    let spans = spans(&lengths)?;
    let classes = columns(&labels);
    let labels = Table::new("labels", Allowed::Label, &labels, [rows(&spans), classes])?;
    let found = work(py, || {
        let mut found = [const { Vec::<i64>::new() }; 4];
        for (video, span) in spans.iter().enumerate().filter(|_| classes > 0) {
            let bits = labels.matrix(span.clone())?;
            for class in 0..classes {
                for (onset, offset) in bits.runs(class) {
                    let event = [video, class, onset, offset];
                    found
                        .iter_mut()
                        .zip(event)
                        .for_each(|(to, value)| to.push(value as i64));
                }
            }
        }
        Ok::<_, BadCell>(found)
    })?;
    let [video, class, onset, offset] = found.map(|values| PyArray1::from_vec(py, values));
    Ok((video, class, onset, offset))
}
