//! The names of the columns of feature shards.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ingest::parquet::FEATURE;

/// Names of the columns that a Parquet shard of features has.
///
/// The text form lists the columns whose name differs from the default, as option `--columns` takes it:
///
/// ```
/// use vaplan::ingest::features::ColumnNames;
/// let names: ColumnNames = "video=id,feature=embedding".parse()?;
/// assert_eq!(&*names.video, "id");
/// assert_eq!(&*names.segment, "segment");
/// assert_eq!(names.to_string(), "video=id,feature=embedding");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ColumnNames {
    /// Column with the name of the video.
    pub video: Arc<str>,
    /// Column with the number of the segment.
    pub segment: Arc<str>,
    /// Optional column with the modality.
    pub modality: Arc<str>,
    /// Column with the features.
    pub feature: Arc<str>,
}

const DEFAULTS: [&str; 4] = ["video", "segment", "modality", FEATURE];

impl Default for ColumnNames {
    fn default() -> ColumnNames {
        let [video, segment, modality, feature] = DEFAULTS.map(Arc::from);
        ColumnNames {
            video,
            segment,
            modality,
            feature,
        }
    }
}

impl ColumnNames {
    fn all(&self) -> [&Arc<str>; 4] {
        [&self.video, &self.segment, &self.modality, &self.feature]
    }

    /// Returns the value of column `video` that a folder `<column>=<value>` of the path states, as in folders of Hive
    /// partitions. The folder nearest to the file counts.
    pub(crate) fn video_of_path(&self, path: &std::path::Path) -> Option<String> {
        let folders = path.parent()?.components().rev();
        let mut named = folders.filter_map(|folder| {
            let (column, value) = folder.as_os_str().to_str()?.split_once('=')?;
            (column == &*self.video).then(|| percent_decoded(value))
        });
        named.next()
    }
}

/// Replaces the escapes `%XX` that Hive writes for characters that a folder's name cannot have. A text that is not UTF-8
/// afterwards stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escape = after.get(..2).filter(|_| *first == b'%');
        let value = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = &after[if value.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

impl fmt::Display for ColumnNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = DEFAULTS.iter().zip(self.all());
        let pairs = pairs.filter(|(default, name)| ***default != ***name);
        let pairs: Vec<String> = pairs.map(|(default, name)| format!("{default}={name}")).collect();
        f.write_str(&pairs.join(","))
    }
}

impl From<ColumnNames> for String {
    fn from(names: ColumnNames) -> String {
        names.to_string()
    }
}

impl TryFrom<String> for ColumnNames {
    type Error = String;

    fn try_from(text: String) -> Result<ColumnNames, String> {
        text.parse()
    }
}

impl FromStr for ColumnNames {
    type Err = String;

    fn from_str(text: &str) -> Result<ColumnNames, String> {
        let mut names = ColumnNames::default();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let refused = || {
                format!(
                    "`{pair}`, expected COLUMN=NAME pairs with the columns {}, such as `video=id,feature=embedding`",
                    DEFAULTS.join(", ")
                )
            };
            let (column, name) = pair.split_once('=').ok_or_else(refused)?;
            let own = match column.trim() {
                "video" => &mut names.video,
                "segment" => &mut names.segment,
                "modality" => &mut names.modality,
                FEATURE => &mut names.feature,
                _ => return Err(refused()),
            };
            *own = match name.trim() {
                "" => return Err(refused()),
                name => name.into(),
            };
        }
        let mut all = names.all();
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!(
                "`{text}` names column `{}` twice, expected four columns",
                pair[0]
            )),
            None => Ok(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_read_back_from_their_text_and_wrong_pairs_are_refused() {
        for text in [
            "",
            "video=id",
            "video=a b,segment=t,modality=kind,feature=clip.emb",
        ] {
            let names: ColumnNames = text.parse().unwrap();
            assert_eq!(names.to_string(), text);
        }
        for (text, problem) in [
            ("id", "`id`, expected COLUMN=NAME pairs"),
            ("name=id", "`name=id`, expected COLUMN=NAME pairs"),
            ("video=", "`video=`, expected COLUMN=NAME pairs"),
            ("video=segment", "names column `segment` twice"),
        ] {
            let refused = text.parse::<ColumnNames>().unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }

    #[test]
    fn a_folder_of_a_hive_partition_states_the_video() {
        let names: ColumnNames = "video=id".parse().unwrap();
        let of = |path: &str| names.video_of_path(Path::new(path));
        assert_eq!(of("/d/id=a%20b%2/split=test/0.parquet").as_deref(), Some("a b%2"));
        assert_eq!(of("/d/id=a/id=b/0.parquet").as_deref(), Some("b"));
        assert_eq!(of("/d/video=a/id=b.parquet"), None);
    }
}
