//! `label --candidates`: labels of videos without a weak label, what the tables, `eval` and `show` say of them, and changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use vaplan::ingest::npy;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelTrack, ScoreTrack, VideoRow};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Classes, Labels, Rejects, Scores, Settings, Videos};

use crate::support::{assert_status, run, sample_annotations, scratch, sorted, stderr, stdout};

/// The built-in sample, in which every second train and test video has no weak label any more.
pub(crate) struct OpenSample {
    pub(crate) folder: tempfile::TempDir,
    /// The weak label that each of these videos had.
    pub(crate) hidden: BTreeMap<String, BTreeSet<String>>,
}

impl OpenSample {
    pub(crate) fn new() -> OpenSample {
        let folder = scratch();
        sample_annotations(folder.path().to_str().unwrap());
        let mut sample = OpenSample {
            folder,
            hidden: BTreeMap::new(),
        };
        let (given, features) = (sample.path("annotations"), sample.path("features"));
        assert_status(
            &run([
                "synth",
                "--annotations",
                &given,
                "--out",
                &features,
                "--dim",
                "64",
            ]),
            0,
        );
        for file in ["demo_train.csv", "demo_test_pd.csv"] {
            let path = Path::new(&given).join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            let mut open = String::new();
            for (line, nth) in text.lines().zip(0..) {
                let (name, labels) = line.split_once('\t').unwrap();
                if nth == 0 || nth % 2 == 1 {
                    writeln!(open, "{line}").unwrap();
                } else {
                    writeln!(open, "{name}\t").unwrap();
                    let labels = labels.split(',').map(str::to_owned).collect();
                    sample.hidden.insert(name.to_owned(), labels);
                }
            }
            std::fs::write(path, open).unwrap();
        }
        // The full list would repeat the weak labels in notes.
        std::fs::remove_file(Path::new(&given).join("demo_dataset_full.csv")).unwrap();
        assert_eq!(sample.hidden.len(), 20 + 12);
        sample
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn label(&self, store: &str, more: &[&str]) -> Output {
        let mut words: Vec<String> = vec!["label".into(), "--store".into(), self.path(store)];
        words.extend(["--annotations".into(), self.path("annotations")]);
        for modality in ["visual", "audio"] {
            words.extend([
                format!("--{modality}"),
                self.path(&format!("features/{modality}")),
            ]);
            let text = self.path(&format!("features/{modality}_text.npy"));
            words.extend([format!("--{modality}-text"), text]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        run(words)
    }

    fn relabel(&self, store: &str, more: &[&str]) -> Output {
        let store = self.path(store);
        run([&["relabel", "--store", &store][..], more].concat())
    }

    fn snapshot(&self, store: &str) -> Snapshot {
        let store = Store::open(Path::new(&self.path(store))).unwrap();
        store.at_version(None).unwrap()
    }

    fn tables(&self, store: &str) -> (Vec<VideoRow>, Vec<ScoreTrack>, Vec<LabelTrack>) {
        let snapshot = self.snapshot(store);
        let videos = sorted::<Videos>(&snapshot);
        (videos, sorted::<Scores>(&snapshot), sorted::<Labels>(&snapshot))
    }
}

#[test]
fn videos_without_a_weak_label_get_candidates_and_every_command_tells_that_they_were_guessed() {
    let sample = OpenSample::new();
    assert_status(&sample.label("weak", &[]), 0);
    let (videos, _, labels) = sample.tables("weak");
    let hidden = |video: &str| sample.hidden.contains_key(video);
    assert!(
        videos
            .iter()
            .all(|row| !row.guessed && row.weak_labels.is_empty() == hidden(&row.video))
    );
    assert!(!labels.iter().any(|track| hidden(&track.video)));

    assert_status(&sample.label("open", &["--candidates", "top:3"]), 0);
    let (videos, scores, labels) = sample.tables("open");
    let mut found = 0;
    for row in &videos {
        assert_eq!(row.guessed, hidden(&row.video), "{}", row.video);
        let classes: BTreeSet<&Arc<str>> = row.weak_labels.iter().collect();
        let of = |track: &&ScoreTrack| track.video == row.video;
        assert_eq!(
            scores.iter().filter(of).count(),
            2 * classes.len(),
            "{}",
            row.video
        );
        let labelled = labels.iter().filter(|track| track.video == row.video);
        assert_eq!(labelled.count(), 2 * classes.len());
        if let Some(truth) = sample.hidden.get(&*row.video) {
            assert!((1..=3).contains(&classes.len()));
            found += truth
                .iter()
                .filter(|class| classes.contains(&Arc::from(class.as_str())))
                .count();
        }
    }
    // Three of 25 classes by chance would find 12 %.
    let all: usize = sample.hidden.values().map(BTreeSet::len).sum();
    assert!(2 * found > all, "{found} of {all} hidden classes are candidates");
    // Videos with a weak label are labelled as before.
    let own = |(_, _, labels): (Vec<VideoRow>, Vec<ScoreTrack>, Vec<LabelTrack>)| {
        let own = labels.into_iter().filter(|track| !hidden(&track.video));
        own.collect::<Vec<_>>()
    };
    assert_eq!(own(sample.tables("open")), own(sample.tables("weak")));
    let again = sample.label("open", &["--candidates", "top:3"]);
    assert!(stdout(&again).starts_with("nothing to do"), "{}", stdout(&again));
    assert_status(&run(["check", "--store", &sample.path("open")]), 0);

    // `eval` scores both kinds of videos, each by itself.
    let store = sample.path("open");
    let table = run(["eval", "--store", &store, "--split", "test"]);
    assert_status(&table, 0);
    let told = stdout(&table);
    assert_eq!(told.matches("split test, 12 videos").count(), 2, "{told}");
    assert!(
        told.contains(
            "\n\nvideos without a weak label, whose candidate classes were guessed\nprotocol labels"
        ),
        "{told}"
    );
    let json = |store: &str| -> serde_json::Value {
        let store = sample.path(store);
        let output = run(["eval", "--store", &store, "--split", "test", "--format", "json"]);
        serde_json::from_str(stdout(&output)).unwrap()
    };
    let (open, weak) = (json("open"), json("weak"));
    let score = |report: &serde_json::Value| report["segment"]["type_av"].as_f64().unwrap();
    assert_eq!(
        (&open["videos"], &open["guessed"]["videos"]),
        (&12.into(), &12.into())
    );
    assert_eq!(
        weak["videos"], 24,
        "an empty weak label is a weak label without this option"
    );
    assert!(
        score(&open) > score(&open["guessed"]) && score(&open["guessed"]) > 10.0,
        "{open}"
    );

    // `show` says it.
    let name = sample.hidden.keys().next().unwrap();
    let shown = run(["show", name, "--store", &store]);
    assert!(
        stdout(&shown).contains("no weak label, candidate classes guessed from the scores: "),
        "{}",
        stdout(&shown)
    );
    // The rows can be asked for.
    let query = "SELECT count(*) AS guessed FROM videos WHERE guessed";
    let answer = run(["query", query, "--store", &store, "--format", "csv"]);
    assert!(
        stdout(&answer).contains("32"),
        "{}{}",
        stdout(&answer),
        stderr(&answer)
    );
}

#[test]
fn a_change_of_the_rule_or_of_a_weak_label_gives_the_tables_of_a_fresh_store() {
    let sample = OpenSample::new();
    assert_status(&sample.label("store", &["--candidates", "top:2"]), 0);
    for (rule, workers) in [("top:4", "1"), ("all", "2"), ("weak", "3"), ("top:1", "2")] {
        assert_status(
            &sample.relabel("store", &["--candidates", rule, "--workers", workers]),
            0,
        );
        let fresh = format!("fresh-{}", rule.replace(':', ""));
        assert_status(
            &sample.label(&fresh, &["--candidates", rule, "--workers", "1"]),
            0,
        );
        assert_eq!(sample.tables("store"), sample.tables(&fresh), "{rule}");
        let settings = |store: &str| {
            let rows = sorted::<Settings>(&sample.snapshot(store)).into_iter();
            let own = rows.filter(|row| &*row.name == "candidates");
            own.map(|row| row.value.to_string()).collect::<Vec<_>>()
        };
        let expected = if rule == "weak" {
            vec![]
        } else {
            vec![rule.to_owned()]
        };
        assert_eq!(
            (settings("store"), settings(&fresh)),
            (expected.clone(), expected)
        );
    }
    // A threshold changes labels of guessed candidates, and no candidate.
    let before = sample.tables("store");
    assert_status(
        &sample.relabel(
            "store",
            &["--visual-threshold", "1.2", "--audio-threshold", "0.7"],
        ),
        0,
    );
    let after = sample.tables("store");
    assert_eq!(before.0, after.0);
    assert_ne!(before.2, after.2);
    // A weak label that comes replaces the guess. When it goes again, the guess comes back.
    let (name, _) = sample.hidden.first_key_value().unwrap();
    let file = sample.path("weak.csv");
    std::fs::write(
        &file,
        format!("filename,event_labels\n{name},\"Banjo,Blender\"\n"),
    )
    .unwrap();
    assert_status(&sample.relabel("store", &["--weak", &file]), 0);
    let (videos, _, labels) = sample.tables("store");
    let row = videos.iter().find(|row| &*row.video == name.as_str()).unwrap();
    assert_eq!((row.guessed, row.weak_labels.len()), (false, 2));
    assert_eq!(
        labels
            .iter()
            .filter(|track| &*track.video == name.as_str())
            .count(),
        4
    );
    std::fs::write(&file, format!("filename,event_labels\n{name},\n")).unwrap();
    assert_status(&sample.relabel("store", &["--weak", &file]), 0);
    let mut back = sample.tables("store");
    for (row, old) in back.0.iter_mut().zip(&after.0) {
        // The weak label comes from another file now.
        row.source = old.source.clone();
    }
    assert_eq!(back, after);
}

#[test]
fn a_rule_that_is_none_is_refused_with_what_would_do() {
    let sample = OpenSample::new();
    let refused = sample.label("store", &["--candidates", "top:0"]);
    assert_status(&refused, 2);
    let told = stderr(&refused);
    assert!(
        told.contains("candidates is `top:0`, expected `weak`, `all` or `top:K` with K from 1"),
        "{told}"
    );
    let valor = sample.path("valor");
    let (store, annotations) = (sample.path("store"), sample.path("annotations"));
    let words = ["label", "--store", &store, "--annotations", &annotations];
    let both = run([
        &words[..],
        &["--pseudo-labels", &valor, &valor, "--candidates", "all"],
    ]
    .concat());
    assert_status(&both, 2);
    assert!(stderr(&both).contains("cannot be used with"), "{}", stderr(&both));
}

/// Cosines without a pattern, the same for the same seed.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32) - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// The classes with the highest mean sigmoid of z-scores over both modalities; a plain loop over the cosines of a store that
/// was labelled with all candidates.
fn voted(scores: &[ScoreTrack], video: &str, most: usize) -> BTreeSet<Arc<str>> {
    let mut votes: BTreeMap<Arc<str>, f64> = BTreeMap::new();
    for modality in Modality::ALL {
        let own: Vec<&ScoreTrack> = scores
            .iter()
            .filter(|track| &*track.video == video && track.modality == modality)
            .collect();
        let segments = own[0].cosine.len();
        for segment in 0..segments {
            let row: Vec<f64> = own.iter().map(|track| f64::from(track.cosine[segment])).collect();
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (row.len() - 1) as f64;
            for (track, x) in own.iter().zip(row) {
                let vote = 1.0 / (1.0 + (-(x - mean) / variance.sqrt()).exp());
                *votes.entry(track.class.clone()).or_default() += vote / segments as f64 / 2.0;
            }
        }
    }
    let mut best: Vec<(f64, Arc<str>)> = votes.into_iter().map(|(class, vote)| (vote, class)).collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0));
    best.into_iter().take(most).map(|(_, class)| class).collect()
}

#[test]
fn a_thousand_classes_and_videos_of_unequal_length_are_labelled() {
    const CLASSES: usize = 1000;
    const WIDTH: usize = 24;
    let sample = OpenSample {
        folder: scratch(),
        hidden: BTreeMap::new(),
    };
    let folder = sample.folder.path();
    for name in ["annotations", "features/audio", "features/visual"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let names: Vec<String> = (0..CLASSES).map(|class| format!("class {class}")).collect();
    std::fs::write(folder.join("annotations/classes.txt"), names.join("\n")).unwrap();
    let mut train = "filename\tevent_labels\n".to_owned();
    let lengths = [1, 3, 10, 17];
    for (nth, length) in lengths.into_iter().enumerate() {
        let video = format!("video{nth:06}");
        // The last video has a weak label.
        writeln!(
            train,
            "{video}_0_10\t{}",
            if nth == 3 { "class 7,class 900" } else { "" }
        )
        .unwrap();
        for modality in Modality::ALL {
            let seed = 100 * nth as u64 + modality.index() as u64;
            let path = folder.join(format!("features/{modality}/{video}.npy"));
            npy::write_f32(&path, &[length, WIDTH], &numbers(seed, length * WIDTH)).unwrap();
        }
    }
    std::fs::write(folder.join("annotations/open_train.csv"), train).unwrap();
    for modality in Modality::ALL {
        let path = folder.join(format!("features/{modality}_text.npy"));
        let seed = 7000 + modality.index() as u64;
        npy::write_f32(&path, &[CLASSES, WIDTH], &numbers(seed, CLASSES * WIDTH)).unwrap();
    }
    assert_status(&sample.label("all", &["--candidates", "all"]), 0);
    assert_status(
        &sample.label("top", &["--candidates", "top:5", "--workers", "3"]),
        0,
    );
    let (_, scores, labels) = sample.tables("all");
    assert_eq!(scores.len(), 2 * (3 * CLASSES + 2));
    assert_eq!(labels.len(), scores.len());
    let (videos, of_top, labels) = sample.tables("top");
    assert_eq!(
        videos.iter().map(|row| row.segments).collect::<Vec<_>>(),
        [1, 3, 10, 17]
    );
    for row in &videos[..3] {
        let found: BTreeSet<Arc<str>> = row.weak_labels.iter().cloned().collect();
        assert_eq!(found, voted(&scores, &row.video, 5), "{}", row.video);
    }
    assert_eq!((videos[3].guessed, videos[3].weak_labels.len()), (false, 2));
    // The threshold is relative to 1000 classes, and the scores are those over all classes.
    let snapshot = sample.snapshot("top");
    for row in sorted::<Classes>(&snapshot) {
        let relative = if row.modality == Modality::Audio {
            0.95
        } else {
            1.025
        };
        assert_eq!(row.score_threshold, relative / 1000.0);
    }
    for track in &of_top {
        let same = |other: &&ScoreTrack| {
            (&other.video, other.modality, &other.class) == (&track.video, track.modality, &track.class)
        };
        assert_eq!(scores.iter().find(same), Some(track));
    }
    for track in &labels {
        let expected = track.threshold.unwrap();
        let pairs = track.labels.iter().zip(&track.scores);
        assert!(
            pairs
                .into_iter()
                .all(|(label, score)| *label == (*score > expected))
        );
    }
    let rejects = sorted::<Rejects>(&snapshot);
    assert!(
        rejects.iter().all(|row| row.reason.contains("no weak label")),
        "{rejects:?}"
    );
}
