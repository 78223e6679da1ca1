//! Commands on a store in S3 that write more than tables, or read inputs at URLs.

use std::fs;
use std::process::Command;

use super::{S3, SECRET, assert_at_once, label_words, words};
use crate::cluster::processes::{assert_all_succeed, cluster_of};
use crate::support::{assert_status, stderr, stdout};
use crate::watch::harness::Watch;

/// Runs a command as several processes on S3, and asserts that all succeed. Each process has a scratch folder of its own, as
/// on machines of their own.
fn together(s3: &S3, processes: usize, words: &[&str]) {
    let outputs = cluster_of(processes, |process| {
        let mut command = s3.command(words);
        command
            .env("VAPLAN_PASS_VIDEOS", "200")
            .env("VAPLAN_SCRATCH", s3.path(&format!("scratch{process}")));
        command
    });
    assert_all_succeed(&outputs, &format!("{words:?}"));
}

#[test]
fn several_processes_label_and_relabel_a_store_on_s3() {
    let Some(s3) = S3::start("several_processes_label_and_relabel_a_store_on_s3") else {
        return;
    };
    s3.inputs();
    let (local, remote, here) = (s3.path("store"), "s3://bucket/cluster", s3.path(""));
    let here = here.trim_end_matches('/');
    let mut alone = s3.command(&words(&label_words(&local, here)));
    assert_status(&alone.env("VAPLAN_PASS_VIDEOS", "200").output().unwrap(), 0);
    together(&s3, 2, &words(&label_words(remote, here)));
    let change = ["relabel", "--visual-scale", "3", "--store"];
    s3.done(&[&change[..], &[local.as_str()]].concat());
    together(&s3, 3, &[&change[..], &[remote]].concat());
    let change = ["relabel", "--audio-threshold", "1.0", "--store"];
    s3.done(&[&change[..], &[local.as_str()]].concat());
    together(&s3, 2, &[&change[..], &[remote]].concat());
    assert_eq!(s3.rows(remote), s3.rows(&local));
    s3.done(&["check", "--store", remote]);
    println!("3 commands of 2 and 3 processes on S3 give the rows of one on a local disk");
}

#[test]
fn a_watch_on_s3_uploads_delivered_features_and_gives_the_rows_of_a_local_one() {
    let Some(s3) = S3::start("a_watch_on_s3_uploads_delivered_features_and_gives_the_rows_of_a_local_one")
    else {
        return;
    };
    s3.inputs();
    let (local, remote, here) = (s3.path("store"), "s3://bucket/watched", s3.path(""));
    s3.done(&words(&label_words(&local, here.trim_end_matches('/'))));
    s3.done(&["store", "--store", &local, "--copy-to", remote]);
    let user = s3.user_labels(&local, "labels.csv", 0);
    let shard = fs::read_dir(s3.path("features/audio")).unwrap();
    let mut shards: Vec<_> = shard.map(|entry| entry.unwrap().path()).collect();
    shards.sort();
    for (store, inbox) in [(local.as_str(), "inbox-local"), (remote, "inbox-remote")] {
        let inbox = s3.path(inbox);
        fs::create_dir(&inbox).unwrap();
        let status = s3.folder.path().join("status.json");
        let mut command = s3.command(&["watch", "--store", store, "--inbox", &inbox, "--status"]);
        command.arg(&status);
        let watch = Watch::start(command, status).ready();
        let deliver = |from: &std::path::Path, name: &str| {
            let beside = format!("{inbox}/.unfinished");
            fs::copy(from, &beside).unwrap();
            fs::rename(beside, format!("{inbox}/{name}")).unwrap();
        };
        deliver(user.as_ref(), "a.user.csv");
        watch.line("version 2:");
        // Features of the same videos from another file: the copies are equal.
        deliver(&shards[0], "own name, with #signs.audio.parquet");
        watch.line("version 3:");
        watch.stop();
    }
    assert_eq!(s3.rows(remote), s3.rows(&local));
    s3.done(&["check", "--store", remote]);
    let sql = "SELECT value FROM settings WHERE name LIKE 'features.audio%'";
    let inputs = s3.done(&["query", "--store", remote, "--format", "csv", sql]);
    assert!(inputs.contains("s3://bucket/watched/_vaplan/shards/"), "{inputs}");
    // Another machine, without the scratch folder, reads the delivered features.
    let change = [
        "relabel",
        "--store",
        remote,
        "--audio-scale",
        "2",
        "--rule",
        "softmax",
    ];
    let output = s3
        .command(&change)
        .env("VAPLAN_SCRATCH", s3.path("elsewhere"))
        .output()
        .unwrap();
    assert_status(&output, 0);
    let change = [
        "relabel",
        "--store",
        &local,
        "--audio-scale",
        "2",
        "--rule",
        "softmax",
    ];
    s3.done(&change);
    assert_eq!(s3.rows(remote), s3.rows(&local));
}

