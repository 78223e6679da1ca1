//! Names and order of classes.

use std::path::Path;
use std::sync::Arc;

use crate::ingest::error::IngestError;
use crate::ingest::open::open_regular;

/// The 25 classes of LLP in the order of its public evaluator (C: HAN, `utils/eval_metrics.py`).
pub const LLP_CLASSES: [&str; 25] = [
    "Speech",
    "Car",
    "Cheering",
    "Dog",
    "Cat",
    "Frying_(food)",
    "Basketball_bounce",
    "Fire_alarm",
    "Chainsaw",
    "Cello",
    "Banjo",
    "Singing",
    "Chicken_rooster",
    "Violin_fiddle",
    "Vacuum_cleaner",
    "Baby_laughter",
    "Accordion",
    "Lawn_mower",
    "Motorcycle",
    "Helicopter",
    "Acoustic_guitar",
    "Telephone_bell_ringing",
    "Baby_cry_infant_cry",
    "Blender",
    "Clapping",
];

/// A longer list of classes is not one: the file is something else.
const MAX_CLASSES: usize = 100_000;

/// Reads class names, one a line in order; empty lines and spaces around names do not count.
///
/// # Errors
/// [`IngestError::ClassList`] if the list is empty or not text, or names a class twice or with a comma or tab in it,
/// which annotation files could not name.
pub fn read_classes(path: &Path) -> Result<Vec<Arc<str>>, IngestError> {
    use std::io::Read;
    let bad = |row: usize, problem: String| IngestError::ClassList {
        path: path.to_owned(),
        row: row as u64,
        problem,
    };
    let (file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(64 << 20)
        .read_to_end(&mut bytes)
        .map_err(IngestError::io("read", path))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let row = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        bad(row, "not UTF-8, expected one class name a line".to_owned())
    })?;
    let mut classes: Vec<Arc<str>> = Vec::new();
    let mut seen = std::collections::BTreeMap::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (row, name) = (index + 1, line.trim());
        if name.is_empty() {
            continue;
        }
        if let Some(first) = seen.insert(name, row) {
            return Err(bad(
                row,
                format!("class `{name}` is that of row {first}, expected each once"),
            ));
        }
        if name.contains([',', '\t', '\0']) {
            return Err(bad(
                row,
                format!(
                    "class is `{}`, expected no comma, tab or NUL",
                    name.escape_default()
                ),
            ));
        }
        classes.push(name.into());
        if classes.len() > MAX_CLASSES {
            return Err(bad(row, format!("more than {MAX_CLASSES} classes")));
        }
    }
    if classes.is_empty() {
        return Err(bad(0, "no class, expected one name a line".to_owned()));
    }
    Ok(classes)
}

/// The known name most like `name` by Damerau-Levenshtein, and how much, from 0 to 1.
pub(crate) fn nearest<'a>(name: &str, known: &'a [Arc<str>]) -> (&'a str, f64) {
    let mut best = ("", -1.0);
    for candidate in known {
        let similarity = strsim::normalized_damerau_levenshtein(name, candidate);
        if similarity > best.1 {
            best = (candidate, similarity);
        }
    }
    best
}

/// "unknown class", with what may have been meant.
pub(crate) fn unknown_class(name: &str, known: &[Arc<str>]) -> String {
    // A name may be a whole file by mistake.
    let shown: String = name.escape_default().to_string().chars().take(80).collect();
    format!(
        "class `{shown}` is unknown, expected one of {} (nearest: `{}`)",
        known.len(),
        nearest(name, known).0
    )
}
