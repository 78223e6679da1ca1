//! A commit whose data files several processes write.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vaplan_schemas::storage::faulty::{Faults, FaultyMemory, SharedFaultyMemory};
use vaplan_schemas::storage::register;
use vaplan_schemas::store::{CommitInfo, Filter, PartFiles, PartWriter, Store, VersionRows};
use vaplan_schemas::tables::{LabelChanges, Labels, Rejects, Scores, Table, Videos};
use vaplan_schemas::{StoreVersion, bucket_of};

use crate::support::{
    ScoredTracks, VIDEOS, changes, commit, create, labels, patch, rejects, scored, scores, videos,
};

/// The tracks of a bucket.
fn own(scored: &ScoredTracks, bucket: u32, buckets: u32) -> ScoredTracks {
    let own = scored
        .iter()
        .filter(|((video, ..), _)| bucket_of(video, buckets) == bucket);
    own.map(|(key, scores)| (key.clone(), scores.clone())).collect()
}

/// Writes the rows of these buckets.
fn fill(to: &mut impl VersionRows, after: &ScoredTracks, buckets: &[u32], of: u32) {
    to.fill_buckets::<Videos>(buckets, |bucket| videos(&own(after, bucket, of)))
        .unwrap();
    to.fill_buckets::<Scores>(buckets, |bucket| scores(&own(after, bucket, of)))
        .unwrap();
    to.fill_buckets::<Labels>(buckets, |bucket| labels(&own(after, bucket, of)))
        .unwrap();
    let version = to.version().0;
    let changed = |bucket: u32| changes(version, &ScoredTracks::new(), &own(after, bucket, of));
    to.append_parts::<LabelChanges>(buckets.len() as u32, |part| changed(buckets[part as usize]))
        .unwrap();
}

fn info(after: &ScoredTracks) -> CommitInfo {
    CommitInfo {
        command: "vaplan label".into(),
        inputs: format!("{:x}", after.len()),
        videos: VIDEOS,
        ..CommitInfo::default()
    }
}

/// Commits with `parts` processes. `spoil` changes what the last part tells, or its files.
fn shared(
    store: &Store,
    after: &ScoredTracks,
    parts: u32,
    spoil: impl Fn(&Store, &mut PartFiles),
) -> Result<(), String> {
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut commit = store.begin(&lock, info(after)).unwrap();
    commit.clear::<Videos>();
    commit.clear::<Scores>();
    commit.clear::<Labels>();
    commit.replace_all::<Rejects>(&rejects(after)).unwrap();
    let of = commit.buckets();
    let share = |part: u32| {
        (0..of)
            .filter(|bucket| bucket % parts == part)
            .collect::<Vec<u32>>()
    };
    fill(&mut commit, after, &share(0), of);
    for part in 1..parts {
        let mut writer = PartWriter::begin(store, StoreVersion(1), of, &format!("test-{part}")).unwrap();
        fill(&mut writer, after, &share(part), of);
        let mut files = writer.finish().unwrap();
        if part + 1 == parts {
            spoil(store, &mut files);
        }
        commit.adopt(files).map_err(|error| error.to_string())?;
    }
    commit.finish().map_err(|error| error.to_string())?;
    Ok(())
}

fn sorted<R: std::fmt::Debug>(mut rows: Vec<R>) -> Vec<R> {
    rows.sort_by_key(|row| format!("{row:?}"));
    rows
}

