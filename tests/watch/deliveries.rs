//! Each kind of delivery, against the one-shot relabelling and against labelling afresh.

use std::fs;
use std::path::{Path, PathBuf};

use vaplan::ingest::npy;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::SettingRow;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Candidates, Classes, Predictions, Settings, UserLabels};

use super::harness::{Watch, WatchedStore, copy};
use crate::sample::{Tables, key, name};
use crate::support::{assert_status, run};

/// All tables of two stores are equal, but for what the inbox took in.
#[track_caller]
fn assert_same(left: &Path, right: &Path) {
    assert_eq!(Tables::read(left), Tables::read(right));
    let [left, right] = [left, right].map(|path| Store::open(path).unwrap().at_version(None).unwrap());
    assert_eq!(left.check().unwrap(), []);
    let settings = |rows: Vec<SettingRow>| -> Vec<SettingRow> {
        let own = rows.into_iter().filter(|row| !row.name.starts_with("inbox."));
        own.collect()
    };
    assert_eq!(
        settings(left.read::<Settings>().unwrap()),
        settings(right.read::<Settings>().unwrap())
    );
    assert_eq!(left.read::<Classes>().unwrap(), right.read::<Classes>().unwrap());
    assert_eq!(
        left.read::<Candidates>().unwrap(),
        right.read::<Candidates>().unwrap()
    );
    assert_eq!(
        left.read::<UserLabels>().unwrap(),
        right.read::<UserLabels>().unwrap()
    );
    assert_eq!(
        left.read::<Predictions>().unwrap(),
        right.read::<Predictions>().unwrap()
    );
    assert_eq!(
        crate::support::label_changes(&left),
        crate::support::label_changes(&right)
    );
}

/// A delivery, how it is made, and the flags of `relabel` that ask for the same; `@` is where it lies then.
struct Case {
    name: &'static str,
    make: Make,
    flags: &'static [&'static str],
}

