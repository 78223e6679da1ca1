//! Processes that are killed at random moments lose nothing.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vaplan_schemas::store::Store;

use super::{HOSTS, Network, Run, changing, labelling, reset, tables, user_label};
use crate::cluster::processes::{alone, assert_no_garbage, check, commit_predicted, files, read, sample};
use crate::cluster::resident::{ended, watch_of};
use crate::sample::{Numbers, Sample};
use crate::support::{assert_status, stderr, vaplan};
use crate::watch::harness::{WatchedStore, copy};

/// The arguments of a relabelling of every video, and of the denoising of every video by a stored epoch.
fn heavy(sample: &Sample, command: &str) -> Vec<String> {
    let change: &[&str] = match command {
        "relabel" => &["--visual-scale", "3"],
        _ => &["--modality", "both", "--denoise-rule", "pld"],
    };
    // If a process is killed before all have met, the others wait for this time.
    changing(
        command,
        sample,
        "store",
        &[change, &["--cluster-timeout", "20"]].concat(),
    )
}

#[test]
fn a_kill_at_a_random_point_of_any_process_leaves_the_last_version_whole() {
    let sample = sample(240);
    let network = Network::new("k");
    assert_status(&alone(&sample, "one", &[]), 1);
    assert_status(&alone(&sample, "one", &["--audio-threshold", "1.1"]), 1);
    let (wanted, one) = (read(&sample, "one"), files(&sample.path("one")));
    let mut numbers = Numbers::new(11);
    let hosts = network.addresses(&sample, 2102);
    let (mut killed, mut committed) = (0, 0);
    for nth in 0..9 {
        let process = nth % HOSTS;
        assert_status(&alone(&sample, "store", &[]), 1);
        let before = read(&sample, "store");
        // The number of a step among all steps that a power cut could interrupt.
        let step = (1 + numbers.below(160)).to_string();
        let arguments = labelling(&sample, "store", &["--audio-threshold", "1.1"]);
        let outputs = Run::start(&network, &arguments, &hosts, Some((process, &step))).end();
        killed += usize::from(outputs[process].status.code().is_none());
        let after = read(&sample, "store");
        let what = format!(
            "process {process}, step {step}: {}",
            stderr(&outputs[(process + 1) % HOSTS])
        );
        if after == wanted {
            committed += 1;
        } else {
            assert!(after == before, "{what}");
            assert_eq!(outputs[process].status.code(), None, "{what}");
        }
        assert!(check(&sample, "store"), "{what}");
        for output in Run::start(&network, &arguments, &hosts, None).end() {
            assert!(
                matches!(output.status.code(), Some(0 | 1)),
                "{what}; then {}",
                stderr(&output)
            );
        }
        assert!(read(&sample, "store") == wanted, "{what}");
        assert!(files(&sample.path("store")) == one, "{what}");
        assert_no_garbage(&sample.path("store"));
        fs::remove_dir_all(sample.path("store")).unwrap();
    }
    println!(
        "{HOSTS} processes: {killed} of 9 were killed at a random step, {committed} runs committed all the same"
    );
    assert!(killed >= 4, "{killed} were killed");
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

#[test]
fn a_process_of_a_watch_that_is_killed_at_a_random_moment_loses_no_delivery() {
    let own = WatchedStore::new(60);
    let begun = own.copy("begun");
    let deliveries: Vec<(String, String)> = (0..2 * HOSTS)
        .map(|nth| (format!("{nth}.user.csv"), user_label(3 * nth, nth)))
        .collect();
    let alone = own.watch(&[], None).ready();
    for (version, (name, text)) in (2..).zip(&deliveries) {
        own.deliver(name, text);
        alone.line(&format!("version {version}:"));
    }
    alone.stop();
    let wanted = tables(&own);
    reset(&own, &begun);

    let network = Network::new("m");
    let hosts = network.addresses(&own.sample, 2110);
    let start = || watch_of(&own, &hosts, |host| network.on(host, vaplan()));
    let mut numbers = Numbers::new(5);
    let mut committed = 0;
    for (nth, (name, text)) in deliveries.iter().enumerate() {
        let process = nth % HOSTS;
        let (mut watch, mut others) = start();
        own.deliver(name, text);
        let moment = numbers.below(250);
        let what = format!("process {process}, {moment} ms after delivery {nth}");
        std::thread::sleep(Duration::from_millis(moment));
        match process {
            0 => watch.signal(Signal::KILL),
            _ => others.0[process - 1].kill().unwrap(),
        }
        let expected = |own: usize| (own != process).then_some(2);
        assert_eq!(watch.end().code(), expected(0), "{what}");
        for (other, child) in others.0.iter_mut().enumerate() {
            assert_eq!(ended(child), expected(other + 1), "{what}: process {}", other + 1);
        }
        let versions = Store::open(&own.store()).unwrap().versions().unwrap().len();
        assert!(
            (nth + 1..=nth + 2).contains(&versions),
            "{what}: {versions} versions"
        );
        committed += versions - nth - 1;
        let (watch, mut others) = start();
        wait_until_done(&own, name);
        watch.stop();
        for child in &mut others.0 {
            assert_eq!(ended(child), Some(0), "{what}");
        }
    }
    assert!(
        tables(&own) == wanted,
        "each delivery counts once, and as one process counts it"
    );
    println!(
        "watch by {HOSTS} processes on {}: {} kills at random moments, {committed} deliveries were committed before; none was lost",
        network.place(),
        deliveries.len()
    );
}

/// Waits until a delivery is in the folder of finished deliveries, for at most a minute.
fn wait_until_done(of: &WatchedStore, name: &str) {
    let begun = Instant::now();
    while !of.inbox("done").join(name).exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{name} is not taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}
