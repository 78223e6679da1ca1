//! Resolves names in feature and label files to videos.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of characters of a video's name that feature files use as key (C: VALOR `dataset.py`, `name[:11]`).
pub const KEY_CHARS: usize = 11;

/// The first 11 characters of a name, which are the key in public feature files. A shorter name is its own key.
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

/// Splits `<id>_<start>_<end>` at its last two `_`. Start and end are seconds, and may have decimals.
///
/// `None` if the name has another form, which names of other data sets may have.
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

/// Tells which video a key of a feature or label file means.
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
    /// Positions of the first and the last name with this key, in alphabetical order of names.
    short: BTreeMap<Arc<str>, (usize, usize)>,
}

/// The reason why a key means no video.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No video has this name or begins with this key.
    #[error("no annotated video has this name or these first {KEY_CHARS} characters")]
    Unknown,
    /// Several videos begin with this key.
    #[error("key `{key}` means both `{first}` and `{second}`, expected a full name")]
    Ambiguous {
        /// The ambiguous key.
        key: String,
        /// Name of a video that the key fits.
        first: Arc<str>,
        /// Name of another video that the key fits.
        second: Arc<str>,
    },
}

impl Roster {
    /// A roster of these video names. [`Roster::resolve`] returns the position of a name in this list.
    pub fn new<S: Into<Arc<str>>>(names: impl IntoIterator<Item = S>) -> Roster {
        let mut roster = Roster::default();
        for (position, name) in names.into_iter().enumerate() {
            let name: Arc<str> = name.into();
            let key: Arc<str> = key11(&name).into();
            let (first, last) = roster.short.entry(key).or_insert((position, position));
            // Keep the first and last name in alphabetical order, so that the message about an ambiguous key depends
            // on the names only, not on their order in the list.
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

    /// Position of the video that `key` means. `key` is the full name, or the first 11 characters if no other video
    /// begins with them.
    ///
    /// # Errors
    /// - Returns [`KeyError::Ambiguous`] if several videos begin with `key`.
    /// - Returns [`KeyError::Unknown`] if no video has this name or begins with `key`.
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

    /// The name at a position that [`Roster::resolve`] returned.
    ///
    /// # Panics
    /// Panics if the roster has no such position.
    pub fn name(&self, position: usize) -> &Arc<str> {
        &self.names[position]
    }

    /// Whether a video has this name or key, even if the key is ambiguous. This function can be the `wanted` of
    /// [`FeatureInput::open`](crate::ingest::features::FeatureInput::open).
    pub fn knows(&self, key: &str) -> bool {
        self.full.contains_key(key) || self.short.contains_key(key)
    }
}
