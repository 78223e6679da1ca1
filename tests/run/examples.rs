//! Every file of dataflows/examples, on small data where it says that its data are.

use std::fs;
use std::path::Path;
use std::process::Output;

use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Epochs, Videos};

use crate::sample;
use crate::support::{assert_status, run as vaplan, stdout};
use crate::train::TrainingSample;

/// Runs an example in a folder that has its data, with settings that take seconds.
fn example(name: &str, folder: &Path) -> (Output, String) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("dataflows/examples")
        .join(name);
    let mut file: toml::Table = toml::from_str(&fs::read_to_string(from).unwrap()).unwrap();
    let train = file["train"].as_table_mut().unwrap();
    for (key, value) in [("epochs", 5), ("hidden", 16), ("feedforward", 16), ("batch", 16)] {
        train.insert(key.to_owned(), value.into());
    }
    let store = folder.join(file["store"].as_str().unwrap());
    let path = folder.join(name);
    fs::write(&path, toml::to_string(&file).unwrap()).unwrap();
    let path = path.to_str().unwrap();
    let output = vaplan(["run", path, "--threads", "1", "--workers", "2", "--quiet"]);
    assert_status(&output, 0);
    let again = vaplan(["run", path, "--threads", "1", "--workers", "2", "--quiet"]);
    assert!(stdout(&again).starts_with("nothing to do"), "{}", stdout(&again));
    (output, store.to_str().unwrap().to_owned())
}

/// Simulated features of some width and length below a folder's `made`.
fn synth(folder: &Path, made: &str, words: &[&str]) {
    let (annotations, out) = (folder.join("annotations"), folder.join(made));
    let fixed = ["synth", "--quiet", "--annotations", annotations.to_str().unwrap()];
    let output = vaplan([&fixed[..], &["--out", out.to_str().unwrap()], words].concat());
    assert_status(&output, 0);
}

/// Moves simulated features to where an example looks for them.
fn put(folder: &Path, moves: &[(&str, &str)]) {
    for (from, to) in moves {
        fs::rename(folder.join(from), folder.join(to)).unwrap();
    }
}

const ENCODED: [(&str, &str); 4] = [
    ("made/visual", "clip"),
    ("made/audio", "clap"),
    ("made/visual_text.npy", "clip_text.npy"),
    ("made/audio_text.npy", "clap_text.npy"),
];

/// The built-in annotations, in a folder.
fn annotated() -> tempfile::TempDir {
    let folder = crate::support::scratch();
    let dir = folder.path().to_str().unwrap();
    crate::support::sample_annotations(dir);
    folder
}

fn rows(table: &str, title: &str) -> usize {
    table.lines().filter(|line| line.starts_with(title)).count()
}

#[test]
fn llp_is_labelled_by_some_features_and_parsed_by_others() {
    let folder = annotated();
    let path = folder.path();
    synth(path, "made", &["--dim", "24"]);
    put(path, &ENCODED);
    // As published: 8 frames a second, and other widths.
    synth(path, "frames", &["--dim", "20", "--segments", "80"]);
    synth(path, "sounds", &["--dim", "12"]);
    put(
        path,
        &[
            ("frames/visual", "res152"),
            ("sounds/audio", "vggish"),
            ("sounds/visual", "r2plus1d_18"),
        ],
    );
    let (output, store) = example("llp.toml", path);
    let table = stdout(&output);
    for (title, lines) in [("labels, ", 4), ("labels, PLG + PLD", 2)] {
        assert_eq!(rows(table, title), lines, "{table}");
    }
    for (title, lines) in [("parser, weak", 4), ("parser, PLE ", 8), ("parser, PLE + PLD", 4)] {
        assert_eq!(rows(table, title), lines, "{table}");
    }
    assert_status(&vaplan(["check", "--store", &store]), 0);
}

#[test]
fn valors_rule_and_training_need_no_other_program() {
    let folder = annotated();
    let path = folder.path();
    synth(path, "made", &["--dim", "24"]);
    put(path, &ENCODED);
    let (output, store) = example("valor.toml", path);
    assert_eq!(rows(stdout(&output), "parser, "), 12, "{}", stdout(&output));
    let snapshot = Store::open(Path::new(&store)).unwrap().at_version(None).unwrap();
    let rates: Vec<f64> = (snapshot.read::<Epochs>().unwrap().iter())
        .map(|row| row.learning_rate)
        .collect();
    assert!(rates[0] < rates[4], "it warms up: {rates:?}");
}