enum Make {
    Text(&'static str),
    By(fn(&WatchedStore, &str)),
}

impl Case {
    fn make(&self, place: &WatchedStore) {
        match self.make {
            Make::Text(text) => place.deliver(self.name, text),
            Make::By(make) => make(place, self.name),
        }
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "a.weak.csv",
            make: Make::Text(
                "filename,event_labels\nvid00000003_0_10,\"Bell,Song\"\nvid00000099_0_10,Bark\n",
            ),
            flags: &["--weak", "@"],
        },
        Case {
            name: "b.weak-add.tsv",
            make: Make::Text("filename\tevent_labels\nvid00000001_0_10\tBark,Bell\n"),
            flags: &["--weak-add", "@"],
        },
        Case {
            name: "c.weak-remove.csv",
            make: Make::Text("filename,event_labels\nvid00000001_0_10,Bark\nvid00000007_0_10,\n"),
            flags: &["--weak-remove", "@"],
        },
        Case {
            name: "d.user.csv",
            make: Make::Text(
                "video,modality,class,label,segment,onset,offset\n\
                     vid00000003_0_10,audio,Bell,1,,2,6\nvid00000003_0_10,audio,Song,0,4,,\n\
                     vid00000004_0_10,visual,Dog,1,4,,\n",
            ),
            flags: &["--user", "@"],
        },
        Case {
            name: "d2.eaf",
            make: Make::Text(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ANNOTATION_DOCUMENT FORMAT=\"3.0\" VERSION=\"3.0\">\
                 <HEADER TIME_UNITS=\"milliseconds\"><PROPERTY NAME=\"vaplan:video\">vid00000003_0_10</PROPERTY></HEADER>\
                 <TIME_ORDER><TIME_SLOT TIME_SLOT_ID=\"t1\" TIME_VALUE=\"1000\"/>\
                 <TIME_SLOT TIME_SLOT_ID=\"t2\" TIME_VALUE=\"4000\"/></TIME_ORDER>\
                 <TIER TIER_ID=\"visual/Song\" ANNOTATOR=\"Ada\" LINGUISTIC_TYPE_REF=\"event\"><ANNOTATION>\
                 <ALIGNABLE_ANNOTATION ANNOTATION_ID=\"a1\" TIME_SLOT_REF1=\"t1\" TIME_SLOT_REF2=\"t2\">\
                 <ANNOTATION_VALUE>Song</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>\
                 <TIER TIER_ID=\"notes\" LINGUISTIC_TYPE_REF=\"event\"/></ANNOTATION_DOCUMENT>\n",
            ),
            flags: &["--user", "@"],
        },
        Case {
            name: "d3.user.json",
            make: Make::Text(
                "[{\"id\": 7, \"data\": {\"name\": \"vid00000003_0_10\", \"tracks\": [\"audio/Bell\"]}, \"annotations\": \
                 [{\"id\": 1, \"was_cancelled\": false, \"result\": []}]}]",
            ),
            flags: &["--user", "@"],
        },
        Case {
            name: "e.thresholds.toml",
            make: Make::Text("[visual.classes]\nBell = 1.15\n[audio]\ndefault = 1.02\n"),
            flags: &["--thresholds", "@"],
        },
        Case {
            name: "f.visual.parquet",
            make: Make::By(|place, name| {
                place.deliver_shard(name, Modality::Visual, &[(99, 0.2), (7, 0.4), (5, 0.9)])
            }),
            flags: &["--visual", "@"],
        },
        Case {
            name: "g.audio",
            make: Make::By(|place, name| folder(place, name, &[("", 99)])),
            flags: &["--audio", "@"],
        },
        Case {
            name: "epoch-0004-first",
            make: Make::By(|place, name| epoch(place, name, 5)),
            flags: &["--predictions", "@", "--epoch", "4"],
        },
        Case {
            name: "h.thresholds.toml",
            make: Make::Text(
                "rule = \"logit\"\n[visual]\ndefault = 0.3\nscale = 0.9\n[audio]\ndefault = 0.4\n",
            ),
            flags: &["--thresholds", "@"],
        },
        Case {
            name: "i.thresholds.toml",
            make: Make::Text("[visual]\nscale = 1.5\n"),
            flags: &["--thresholds", "@"],
        },
        Case {
            name: "epoch-0005",
            make: Make::By(|place, name| epoch(place, name, 2)),
            flags: &["--predictions", "@", "--epoch", "5"],
        },
        // All scores change: the graph is loaded anew.
        Case {
            name: "j.thresholds.toml",
            make: Make::Text("rule = \"softmax\"\n[visual]\nscale = 3.0\n"),
            flags: &["--thresholds", "@"],
        },
        Case {
            name: "k.weak-remove.csv",
            make: Make::Text("filename\nvid00000003_0_10\n"),
            flags: &["--weak-remove", "@"],
        },
    ]
}

/// A folder of npy of 10 segments, each below a folder of it.
fn folder(place: &WatchedStore, name: &str, videos: &[(&str, usize)]) {
    let beside = place.inbox(".folder");
    fs::create_dir(&beside).unwrap();
    for (below, nth) in videos {
        fs::create_dir_all(beside.join(below)).unwrap();
        let values: Vec<f32> = (0..80)
            .map(|cell| ((cell * 5 + nth) % 9) as f32 / 7.0 + 0.1)
            .collect();
        let file = beside.join(below).join(format!("{}.npy", key(*nth)));
        npy::write_f32(&file, &[10, 8], &values).unwrap();
    }
    fs::rename(&beside, place.inbox(name)).unwrap();
}

/// Probabilities of every `step`th video: low where labels are, so that some flip.
fn epoch(place: &WatchedStore, name: &str, step: usize) {
    let beside = place.inbox(".epoch");
    for modality in ["audio", "visual"] {
        fs::create_dir_all(beside.join(modality)).unwrap();
        for nth in (0..24).step_by(step) {
            let values: Vec<f32> = (0..30)
                .map(|cell| if (cell + nth) % 4 == 0 { 0.999 } else { 0.01 })
                .collect();
            let file = beside.join(modality).join(format!("{}.npy", key(nth)));
            npy::write_f32(&file, &[10, 3], &values).unwrap();
        }
    }
    fs::rename(&beside, place.inbox(name)).unwrap();
}

