use std::path::PathBuf;

use vaplan_schemas::rows::{Severity, Split};

use super::*;

/// Two training videos, one validation video and one test video with LLP's classes, in files that agree with each
/// other.
const TRAIN: &str = "filename\tevent_labels\n-rf_Eufr_X4_20_30\tSpeech,Dog\nBBBBBBBBBBB_1.5_11.5\tCar\n";
const VAL: &str = "filename\tevent_labels\nVVVVVVVVVVV_0_10\tCat\n";
const TEST: &str = "filename\tevent_labels\nTTTTTTTTTTT_0_10\tSpeech,Car\n";
const AUDIO: &str =
    "filename\tonset\toffset\tevent_labels\nTTTTTTTTTTT_0_10\t0\t4\tSpeech\nVVVVVVVVVVV_0_10\t2\t12\tCat\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("AVVP_train.csv", TRAIN);
        folder.write("AVVP_val_pd.csv", VAL);
        folder.write("AVVP_test_pd.csv", TEST);
        folder.write("AVVP_eval_audio.csv", AUDIO);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn append(&self, name: &str, text: &str) {
        let old = std::fs::read_to_string(self.path(name)).unwrap();
        self.write(name, old + text);
    }

    fn read(&self) -> Annotations {
        Annotations::read(self.0.path()).unwrap()
    }

    fn error(&self) -> String {
        let error = Annotations::read(self.0.path()).unwrap_err().chain();
        error.replace(&self.0.path().display().to_string(), "DIR")
    }

    /// Each rejected row and note as `severity file:row video: reason`.
    fn complaints(&self) -> Vec<String> {
        let show = |reject: &RejectRow| {
            let row = reject.row.map_or_else(|| "-".to_owned(), |row| row.to_string());
            let text = format!(
                "{:?} {}:{row} {}: {}",
                reject.severity,
                reject.file,
                reject.video.as_deref().unwrap_or("-"),
                reject.reason
            );
            text.replace(&format!("{}/", self.0.path().display()), "")
        };
        self.read().rejects.iter().map(show).collect()
    }
}

#[test]
fn a_plain_folder_is_read_without_complaint() {
    let folder = Folder::new();
    assert_eq!(folder.complaints(), Vec::<String>::new());
    let read = folder.read();
    assert_eq!(read.classes.len(), 25);
    let names: Vec<_> = read
        .videos
        .iter()
        .map(|video| (video.name, video.split))
        .collect();
    assert_eq!(
        names,
        [
            ("-rf_Eufr_X4_20_30", Split::Train),
            ("BBBBBBBBBBB_1.5_11.5", Split::Train),
            ("VVVVVVVVVVV_0_10", Split::Val),
            ("TTTTTTTTTTT_0_10", Split::Test),
        ]
    );
    assert_eq!(read.videos.get(0).weak[..], [ClassId(0), ClassId(3)]);
    let cat = DenseEvent {
        video: 2,
        modality: Modality::Audio,
        class: ClassId(4),
        onset: 2,
        offset: 12,
    };
    assert_eq!(read.events[1], cat);
}

#[test]
fn any_prefix_will_do_and_one_split_is_enough_but_none_or_two_are_errors() {
    let folder = Folder::new();
    for name in ["AVVP_train.csv", "AVVP_val_pd.csv", "AVVP_eval_audio.csv"] {
        std::fs::remove_file(folder.path(name)).unwrap();
    }
    std::fs::rename(folder.path("AVVP_test_pd.csv"), folder.path("mine-test_pd.csv")).unwrap();
    folder.write("._mine-test_pd.csv", "left by a copying program");
    assert_eq!(folder.read().videos.len(), 1);
    folder.write("other_test_pd.csv", TEST);
    assert_eq!(
        folder.error(),
        "folder `DIR` holds two files for `*test_pd.csv`: `mine-test_pd.csv` and `other_test_pd.csv`, expected one"
    );
    std::fs::remove_file(folder.path("other_test_pd.csv")).unwrap();
    std::fs::rename(folder.path("mine-test_pd.csv"), folder.path("labels.csv")).unwrap();
    assert_eq!(
        folder.error(),
        "folder `DIR` holds no split, expected `*train.csv`, `*val_pd.csv` or `*test_pd.csv` (csv files found: \
         labels.csv)"
    );
}

