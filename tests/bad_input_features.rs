//! Hostile feature inputs, by what a user would see of them: file, place, value.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vaplan::ingest::features::{ColumnNames, FeatureEvent, FeatureInput};
use vaplan::ingest::npy;
use vaplan_schemas::Modality;

use crate::sample::write_shard;
use crate::support::scratch;

/// Keys read and complaints made, each complaint as `file: reason` with the folder cut out.
fn read(folder: &Path) -> (Vec<String>, Vec<String>) {
    let input = FeatureInput::open(folder, Modality::Visual, &ColumnNames::default(), &|_| true).unwrap();
    let (mut keys, mut complaints) = (Vec::new(), Vec::new());
    for shard in input.shards {
        shard.read(256, &mut |event| {
            match event {
                FeatureEvent::Batch(batch) => {
                    keys.extend(batch.videos.iter().map(|video| video.key.to_string()))
                }
                FeatureEvent::Reject(reject) => {
                    let text = format!("{}: {}", reject.file, reject.reason);
                    complaints.push(text.replace(&format!("{}/", folder.display()), ""));
                }
            }
            ControlFlow::Continue(())
        });
    }
    (keys, complaints)
}

fn shard(path: &Path, videos: &[&str]) {
    let rows = videos.iter().map(|video| (*video, vec![1.0, 2.0, 3.0, 4.0]));
    write_shard(path, 2, rows);
}

fn fifo(path: PathBuf) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// Whatever lies in a shard folder, the good shards beside it are read, and nothing waits for a FIFO's writer.
#[test]
fn odd_things_in_a_shard_folder_are_named_and_block_nothing() {
    let (folder, elsewhere) = (scratch(), scratch());
    let at = |name: &str| folder.path().join(name);
    shard(&at("a.parquet"), &["-rf", "../up", "a_b_c_0_10"]);
    std::fs::write(at("b.parquet"), b"").unwrap();
    std::fs::write(at("c.parquet"), b"PAR1 but no more").unwrap();
    std::fs::create_dir(at("d.parquet")).unwrap();
    fifo(at("e.parquet"));
    std::os::unix::fs::symlink("nowhere", at("f.parquet")).unwrap();
    std::os::unix::fs::symlink(at("e.parquet"), at("g.parquet")).unwrap();
    shard(&elsewhere.path().join("x"), &["linked"]);
    std::os::unix::fs::symlink(elsewhere.path().join("x"), at("h.parquet")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at("i.parquet")).unwrap();
    fifo(at(".hidden.parquet"));
    let good = std::fs::read(at("a.parquet")).unwrap();
    std::fs::write(at("j.parquet"), &good[..good.len() / 2]).unwrap();
    shard(&at("k.parquet"), &["last"]);
    let (keys, complaints) = read(folder.path());
    assert_eq!(keys, ["-rf", "../up", "a_b_c_0_10", "linked", "last"]);
    let starts = [
        "b.parquet: parquet file `b.parquet`: is empty, expected a Parquet file",
        "c.parquet: parquet file `c.parquet`: ",
        "d.parquet: `d.parquet` is a folder, expected a regular file",
        "e.parquet: `e.parquet` is a FIFO, expected a regular file",
        "f.parquet: `f.parquet` is a symbolic link that leads nowhere, expected a regular file",
        "g.parquet: `g.parquet` is a FIFO, expected a regular file",
        "i.parquet: `i.parquet` is a device, expected a regular file",
        "j.parquet: parquet file `j.parquet`: ",
    ];
    assert_eq!(complaints.len(), starts.len(), "{complaints:#?}");
    for (complaint, start) in complaints.iter().zip(starts) {
        assert!(
            complaint.starts_with(start),
            "`{complaint}` does not start with `{start}`"
        );
    }
}

#[test]
fn odd_npy_files_are_named_and_the_good_ones_beside_them_read() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    npy::write_f32(&at("-good__video.npy"), &[1, 2], &[1.0, 2.0]).unwrap();
    fifo(at("a.npy"));
    std::fs::create_dir(at("b.npy")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("c.npy")).unwrap();
    std::fs::write(at("d.npy"), b"PK\x03\x04 but no archive").unwrap();
    npy::write_f32(&at("e.npy"), &[2, 1, 2, 2], &[1.0; 8]).unwrap();
    npy::write_f32(&at("f.npy"), &[0, 2], &[]).unwrap();
    let good = std::fs::read(at("-good__video.npy")).unwrap();
    std::fs::write(at("g.npy"), &good[..good.len() - 1]).unwrap();
    std::fs::write(at("h.npy"), [good.as_slice(), b"x"].concat()).unwrap();
    npy::write_f32(&at("zgood.npy"), &[1, 2], &[1.0, 2.0]).unwrap();
    let (keys, complaints) = read(folder.path());
    assert_eq!(keys, ["-good__video", "zgood"]);
    assert_eq!(
        complaints,
        [
            "a.npy: `a.npy` is a FIFO, expected a regular file",
            "b.npy: `b.npy` is a folder, expected a regular file",
            "c.npy: `c.npy` is a symbolic link that leads nowhere, expected a regular file",
            "d.npy: npy file `d.npy`: is an npz archive that cannot be read: invalid Zip archive: Invalid zip header, \
             expected one array: save it with `numpy.savez(file, array)`",
            "e.npy: npy file `e.npy`: shape is (2, 1, 2, 2), expected two axes, neither empty, beside axes of length 1",
            "f.npy: npy file `f.npy`: shape is (0, 2), expected two axes, neither empty, beside axes of length 1",
            "g.npy: npy file `g.npy`: data is 7 bytes, expected 8 for shape (1, 2) of float32",
            "h.npy: npy file `h.npy`: data is 9 bytes, expected 8 for shape (1, 2) of float32",
        ]
    );
}

/// A shard in which one bit in 23 is flipped, one at a time: of pages, their headers, and the footer.
#[test]
fn no_flipped_bit_makes_a_shard_panic() {
    let folder = scratch();
    let path = folder.path().join("a.parquet");
    shard(&path, &["one", "two"]);
    let good = std::fs::read(&path).unwrap();
    let mut told = 0;
    for bit in (0..good.len() * 8).step_by(23) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bytes).unwrap();
        let (keys, complaints) = read(folder.path());
        // Four rows; a flipped segment or name can make each a video.
        assert!(keys.len() <= 4, "bit {bit} gave {keys:?}");
        assert!(
            complaints
                .iter()
                .all(|complaint| complaint.starts_with("a.parquet: ")),
            "{complaints:?}"
        );
        told += usize::from(!complaints.is_empty());
    }
    assert!(told > 20, "{told} told");
}
