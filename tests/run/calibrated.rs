//! A run chooses its denoising rule on val, as `vaplan denoise` does.

use vaplan_schemas::rows::LabelRule;

use super::{config, plan, run, tables};
use crate::support::{assert_status, run as vaplan, stdout};
use crate::train::TrainingSample;

/// Settings of a small training, without any key of `[denoise]`.
const PLAIN: &str = "[train]\nepochs = 3\nhidden = 16\nfeedforward = 16\nlearning_rate = 0.01\n";

/// The line about the chosen rule in the final table, without its title.
fn chosen(table: &str) -> String {
    let line = table.lines().find_map(|line| line.strip_prefix("denoising: "));
    line.unwrap_or_else(|| panic!("{table}")).to_owned()
}

/// Number of labels that PLD flipped.
fn flipped(store: &str) -> usize {
    let held = tables(store);
    let cells = held.labels.iter().flat_map(|track| track.iter());
    cells.filter(|cell| cell.rule == LabelRule::Pld).count()
}

/// The epoch by which the run denoised, as its progress names it.
fn best_epoch(table: &str) -> String {
    let line = table
        .lines()
        .find_map(|line| line.strip_prefix("checkpoint of parser, PLE: epoch "));
    line.unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_run_chooses_the_rule_that_denoise_chooses_and_denoises_only_with_a_gain() {
    let sample = TrainingSample::new("3");
    // The parser is right more often than labels that are set everywhere, and it cannot improve labels that are nearly right.
    for (name, label) in [
        ("bad", "[label]\nvisual_threshold = 0.5\naudio_threshold = 0.5\n"),
        ("fitted", ""),
    ] {
        let file = config(&sample, name, &format!("{label}{PLAIN}"));
        let output = run(&file);
        assert_status(&output, 0);
        let (table, store) = (stdout(&output), sample.path(name));
        let told = chosen(table);
        let taken = told.ends_with(": taken");
        assert_eq!(flipped(&store) > 0, taken, "{told}");
        let epoch = best_epoch(table);
        let dry = vaplan([
            "denoise",
            "--store",
            &store,
            "--epoch",
            &epoch,
            "--dry-run",
            "--modality",
            "visual",
        ]);
        assert_status(&dry, 0);
        assert!(
            stdout(&dry).lines().any(|line| line.starts_with(&told)),
            "{told}\n{}",
            stdout(&dry)
        );
        assert!(plan(&file).iter().all(|line| line.ends_with(" done")));
        let again = run(&file);
        assert_status(&again, 0);
        assert!(stdout(&again).starts_with("nothing to do"), "{}", stdout(&again));
        assert_eq!(chosen(stdout(&again)), told);
        assert_status(&vaplan(["check", "--store", &store]), 0);
    }
}

#[test]
fn a_run_whose_file_names_a_rule_does_not_choose() {
    let sample = TrainingSample::new("1");
    let file = config(&sample, "named", &format!("{PLAIN}[denoise]\nrule = 'bounds'\n"));
    let output = run(&file);
    assert_status(&output, 0);
    assert!(!stdout(&output).contains("denoising: "), "{}", stdout(&output));
    let file = config(
        &sample,
        "every",
        &format!("{PLAIN}[denoise]\nschedule = 'every'\nevery = 1\nwarmup = 1\n"),
    );
    let output = run(&file);
    assert_status(&output, 0);
    let told = chosen(stdout(&output));
    assert!(told.starts_with("rule chosen on "), "{told}");
    let again = run(&file);
    assert!(stdout(&again).starts_with("nothing to do"), "{}", stdout(&again));
}
