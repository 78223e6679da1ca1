//! `vaplan report`: the overview of a store version, and timelines of some videos, in one HTML file that needs no server.
//!
//! The file has the modules of the review page that draw plots and timelines. [`bundle`] joins these modules into one
//! script, because a browser loads no modules from a file.

pub mod bundle;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::{Snapshot, Store};

use crate::error::LabelError;
use crate::serve::index::refresh::HeldIndex;
use crate::serve::overview::{Overview, OverviewReaders};
use crate::serve::video::{self, ShownVideo};
use crate::show::{FindError, find};

/// Modules of the page that the report needs, each after the modules that it imports.
const MODULES: [(&str, &str); 8] = [
    ("dom.js", include_str!("../../web/dom.js")),
    ("api.js", include_str!("../../web/api.js")),
    ("plot.js", include_str!("../../web/plot.js")),
    ("rowplot.js", include_str!("../../web/rowplot.js")),
    ("stages.js", include_str!("../../web/stages.js")),
    ("overview.js", include_str!("../../web/overview.js")),
    ("timeline.js", include_str!("../../web/timeline.js")),
    ("report.js", include_str!("../../web/report.js")),
];
const STYLE: &str = include_str!("../../web/style.css");

/// Request to write a report.
#[derive(Clone, Debug)]
pub struct ReportRequest {
    /// Store to read.
    pub store: PathBuf,
    /// Store version to read. `None` is the latest.
    pub version: Option<StoreVersion>,
    /// Videos whose timelines are shown: full names, or first 11 characters if no other video begins with them.
    pub videos: Vec<String>,
    /// File to write.
    pub out: PathBuf,
}

/// The reason why a report cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The store cannot be read.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A name fits no video, or several videos.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The path is a folder.
    #[error("`{path}` is a folder, expected a file: name one with --out, such as `{path}/report.html`")]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write `{path}`; name a file in a folder that exists with --out")]
    Write {
        /// File to write.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
}

/// What a report contains.
#[derive(Serialize)]
struct ReportData {
    store: String,
    overview: Overview,
    videos: Vec<ShownVideo>,
}

/// A report that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenReport {
    /// Store version of the report.
    pub version: u64,
    /// Size of the file.
    pub bytes: usize,
}

/// Writes a report. The file replaces a former one only when it is complete.
///
/// # Errors
/// Returns [`ReportError`] if the store cannot be read, a video is not found, or the file cannot be written.
pub fn run(request: &ReportRequest) -> Result<WrittenReport, ReportError> {
    if request.out.is_dir() {
        return Err(ReportError::Folder {
            path: request.out.clone(),
        });
    }
    let store = Store::open(&request.store).map_err(LabelError::from)?;
    let snapshot = store.at_version(request.version).map_err(LabelError::from)?;
    let data = read(&snapshot, &request.videos)?;
    let html = html(&data);
    write(&request.out, html.as_bytes()).map_err(|source| ReportError::Write {
        path: request.out.clone(),
        source,
    })?;
    Ok(WrittenReport {
        version: data.overview.version,
        bytes: html.len(),
    })
}

fn read(snapshot: &Snapshot, wanted: &[String]) -> Result<ReportData, ReportError> {
    let held = HeldIndex::read(snapshot)?;
    let index = &held.index;
    let names: Vec<Arc<str>> = match wanted {
        [] => Vec::new(),
        _ => (0..index.len()).map(|at| index.name(at).into()).collect(),
    };
    let mut videos = Vec::with_capacity(wanted.len());
    for query in wanted {
        let name = &names[find(&names, query)?];
        videos.extend(video::read(snapshot, name)?);
    }
    Ok(ReportData {
        store: snapshot.store().root().display().to_string(),
        overview: Overview::read(snapshot, index, &OverviewReaders::default())?,
        videos,
    })
}

fn html(data: &ReportData) -> String {
    let data = serde_json::to_string(data).expect("its keys are text");
    // In an HTML file, only `<` could end the element that holds the data. In JSON, it occurs in text only.
    let data = data.replace('<', "\\u003c");
    let script = bundle::join(&MODULES);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'\">\n\
         <title>vaplan report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <main id=\"main\" class=\"report\"></main>\n<noscript>This report needs JavaScript.</noscript>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .permissions(readable())
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// The permissions of a new file, as the system limits them further: a report is to be read by others, too.
fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}