#[test]
fn a_missing_column_is_an_error_naming_it_and_the_line_found() {
    let folder = Folder::new();
    folder.write("AVVP_train.csv", "filename,event_labels\nA,Dog\n");
    assert_eq!(
        folder.error(),
        "`DIR/AVVP_train.csv`, row 1: no column `filename`, expected tab-separated `filename`, `event_labels` \
         (found: `filename,event_labels`)"
    );
    folder.write("AVVP_train.csv", "");
    assert!(
        folder
            .error()
            .contains("`DIR/AVVP_train.csv`, row 1: no column `filename`"),
        "{}",
        folder.error()
    );
}

#[test]
fn columns_are_found_by_name_whatever_their_order_and_line_ends() {
    let folder = Folder::new();
    folder.write(
        "AVVP_train.csv",
        "\u{feff}event_labels\tsource\tfilename\r\n\"Speech, Dog\"\tx\tA_0_1\r\n\r\nCar\tx\tB_0_1",
    );
    let read = folder.read();
    assert_eq!(read.videos.get(0).name, "A_0_1");
    assert_eq!(read.videos.get(0).weak[..], [ClassId(0), ClassId(3)]);
    assert_eq!(read.videos.get(1).name, "B_0_1");
    assert_eq!(read.rejects, []);
}

#[test]
fn bad_weak_rows_are_named_and_lose_nothing_beside_them() {
    let folder = Folder::new();
    folder.append(
        "AVVP_train.csv",
        "only one field\nC_0_1\tSpeech,Dgo\n\"stray\tCar\nnul\0_0_1\tCar\n\tCar\n../up_0_1\tClapping,Clapping\n",
    );
    let mut bytes = std::fs::read(folder.path("AVVP_train.csv")).unwrap();
    bytes.extend(b"latin\xe9_0_1\tCar\n");
    folder.write("AVVP_train.csv", bytes);
    assert_eq!(
        folder.complaints(),
        [
            "Reject AVVP_train.csv:4 -: line has 1 fields, expected 2",
            "Reject AVVP_train.csv:7 -: filename is `nul\\u{0}_0_1`, expected no NUL",
            "Reject AVVP_train.csv:8 -: filename is empty, expected the name of a video",
            "Note AVVP_train.csv:9 ../up_0_1: event_labels names `Clapping` twice, read as once",
            "Reject AVVP_train.csv:10 -: filename is `latin\\xe9_0_1`, expected UTF-8",
            "Reject AVVP_train.csv:5 C_0_1: class `Dgo` is unknown, expected one of 25 (nearest: `Dog`)",
        ]
    );
    let read = folder.read();
    let weak = |name: &str| {
        read.videos
            .iter()
            .find(|video| video.name == name)
            .unwrap()
            .weak
            .to_vec()
    };
    assert_eq!(weak("C_0_1"), [ClassId(0)]);
    assert_eq!(weak("../up_0_1"), [ClassId(24)]);
    assert_eq!(weak("\"stray"), [ClassId(1)]);
    assert_eq!(read.videos.len(), 7);
}

#[test]
fn a_doubled_video_is_read_once_and_a_conflicting_one_not_at_all() {
    let folder = Folder::new();
    folder.append(
        "AVVP_train.csv",
        "BBBBBBBBBBB_1.5_11.5\tCar\n-rf_Eufr_X4_20_30\tDog\nVVVVVVVVVVV_0_10\tCat\n",
    );
    let complaints = folder.complaints();
    assert_eq!(
        complaints[..4],
        [
            "Note AVVP_train.csv:4 BBBBBBBBBBB_1.5_11.5: same as `AVVP_train.csv`, row 3, read once",
            "Reject AVVP_train.csv:5 -rf_Eufr_X4_20_30: label or split differs from `AVVP_train.csv`, row 2, \
             expected one row per video: both rejected",
            "Reject AVVP_val_pd.csv:2 VVVVVVVVVVV_0_10: label or split differs from `AVVP_train.csv`, row 6, \
             expected one row per video: both rejected",
            "Reject AVVP_train.csv:2 -rf_Eufr_X4_20_30: label or split differs from a later row of the same \
             video, expected one row per video: both rejected",
        ]
    );
    let read = folder.read();
    let names: Vec<_> = read.videos.iter().map(|video| video.name).collect();
    assert_eq!(names, ["BBBBBBBBBBB_1.5_11.5", "TTTTTTTTTTT_0_10"]);
}

