//! What a run does, does not do again, and does again after a change.

use std::collections::BTreeSet;
use std::fs;

use vaplan_schemas::rows::LabelRule;

use super::{SMALL, config, flipped_by, plan, run, scores, tables};
use crate::support::{assert_status, copy_over_all, run as vaplan, stderr, stdout};
use crate::train::TrainingSample;

/// Rows of the final table whose title is this, by split and protocol.
fn rows(table: &str, title: &str) -> Vec<String> {
    let own = table.lines().filter(|line| line.starts_with(title));
    own.map(|line| {
        line[title.len()..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    })
    .collect()
}

#[test]
fn one_command_goes_from_a_fresh_store_to_the_table_and_a_second_does_nothing() {
    let sample = TrainingSample::new("2");
    let file = config(&sample, "own", SMALL);
    let stages = ["label", "plg", "weak", "ple", "pld", "ple+pld"];
    assert_eq!(plan(&file), stages.map(|stage| format!("{stage} to be done")));
    assert!(
        !std::path::Path::new(&sample.path("own")).exists(),
        "plan writes nothing"
    );
    let first = run(&file);
    assert_status(&first, 0);
    let table = stdout(&first);
    for title in ["labels, PLG ", "labels, PLG + PLD"] {
        let rows = rows(table, title);
        let own: Vec<&str> = rows.iter().map(|row| &row[..row.len().min(11)]).collect();
        let of = |row: &&&str| row.starts_with("val labels") || row.starts_with("test labels");
        assert_eq!(own.iter().filter(of).count(), 2, "{table}");
    }
    for title in ["parser, weak", "parser, PLE ", "parser, PLE + PLD"] {
        let own = rows(table, title);
        let of = |start: &str| own.iter().filter(|row| row.starts_with(start)).count();
        let found = ["val fused", "val own", "test fused", "test own"].map(of);
        assert_eq!(found, [1; 4], "{title}: {table}");
    }
    let checkpoints = table.lines().filter_map(|line| {
        let (_, told) = line.split_once(": epoch ")?;
        let (_, files) = told.split_once(" of the store, ")?;
        files.split_once("; model ")
    });
    let checkpoints: Vec<(&str, &str)> = checkpoints.collect();
    assert_eq!(checkpoints.len(), 3, "{table}");
    for (checkpoint, model) in checkpoints {
        assert!(std::path::Path::new(checkpoint).is_file(), "{checkpoint}");
        assert!(
            std::path::Path::new(model).join("model.json").is_file(),
            "{model}"
        );
    }
    let held = tables(&sample.path("own"));
    assert_eq!(held.epochs.len(), 9, "three trainings");
    let flipped = held.labels.iter().flat_map(|track| track.iter());
    let flipped = flipped.filter(|cell| cell.rule == LabelRule::Pld).count();
    assert!(flipped > 20, "{flipped} labels were flipped");
    assert_eq!(plan(&file), stages.map(|stage| format!("{stage} done")));

    let second = run(&file);
    assert_status(&second, 0);
    let said = stdout(&second).strip_prefix("nothing to do: the store holds what the file asks for\n");
    assert_eq!(said, Some(table), "the table is told again");
    assert_eq!(tables(&sample.path("own")), held, "nothing is written");
    // Features with the same content are the same features, for the labels and for every training.
    copy_over_all(std::path::Path::new(&sample.path("features")));
    assert_eq!(plan(&file), stages.map(|stage| format!("{stage} done")));
    assert!(stdout(&run(&file)).starts_with("nothing to do: "));
    assert_status(&vaplan(["check", "--store", &sample.path("own")]), 0);
}

#[test]
fn the_labels_of_a_run_are_those_of_a_store_labelled_anew_from_what_it_led_to() {
    let sample = TrainingSample::new("2");
    for (name, schedule) in [
        ("once", ""),
        ("every", "schedule = 'every'\nevery = 1\nwarmup = 1\n"),
    ] {
        let file = config(&sample, name, &format!("{SMALL}{schedule}"));
        assert_status(&run(&file), 0);
        let store = sample.path(name);
        let found = tables(&store);
        sample.label_anew_with(name, &["--quiet", "--fit-thresholds"]);
        let anew = tables(&store);
        assert_eq!(anew.labels, found.labels, "{name}");
        assert_eq!(anew.versions, found.versions + 2, "it was labelled");
    }
}

#[test]
fn a_changed_file_redoes_what_depends_on_the_change_and_nothing_else() {
    let sample = TrainingSample::new("1");
    let file = config(&sample, "own", SMALL);
    assert_status(&run(&file), 0);
    let before = tables(&sample.path("own"));
    let open = |file: &str| -> Vec<String> {
        let lines = plan(file).into_iter();
        lines
            .filter_map(|line| line.strip_suffix(" to be done").map(str::to_owned))
            .collect()
    };
    config(&sample, "own", &SMALL.replace("alpha = 1.05", "alpha = 1.5"));
    assert_eq!(open(&file), ["pld", "ple+pld"]);
    assert_status(&run(&file), 0);
    let after = tables(&sample.path("own"));
    assert_eq!(after.epochs.len(), before.epochs.len() + 3, "one training");
    assert_ne!(after.labels, before.labels);
    let with_pseudo = SMALL.replace("alpha = 1.05", "alpha = 1.5");
    let path = config(&sample, "own", &with_pseudo);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("baselines = ['weak', 'pseudo']\n{text}")).unwrap();
    assert_eq!(open(&file), ["pseudo", "pld"], "it learns labels without flips");
    assert_status(&run(&file), 0);
    assert_eq!(
        tables(&sample.path("own")).labels,
        after.labels,
        "the flips have still their say"
    );
    fs::write(
        &path,
        text.replace("[train]", "[label]\nvisual_threshold = 1.1\n[train]"),
    )
    .unwrap();
    assert_eq!(open(&file), ["label", "plg", "weak", "ple", "pld", "ple+pld"]);
    assert_status(&run(&file), 0);
    assert_eq!(open(&file), [""; 0]);
    assert_status(&vaplan(["check", "--store", &sample.path("own")]), 0);
}

