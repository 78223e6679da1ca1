//! A scan finds exactly the rows asked for, and opens no file that cannot hold them.

use std::sync::Arc;

use vaplan_schemas::rows::LabelTrack;
use vaplan_schemas::store::{Filter, Place, Snapshot, TrackKeys};
use vaplan_schemas::tables::{Classes, LabelChanges, Labels, Rejects, Scores, Table, Truth, Videos};
use vaplan_schemas::{Modality, bucket_of};

use crate::support::{ScoredTracks, classes, commit, create, labels, patch, scored, truth, videos};

/// A store of buckets and patches: of every seventh video the scores were changed later.
fn patched() -> (tempfile::TempDir, Snapshot, ScoredTracks) {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let before = scored(40, 1);
    commit(&store, &ScoredTracks::new(), &before).unwrap();
    let mut after = before.clone();
    for (number, scores) in after.values_mut().enumerate() {
        if number % 7 == 0 {
            scores[1] = 1.0 - scores[1];
        }
    }
    patch(&store, &before, &after).unwrap();
    (folder, store.latest().unwrap().unwrap(), after)
}

fn rows<T: Table>(snapshot: &Snapshot, filter: &Filter) -> Vec<T::Row> {
    let found = snapshot.scan::<T>(filter).unwrap();
    found.into_iter().map(|found| found.row).collect()
}

fn tracks(scored: &ScoredTracks, wanted: impl Fn(&LabelTrack) -> bool) -> Vec<LabelTrack> {
    labels(scored).into_iter().filter(wanted).collect()
}

#[test]
fn a_scan_finds_the_rows_of_its_videos_and_tracks_by_key_and_no_others() {
    let (_folder, snapshot, scored) = patched();
    let names: Vec<Arc<str>> = videos(&scored).into_iter().map(|row| row.video).collect();
    let some: Vec<Arc<str>> = names.iter().step_by(3).cloned().collect();
    let by_video = |track: &LabelTrack| some.contains(&track.video);
    let dogs = |track: &LabelTrack| (track.modality, &*track.class) == (Modality::Visual, "Dog");
    let filter = Filter::videos(some.clone());
    assert_eq!(rows::<Labels>(&snapshot, &filter), tracks(&scored, by_video));
    let filter = Filter::tracks([(Modality::Visual, "Dog".into())]);
    assert_eq!(rows::<Labels>(&snapshot, &filter), tracks(&scored, dogs));
    let filter = filter.or_videos(some.clone());
    assert_eq!(
        rows::<Labels>(&snapshot, &filter),
        tracks(&scored, |track| by_video(track) || dogs(track))
    );
    assert_eq!(
        rows::<Labels>(&snapshot, &Filter::all()),
        tracks(&scored, |_| true)
    );
    assert_eq!(rows::<Labels>(&snapshot, &Filter::default()), []);
    assert_eq!(
        rows::<Labels>(&snapshot, &Filter::videos(["no such video".into()])),
        []
    );
}

#[test]
fn a_table_without_the_columns_of_a_filter_gives_nothing() {
    let (_folder, snapshot, scored) = patched();
    let tracks = Filter::tracks([(Modality::Audio, "Dog".into())]);
    assert_eq!(rows::<Videos>(&snapshot, &tracks), []);
    assert_eq!(rows::<Rejects>(&snapshot, &tracks), []);
    assert_eq!(rows::<Truth>(&snapshot, &tracks), truth());
    let dogs = |row: &vaplan_schemas::rows::ClassRow| (row.modality, &*row.class) == (Modality::Audio, "Dog");
    let expected: Vec<_> = classes().into_iter().filter(dogs).collect();
    assert_eq!(expected.len(), 1);
    assert_eq!(rows::<Classes>(&snapshot, &tracks), expected);
    let every = Filter::videos(videos(&scored).into_iter().map(|row| row.video));
    assert_eq!(rows::<Classes>(&snapshot, &every), []);
    // Rejects have videos, but the one here is of none.
    assert_eq!(rows::<Rejects>(&snapshot, &every), []);
    assert_eq!(rows::<Videos>(&snapshot, &every), videos(&scored));
}

