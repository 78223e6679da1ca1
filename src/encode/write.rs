//! Writes embeddings from the cache into the files that `label` reads.
//!
//! Each file is first written under a temporary name. It replaces the existing file only if the contents differ.
//! `label` recognises files that it has read by size and modification time, so equal features must keep their file.

use std::collections::BTreeMap;
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
use crate::engine::passes::bucketed_videos;
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

/// The feature files of one modality in a folder.
#[derive(Debug)]
pub struct ShardSet {
    /// Folder of the files.
    pub(super) folder: PathBuf,
    /// Modality of the features.
    pub(super) modality: Modality,
    /// Number of values of an embedding in the cache.
    pub(super) cached: usize,
    /// SHA-256 of the model.
    pub(super) model: String,
    /// The scores of the classes, if the model is a classifier.
    pub(super) scores: Option<ClassScores>,
    /// File format and float type.
    pub(super) form: FeatureForm,
    /// Number of shards, a power of two. The hash of a video's name decides its shard.
    pub(super) buckets: u32,
}

/// A shard that was written.
#[derive(Clone, Debug)]
pub struct WrittenShard {
    /// Path of the file.
    pub(super) path: PathBuf,
    /// Whether the contents differ from those of the file before.
    pub(super) changed: bool,
    videos: u64,
    segments: u64,
}

/// The shards that were written, by modality and number.
pub type WrittenShards = BTreeMap<(Modality, u32), WrittenShard>;

impl ShardSet {
    /// Makes the folder, and decides the number of shards of this number of videos.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if the folder cannot be made, or has features in the other file format.
    pub(super) fn new(
        folder: PathBuf,
        form: FeatureForm,
        (modality, cached, model): (Modality, usize, &str),
        scores: Option<ClassScores>,
        videos: usize,
    ) -> Result<ShardSet, EncodeError> {
        fs::create_dir_all(&folder).map_err(EncodeError::write("make", &folder))?;
        let (own, other) = form.extensions();
        let there = files(&folder, other)?;
        if !there.is_empty() {
            return Err(EncodeError::Settings(format!(
                "`{}` holds {} .{other} files, expected none where .{own} files are to be: name another --out",
                folder.display(),
                there.len()
            )));
        }
        Ok(ShardSet {
            buckets: buckets(&files(&folder, own)?, modality, videos),
            folder,
            modality,
            cached,
            model: model.to_owned(),
            scores,
            form,
        })
    }

    /// Number of values of a feature.
    pub(super) fn width(&self) -> usize {
        self.scores.as_ref().map_or(self.cached, ClassScores::width)
    }

    /// The number of segments and the features of a video, by its position in the list of media. `None` if the video is left
    /// out; a video of which not every segment has an embedding also gets a rejected row.
    fn rows(
        &self,
        video: usize,
        media: &[Media],
        cache: &Cache,
        results: &mut EncodeResults,
    ) -> Option<(u32, Vec<f32>)> {
        let key = results.keys.get(&(video, self.modality))?;
        let mut values = Vec::new();
        let Some(total) = cache.rows(key, self.cached, &mut values) else {
            // Segments that the model failed on have rejected rows of their own, which give the reason.
            let reason = format!("{}: not every segment has an embedding", self.modality);
            results
                .rejects
                .push(self.reject(RejectKind::Embedding, reason, &media[video]));
            return None;
        };
        Some(match &self.scores {
            Some(scores) => (total, scores.rows(&values)),
            None => (total, values),
        })
    }

    fn reject(&self, kind: RejectKind, reason: String, media: &Media) -> RejectRow {
        let reject = RejectRow::reject(kind, self.folder.display().to_string(), reason);
        reject.modality(self.modality).video(&*media.name)
    }

