//! Calibrate on arrays.

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use vaplan::Modality;
use vaplan::calibrate::sample::{CalibrationSample, CalibrationVideo};
use vaplan::calibrate::{CalibrationGoal, CalibrationMetric, of_sample};
use vaplan::choice::Choice;
use vaplan::eval::VideoParse;
use vaplan::world::settings::{LabelSettings, ModalitySettings};
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::{CandidateRule, VideoId};
use vaplan_schemas::ClassId;

use crate::arrays::level;
use crate::error::{BadCell, IntoException};
use crate::numbers::{Allowed, Numbers, Table, columns, rows, spans};
use crate::work::work;

/// One modality of a calibration: scores and truth.
type Given<'py> = Option<(Numbers<'py>, Numbers<'py>)>;

/// Thresholds that score best on these videos.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the Python file names them")]
pub(crate) fn calibrate<'py>(
    py: Python<'py>,
    audio: Given<'py>,
    visual: Given<'py>,
    weak: Numbers<'py>,
    lengths: PyReadonlyArray1<'py, i64>,
    folds: usize,
    per_class: bool,
    metric: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let metric =
        CalibrationMetric::parse(metric).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let spans = spans(&lengths)?;
    let (rows, classes) = (rows(&spans), columns(&weak));
    let weak = Table::new("weak", Allowed::Label, &weak, [spans.len(), classes])?;
    let given = [audio, visual];
    let mut tables = [None, None];
    for (to, own) in tables.iter_mut().zip(&given) {
        if let Some((scores, truth)) = own {
            *to = Some((
                Table::new("scores", Allowed::Finite, scores, [rows, classes])?,
                Table::new("truth", Allowed::Label, truth, [rows, classes])?,
            ));
        }
    }
    let present = |modality: &Modality| tables[modality.index()].is_some();
    let how = CalibrationGoal {
        modalities: Modality::ALL.into_iter().filter(present).collect(),
        per_class,
        metric,
    };
    let report = work(py, || {
        let mut videos = Vec::with_capacity(spans.len());
        for (nth, span) in spans.iter().enumerate() {
            let weak = weak
                .read_bits(nth..nth + 1)
                .map_err(IntoException::into_exception)?;
            let mut video = CalibrationVideo {
                id: VideoId(nth as u64),
                segments: span.len(),
                tracks: [Vec::new(), Vec::new()],
                truth: VideoParse::new(classes, span.len()),
                predictions: [None, None],
            };
            for modality in how.modalities.iter().copied() {
                let (scores, truth) = tables[modality.index()]
                    .as_ref()
                    .expect("the modality is present");
                let mut cells = Vec::new();
                let read = |table: &Table<'_>, cells: &mut Vec<f64>| {
                    table.read(span.clone(), cells).map_err(BadCell::into_exception)
                };
                let bits = truth.matrix(span.clone()).map_err(BadCell::into_exception)?;
                match modality {
                    Modality::Audio => video.truth.audio = bits,
                    Modality::Visual => video.truth.visual = bits,
                }
                read(scores, &mut cells)?;
                video.tracks[modality.index()] = (0..classes)
                    .filter(|class| weak[*class])
                    .map(|class| {
                        let track = cells[class.min(cells.len())..].iter().step_by(classes).copied();
                        (ClassId(class as u32), track.collect())
                    })
                    .collect();
            }
            videos.push(video);
        }
        let start = || ModalitySettings {
            rule: Rule::Logit { scale: 1.0 },
            thresholds: vec![0.0; classes],
        };
        let settings = LabelSettings {
            audio: start(),
            visual: start(),
            candidates: CandidateRule::Weak,
        };
        let sample = CalibrationSample { videos, epoch: None };
        of_sample(&sample, &settings, &[], &how, folds).map_err(IntoException::into_exception)
    })?;
    let out = PyDict::new(py);
    for modality in how.modalities {
        let own = report.choice.settings.of(modality).thresholds.clone();
        out.set_item(modality.as_str(), PyArray1::from_vec(py, own))?;
    }
    out.set_item("in_sample", level(py, &report.thresholds.in_sample)?)?;
    out.set_item("held_out", level(py, &report.thresholds.held_out)?)?;
    Ok(out)
}
