//! `vaplan demo`: the whole job on the built-in sample.

use std::fs;
use std::process::Command;

use crate::support::{assert_status, run, scratch, stderr, stdout, vaplan};

/// The segment-level score `column` of a line of the table that `run` prints; of the parsers that of protocol `fused`.
fn scores(told: &str, title: &str, split: &str, column: &str) -> f64 {
    let header = told.lines().find(|line| line.starts_with("F-scores, percent"));
    let columns: Vec<&str> = header.unwrap().split_whitespace().collect();
    // The words before the first score: `split protocol seg`, after the title.
    let first = columns.iter().position(|word| *word == "seg").unwrap() + 1;
    let nth = columns[first..].iter().position(|word| *word == column).unwrap();
    let found: Vec<f64> = told
        .lines()
        .filter_map(|line| line.strip_prefix(title)?.strip_prefix("  "))
        .filter_map(|rest| {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let wanted = words[0] == split && ["labels", "fused"].contains(&words[1]);
            wanted.then(|| words[2 + nth].parse().unwrap())
        })
        .collect();
    assert_eq!(found.len(), 1, "`{title}` of {split} in\n{told}");
    found[0]
}

#[test]
fn a_demo_is_written_anew_and_every_step_shows_a_command_that_a_shell_runs_to_the_same_end() {
    let folder = scratch();
    // The folder has a demo of which only the annotations were written, and needs quotes in a shell.
    let demo = |more: &[&str]| {
        let mut demo = vaplan();
        demo.args(["demo", "--dir", "some where"]).args(more);
        demo.current_dir(folder.path()).output().unwrap()
    };
    assert_status(&demo(&["--quiet", "--annotations-only"]), 0);
    let output = demo(&["--video", "-demo_00007_101.8_111.8"]);
    assert_status(&output, 0);
    let told = stdout(&output);
    assert!(!told.contains("nothing to do"), "{told}");
    assert!(told.contains("ple+pld    done"), "{told}");
    for step in ["synth", "run", "plan", "ablate", "query", "show"] {
        assert!(
            told.contains(&format!("$ vaplan {step} ")),
            "no {step} in\n{told}"
        );
    }
    for part in [
        "simulated",
        "Type@AV",
        "mean_loss",
        "labels, PLG + PLD",
        "parser, PLE + PLD",
        "-demo_00007_101.8_111.8",
        "With your own data",
        "$ vaplan serve --store ",
    ] {
        assert!(told.contains(part), "no {part} in\n{told}");
    }

    // The scores differ by about a point between processors, but each step of the method helps on each of them.
    let type_av = |title: &str| scores(told, title, "test", "Type@AV");
    for (worse, better) in [
        ("labels, PLG", "labels, PLG + PLD"),
        ("parser, weak", "parser, PLE"),
        ("parser, PLE", "parser, PLE + PLD"),
    ] {
        assert!(
            type_av(worse) < type_av(better),
            "`{better}` is not above `{worse}`:\n{told}"
        );
    }

    // The commands as shown, typed in another folder, give the same output.
    let mut commands = String::new();
    let mut continued = false;
    let steps = told.split("Done in").next().unwrap();
    for line in steps.lines() {
        if line.starts_with("$ ") || continued {
            commands.push_str(line.trim_start_matches("$ "));
            commands.push('\n');
            continued = line.ends_with('\\');
        }
    }
    let typed = scratch();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_vaplan"))
        .parent()
        .unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let script = Command::new("sh")
        .args(["-e", "-c", &commands])
        .env("PATH", path)
        .current_dir(typed.path())
        .output()
        .unwrap();
    assert_status(&script, 0);
    let evaluation = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with("labels, ") || line.starts_with("parser, "))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(evaluation(steps).len(), 16, "{steps}");
    assert_eq!(evaluation(steps), evaluation(stdout(&script)));
}

#[test]
fn a_folder_that_is_no_demo_is_not_touched() {
    let folder = scratch();
    let mine = folder.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("thesis.tex"), "keep").unwrap();
    let output = run(["demo", "--dir", mine.to_str().unwrap()]);
    assert_status(&output, 2);
    assert!(
        stderr(&output).contains("is not empty and no folder of a demo"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
}

#[test]
fn only_annotations_can_be_had() {
    let folder = scratch();
    let dir = folder.path().join("demo");
    assert_status(
        &run(["demo", "--annotations-only", "--dir", dir.to_str().unwrap()]),
        0,
    );
    assert_eq!(fs::read_dir(dir.join("annotations")).unwrap().count(), 7);
    assert!(!dir.join("features").exists());
}