#[test]
fn what_another_command_made_of_the_labels_is_taken_back_only_by_force() {
    let sample = TrainingSample::new("1");
    let file = config(&sample, "own", SMALL);
    assert_status(&run(&file), 0);
    let store = sample.path("own");
    let held = tables(&store);
    let own = flipped_by(&held.labels);
    let other = held
        .predictions
        .iter()
        .map(|track| track.epoch)
        .find(|epoch| !own.contains(epoch));
    let other = other.expect("predictions of the other parsers").to_string();
    for change in [
        &["denoise", "--epoch", &other, "--alpha", "1.01"][..],
        &["relabel", "--alpha", "3"],
        &["relabel", "--visual-threshold", "1.1"],
    ] {
        assert_status(&vaplan([change, &["--store", &store]].concat()), 0);
        assert_ne!(tables(&store).labels, held.labels, "{change:?}");
        assert_eq!(plan(&file)[0], "label to be done", "{change:?}");
        let changed = tables(&store);
        let refused = run(&file);
        assert_status(&refused, 2);
        assert!(
            stderr(&refused).contains("would take the change back: ")
                && stderr(&refused).contains("`--force`"),
            "{change:?}: {}",
            stderr(&refused)
        );
        assert_eq!(tables(&store), changed, "{change:?}: nothing is written");
        let again = super::command(&file, "2").arg("--force").output().unwrap();
        assert_status(&again, 0);
        assert!(
            !stdout(&again).starts_with("nothing"),
            "{change:?}: {}",
            stdout(&again)
        );
        let after = tables(&store);
        assert_eq!(after.labels, held.labels, "{change:?}");
        assert_eq!(after.epochs.len(), held.epochs.len(), "nothing is trained");
        assert!(stdout(&run(&file)).starts_with("nothing to do"), "{change:?}");
    }
    // Of another schedule, what flipped has no say any more.
    config(&sample, "own", &format!("{SMALL}schedule = 'off'\n"));
    assert_status(&run(&file), 0);
    assert_eq!(flipped_by(&tables(&store).labels), BTreeSet::new());
    assert!(stdout(&run(&file)).starts_with("nothing to do"));
    config(&sample, "own", SMALL);
    assert_status(&run(&file), 0);
    assert_eq!(tables(&store).labels.len(), held.labels.len());
    assert_eq!(flipped_by(&tables(&store).labels).len(), 1);
}

#[test]
fn a_file_that_was_done_before_another_is_done_again_as_it_was() {
    let sample = TrainingSample::new("1");
    for (name, schedule) in [
        ("once", ""),
        ("every", "schedule = 'every'\nevery = 1\nwarmup = 1\n"),
    ] {
        let own = format!("{SMALL}{schedule}");
        let store = sample.path(name);
        let file = config(&sample, name, &own);
        let first = run(&file);
        assert_status(&first, 0);
        let held = tables(&store);
        for other in [
            own.replace("alpha = 1.05", "alpha = 1.5"),
            format!("{SMALL}schedule = 'off'\n"),
        ] {
            config(&sample, name, &other);
            assert_status(&run(&file), 0);
            assert_ne!(tables(&store).labels, held.labels, "{name}");
            config(&sample, name, &own);
            let again = run(&file);
            assert_status(&again, 0);
            assert_eq!(stdout(&again), stdout(&first), "{name}");
            // Epochs of equal trainings are those that were there.
            assert_eq!(tables(&store).labels, held.labels, "{name}");
            assert_status(&vaplan(["check", "--store", &store]), 0);
        }
    }
}

