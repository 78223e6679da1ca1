//! Writes embeddings from the cache into the files that `label` reads.
//!
//! Each file is first written under a temporary name. It replaces the existing file only if the contents differ.
//! `label` recognises files that it has read by size and modification time, so equal features must keep their file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::ids::bucket_of;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::cache::Cache;
use super::error::EncodeError;
use super::flow::EncodeResults;
use super::media::Media;
use super::model::scores::ClassScores;
use crate::ingest::annotations::key11;
use crate::ingest::npy;
use crate::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};

/// Number of videos that a shard has, approximately.
const SHARD: usize = 512;

/// File format and float type of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureForm {
    /// If true, one npy file per video, named as public feature files are; otherwise Parquet shards.
    pub npy: bool,
    /// Float type of the values.
    pub float: FloatType,
}

/// Writes the features of one modality into a folder. Returns the numbers of videos and segments that it wrote.
///
/// A video is left out, with a rejected row, if not all of its segments have an embedding. The function removes shards
/// of an earlier run that the new set of shards does not have.
///
/// # Errors
/// Returns [`EncodeError`] if a file cannot be written, or if the folder has features in the other file format.
pub fn features(
    folder: &Path,
    form: FeatureForm,
    (modality, cached, model): (Modality, usize, &str),
    scores: Option<&ClassScores>,
    media: &[Media],
    cache: &Cache,
    results: &mut EncodeResults,
) -> Result<(u64, u64), EncodeError> {
    fs::create_dir_all(folder).map_err(EncodeError::write("make", folder))?;
    let (own, other) = if form.npy {
        ("npy", "parquet")
    } else {
        ("parquet", "npy")
    };
    let there = files(folder, other)?;
    if !there.is_empty() {
        return Err(EncodeError::Settings(format!(
            "`{}` holds {} .{other} files, expected none where .{own} files are to be: name another --out",
            folder.display(),
            there.len()
        )));
    }
    let mut stale = files(folder, own)?;
    let width = scores.map_or(cached, ClassScores::width);
    let mut counts = (0, 0);
    let rows = |video: usize, results: &mut EncodeResults| {
        let key = results.keys.get(&(video, modality))?;
        let mut values = Vec::new();
        match cache.rows(key, cached, &mut values) {
            Some(total) => Some((
                total,
                scores.map_or_else(|| values.clone(), |scores| scores.rows(&values)),
            )),
            None => {
                // Segments that the model failed on have rejected rows of their own, which give the reason.
                let reason = format!("{modality}: not every segment has an embedding");
                let folder = folder.display().to_string();
                let reject = RejectRow::reject(RejectKind::Embedding, folder, reason).modality(modality);
                results.rejects.push(reject.video(&*media[video].name));
                None
            }
        }
    };
    if form.npy {
        for (video, one) in media.iter().enumerate() {
            let Some((total, values)) = rows(video, results) else {
                continue;
            };
            let key = npy_key(media, &one.name);
            if !npy::names_a_file(key) {
                let reason = format!(
                    "{modality}: `{}` can be no file name, expected no `/` or NUL",
                    key.escape_default()
                );
                let folder = folder.display().to_string();
                let reject = RejectRow::reject(RejectKind::FileName, folder, reason).modality(modality);
                results.rejects.push(reject.video(&*one.name));
                continue;
            }
            let shape = [total as usize, width];
            replace(folder, &format!("{key}.npy"), &mut stale, |path| {
                match form.float {
                    FloatType::F16 => npy::write_f16(path, &shape, &values),
                    FloatType::F32 => npy::write_f32(path, &shape, &values),
                }
                .map_err(EncodeError::from)
            })?;
            counts = (counts.0 + 1, counts.1 + u64::from(total));
        }
    } else {
        let buckets = buckets(&stale, modality, media.len());
        for bucket in 0..buckets {
            let own: Vec<usize> = (0..media.len())
                .filter(|&video| bucket_of(&media[video].name, buckets) == bucket)
                .collect();
            if !own
                .iter()
                .any(|&video| results.keys.contains_key(&(video, modality)))
            {
                continue;
            }
            let format = ShardFormat {
                modality,
                width,
                float: form.float,
                layout: FeatureLayout::Packed,
                model: Some(model.to_owned()),
            };
            replace(
                folder,
                &shard_name(modality, bucket, buckets),
                &mut stale,
                |path| {
                    let mut writer = ShardWriter::create(path, format)?;
                    for video in own {
                        if let Some((total, values)) = rows(video, results) {
                            writer.append(&media[video].name, &values)?;
                            counts = (counts.0 + 1, counts.1 + u64::from(total));
                        }
                    }
                    writer.finish()?;
                    Ok(())
                },
            )?;
        }
    }
    // vaplan surely wrote the shards, because their names have its pattern. A stale npy file may belong to the user, so
    // it stays.
    if !form.npy {
        for path in stale.iter().filter(|path| is_shard(path, modality)) {
            fs::remove_file(path).map_err(EncodeError::write("remove", path))?;
        }
    }
    Ok(counts)
}

