//! `vaplan encode --hosts`: several processes on loopback against one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::processes::together;
use crate::encode::Studio;
use crate::support::{assert_status, stderr, stdout};

/// More than three groups of 16 videos, with frames and sound.
fn studio(test: &str) -> Option<Studio> {
    let studio = Studio::new(test)?;
    let mut rows = String::new();
    for nth in 0..53 {
        let video = format!("vid{nth:08}");
        studio.frames(&video, 1 + nth % 3);
        // Sounds of different lengths differ, so that each is encoded once.
        studio.sound(&video, 8_000, 8_000 * (1 + nth % 3) + nth);
        rows.push_str(&format!("{video}_0_10\tSpeech\n"));
    }
    // A video whose sound is no sound becomes a rejected row of every run.
    fs::write(studio.path("media/vid00000007.wav"), b"RIFF").unwrap();
    studio.annotate(&rows);
    Some(studio)
}

/// The files of a folder of features, without the cache and the report.
fn features(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![out.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let within = path.strip_prefix(out).unwrap().to_owned();
            if path.is_dir() {
                folders.extend((within != Path::new("cache")).then_some(path));
            } else if within != Path::new(".lock") {
                files.insert(within, fs::read(path).unwrap());
            }
        }
    }
    files
}

fn encode(studio: &Studio, out: &str, processes: usize) -> Vec<Output> {
    together(processes, |command| {
        command
            .args(studio.arguments(out, &["clip", "clap"]))
            .arg("--annotations")
            .arg(studio.path("annotations"));
    })
}

#[test]
fn several_processes_encode_the_features_of_one_byte_for_byte() {
    let Some(studio) = studio("several_processes_encode_the_features_of_one_byte_for_byte") else {
        return;
    };
    let one = encode(&studio, "one", 1);
    assert_status(&one[0], 1);
    for (processes, out) in [(2, "two"), (3, "three")] {
        let outputs = encode(&studio, out, processes);
        for (process, output) in outputs.iter().enumerate() {
            assert_eq!(
                output.status.code(),
                Some(1),
                "process {process}: {}",
                stderr(output)
            );
        }
        assert_eq!(stdout(&outputs[0]), stdout(&one[0]));
        let own: Vec<u64> = outputs[1..]
            .iter()
            .map(|output| stdout(output).split(' ').nth(1).unwrap().parse().unwrap())
            .collect();
        assert!(
            own.iter().all(|segments| *segments > 0),
            "every process encodes: {own:?}"
        );
        let (found, wanted) = (features(&studio.path(out)), features(&studio.path("one")));
        assert!(found.keys().eq(wanted.keys()), "{:?}", found.keys());
        let differ: Vec<&PathBuf> = wanted
            .keys()
            .filter(|path| found[*path] != wanted[*path])
            .collect();
        assert!(differ.is_empty(), "{differ:?}");
        // Everything is in the cache now.
        let again = encode(&studio, out, processes);
        assert!(
            stdout(&again[0]).contains("encoded 0 segments"),
            "{}",
            stdout(&again[0])
        );
    }
    println!("encode: 2 and 3 processes give the files of one");
}
