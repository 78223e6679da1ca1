//! Own training beside the deliveries.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use vaplan::ingest::npy;
use vaplan_schemas::rows::LabelRule;

use super::harness::Watch;
use crate::run::{config, flipped_by, tables};
use crate::support::{assert_status, run, stderr, vaplan};
use crate::train::TrainingSample;

/// Three epochs of a second or less; after the first and the second labels are denoised, for little.
const SMALL: &str = "[train]\nepochs = 3\nhidden = 16\nfeedforward = 16\nlearning_rate = 0.01\n\
                     [denoise]\nschedule = 'every'\nevery = 1\nwarmup = 1\nalpha = 1.05\nguard = 0.3\n";

/// A labelled store, and a file that says how to train beside it.
struct WatchedStore {
    sample: TrainingSample,
    file: String,
}

impl WatchedStore {
    fn new(settings: &str) -> WatchedStore {
        let sample = TrainingSample::new("1");
        let file = config(&sample, "store", settings);
        std::fs::create_dir(sample.path("inbox")).unwrap();
        WatchedStore { sample, file }
    }

    fn watch(&self, fault: Option<&str>) -> Watch {
        let status = Path::new(&self.sample.path("status.json")).to_owned();
        drop(std::fs::remove_file(&status));
        let mut command = vaplan();
        command
            .args(["watch", "--workers", "2", "--threads", "1", "--train", &self.file])
            .args(["--store", &self.store(), "--inbox", &self.sample.path("inbox")])
            .arg("--status")
            .arg(&status)
            .env_remove("OMP_WAIT_POLICY")
            .envs(fault.map(|place| ("VAPLAN_FAULT", place)));
        Watch::start(command, status)
    }

    fn store(&self) -> String {
        self.sample.path("store")
    }

    fn deliver(&self, name: &str, content: &str) {
        let beside = self.sample.path("inbox/.beside");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(&beside, self.sample.path(&format!("inbox/{name}"))).unwrap();
    }

    /// Probabilities of the visual labels of one video, all the same, as an epoch from outside.
    fn deliver_epoch(&self, name: &str, video: &str, probability: f32) {
        let beside = self.sample.path("inbox/.unfinished");
        std::fs::create_dir_all(format!("{beside}/visual")).unwrap();
        let file = format!("{beside}/visual/{video}.npy");
        npy::write_f32(Path::new(&file), &[10, 25], &[probability; 250]).unwrap();
        std::fs::rename(&beside, self.sample.path(&format!("inbox/{name}"))).unwrap();
    }
}

#[test]
fn own_epochs_and_those_from_outside_go_through_the_same_denoising() {
    let place = WatchedStore::new(SMALL);
    let watch = place.watch(None);
    watch.line("denoised by epoch 1");
    watch.line("denoised by epoch 2");
    watch.line("trained: the best is epoch");
    watch.line("training rests: all there is was learnt");
    assert_eq!(flipped_by(&tables(&place.store()).labels), BTreeSet::from([2]));
    let own = tables(&place.store());
    assert_eq!(own.epochs.len(), 3);
    let learnt: Vec<u64> = own.epochs.iter().map(|row| row.labels).collect();
    assert!(
        learnt.is_sorted_by(|a, b| a < b),
        "each learns what the one before denoised: {learnt:?}"
    );

    // From outside: what counts of this video is this, of the others what counted.
    let video = own
        .labels
        .iter()
        .find(|track| track.iter().any(|cell| cell.rule == LabelRule::Pld));
    let video = video.expect("one with a flip").video.to_string();
    place.deliver_epoch("epoch-0100", &video, 0.5);
    watch.line("epoch-0100");
    // It changed labels, so there is something to learn: a training from the start.
    watch.line("denoised by epoch 102");
    watch.line("trained: the best is epoch 10");
    watch.line("training rests: all there is was learnt");
    let status = watch.stop();
    assert_eq!(
        (&status["epochs"], &status["loads"]),
        (&Value::from(6), &Value::from(1))
    );
    assert_eq!(status["training"], "at rest: all there is was learnt");
    let after = tables(&place.store());
    let trainings: BTreeSet<&str> = after.epochs.iter().map(|row| &*row.run).collect();
    assert_eq!((after.epochs.len(), trainings.len()), (6, 2));
    assert_eq!(flipped_by(&tables(&place.store()).labels), BTreeSet::from([102]));

    assert_status(&run(["check", "--store", &place.store()]), 0);
    place.sample.label_anew("store");
    assert_eq!(
        tables(&place.store()).labels,
        after.labels,
        "incremental is batch"
    );
}

