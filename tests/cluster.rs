//! `vaplan label --hosts`: several processes on loopback against one.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables;

use crate::sample::{Sample, Tables};
use crate::support::{assert_status, label_changes, stderr, stdout, vaplan};

/// The secret of the clusters of these tests.
const SECRET: &str = "a secret of sixteen or more bytes";

/// The program with small passes, so that a store of few videos has many buckets.
fn program() -> Command {
    let mut command = vaplan();
    command.env("VAPLAN_PASS_VIDEOS", "50");
    command
}

/// `vaplan label` in one process.
fn alone(sample: &Sample, store: &str, more: &[&str]) -> Output {
    let mut command = program();
    command.args(sample.arguments(store)).args(more);
    command.output().unwrap()
}

/// A hosts file of so many free ports, and its lines.
fn hosts(sample: &Sample, name: &str, processes: usize) -> (PathBuf, Vec<String>) {
    // All are held until all are found, so that no two are one.
    let held: Vec<TcpListener> = (0..processes)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let lines: Vec<String> = held
        .iter()
        .map(|listener| listener.local_addr().unwrap().to_string())
        .collect();
    let path = sample.path(name);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    (path, lines)
}

/// Processes of one run, and where each listens.
struct Cluster<'a> {
    sample: &'a Sample,
    hosts: PathBuf,
    lines: Vec<String>,
    children: Vec<Child>,
}

impl<'a> Cluster<'a> {
    /// So many processes, each with a store and more arguments of its own, and an environment.
    fn start(
        sample: &'a Sample,
        processes: usize,
        own: impl Fn(usize) -> (&'static str, Vec<&'static str>, Option<&'static str>),
    ) -> Cluster<'a> {
        Cluster::of(sample, processes, |store| sample.arguments(store), own)
    }

    /// Like [`Cluster::start`], with the arguments of another command for a store.
    fn of(
        sample: &'a Sample,
        processes: usize,
        arguments: impl Fn(&str) -> Vec<String>,
        own: impl Fn(usize) -> (&'static str, Vec<&'static str>, Option<&'static str>),
    ) -> Cluster<'a> {
        let (hosts, lines) = hosts(sample, "hosts", processes);
        let children = (0..processes).map(|process| {
            let (store, more, fault) = own(process);
            let mut command = program();
            command
                .env("VAPLAN_SECRET", SECRET)
                .args(arguments(store))
                .arg("--hosts")
                .arg(&hosts)
                .args(["--process", &process.to_string(), "--workers", "2"])
                .args(more)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            if let Some(fault) = fault {
                command.env("VAPLAN_FAULT", fault);
            }
            command.spawn().unwrap()
        });
        let children = children.collect();
        Cluster {
            sample,
            hosts,
            lines,
            children,
        }
    }

    /// How a process is named in errors.
    fn name(&self, process: usize) -> String {
        format!("process {process} ({})", self.lines[process])
    }

