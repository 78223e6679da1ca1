//! The cache keeps embeddings on disk, by the content of their media. A second run, a changed prompt or a new class
//! therefore encodes no media again. The cache deletes nothing.
//!
//! Each batch that a model encoded is one file: the SHA-256 of the rest of the file, then the batch. The cache writes
//! the file under a temporary name and renames it, so either the whole batch is kept or nothing. The last bits of a
//! model's output depend on the other rows of its batch. After a kill, a run must therefore form the same batches
//! again, and whole batches make this possible.
//!
//! A key is the hash of the bytes of the media, of the settings for cutting and preparing them, and of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::EncodeError;
use super::sum::hex;

/// SHA-256 (in hexadecimal) of everything that the embeddings of one video and modality depend on.
pub type CacheKey = String;

/// Consecutive segments of one video in a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Key of the video and modality.
    pub key: CacheKey,
    /// The first segment.
    pub first: u32,
    /// Number of segments.
    pub count: u32,
}

/// The embeddings of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EncodedBatch {
    /// Number of values of an embedding (D).
    pub width: u32,
    /// The segments of the rows, in the order of the rows.
    pub pieces: Vec<Piece>,
    /// The number of segments of each video that ends in this batch. The number is known only at the end of a video.
    pub totals: Vec<(CacheKey, u32)>,
    /// The embeddings, of shape `[segments, width]`.
    pub values: Vec<f32>,
}

impl EncodedBatch {
    /// Number of segments in the batch.
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.count)).sum()
    }
}

/// The file and row of a segment's embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    file: u32,
    row: u32,
}

#[derive(Debug, Default)]
struct Index {
    files: Vec<PathBuf>,
    /// For each key: the place of each segment, or `None` for segments that the cache does not have.
    places: BTreeMap<CacheKey, Vec<Option<Place>>>,
    totals: BTreeMap<CacheKey, u32>,
}

/// The folder of batches, with an index of the segments in them.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    index: Mutex<Index>,
    /// The batch that was read last. The next video usually begins in the same batch.
    last: Mutex<Option<(PathBuf, Arc<EncodedBatch>)>>,
}

const SUM: usize = 32;

impl Cache {
    /// Opens the folder, or creates it, and reads its batches. A damaged batch is skipped with a warning, as if it were
    /// absent.
    ///
    /// # Errors
    /// Returns [`EncodeError::Write`] if the folder cannot be created or listed.
    pub fn open(folder: &Path) -> Result<Cache, EncodeError> {
        fs::create_dir_all(folder).map_err(EncodeError::write("make", folder))?;
        let cache = Cache {
            folder: folder.to_owned(),
            index: Mutex::default(),
            last: Mutex::default(),
        };
        cache.refresh()?;
        Ok(cache)
    }

    /// Reads the batches that other processes have written since the cache was opened.
    ///
    /// # Errors
    /// Returns [`EncodeError::Write`] if the folder cannot be listed.
    pub fn refresh(&self) -> Result<(), EncodeError> {
        let known: BTreeSet<PathBuf> = self.lock().files.iter().cloned().collect();
        for path in batches(&self.folder)?
            .into_iter()
            .filter(|path| !known.contains(path))
        {
            match load(&path) {
                Some(batch) => self.lock().add(path, &batch),
                None => tracing::warn!(file = %path.display(), "is damaged, and passed over"),
            }
        }
        Ok(())
    }

