use std::fs;
use std::time::{Duration, SystemTime};

use super::*;

/// A folder of inputs, and beside it the folder of a memory.
struct Inputs {
    folder: tempfile::TempDir,
}

impl Inputs {
    fn new() -> Inputs {
        let inputs = Inputs {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(inputs.at("own")).unwrap();
        inputs
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file with an old modification time.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.at(name), content).unwrap();
        set_time(&self.at(name), 0);
    }

    /// The hash of a file for a command that has the memory, and keeps what it learnt.
    fn hash(&self, name: &str) -> Vec<u8> {
        let mut seen = SeenInputs::open(&self.at("memory"));
        let hash = hash(&mut seen, &self.at(name));
        seen.remember();
        hash
    }

    fn memory(&self) -> PathBuf {
        self.at("memory").join(memory::FILE)
    }
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

fn hash(seen: &mut SeenInputs, path: &Path) -> Vec<u8> {
    let mut sum = Sha256::new();
    seen.feed(&mut sum, &path.to_owned());
    sum.finalize().to_vec()
}

#[test]
fn a_file_is_the_same_however_its_folder_is_written_and_another_once_it_is_rewritten() {
    let inputs = Inputs::new();
    std::os::unix::fs::symlink("own", inputs.at("link")).unwrap();
    inputs.write("own/a.npy", "1");
    let sum = |name: &str| hash(&mut SeenInputs::default(), &inputs.at(name));
    let before = sum("own/a.npy");
    assert_eq!(before, sum("own/../own/./a.npy"));
    assert_eq!(before, sum("link/a.npy"));
    inputs.write("own/a.npy", "12");
    let after = sum("own/a.npy");
    assert_ne!(before, after);
    fs::remove_file(inputs.at("own/a.npy")).unwrap();
    assert!(![before, after].contains(&sum("own/a.npy")), "gone");
}

#[test]
fn another_content_of_the_same_size_and_modification_time_is_another_file() {
    let inputs = Inputs::new();
    inputs.write("own/a.npy", "1");
    let (before, alone) = (
        inputs.hash("own/a.npy"),
        hash(&mut SeenInputs::default(), &inputs.at("own/a.npy")),
    );
    assert_eq!(
        before, alone,
        "a memory changes nothing of a file that is new to it"
    );
    // Once a new file that is renamed over the old one, and once the old file, written in place.
    inputs.write("own/b.npy", "2");
    fs::rename(inputs.at("own/b.npy"), inputs.at("own/a.npy")).unwrap();
    let renamed = inputs.hash("own/a.npy");
    inputs.write("own/a.npy", "3");
    let written = inputs.hash("own/a.npy");
    assert!(before != renamed && renamed != written && before != written);
    assert_eq!(inputs.hash("own/a.npy"), written);
}

#[test]
fn a_file_that_is_touched_copied_or_restored_is_the_same_for_who_remembers_it() {
    let inputs = Inputs::new();
    inputs.write("own/a.npy", "1");
    let before = inputs.hash("own/a.npy");
    set_time(&inputs.at("own/a.npy"), 5);
    assert_ne!(hash(&mut SeenInputs::default(), &inputs.at("own/a.npy")), before);
    assert_eq!(inputs.hash("own/a.npy"), before, "touched");
    // The copy has another inode and another time.
    fs::copy(inputs.at("own/a.npy"), inputs.at("own/copy")).unwrap();
    fs::rename(inputs.at("own/copy"), inputs.at("own/a.npy")).unwrap();
    assert_eq!(inputs.hash("own/a.npy"), before, "copied");
    assert_eq!(inputs.hash("own/a.npy"), before, "and looked at again");
    // A file of another name is another input, and one that went is dropped from the memory.
    fs::copy(inputs.at("own/a.npy"), inputs.at("own/b.npy")).unwrap();
    assert_ne!(inputs.hash("own/b.npy"), before);
    fs::remove_file(inputs.at("own/a.npy")).unwrap();
    inputs.write("own/b.npy", "2");
    inputs.hash("own/b.npy");
    let memory = Memory::read(&inputs.memory());
    let known = |name: &str| memory.get(&inputs.at(name).canonicalize().unwrap_or(inputs.at(name)));
    assert!(known("own/b.npy").is_some() && known("own/a.npy").is_none());
}

#[test]
fn a_write_within_the_tick_of_the_clock_is_found_by_the_content() {
    let inputs = Inputs::new();
    inputs.write("own/a.npy", "1");
    let before = inputs.hash("own/a.npy");
    // As if the clock had not moved between the two writes: the memory has the identity of the second content, and says
    // that the file was not settled.
    inputs.write("own/a.npy", "2");
    let memory = Memory::read(&inputs.memory());
    let path = inputs.at("own/a.npy").canonicalize().unwrap();
    let mut known = *memory.get(&path).unwrap();
    assert!(!known.settled, "the file was made a moment ago");
    known.last = FileIdentity::of(&path).unwrap();
    Memory::add(&inputs.memory(), [(path, known)].into(), &BTreeMap::new()).unwrap();
    assert_ne!(inputs.hash("own/a.npy"), before);
}

#[test]
fn a_damaged_or_unknown_memory_is_empty_and_is_written_anew() {
    let inputs = Inputs::new();
    inputs.write("own/a.npy", "1");
    let before = inputs.hash("own/a.npy");
    let whole = fs::read(inputs.memory()).unwrap();
    let mut newer = whole.clone();
    newer[14] = b'9';
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bytes in [&whole[..20], &newer, &flipped, b""] {
        fs::write(inputs.memory(), bytes).unwrap();
        assert_eq!(inputs.hash("own/a.npy"), before);
        assert_eq!(fs::read(inputs.memory()).unwrap(), whole);
    }
    // Nothing but a warning if it cannot be written.
    fs::remove_dir_all(inputs.at("memory")).unwrap();
    fs::write(inputs.at("memory"), "").unwrap();
    assert_eq!(inputs.hash("own/a.npy"), before);
}

#[test]
fn inputs_above_the_limit_are_not_read_again_and_their_identity_decides() {
    let inputs = Inputs::new();
    let touched = |most: u64| {
        inputs.write("own/a.npy", "123");
        let mut seen = SeenInputs::open(&inputs.at("memory"));
        let before = hash(&mut seen, &inputs.at("own/a.npy"));
        seen.remember_up_to(most);
        set_time(&inputs.at("own/a.npy"), 7);
        let after = hash(
            &mut SeenInputs::open(&inputs.at("memory")),
            &inputs.at("own/a.npy"),
        );
        (before == after, inputs.memory().exists())
    };
    assert_eq!(touched(2), (false, true));
    assert_eq!(touched(3), (true, true));
}
