//! Finds what a file or folder in the inbox means. Its name states its kind.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use vaplan_schemas::Modality;

use super::inbox::InboxEntry;
use crate::error::LabelError;
use crate::ingest::features::{FeatureEvent, FeatureInput};
use crate::ingest::open_regular;
use crate::world::World;
use crate::world::changes::{Changes, WeakEdit};
use crate::world::resolve::MOST_EPOCH;
use crate::world::settings::ThresholdsFile;

/// Kind of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryKind {
    /// Weak labels.
    Weak(WeakEdit),
    /// User labels.
    User,
    /// Rule, scales and thresholds.
    Thresholds,
    /// Features: a Parquet file, or a folder.
    Features(Modality),
    /// Probabilities of an epoch.
    Epoch(u64),
    /// A video, a sound file or a folder of frames of one video.
    #[cfg(feature = "encode")]
    Media,
}

/// The valid names, as an error lists them.
#[cfg(feature = "encode")]
pub const NAMES: &str = "*.weak.csv, *.weak-add.csv, *.weak-remove.csv, *.user.csv (or .tsv), *.user.json (Label Studio), \
                         *.eaf (ELAN), *.thresholds.toml, *.audio.parquet, *.visual.parquet, folder *.audio or *.visual, \
                         VIDEO.mp4, VIDEO.wav and other media, folder VIDEO.frames, folder epoch-NNNN*, \
                         epoch-NNNN*.predictions.parquet";
/// The valid names, as an error lists them.
#[cfg(not(feature = "encode"))]
pub const NAMES: &str = "*.weak.csv, *.weak-add.csv, *.weak-remove.csv, *.user.csv (or .tsv), *.user.json (Label Studio), \
                         *.eaf (ELAN), *.thresholds.toml, *.audio.parquet, *.visual.parquet, folder *.audio or *.visual, \
                         folder epoch-NNNN*, epoch-NNNN*.predictions.parquet";

impl DeliveryKind {
    /// Returns the kind that a name states. `folder` is whether the entry is a folder.
    ///
    /// ```
    /// use vaplan::watch::delivery::DeliveryKind;
    /// assert_eq!(DeliveryKind::of("monday.user.tsv", false), Ok(DeliveryKind::User));
    /// assert_eq!(DeliveryKind::of("epoch-0012-lr3", true), Ok(DeliveryKind::Epoch(12)));
    /// assert!(DeliveryKind::of("monday.csv", false).unwrap_err().starts_with("its name says no kind"));
    /// ```
    ///
    /// # Errors
    /// Returns a message with the valid names, if the name states no kind, or a kind that the entry cannot have.
    pub fn of(name: &str, folder: bool) -> Result<DeliveryKind, String> {
        let unknown = || {
            Err(format!(
                "its name says no kind of delivery, expected one of {NAMES}"
            ))
        };
        if let Some(rest) = name.strip_prefix("epoch-") {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if !folder && !rest.ends_with(".predictions.parquet") {
                return unknown();
            }
            return match rest[..digits].parse() {
                Ok(epoch) if (1..=MOST_EPOCH).contains(&epoch) => Ok(DeliveryKind::Epoch(epoch)),
                _ => Err(format!(
                    "epoch is `{}`, expected a number from 1 to {MOST_EPOCH} after `epoch-`",
                    &rest[..digits]
                )),
            };
        }
        let files = [
            (".weak", DeliveryKind::Weak(WeakEdit::Set)),
            (".weak-add", DeliveryKind::Weak(WeakEdit::Add)),
            (".weak-remove", DeliveryKind::Weak(WeakEdit::Remove)),
            (".user", DeliveryKind::User),
        ];
        let table = name.strip_suffix(".csv").or_else(|| name.strip_suffix(".tsv"));
        let table = table.and_then(|stem| files.into_iter().find(|(suffix, _)| stem.ends_with(suffix)));
        let kind = match table {
            Some((_, kind)) => kind,
            // Programs for annotation write these files. The content tells which program it was.
            None if name.ends_with(".eaf") || name.ends_with(".user.json") => DeliveryKind::User,
            None if name.ends_with(".thresholds.toml") => DeliveryKind::Thresholds,
            None => {
                let modality = Modality::ALL.into_iter().find(|modality| {
                    let suffix = if folder { "" } else { ".parquet" };
                    name.ends_with(&format!(".{modality}{suffix}"))
                });
                #[cfg(feature = "encode")]
                if modality.is_none() && crate::encode::media::find::is_medium(name, folder) {
                    return Ok(DeliveryKind::Media);
                }
                return modality.map_or_else(unknown, |modality| Ok(DeliveryKind::Features(modality)));
            }
        };
        match folder {
            true => Err("is a folder, expected a file".to_owned()),
            false => Ok(kind),
        }
    }
}