    /// Waits for the end of all.
    fn end(&mut self) -> Vec<Output> {
        let children = std::mem::take(&mut self.children);
        let outputs: Vec<Output> = children
            .into_iter()
            .map(|child| child.wait_with_output().unwrap())
            .collect();
        for (process, output) in outputs.iter().enumerate() {
            let told = stderr(output);
            assert!(!told.contains("panicked"), "process {process}: {told}");
        }
        assert!(self.hosts.starts_with(self.sample.path("")));
        outputs
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All processes with these arguments, to their end.
fn label(sample: &Sample, store: &'static str, processes: usize, more: &[&'static str]) -> Vec<Output> {
    Cluster::start(sample, processes, |_| (store, more.to_vec(), None)).end()
}

/// Every data file of the tables but `versions`, which holds times and commands, and `label_changes`, whose rows each
/// process writes to files of its own: its path in the store and its bytes.
fn files(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let within = path.strip_prefix(store).unwrap().to_owned();
            if path.is_dir() {
                let ours = ["_vaplan", "versions", "label_changes"].map(Path::new).contains(&&*within);
                if !ours && !within.ends_with("_delta_log") {
                    folders.push(path);
                }
            } else {
                files.insert(within, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Whether `vaplan check` finds nothing.
fn check(sample: &Sample, store: &str) -> bool {
    let output = program().arg("check").arg("--store").arg(sample.path(store)).output().unwrap();
    output.status.success()
}

/// Vacuums the store, and asserts that every data file that is left belongs to a version.
fn assert_no_garbage(store: &Path) {
    let output = program()
        .args(["vacuum", "--keep", "100", "--store"])
        .arg(store)
        .output()
        .unwrap();
    assert_status(&output, 0);
    let opened = Store::open(store).unwrap();
    let versions = opened.versions().unwrap();
    for (table, _) in tables::all().into_iter().filter(|(table, _)| *table != "versions") {
        let mut named = std::collections::BTreeSet::new();
        for row in &versions {
            let snapshot = opened.at_version(Some(StoreVersion(row.version))).unwrap();
            named.extend(snapshot.files(table).unwrap().into_iter().map(|file| file.path));
        }
        let folder = fs::read_dir(store.join(table)).into_iter().flatten();
        let found = folder.map(|entry| entry.unwrap().path());
        for path in found.filter(|path| path.extension().is_some_and(|end| end == "parquet")) {
            assert!(named.contains(&path), "`{}` is garbage", path.display());
        }
    }
    for folder in ["scratch", "staging"] {
        let left = fs::read_dir(store.join("_vaplan").join(folder)).into_iter().flatten().count();
        assert_eq!(left, 0, "{folder}");
    }
}

fn staged(store: &Path) -> usize {
    let entries = fs::read_dir(store.join("_vaplan/staging/label"))
        .into_iter()
        .flatten();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "scores"))
        .count()
}

/// Like [`Sample::new`], with a file that is missing and one with a NaN.
fn sample(videos: usize) -> Sample {
    let sample = Sample::new(videos);
    fs::remove_file(sample.features("audio", 5)).unwrap();
    let mut values = vec![0.5; 10 * crate::sample::WIDTH];
    values[12] = f32::NAN;
    sample.write_features("visual", videos - 1, 10, &values);
    sample
}

#[test]
fn two_and_three_processes_write_the_files_of_one_byte_for_byte() {
    let sample = sample(400);
    let thresholds = ["--audio-threshold", "1.1"];
    assert_status(&alone(&sample, "one", &[]), 1);
    assert_status(&alone(&sample, "one", &thresholds), 1);
    let one = files(&sample.path("one"));
    for (processes, store) in [(2, "two"), (3, "three")] {
        for (version, more) in [(1, &[][..]), (2, &thresholds)] {
            let outputs = label(&sample, store, processes, more);
            outputs.iter().for_each(|output| assert_status(output, 1));
            assert!(
                stdout(&outputs[0]).starts_with(&format!("version {version}: 400 videos, ")),
                "{}",
                stdout(&outputs[0])
            );
            for output in &outputs[1..] {
                let told = format!("version {version}: committed by process 0, which has the counts\n");
                assert_eq!(stdout(output), told);
            }
        }
        let found = files(&sample.path(store));
        assert_eq!(found.keys().collect::<Vec<_>>(), one.keys().collect::<Vec<_>>());
        let differ: Vec<&PathBuf> = one.keys().filter(|path| found[*path] != one[*path]).collect();
        assert!(differ.is_empty(), "{differ:?}");
        assert_eq!(
            Tables::read(&sample.path(store)),
            Tables::read(&sample.path("one"))
        );
        let changes = |store: &str| label_changes(&Store::open(&sample.path(store)).unwrap().latest().unwrap().unwrap());
        assert_eq!(changes(store), changes("one"));
        assert!(
            check(&sample, store),
            "the store is whole by the rules of `vaplan check`"
        );
        assert_eq!(staged(&sample.path(store)), 0);
        let again = label(&sample, store, processes, &thresholds);
        for output in &again {
            assert_status(output, 0);
            assert_eq!(stdout(output), "nothing to do: version 2 holds these labels\n");
        }
        println!(
            "{processes} processes: 2 versions, {} files equal to those of one process",
            one.len()
        );
    }
}

#[test]
fn a_killed_process_ends_all_others_and_the_next_run_of_any_size_goes_on() {
    let sample = sample(600);
    assert_status(&alone(&sample, "one", &[]), 1);
    assert_status(&alone(&sample, "one", &["--audio-threshold", "1.1"]), 1);
    let wanted = Tables::read(&sample.path("one"));
    let one = files(&sample.path("one"));
    // After the first staged shard of one process, and in the commit of process 0.
    let cases = [
        (2, 1, "after-shard", 3),
        (2, 0, "after-shard", 2),
        (3, 2, "after-shard", 1),
        (3, 0, "after-shard", 2),
        (3, 0, "after-file", 2),
        (2, 0, "before-versions", 2),
        // While another process writes, syncs and names its part.
        (3, 1, "before-file", 3),
        (2, 1, "after-file", 1),
        (3, 2, "before-part", 2),
        (2, 1, "name", 2),
        (3, 1, "after-part", 3),
    ];
    let mut went_on = 0;
    for (nth, (processes, killed, fault, then)) in cases.into_iter().enumerate() {
        let path = sample.path("store");
        assert_status(&alone(&sample, "store", &[]), 1);
        let before = Tables::read(&path);
        let more = ["--audio-threshold", "1.1"];
        let mut cluster = Cluster::start(&sample, processes, |process| {
            ("store", more.to_vec(), (process == killed).then_some(fault))
        });
        let lost = cluster.name(killed);
        let outputs = cluster.end();
        for (process, output) in outputs.iter().enumerate() {
            if process == killed {
                assert_eq!(
                    output.status.code(),
                    None,
                    "case {nth}: it was to be killed at {fault}"
                );
                continue;
            }
            assert_status(output, 2);
            let told = format!("vaplan: {lost} was lost: its ");
            assert!(
                stderr(output).contains(&told),
                "case {nth}, process {process}: {}",
                stderr(output)
            );
        }
        assert_eq!(
            Tables::read(&path),
            before,
            "case {nth}: the last version is as it was"
        );
        let left = staged(&path);
        assert!(left >= 1, "case {nth}: {left} staged shards");
        assert!(check(&sample, "store"), "case {nth}");
        let outputs = match then {
            1 => vec![alone(&sample, "store", &more)],
            then => label(&sample, "store", then, &more),
        };
        for output in &outputs {
            assert_status(output, 1);
            went_on += usize::from(stderr(output).contains("going on: "));
        }
        assert_eq!(Tables::read(&path), wanted, "case {nth}");
        assert_eq!(files(&path), one, "case {nth}");
        assert_no_garbage(&path);
        fs::remove_dir_all(&path).unwrap();
    }
    println!(
        "{} kills, each told by all others; {went_on} processes went on from staged shards",
        cases.len()
    );
    assert!(went_on >= cases.len(), "{went_on} went on");
}

#[test]
fn a_stopped_process_is_lost_when_it_is_silent() {
    let sample = sample(40);
    // Process 0 waits for the lock, so that nothing else can end the run.
    let store = vaplan_schemas::store::Store::create(&sample.path("store")).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut cluster = Cluster::start(&sample, 3, |_| ("store", vec!["--cluster-timeout", "10"], None));
    // All are there when process 1 hears that process 0 waits for the lock.
    let mut told = cluster.children[1].stderr.take().unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("waiting: the store is being written by") {
        let mut byte = [0];
        assert_eq!(std::io::Read::read(&mut told, &mut byte).unwrap(), 1, "{heard:?}");
        heard.push(byte[0]);
    }
    let id = cluster.children[1].id().to_string();
    assert!(
        Command::new("kill")
            .args(["-STOP", &id])
            .status()
            .unwrap()
            .success()
    );
    let lost = format!("vaplan: {} was lost: no sign of life for 10 s", cluster.name(1));
    let stopped = cluster.children.remove(1);
    for output in cluster.end() {
        assert_status(&output, 2);
        assert!(stderr(&output).contains(&lost), "{}", stderr(&output));
    }
    cluster.children.push(stopped);
    drop(lock);
    assert!(store.latest().unwrap().is_none());
}

#[test]
fn processes_that_were_asked_different_things_all_say_in_what() {
    let sample = Sample::new(12);
    let mut cluster = Cluster::start(&sample, 3, |process| {
        let more = if process == 1 {
            vec!["--audio-threshold", "1.1", "--split", "train"]
        } else {
            vec![]
        };
        ("store", more, None)
    });
    let who = cluster.name(1);
    for output in cluster.end() {
        assert_status(&output, 2);
        let mut told = stderr(&output).lines();
        let told =
            told.find(|line| line.starts_with("vaplan: expected all processes to be asked the same: "));
        let told = told.unwrap_or_else(|| panic!("{}", stderr(&output)));
        assert!(
            told.contains(&format!("{who} differs in annotations and splits (")),
            "{told}"
        );
        assert!(told.contains("rule, scales and thresholds ("), "{told}");
        assert!(!told.contains("workers") && !told.contains("process 2"), "{told}");
    }
    assert!(
        !sample.path("store").exists(),
        "nothing is made where nothing can be done"
    );
}

#[test]
fn a_process_with_another_store_is_named_by_all() {
    let sample = Sample::new(12);
    let mut cluster = Cluster::start(&sample, 3, |process| {
        (if process == 1 { "another" } else { "store" }, vec![], None)
    });
    let (leader, who) = (cluster.name(0), cluster.name(1));
    let own = format!(
        "store `{}` is not that of {leader}, expected one folder that all processes see",
        sample.path("another").display()
    );
    for (process, output) in cluster.end().iter().enumerate() {
        assert_status(output, 2);
        let told = match process {
            1 => format!("vaplan: {own}"),
            _ => format!("vaplan: {who} failed: {own}"),
        };
        assert!(
            stderr(output).contains(&told),
            "process {process}: {}",
            stderr(output)
        );
    }
}

#[test]
fn what_cannot_be_a_cluster_is_refused_by_name() {
    let sample = Sample::new(4);
    let (two, lines) = hosts(&sample, "two", 2);
    let file = |name: &str, text: &str| {
        fs::write(sample.path(name), text).unwrap();
        sample.path(name).display().to_string()
    };
    let two = two.display().to_string();
    let refused = |hosts: &str, process: &str| {
        let arguments = ["--hosts", hosts, "--process", process, "--cluster-timeout", "1"];
        let mut command = program();
        command.args(sample.arguments("store")).args(arguments);
        let output = command.env("VAPLAN_SECRET", SECRET).output().unwrap();
        assert_status(&output, 2);
        stderr(&output).to_owned()
    };
    let missing = sample.path("missing").display().to_string();
    let cases = [
        (&*two, "2", "process 2, expected 0 to 1: ".to_owned()),
        (
            &missing,
            "0",
            format!("cannot read hosts file `{missing}`: No such file"),
        ),
        (
            &file("empty", "\n"),
            "0",
            "names no host, expected one host:port per line".to_owned(),
        ),
        (
            &file("odd", "a:1\nb\n"),
            "0",
            "line 2: `b`, expected host:port".to_owned(),
        ),
        (
            &file("same", "a:1\na:1\n"),
            "0",
            "line 2: `a:1` is line 1 already".to_owned(),
        ),
        (
            &two,
            "0",
            format!("process 1 ({}) did not come within 1 s", lines[1]),
        ),
        (
            &two,
            "1",
            format!("process 0 ({}) did not come within 1 s: ", lines[0]),
        ),
    ];
    for (hosts, process, told) in &cases {
        let said = refused(hosts, process);
        assert!(said.contains(told), "{said}");
    }
    let held = TcpListener::bind(&lines[0]).unwrap();
    let said = refused(&two, "0");
    let told = format!("process 0 ({}) cannot listen at its address: ", lines[0]);
    assert!(said.contains(&told) && said.contains("in use"), "{said}");
    drop(held);
    assert!(!sample.path("store").exists());
    // One host is one process.
    let single = file("alone", &format!("{}\n", lines[0]));
    assert_status(&sample.label("store", &["--hosts", &single, "--process", "0"]), 0);
    assert_status(&sample.label("store", &["--process", "0"]), 2);
    println!("{} refusals", cases.len() + 2);
}

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
    fs::write(&user, format!("video,modality,class,segment,label\n{video},audio,Bark,2,1\n")).unwrap();
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
        let mut cluster = Cluster::of(&sample, processes, relabel(&sample, change), |_| ("many", vec![], None));
        let outputs = cluster.end();
        assert_eq!(stdout(&outputs[0]), stdout(&one), "change {nth}: {}", stderr(&outputs[0]));
        for (process, output) in outputs.iter().enumerate() {
            assert_eq!(output.status.code(), one.status.code(), "change {nth}, process {process}: {}", stderr(output));
        }
        let read = |store: &str| {
            let path = sample.path(store);
            let latest = Store::open(&path).unwrap().latest().unwrap().unwrap();
            (Tables::read(&path), label_changes(&latest))
        };
        assert_eq!(read("many"), read("one"), "change {nth}");
        assert!(check(&sample, "many"), "change {nth}");
    }
    println!("relabel: {} changes by 2 and 3 processes equal those of one", changes.len());
}