#[test]
fn labels_of_another_program_are_imported_into_a_store_on_s3() {
    let Some(s3) = S3::start("labels_of_another_program_are_imported_into_a_store_on_s3") else {
        return;
    };
    s3.inputs();
    let (local, remote, here) = (s3.path("store"), "s3://bucket/imported", s3.path(""));
    s3.done(&words(&label_words(&local, here.trim_end_matches('/'))));
    s3.done(&[
        "export",
        "--store",
        &local,
        "--format",
        "valor",
        "--out",
        &s3.path("valor"),
    ]);
    let folders = fs::read_dir(s3.path("valor")).unwrap();
    let names: Vec<_> = folders.map(|entry| entry.unwrap().file_name()).collect();
    let folder = |modality: &str| {
        let name = names
            .iter()
            .find(|name| name.to_string_lossy().contains(modality));
        s3.path(&format!(
            "valor/{}",
            name.unwrap_or_else(|| panic!("{names:?}")).display()
        ))
    };
    let (visual, audio) = (folder("visual"), folder("audio"));
    let import = |store: &str| {
        let annotations = s3.path("annotations");
        let words = [
            "label",
            "--store",
            store,
            "--annotations",
            &annotations,
            "--pseudo-labels",
            &visual,
            &audio,
        ];
        let output = s3.vaplan(&words);
        assert!(output.status.code() < Some(2), "{}", stderr(&output));
    };
    import(&s3.path("imported"));
    import(remote);
    assert_eq!(s3.rows(remote), s3.rows(&s3.path("imported")));
    let sql = "SELECT DISTINCT visual_source FROM videos WHERE visual_source IS NOT NULL";
    let sources = s3.done(&["query", "--store", remote, "--format", "csv", sql]);
    assert!(
        sources.contains("s3://bucket/imported/_vaplan/shards/import.visual/"),
        "{sources}"
    );
}