/// A file or folder of the inbox.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Entry of the inbox, with name and path.
    pub entry: InboxEntry,
    /// Kind of the delivery.
    pub kind: DeliveryKind,
    /// Whether the delivery is a folder.
    pub folder: bool,
    /// SHA-256 of the name and the content, as hexadecimal text. Two deliveries of the same bytes under one name share
    /// it, and features of both lie at one place in the store.
    pub hash: Arc<str>,
    /// SHA-256 of `hash`, the number of the file, and its times of modification and of rename, as hexadecimal text.
    ///
    /// The id stays the same when a watch was killed and the next watch finds the file again. It differs whenever
    /// someone puts a file into the inbox, even with the same name and bytes. A store version records the ids of its
    /// deliveries. A delivery is done before if and only if the version records its id.
    pub id: Arc<str>,
    /// Time of the rename that gave the delivery its name.
    pub renamed: SystemTime,
}

impl Delivery {
    /// Reads and hashes an entry of the inbox, whose name states the kind `kind`. Returns `None` if the entry is not
    /// there any more, or if another file was renamed over it.
    ///
    /// # Errors
    /// Returns the reason if the entry cannot be read.
    pub fn read(entry: InboxEntry, kind: DeliveryKind) -> Result<Option<Delivery>, String> {
        let (folder, renamed) = (entry.path.is_dir(), changed(&entry.path));
        let mut sum = Sha256::new();
        sum.update(&entry.name);
        sum.update([0]);
        let read = digest(&entry.path, 0, &mut sum);
        // Another file may have been renamed over the entry while it was read. Then the hash is not that of the entry.
        if !entry.lies() {
            return Ok(None);
        }
        read?;
        let hash = hexadecimal(sum);
        let mut sum = Sha256::new();
        sum.update(&hash);
        sum.update(entry.identity.renamed_bytes());
        let since = renamed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        sum.update(since.as_nanos().to_le_bytes());
        Ok(Some(Delivery {
            entry,
            id: hexadecimal(sum).into(),
            kind,
            folder,
            hash: hash.into(),
            renamed,
        }))
    }

    /// Does the delivery hold features, or media that become features?
    pub fn has_features(&self) -> bool {
        match self.kind {
            DeliveryKind::Features(_) => true,
            #[cfg(feature = "encode")]
            DeliveryKind::Media => true,
            _ => false,
        }
    }

    /// Checks that a delivery of features has at least one row that can be read. Bad rows beside good ones are rejected
    /// later, when the features are read. `world` has the store's names of the columns; without it they have the default
    /// names.
    ///
    /// # Errors
    /// Returns the reason why the delivery cannot be used.
    pub fn check(&self, world: Option<&World>) -> Result<(), String> {
        let DeliveryKind::Features(modality) = self.kind else {
            return Ok(());
        };
        let columns = world.map(|world| world.columns.clone()).unwrap_or_default();
        let input = FeatureInput::open(&self.entry.path, modality, &columns, &|_| true)
            .map_err(|error| crate::error::chain(&error))?;
        if input.shards.iter().any(|shard| !shard.keys().is_empty()) {
            return Ok(());
        }
        let mut reason = None;
        for shard in &input.shards {
            shard.read(1, &mut |event| {
                if let FeatureEvent::Reject(row) = event {
                    reason.get_or_insert(row.reason);
                }
                std::ops::ControlFlow::Break(())
            });
        }
        Err(reason.unwrap_or_else(|| "holds no row".to_owned()))
    }