#[test]
fn a_process_without_the_secret_is_refused_and_both_sides_say_so() {
    let sample = Sample::new(12);
    let (path, lines) = hosts(&sample, "hosts", 2);
    let start = |process: &str, secret: Option<&str>| {
        let mut command = program();
        command
            .args(sample.arguments("store"))
            .arg("--hosts")
            .arg(&path)
            .args(["--process", process, "--cluster-timeout", "20"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(secret) = secret {
            command.env("VAPLAN_SECRET", secret);
        }
        command.spawn().unwrap()
    };
    for (secret, told) in [
        (None, "need a shared secret, expected --secret-file FILE or the environment variable VAPLAN_SECRET"),
        (Some("short"), "the secret of variable VAPLAN_SECRET has 5 bytes, expected at least 16"),
    ] {
        let output = start("1", secret).wait_with_output().unwrap();
        assert_status(&output, 2);
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    let mut leader = start("0", Some(SECRET));
    let stranger = start("1", Some("another secret of sixteen bytes")).wait_with_output().unwrap();
    assert_status(&stranger, 2);
    let told = format!("process 0 ({}) and this process have different secrets: give every process the same", lines[0]);
    assert!(stderr(&stranger).contains(&told), "{}", stderr(&stranger));
    // Process 0 says so too, and still waits for the right process.
    let mut heard = Vec::new();
    let errors = leader.stderr.as_mut().unwrap();
    while !String::from_utf8_lossy(&heard).contains("its secret differs from the secret of this process") {
        let mut byte = [0];
        assert_eq!(std::io::Read::read(errors, &mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&heard));
        heard.push(byte[0]);
    }
    let file = sample.path("secret");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let mut right = program();
    right
        .args(sample.arguments("store"))
        .args(["--hosts", &lines.join(","), "--process", "mpi", "--cluster-timeout", "20", "--secret-file"])
        .arg(&file)
        .env("OMPI_COMM_WORLD_RANK", "1");
    let output = right.output().unwrap();
    assert_status(&output, 0);
    assert_status(&leader.wait_with_output().unwrap(), 0);
    for output in [&stranger, &output] {
        assert!(!stderr(output).contains(SECRET), "no secret is printed");
    }
    println!("2 processes: a missing, a short and a wrong secret were refused");
}
