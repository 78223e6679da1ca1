//! Labelling and changes of a store.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use vaplan::choice::Choice;
use vaplan::denoise::DenoisingRequest;
use vaplan::label::import_labels;
use vaplan::relabel::changes;
use vaplan::rows::{LabelChangeRow, RejectRow, Severity, Split};
use vaplan::world::changes::{
    ChangeRows, EpochPredictions, Origin, PredictedRow, UserEditRow, UserSpan, WeakEditRow,
};
use vaplan::{
    Changes, ClassThreshold, DenoiseRequest, LabelRequest, Modality, RelabelRequest, RelabelSummary,
    RuleName, SetLabels, SettingsRequest, Store, ThresholdsFile, WeakEdit,
};

use crate::error::IntoException;
use crate::numbers::{Allowed, Numbers, Table, columns, rows, spans};
use crate::store::{local_folder, modality};
use crate::stream::{ArrowTable, arrow_error};
use crate::work::interruptible;

/// The source of rows that came from Python, in tables and messages.
const SOURCE: &str = "python";

/// The arguments of a change, as the Python file prepares them. A missing key changes nothing.
pub(crate) fn changes_of(given: &Bound<'_, PyDict>) -> PyResult<Changes> {
    let mut changes = Changes {
        settings: settings(given)?,
        ..Changes::default()
    };
    if let Some(thresholds) = item::<Vec<(String, String, f64)>>(given, "class_thresholds")? {
        for (of, class, threshold) in thresholds {
            changes.thresholds.push(ClassThreshold {
                modality: modality(&of)?,
                class: class.into(),
                threshold,
            });
        }
    }
    changes.rows = edits(given)?;
    changes.rows.predictions = predictions(given)?;
    changes.epoch = item(given, "epoch")?;
    changes.to_version = item(given, "to_version")?;
    changes.allow_missing = item(given, "allow_missing")?.unwrap_or_default();
    for (key, to) in [
        ("features", &mut changes.features),
        ("removed_features", &mut changes.removed),
    ] {
        for (of, path) in item::<Vec<(String, PathBuf)>>(given, key)?.unwrap_or_default() {
            to[modality(&of)?.index()].push(path);
        }
    }
    changes.denoising = DenoiseRequest {
        rule: item(given, "denoising_rule")?,
        parameters: item(given, "parameters")?.unwrap_or_default(),
        modalities: match item::<Vec<String>>(given, "modalities")? {
            Some(names) => Some(names.iter().map(|name| modality(name)).collect::<PyResult<_>>()?),
            None => None,
        },
    };
    Ok(changes)
}

fn item<'py, T>(given: &Bound<'py, PyDict>, key: &str) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    let Some(value) = given.get_item(key)? else {
        return Ok(None);
    };
    value.extract::<T>().map(Some).map_err(Into::into)
}

fn settings(given: &Bound<'_, PyDict>) -> PyResult<SettingsRequest> {
    let rule = item::<String>(given, "rule")?.map(|name| RuleName::parse(&name));
    let file = item::<PathBuf>(given, "thresholds_file")?.map(|path| ThresholdsFile::read(&path));
    let candidates = item::<String>(given, "candidates")?.map(|rule| rule.parse());
    Ok(SettingsRequest {
        rule: rule
            .transpose()
            .map_err(|error| PyValueError::new_err(error.to_string()))?,
        visual_threshold: item(given, "visual_threshold")?,
        audio_threshold: item(given, "audio_threshold")?,
        visual_scale: item(given, "visual_scale")?,
        audio_scale: item(given, "audio_scale")?,
        file: file.transpose().map_err(IntoException::into_exception)?,
        fit: false,
        candidates: candidates.transpose().map_err(PyValueError::new_err)?,
        event_shares: Default::default(),
    })
}

fn origin() -> Origin {
    Origin {
        file: SOURCE.into(),
        row: None,
    }
}

type UserEdit = (String, String, String, u32, u32, Option<bool>);
type WeakGiven = (String, String, Vec<String>, Option<String>);

