//! How many rounds of requests a change of a store in an object store takes. The requests of a round are made together, and each
//! round waits for the round before it.

use std::sync::Arc;
use std::time::Duration;

use vaplan::engine::Listener;
use vaplan::ingest::changes::ChangeRows;
use vaplan::{Changes, RelabelRequest};
use vaplan_schemas::StoreVersion;
use vaplan_schemas::storage::faulty::{Faults, FaultyMemory, SharedFaultyMemory};
use vaplan_schemas::storage::register;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::Labels;

use super::{label_words, make_inputs};
use crate::support::{assert_status, run, scratch};

/// Two rounds open the store, take the lease and read the rows; three write data files, logs and the version; and one gives the lease
/// back.
const ROUNDS: u64 = 6;

/// Longer than the program works between two rounds. The old numbers of the lease are removed beside this work. If the work took longer,
/// that removal would count as a round, although nothing waits for it.
const LATENCY: Duration = Duration::from_millis(1500);

#[test]
fn a_change_of_user_labels_in_an_object_store_takes_six_rounds_of_requests() {
    let folder = scratch();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let local = path("store");
    make_inputs(&path(""));
    assert_status(&run(label_words(&local, &path(""))), 0);

    let memory = FaultyMemory::new(Faults::default());
    // Renewals of the lease are requests beside the work. This lease is not renewed during the test.
    let lease = Duration::from_secs(3600);
    register(
        "memory://rounds",
        Arc::new(SharedFaultyMemory(memory.clone())),
        lease,
        None,
    );
    let (from, to) = (
        Store::open(local.as_ref()).unwrap(),
        Store::create("memory://rounds/store".as_ref()).unwrap(),
    );
    let locks = (from.lock(&mut |_| {}).unwrap(), to.lock(&mut |_| {}).unwrap());
    from.copy_to(&locks.0, &to, &locks.1, None, &|_| {}).unwrap();
    drop(locks);
    let before = from.at_version(None).unwrap().read::<Labels>().unwrap();
    // A busy machine can make the requests of one round at different times, which counts as more rounds, never as fewer.
    let mut fewest = u64::MAX;
    for version in 2..=4 {
        let mut text = "video,modality,class,segment,label\n".to_owned();
        for track in before.iter().step_by(17) {
            let label = u8::from(track.labels[0] != (version % 2 == 0));
            text += &format!("{},{},{},0,{label}\n", track.video, track.modality, track.class);
        }
        std::fs::write(path("user.csv"), text).unwrap();
        let mut rows = ChangeRows::default();
        rows.read_user(path("user.csv").as_ref()).unwrap();
        let request = |store: &str| RelabelRequest {
            store: store.into(),
            changes: Changes {
                rows: rows.clone(),
                ..Changes::default()
            },
            workers: 1,
            dry_run: false,
            command: "vaplan relabel".to_owned(),
        };
        let here = vaplan::relabel(&request(&local), &Listener::silent()).unwrap();
        memory.set(Faults {
            latency: LATENCY,
            ..Faults::default()
        });
        let there = vaplan::relabel(&request("memory://rounds/store"), &Listener::silent()).unwrap();
        println!("version {version}: {} rounds of requests", memory.rounds());
        fewest = fewest.min(memory.rounds());
        memory.set(Faults::default());
        assert_eq!(there.version.unwrap().version, version);
        assert_eq!((there.set, there.unset), (here.set, here.unset));
        let labels = |store: &Store| {
            let snapshot = store.at_version(Some(StoreVersion(version))).unwrap();
            snapshot.read::<Labels>().unwrap()
        };
        assert_eq!(labels(&to), labels(&from));
    }
    assert_eq!(fewest, ROUNDS);
}
