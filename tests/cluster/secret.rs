//! The shared secret of a cluster, and the options that name its processes.

use std::fs;
use std::process::Stdio;

use super::processes::{SECRET, hosts, program};
use crate::sample::Sample;
use crate::support::{assert_status, stderr};

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
        (
            None,
            "need a shared secret, expected --secret-file FILE or the environment variable VAPLAN_SECRET",
        ),
        (
            Some("short"),
            "the secret of variable VAPLAN_SECRET has 5 bytes, expected at least 16",
        ),
    ] {
        let output = start("1", secret).wait_with_output().unwrap();
        assert_status(&output, 2);
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    let mut leader = start("0", Some(SECRET));
    let stranger = start("1", Some("another secret of sixteen bytes"))
        .wait_with_output()
        .unwrap();
    assert_status(&stranger, 2);
    let told = format!(
        "process 0 ({}) and this process have different secrets: give every process the same",
        lines[0]
    );
    assert!(stderr(&stranger).contains(&told), "{}", stderr(&stranger));
    // Process 0 says so too, and still waits for the right process.
    let mut heard = Vec::new();
    let errors = leader.stderr.as_mut().unwrap();
    while !String::from_utf8_lossy(&heard).contains("its secret differs from the secret of this process") {
        let mut byte = [0];
        assert_eq!(
            std::io::Read::read(errors, &mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&heard)
        );
        heard.push(byte[0]);
    }
    let file = sample.path("secret");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let mut right = program();
    right
        .args(sample.arguments("store"))
        .args([
            "--hosts",
            &lines.join(","),
            "--process",
            "mpi",
            "--cluster-timeout",
            "20",
            "--secret-file",
        ])
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

#[test]
fn commands_of_one_process_refuse_hosts_by_name() {
    for command in ["query", "eval", "vacuum"] {
        let output = program().args([command, "--hosts", "a:1,b:1"]).output().unwrap();
        assert_status(&output, 2);
        let told = format!("`{command}` runs in one process, expected no --hosts");
        assert!(stderr(&output).contains(&told), "{}", stderr(&output));
    }
    println!("3 commands of one process refuse several processes");
}
