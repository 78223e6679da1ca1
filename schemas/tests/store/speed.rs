//! What a commit and a read of LLP's size take; `cargo test --workspace --test store -- --ignored --nocapture speed`.

use std::time::Instant;

use vaplan_schemas::bucket_of;
use vaplan_schemas::store::{CommitInfo, Store};
use vaplan_schemas::tables::{Labels, Scores, Videos};

use crate::support::{World, labels, scores, videos, world};

/// Prints; asserts no time, since machines differ.
#[test]
#[ignore = "a measurement"]
fn llp_size() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let mut world = world(11_849, 1);
    for scores in world.values_mut() {
        *scores = scores.iter().cycle().take(10).copied().collect();
    }
    for round in 1..=2 {
        let lock = store.lock(&mut |_| {}).unwrap();
        let info = CommitInfo {
            videos: 11_849,
            ..CommitInfo::default()
        };
        let mut commit = store.begin(&lock, info).unwrap();
        let mut rows = Vec::new();
        for bucket in 0..commit.buckets() {
            let own: World = world
                .iter()
                .filter(|((video, ..), _)| bucket_of(video, commit.buckets()) == bucket)
                .map(|(key, scores)| {
                    (
                        key.clone(),
                        scores.iter().map(|score| score / f64::from(round)).collect(),
                    )
                })
                .collect();
            rows.push((videos(&own), scores(&own), labels(&own)));
        }
        let start = Instant::now();
        for (bucket, (videos, scores, labels)) in rows.iter().enumerate() {
            commit.replace_bucket::<Videos>(bucket as u32, videos).unwrap();
            commit.replace_bucket::<Scores>(bucket as u32, scores).unwrap();
            commit.replace_bucket::<Labels>(bucket as u32, labels).unwrap();
        }
        let written = start.elapsed();
        commit.finish().unwrap();
        println!("write {written:?}, with commit {:?}", start.elapsed());
    }
    for _ in 0..3 {
        let start = Instant::now();
        let snapshot = Store::open(folder.path()).unwrap().latest().unwrap().unwrap();
        let opened = start.elapsed();
        snapshot.files("labels").unwrap();
        let listed = start.elapsed();
        assert_eq!(snapshot.read::<Labels>().unwrap().len(), world.len());
        println!(
            "open {opened:?}, list labels {listed:?}, read labels {:?}",
            start.elapsed()
        );
    }
}