    /// Adds the changes of the delivery to `changes`. `place` is the copy of delivered features.
    ///
    /// # Errors
    /// Returns [`LabelError`] if the file as a whole cannot be read.
    pub fn ask(&self, place: &Path, changes: &mut Changes) -> Result<(), LabelError> {
        let path = self.entry.path.clone();
        match self.kind {
            DeliveryKind::Weak(edit) => changes.rows.read_weak(edit, &path)?,
            DeliveryKind::User => changes.rows.read_user(&path)?,
            DeliveryKind::Thresholds => changes.settings.file = Some(ThresholdsFile::read(&path)?),
            DeliveryKind::Features(modality) => {
                changes.features[modality.index()].push(place.to_owned());
            }
            DeliveryKind::Epoch(epoch) => changes.rows.read_predictions(&path, epoch)?,
            // The features that were made of the media are the change: `Batches::changes` adds them.
            #[cfg(feature = "encode")]
            DeliveryKind::Media => {}
        }
        changes.delivered.push(self.id.clone());
        Ok(())
    }
}

fn hexadecimal(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the time of the file's status (ctime), which a rename sets. If it cannot be read, returns the current time.
fn changed(path: &Path) -> SystemTime {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = path.symlink_metadata() else {
        return SystemTime::now();
    };
    let (seconds, nanos) = (
        meta.ctime().max(0).cast_unsigned(),
        meta.ctime_nsec().max(0).cast_unsigned(),
    );
    SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanos as u32)
}

/// Largest number of nested folders. An epoch has one folder for each modality.
const DEEPEST: usize = 3;

/// Adds the contents of a file to the hash, or of all files in a folder in order of name. The kind and the length of
/// each entry are added before its contents, so that two different folders never add the same bytes.
fn digest(path: &Path, depth: usize, sum: &mut Sha256) -> Result<(), String> {
    if !path.is_dir() {
        let (file, length) = open_regular(path).map_err(|error| crate::error::chain(&error))?;
        sum.update(b"f");
        sum.update(length.to_le_bytes());
        return feed(file, sum).map_err(|error| format!("`{}` cannot be read: {error}", path.display()));
    }
    if depth == DEEPEST {
        return Err(format!(
            "`{}` lies too deep, expected at most {DEEPEST} folders",
            path.display()
        ));
    }
    let failed = |error: std::io::Error| format!("`{}` cannot be listed: {error}", path.display());
    let entries: Result<Vec<_>, _> = fs::read_dir(path).map_err(failed)?.collect();
    let mut names: Vec<_> = entries
        .map_err(failed)?
        .into_iter()
        .map(|entry| entry.file_name())
        .collect();
    names.sort_unstable();
    sum.update(b"d");
    sum.update((names.len() as u64).to_le_bytes());
    for name in names {
        sum.update(name.as_encoded_bytes());
        sum.update([0]);
        digest(&path.join(name), depth + 1, sum)?;
    }
    Ok(())
}