#[test]
fn files_that_cannot_hold_a_video_of_the_filter_are_not_opened() {
    let (_folder, snapshot, scored) = patched();
    let names: Vec<Arc<str>> = videos(&scored).into_iter().map(|row| row.video).collect();
    let wanted = &names[5];
    let buckets = snapshot.buckets().unwrap().unwrap();
    for table in ["labels", "scores"] {
        for file in snapshot.files(table).unwrap() {
            if file
                .bucket()
                .is_some_and(|(bucket, _)| bucket != bucket_of(wanted, buckets))
            {
                std::fs::remove_file(file.path).unwrap();
            }
        }
    }
    let filter = Filter::videos([wanted.clone()]);
    let own = |track: &LabelTrack| track.video == *wanted;
    assert_eq!(rows::<Labels>(&snapshot, &filter), tracks(&scored, own));
    assert_eq!(rows::<Scores>(&snapshot, &filter).len(), 2);
    // By the statistics of patch files: no name is behind this one.
    for file in snapshot.files("labels").unwrap() {
        if file.is_patch() {
            std::fs::remove_file(file.path).unwrap();
        }
    }
    let last = Filter::videos(["\u{10ffff}".into()]);
    let own = bucket_of("\u{10ffff}", buckets) == bucket_of(wanted, buckets);
    assert!(own || snapshot.scan::<Labels>(&last).is_err());
    let changes = Filter::videos(["\u{10ffff}".into()]);
    for file in snapshot.files("label_changes").unwrap() {
        std::fs::remove_file(file.path).unwrap();
    }
    assert_eq!(rows::<LabelChanges>(&snapshot, &changes), []);
}

#[test]
fn the_places_of_tracks_are_those_that_a_scan_finds() {
    let (_folder, snapshot, scored) = patched();
    let all = snapshot.scan::<Labels>(&Filter::all()).unwrap();
    let mut keys = TrackKeys::default();
    let mut expected: Vec<Place> = Vec::new();
    // Neighbours in a file share a place. One track of each video has a neighbour of the same video.
    for found in &all {
        let row = &found.row;
        if (row.modality, &*row.class) == (Modality::Visual, "Dog") {
            keys.insert(&row.video, row.modality, &row.class);
            expected.push(found.place);
        }
    }
    // Not there: a video, a class of a video that is there, and a modality of its class.
    keys.insert(&"no such video".into(), Modality::Audio, &"Dog".into());
    keys.insert(&all[0].row.video, Modality::Audio, &"No such class".into());
    assert!(
        expected.len() > 10 && expected.len() * 2 < all.len(),
        "{} of {}",
        expected.len(),
        scored.len()
    );
    let mut found = snapshot.places::<Labels>(&keys).unwrap();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(snapshot.places::<Labels>(&TrackKeys::default()).unwrap(), []);
}

#[test]
fn a_count_says_what_a_scan_would_find() {
    let (_folder, snapshot, scored) = patched();
    let name = videos(&scored)[5].video.clone();
    for filter in [
        Filter::all(),
        Filter::default(),
        Filter::videos([name]),
        Filter::tracks([(Modality::Visual, "Dog".into())]),
    ] {
        let found = rows::<Scores>(&snapshot, &filter);
        let extent = snapshot.count::<Scores>(&filter).unwrap();
        let height: usize = found.iter().map(Scores::height).sum();
        let mut names: Vec<_> = found.iter().map(|track| track.video.clone()).collect();
        names.dedup();
        assert_eq!(
            (extent.rows, extent.videos),
            (height as u64, names.len() as u64),
            "{filter:?}"
        );
        let held = snapshot.files("scores").unwrap();
        let bytes: u64 = held.iter().map(|file| file.bytes).sum();
        assert!(extent.files <= held.len() as u64 && extent.bytes <= bytes);
        assert_eq!(extent.files == 0, found.is_empty());
        assert_eq!(extent.bytes == 0, found.is_empty());
    }
}
