//! The server and `watch` on one store at the same time: both get their turn.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use vaplan_schemas::tables::UserLabels;

use super::harness::{ServedStore, edit};
use crate::sample::name;
use crate::support::{assert_status, run, vaplan};
use crate::watch::harness::Watch;

#[test]
fn a_busy_watch_and_a_person_at_the_page_do_not_starve_each_other() {
    const SAVES: usize = 12;
    const DELIVERIES: usize = 24;
    let served = ServedStore::new(8, &["--author", "Ana"]);
    let (store, inbox) = (served.store(), served.sample.path("inbox"));
    fs::create_dir(&inbox).unwrap();
    let status = served.sample.path("status.json");
    let mut command = vaplan();
    command.args(["watch", "--workers", "1", "--store"]).arg(&store);
    command.arg("--inbox").arg(&inbox).arg("--status").arg(&status);
    let watch = Watch::start(command, status).ready();
    let shown = served.server.json(&format!("/api/video?name={}", name(0)));
    let track = &shown["tracks"][0];
    let (class, modality) = (
        track["class"].as_str().unwrap(),
        track["modality"].as_str().unwrap(),
    );
    // Each thresholds file is a version of its own, so that `watch` commits without a pause.
    for nth in 0..DELIVERIES {
        let threshold = 1.0 + 0.01 * nth as f64;
        let file = inbox.join(format!("{nth:03}.thresholds.toml"));
        fs::write(
            file.with_extension("tmp"),
            format!("[visual]\ndefault = {threshold}\n"),
        )
        .unwrap();
        fs::rename(file.with_extension("tmp"), &file).unwrap();
    }
    let mut longest = Duration::ZERO;
    let mut version = 1;
    for nth in 0..SAVES as u32 {
        let began = Instant::now();
        let segment = nth % 10;
        let own = json!([edit(
            &name(0),
            modality,
            class,
            (segment, segment + 1),
            Some(nth < 10)
        )]);
        // A version of `watch` can change the label, which is a conflict. The person then saves over it.
        loop {
            let answer = served.server.save(&json!({"version": version, "edits": own}));
            version = answer.json()["version"].as_u64().unwrap();
            match answer.status {
                200 => break,
                status => assert_eq!(status, 409, "{}", answer.text()),
            }
        }
        longest = longest.max(began.elapsed());
    }
    let during = fs::read_dir(inbox.join("done")).unwrap().count();
    watch.line(&format!("{:03}.thresholds.toml", DELIVERIES - 1));
    let end = watch.stop();
    assert_eq!((&end["done"], &end["failed"]), (&DELIVERIES.into(), &0.into()));
    let versions = served.latest().store().versions().unwrap();
    let by_page: Vec<usize> = (0..versions.len())
        .filter(|at| versions[*at].author.is_some())
        .collect();
    assert_eq!(by_page.len(), SAVES);
    // While the person saved, `watch` went on, and never long alone: at most 4 of its versions between two saves.
    let alone = by_page
        .windows(2)
        .map(|pair| pair[1] - pair[0] - 1)
        .max()
        .unwrap();
    assert!(
        during > 0 && alone <= 4,
        "{during} deliveries meanwhile, {alone} versions in a row, longest save {longest:?}"
    );
    assert_eq!(served.latest().read::<UserLabels>().unwrap().len(), 10);
    assert_status(&run(["check", "--store", store.to_str().unwrap()]), 0);
}