fn feed(mut file: File, sum: &mut Sha256) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => sum.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::seen::FileIdentity;

    #[test]
    fn names_say_what_a_delivery_is_and_others_are_told_what_is_expected() {
        let of = |name: &str| DeliveryKind::of(name, false);
        assert_eq!(of("a.weak.csv"), Ok(DeliveryKind::Weak(WeakEdit::Set)));
        assert_eq!(of("a.b.weak-add.tsv"), Ok(DeliveryKind::Weak(WeakEdit::Add)));
        assert_eq!(of("a.weak-remove.csv"), Ok(DeliveryKind::Weak(WeakEdit::Remove)));
        for name in ["a.user.csv", "a.user.tsv", "a.user.json", "a.eaf", "a.user.eaf"] {
            assert_eq!(of(name), Ok(DeliveryKind::User), "{name}");
        }
        assert_eq!(of("a.thresholds.toml"), Ok(DeliveryKind::Thresholds));
        assert_eq!(of("a.audio.parquet"), Ok(DeliveryKind::Features(Modality::Audio)));
        assert_eq!(
            DeliveryKind::of("a.visual", true),
            Ok(DeliveryKind::Features(Modality::Visual))
        );
        assert_eq!(DeliveryKind::of("epoch-3", true), Ok(DeliveryKind::Epoch(3)));
        assert_eq!(of("epoch-0003b.predictions.parquet"), Ok(DeliveryKind::Epoch(3)));
        #[cfg(feature = "encode")]
        for (name, folder) in [("-rf_0_10.mp4", false), ("a.b.WAV", false), ("a.frames", true)] {
            assert_eq!(DeliveryKind::of(name, folder), Ok(DeliveryKind::Media), "{name}");
        }
        for (name, folder) in [
            ("a.csv", false),
            ("weak.csv", false),
            ("a.weak.json", false),
            ("a.json", false),
            ("a.visual", false),
            ("a.visual.parquet", true),
            ("epoch-3.parquet", false),
            ("a.frames", false),
            (".frames", true),
        ] {
            let reason = DeliveryKind::of(name, folder).unwrap_err();
            assert!(reason.ends_with(NAMES), "{name}: {reason}");
        }
        assert_eq!(
            DeliveryKind::of("a.user.csv", true),
            Err("is a folder, expected a file".to_owned())
        );
        assert_eq!(
            DeliveryKind::of("epoch-18446744073709551615", true).unwrap_err(),
            "epoch is `18446744073709551615`, expected a number from 1 to 9007199254740992 after `epoch-`"
        );
        assert_eq!(
            DeliveryKind::of("epoch-0", true),
            Err("epoch is `0`, expected a number from 1 to 9007199254740992 after `epoch-`".to_owned())
        );
    }

    /// Reads an entry of a folder. `None` if it does not exist.
    fn read(folder: &Path, name: &str) -> Option<Delivery> {
        let path = folder.join(name);
        let entry = InboxEntry {
            name: name.to_owned(),
            identity: FileIdentity::of_entry(&path).ok()?,
            path,
        };
        let kind = entry.kind().unwrap()?;
        Delivery::read(entry, kind).unwrap()
    }

    #[test]
    fn a_hash_names_kind_name_and_every_byte_below() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let hash = |name: &str| read(folder.path(), name).unwrap().hash;
        fs::write(at("a.user.csv"), "x").unwrap();
        fs::write(at("b.user.csv"), "x").unwrap();
        let first = hash("a.user.csv");
        assert_ne!(first, hash("b.user.csv"));
        fs::write(at("a.user.csv"), "y").unwrap();
        assert_ne!(first, hash("a.user.csv"));
        fs::write(at("a.user.csv"), "x").unwrap();
        assert_eq!(first, hash("a.user.csv"));
        fs::create_dir_all(at("epoch-1/audio")).unwrap();
        fs::write(at("epoch-1/audio/v.npy"), "x").unwrap();
        let first = hash("epoch-1");
        fs::write(at("epoch-1/audio/w.npy"), "").unwrap();
        assert_ne!(first, hash("epoch-1"));
    }

    #[test]
    fn the_same_files_in_other_folders_have_another_hash() {
        let folder = tempfile::tempdir().unwrap();
        let hash = |files: &[&str]| {
            let own = folder.path().join("epoch-1");
            let _ = fs::remove_dir_all(&own);
            for file in files {
                fs::create_dir_all(own.join(file).parent().unwrap()).unwrap();
                fs::write(own.join(file), "x").unwrap();
            }
            read(folder.path(), "epoch-1").unwrap().hash
        };
        assert_ne!(
            hash(&["visual/a.npy", "z.npy"]),
            hash(&["visual/a.npy", "visual/z.npy"])
        );
        assert_eq!(hash(&["visual/a.npy", "z.npy"]), hash(&["z.npy", "visual/a.npy"]));
    }

    #[test]
    fn what_went_or_lost_its_name_to_another_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.user.csv");
        fs::write(&path, "x").unwrap();
        let entry = read(folder.path(), "a.user.csv").unwrap().entry;
        fs::write(folder.path().join("other"), "y").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        assert!(
            Delivery::read(entry.clone(), DeliveryKind::User)
                .unwrap()
                .is_none()
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(entry.kind(), Ok(None));
        assert!(Delivery::read(entry, DeliveryKind::User).unwrap().is_none());
    }
}
