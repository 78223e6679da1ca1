//! The processes of a cluster, for tests.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables;

use crate::denoise::predicted;
use crate::sample::{Sample, Tables, commit_epoch};
use crate::support::{assert_status, label_changes, stderr, vaplan};

/// The secret of the clusters of these tests.
pub(crate) const SECRET: &str = "a secret of sixteen or more bytes";

/// The program with small passes, so that a store of few videos has many buckets.
pub(super) fn program() -> Command {
    let mut command = vaplan();
    command.env("VAPLAN_PASS_VIDEOS", "50");
    command
}

/// `vaplan label` in one process.
pub(super) fn alone(sample: &Sample, store: &str, more: &[&str]) -> Output {
    let mut command = program();
    command.args(sample.arguments(store)).args(more);
    command.output().unwrap()
}

/// So many addresses of free ports.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    // All are held until all are found, so that no two are one.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses = held
        .iter()
        .map(|listener| listener.local_addr().unwrap().to_string());
    addresses.collect()
}

/// Runs so many processes of one command at once. One process gets no hosts.
pub(super) fn together(processes: usize, arguments: impl Fn(&mut Command)) -> Vec<Output> {
    cluster_of(processes, |_| {
        let mut command = program();
        arguments(&mut command);
        command
    })
}

/// Runs the commands of so many processes at once. One process gets no hosts.
pub(crate) fn cluster_of(processes: usize, command: impl Fn(usize) -> Command) -> Vec<Output> {
    let hosts = free_addresses(processes).join(",");
    let children: Vec<Child> = (0..processes)
        .map(|process| {
            let mut command = command(process);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            if processes > 1 {
                place(&mut command, &hosts, process);
            }
            command.spawn().unwrap()
        })
        .collect();
    let outputs = children.into_iter().map(|child| child.wait_with_output());
    outputs.map(|output| output.unwrap()).collect()
}

/// Gives the command its place in a cluster.
pub(super) fn place(command: &mut Command, hosts: &str, process: usize) {
    command
        .env("VAPLAN_SECRET", SECRET)
        .args(["--hosts", hosts, "--process", &process.to_string()]);
}

/// Asserts that every process succeeded.
pub(crate) fn assert_all_succeed(outputs: &[Output], what: &str) {
    for (process, output) in outputs.iter().enumerate() {
        assert_eq!(
            output.status.code(),
            Some(0),
            "{what}, process {process}: {}",
            stderr(output)
        );
    }
}

/// Commits an epoch that predicts every video of a store.
pub(super) fn commit_predicted(store: &Path) {
    let latest = Store::open(store).unwrap().latest().unwrap().unwrap();
    let labels = latest.read::<tables::Labels>().unwrap();
    let videos = latest.read::<tables::Videos>().unwrap();
    let tracks = videos.iter().flat_map(|video| predicted(2, video, &labels));
    commit_epoch(&latest, ("one", 2), Some(50.0), &tracks.collect::<Vec<_>>());
}

/// The tables and the changed labels of a store.
pub(super) fn read(sample: &Sample, store: &str) -> (Tables, Vec<vaplan_schemas::rows::LabelChangeRow>) {
    let path = sample.path(store);
    let latest = Store::open(&path).unwrap().latest().unwrap().unwrap();
    (Tables::read(&path), label_changes(&latest))
}

/// A hosts file of so many free ports, and its lines.
pub(super) fn hosts(sample: &Sample, name: &str, processes: usize) -> (PathBuf, Vec<String>) {
    let lines = free_addresses(processes);
    let path = sample.path(name);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    (path, lines)
}

/// Processes of one run, and where each listens.
pub(super) struct Cluster<'a> {
    sample: &'a Sample,
    hosts: PathBuf,
    lines: Vec<String>,
    pub(super) children: Vec<Child>,
}

impl<'a> Cluster<'a> {
    /// So many processes, each with a store and more arguments of its own, and an environment.
    pub(super) fn start(
        sample: &'a Sample,
        processes: usize,
        own: impl Fn(usize) -> (&'static str, Vec<&'static str>, Option<&'static str>),
    ) -> Cluster<'a> {
        Cluster::of(sample, processes, |store| sample.arguments(store), own)
    }

    /// Like [`Cluster::start`], with the arguments of another command for a store.
    pub(super) fn of(
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
    pub(super) fn name(&self, process: usize) -> String {
        format!("process {process} ({})", self.lines[process])
    }

    /// Waits for the end of all.
    pub(super) fn end(&mut self) -> Vec<Output> {
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
pub(super) fn label(
    sample: &Sample,
    store: &'static str,
    processes: usize,
    more: &[&'static str],
) -> Vec<Output> {
    Cluster::start(sample, processes, |_| (store, more.to_vec(), None)).end()
}

/// Every data file of the tables but `versions`, which holds times and commands, and `label_changes`, whose rows each
/// process writes to files of its own: its path in the store and its bytes.
pub(crate) fn files(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let within = path.strip_prefix(store).unwrap().to_owned();
            if path.is_dir() {
                let ours = ["_vaplan", "versions", "label_changes"]
                    .map(Path::new)
                    .contains(&&*within);
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
pub(super) fn check(sample: &Sample, store: &str) -> bool {
    let output = program()
        .arg("check")
        .arg("--store")
        .arg(sample.path(store))
        .output()
        .unwrap();
    output.status.success()
}

/// Vacuums the store, and asserts that every data file that is left belongs to a version.
pub(super) fn assert_no_garbage(store: &Path) {
    let output = program()
        .args(["vacuum", "--keep", "100", "--store"])
        .arg(store)
        .output()
        .unwrap();
    assert_status(&output, 0);
    let opened = Store::open(store).unwrap();
    let versions = opened.versions().unwrap();
    for (table, _) in tables::all()
        .into_iter()
        .filter(|(table, _)| *table != "versions")
    {
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
        let left = fs::read_dir(store.join("_vaplan").join(folder))
            .into_iter()
            .flatten()
            .count();
        assert_eq!(left, 0, "{folder}");
    }
}

pub(super) fn staged(store: &Path) -> usize {
    let entries = fs::read_dir(store.join("_vaplan/staging/label"))
        .into_iter()
        .flatten();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "scores"))
        .count()
}

/// Like [`Sample::new`], with a file that is missing and one with a NaN.
pub(super) fn sample(videos: usize) -> Sample {
    let sample = Sample::new(videos);
    fs::remove_file(sample.features("audio", 5)).unwrap();
    let mut values = vec![0.5; 10 * crate::sample::WIDTH];
    values[12] = f32::NAN;
    sample.write_features("visual", videos - 1, 10, &values);
    sample
}
