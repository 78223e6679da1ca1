//! Several processes on hosts of their own: three network namespaces, each with a link to every other one. Where
//! namespaces are not permitted, the same tests run on loopback. No link is slow there, and a process that is stopped (SIGSTOP)
//! stands for one whose link is cut: the others hear nothing of it either.
//!
//! ```text
//! 10.77.0.1 ───── 10.77.0.2
//!      └── 10.77.0.3 ──┘
//! ```

mod cuts;
mod equal;
mod kills;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use vaplan_schemas::rows::LabelChangeRow;
use vaplan_schemas::store::Store;

use super::processes::{SECRET, hosts, program};
use crate::sample::{Sample, Tables};
use crate::support::label_changes;
use crate::watch::harness::{WatchedStore, copy};

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

    /// Cuts a process of a host off from the others.
    fn cut(&self, host: usize, process: &Child) {
        match self.is_made() {
            true => assert!(self.down(host)),
            false => signal(process, Signal::STOP),
        }
    }

    /// Ends the cut.
    fn join(&self, host: usize, process: &Child) {
        match self.is_made() {
            true => assert!(self.up(host)),
            false => signal(process, Signal::CONT),
        }
    }

    /// Slows the link from host 1 to host 0. Returns what was done, for people.
    fn slow(&self) -> String {
        if !self.is_made() {
            return "on loopback, without a slow link".to_owned();
        }
        // netem adds a delay; tbf is a token bucket. A kernel can have neither.
        let slow = [
            "netem delay 40ms rate 20mbit",
            "tbf rate 8mbit burst 16kbit latency 200ms",
        ];
        let name = &self.names[1];
        match slow
            .iter()
            .find(|qdisc| system(&format!("tc -n {name} qdisc add dev to0 root {qdisc}")))
        {
            Some(qdisc) => format!("in network namespaces, with a link slowed by {qdisc}"),
            None => "in network namespaces, without a slow link, because this kernel has none".to_owned(),
        }
    }

    /// Where the processes are, for people.
    fn place(&self) -> &'static str {
        match self.is_made() {
            true => "network namespaces",
            false => "loopback",
        }
    }

    /// The program on a host, with small passes.
    fn program(&self, host: usize) -> Command {
        self.on(host, program())
    }

    /// A command on a host.
    fn on(&self, host: usize, own: Command) -> Command {
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

fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

/// The tables and the changed labels of a watched store.
fn tables(of: &WatchedStore) -> (Tables, Vec<LabelChangeRow>) {
    let latest = Store::open(&of.store()).unwrap().at_version(None).unwrap();
    (Tables::read(&of.store()), label_changes(&latest))
}

/// Brings a watched store back to a copy of it, with an empty inbox. The path stays, because the tables name delivered files.
fn reset(of: &WatchedStore, begun: &Path) {
    fs::remove_dir_all(of.store()).unwrap();
    fs::remove_dir_all(of.sample.path("inbox")).unwrap();
    copy(begun, &of.store());
    fs::create_dir(of.sample.path("inbox")).unwrap();
}

/// A delivery of a user label.
fn user_label(video: usize, segment: usize) -> String {
    let name = crate::sample::name(video);
    format!("video,modality,class,segment,label\n{name},audio,Bark,{segment},1\n")
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
        network.cut(process, &self.0[process]);
    }

    /// Ends the cut of a process.
    fn join(&self, network: &Network, process: usize) {
        network.join(process, &self.0[process]);
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

/// A command that changes a store.
fn changing(command: &str, sample: &Sample, store: &str, more: &[&str]) -> Vec<String> {
    let store = sample.path(store).display().to_string();
    let words = [command, "--store", &store]
        .into_iter()
        .chain(more.iter().copied());
    words.map(str::to_owned).collect()
}