#[test]
fn odd_dense_rows_are_noted_and_bad_ones_rejected() {
    let folder = Folder::new();
    folder.append(
        "AVVP_eval_audio.csv",
        "TTTTTTTTTTT_0_10\t9\t9\tSpeech\nNNNNNNNNNNN_0_10\t0\t1\tDog\nNNNNNNNNNNN_0_10\t1\t2\tDog\n\
         TTTTTTTTTTT_0_10\t0\t1\tDog\nTTTTTTTTTTT_0_10\t-1\t1\tCar\nTTTTTTTTTTT_0_10\t1\t2.5\tCar\n\
         TTTTTTTTTTT_0_10\t1.0\t2.0\tCar\nTTTTTTTTTTT_0_10\t1\t2\tCra\nTTTTTTTTTTT_0_10\t1\t99999999999\tCar\n",
    );
    folder.append("AVVP_val_pd.csv", "QQQQQQQQQQQ_0_10\tCar\n");
    assert_eq!(
        folder.complaints(),
        [
            "Reject AVVP_eval_audio.csv:8 TTTTTTTTTTT_0_10: onset is `-1`, expected a whole number from 0",
            "Reject AVVP_eval_audio.csv:9 TTTTTTTTTTT_0_10: offset is `2.5`, expected a whole number from 0",
            "Reject AVVP_eval_audio.csv:12 TTTTTTTTTTT_0_10: offset is `99999999999`, expected a whole number \
             from 0",
            "Note AVVP_eval_audio.csv:4 TTTTTTTTTTT_0_10: onset 9 is not before offset 9: no event",
            "Note AVVP_eval_audio.csv:5 NNNNNNNNNNN_0_10: video of no split, its events are not read",
            "Reject AVVP_eval_audio.csv:11 TTTTTTTTTTT_0_10: class `Cra` is unknown, expected one of 25 \
             (nearest: `Car`)",
            "Note AVVP_eval_audio.csv:7 TTTTTTTTTTT_0_10: dense events of `Dog` are outside the weak label, kept \
             as truth",
            "Note AVVP_val_pd.csv:- QQQQQQQQQQQ_0_10: `QQQQQQQQQQQ_0_10` has no dense event: its truth is empty",
        ]
    );
    let spans: Vec<_> = folder
        .read()
        .events
        .iter()
        .map(|event| (event.onset, event.offset))
        .collect();
    assert_eq!(spans, [(0, 4), (2, 12), (0, 1), (1, 2)]);
}

#[test]
fn a_folder_is_foreign_by_the_share_of_unknown_labels_and_not_by_their_number() {
    let folder = Folder::new();
    let rows = |foreign: usize| {
        let row = |nth: usize| {
            format!(
                "v{nth:07}_0_1\t{}\n",
                if nth < foreign { "Cattle" } else { "Cat" }
            )
        };
        let rows: String = (0..15_000).map(row).collect();
        format!("filename\tevent_labels\n{rows}")
    };
    folder.write("AVVP_train.csv", rows(1_400));
    let read = folder.read();
    assert_eq!((read.videos.len(), read.rejects.len()), (15_002, 1_400));
    folder.write("AVVP_train.csv", rows(1_600));
    assert!(
        folder.error().contains("class `Cattle` is none of the 25 of LLP"),
        "{}",
        folder.error()
    );
}

