//! Features whose key names no annotated video.

use serde::{Deserialize, Serialize};

/// How many features have a key that names no annotated video, and one of them.
///
/// Such features are not used, and they are no error: a folder of features often has more videos than the annotations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnknownVideos {
    /// Number of features. One feature is all segments of one video in one file.
    pub count: u64,
    /// Key of one of them, and its Parquet file or the folder of its npy file. It is the smallest, so that the order of
    /// reading does not matter.
    pub example: Option<(String, String)>,
}

impl UnknownVideos {
    /// Counts the feature with this key in this file or folder.
    pub fn note(&mut self, key: &str, path: &str) {
        self.count += 1;
        let is_smaller = |(name, of): &(String, String)| (key, path) < (name, of);
        if self.example.as_ref().is_none_or(is_smaller) {
            self.example = Some((key.to_owned(), path.to_owned()));
        }
    }

    /// Adds the features that were counted elsewhere.
    pub fn add(&mut self, other: UnknownVideos) {
        self.count += other.count;
        self.example = match (self.example.take(), other.example) {
            (Some(own), Some(theirs)) => Some(own.min(theirs)),
            (own, theirs) => own.or(theirs),
        };
    }

    /// Logs a warning if there are such features.
    pub fn warn(&self) {
        if let Some((example, path)) = &self.example {
            tracing::warn!(
                features = self.count, %example, %path,
                "features that match no annotated video are not used"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_in_any_order() {
        let of = |keys: &[&str]| {
            let mut unknown = UnknownVideos::default();
            keys.iter().for_each(|key| unknown.note(key, "f"));
            unknown
        };
        let sum = |first: &[&str], then: &[&str]| {
            let mut sum = of(first);
            sum.add(of(then));
            sum
        };
        let expected = UnknownVideos {
            count: 3,
            example: Some(("a".into(), "f".into())),
        };
        assert_eq!(sum(&["c", "a"], &["b"]), expected);
        assert_eq!(sum(&["b"], &["c", "a"]), expected);
        assert_eq!(sum(&[], &["a", "b", "c"]), expected);
        assert_eq!(sum(&["a", "b", "c"], &[]), expected);
    }
}