    /// Writes a shard. Returns `None`, and writes nothing, if no video of the shard was encoded.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if the file cannot be written.
    pub(super) fn write(
        &self,
        bucket: u32,
        media: &[Media],
        cache: &Cache,
        results: &mut EncodeResults,
    ) -> Result<Option<WrittenShard>, EncodeError> {
        let of_bucket = |video: &usize| bucket_of(&media[*video].name, self.buckets) == bucket;
        let own: Vec<usize> = (0..media.len()).filter(of_bucket).collect();
        if !own
            .iter()
            .any(|&video| results.keys.contains_key(&(video, self.modality)))
        {
            return Ok(None);
        }
        let format = ShardFormat {
            modality: self.modality,
            width: self.width(),
            float: self.form.float,
            layout: FeatureLayout::Packed,
            model: Some(self.model.clone()),
        };
        let name = shard_name(self.modality, bucket, self.buckets);
        let (mut videos, mut segments) = (0, 0);
        let changed = replace(&self.folder, &name, |path| {
            let mut writer = ShardWriter::create(path, format)?;
            for video in own {
                if let Some((total, values)) = self.rows(video, media, cache, results) {
                    writer.append(&media[video].name, &values)?;
                    videos += 1;
                    segments += u64::from(total);
                }
            }
            writer.finish()?;
            Ok(())
        })?;
        Ok(Some(WrittenShard {
            path: self.folder.join(name),
            changed,
            videos,
            segments,
        }))
    }

    /// Writes one npy file per video.
    fn write_npy(
        &self,
        media: &[Media],
        cache: &Cache,
        results: &mut EncodeResults,
    ) -> Result<(u64, u64), EncodeError> {
        let mut counts = (0, 0);
        for (video, one) in media.iter().enumerate() {
            let Some((total, values)) = self.rows(video, media, cache, results) else {
                continue;
            };
            let key = npy_key(media, &one.name);
            if !npy::names_a_file(key) {
                let reason = format!(
                    "{}: `{}` can be no file name, expected no `/` or NUL",
                    self.modality,
                    key.escape_default()
                );
                results
                    .rejects
                    .push(self.reject(RejectKind::FileName, reason, one));
                continue;
            }
            let shape = [total as usize, self.width()];
            replace(&self.folder, &format!("{key}.npy"), |path| {
                match self.form.float {
                    FloatType::F16 => npy::write_f16(path, &shape, &values),
                    FloatType::F32 => npy::write_f32(path, &shape, &values),
                }
                .map_err(EncodeError::from)
            })?;
            counts = (counts.0 + 1, counts.1 + u64::from(total));
        }
        Ok(counts)
    }
}

impl FeatureForm {
    /// The extension of the files, and that of files in the other format.
    fn extensions(self) -> (&'static str, &'static str) {
        match self.npy {
            true => ("npy", "parquet"),
            false => ("parquet", "npy"),
        }
    }
}

/// Writes the features of one modality, except those in `written`. Returns the numbers of videos and segments of all.
///
/// A video is left out, with a rejected row, if not all of its segments have an embedding. The function removes shards
/// of an earlier run that the new set of shards does not have.
///
/// # Errors
/// Returns [`EncodeError`] if a file cannot be written.
pub(super) fn features(
    set: &ShardSet,
    media: &[Media],
    cache: &Cache,
    results: &mut EncodeResults,
    mut written: WrittenShards,
) -> Result<(u64, u64), EncodeError> {
    // A stale npy file may belong to the user, so it stays.
    if set.form.npy {
        return set.write_npy(media, cache, results);
    }
    for bucket in 0..set.buckets {
        let key = (set.modality, bucket);
        if !written.contains_key(&key)
            && let Some(shard) = set.write(bucket, media, cache, results)?
        {
            written.insert(key, shard);
        }
    }
    written.retain(|(modality, _), _| *modality == set.modality);
    // vaplan surely wrote the shards, because their names have its pattern.
    let kept = |path: &PathBuf| written.values().any(|shard| shard.path == *path);
    for path in files(&set.folder, "parquet")? {
        if is_shard(&path, set.modality) && !kept(&path) {
            fs::remove_file(&path).map_err(EncodeError::write("remove", &path))?;
        }
    }
    let counts = written.values().map(|shard| (shard.videos, shard.segments));
    Ok(counts.fold((0, 0), |all, own| (all.0 + own.0, all.1 + own.1)))
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
    let wanted = bucketed_videos(videos).div_ceil(SHARD).next_power_of_two();
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

/// Writes a file under a temporary name, and moves it into place if its contents differ from the existing file. Returns
/// whether they differ.
///
/// # Errors
/// Returns the errors of `write`. Returns [`EncodeError::Write`] if the temporary file cannot be created or moved.
pub(super) fn replace(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&Path) -> Result<(), EncodeError>,
) -> Result<bool, EncodeError> {
    let to = folder.join(name);
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
        let removed = beside.close();
        return removed
            .map(|()| false)
            .map_err(EncodeError::write("remove a file in", folder));
    }
    beside
        .persist(&to)
        .map_err(|error| EncodeError::write("write", &to)(error.error))?;
    Ok(true)
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
