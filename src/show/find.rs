//! Finds the video that a name or an id means.

use std::sync::Arc;

use crate::ingest::annotations::{KeyError, Roster};

/// Number of similar names in the message about an unknown name.
const NEAREST: usize = 3;

/// A name that fits no video, or several videos.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// No video has this name or id.
    #[error("no video `{query}` (nearest: {})", quoted(nearest))]
    Unknown {
        /// Name or id that the user gave.
        query: String,
        /// The most similar names, the most similar first.
        nearest: Vec<Arc<str>>,
    },
    /// The names of several videos begin with this id.
    #[error("`{query}` means {}, expected a full name", quoted(candidates))]
    Ambiguous {
        /// Name or id that the user gave.
        query: String,
        /// Names of all videos that the id fits.
        candidates: Vec<Arc<str>>,
    },
}

fn quoted(names: &[Arc<str>]) -> String {
    if names.is_empty() {
        return "there are no videos".to_owned();
    }
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Position in `names` of the video that `query` means. `query` is the full name, or the first 11 characters if no
/// other video begins with them.
///
/// ```
/// use vaplan::show::find;
/// let names = ["AAAAAAAAAAA_0_10".into(), "BBBBBBBBBBB_20_30".into()];
/// assert_eq!(find(&names, "BBBBBBBBBBB"), Ok(1));
/// assert!(find(&names, "BBBBBBBBBB").unwrap_err().to_string().contains("nearest: `BBBBBBBBBBB_20_30`"));
/// ```
///
/// # Errors
/// - Returns [`FindError::Unknown`] with the most similar names, if no video fits.
/// - Returns [`FindError::Ambiguous`] with all candidates, if several videos fit.
pub fn find(names: &[Arc<str>], query: &str) -> Result<usize, FindError> {
    let roster = Roster::new(names.iter().cloned());
    match roster.resolve(query) {
        Ok(position) => Ok(position),
        Err(KeyError::Ambiguous { .. }) => {
            let candidates = names
                .iter()
                .filter(|name| name.starts_with(query))
                .cloned()
                .collect();
            Err(FindError::Ambiguous {
                query: query.to_owned(),
                candidates,
            })
        }
        Err(_) => Err(FindError::Unknown {
            query: query.to_owned(),
            nearest: nearest(names, query),
        }),
    }
}

fn nearest(names: &[Arc<str>], query: &str) -> Vec<Arc<str>> {
    let mut near: Vec<(f64, &Arc<str>)> = names
        .iter()
        .map(|name| (strsim::jaro_winkler(name, query), name))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    near.into_iter()
        .take(NEAREST)
        .map(|(_, name)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<Arc<str>> {
        [
            "-rf_AAAAAAA_0_10",
            "AAAAAAAAAAA_0_10",
            "AAAAAAAAAAA_20_30",
            "clip",
        ]
        .map(Arc::from)
        .to_vec()
    }

    #[test]
    fn an_id_of_two_videos_is_ambiguous() {
        let error = find(&names(), "AAAAAAAAAAA").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`AAAAAAAAAAA` means `AAAAAAAAAAA_0_10`, `AAAAAAAAAAA_20_30`, expected a full name"
        );
        assert_eq!(find(&names(), "AAAAAAAAAAA_20_30"), Ok(2));
    }

    #[test]
    fn an_unknown_name_is_answered_with_near_ones() {
        let error = find(&names(), "AAAAAAAAAAA_0_11").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no video `AAAAAAAAAAA_0_11` (nearest: `AAAAAAAAAAA_0_10`, `AAAAAAAAAAA_20_30`, `-rf_AAAAAAA_0_10`)"
        );
        assert_eq!(
            find(&[], "x").unwrap_err().to_string(),
            "no video `x` (nearest: there are no videos)"
        );
    }
}