#[test]
fn a_baseline_that_comes_later_learns_the_labels_of_plg() {
    let sample = TrainingSample::new("1");
    for (name, schedule) in [
        ("once", ""),
        ("every", "schedule = 'every'\nevery = 1\nwarmup = 1\n"),
    ] {
        let with = |store: &str, baselines: &str| {
            let path = config(&sample, store, &format!("{SMALL}{schedule}"));
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, format!("baselines = [{baselines}]\n{text}")).unwrap();
            let output = run(&path);
            assert_status(&output, 0);
            scores(&output)
        };
        let at_once = format!("{name}-at-once");
        let wanted = with(&at_once, "'pseudo'");
        with(name, "");
        let held = tables(&sample.path(name));
        assert_eq!(with(name, "'pseudo'"), wanted, "{name}");
        let after = tables(&sample.path(name));
        assert_eq!(after.labels, held.labels, "{name}: denoised as before");
        let losses = |tables: &super::RunTables| -> Vec<_> {
            let rows = tables
                .epochs
                .iter()
                .map(|row| (row.run.clone(), row.run_epoch, row.losses.clone()));
            let mut rows: Vec<_> = rows.collect();
            rows.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
            rows
        };
        assert_eq!(losses(&after), losses(&tables(&sample.path(&at_once))), "{name}");
        assert!(with(name, "'pseudo'").starts_with("nothing to do"));
    }
}

#[test]
fn a_run_is_the_same_however_its_file_is_spelled() {
    let sample = TrainingSample::new("1");
    let file = config(&sample, "own", &SMALL.replace("epochs = 3", "epochs = 1"));
    assert_status(&run(&file), 0);
    let folder = sample.path("");
    let around = sample.path("features/../own.toml");
    for (from, spelled) in [(&*folder, "own.toml"), (&folder, "./own.toml"), ("/", &around)] {
        let output = crate::support::vaplan()
            .current_dir(from)
            .args(["plan", spelled])
            .output()
            .unwrap();
        assert_status(&output, 0);
        assert!(
            !stdout(&output).contains("to be done"),
            "{spelled}: {}",
            stdout(&output)
        );
    }
}

#[test]
fn what_a_person_sets_between_two_runs_is_learnt_by_the_second() {
    let sample = TrainingSample::new("1");
    let file = config(&sample, "own", SMALL);
    assert_status(&run(&file), 0);
    let marks = sample.path("marks.csv");
    let held = tables(&sample.path("own"));
    let track = &held.labels[0];
    let other = u8::from(!track.labels[0]);
    let store = sample.path("own");
    let mark = |rows: &[(&str, usize)]| {
        let of = format!("{},{},{}", track.video, track.modality, track.class);
        let rows = rows
            .iter()
            .map(|(label, segment)| format!("{of},{label},{segment}\n"));
        let rows: String = rows.collect();
        fs::write(&marks, format!("video,modality,class,label,segment\n{rows}")).unwrap();
        assert_status(&vaplan(["relabel", "--store", &store, "--user", &marks]), 0);
    };
    mark(&[(&other.to_string(), 0), ("1", 1)]);
    assert_status(&run(&file), 0);
    let after = tables(&store);
    let cell = after.labels[0].get(0);
    assert_eq!((cell.rule, cell.label), (LabelRule::User, other == 1));
    let again = after.epochs.len() - held.epochs.len();
    assert_eq!(
        (held.epochs.len(), again),
        (9, 6),
        "both parsers are trained on it, but not the weak baseline"
    );

    // The same marks in other files are the same; one that is withdrawn is not.
    let all_done = || {
        plan(&file)
            .iter()
            .all(|line| line.ends_with(" done") && !line.ends_with("to be done"))
    };
    assert_status(&vaplan(["optimize", "--store", &store]), 0);
    assert!(all_done(), "{:?}", plan(&file));
    mark(&[("withdraw", 1)]);
    assert!(!all_done(), "a mark was withdrawn");
}

#[test]
fn a_file_that_cannot_be_used_is_refused_before_anything_is_written() {
    let sample = TrainingSample::new("1");
    for (settings, said) in [
        ("[train]\nepoch = 3\n", "(nearest: `epochs`)"),
        (
            "[denoise]\nk = 0\n",
            "[denoise] k is 0, expected a whole number from 1 to 2147483647",
        ),
        ("[label]\nrule = 'logit'\n", "rule `logit` has no audio threshold"),
        ("[train_features]\nclips = 'nowhere'\n", "nowhere"),
    ] {
        let file = config(&sample, "own", settings);
        for words in [&["run", &file][..], &["run", &file, "--check"], &["plan", &file]] {
            let refused = vaplan(words);
            assert_status(&refused, 2);
            assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
        }
        assert!(!std::path::Path::new(&sample.path("own")).exists());
    }
    let file = config(&sample, "own", SMALL);
    let well = vaplan(["run", &file, "--check"]);
    assert_status(&well, 0);
    assert_eq!(stdout(&well), "well: 6 of 6 stages are to be done\n");
    let printed = vaplan(["run", "--print-default"]);
    assert_status(&printed, 0);
    fs::write(&file, stdout(&printed)).unwrap();
    let well = vaplan(["run", &file, "--check"]);
    assert_status(&well, 0);
}