/// Returns the file name of a video's features: the first 11 characters of its name, as in public feature files. If two
/// videos share these characters, the full name is returned.
fn npy_key<'a>(media: &[Media], name: &'a Arc<str>) -> &'a str {
    let key = key11(name);
    // The media are sorted by name, so names with the same beginning are neighbours.
    let from = media.partition_point(|other| &*other.name < key);
    let shared = media[from..]
        .iter()
        .take_while(|other| other.name.starts_with(key))
        .filter(|other| key11(&other.name) == key);
    if shared.count() > 1 { name } else { key }
}

fn shard_name(modality: Modality, bucket: u32, buckets: u32) -> String {
    format!("{modality}-{bucket:05}-of-{buckets:05}.parquet")
}

/// Returns the number of shards. The number stays as it was, so that a new video changes only one shard. It changes
/// only if it is more than twice, or less than half, of the wanted number.
fn buckets(before: &[PathBuf], modality: Modality, videos: usize) -> u32 {
    let wanted = videos.div_ceil(SHARD).next_power_of_two();
    let before = before.iter().filter_map(|path| shard_of(path, modality)).max();
    match before {
        Some(before) if (before as usize) <= 2 * wanted && wanted <= 2 * before as usize => before,
        _ => u32::try_from(wanted).unwrap_or(1 << 31),
    }
}

fn is_shard(path: &Path, modality: Modality) -> bool {
    shard_of(path, modality).is_some()
}

/// Reads the total number of shards from the name of a shard; returns `None` for other files.
fn shard_of(path: &Path, modality: Modality) -> Option<u32> {
    let name = path.file_stem()?.to_str()?;
    let (bucket, buckets) = name
        .strip_prefix(modality.as_str())?
        .strip_prefix('-')?
        .split_once("-of-")?;
    let (bucket, buckets): (u32, u32) = (bucket.parse().ok()?, buckets.parse().ok()?);
    (buckets.is_power_of_two() && bucket < buckets).then_some(buckets)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, EncodeError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(EncodeError::write("list", folder))? {
        let path = entry.map_err(EncodeError::write("list", folder))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|found| found == extension) && !hidden {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Writes a file under a temporary name, and moves it into place if its contents differ from the existing file.
///
/// # Errors
/// Returns the errors of `write`. Returns [`EncodeError::Write`] if the temporary file cannot be created or moved.
pub(super) fn replace(
    folder: &Path,
    name: &str,
    stale: &mut Vec<PathBuf>,
    write: impl FnOnce(&Path) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let to = folder.join(name);
    stale.retain(|path| *path != to);
    // The temporary name is unique, so that no existing file is replaced. The file is removed if `write` fails.
    let beside = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".part")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(EncodeError::write("write a file in", folder))?
        .into_temp_path();
    write(&beside)?;
    let same = match (fs::read(&beside), fs::read(&to)) {
        (Ok(new), Ok(old)) => new == old,
        _ => false,
    };
    if same {
        return beside
            .close()
            .map_err(EncodeError::write("remove a file in", folder));
    }
    beside
        .persist(&to)
        .map_err(|error| EncodeError::write("write", &to)(error.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_as_many_as_before_until_they_are_full_or_nearly_empty() {
        let before = |buckets: u32| -> Vec<PathBuf> {
            let names = (0..buckets).map(|bucket| shard_name(Modality::Audio, bucket, buckets));
            names.map(PathBuf::from).collect()
        };
        let of = |before: &[PathBuf], videos| buckets(before, Modality::Audio, videos);
        assert_eq!([1, 512, 513, 11_849].map(|videos| of(&[], videos)), [1, 1, 2, 32]);
        assert_eq!(of(&before(2), 512), 2);
        assert_eq!(of(&before(2), 2_048), 2);
        assert_eq!(of(&before(2), 2_049), 8);
        assert_eq!(of(&before(8), 513), 2);
        assert_eq!(
            buckets(&before(2), Modality::Visual, 512),
            1,
            "of the other modality"
        );
        assert!(!is_shard(
            Path::new("audio-00002-of-00002.parquet"),
            Modality::Audio
        ));
        assert!(!is_shard(Path::new("audio-of-mine.parquet"), Modality::Audio));
    }
}
