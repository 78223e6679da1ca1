//! What `--dry-run` and `plan` say, against what is done then; and what a change must not cost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::LabelTrack;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Labels, Settings, Videos};

use crate::sample::{Sample, name};
use crate::support::{assert_status, run, stderr, stdout};

fn labelled(videos: usize) -> (Sample, String) {
    let sample = Sample::new(videos);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    (sample, store)
}

fn relabel(store: &str, flags: &[&str]) -> std::process::Output {
    run(["relabel", "--store", store].iter().chain(flags))
}

/// Every file below a folder, and when it was written.
fn listing(folder: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().display().to_string();
                found.insert(name, (meta.len(), meta.modified().unwrap()));
            }
        }
    }
    found
}

fn labels(store: &str) -> Vec<LabelTrack> {
    let snapshot = Store::open(Path::new(store)).unwrap().latest().unwrap().unwrap();
    snapshot.read::<Labels>().unwrap()
}

#[test]
fn a_dry_run_prints_the_changes_that_the_run_then_commits_and_writes_nothing() {
    let (sample, store) = labelled(24);
    let weak = sample.path("weak.csv");
    let rows = format!("filename,event_labels\n{},Bell\n{},Barrk\n", name(3), name(4));
    fs::write(&weak, rows).unwrap();
    let weak = weak.display().to_string();
    let everything = ["--visual-scale", "4"];
    let part = ["--threshold", "audio/Bark=1.02", "--weak-add", &weak];
    for (flags, status) in [(&everything[..], 0), (&part[..], 1)] {
        let before = listing(Path::new(&store));
        let dry = relabel(&store, &[flags, &["--dry-run"]].concat());
        assert_status(&dry, status);
        assert_eq!(listing(Path::new(&store)), before, "{flags:?}");
        let done = relabel(&store, flags);
        assert_status(&done, status);
        let snapshot = Store::open(Path::new(&store)).unwrap().latest().unwrap().unwrap();
        let version = snapshot.version().version;
        let changes = crate::support::label_changes(&snapshot);
        let line = |row: &vaplan_schemas::rows::LabelChangeRow| {
            let sign = if row.to { '+' } else { '-' };
            let (video, modality, class, segment) = (&row.video, row.modality, &row.class, row.segment);
            format!(
                "{sign} {video}\t{modality}\t{class}\t{segment}\t{}",
                row.rule.as_str()
            )
        };
        let own = changes.iter().filter(|row| row.version == version);
        let lines: Vec<String> = own.map(line).collect();
        assert!(!lines.is_empty(), "{flags:?}");
        assert_eq!(stdout(&dry).lines().collect::<Vec<_>>(), lines, "{flags:?}");
        let set = lines.iter().filter(|line| line.starts_with('+')).count();
        let told = format!(
            "version {version}: {set} labels set, {} unset; ",
            lines.len() - set
        );
        assert!(stdout(&done).starts_with(&told), "{}", stdout(&done));
    }
}

