//! Estimates how much data a change touches and how long it takes, before the change is made.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use vaplan_schemas::store::{Extent, Filter, Snapshot, Store};
use vaplan_schemas::tables::{Labels, Scores, Videos};
use vaplan_schemas::{Modality, StoreError};

use crate::error::LabelError;
use crate::world::changes::Changes;
use crate::world::inputs;
use crate::world::resolve::Resolved;
use crate::world::scope::{PredictionScope, Scope, Touched};

/// The cost of decoding, labelling and writing a row, divided by the cost of finding the row by its key
/// (bench/README.md, relabelling). This is a rough number, and so is every estimate made with it.
const FULL_OVER_KEYS: f64 = 12.0;

/// The data that a change would touch.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Whether every score depends on the change.
    pub everything: bool,
    /// The number of videos of which every row can change.
    pub videos: u64,
    /// The number of these videos whose features are read again.
    pub rescored: u64,
    /// The number of tracks (modality and class) whose labels can change in any video.
    pub tracks: u64,
    /// For each table: rows, videos, files and bytes of these files.
    pub tables: Vec<(&'static str, Extent)>,
    /// The number of feature files to read, and their bytes. Files that are found to be needed only while other files
    /// are read are not counted.
    pub features: (u64, u64),
    /// The estimated time in seconds, without reading features.
    pub seconds: f64,
}

/// Estimates a change of the latest version of a store.
///
/// # Errors
/// Returns those errors of [`super::run`] that can be found without making the change.
pub fn estimate(store: &Path, changes: &Changes) -> Result<Estimate, LabelError> {
    let store = Store::open(store)?;
    let snapshot = store.at_version(None)?;
    let mut resolved = Resolved::by_track(&store, &snapshot, changes)?;
    let scope = Scope::of(&snapshot, &mut resolved, PredictionScope::Flipped)?;
    let (everything, touched, filter) = match scope {
        Scope::Everything => (true, Touched::default(), Filter::all()),
        Scope::Part(mut touched) => {
            let classes = &resolved.after.classes;
            let tracks = touched
                .tracks
                .iter()
                .map(|(modality, class)| (*modality, classes[class.index()].clone()));
            let flipped = touched.relabelled.iter().map(|own| own.new.video.clone());
            touched.videos.extend(flipped);
            let filter = Filter::videos(touched.videos.iter().cloned()).or_tracks(tracks);
            (false, touched, filter)
        }
    };
    if everything || !touched.rescored.is_empty() || resolved.paths.iter().any(|paths| !paths.is_empty()) {
        inputs::check(&store, &resolved.after)?;
    }
    let began = Instant::now();
    let tables = extents(&snapshot, &filter)?;
    let keys = began.elapsed().as_secs_f64();
    let mut features = (0, 0);
    for modality in Modality::ALL {
        let inputs = &resolved.after.features[modality.index()];
        let all: Vec<_> = if everything {
            inputs.iter().collect()
        } else {
            resolved.paths[modality.index()].iter().collect()
        };
        for path in all {
            let (files, bytes) = size(path);
            features = (features.0 + files, features.1 + bytes);
        }
    }
    Ok(Estimate {
        everything,
        videos: touched.videos.len() as u64,
        rescored: touched.rescored.len() as u64,
        tracks: touched.tracks.len() as u64,
        tables,
        features,
        seconds: keys * FULL_OVER_KEYS,
    })
}

fn extents(snapshot: &Snapshot, filter: &Filter) -> Result<Vec<(&'static str, Extent)>, StoreError> {
    Ok(vec![
        ("videos", snapshot.count::<Videos>(filter)?),
        ("scores", snapshot.count::<Scores>(filter)?),
        ("labels", snapshot.count::<Labels>(filter)?),
    ])
}

/// The number and bytes of the files at a path; 0 if the path cannot be read.
fn size(path: &Path) -> (u64, u64) {
    let Ok(meta) = path.metadata() else { return (0, 0) };
    if !meta.is_dir() {
        return (1, meta.len());
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file);
    files.fold((0, 0), |(files, bytes), meta| (files + 1, bytes + meta.len()))
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.everything {
            writeln!(
                f,
                "every score depends on it: all features are read again, all is labelled anew"
            )?;
        } else {
            writeln!(
                f,
                "{} videos as a whole ({} scored anew), {} tracks (modality and class) of any video",
                self.videos, self.rescored, self.tracks
            )?;
        }
        writeln!(
            f,
            "{:<8} {:>12} {:>10} {:>7} {:>14}",
            "table", "rows", "videos", "files", "bytes of files"
        )?;
        for (table, extent) in &self.tables {
            writeln!(
                f,
                "{table:<8} {:>12} {:>10} {:>7} {:>14}",
                extent.rows, extent.videos, extent.files, extent.bytes
            )?;
        }
        if self.features.0 > 0 {
            writeln!(
                f,
                "features: {} files, {} bytes to read",
                self.features.0, self.features.1
            )?;
        }
        writeln!(f, "about {:.1} s, without reading features", self.seconds)
    }
}