#[test]
fn large_objects_are_written_and_read_in_parts() {
    let Some(s3) = S3::start("large_objects_are_written_and_read_in_parts") else {
        return;
    };
    s3.inputs();
    let (local, whole, parts, here) = (
        s3.path("store"),
        "s3://bucket/whole",
        "s3://bucket/parts",
        s3.path(""),
    );
    let here = here.trim_end_matches('/');
    s3.done(&words(&label_words(&local, here)));
    s3.done(&words(&label_words(whole, here)));
    let small = |words: &[&str]| {
        let mut command = s3.command(words);
        command
            .env("VAPLAN_PART_BYTES", "3000")
            .env("VAPLAN_WHOLE_BYTES", "2000")
            .env("VAPLAN_LOG", "vaplan=debug");
        command
    };
    let output = small(&words(&label_words(parts, here))).output().unwrap();
    assert_status(&output, 0);
    let tags = s3.python(
        "import boto3
s3 = boto3.client('s3')
pages = s3.get_paginator('list_objects_v2').paginate(Bucket='bucket', Prefix='parts/labels/')
found = [(o['Size'], o['ETag']) for p in pages for o in p['Contents'] if o['Key'].endswith('.parquet')]
print(all(('-' in tag) == (size > 6000) for size, tag in found), sum('-' in tag for _, tag in found))",
        &[],
    );
    let (right, count) = tags.trim().split_once(' ').unwrap();
    assert_eq!(right, "True", "{tags}");
    assert!(count.parse::<u32>().unwrap() > 0, "{tags}");
    // Reading columns of a large object takes its footer and the parts of the columns.
    let user = s3.user_labels(&local, "user.csv", 0);
    let change = |store: &'static str| ["relabel", "--store", store, "--user", user.as_str()];
    s3.done(&["relabel", "--store", &local, "--user", &user]);
    let requests = |command: &mut Command| -> u64 {
        let output = command.env("VAPLAN_LOG", "vaplan=debug").output().unwrap();
        assert_status(&output, 0);
        let said = stderr(&output);
        let at = said.rfind(" get,").unwrap_or_else(|| panic!("{said}"));
        let digits: String = said[..at]
            .chars()
            .rev()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits.chars().rev().collect::<String>().parse().unwrap()
    };
    let few = requests(&mut s3.command(&change(whole)));
    let many = requests(&mut small(&change(parts)));
    assert!(many > few, "{many} gets in parts, {few} of whole objects");
    let rows = |store: &str| {
        let sql = "SELECT * FROM labels ORDER BY video, modality, class, segment";
        let output = small(&["query", "--store", store, "--format", "csv", sql])
            .output()
            .unwrap();
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    assert_eq!(rows(parts), rows(&local));
    assert_eq!(s3.rows(parts), s3.rows(&local));
    println!("{count} objects in parts; {many} gets in parts, {few} of whole objects");
}

#[test]
fn the_credentials_are_in_no_log_table_error_or_scratch_file() {
    const TOKEN: &str = "a-session-token-that-nobody-may-see";
    let Some(s3) = S3::start("the_credentials_are_in_no_log_table_error_or_scratch_file") else {
        return;
    };
    s3.inputs();
    let (remote, here) = ("s3://bucket/store", s3.path(""));
    let label = label_words(remote, here.trim_end_matches('/'));
    let log = ["log", "--store", remote];
    /// The words of a command, variables of its environment, and its exit status.
    type Case<'a> = (Vec<&'a str>, &'a [(&'a str, &'a str)], i32);
    let cases: [Case<'_>; 5] = [
        (words(&label), &[], 0),
        (log.to_vec(), &[], 0),
        (vec!["log", "--store", "s3://nowhere/store"], &[], 2),
        (log.to_vec(), &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")], 2),
        (log.to_vec(), &[("AWS_REGION", "no region, and \u{1}")], 2),
    ];
    for (words, variables, status) in cases {
        let mut command = s3.command(&words);
        command
            .env("AWS_SESSION_TOKEN", TOKEN)
            .env("VAPLAN_OBJECT_ATTEMPTS", "2")
            .env("VAPLAN_LOG", "trace")
            .envs(variables.iter().copied());
        let output = command.output().unwrap();
        if !variables.iter().any(|(name, _)| *name == "AWS_REGION") {
            assert_eq!(
                output.status.code(),
                Some(status),
                "{words:?}: {}",
                stderr(&output)
            );
        }
        for secret in [SECRET, TOKEN] {
            let said = [stdout(&output), stderr(&output)].concat();
            assert!(!said.contains(secret), "{words:?} says a credential");
        }
    }
    let holds = |bytes: &[u8]| {
        [SECRET, TOKEN].iter().any(|secret| {
            bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        })
    };
    let mut folders = vec![s3.folder.path().join("scratch")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    seen += 1;
                    assert!(!holds(&fs::read(&path).unwrap()), "{}", path.display());
                }
            }
        }
    }
    let found = s3.python(
        "import boto3, sys
s3 = boto3.client('s3')
keys = [o['Key'] for p in s3.get_paginator('list_objects_v2').paginate(Bucket='bucket') for o in p['Contents']]
read = lambda k: s3.get_object(Bucket='bucket', Key=k)['Body'].read()
print(len(keys), [k for k in keys if any(s.encode() in read(k) for s in sys.argv[1:])])",
        &[SECRET, TOKEN],
    );
    assert!(found.trim().ends_with(" []"), "{found}");
    println!(
        "no credential in {seen} scratch files and {} objects",
        found.split(' ').next().unwrap()
    );
}