#[test]
fn a_transformer_trains_beside_the_deliveries() {
    let settings = SMALL.replace(
        "[train]\n",
        "[train]\nnetwork = 'transformer'\nlayers = 1\nheads = 2\n",
    );
    let place = WatchedStore::new(&settings);
    let watch = place.watch(None);
    watch.line("denoised by epoch 2");
    watch.line("trained: the best is epoch");
    watch.line("training rests: all there is was learnt");
    let own = tables(&place.store());
    assert_eq!(own.epochs.len(), 3);
    // A person's label is learnt by a new training of the same network.
    let (video, class) = (&own.labels[0].video, &own.labels[0].class);
    let content = format!(
        "video,modality,class,label,onset,offset\n{video},audio,{class},1,0,5\n{video},audio,{class},0,5,10\n"
    );
    place.deliver("a.user.csv", &content);
    watch.line("; a.user.csv");
    watch.line("trained: the best is epoch");
    watch.line("training rests: all there is was learnt");
    watch.stop();
    let after = tables(&place.store());
    let trainings: BTreeSet<&str> = after.epochs.iter().map(|row| &*row.run).collect();
    assert_eq!((after.epochs.len(), trainings.len()), (6, 2));
    let folders = std::fs::read_dir(place.sample.path("store/_vaplan/train/watch")).unwrap();
    let checkpoints =
        folders.filter_map(|entry| std::fs::read(entry.unwrap().path().join("best.safetensors")).ok());
    let headers = checkpoints.map(|bytes| String::from_utf8_lossy(&bytes[8..4000]).into_owned());
    let named = headers.map(|header| header.contains(r#""network":"transformer""#));
    assert!(named.collect::<Vec<_>>().iter().all(|named| *named));
    assert_status(&run(["check", "--store", &place.store()]), 0);
}

#[test]
fn killed_anywhere_a_training_goes_on_to_what_it_would_have_been() {
    let (whole, killed) = (WatchedStore::new(SMALL), WatchedStore::new(SMALL));
    let watch = whole.watch(None);
    watch.line("training rests: all there is was learnt");
    watch.stop();
    let mut places = Vec::new();
    // A place of the disk each, ever later, so that it gets on.
    let done = (1..).map(|nth| nth * nth).find(|place: &u64| {
        let watch = killed.watch(Some(&place.to_string()));
        places.push(*place);
        let done = watch
            .line_or_end("training rests: all there is was learnt")
            .is_some();
        if done {
            watch.stop();
        }
        done
    });
    println!("killed at {places:?}");
    assert!(done.is_some() && places.len() > 5, "{places:?}");
    let (wanted, mut found) = (tables(&whole.store()), tables(&killed.store()));
    let runs: BTreeSet<&str> = found.epochs.iter().map(|row| &*row.run).collect();
    assert_eq!(runs.len(), 1);
    for (own, wanted) in found.epochs.iter_mut().zip(&wanted.epochs) {
        // Named by the version it began at, which is the same, and by the folders of its features.
        own.run.clone_from(&wanted.run);
    }
    assert_eq!(found.epochs, wanted.epochs);
    // The rest names its folder.
    assert_eq!((found.versions, found.labels), (wanted.versions, wanted.labels));
    assert_eq!(found.changes, wanted.changes);
    assert_eq!(
        (found.predictions, found.videos),
        (wanted.predictions, wanted.videos)
    );
}

#[test]
fn a_signal_is_heeded_while_another_process_has_the_store() {
    // One that does not end before the store is held.
    let place = WatchedStore::new(&SMALL.replace("epochs = 3", "epochs = 100000"));
    let watch = place.watch(None);
    watch.line("epoch 1: ");
    let store = vaplan_schemas::store::Store::open(Path::new(&place.store())).unwrap();
    let held = store.lock(&mut |_| ()).unwrap();
    watch.line("waiting: the store is being written by");
    // Something that would wait for the store, too.
    place.deliver("a.thresholds.toml", "[visual.classes]\nSpeech = 1.1\n");
    watch.stop();
    drop(held);
}

#[test]
fn what_another_process_changes_is_learnt_by_a_training_at_rest() {
    let place = WatchedStore::new(&SMALL.replace("epochs = 3", "epochs = 1"));
    let watch = place.watch(None);
    watch.line("training rests: all there is was learnt");
    let before = tables(&place.store()).epochs.len();
    let relabel = [
        "relabel",
        "--quiet",
        "--store",
        &place.store(),
        "--audio-threshold",
        "1.1",
    ];
    assert_status(&run(relabel), 0);
    watch.line(&format!("epoch {}: ", before + 1));
    watch.line("training rests: all there is was learnt");
    // One at a time.
    let second = [
        "watch",
        "--store",
        &place.store(),
        "--inbox",
        &place.sample.path("inbox2"),
        "--train",
        &place.file,
    ];
    let second = run(second);
    assert_status(&second, 2);
    assert!(stderr(&second).contains("is locked by another `watch --train`"));
    watch.stop();
}

#[test]
fn a_signal_ends_a_training_in_the_middle_of_an_epoch() {
    let place = WatchedStore::new(&SMALL.replace("epochs = 3", "epochs = 100000"));
    let watch = place.watch(None);
    watch.line("denoised by epoch 2");
    // What trains gives the cores back while it waits.
    assert_eq!(watch.variable("OMP_WAIT_POLICY").as_deref(), Some("PASSIVE"));
    let status = watch.stop();
    assert!(status["epochs"].as_u64().unwrap() >= 2, "{status}");
    let before = tables(&place.store()).epochs.len() as u64;
    let watch = place.watch(None);
    // The same training: its next epoch is the next of the store.
    watch.line(&format!("epoch {}: ", before + 1));
    watch.stop();
    let runs: BTreeSet<String> = tables(&place.store())
        .epochs
        .iter()
        .map(|row| row.run.to_string())
        .collect();
    assert_eq!(runs.len(), 1);
}

#[test]
fn a_delivery_is_learnt_by_the_next_epoch() {
    let place = WatchedStore::new(
        &SMALL
            .replace("epochs = 3", "epochs = 100000")
            .replace("'every'", "'off'"),
    );
    let watch = place.watch(None);
    watch.line("epoch 1: ");
    let labels = tables(&place.store()).labels;
    let track = labels
        .iter()
        .find(|track| track.modality.as_str() == "audio")
        .unwrap();
    let content = format!(
        "video,modality,class,label,onset,offset\n{},audio,{},1,0,10\n",
        track.video, track.class
    );
    place.deliver("a.user.csv", &content);
    let version = watch.line("; a.user.csv");
    let version: u64 = version["version ".len()..version.find(':').unwrap()]
        .parse()
        .unwrap();
    let epoch = tables(&place.store()).epochs.len();
    watch.line(&format!("epoch {}: ", epoch + 2));
    watch.stop();
    let epochs = tables(&place.store()).epochs;
    assert!(epochs.last().unwrap().labels >= version, "{epochs:?}");
    assert_eq!(epochs[0].labels, 1);
}

#[test]
fn a_file_that_asks_for_what_cannot_be_is_refused_before_anything_is_loaded() {
    let place = WatchedStore::new("[train]\nepochs = 1\n");
    let refused = |file: &str| {
        let inbox = place.sample.path("inbox");
        let watch = [
            "watch",
            "--store",
            &place.store(),
            "--inbox",
            &inbox,
            "--train",
            file,
        ];
        let output = run(watch);
        assert_status(&output, 2);
        stderr(&output).to_owned()
    };
    let once = refused(&place.file);
    assert!(
        once.contains("schedule is `once`, expected `every` or `off`"),
        "{once}"
    );
    let other = refused(&config(&place.sample, "other", SMALL));
    assert!(other.contains("expected the one that is watched"), "{other}");
}
