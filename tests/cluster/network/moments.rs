//! Processes that are killed at random moments, and a network that is down for longer than any process waits.

use std::fs;
use std::time::{Duration, Instant};

use vaplan_schemas::store::Store;

use super::{HOSTS, Network, Run, assert_all_lose_one, labelling, relabelling};
use crate::cluster::processes::{alone, assert_no_garbage, check, commit_predicted, read, sample};
use crate::sample::{Numbers, Sample};
use crate::support::{assert_status, stderr};
use crate::watch::harness::copy;

/// The arguments of a relabelling of every video, and of the denoising of every video by a stored epoch.
fn heavy(sample: &Sample, command: &str) -> Vec<String> {
    // If a process is killed before all have met, the others wait for this time.
    let patience = ["--cluster-timeout", "20"];
    match command {
        "relabel" => relabelling(
            sample,
            "store",
            &[&["--visual-scale", "3"][..], &patience].concat(),
        ),
        _ => {
            let store = sample.path("store").display().to_string();
            let words = [
                "denoise",
                "--store",
                &store,
                "--modality",
                "both",
                "--denoise-rule",
                "pld",
            ];
            words
                .iter()
                .chain(&patience)
                .map(|&word| word.to_owned())
                .collect()
        }
    }
}

#[test]
fn a_process_that_is_killed_at_a_random_moment_of_relabel_or_denoise_loses_nothing() {
    let sample = sample(240);
    let network = Network::new("r");
    assert_status(&alone(&sample, "begun", &[]), 1);
    commit_predicted(&sample.path("begun"));
    let mut numbers = Numbers::new(7);
    let hosts = network.addresses(&sample, 2106);
    let (mut killed, mut committed, mut runs) = (0, 0, 0);
    for command in ["relabel", "denoise"] {
        copy(&sample.path("begun"), &sample.path("store"));
        let before = read(&sample, "store");
        let arguments = heavy(&sample, command);
        let begun = Instant::now();
        for output in Run::start(&network, &arguments, &hosts, None).end() {
            assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(&output));
        }
        let whole = begun.elapsed().as_millis() as usize;
        let wanted = read(&sample, "store");
        assert!(wanted != before, "{command} changes labels");
        for process in 0..HOSTS {
            for _ in 0..2 {
                fs::remove_dir_all(sample.path("store")).unwrap();
                copy(&sample.path("begun"), &sample.path("store"));
                let moment = numbers.below(whole as u64);
                let mut run = Run::start(&network, &arguments, &hosts, None);
                std::thread::sleep(Duration::from_millis(moment));
                run.kill(process);
                let outputs = run.end();
                let what = format!("{command}, process {process} after {moment} ms");
                let died = outputs[process].status.code().is_none();
                killed += usize::from(died);
                let after = read(&sample, "store");
                assert!(after == before || after == wanted, "{what}");
                assert!(after == wanted || died, "{what}: {}", stderr(&outputs[process]));
                committed += usize::from(after == wanted);
                assert!(check(&sample, "store"), "{what}");
                for output in Run::start(&network, &arguments, &hosts, None).end() {
                    assert!(
                        matches!(output.status.code(), Some(0 | 1)),
                        "{what}: {}",
                        stderr(&output)
                    );
                }
                assert!(read(&sample, "store") == wanted, "{what}");
                assert_no_garbage(&sample.path("store"));
                runs += 1;
            }
        }
        fs::remove_dir_all(sample.path("store")).unwrap();
    }
    println!(
        "{HOSTS} processes: {killed} of {runs} were killed with SIGKILL, {committed} runs committed all the same"
    );
    assert!(killed > 2, "{killed} were killed");
}

/// The patience is 15 s, so every process has ended before a cut of 60 s is over. What then differs from a short cut is that the
/// next run can begin before the network is back.
#[test]
fn a_cut_that_outlasts_all_processes_ends_them_and_a_run_that_begins_before_its_end_completes() {
    let sample = sample(120);
    let network = Network::new("l");
    assert_status(&alone(&sample, "one", &[]), 1);
    let hosts = network.addresses(&sample, 2107);
    let store = Store::create(&sample.path("store")).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut run = Run::start(&network, &labelling(&sample, "store", &[]), &hosts, None);
    run.hear(1, "waiting: the store is being written by");
    run.cut(&network, 1);
    assert_all_lose_one(&network, run, (&hosts, 15));
    drop(lock);
    let mut run = Run::start(&network, &labelling(&sample, "store", &[]), &hosts, None);
    run.hear(0, "starting");
    network.restore(1);
    for output in run.end() {
        assert_status(&output, 1);
    }
    assert!(
        read(&sample, "store") == read(&sample, "one"),
        "the tables of one process"
    );
    assert_no_garbage(&sample.path("store"));
    println!("{HOSTS} processes: a cut ended all after 15 s; a run that began before its end completed");
}
