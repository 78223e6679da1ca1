//! `vaplan relabel --hosts` and `vaplan denoise --hosts`: several processes on loopback against one.

use std::fs;

use super::processes::{Cluster, alone, check, commit_predicted, program, read, sample};
use crate::sample::Sample;
use crate::support::{assert_status, stderr, stdout};

/// The arguments of `vaplan relabel` of a store.
fn relabel<'a>(sample: &'a Sample, more: &'a [&'a str]) -> impl Fn(&str) -> Vec<String> + 'a {
    move |store| {
        let store = sample.path(store).display().to_string();
        let mut arguments = ["relabel", "--store", &store].map(str::to_owned).to_vec();
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        arguments
    }
}

#[test]
fn relabel_by_several_processes_gives_the_tables_of_one() {
    let sample = sample(300);
    for store in ["one", "many"] {
        assert_status(&alone(&sample, store, &[]), 1);
    }
    let user = sample.path("user.csv");
    let video = crate::sample::name(9);
    fs::write(
        &user,
        format!("video,modality,class,segment,label\n{video},audio,Bark,2,1\n"),
    )
    .unwrap();
    let user = user.display().to_string();
    let changes: [(&[&str], usize); 5] = [
        // A change of every score, of a part, and of nothing.
        (&["--visual-scale", "3"], 3),
        (&["--user", &user], 2),
        (&["--audio-scale", "2", "--threshold", "visual/Bell=1.2"], 2),
        (&["--threshold", "audio/Song=1.01"], 3),
        (&["--threshold", "audio/Song=1.01"], 2),
    ];
    for (nth, (change, processes)) in changes.into_iter().enumerate() {
        let mut one = program();
        let one = one.args(relabel(&sample, change)("one")).output().unwrap();
        let mut cluster = Cluster::of(&sample, processes, relabel(&sample, change), |_| {
            ("many", vec![], None)
        });
        let outputs = cluster.end();
        assert_eq!(
            stdout(&outputs[0]),
            stdout(&one),
            "change {nth}: {}",
            stderr(&outputs[0])
        );
        for (process, output) in outputs.iter().enumerate() {
            assert_eq!(
                output.status.code(),
                one.status.code(),
                "change {nth}, process {process}: {}",
                stderr(output)
            );
        }
        assert_eq!(read(&sample, "many"), read(&sample, "one"), "change {nth}");
        assert!(check(&sample, "many"), "change {nth}");
    }
    println!(
        "relabel: {} changes by 2 and 3 processes equal those of one",
        changes.len()
    );
}

#[test]
fn denoise_by_several_processes_flips_the_labels_that_one_flips() {
    let sample = sample(300);
    for store in ["one", "many"] {
        assert_status(&alone(&sample, store, &[]), 1);
        commit_predicted(&sample.path(store));
    }
    let denoise = |store: &str| {
        let store = sample.path(store).display().to_string();
        ["denoise", "--store", &store, "--modality", "both"]
            .map(str::to_owned)
            .to_vec()
    };
    let one = program().args(denoise("one")).output().unwrap();
    let outputs = Cluster::of(&sample, 3, denoise, |_| ("many", vec![], None)).end();
    assert_eq!(stdout(&outputs[0]), stdout(&one), "{}", stderr(&outputs[0]));
    outputs
        .iter()
        .for_each(|output| assert_eq!(output.status.code(), one.status.code()));
    assert_eq!(read(&sample, "many"), read(&sample, "one"));
    let (_, changes) = read(&sample, "many");
    let flips = changes.iter().filter(|change| change.version == 3).count();
    assert!(flips > 0, "the epoch contradicts no label");
    assert!(check(&sample, "many"));
    println!("denoise: {flips} flips by 3 processes equal those of one");
}