fn edits(given: &Bound<'_, PyDict>) -> PyResult<ChangeRows> {
    let mut rows = ChangeRows::default();
    for (nth, (video, of, class, onset, offset, label)) in item::<Vec<UserEdit>>(given, "user_labels")?
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        let row = UserEditRow {
            video: video.into(),
            modality: modality(&of)?,
            class: class.into(),
            span: UserSpan::Segments(onset..offset),
            label,
            origin: origin(),
        };
        row.span
            .check()
            .map_err(|reason| PyValueError::new_err(format!("user_labels[{nth}]: {reason}")))?;
        rows.user.push(row);
    }
    for (edit, video, classes, split) in item::<Vec<WeakGiven>>(given, "weak")?.unwrap_or_default() {
        let edit = match edit.as_str() {
            "add" => WeakEdit::Add,
            "remove" => WeakEdit::Remove,
            _ => WeakEdit::Set,
        };
        let split = split.map(|name| name.parse::<Split>().map_err(PyValueError::new_err));
        rows.weak.push(WeakEditRow {
            edit,
            video: video.into(),
            classes: classes.into_iter().map(Arc::from).collect(),
            split: split.transpose()?,
            origin: origin(),
        });
    }
    if !(rows.user.is_empty() && rows.weak.is_empty()) {
        rows.files.insert(SOURCE.to_owned());
    }
    if let Some(classes) = item::<Vec<String>>(given, "classes")? {
        rows.classes = Some(classes.into_iter().map(Arc::from).collect());
    }
    Ok(rows)
}

/// Names, probabilities `[rows, C]` and lengths of one modality.
type PredictionsGiven<'py> = (String, Vec<String>, Numbers<'py>, PyReadonlyArray1<'py, i64>);

fn predictions(given: &Bound<'_, PyDict>) -> PyResult<Option<EpochPredictions>> {
    let Some(epoch) = item::<u64>(given, "predicted_epoch")? else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for (of, names, numbers, lengths) in
        item::<Vec<PredictionsGiven<'_>>>(given, "predictions")?.unwrap_or_default()
    {
        let modality = modality(&of)?;
        let argument = match modality {
            Modality::Audio => "predictions[\"audio\"]",
            Modality::Visual => "predictions[\"visual\"]",
        };
        let spans = spans(&lengths)?;
        let classes = columns(&numbers);
        let table = Table::new(argument, Allowed::Probability, &numbers, [rows(&spans), classes])?;
        let mut values = Vec::new();
        for (name, span) in names.into_iter().zip(spans) {
            table
                .read(span, &mut values)
                .map_err(IntoException::into_exception)?;
            found.push(PredictedRow {
                key: name.into(),
                modality,
                classes,
                probability: values.iter().map(|value| *value as f32).collect(),
                origin: origin(),
            });
        }
    }
    Ok(Some(EpochPredictions { epoch, rows: found }))
}

/// The number of workers that was given, or one per core.
pub(crate) fn workers(given: Option<usize>) -> PyResult<usize> {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    match given {
        Some(0) => Err(PyValueError::new_err("workers is 0, expected at least 1")),
        given => Ok(given.unwrap_or_else(cores)),
    }
}

/// Makes a change of a store, and returns what changed.
#[pyfunction]
pub(crate) fn relabel<'py>(
    py: Python<'py>,
    path: PathBuf,
    given: Bound<'py, PyDict>,
    dry_run: bool,
    workers_given: Option<usize>,
    command: String,
) -> PyResult<Bound<'py, PyDict>> {
    let request = RelabelRequest {
        store: path,
        changes: changes_of(&given)?,
        workers: workers(workers_given)?,
        dry_run,
        command,
    };
    let summary = interruptible(py, |listener| {
        let mut summary = vaplan::relabel(&request, listener)?;
        if let Some(version) = &summary.version {
            summary.changes = changes(&Store::open(&request.store)?, version.version)?;
        }
        Ok::<_, vaplan::LabelError>(summary)
    })?;
    summary_dict(py, &summary)
}

