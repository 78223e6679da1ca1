//! Names and order of the classes.

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

/// Largest number of classes. A longer list is probably another kind of file.
const MAX_CLASSES: usize = 100_000;

/// Reads class names in order, one per line. Empty lines, and spaces around names, are ignored.
///
/// # Errors
/// Returns [`IngestError::ClassList`] if the list is empty or not UTF-8, if it has a class twice or too many classes,
/// or if a name has a comma, tab or NUL: annotation files cannot contain such a name.
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

/// The known name with the highest Damerau-Levenshtein similarity to `name`, and this similarity from 0 to 1. Without
/// known names the result is an empty name and -1.
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

/// The message that a class is unknown, with the most similar known class.
pub(crate) fn unknown_class(name: &str, known: &[Arc<str>]) -> String {
    // Show at most 80 characters, because the name may be a whole file by mistake.
    let shown: String = name.escape_default().to_string().chars().take(80).collect();
    format!(
        "class `{shown}` is unknown, expected one of {} (nearest: `{}`)",
        known.len(),
        nearest(name, known).0
    )
}