#[test]
fn a_data_set_of_a_few_classes_without_val_is_denoised_while_it_trains() {
    let sample = sample::Sample::new(24);
    let (output, store) = example("own.toml", &sample.path(""));
    let table = stdout(&output);
    assert_eq!(rows(table, "labels, "), 2, "{table}");
    assert_eq!(rows(table, "parser, PLE + PLD"), 2, "{table}");
    let snapshot = Store::open(Path::new(&store)).unwrap().at_version(None).unwrap();
    assert_eq!(snapshot.read::<Videos>().unwrap().len(), 24);
    let denoised: Vec<bool> = (snapshot.read::<Epochs>().unwrap().iter())
        .map(|row| row.flips.is_some())
        .collect();
    assert_eq!(denoised, [false, false, false, true, false], "after epoch 4 of 5");
}

#[test]
fn ave_is_scored_by_the_accuracy_of_segments() {
    let sample = TrainingSample::of(crate::ave::annotations(), "1");
    let folder = Path::new(&sample.path("")).to_owned();
    put(
        &folder,
        &[
            ("features/visual", "clip"),
            ("features/audio", "clap"),
            ("features/visual_text.npy", "clip_text.npy"),
            ("features/audio_text.npy", "clap_text.npy"),
        ],
    );
    let (output, _) = example("ave.toml", &folder);
    let table = &super::scores(&output);
    assert!(table.lines().next().unwrap().ends_with("| accuracy"), "{table}");
    let accuracies = table.lines().skip(1).map(|line| {
        let last = line.split_whitespace().last().unwrap();
        last.parse::<f64>().unwrap()
    });
    assert!(accuracies.clone().count() >= 8, "{table}");
    assert!(accuracies.into_iter().all(|accuracy| accuracy > 30.0), "{table}");
}

#[cfg(feature = "encode")]
#[test]
fn media_are_encoded_once_and_then_labelled_and_learnt() {
    let Some(studio) = crate::encode::Studio::new("media_are_encoded_once_and_then_labelled_and_learnt")
    else {
        return;
    };
    let weak = ["Speech,Dog", "Dog", "Speech", "Cheering"];
    let mut rows = String::new();
    for (nth, weak) in weak.into_iter().enumerate() {
        let name = format!("video{nth:06}_0_10");
        studio.frames(&name, 32);
        studio.sound(&name, 16_000, 64_000 + nth * 16);
        rows += &format!("{name}\t{weak}\n");
    }
    studio.annotate(&rows);
    let folder = studio.path("");
    fs::create_dir(folder.join("models")).unwrap();
    put(&folder, &[("clip", "models/clip"), ("clap", "models/clap")]);
    let (output, store) = example("media.toml", &folder);
    assert_eq!(
        stdout(&output),
        "no split has dense truth: nothing to score\n",
        "all videos are to learn from"
    );
    let snapshot = Store::open(Path::new(&store)).unwrap().at_version(None).unwrap();
    assert_eq!(snapshot.read::<Epochs>().unwrap().len(), 10);
    let from = snapshot.read::<Videos>().unwrap().into_iter();
    let own = format!("{store}/_vaplan/encoded/visual");
    assert!(
        from.into_iter()
            .all(|row| row.visual_source.is_some_and(|file| file.starts_with(&own)))
    );
    // Other thresholds: all is done again but encoding.
    let written = |file: &str| {
        fs::metadata(Path::new(&store).join(file))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = written("_vaplan/encoded/visual_text.parquet");
    let path = folder.join("media.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}[label]\nvisual_threshold = 1.0\n")).unwrap();
    let path = path.to_str().unwrap();
    let plan = vaplan(["plan", path]);
    assert_status(&plan, 0);
    assert!(
        stdout(&plan).starts_with("label      to be done\n"),
        "{}",
        stdout(&plan)
    );
    let said = vaplan(["run", path, "--threads", "1"]);
    assert_status(&said, 0);
    assert_eq!(written("_vaplan/encoded/visual_text.parquet"), before);
    let planned = vaplan(["plan", path]);
    assert!(!stdout(&planned).contains("to be done"), "{}", stdout(&planned));
    // Media with the same content are the same media.
    crate::support::copy_over_all(&folder.join("media"));
    let planned = vaplan(["plan", path]);
    assert!(!stdout(&planned).contains("to be done"), "{}", stdout(&planned));
    // Media, models and prompts count for a plan, too.
    let mut frames = fs::read_dir(folder.join("media/video000001_0_10")).unwrap();
    fs::remove_file(frames.next().unwrap().unwrap().path()).unwrap();
    let planned = vaplan(["plan", path]);
    assert!(
        stdout(&planned).starts_with("all is to be done, media first"),
        "{}",
        stdout(&planned)
    );
    fs::rename(folder.join("models/clip"), folder.join("models/other")).unwrap();
    for words in [&["plan", path][..], &["run", path, "--check"]] {
        let refused = vaplan(words);
        assert_status(&refused, 2);
        assert!(crate::support::stderr(&refused).contains("models/clip"));
    }
}