/// Where features that were delivered lie.
fn placed(place: &WatchedStore, name: &str) -> Option<PathBuf> {
    let folder = place.store().join("_vaplan/shards").join(name);
    let entry = fs::read_dir(folder).ok()?.next()?;
    Some(entry.unwrap().path())
}

/// Asks `relabel` for what a delivery asks for, as if it still lay in the inbox.
fn relabel(place: &WatchedStore, store: &Path, name: &str, flags: &[&str]) -> Vec<String> {
    let (done, lies) = (place.inbox("done").join(name), place.inbox(name));
    let at = placed(place, name).unwrap_or_else(|| {
        match done.is_dir() {
            true => copy(&done, &lies),
            false => drop(fs::copy(&done, &lies).unwrap()),
        }
        lies.clone()
    });
    let at = at.display().to_string();
    let own = flags.iter().map(|flag| {
        if *flag == "@" {
            at.clone()
        } else {
            (*flag).to_owned()
        }
    });
    let store = store.display().to_string();
    ["relabel".to_owned(), "--store".to_owned(), store]
        .into_iter()
        .chain(own)
        .collect()
}

fn tidy(place: &WatchedStore, name: &str) {
    let lies = place.inbox(name);
    match lies.is_dir() {
        true => fs::remove_dir_all(lies).unwrap(),
        false => drop(fs::remove_file(lies)),
    }
}

#[test]
fn every_kind_of_delivery_gives_the_tables_of_the_same_relabel() {
    let place = WatchedStore::new(24);
    let other = place.copy("other");
    let watch = place.watch(&[], None).ready();
    let mut version = 1;
    for case in cases() {
        case.make(&place);
        version += 1;
        let line = watch.line(&format!("version {version}: "));
        assert!(line.contains(case.name), "{line}");
    }
    let status = watch.stop();
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&cases().len().into(), &0.into())
    );
    assert_eq!(
        status["loads"], 2,
        "at the start, and after a change of everything"
    );
    for case in cases() {
        let output = run(relabel(&place, &other, case.name, case.flags));
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{}: {output:?}",
            case.name
        );
        tidy(&place, case.name);
    }
    assert_same(&place.store(), &other);
    assert!(
        Tables::read(&other).changes.len() > 100,
        "the deliveries changed much"
    );
}

#[test]
fn files_of_elan_and_label_studio_in_the_inbox_are_user_labels() {
    let place = WatchedStore::new(24);
    let chosen = |case: &Case| ["a.weak.csv", "d2.eaf", "d3.user.json"].contains(&case.name);
    cases()
        .iter()
        .filter(|case| chosen(case))
        .for_each(|case| case.make(&place));
    let watch = place.watch(&[], None);
    watch.line("version 2: ");
    watch.stop();
    let latest = Store::open(&place.store()).unwrap().at_version(None).unwrap();
    let rows = latest.read::<UserLabels>().unwrap();
    let of = |class: &str| -> Vec<bool> {
        let own = rows
            .iter()
            .filter(|row| &*row.class == class && *row.video == *name(3));
        own.map(|row| row.label).collect()
    };
    let song: Vec<bool> = (0..10).map(|segment| (1..4).contains(&segment)).collect();
    assert_eq!((of("Song"), of("Bell")), (song, vec![false; 10]));
    assert!(rows[0].source.ends_with("d2.eaf") || rows[0].source.ends_with("d3.user.json"));
}

#[test]
fn all_that_lies_there_is_one_version_and_gives_the_tables_of_one_relabel() {
    let place = WatchedStore::new(24);
    let other = place.copy("other");
    let chosen: Vec<Case> = cases()
        .into_iter()
        .filter(|case| {
            !["h.", "i.", "j.", "k.", "epoch-0005"]
                .iter()
                .any(|not| case.name.starts_with(not))
        })
        .collect();
    chosen.iter().for_each(|case| case.make(&place));
    let watch = place.watch(&[], None);
    assert!(watch.line("version 2: ").contains("a.weak.csv, b.weak-add.tsv"));
    watch.stop();
    // Weak labels are taken in order of their names, whatever is in between.
    let mut arguments = vec![
        "relabel".to_owned(),
        "--store".to_owned(),
        other.display().to_string(),
    ];
    for case in &chosen {
        arguments.extend(relabel(&place, &other, case.name, case.flags).into_iter().skip(3));
    }
    let output = run(&arguments);
    // `relabel` takes all of a kind together, so the order of the weak kinds is checked by the case before.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    assert_same(&place.store(), &other);
}