#[test]
fn parts_make_the_rows_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let after = scored(60, 1);
    let one = create(&folder.path().join("one")).unwrap();
    commit(&one, &ScoredTracks::new(), &after).unwrap();
    let one = one.latest().unwrap().unwrap();
    for parts in [2, 3, 5] {
        let store = create(&folder.path().join(format!("of{parts}"))).unwrap();
        shared(&store, &after, parts, |_, _| ()).unwrap();
        let many = store.latest().unwrap().unwrap();
        assert_eq!(many.read::<Videos>().unwrap(), one.read::<Videos>().unwrap());
        assert_eq!(many.read::<Scores>().unwrap(), one.read::<Scores>().unwrap());
        assert_eq!(many.read::<Labels>().unwrap(), one.read::<Labels>().unwrap());
        let changes = sorted(many.read::<LabelChanges>().unwrap());
        assert_eq!(changes, sorted(one.read::<LabelChanges>().unwrap()));
        assert_eq!(many.version().changed_labels, one.version().changed_labels);
        assert!(
            fs::read_dir(store.root().join("_vaplan/scratch"))
                .unwrap()
                .next()
                .is_none()
        );
    }
    println!("the rows of 2, 3 and 5 processes equal those of one");
}

#[test]
fn parts_in_an_object_store_make_the_rows_of_one_process_and_are_read_by_bucket() {
    let memory = FaultyMemory::new(Faults::default());
    register(
        "memory://parts",
        Arc::new(SharedFaultyMemory(memory)),
        Duration::from_secs(5),
        None,
    );
    let store = create(Path::new("memory://parts/store")).unwrap();
    let after = scored(60, 1);
    shared(&store, &after, 3, |_, _| ()).unwrap();
    let first = store.latest().unwrap().unwrap();
    assert_eq!(sorted(first.read::<Scores>().unwrap()), sorted(scores(&after)));
    assert_eq!(sorted(first.read::<Videos>().unwrap()), sorted(videos(&after)));
    assert_eq!(sorted(first.read::<Labels>().unwrap()), sorted(labels(&after)));

    let mut changed = after.clone();
    changed.values_mut().nth(7).unwrap()[1] = 0.75;
    patch(&store, &after, &changed).unwrap();
    let latest = store.latest().unwrap().unwrap();
    let groups = latest.bucket_groups(8).unwrap();
    let by_bucket = latest.by_bucket::<Labels>(groups.buckets()).unwrap();
    let mut rows = Vec::new();
    for range in groups.iter() {
        let group = by_bucket.group(range.clone()).unwrap();
        for bucket in range {
            let found = group.bucket(bucket, &Filter::all()).unwrap();
            rows.extend(found.into_iter().map(|found| found.row));
        }
    }
    assert!(
        latest
            .files(Labels::NAME)
            .unwrap()
            .iter()
            .any(|file| file.is_patch())
    );
    assert_eq!(sorted(rows), sorted(labels(&changed)));
}

#[test]
fn a_file_that_is_not_there_as_described_is_refused_and_the_version_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let after = scored(60, 1);
    let missing = |store: &Store, _: &mut PartFiles| {
        for entry in fs::read_dir(store.root().join("labels")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
    };
    let cut = |store: &Store, _: &mut PartFiles| {
        for entry in fs::read_dir(store.root().join("videos")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::write(path, b"short").unwrap();
            }
        }
    };
    let told = |name: &str, spoil: &dyn Fn(&Store, &mut PartFiles)| {
        let store = create(&folder.path().join(name)).unwrap();
        let error = shared(&store, &after, 2, spoil).unwrap_err();
        assert!(store.latest().unwrap().is_none(), "{error}");
        error
    };
    assert!(told("missing", &missing).contains("expected one file system that all processes see"));
    assert!(told("cut", &cut).contains("has 5 bytes, expected the "));
}

#[test]
fn a_part_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let after = scored(60, 1);
    let store = create(folder.path()).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    let commit = store.begin(&lock, info(&after)).unwrap();
    let mut writer = PartWriter::begin(&store, StoreVersion(1), commit.buckets(), "test").unwrap();
    fill(&mut writer, &after, &[1], commit.buckets());
    drop(writer);
    assert!(
        fs::read_dir(store.root().join("_vaplan/scratch"))
            .unwrap()
            .next()
            .is_none()
    );
    assert!(!store.root().join("labels").exists());
}
