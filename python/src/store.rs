//! A store version: tables, SQL, arrays and timelines.

use std::path::PathBuf;

use arrow::array::RecordBatch;
use numpy::{Element, PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use vaplan::choice::Choice as _;
use vaplan::export::{self, ExportFormat, ExportRequest};
use vaplan::matrices::{self, MatrixError, VideoMatrices};
use vaplan::query::{QueryError, QuerySession};
use vaplan::rows::Split;
use vaplan::show::{self, Timeline, TimelineStyle};
use vaplan::tables::{Table as _, Versions};
use vaplan::{Modality, Store, StoreVersion};
use vaplan_schemas::storage::local_path;

use crate::error::IntoException;
use crate::stream::{ArrowTable, arrow_error};
use crate::work::{interruptible, work};

/// All versions of a store, as a table.
#[pyfunction]
pub(crate) fn versions(py: Python<'_>, path: PathBuf) -> PyResult<ArrowTable> {
    let rows = work(py, || Store::open(&path)?.versions())?;
    ArrowTable::new(&Versions::schema(), vec![Versions::encode(&rows)]).map_err(arrow_error)
}

/// A store version that is open for reading. It keeps `vacuum` from removing the version's files.
#[pyclass(frozen, module = "vaplan._native")]
pub(crate) struct Snapshot(vaplan::Snapshot);

/// The local path of a folder to write, which can be a `file` URL. The URL of an object store is refused.
pub(crate) fn local_folder(folder: PathBuf) -> PyResult<PathBuf> {
    let local = local_path(&folder).map_err(IntoException::into_exception)?;
    local.ok_or_else(|| {
        PyValueError::new_err(format!(
            "`{}` is a URL, expected a folder of the local disk: give a local folder, and copy the files to the URL",
            folder.display()
        ))
    })
}

fn split(name: Option<&str>) -> PyResult<Option<Split>> {
    name.map(|name| name.parse().map_err(PyValueError::new_err))
        .transpose()
}

pub(crate) fn modality(name: &str) -> PyResult<Modality> {
    name.parse().map_err(PyValueError::new_err)
}

/// What an export wrote: the number of videos, the videos that were left out with the reason, and the classes that were left
/// out.
type ExportedNames = (usize, Vec<(String, String)>, Vec<String>);

#[pymethods]
impl Snapshot {
    /// Opens a version, or the latest for `None`.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, version: Option<u64>) -> PyResult<Snapshot> {
        let open = || Store::open(&path)?.at_version(version.map(StoreVersion));
        Ok(Snapshot(work(py, open)?))
    }

    /// The number of the version.
    #[getter]
    fn version(&self) -> u64 {
        self.0.version().version
    }

    /// The absolute path of the store.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.store().root().to_owned()
    }

    /// Names of the tables and views, with the names of their columns.
    fn tables<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let session = work(py, || QuerySession::open(&self.0))?;
        let tables = PyDict::new(py);
        for table in session.tables() {
            let columns: Vec<String> = table
                .schema
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect();
            tables.set_item(table.name, columns)?;
        }
        Ok(tables)
    }

    /// The answer of one SQL statement.
    fn sql(&self, py: Python<'_>, statement: &str) -> PyResult<ArrowTable> {
        let (schema, batches) = interruptible(py, |listener| {
            let session = QuerySession::open(&self.0)?;
            let mut rows = session.start(session.parse_one(statement)?)?;
            let mut batches: Vec<RecordBatch> = Vec::new();
            while let Some(batch) = rows.next_while(|| !listener.is_cancelled()) {
                batches.push(batch?);
            }
            Ok::<_, QueryError>((rows.schema(), batches))
        })?;
        ArrowTable::new(&schema, batches).map_err(arrow_error)
    }

    /// Names, lengths, classes and labels `[N, T, C]`.
    fn labels<'py>(
        &self,
        py: Python<'py>,
        split_name: Option<&str>,
        of: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.array(py, split_name, of, matrices::labels)
    }

    /// Names, lengths, classes and scores `[N, T, C]`.
    fn scores<'py>(
        &self,
        py: Python<'py>,
        split_name: Option<&str>,
        of: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.array(py, split_name, of, matrices::scores)
    }

    /// Names, lengths, classes and probabilities `[N, T, C]`.
    fn predictions<'py>(
        &self,
        py: Python<'py>,
        epoch: u64,
        split_name: Option<&str>,
        of: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.array(py, split_name, of, |snapshot, split, modality| {
            matrices::predictions(snapshot, split, modality, epoch)
        })
    }

    /// Names, classes and weak labels `[N, C]`.
    fn weak<'py>(&self, py: Python<'py>, split_name: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
        let split = split(split_name)?;
        let weak = work(py, || matrices::weak(&self.0, split))?;
        let shape = [weak.names.len(), weak.classes.len()];
        let values: Bound<'py, PyArray2<u8>> = PyArray1::from_vec(py, weak.values).reshape(shape)?;
        let out = PyDict::new(py);
        out.set_item("names", texts(py, &weak.names)?)?;
        out.set_item("classes", texts(py, &weak.classes)?)?;
        out.set_item("values", values)?;
        Ok(out)
    }

    /// Writes the labels into a new folder.
    fn export(
        &self,
        py: Python<'_>,
        format: &str,
        out: PathBuf,
        split_names: Option<Vec<String>>,
        media: Option<String>,
        frame_rate: Option<f64>,
    ) -> PyResult<ExportedNames> {
        let format = ExportFormat::parse(format).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let splits = match split_names {
            Some(names) => names
                .iter()
                .map(|name| name.parse().map_err(PyValueError::new_err))
                .collect::<PyResult<_>>()?,
            None => Split::ALL.to_vec(),
        };
        let out = local_folder(out)?;
        let mut request = ExportRequest {
            version: Some(StoreVersion(self.version())),
            splits,
            ..ExportRequest::new(self.path(), format, out)
        };
        request.media = media.unwrap_or(request.media);
        request.frame_rate = frame_rate.unwrap_or(request.frame_rate);
        let done = interruptible(py, |_| export::run(&request))?;
        let left_out = done.left_out.into_iter();
        let left_out = left_out.map(|(name, reason)| (name.to_string(), reason));
        let classes = done.left_out_classes.iter().map(ToString::to_string);
        Ok((done.videos, left_out.collect(), classes.collect()))
    }

    /// The timeline of one video.
    fn show<'py>(&self, py: Python<'py>, video: &str, width: usize) -> PyResult<Bound<'py, PyDict>> {
        let (timeline, text) = work(py, || {
            let timeline = show::read(&self.0, video, None)?;
            let mut text = Vec::new();
            show::render(&timeline, TimelineStyle { plain: true, width }, &mut text)
                .expect("memory takes every byte");
            Ok::<_, show::ShowError>((timeline, text))
        })?;
        let out = timeline_dict(py, &timeline)?;
        out.set_item("text", String::from_utf8_lossy(&text))?;
        Ok(out)
    }
}

