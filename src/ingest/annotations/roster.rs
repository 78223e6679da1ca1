//! From names in feature and label files to videos.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Characters of a video's name that feature files are keyed by (C: VALOR `dataset.py`, `name[:11]`).
pub const KEY_CHARS: usize = 11;

/// The first 11 characters, the key of public feature files; the whole of a shorter name.
///
/// ```
/// use vaplan::ingest::annotations::key11;
/// assert_eq!(key11("-rf_Eufr_X4_20_30"), "-rf_Eufr_X4");
/// assert_eq!(key11("short"), "short");
/// ```
pub fn key11(name: &str) -> &str {
    name.char_indices()
        .nth(KEY_CHARS)
        .map_or(name, |(end, _)| &name[..end])
}

/// Splits `<id>_<start>_<end>` at its last two `_`; start and end are seconds, maybe decimal.
///
/// None: the name has another form, as those of other data sets may.
///
/// ```
/// use vaplan::ingest::annotations::split_name;
/// assert_eq!(split_name("-a_b_c_d_e__101.8_111.8"), Some(("-a_b_c_d_e_", 101.8, 111.8)));
/// assert_eq!(split_name("clip0001"), None);
/// ```
pub fn split_name(name: &str) -> Option<(&str, f64, f64)> {
    let (rest, end) = name.rsplit_once('_')?;
    let (id, start) = rest.rsplit_once('_')?;
    let seconds = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite());
    Some((id, seconds(start)?, seconds(end)?))
}

/// Which video a key of a feature or label file means.
///
/// ```
/// use vaplan::ingest::annotations::{KeyError, Roster};
/// let roster = Roster::new(["AAAAAAAAAAA_0_10", "AAAAAAAAAAA_20_30", "BBBBBBBBBBB_0_10"]);
/// assert_eq!(roster.resolve("AAAAAAAAAAA_20_30"), Ok(1));
/// assert_eq!(roster.resolve("BBBBBBBBBBB"), Ok(2));
/// assert_eq!(roster.resolve("CCCCCCCCCCC"), Err(KeyError::Unknown));
/// assert!(matches!(roster.resolve("AAAAAAAAAAA"), Err(KeyError::Ambiguous { .. })));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Roster {
    names: Vec<Arc<str>>,
    full: BTreeMap<Arc<str>, usize>,
    /// Positions of the first and last name with the key, in the order of names.
    short: BTreeMap<Arc<str>, (usize, usize)>,
}

/// Why a key means no video.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No video of that name, nor any with that beginning.
    #[error("no annotated video has this name or these first {KEY_CHARS} characters")]
    Unknown,
    /// More than one video begins so.
    #[error("key `{key}` means both `{first}` and `{second}`, expected a full name")]
    Ambiguous {
        /// The key.
        key: String,
        /// A video it means.
        first: Arc<str>,
        /// Another.
        second: Arc<str>,
    },
}

impl Roster {
    /// Of video names, in order; a name's position is what [`Roster::resolve`] gives.
    pub fn new<S: Into<Arc<str>>>(names: impl IntoIterator<Item = S>) -> Roster {
        let mut roster = Roster::default();
        for (position, name) in names.into_iter().enumerate() {
            let name: Arc<str> = name.into();
            let key: Arc<str> = key11(&name).into();
            let (first, last) = roster.short.entry(key).or_insert((position, position));
            // Not in the order they come in: what is said of a key depends on the names alone.
            if *first != position && name < roster.names[*first] {
                *first = position;
            }
            if *last != position && name > roster.names[*last] {
                *last = position;
            }
            roster.full.insert(name.clone(), position);
            roster.names.push(name);
        }
        roster
    }

    /// Position of the video that `key` means: its full name, or its first 11 characters where no other has them.
    ///
    /// # Errors
    /// [`KeyError::Ambiguous`] when two videos begin so, [`KeyError::Unknown`] when none does.
    pub fn resolve(&self, key: &str) -> Result<usize, KeyError> {
        if let Some(&position) = self.full.get(key) {
            return Ok(position);
        }
        match self.short.get(key) {
            Some(&(first, last)) if first == last => Ok(first),
            Some(&(first, last)) => Err(KeyError::Ambiguous {
                key: key.to_owned(),
                first: self.names[first].clone(),
                second: self.names[last].clone(),
            }),
            None => Err(KeyError::Unknown),
        }
    }

    /// Whether [`Roster::resolve`] knows `key`, be it ambiguous: the `wanted` of
    /// [`FeatureInput::open`](crate::ingest::features::FeatureInput::open).
    pub fn knows(&self, key: &str) -> bool {
        self.full.contains_key(key) || self.short.contains_key(key)
    }
}