/// Denoises a store by an epoch, or by the best one, and returns what changed.
#[pyfunction]
pub(crate) fn denoise_store<'py>(
    py: Python<'py>,
    path: PathBuf,
    given: Bound<'py, PyDict>,
    calibrate: bool,
    dry_run: bool,
    workers_given: Option<usize>,
    command: String,
) -> PyResult<Bound<'py, PyDict>> {
    let changes = changes_of(&given)?;
    let request = DenoisingRequest {
        store: path,
        epoch: changes.epoch,
        denoising: changes.denoising,
        calibrate,
        workers: workers(workers_given)?,
        dry_run,
        command,
    };
    let done = interruptible(py, |listener| vaplan::denoise::run(&request, listener))?;
    let out = summary_dict(py, &done.summary)?;
    out.set_item("epoch", done.epoch)?;
    let calibration = done.calibration.map(|gain| -> PyResult<Bound<'py, PyDict>> {
        let own = PyDict::new(py);
        own.set_item("rule", gain.rule.to_string())?;
        own.set_item("videos", gain.videos)?;
        own.set_item("in_sample", gain.in_sample)?;
        own.set_item("held_out", gain.held_out)?;
        own.set_item("error", gain.error)?;
        own.set_item("taken", gain.is_gain())?;
        Ok(own)
    });
    out.set_item("calibration", calibration.transpose()?)?;
    Ok(out)
}

/// What a change would cost.
#[pyfunction]
pub(crate) fn plan<'py>(
    py: Python<'py>,
    path: PathBuf,
    given: Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    let changes = changes_of(&given)?;
    let estimate = interruptible(py, |_| vaplan::estimate(&path, &changes))?;
    let out = PyDict::new(py);
    out.set_item("everything", estimate.everything)?;
    out.set_item("videos", estimate.videos)?;
    out.set_item("rescored", estimate.rescored)?;
    out.set_item("tracks", estimate.tracks)?;
    let tables = PyDict::new(py);
    for (name, extent) in &estimate.tables {
        let own = PyDict::new(py);
        own.set_item("rows", extent.rows)?;
        own.set_item("videos", extent.videos)?;
        own.set_item("files", extent.files)?;
        own.set_item("bytes", extent.bytes)?;
        tables.set_item(*name, own)?;
    }
    out.set_item("tables", tables)?;
    out.set_item("feature_files", estimate.features.0)?;
    out.set_item("feature_bytes", estimate.features.1)?;
    out.set_item("seconds", estimate.seconds)?;
    Ok(out)
}

/// The summary of a change, with its label changes as a table.
pub(crate) fn summary_dict<'py>(py: Python<'py>, summary: &RelabelSummary) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("version", summary.version.as_ref().map(|row| row.version))?;
    out.set_item("set", summary.set)?;
    out.set_item("unset", summary.unset)?;
    out.set_item("videos", summary.videos.0)?;
    out.set_item("changes", change_table(&summary.changes)?)?;
    out.set_item("rejected", rejects(py, &summary.rejected)?)?;
    out.set_item("remarks", &summary.remarks)?;
    let flips = summary.flips.as_ref().map(|flips| {
        let count = |nth: usize| flips.values().map(|own| own[nth]).sum::<u64>();
        (count(0), count(1))
    });
    out.set_item("flips", flips)?;
    Ok(out)
}

/// One row per changed label.
fn change_table(rows: &[LabelChangeRow]) -> PyResult<ArrowTable> {
    let text = |column: fn(&LabelChangeRow) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(column)))
    };
    let label = |column: fn(&LabelChangeRow) -> bool| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(column(row))).collect::<BooleanArray>())
    };
    let segments = Int32Array::from_iter_values(rows.iter().map(|row| row.segment as i32));
    let columns: [(&str, DataType, ArrayRef); 7] = [
        ("video", DataType::Utf8, text(|row| &row.video)),
        ("modality", DataType::Utf8, text(|row| row.modality.as_str())),
        ("class", DataType::Utf8, text(|row| &row.class)),
        ("segment", DataType::Int32, Arc::new(segments)),
        ("before", DataType::Boolean, label(|row| row.from)),
        ("after", DataType::Boolean, label(|row| row.to)),
        ("rule", DataType::Utf8, text(|row| row.rule.as_str())),
    ];
    let fields = columns
        .iter()
        .map(|(name, of, _)| Field::new(*name, of.clone(), false));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(arrow_error)?;
    ArrowTable::new(&(schema as _), vec![batch]).map_err(arrow_error)
}

/// Rejected rows, without notes.
fn rejects<'py>(py: Python<'py>, rows: &[RejectRow]) -> PyResult<Bound<'py, PyList>> {
    left_out(py, rows, Severity::Reject)
}