#[test]
fn other_classes_need_their_list_and_a_misspelt_one_does_not_make_a_folder_foreign() {
    let folder = Folder::new();
    folder.write(
        "AVVP_train.csv",
        "filename\tevent_labels\nA_0_1\tCattle\nB_0_1\tSpeach\n",
    );
    assert_eq!(
        folder.error(),
        "`DIR/AVVP_train.csv`, row 2: class `Cattle` is none of the 25 of LLP (nearest: `Cat`), expected a file \
         `classes.txt` beside it with the data set's classes, one a line in order"
    );
    folder.write("classes.txt", "Cattle\n\nSpeach\nCat\nSpeech\nCar\n");
    let read = folder.read();
    assert_eq!(read.videos.get(0).weak[..], [ClassId(0)]);
    assert_eq!(read.videos.get(1).weak[..], [ClassId(1)]);
    let given = vec!["Speach".into(), "Cattle".into()];
    let read = Annotations::read_with_classes(folder.0.path(), Some(given)).unwrap();
    assert_eq!(read.videos.get(0).weak[..], [ClassId(1)]);
    folder.write("classes.txt", "Cattle\nCat\nCattle\n");
    assert_eq!(
        folder.error(),
        "class list `DIR/classes.txt`, row 3: class `Cattle` is that of row 1, expected each once"
    );
    folder.write("classes.txt", "\n");
    assert_eq!(
        folder.error(),
        "class list `DIR/classes.txt`, row 0: no class, expected one name a line"
    );
    std::fs::remove_file(folder.path("classes.txt")).unwrap();
    folder.write("AVVP_train.csv", "filename\tevent_labels\nB_0_1\tSpeach\n");
    assert_eq!(folder.read().rejects.len(), 1);
}

#[test]
fn the_full_list_is_only_compared() {
    let folder = Folder::new();
    folder.write(
        "AVVP_dataset_full.csv",
        "filename\tevent_labels\nVVVVVVVVVVV_0_10\tCat\nTTTTTTTTTTT_0_10\tCar\nMore_0_1\tCar\nbroken\n",
    );
    assert_eq!(
        folder.complaints(),
        [
            "Note AVVP_dataset_full.csv:5 -: line has 1 fields, expected 2",
            "Note AVVP_dataset_full.csv:3 TTTTTTTTTTT_0_10: label differs from that of `AVVP_test_pd.csv`, which \
             counts",
            "Note AVVP_dataset_full.csv:4 More_0_1: video of no split, not read",
        ]
    );
    assert_eq!(folder.read().videos.len(), 4);
}

#[test]
fn the_public_llp_files_are_read_whole_with_each_quirk_noted() {
    let Some(shared) = crate::ingest::shared("the_public_llp_files_are_read_whole_with_each_quirk_noted")
    else {
        return;
    };
    let read = Annotations::read(&shared.join("llp")).unwrap();
    let order = std::fs::read_to_string(shared.join("golden/eval/classes.txt")).unwrap();
    assert!(order.lines().eq(read.classes.iter().map(|class| &**class)));
    let of = |split| read.videos.iter().filter(|video| video.split == split).count();
    assert_eq!(Split::ALL.map(of), [10_000, 649, 1_200]);
    for (split, file) in [(Split::Val, "val"), (Split::Test, "test")] {
        let names = std::fs::read_to_string(shared.join(format!("golden/eval/{file}_videos.txt"))).unwrap();
        let ours = read
            .videos
            .iter()
            .filter(|video| video.split == split)
            .map(|video| video.name);
        assert!(names.lines().eq(ours));
    }
    assert!(
        read.videos
            .iter()
            .all(|video| split_name(video.name).is_some_and(|(id, ..)| id.len() == 11))
    );
    assert!(
        read.rejects
            .iter()
            .all(|reject| reject.severity == Severity::Note)
    );
    let noted = |file: &str, part: &str| {
        read.rejects
            .iter()
            .filter(|reject| reject.file.ends_with(file) && reject.reason.contains(part))
            .count()
    };
    assert_eq!(noted("", "is not before offset"), 6);
    assert_eq!(noted("audio.csv", "video of no split"), 8);
    assert_eq!(noted("visual.csv", "video of no split"), 7);
    assert_eq!(noted("", "`Clapping` twice"), 1);
    assert_eq!(noted("", "outside the weak label"), 54);
    assert_eq!(read.rejects.len(), 6 + 15 + 1 + 54);
    // The audio file has 4131 rows: 14 are of no split, and 5 more are no events. The visual file has 2496 rows: 11
    // are of no split, and 1 more is no event.
    assert_eq!(read.events.len(), (4_131 - 14 - 5) + (2_496 - 1 - 11));
}
