//! The video that is meant by a name or an id.

use std::sync::Arc;

use crate::ingest::annotations::{KeyError, Roster};

/// How many near names an unknown one is answered with.
const NEAREST: usize = 3;

/// A name that means no video, or several.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// No video of this name or id.
    #[error("no video `{query}` (nearest: {})", quoted(nearest))]
    Unknown {
        /// What was asked for.
        query: String,
        /// Names most like it, the nearest first.
        nearest: Vec<Arc<str>>,
    },
    /// Several videos begin with this id.
    #[error("`{query}` means {}, expected a full name", quoted(candidates))]
    Ambiguous {
        /// What was asked for.
        query: String,
        /// All that it may mean.
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

/// Position in `names` of the video that `query` means: its full name, or its first 11 characters where no other
/// video has them.
///
/// ```
/// use vaplan::show::find;
/// let names = ["AAAAAAAAAAA_0_10".into(), "BBBBBBBBBBB_20_30".into()];
/// assert_eq!(find(&names, "BBBBBBBBBBB"), Ok(1));
/// assert!(find(&names, "BBBBBBBBBB").unwrap_err().to_string().contains("nearest: `BBBBBBBBBBB_20_30`"));
/// ```
///
/// # Errors
/// [`FindError::Unknown`] with the nearest names, [`FindError::Ambiguous`] with all that it may mean.
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