impl Snapshot {
    /// Names, lengths, classes and the array that `read` makes of a split and a modality.
    fn array<'py, V: Element>(
        &self,
        py: Python<'py>,
        split_name: Option<&str>,
        of: &str,
        read: impl FnOnce(&vaplan::Snapshot, Option<Split>, Modality) -> Result<VideoMatrices<V>, MatrixError>
        + Send,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (split, modality) = (split(split_name)?, modality(of)?);
        array(py, work(py, || read(&self.0, split, modality))?)
    }
}

fn timeline_dict<'py>(py: Python<'py>, timeline: &Timeline) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("video", &*timeline.video)?;
    out.set_item("split", timeline.split.map(Split::as_str))?;
    out.set_item("segments", timeline.segments)?;
    out.set_item("segment_seconds", timeline.segment_seconds)?;
    out.set_item("weak_labels", texts(py, &timeline.weak_labels)?)?;
    out.set_item("guessed", timeline.guessed)?;
    out.set_item("imported", timeline.imported)?;
    let tracks = PyList::empty(py);
    for track in &timeline.tracks {
        let own = PyDict::new(py);
        own.set_item("modality", track.lane.as_str())?;
        own.set_item("class", &*track.class)?;
        own.set_item("labels", &track.labels)?;
        own.set_item("truth", track.truth.as_ref())?;
        own.set_item("scores", track.scores.as_ref())?;
        own.set_item("threshold", track.score_threshold)?;
        let flips: Vec<usize> = track.flips.iter().map(|flip| flip.segment).collect();
        own.set_item("flips", flips)?;
        tracks.append(own)?;
    }
    out.set_item("tracks", tracks)?;
    Ok(out)
}

pub(crate) fn texts<'py>(py: Python<'py>, names: &[std::sync::Arc<str>]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, names.iter().map(|name| &**name))
}

fn array<'py, V: Element>(py: Python<'py>, found: VideoMatrices<V>) -> PyResult<Bound<'py, PyDict>> {
    let shape = [found.names.len(), found.segments, found.classes.len()];
    let values: Bound<'py, PyArray3<V>> = PyArray1::from_vec(py, found.values).reshape(shape)?;
    let lengths: Vec<i64> = found.lengths.iter().map(|length| i64::from(*length)).collect();
    let out = PyDict::new(py);
    out.set_item("names", texts(py, &found.names)?)?;
    out.set_item("lengths", PyArray1::from_vec(py, lengths))?;
    out.set_item("classes", texts(py, &found.classes)?)?;
    out.set_item("values", values)?;
    Ok(out)
}
