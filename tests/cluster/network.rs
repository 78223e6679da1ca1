//! Several processes on hosts of their own: three network namespaces, each with a link to every other one. Where
//! namespaces are not permitted, the same tests run on loopback. No link is slow there, and a process that is stopped (SIGSTOP)
//! stands for one whose link is cut: the others hear nothing of it either.
//!
//! ```text
//! 10.77.0.1 ───── 10.77.0.2
//!      └── 10.77.0.3 ──┘
//! ```

mod moments;

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use vaplan_schemas::store::Store;

use super::processes::{SECRET, alone, assert_no_garbage, check, files, hosts, program, read, sample};
use crate::sample::{Numbers, Sample};
use crate::support::{assert_status, stderr};

const HOSTS: usize = 3;

/// Three hosts. The namespaces go when this value is dropped.
struct Network {
    /// The names of the namespaces; empty if namespaces are not permitted.
    names: Vec<String>,
}

/// Runs `ip` or `tc`, and returns whether it succeeded.
fn system(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output();
    output.is_ok_and(|output| output.status.success())
}

fn address(host: usize) -> String {
    format!("10.77.0.{}", host + 1)
}

impl Network {
    /// Makes the namespaces. `name` differs between tests that run at the same time.
    fn new(name: &str) -> Network {
        let id = std::process::id();
        let names: Vec<String> = (0..HOSTS).map(|host| format!("vaplan{id}{name}{host}")).collect();
        let mut network = Network { names };
        if !network.make(name) {
            network.remove();
            network.names.clear();
            println!("network: namespaces are not permitted here, so the processes are on loopback");
        }
        network
    }

    fn make(&self, name: &str) -> bool {
        let mut made = true;
        for (host, own) in self.names.iter().enumerate() {
            made = made
                && system(&format!("ip netns add {own}"))
                && system(&format!("ip -n {own} link set lo up"))
                && system(&format!("ip -n {own} addr add {}/32 dev lo", address(host)));
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let id = std::process::id() % 10_000;
            let (near, far) = (format!("v{id}{name}{a}{b}"), format!("v{id}{name}{b}{a}"));
            made = made
                && system(&format!("ip link add {near} type veth peer name {far}"))
                && system(&format!("ip link set {near} netns {} name to{b}", self.names[a]))
                && system(&format!("ip link set {far} netns {} name to{a}", self.names[b]));
        }
        for host in 0..HOSTS {
            made = made && self.up(host);
        }
        made
    }

    /// Brings up the links of a host. A link that goes down loses its routes, so they are made again.
    fn up(&self, host: usize) -> bool {
        let own = &self.names[host];
        (0..HOSTS).filter(|other| *other != host).all(|other| {
            system(&format!("ip -n {own} link set to{other} up"))
                && system(&format!(
                    "ip -n {own} route replace {}/32 dev to{other} src {}",
                    address(other),
                    address(host)
                ))
        })
    }

    fn down(&self, host: usize) -> bool {
        let others = (0..HOSTS).filter(|other| *other != host);
        // Every link is cut, also after one that cannot be.
        let cut = others.map(|other| system(&format!("ip -n {} link set to{other} down", self.names[host])));
        let cut: Vec<bool> = cut.collect();
        cut.into_iter().all(|done| done)
    }

    /// Brings the links of a host up again, if there are any.
    fn restore(&self, host: usize) {
        assert!(!self.is_made() || self.up(host));
    }

    fn is_made(&self) -> bool {
        !self.names.is_empty()
    }