#[test]
fn labels_are_those_of_labelling_afresh() {
    let place = WatchedStore::new(24);
    let watch = place.watch(&[], None).ready();
    place.deliver(
        "a.weak.csv",
        format!("filename,event_labels\n{},\"Bark,Bell\"\n", name(2)),
    );
    watch.line("version 2: ");
    place.deliver("b.weak-remove.csv", format!("filename\n{}\n", name(4)));
    watch.line("version 3: ");
    place.deliver(
        "c.thresholds.toml",
        "[visual]\ndefault = 1.08\n[audio]\ndefault = 0.97\n",
    );
    watch.line("version 4: ");
    watch.stop();
    let path = place.sample.path("annotations/small_train.csv");
    let rows = fs::read_to_string(&path).unwrap();
    let edited =
        rows.lines()
            .filter(|row| !row.starts_with(&name(4)))
            .map(|row| match row.starts_with(&name(2)) {
                true => format!("{}\tBark,Bell\n", name(2)),
                false => format!("{row}\n"),
            });
    fs::write(&path, edited.collect::<String>()).unwrap();
    let flags = ["--visual-threshold", "1.08", "--audio-threshold", "0.97"];
    assert_status(&place.sample.label("fresh", &flags), 0);
    let (watched, fresh) = (
        Tables::read(&place.store()),
        Tables::read(&place.sample.path("fresh")),
    );
    assert_eq!(watched.labels, fresh.labels);
    assert_eq!(watched.scores, fresh.scores);
    assert_eq!(watched.videos.len(), 23);
}

#[test]
fn a_shard_of_the_same_name_takes_the_place_of_the_one_before() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&[], None).ready();
    place.deliver(
        "a.weak.csv",
        format!("filename,event_labels\n{},Bell\n", name(50)),
    );
    watch.line("version 2: ");
    place.deliver_shard("x.visual.parquet", Modality::Visual, &[(50, 0.1)]);
    watch.line("version 3: ");
    let scores = |store: &Path| -> Vec<f64> {
        let tables = Tables::read(store);
        let own = tables.scores.iter().filter(|track| *track.video == *name(50));
        own.flat_map(|track| track.score.clone()).collect()
    };
    let first = scores(&place.store());
    place.deliver_shard("x.visual.parquet", Modality::Visual, &[(50, 0.9)]);
    watch.line("version 4: ");
    let second = scores(&place.store());
    watch.stop();
    assert_eq!((first.len(), second.len()), (10, 10));
    assert_ne!(first, second, "no conflict of the two: the later counts");
}

#[test]
fn a_file_that_is_delivered_again_is_a_change_of_its_own() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&[], None).ready();
    let high = "[visual]\ndefault = 1.2\n";
    place.deliver("a.thresholds.toml", high);
    watch.line("version 2: ");
    let first = Tables::read(&place.store()).labels;
    place.deliver("b.thresholds.toml", "[visual]\ndefault = 0.9\n");
    watch.line("version 3: ");
    assert_ne!(Tables::read(&place.store()).labels, first);
    place.deliver("a.thresholds.toml", high);
    watch.line("version 4: ");
    assert_eq!(Tables::read(&place.store()).labels, first);
    // A process that starts later goes by the same rule.
    watch.stop();
    let watch = place.watch(&[], None).ready();
    place.deliver("b.thresholds.toml", "[visual]\ndefault = 0.9\n");
    watch.line("version 5: ");
    let status: serde_json::Value = watch.stop();
    assert_eq!((&status["again"], &status["done"]), (&0.into(), &1.into()));
    let done = fs::read_dir(place.inbox("done")).unwrap().count();
    assert_eq!(done, 4, "every file is kept");
}