    /// Writes a batch to the folder, and adds it to the index.
    ///
    /// # Errors
    /// Returns [`EncodeError::Write`] if the file cannot be written, for example because the disk is full. No part of
    /// the batch remains then.
    pub fn keep(&self, batch: &EncodedBatch) -> Result<(), EncodeError> {
        let body = postcard::to_stdvec(batch)
            .map_err(std::io::Error::other)
            .map_err(EncodeError::write("encode a batch for", &self.folder))?;
        let sum = Sha256::digest(&body);
        // The name is a hash of the contents, so a batch that is kept twice is one file.
        let name = hex(&sum[..16]);
        let path = self.folder.join(format!("{name}.batch"));
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&sum)?;
            file.write_all(&body)?;
            file.persist(&path).map(drop).map_err(|error| error.error)
        };
        write().map_err(EncodeError::write("write", &path))?;
        self.lock().add(path, batch);
        Ok(())
    }

    /// Number of segments of a video, if the number is known.
    pub fn total(&self, key: &str) -> Option<u32> {
        self.lock().totals.get(key).copied()
    }

    /// Does the cache have this segment?
    pub fn has(&self, key: &str, segment: u32) -> bool {
        self.lock().place(key, segment).is_some()
    }

    /// Returns the number of segments of a video if the cache has all of them.
    pub fn whole(&self, key: &str) -> Option<u32> {
        self.lock().whole(key).map(|places| places.len() as u32)
    }

    /// Appends all rows of a video, of shape `[T, width]`, to `out`. Returns T.
    ///
    /// Returns `None`, and appends nothing, if the cache does not have all segments, if a file was removed or damaged
    /// after the cache was opened, or if a row has another width.
    pub fn rows(&self, key: &str, width: usize, out: &mut Vec<f32>) -> Option<u32> {
        let places: Vec<(PathBuf, u32)> = {
            let index = self.lock();
            let places = index.whole(key)?.into_iter();
            places.map(|place| (index.path(place), place.row)).collect()
        };
        let start = out.len();
        for (path, row) in &places {
            let Some(batch) = self.batch(path).filter(|batch| batch.width as usize == width) else {
                out.truncate(start);
                return None;
            };
            let from = *row as usize * width;
            out.extend_from_slice(&batch.values[from..from + width]);
        }
        Some(places.len() as u32)
    }

    /// Returns the embedding of a text, which is the only row of its key.
    pub fn row(&self, key: &str) -> Option<Vec<f32>> {
        let (path, row) = {
            let index = self.lock();
            let place = index.place(key, 0)?;
            (index.path(place), place.row)
        };
        let batch = self.batch(&path)?;
        let width = batch.width as usize;
        let from = row as usize * width;
        Some(batch.values.get(from..from + width)?.to_vec())
    }

    /// Reads a batch of the index. Returns `None` if its file was removed or damaged after the cache was opened.
    fn batch(&self, path: &Path) -> Option<Arc<EncodedBatch>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, batch)) = &*last
            && known == path
        {
            return Some(batch.clone());
        }
        let batch = Arc::new(load(path)?);
        *last = Some((path.to_owned(), batch.clone()));
        Some(batch)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Adds the rows of a batch.
    ///
    /// Media with equal contents have the same key. Two threads may encode such media at the same time, split into
    /// different batches. Each segment then has several rows, which differ in their last bits. The index takes the row
    /// of the file whose name comes first, so that the result does not depend on the order in which files are added.
    fn add(&mut self, path: PathBuf, batch: &EncodedBatch) {
        let file = u32::try_from(self.files.len()).expect("a folder holds fewer than 2^32 files");
        self.files.push(path);
        let mut row = 0;
        for piece in &batch.pieces {
            let places = self.places.entry(piece.key.clone()).or_default();
            let end = (piece.first + piece.count) as usize;
            if places.len() < end {
                places.resize(end, None);
            }
            for place in &mut places[piece.first as usize..end] {
                let known = place.map(|place| &self.files[place.file as usize]);
                if known.is_none_or(|known| *known > self.files[file as usize]) {
                    *place = Some(Place { file, row });
                }
                row += 1;
            }
        }
        self.totals.extend(batch.totals.iter().cloned());
    }

    fn place(&self, key: &str, segment: u32) -> Option<Place> {
        *self.places.get(key)?.get(segment as usize)?
    }

    /// Returns the places of all segments, if the number of segments is known and the cache has each of them.
    fn whole(&self, key: &str) -> Option<Vec<Place>> {
        let total = *self.totals.get(key)?;
        (0..total).map(|segment| self.place(key, segment)).collect()
    }

    fn path(&self, place: Place) -> PathBuf {
        self.files[place.file as usize].clone()
    }
}

