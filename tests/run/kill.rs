//! A run that is killed at random moments, and with 1 or 2 workers, ends in the same tables.

use super::{SMALL, command, config, scores, tables};
use crate::sample::Numbers;
use crate::support::{assert_status, stderr};
use crate::train::TrainingSample;

/// Kills of each schedule.
const KILLS: usize = 10;
/// A run is killed before this place in it: some make three versions before, some none.
const FIRST: u64 = 130;

#[test]
fn a_run_killed_at_ten_random_moments_ends_in_the_same_tables_with_1_and_2_workers() {
    let sample = TrainingSample::new("1");
    let mut went_on = Vec::new();
    // Other moments: VAPLAN_SEED=1 and so on.
    let seed = std::env::var("VAPLAN_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    for (schedule, settings) in [
        ("once", SMALL.replace("epochs = 3", "epochs = 6")),
        (
            "every",
            // As many versions as the other has.
            SMALL.replace("epochs = 3", "epochs = 12") + "schedule = 'every'\nevery = 1\nwarmup = 1\n",
        ),
    ] {
        // What is compared with is trained as the first of two is.
        let bare = |name: &str| {
            let path = config(&sample, name, &settings);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("baselines = []\n{text}")).unwrap();
            path
        };
        let whole = bare(&format!("{schedule}-whole"));
        let whole_run = command(&whole, "1").output().unwrap();
        assert_status(&whole_run, 0);
        let wanted = tables(&sample.path(&format!("{schedule}-whole")));
        for workers in ["1", "2"] {
            let name = format!("{schedule}-{workers}");
            let file = bare(&name);
            let mut numbers = Numbers::new(name.bytes().map(u64::from).sum::<u64>() + seed);
            let (mut kills, mut places) = (0, Vec::new());
            let table = loop {
                let place = 1 + numbers.below(FIRST);
                let mut run = command(&file, workers);
                if kills < KILLS {
                    run.env("VAPLAN_FAULT", place.to_string());
                }
                let output = run.output().unwrap();
                let said = stderr(&output).lines();
                went_on.extend(
                    said.filter(|line| line.contains("going on after epoch"))
                        .map(str::to_owned),
                );
                match output.status.code() {
                    Some(0) => break scores(&output),
                    // By a signal, as by kill -9.
                    None => kills += 1,
                    Some(_) => assert_status(&output, 0),
                }
                places.push(place);
            };
            println!("{schedule}, {workers} workers: killed at {places:?}");
            assert_eq!(kills, KILLS, "{places:?}");
            assert_eq!(table, scores(&whole_run), "{name}");
            let found = tables(&sample.path(&name));
            assert_eq!(found.epochs, wanted.epochs, "{name}");
            assert!(
                found == wanted,
                "{name}: labels, changes, predictions or versions differ"
            );
        }
    }
    // Trainings go on at their epochs, or the tables would be the same all the same.
    for stage in ["ple: ", "ple+pld: "] {
        let own = went_on.iter().filter(|line| line.contains(stage));
        assert!(own.count() > 1, "{stage}{went_on:#?}");
    }
}

#[test]
fn a_run_killed_after_every_version_it_makes_ends_in_the_same_tables() {
    let sample = TrainingSample::new("1");
    let settings = format!("{SMALL}schedule = 'every'\nevery = 1\nwarmup = 1\n");
    let whole = config(&sample, "whole", &settings);
    let whole_run = command(&whole, "1").output().unwrap();
    assert_status(&whole_run, 0);
    let file = config(&sample, "killed", &settings);
    let mut kills = 0;
    // Its commit is there, and nothing of what comes after.
    let last = loop {
        let output = command(&file, "1")
            .env("VAPLAN_FAULT", "after-versions")
            .output()
            .unwrap();
        match output.status.code() {
            None => kills += 1,
            Some(_) => break output,
        }
    };
    assert_status(&last, 0);
    let (found, wanted) = (tables(&sample.path("killed")), tables(&sample.path("whole")));
    assert_eq!((kills, found.versions), (wanted.versions, wanted.versions));
    assert_eq!(found.epochs, wanted.epochs);
    assert!(found == wanted, "labels, changes, predictions or versions differ");
    let table = scores(&last);
    let table = table.trim_start_matches("nothing to do: the store holds what the file asks for\n");
    assert_eq!(table, scores(&whole_run));
}