#[test]
fn a_plan_says_what_the_change_then_touches() {
    let (sample, store) = labelled(24);
    let plan = |flags: &[&str]| {
        let output = run(["plan", "--store", &store].iter().chain(flags));
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    // What of a table a line says: rows and videos.
    let row = |said: &str, table: &str| -> (usize, usize) {
        let line = said.lines().find(|line| line.starts_with(table)).unwrap();
        let mut numbers = line.split_whitespace().skip(1).map(|word| word.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    let all = labels(&store);
    // A row of `labels` and `scores` is a track.
    let rows = |of: &dyn Fn(&LabelTrack) -> bool| all.iter().filter(|track| of(track)).count();

    let bark = |track: &LabelTrack| track.modality == Modality::Audio && &*track.class == "Bark";
    let said = plan(&["--threshold", "audio/Bark=1.5"]);
    assert!(
        said.starts_with("0 videos as a whole (0 scored anew), 1 tracks (modality and class) of any video\n"),
        "{said}"
    );
    assert_eq!(row(&said, "labels"), (rows(&bark), rows(&bark)));
    assert_eq!(row(&said, "scores"), (rows(&bark), rows(&bark)));
    assert_eq!(row(&said, "videos"), (0, 0));
    assert!(!said.contains("features: "), "{said}");

    let user = sample.path("user.csv");
    let mark = format!("video,modality,class,label,segment\n{},audio,Bark,1,0\n", name(5));
    fs::write(&user, mark).unwrap();
    let said = plan(&["--user", user.to_str().unwrap()]);
    assert!(
        said.starts_with("1 videos as a whole (0 scored anew), 0 tracks"),
        "{said}"
    );
    let fifth = |track: &LabelTrack| *track.video == *name(5);
    assert_eq!(row(&said, "labels"), (rows(&fifth), 1));
    assert_eq!(row(&said, "videos"), (1, 1));

    let said = plan(&["--visual-scale", "2"]);
    assert!(said.starts_with("every score depends on it"), "{said}");
    assert_eq!(row(&said, "labels"), (rows(&|_| true), 24));
    assert!(said.contains("features: 48 files, "), "{said}");

    let npy = sample.features("visual", 7);
    let said = plan(&["--visual", npy.to_str().unwrap()]);
    let bytes = npy.metadata().unwrap().len();
    assert!(
        said.contains(&format!("features: 1 files, {bytes} bytes to read")),
        "{said}"
    );
    assert_eq!(
        Store::open(Path::new(&store)).unwrap().versions().unwrap().len(),
        1
    );
}

#[test]
fn thresholds_marks_and_fewer_classes_need_no_features_and_touch_no_other_video() {
    let (sample, store) = labelled(24);
    for modality in ["audio", "visual"] {
        fs::remove_dir_all(sample.path(modality)).unwrap();
    }
    let before = labels(&store);
    let file = |place: &str, text: String| {
        fs::write(sample.path(place), text).unwrap();
        sample.path(place).display().to_string()
    };
    let own = before.iter().find(|track| *track.video == *name(5)).unwrap();
    let user = format!(
        "video,modality,class,label,onset,offset\n{},audio,{},1,0,10\n",
        name(5),
        own.class
    );
    let user = file("user.csv", user);
    // Video 3 has two classes; video 4 is left with none.
    let one = before.iter().find(|track| *track.video == *name(3)).unwrap();
    let other = before.iter().find(|track| *track.video == *name(4)).unwrap();
    let fewer = format!(
        "filename,event_labels\n{},{}\n{},{}\n",
        name(3),
        one.class,
        name(4),
        other.class
    );
    let fewer = file("fewer.csv", fewer);
    for (flags, touched) in [
        (["--threshold", "visual/Song=1.2"], 0),
        (["--user", &user], 1),
        (["--weak-remove", &fewer], 2),
    ] {
        let output = relabel(&store, &flags);
        assert_status(&output, 0);
        assert_eq!(stderr(&output), "", "{flags:?}");
        let told = format!("; {touched} videos looked at, ");
        assert!(stdout(&output).contains(&told), "{}", stdout(&output));
    }
    let snapshot = Store::open(Path::new(&store)).unwrap().latest().unwrap().unwrap();
    let videos = snapshot.read::<Videos>().unwrap();
    let fourth = videos.iter().find(|row| *row.video == *name(4)).unwrap();
    assert!(fourth.weak_labels.is_empty() && fourth.segments == 10);
    assert!(fourth.audio_source.is_some() && fourth.visual_source.is_some());
    assert_eq!(snapshot.check().unwrap(), []);
    let after = labels(&store);
    let stays = |track: &&LabelTrack| {
        let touched = [3, 4, 5].map(name);
        !touched.contains(&track.video.to_string()) && &*track.class != "Song"
    };
    assert!(before.iter().filter(stays).eq(after.iter().filter(stays)));
}

#[test]
fn what_is_asked_twice_is_done_once_probabilities_that_are_none_included() {
    let (sample, store) = labelled(8);
    fs::create_dir_all(sample.path("epoch/visual")).unwrap();
    let mut values = vec![0.02_f32; 30];
    values[4] = f32::NAN;
    let path = sample.path(&format!("epoch/visual/{}.npy", name(2)));
    vaplan::ingest::npy::write_f32(&path, &[10, 3], &values).unwrap();
    let epoch = sample.path("epoch").display().to_string();
    let flags = ["--predictions", &epoch, "--epoch", "1", "--guard", "0.25"];
    let first = relabel(&store, &flags);
    assert!(stdout(&first).starts_with("version 2: "), "{}", stdout(&first));
    let again = relabel(&store, &flags);
    assert_eq!(
        stdout(&again),
        "nothing to do: the store holds what the change asks for\n"
    );
    // The first epoch turns denoising on for visual (docs/method.md), and the settings say so.
    let snapshot = Store::open(Path::new(&store)).unwrap().latest().unwrap().unwrap();
    let settings = snapshot.read::<Settings>().unwrap();
    let of: Vec<(&str, &str)> = settings
        .iter()
        .filter(|row| row.name.starts_with("denoise."))
        .map(|row| (&*row.name, &*row.value))
        .collect();
    assert_eq!(
        of,
        [
            ("denoise.visual.alpha", "10"),
            ("denoise.visual.guard", "0.25"),
            ("denoise.visual.k", "5"),
            ("denoise.visual.rule", "pld")
        ]
    );
    // A video that comes in the same run as its predictions has them.
    let weak = sample.path("weak.csv");
    fs::write(&weak, "filename,event_labels\nvid99999999_0_10,Bark\n").unwrap();
    let values = vec![0.5_f32; 10 * crate::sample::WIDTH];
    for modality in ["audio", "visual"] {
        let path = sample.path(&format!("{modality}/vid99999999.npy"));
        vaplan::ingest::npy::write_f32(&path, &[10, crate::sample::WIDTH], &values).unwrap();
    }
    let path = sample.path("epoch/visual/vid99999999.npy");
    // Its segments are equal, so are its labels: either the last flips or all others do.
    let mut values = vec![0.02_f32; 30];
    values[27..].fill(0.98);
    vaplan::ingest::npy::write_f32(&path, &[10, 3], &values).unwrap();
    let weak = weak.display().to_string();
    let flags = [
        "--weak",
        &weak,
        "--predictions",
        &epoch,
        "--epoch",
        "2",
        "--k",
        "1",
    ];
    relabel(&store, &flags);
    let flips = labels(&store)
        .iter()
        .filter(|track| *track.video == *"vid99999999_0_10" && track.modality == Modality::Visual)
        .map(|track| track.flips.iter().filter(|(_, why)| why.epoch == 2).count())
        .sum::<usize>();
    assert!([1, 9].contains(&flips), "{flips}");
}