/// Notes: rows that were used, with a remark.
fn notes<'py>(py: Python<'py>, rows: &[RejectRow]) -> PyResult<Bound<'py, PyList>> {
    left_out(py, rows, Severity::Note)
}

fn left_out<'py>(py: Python<'py>, rows: &[RejectRow], severity: Severity) -> PyResult<Bound<'py, PyList>> {
    let out = PyList::empty(py);
    for row in rows.iter().filter(|row| row.severity == severity) {
        let own = PyDict::new(py);
        own.set_item("file", &row.file)?;
        own.set_item("row", row.row)?;
        own.set_item("video", row.video.as_ref())?;
        own.set_item("modality", row.modality.map(Modality::as_str))?;
        own.set_item("reason", &row.reason)?;
        out.append(own)?;
    }
    Ok(out)
}

/// Labels feature shards into a store, and returns counts and the version.
#[pyfunction]
pub(crate) fn label<'py>(py: Python<'py>, given: Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let path = |key: &str| -> PyResult<PathBuf> {
        item(&given, key)?.ok_or_else(|| PyValueError::new_err(format!("{key} is missing, expected a path")))
    };
    let pseudo_labels = item::<(PathBuf, PathBuf)>(&given, "pseudo_labels")?;
    let input = |key: &str| match pseudo_labels {
        Some(_) => Ok(PathBuf::new()),
        None => path(key),
    };
    let mut request = LabelRequest::new(
        path("store")?,
        path("annotations")?,
        (input("visual")?, input("visual_text")?),
        (input("audio")?, input("audio_text")?),
    );
    request.settings = settings(&given)?;
    request.classes = item(&given, "classes_file")?;
    request.workers = workers(item(&given, "workers")?)?;
    request.allow_missing = item(&given, "allow_missing")?.unwrap_or_default();
    if let Some(seconds) = item::<f64>(&given, "segment_seconds")? {
        if !(seconds.is_finite() && seconds > 0.0) {
            return Err(PyValueError::new_err(format!(
                "segment_seconds is {seconds}, expected a finite number of seconds above 0"
            )));
        }
        request.segment_seconds = seconds;
    }
    if let Some(names) = item::<String>(&given, "columns")? {
        request.columns = names
            .parse()
            .map_err(|reason| PyValueError::new_err(format!("columns: {reason}")))?;
    }
    if let Some(names) = item::<Vec<String>>(&given, "splits")? {
        let splits: Result<Vec<Split>, String> = names.iter().map(|name| name.parse()).collect();
        request.splits = splits.map_err(PyValueError::new_err)?;
    }
    "vaplan.label".clone_into(&mut request.command);
    let summary = interruptible(py, |listener| {
        if let Some((visual, audio)) = &pseudo_labels {
            import_labels(&mut request, [audio, visual])?;
        }
        vaplan::label(&request, listener)
    })?;
    let out = PyDict::new(py);
    out.set_item("version", summary.version.version)?;
    out.set_item("labelled", summary.done.is_some())?;
    let done = summary.done.unwrap_or_default();
    let counts = |own: SetLabels| (own.set, own.of);
    out.set_item("videos", done.videos)?;
    out.set_item("audio", counts(done.audio))?;
    out.set_item("visual", counts(done.visual))?;
    out.set_item("audio_visual", counts(done.audio_visual))?;
    out.set_item("rejected", rejects(py, &done.rejected)?)?;
    out.set_item("notes", notes(py, &done.rejected)?)?;
    out.set_item("remarks", &done.remarks)?;
    Ok(out)
}

/// Writes the built-in sample into a folder, and returns the arguments of `label` for it.
#[pyfunction]
pub(crate) fn sample<'py>(py: Python<'py>, folder: PathBuf) -> PyResult<Bound<'py, PyDict>> {
    let folder = local_folder(folder)?;
    let request = interruptible(py, |_| vaplan::sample(&folder))?;
    let out = PyDict::new(py);
    out.set_item("store", request.store)?;
    out.set_item("annotations", request.annotations)?;
    out.set_item("visual", request.visual)?;
    out.set_item("visual_text", request.visual_text)?;
    out.set_item("audio", request.audio)?;
    out.set_item("audio_text", request.audio_text)?;
    Ok(out)
}
