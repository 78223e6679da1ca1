//! Times a relabelling of 1 % of the videos on a local disk and in an object store in memory that takes 20 ms per request,
//! and counts the requests and the rounds of requests that follow one another. Prints one JSON object.
//!
//! `object_store STORE [MILLISECONDS] [RUNS]`: STORE is a store of `relabel_store make`. The program works on copies of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vaplan::engine::Listener;
use vaplan::ingest::changes::ChangeRows;
use vaplan::{Changes, RelabelRequest};
use vaplan_schemas::storage::faulty::{Faults, FaultyMemory, SharedFaultyMemory};
use vaplan_schemas::storage::{RequestCounts, register, requests_of_process};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::Videos;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(store) = arguments.first() else {
        return Err("object_store STORE [MILLISECONDS] [RUNS]".into());
    };
    let number = |nth: usize, usual: u64| arguments.get(nth).map_or(Ok(usual), |text| text.parse());
    let (latency, runs) = (Duration::from_millis(number(1, 20)?), number(2, 5)?);
    let from = Store::open(Path::new(store))?;
    let folder = tempfile::tempdir_in(".")?;
    let user = user_labels(&from, folder.path())?;
    let memory = FaultyMemory::new(Faults::default());
    let lease = Duration::from_secs(30);
    register(
        "memory://bench",
        Arc::new(SharedFaultyMemory(memory.clone())),
        lease,
        None,
    );
    let places = [folder.path().join("store"), PathBuf::from("memory://bench/store")];
    let mut seconds = [Vec::new(), Vec::new()];
    let mut counts = RequestCounts::default();
    for place in &places {
        let to = Store::create(place)?;
        let locks = (from.lock(&mut |_| {})?, to.lock(&mut |_| {})?);
        from.copy_to(&locks.0, &to, &locks.1, Some(1), &|_| {})?;
    }
    let slow = Faults {
        latency,
        ..Faults::default()
    };
    let mut rounds = 0;
    // Each run sets the same labels to the opposite of the run before, so that each changes the same rows.
    for run in 0..runs {
        for (place, seconds) in places.iter().zip(&mut seconds) {
            let mut rows = ChangeRows::default();
            rows.read_user(&user[run as usize % 2])?;
            let request = RelabelRequest {
                store: place.clone(),
                changes: Changes {
                    rows,
                    ..Changes::default()
                },
                workers: std::thread::available_parallelism()?.get(),
                dry_run: false,
                command: "bench".to_owned(),
            };
            memory.set(slow);
            let (before, start) = (requests_of_process(), Instant::now());
            let done = vaplan::relabel(&request, &Listener::silent())?;
            seconds.push(start.elapsed().as_secs_f64());
            let after = requests_of_process();
            if after.all() > before.all() {
                rounds = memory.rounds();
                counts = RequestCounts {
                    get: after.get - before.get,
                    list: after.list - before.list,
                    put: after.put - before.put,
                    delete: after.delete - before.delete,
                    repeated: after.repeated - before.repeated,
                };
            }
            if done.version.is_none() {
                return Err("the change changed no label".into());
            }
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (local, remote) = (median(&mut seconds[0]), median(&mut seconds[1]));
    println!(
        "{}",
        serde_json::json!({
            "latency_ms": latency.as_millis() as u64,
            "local_seconds": local,
            "object_store_seconds": remote,
            "ratio": remote / local,
            "requests": counts.all(),
            "rounds": rounds,
            "get": counts.get,
            "list": counts.list,
            "put": counts.put,
            "delete": counts.delete,
        })
    );
    Ok(())
}

/// Two files of user labels of every hundredth video: one sets three segments, the other unsets them.
fn user_labels(store: &Store, folder: &Path) -> Fallible<[PathBuf; 2]> {
    let mut videos = store.at_version(None)?.read::<Videos>()?;
    videos.sort_by(|a, b| a.video.cmp(&b.video));
    let mut paths = [PathBuf::new(), PathBuf::new()];
    for (label, path) in paths.iter_mut().enumerate() {
        let mut text = "video,modality,class,segment,label\n".to_owned();
        for row in videos.iter().step_by(100) {
            let class = row.weak_labels.first().ok_or("a video without a weak label")?;
            for segment in 1..4 {
                writeln!(text, "{},visual,{class},{segment},{label}", row.video)?;
            }
        }
        *path = folder.join(format!("user{label}.csv"));
        std::fs::write(&*path, text)?;
    }
    Ok(paths)
}
