//! Reads `encode.json`, the report beside the features that `vaplan encode` wrote.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vaplan_schemas::Modality;

/// Name of the report.
pub const REPORT: &str = "encode.json";

/// The encoder that made features of one modality, and how it was given the media.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderOrigin {
    /// Kind of the model: `clip`, `clap` or `classifier`.
    pub kind: String,
    /// Folder of the model when the features were made, as an absolute path.
    pub folder: PathBuf,
    /// File of the vision or audio model.
    pub model: PathBuf,
    /// SHA-256 of the model, in hexadecimal.
    pub sha256: String,
    /// Number of values of a feature (D).
    pub width: usize,
    /// Number type of the features, `f16` or `f32`.
    pub float: String,
    /// How media were prepared for the model: JSON text.
    pub preparation: String,
    /// How media were cut into segments.
    pub cut: Value,
    /// For a classifier: the positions of the scores of each class. Programs before did not record them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<Vec<usize>>>,
}

#[derive(Deserialize)]
struct Report {
    features: Vec<ReportedFeatures>,
}

#[derive(Deserialize)]
struct ReportedFeatures {
    modality: Modality,
    #[serde(flatten)]
    origin: Value,
}

/// The encoder that made the features of a modality, by the reports beside the paths of the features.
///
/// # Errors
/// Returns a message that says why the encoder is unknown: a path without a report, a report of an earlier program, or
/// paths of different encoders.
pub fn encoder_of(paths: &[PathBuf], modality: Modality) -> Result<EncoderOrigin, String> {
    let mut known: Option<(EncoderOrigin, &PathBuf)> = None;
    for path in paths {
        let origin = one(path, modality)?;
        match &known {
            Some((first, other)) if !same(first, &origin) => {
                return Err(format!(
                    "`{}` and `{}` were made by different encoders or settings",
                    other.display(),
                    path.display()
                ));
            }
            Some(_) => {}
            None => known = Some((origin, path)),
        }
    }
    known
        .map(|(origin, _)| origin)
        .ok_or_else(|| "no features are named".to_owned())
}

/// Whether two features can be mixed: the place of the encoder does not matter.
fn same(a: &EncoderOrigin, b: &EncoderOrigin) -> bool {
    (&a.sha256, &a.preparation, &a.cut, &a.columns) == (&b.sha256, &b.preparation, &b.cut, &b.columns)
}

fn one(path: &Path, modality: Modality) -> Result<EncoderOrigin, String> {
    // The features are `OUT/visual` or a file in it, and the report is `OUT/encode.json`.
    let path = super::seen::one_spelling(path);
    let folder = if path.is_dir() {
        Some(&*path)
    } else {
        path.parent()
    };
    let report = folder.and_then(Path::parent).map(|out| out.join(REPORT));
    let Some(report) = report.filter(|report| report.is_file()) else {
        return Err(format!(
            "`{}` was not made by `vaplan encode`: no {REPORT} is beside it",
            path.display()
        ));
    };
    let said =
        std::fs::read_to_string(&report).map_err(|error| format!("`{}`: {error}", report.display()))?;
    let said: Report =
        serde_json::from_str(&said).map_err(|error| format!("`{}`: {error}", report.display()))?;
    let own = said.features.into_iter().find(|own| own.modality == modality);
    let own = own.ok_or_else(|| format!("`{}` has no {modality} features", report.display()))?;
    serde_json::from_value(own.origin).map_err(|error| {
        format!(
            "`{}` does not record the whole encoder ({error}): run `vaplan encode` of this program again",
            report.display()
        )
    })
}