#[test]
fn a_correction_that_is_withdrawn_and_delivered_again_holds() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&[], None).ready();
    let label = |label: &str| {
        format!(
            "video,modality,class,label,segment\n{},visual,Bell,{label},3\n",
            name(0)
        )
    };
    let user_labels = || {
        let latest = Store::open(&place.store()).unwrap().at_version(None).unwrap();
        latest.read::<UserLabels>().unwrap().len()
    };
    place.deliver("fix.user.csv", label("0"));
    watch.line("version 2: ");
    assert_eq!(user_labels(), 1);
    place.deliver("undo.user.csv", label("withdraw"));
    watch.line("version 3: ");
    assert_eq!(user_labels(), 0);
    place.deliver("fix.user.csv", label("0"));
    watch.line("version 4: ");
    assert_eq!(user_labels(), 1);
    watch.stop();
}

#[test]
fn an_edit_of_a_delivered_file_does_not_reach_the_store() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&[], None).ready();
    place.deliver(
        "a.weak.csv",
        format!("filename,event_labels\n{},Bell\n", name(50)),
    );
    watch.line("version 2: ");
    place.deliver_shard("x.visual.parquet", Modality::Visual, &[(50, 0.1)]);
    watch.line("version 3: ");
    watch.stop();
    let kept = fs::read_dir(place.store().join("_vaplan/shards/x.visual.parquet")).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path()).next().unwrap();
    let before = fs::read(&kept).unwrap();
    // In place, as an editor or `>` writes, not by renaming another file over the name.
    let mut done = fs::OpenOptions::new()
        .append(true)
        .open(place.inbox("done/x.visual.parquet"))
        .unwrap();
    std::io::Write::write_all(&mut done, b"more").unwrap();
    assert_eq!(fs::read(&kept).unwrap(), before);
}

#[test]
fn what_cannot_be_used_fails_with_its_reason_and_costs_nothing_beside_it() {
    let place = WatchedStore::new(12);
    place.deliver(
        "z.user.csv",
        format!("video,modality,class,label,segment\n{},audio,Bark,1,2\n", name(0)),
    );
    place.deliver("b.weak.csv", "name,labels\nx,y\n");
    place.deliver("c.visual.parquet", "no Parquet at all");
    place.deliver("d.thresholds.toml", "[visual.classes]\nBrak = 1.0\n");
    place.deliver("e.json", "{}");
    place.deliver("epoch-0001.predictions.parquet", "no Parquet either");
    fs::create_dir(place.inbox("f.audio")).unwrap();
    let fifo = place.inbox("g.user.csv");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    place.deliver("h.user.csv.part", "not yet");
    place.deliver(".i.user.csv", "not yet");
    let watch: Watch = place.watch(&[], None);
    assert!(watch.line("version 2: ").ends_with("z.user.csv"));
    let status = watch.stop();
    assert_eq!((&status["done"], &status["failed"]), (&1.into(), &7.into()));
    for (name, reason) in [
        ("b.weak.csv", "no column `filename`, expected a line that names"),
        ("c.visual.parquet", "arquet"),
        (
            "d.thresholds.toml",
            "`Brak`, no class of the annotations (nearest: `Bark`)",
        ),
        (
            "e.json",
            "its name says no kind of delivery, expected one of *.weak.csv",
        ),
        ("epoch-0001.predictions.parquet", "modality"),
        ("f.audio", "holds no .npy, .npz or .parquet file (it is empty)"),
        ("g.user.csv", "is a FIFO, expected a regular file"),
    ] {
        assert!(!place.inbox(name).exists() && place.inbox("failed").join(name).symlink_metadata().is_ok());
        let told = fs::read_to_string(place.inbox("failed").join(format!("{name}.reason"))).unwrap();
        assert!(told.contains(reason), "{name}: {told}");
    }
    assert!(place.inbox("h.user.csv.part").exists() && place.inbox(".i.user.csv").exists());
    assert!(place.inbox("done/z.user.csv").exists());
}