#[cfg(feature = "train")]
#[test]
fn a_run_on_s3_gives_the_tables_of_a_local_one_and_its_epochs_serve_other_commands() {
    use crate::train::TrainingSample;

    let Some(s3) =
        S3::start("a_run_on_s3_gives_the_tables_of_a_local_one_and_its_epochs_serve_other_commands")
    else {
        return;
    };
    let sample = TrainingSample::new("2");
    let (local, remote) = (sample.path("local"), "s3://bucket/run");
    let annotations = match std::path::Path::new(&sample.path("features/annotations")).exists() {
        true => "features/annotations",
        false => "annotations",
    };
    let run = |store: &str, name: &str| {
        let file = sample.path(name);
        let text = format!(
            "store = '{store}'\n[data]\nannotations = '{annotations}'\n[features]\nvisual = 'features/visual'\n\
             audio = 'features/audio'\nvisual_text = 'features/visual_text.npy'\naudio_text = 'features/audio_text.npy'\n\
             [train]\nepochs = 2\nhidden = 16\nfeedforward = 16\nlearning_rate = 0.01\n\
             [denoise]\nalpha = 1.05\nguard = 0.3\n"
        );
        fs::write(&file, text).unwrap();
        s3.vaplan(&["run", &file, "--workers", "2", "--threads", "1"])
    };
    let scores = |output: &std::process::Output| -> Vec<String> {
        assert_status(output, 0);
        let lines = stdout(output)
            .lines()
            .filter(|line| !line.starts_with("checkpoint of "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(
        scores(&run(remote, "remote.toml")),
        scores(&run(&local, "local.toml"))
    );
    assert_eq!(s3.rows(remote), s3.rows(&local));
    let again = run(remote, "remote.toml");
    assert!(stdout(&again).contains("nothing to do"), "{}", stdout(&again));
    // What an epoch is good for, in both places.
    let both = |words: &[&str]| {
        let answers = [remote, local.as_str()].map(|store| {
            let output = s3.vaplan(&[words, &["--store", store]].concat());
            assert!(output.status.code() < Some(2), "{words:?}: {}", stderr(&output));
            // The last line of `plan` estimates the time, which depends on the place.
            let lines = stdout(&output).lines().filter(|line| !line.starts_with("about "));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        });
        assert_eq!(answers[0], answers[1], "{words:?}");
    };
    both(&["denoise", "--epoch", "1", "--denoise-rule", "pld", "--dry-run"]);
    both(&["denoise", "--epoch", "1", "--denoise-rule", "pld"]);
    both(&["eval", "--split", "val", "--format", "json"]);
    both(&[
        "query",
        "--format",
        "csv",
        "SELECT epoch, video, modality, segment FROM predictions ORDER BY 1, 2, 3, 4",
    ]);
    both(&["plan", "--audio-threshold", "1.0"]);
    assert_eq!(s3.rows(remote), s3.rows(&local));
    s3.done(&["check", "--store", remote]);
}

/// The command with a wall clock that is off, by libfaketime. The monotonic clock, which leases use, stays right.
fn with_clock(s3: &S3, offset: &str, words: &[&str]) -> Command {
    let own = s3.command(words);
    let mut command = Command::new("faketime");
    command
        .args(["-f", offset])
        .arg(own.get_program())
        .args(own.get_args());
    for (key, value) in own.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_NO_CACHE", "1")
        .current_dir(s3.folder.path());
    command
}

#[test]
fn clocks_that_are_off_by_an_hour_change_neither_leases_nor_tables_nor_what_vacuum_keeps() {
    let test = "clocks_that_are_off_by_an_hour_change_neither_leases_nor_tables_nor_what_vacuum_keeps";
    if !Command::new("faketime")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        eprintln!("SKIPPED: {test} needs Debian's package faketime");
        return;
    }
    let Some(s3) = S3::start(test) else { return };
    s3.inputs();
    let (local, remote, here) = (s3.path("store"), "s3://bucket/clock", s3.path(""));
    let here = here.trim_end_matches('/');
    s3.done(&words(&label_words(&local, here)));
    let label = with_clock(&s3, "+1h", &words(&label_words(remote, here)))
        .output()
        .unwrap();
    assert_status(&label, 0);
    // Two writers at once, two hours apart: one waits for the lease of the other.
    let files = [
        s3.user_labels(&local, "one.csv", 0),
        s3.user_labels(&local, "two.csv", 5),
    ];
    let relabel = |(offset, user): (&str, &String)| {
        with_clock(&s3, offset, &["relabel", "--store", remote, "--user", user])
    };
    assert_at_once(["+1h", "-1h"].into_iter().zip(&files).map(relabel));
    // The store of one process has the changes in the same order.
    let first = s3.done(&[
        "query",
        "--store",
        remote,
        "--format",
        "csv",
        "SELECT command FROM versions WHERE version = 2",
    ]);
    let order = match first.contains("one.csv") {
        true => [0, 1],
        false => [1, 0],
    };
    for nth in order {
        s3.done(&["relabel", "--store", &local, "--user", &files[nth]]);
    }
    assert_eq!(s3.rows(remote), s3.rows(&local));
    for offset in ["+1h", "-1h"] {
        let vacuum = with_clock(&s3, offset, &["vacuum", "--store", remote, "--keep", "1"])
            .output()
            .unwrap();
        assert_status(&vacuum, 0);
        assert!(
            stdout(&vacuum).contains("3 versions can be opened"),
            "{offset}: {}",
            stdout(&vacuum)
        );
    }
    s3.done(&["check", "--store", remote]);
    // Processes of one cluster need no common time.
    let change = ["relabel", "--store", remote, "--visual-scale", "3"];
    let outputs = cluster_of(3, |process| {
        with_clock(&s3, ["+1h", "+0h", "-1h"][process], &change)
    });
    assert_all_succeed(&outputs, "clocks that are off");
    s3.done(&["relabel", "--store", &local, "--visual-scale", "3"]);
    assert_eq!(s3.rows(remote), s3.rows(&local));
    println!("clocks that are off by an hour: 2 writers, 2 vacuums, a cluster of 3 processes");
}
