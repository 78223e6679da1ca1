//! How long a change of one video takes in a store of many; run by hand, prints and asserts only that it is right.
//!
//! `cargo test --workspace --test store -- --ignored --nocapture speed::`; `VAPLAN_VIDEOS` says how many videos.

use std::time::{Duration, Instant};

use vaplan_schemas::bucket_of;
use vaplan_schemas::rows::LabelChangeRow;
use vaplan_schemas::store::{CommitInfo, Filter, Store};
use vaplan_schemas::tables::{LabelChanges, Labels, Rejects, Scores, Videos};

use crate::support::{World, labels, rejects, scores, videos, world};

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn say(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{what:>12}: p50 {:6.1} ms, p90 {:6.1} ms, p99 {:6.1} ms, most {:6.1} ms",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// A store of these videos in the buckets that it chooses.
fn fill(store: &Store, world: &World) {
    let lock = store.lock(&mut |_| {}).unwrap();
    let video_rows = videos(world);
    let info = CommitInfo {
        videos: video_rows.len(),
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info).unwrap();
    let buckets = commit.buckets();
    let mut parts = vec![(Vec::new(), Vec::new(), Vec::new()); buckets as usize];
    for row in video_rows {
        parts[bucket_of(&row.video, buckets) as usize].0.push(row);
    }
    for row in scores(world) {
        parts[bucket_of(&row.video, buckets) as usize].1.push(row);
    }
    for row in labels(world) {
        parts[bucket_of(&row.video, buckets) as usize].2.push(row);
    }
    commit
        .replace_buckets::<Videos>(|bucket| parts[bucket as usize].0.clone())
        .unwrap();
    commit
        .replace_buckets::<Scores>(|bucket| parts[bucket as usize].1.clone())
        .unwrap();
    commit
        .replace_buckets::<Labels>(|bucket| parts[bucket as usize].2.clone())
        .unwrap();
    commit.finish().unwrap();
}

#[test]
#[ignore = "takes minutes and measures"]
fn a_change_of_one_video() {
    let count = number("VAPLAN_VIDEOS", 100_000);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::create(folder.path()).unwrap();
    let world = world(count, 1);
    let begun = Instant::now();
    fill(&store, &world);
    println!("{count} videos written in {:.1?}", begun.elapsed());
    let bytes: u64 = ["videos", "scores", "labels"]
        .iter()
        .flat_map(|table| store.latest().unwrap().unwrap().files(table).unwrap())
        .map(|file| file.bytes)
        .sum();
    println!("{bytes} bytes");
    let begun = Instant::now();
    let all = store
        .latest()
        .unwrap()
        .unwrap()
        .scan::<Labels>(&Filter::all())
        .unwrap();
    println!(
        "{} tracks of labels scanned in {:.1?}",
        all.len(),
        begun.elapsed()
    );
    let begun = Instant::now();
    let dogs = Filter::tracks([(vaplan_schemas::Modality::Visual, "Dog".into())]);
    let found = store.latest().unwrap().unwrap().scan::<Labels>(&dogs).unwrap();
    println!("{} of one track in {:.1?}", found.len(), begun.elapsed());
    let begun = Instant::now();
    let some: Vec<_> = all
        .iter()
        .step_by(200)
        .map(|found| found.row.video.clone())
        .collect();
    let found = store.latest().unwrap().unwrap();
    let found = found.scan::<Labels>(&Filter::videos(some)).unwrap();
    println!("{} of them, scattered, in {:.1?}", found.len(), begun.elapsed());

    let lock = store.lock(&mut |_| {}).unwrap();
    let steps = number("VAPLAN_STEPS", 200);
    let mut times: [Vec<Duration>; 4] = Default::default();
    for step in 0..steps {
        let video = all[(step * 7919) % all.len()].row.video.clone();
        let filter = Filter::videos([video]);
        let start = Instant::now();
        let snapshot = store.latest().unwrap().unwrap();
        let videos = snapshot.scan::<Videos>(&filter).unwrap();
        let scores = snapshot.scan::<Scores>(&filter).unwrap();
        let mut labels = snapshot.scan::<Labels>(&filter).unwrap();
        let scanned = Instant::now();
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        let version = commit.version().0;
        let mut changes = Vec::new();
        for track in &mut labels {
            let cell = &mut track.row.cells[0];
            let change = LabelChangeRow {
                version,
                video: track.row.video.clone(),
                modality: track.row.modality,
                class: track.row.class.clone(),
                segment: 0,
                from: cell.label,
                to: !cell.label,
                rule: cell.rule,
                epoch: None,
            };
            cell.label = !cell.label;
            changes.push(change);
        }
        fn split<R: Clone>(
            found: &[vaplan_schemas::store::Found<R>],
        ) -> (Vec<vaplan_schemas::store::Place>, Vec<R>) {
            found.iter().map(|found| (found.place, found.row.clone())).unzip()
        }
        let (gone, rows) = split(&videos);
        commit.patch::<Videos>(&gone, &rows).unwrap();
        let (gone, rows) = split(&scores);
        commit.patch::<Scores>(&gone, &rows).unwrap();
        let (gone, rows) = split(&labels);
        commit.patch::<Labels>(&gone, &rows).unwrap();
        commit.append::<LabelChanges>(&changes).unwrap();
        commit
            .replace_all::<Rejects>(&rejects(&crate::support::world(step + 1, 1)))
            .unwrap();
        let patched = Instant::now();
        commit.finish().unwrap();
        let done = Instant::now();
        for (times, time) in
            times
                .iter_mut()
                .zip([scanned - start, patched - scanned, done - patched, done - start])
        {
            times.push(time);
        }
    }
    for (what, times) in ["scan", "patch", "finish", "all"].iter().zip(&mut times) {
        say(what, times);
    }
    let begun = Instant::now();
    let reopened = Store::open(folder.path()).unwrap().latest().unwrap().unwrap();
    let held = reopened.scan::<Labels>(&Filter::all()).unwrap();
    println!("opened again and scanned in {:.1?}", begun.elapsed());
    assert_eq!(held.len(), all.len());
    assert_eq!(reopened.version().version, steps as u64 + 1);
}
