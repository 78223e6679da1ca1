//! Writers that meet on the S3 server.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, RetryConfig};
use vaplan_schemas::rows::{RejectKind, RejectRow};
use vaplan_schemas::storage::faulty::{Faults, FaultyMemory, SharedFaultyMemory};
use vaplan_schemas::storage::register;
use vaplan_schemas::store::{CommitInfo, Store};
use vaplan_schemas::tables::Rejects;
use vaplan_schemas::{StoreError, StoreVersion};

use super::{S3, SECRET, label_words, words};
use crate::support::{assert_status, stderr};

fn rows(writer: &str, round: u64) -> Vec<RejectRow> {
    vec![RejectRow::note(RejectKind::UnknownClass, writer, "class `Dgo` is unknown").row(round)]
}

/// Asserts that of two writers that commit the same version of the store `key` of a bucket, one wins and the other gets the
/// conflict. The bucket has a name of this process, so that the test needs no variables in its own environment.
pub(super) fn assert_one_writer_wins(name: &str, bucket: Arc<dyn ObjectStore>, key: &str) {
    let lease = Duration::from_secs(3600);
    let url = format!("memory://{name}");
    register(&url, bucket, lease, None);
    // The second writer has a lease of another store, as if it thought that the lease of the first had ended.
    let elsewhere = format!("memory://{name}-lease");
    let memory = FaultyMemory::new(Faults::default());
    register(&elsewhere, Arc::new(SharedFaultyMemory(memory)), lease, None);
    let stores = [(); 2].map(|()| Store::open(format!("{url}/{key}").as_ref()).unwrap());
    let foreign = Store::create(format!("{elsewhere}/store").as_ref()).unwrap();
    let locks = [
        stores[0].lock(&mut |_| {}).unwrap(),
        foreign.lock(&mut |_| {}).unwrap(),
    ];
    let names = ["one", "two"];
    for round in 2..6 {
        let begin = |writer: usize| {
            let info = CommitInfo {
                command: format!("writer {}", names[writer]),
                ..CommitInfo::default()
            };
            let mut commit = stores[writer].begin(&locks[writer], info).unwrap();
            commit
                .replace_all::<Rejects>(&rows(names[writer], round))
                .unwrap();
            commit
        };
        // Each writer wins twice.
        let winner = round as usize % 2;
        let (first, second) = (begin(winner), begin(1 - winner));
        assert_eq!(first.finish().unwrap().version, round);
        let lost = second.finish().unwrap_err();
        assert!(matches!(lost, StoreError::Conflict { .. }), "{lost}");
        assert!(lost.to_string().contains("run it again"), "{lost}");
        let latest = stores[0].at_version(Some(StoreVersion(round))).unwrap();
        assert_eq!(latest.read::<Rejects>().unwrap(), rows(names[winner], round));
    }
    assert_eq!(stores[0].versions().unwrap().len(), 5);
}

#[test]
fn of_two_writers_that_commit_the_same_version_to_s3_one_wins_and_the_other_gets_the_conflict() {
    let test = "of_two_writers_that_commit_the_same_version_to_s3_one_wins_and_the_other_gets_the_conflict";
    let Some(s3) = S3::start(test) else { return };
    s3.inputs();
    let (remote, here) = ("s3://bucket/race", s3.path(""));
    s3.done(&words(&label_words(remote, here.trim_end_matches('/'))));
    let before = s3.rows(remote);
    let bucket = AmazonS3Builder::new()
        .with_endpoint(&s3.endpoint)
        .with_allow_http(true)
        .with_access_key_id("test")
        .with_secret_access_key(SECRET)
        .with_region("us-east-1")
        .with_bucket_name("bucket")
        .with_retry(RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        })
        .build()
        .unwrap();
    assert_one_writer_wins("race", Arc::new(bucket), "race");
    s3.done(&["check", "--store", remote]);
    assert_eq!(s3.rows(remote)[..3], before[..3]);
    println!("4 conflicts of 2 writers on S3: one wins, the other is told");
}

#[test]
fn numbers_in_the_environment_that_cannot_be_used_are_refused() {
    let Some(s3) = S3::start("numbers_in_the_environment_that_cannot_be_used_are_refused") else {
        return;
    };
    s3.inputs();
    let (remote, here) = ("s3://bucket/numbers", s3.path(""));
    s3.done(&words(&label_words(remote, here.trim_end_matches('/'))));
    for (variable, expected) in [
        ("VAPLAN_OBJECT_ATTEMPTS", "a number of attempts, at least 1"),
        ("VAPLAN_LEASE_SECONDS", "a number of seconds, at least 1"),
    ] {
        for value in ["abc", "0", "-1", "1.5", ""] {
            let mut command =
                s3.command(&["relabel", "--store", remote, "--threshold", "visual/Speech=1.05"]);
            let output = command.env(variable, value).output().unwrap();
            assert_status(&output, 2);
            let told = format!("environment variable {variable} is `{value}`, expected {expected}");
            assert!(stderr(&output).contains(&told), "{}", stderr(&output));
        }
    }
    assert!(!s3.done(&["log", "--store", remote]).contains("relabel"));
}