/// The files of batches in a folder, sorted.
fn batches(folder: &Path) -> Result<Vec<PathBuf>, EncodeError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(EncodeError::write("list", folder))? {
        let path = entry.map_err(EncodeError::write("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "batch") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Reads a batch from a file. Returns `None` if the file cannot be read, or if its hash or its sizes are wrong.
fn load(path: &Path) -> Option<EncodedBatch> {
    let bytes = fs::read(path).ok()?;
    let (sum, body) = bytes.split_at_checked(SUM)?;
    if Sha256::digest(body).as_slice() != sum {
        return None;
    }
    let batch: EncodedBatch = postcard::from_bytes(body).ok()?;
    let fits = batch
        .pieces
        .iter()
        .all(|piece| piece.first.checked_add(piece.count).is_some());
    (fits && batch.rows() * u64::from(batch.width) == batch.values.len() as u64).then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(key: &str, first: u32, count: u32) -> Piece {
        Piece {
            key: key.to_owned(),
            first,
            count,
        }
    }

    #[test]
    fn rows_come_back_over_batches_and_over_openings() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let first = EncodedBatch {
            width: 2,
            pieces: vec![piece("a", 0, 1), piece("b", 0, 2)],
            totals: vec![("a".to_owned(), 1)],
            values: (0..6).map(|value| value as f32).collect(),
        };
        cache.keep(&first).unwrap();
        assert_eq!(
            (cache.whole("a"), cache.whole("b"), cache.total("b")),
            (Some(1), None, None)
        );
        assert!(cache.has("b", 1) && !cache.has("b", 2) && !cache.has("c", 0));
        let second = EncodedBatch {
            width: 2,
            pieces: vec![piece("b", 2, 1)],
            totals: vec![("b".to_owned(), 3)],
            values: vec![6.0, 7.0],
        };
        cache.keep(&second).unwrap();
        for cache in [cache, Cache::open(folder.path()).unwrap()] {
            let mut rows = Vec::new();
            assert_eq!(cache.rows("b", 2, &mut rows), Some(3));
            assert_eq!(rows, [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
            assert_eq!(cache.rows("b", 3, &mut rows), None, "of another width");
            assert_eq!(rows.len(), 6);
        }
    }

    #[test]
    fn media_of_equal_content_lose_no_segment_whatever_the_order() {
        // One key in three batches: all ten segments, the first segment, and the last six segments.
        let batch = |first: u32, count: u32, base: f32, total: Option<u32>| EncodedBatch {
            width: 1,
            pieces: vec![piece("a", first, count)],
            totals: total.map(|total| ("a".to_owned(), total)).into_iter().collect(),
            values: (0..count).map(|at| base + at as f32).collect(),
        };
        let batches = [
            batch(0, 10, 0.0, Some(10)),
            batch(0, 1, 100.0, None),
            batch(4, 6, 204.0, Some(10)),
        ];
        let mut answers = Vec::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let folder = tempfile::tempdir().unwrap();
            let cache = Cache::open(folder.path()).unwrap();
            order.iter().for_each(|&at| cache.keep(&batches[at]).unwrap());
            for cache in [cache, Cache::open(folder.path()).unwrap()] {
                let mut rows = Vec::new();
                assert_eq!(cache.rows("a", 1, &mut rows), Some(10), "{order:?}");
                let segments: Vec<f32> = rows.iter().map(|row| row % 100.0).collect();
                assert_eq!(segments, (0..10).map(|at| at as f32).collect::<Vec<f32>>());
                answers.push(rows);
            }
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    }

    #[test]
    fn a_damaged_batch_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let batch = EncodedBatch {
            width: 1,
            pieces: vec![piece("a", 0, 2)],
            totals: vec![("a".to_owned(), 2)],
            values: vec![0.5, 0.25],
        };
        Cache::open(folder.path()).unwrap().keep(&batch).unwrap();
        let path = fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(
                Cache::open(folder.path()).unwrap().whole("a"),
                None,
                "bit of byte {at} flipped"
            );
        }
        fs::write(&path, &bytes[..40]).unwrap();
        assert_eq!(Cache::open(folder.path()).unwrap().whole("a"), None);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Cache::open(folder.path()).unwrap().whole("a"), Some(2));
    }
}
