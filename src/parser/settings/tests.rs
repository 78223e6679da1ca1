//! Tests of the settings of a training.

use super::*;

#[test]
fn schedules_go_as_they_say() {
    let mut settings = TrainSettings::default();
    let rate = |settings: &TrainSettings, epoch, step| settings.rate(epoch, step, 4);
    assert_eq!(rate(&settings, 10, 3), 3e-4);
    assert!((rate(&settings, 11, 0) - 3e-5).abs() < 1e-12);
    assert!((rate(&settings, 40, 0) - 3e-7).abs() < 1e-12);
    settings.schedule = ScheduleName::Cosine;
    assert!(
        (rate(&settings, 1, 0) - 3e-4 / 20.0).abs() < 1e-12,
        "a quarter of the first of five"
    );
    assert_eq!(rate(&settings, 5, 3), 3e-4);
    assert!(rate(&settings, 40, 3).abs() < 1e-12);
    let half = 3e-4 * 0.5 * (1.0 + (std::f64::consts::PI * 0.5_f64).cos());
    assert!((rate(&settings, 23, 1) - half).abs() < 1e-12);
}

#[test]
fn each_supervision_is_its_line_of_the_ablation() {
    let loss = |supervision: Supervision| supervision.loss();
    assert_eq!(loss(Supervision::Weak).targets, TargetName::Smoothed);
    assert_eq!(loss(Supervision::Weak).richness, 0.0);
    assert_eq!(loss(Supervision::Pseudo).targets, TargetName::Pseudo);
    assert_eq!(loss(Supervision::Pseudo).richness, 0.0);
    assert_eq!(loss(Supervision::Richness).richness, 0.5);
}

/// The text that the program wrote before networks had names. A hash of this text identifies trainings and
/// stages, so it must not change.
const BEFORE_NAMES: &str = r#"{"epochs":40,"batch":16,"seed":1,"task":"avvp","supervision":"pseudo+richness","targets":null,"richness":null,"segment":0.0,"optimizer":"adam","learning_rate":0.0003,"weight_decay":0.0,"schedule":"step","step_epochs":10,"step_factor":0.1,"warmup_epochs":5,"clip":null,"hidden":512,"feedforward":512,"layers":1,"heads":1,"dropout":0.1,"best_split":"val","best_gate":"fused","best_metric":null,"predictions":["val"],"best_predictions":["train","val","test"]}"#;

#[test]
fn settings_of_han_read_and_are_identified_as_before_networks_had_names() {
    let before = TrainSettings {
        richness_classes: Some(RichnessClasses::Weak),
        feature_dropout: 0.0,
        weight_average: 0.0,
        ..TrainSettings::default()
    };
    assert_eq!(before.identity(), BEFORE_NAMES);
    let read: TrainSettings = serde_json::from_str(BEFORE_NAMES).unwrap();
    assert_eq!(read, TrainSettings::default());
    let flat: TrainSettings = toml::from_str("hidden = 64\nepochs = 3\ndropout = 0\n").unwrap();
    let named: TrainSettings =
        toml::from_str("network = \"han\"\nepochs = 3\nhidden = 64\ndropout = 0.0\n").unwrap();
    assert_eq!(flat, named);
    assert_eq!(flat.identity(), named.identity());
    assert!(
        flat.identity()
            .contains(r#""hidden":64,"feedforward":512,"layers":1,"heads":1,"dropout":0.0,"#)
    );
    assert_eq!((flat.epochs, flat.batch), (3, 16));
}

#[test]
fn a_loss_over_all_classes_is_named_in_the_identity_and_a_loss_without_richness_is_not() {
    let identity = |text: &str| toml::from_str::<TrainSettings>(text).unwrap().identity();
    let all = identity("");
    assert!(all.contains(r#""richness_classes":"all""#), "{all}");
    assert_eq!(identity("richness_classes = \"all\"\n"), all);
    let weak = identity("richness_classes = \"weak\"\n");
    assert!(!weak.contains("richness_classes"), "{weak}");
    assert_eq!(
        identity("task = \"ave\"\nrichness_classes = \"weak\"\n"),
        identity("task = \"ave\"\n")
    );
    // Trainings without richness terms are the same as before the key existed.
    for supervision in ["weak", "pseudo"] {
        let plain = identity(&format!("supervision = \"{supervision}\"\n"));
        assert!(!plain.contains("richness_classes"), "{plain}");
        let named = format!("supervision = \"{supervision}\"\nrichness_classes = \"all\"\n");
        assert_eq!(identity(&named), plain);
    }
}

#[test]
fn a_network_that_is_not_there_and_a_key_of_another_network_are_refused_by_name() {
    let refused = |text: &str| toml::from_str::<TrainSettings>(text).unwrap_err().to_string();
    let refusal = refused("network = \"hat\"\n");
    assert!(refusal.contains("network is `hat`, expected `han`"), "{refusal}");
    let refusal = refused("network = 3\n");
    assert!(
        refusal.contains("network is 3, expected the name of a network"),
        "{refusal}"
    );
    let refusal = refused("epochs = 3\nlayer = 2\n");
    assert!(
        refusal.contains("line 2") && refusal.contains("unknown field `layer`"),
        "{refusal}"
    );
    assert!(
        refusal.contains("`network`") && refusal.contains("`layers`"),
        "{refusal}"
    );
    let refusal = refused("epochs = 3\nhidden = \"wide\"\n");
    assert!(
        refusal.contains("hidden: invalid type: string \"wide\""),
        "{refusal}"
    );
}

#[test]
fn a_number_out_of_range_and_an_unknown_key_are_refused_with_what_would_do() {
    let settings = TrainSettings {
        best_metric: Some("segment.typeav".to_owned()),
        ..TrainSettings::default()
    };
    let refused = settings.check().unwrap_err().to_string();
    assert!(refused.contains("(nearest: `segment.type_av`)"), "{refused}");
    let accuracy = |task| TrainSettings {
        task,
        best_metric: Some(ACCURACY.to_owned()),
        ..TrainSettings::default()
    };
    assert!(accuracy(Task::Avvp).check().is_err(), "only localization has it");
    assert!(accuracy(Task::Ave).check().is_ok());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    std::fs::write(&path, "epoch = 3\n").unwrap();
    let refused = TrainSettings::read(&path).unwrap_err().to_string();
    assert!(
        refused.contains("unknown field `epoch`, expected one of `epochs`"),
        "{refused}"
    );
    std::fs::write(
        &path,
        "epochs = 3\nsupervision = \"pseudo+richness\"\nclip = 1.0\n",
    )
    .unwrap();
    let read = TrainSettings::read(&path).unwrap();
    assert_eq!((read.epochs, read.clip, read.batch), (3, Some(1.0), 16));
}