    /// The program on a host.
    fn program(&self, host: usize) -> Command {
        let own = program();
        let Some(name) = self.names.get(host) else {
            return own;
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(own.get_program());
        for (key, value) in own.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command
    }

    /// The addresses of the processes.
    fn addresses(&self, sample: &Sample, port: u16) -> String {
        if self.is_made() {
            let all: Vec<String> = (0..HOSTS)
                .map(|host| format!("{}:{port}", address(host)))
                .collect();
            return all.join(",");
        }
        hosts(sample, &format!("hosts{port}"), HOSTS).1.join(",")
    }

    /// Number of TCP segments that a host sent more than once; 0 on loopback.
    fn sent_again(&self, host: usize) -> u64 {
        if !self.is_made() {
            return 0;
        }
        let mut command = Command::new("ip");
        let output = command
            .args(["netns", "exec", &self.names[host], "cat", "/proc/net/snmp"])
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names
            .split_whitespace()
            .position(|name| name == "RetransSegs")
            .unwrap();
        values.split_whitespace().nth(at).unwrap().parse().unwrap()
    }

    fn remove(&self) {
        for name in &self.names {
            system(&format!("ip netns del {name}"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The processes of one run, one per host. Processes that are left are killed at the end.
struct Run(Vec<Child>);

impl Run {
    /// Starts `arguments` on each host. `fault` gives a fault to one process.
    fn start(network: &Network, arguments: &[String], hosts: &str, fault: Option<(usize, &str)>) -> Run {
        let children = (0..HOSTS).map(|host| {
            let mut command = network.program(host);
            command
                .args(arguments)
                .args(["--hosts", hosts, "--process", &host.to_string(), "--workers", "1"])
                .env("VAPLAN_SECRET", SECRET)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            if let Some((_, fault)) = fault.filter(|(process, _)| *process == host) {
                command.env("VAPLAN_FAULT", fault);
            }
            command.spawn().unwrap()
        });
        Run(children.collect())
    }

    /// Waits until a process has printed a text to standard error.
    fn hear(&mut self, process: usize, wanted: &str) {
        let errors = self.0[process].stderr.as_mut().unwrap();
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(wanted) {
            let mut byte = [0];
            assert_eq!(
                errors.read(&mut byte).unwrap(),
                1,
                "{}",
                String::from_utf8_lossy(&heard)
            );
            heard.push(byte[0]);
        }
    }

    /// Cuts a process off from the others.
    fn cut(&self, network: &Network, process: usize) {
        match network.is_made() {
            true => assert!(network.down(process)),
            false => self.signal(process, Signal::STOP),
        }
    }

    /// Ends the cut of a process.
    fn join(&self, network: &Network, process: usize) {
        match network.is_made() {
            true => assert!(network.up(process)),
            false => self.signal(process, Signal::CONT),
        }
    }

    fn signal(&self, process: usize, signal: Signal) {
        kill_process(Pid::from_child(&self.0[process]), signal).unwrap();
    }

    /// Waits until every process but one has ended.
    fn all_end_but(&mut self, process: usize) {
        let others = self.0.iter_mut().enumerate().filter(|(own, _)| *own != process);
        for (_, child) in others {
            child.wait().unwrap();
        }
    }

    fn kill(&mut self, process: usize) {
        // The process can have ended already.
        let _ = self.0[process].kill();
    }

    fn end(mut self) -> Vec<Output> {
        let children = std::mem::take(&mut self.0).into_iter();
        children.map(|child| child.wait_with_output().unwrap()).collect()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn labelling(sample: &Sample, store: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = sample.arguments(store);
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    arguments
}

fn relabelling(sample: &Sample, store: &str, more: &[&str]) -> Vec<String> {
    let store = sample.path(store).display().to_string();
    let words = ["relabel", "--store", &store]
        .into_iter()
        .chain(more.iter().copied());
    words.map(str::to_owned).collect()
}

#[test]
fn three_hosts_give_the_tables_of_one_process_also_over_a_slow_link() {
    let sample = sample(240);
    let network = Network::new("s");
    assert_status(&alone(&sample, "one", &[]), 1);
    let changes: [&[&str]; 2] = [&["--visual-scale", "3"], &["--threshold", "audio/Bark=1.02"]];
    for change in changes {
        program()
            .args(relabelling(&sample, "one", change))
            .output()
            .unwrap();
    }
    // tbf is a token bucket; netem adds a delay. A kernel can have neither.
    let slow = [
        "netem delay 40ms rate 20mbit",
        "tbf rate 8mbit burst 16kbit latency 200ms",
    ];
    let slowed = network.is_made().then(|| {
        slow.iter().find(|qdisc| {
            let name = &network.names[1];
            system(&format!("tc -n {name} qdisc add dev to0 root {qdisc}"))
        })
    });
    let hosts = network.addresses(&sample, 2101);
    let mut runs = 0;
    for arguments in [
        labelling(&sample, "many", &[]),
        relabelling(&sample, "many", changes[0]),
        relabelling(&sample, "many", changes[1]),
    ] {
        for output in Run::start(&network, &arguments, &hosts, None).end() {
            assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(&output));
        }
        runs += 1;
    }
    assert!(
        read(&sample, "many") == read(&sample, "one"),
        "the tables of one process"
    );
    assert!(check(&sample, "many"));
    let place = if network.is_made() {
        "network namespaces"
    } else {
        "loopback"
    };
    let link = match slowed.flatten() {
        Some(qdisc) => format!("a link slowed by {qdisc}"),
        None => "no slow link, because this kernel has none".to_owned(),
    };
    println!("{HOSTS} processes on {place}: {runs} runs equal those of one process; {link}");
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
fn a_short_cut_of_the_network_is_survived_and_a_long_one_ends_all_processes() {
    let sample = sample(120);
    let network = Network::new("c");
    assert_status(&alone(&sample, "one", &[]), 1);
    let hosts = network.addresses(&sample, 2103);
    let store = Store::create(&sample.path("store")).unwrap();

    // Process 0 waits for the lock, so that the cluster is at rest while the link is down.
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut run = Run::start(&network, &labelling(&sample, "store", &[]), &hosts, None);
    run.hear(1, "waiting: the store is being written by");
    let before = network.sent_again(0);
    run.cut(&network, 1);
    let mut again = 0;
    while network.is_made() && again < 2 {
        again = network.sent_again(0) - before;
    }
    run.join(&network, 1);
    drop(lock);
    for output in run.end() {
        assert_status(&output, 1);
    }
    assert!(
        read(&sample, "store") == read(&sample, "one"),
        "the tables of one process"
    );

    let lock = store.lock(&mut |_| ()).unwrap();
    let arguments = labelling(
        &sample,
        "store",
        &["--audio-threshold", "1.1", "--cluster-timeout", "5"],
    );
    let mut run = Run::start(&network, &arguments, &hosts, None);
    run.hear(1, "waiting: the store is being written by");
    run.cut(&network, 1);
    assert_all_lose_one(&network, run, (&hosts, 5));
    drop(lock);
    assert!(
        read(&sample, "store") == read(&sample, "one"),
        "the last version is whole"
    );
    network.restore(1);
    for output in Run::start(&network, &arguments, &hosts, None).end() {
        assert_status(&output, 1);
    }
    assert_no_garbage(&sample.path("store"));
    println!(
        "{HOSTS} processes: a cut of {again} lost segments was survived, a cut of 5 s ended all; the rerun completed"
    );
}

/// Process 1 is cut off: all processes end, and name a process of which they heard nothing for so many seconds.
fn assert_all_lose_one(network: &Network, mut run: Run, (hosts, seconds): (&str, u64)) {
    run.all_end_but(1);
    if !network.is_made() {
        // A stopped process finds the others gone when it goes on.
        run.join(network, 1);
    }
    for (process, output) in run.end().iter().enumerate() {
        assert_status(output, 2);
        let peer = if process == 1 { 0 } else { 1 };
        let host = hosts.split(',').nth(peer).unwrap();
        let told = format!("process {peer} ({host}) was lost: no sign of life for {seconds} s");
        assert!(
            stderr(output).contains(&told) || (process == 1 && !network.is_made()),
            "process {process}: {}",
            stderr(output)
        );
    }
}

#[test]
fn a_second_cluster_on_the_same_store_waits_for_the_first() {
    let sample = sample(120);
    let network = Network::new("t");
    let (first, second) = (network.addresses(&sample, 2104), network.addresses(&sample, 2105));
    let runs = [
        Run::start(&network, &labelling(&sample, "store", &[]), &first, None),
        Run::start(
            &network,
            &labelling(&sample, "store", &["--audio-threshold", "1.1"]),
            &second,
            None,
        ),
    ];
    for run in runs {
        for output in run.end() {
            assert_status(&output, 1);
        }
    }
    let versions = Store::open(&sample.path("store")).unwrap().versions().unwrap();
    assert_eq!(versions.len(), 2);
    for version in &versions {
        let more = if version.command.contains("1.1") {
            &["--audio-threshold", "1.1"][..]
        } else {
            &[]
        };
        assert_status(&alone(&sample, "one", more), 1);
    }
    assert!(
        read(&sample, "store") == read(&sample, "one"),
        "one process in the same order gives the same tables"
    );
    assert!(check(&sample, "store"));
    assert_no_garbage(&sample.path("store"));
    println!("two clusters of {HOSTS} processes on one store: 2 versions");
}
