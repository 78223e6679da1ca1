//! The law: after any script of changes, the output equals that of a plain loop over the inputs, at every version
//! and with 1, 2 and 3 workers.

mod cover;
mod inputs;
mod learning;
mod oracle;
mod run;
mod script;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vaplan_dataflows::records::{Bits, Candidate, Cosine, FeatureHash, Score, ScoreRecord, SetBy, VideoId};
use vaplan_dataflows::{DenoisingRule, Prediction, Probability};
use vaplan_schemas::{ClassId, Modality};

use crate::cover::GraphCoverage;
use crate::inputs::{GraphChange, GraphInputs};
use crate::oracle::{LabelRecords, answers};
use crate::run::{ScriptOptions, run};
use crate::script::{Script, script};

/// How many scripts are run.
const CASES: u32 = 512;

#[test]
fn every_version_is_what_the_plain_loop_says_for_1_2_and_3_workers_with_a_restart_anywhere() {
    let cases = match std::env::var("VAPLAN_SOAK") {
        Ok(cases) => cases.parse().expect("VAPLAN_SOAK is a number of cases"),
        Err(_) => CASES,
    };
    let cover = GraphCoverage::default();
    let config = ProptestConfig {
        cases,
        // A failing script is printed; what it taught belongs in a test of its own.
        failure_persistence: None,
        // Each step of shrinking runs three sessions.
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    // No restart where it falls behind the end.
    let how = (1..8usize, any::<bool>());
    let law = |(script, (restart, whole)): (Script, (usize, bool))| {
        let versions = script.versions();
        let expected = answers(&versions, &LabelRecords::new());
        for workers in 1..=3 {
            let how = ScriptOptions {
                workers,
                restart,
                whole,
            };
            let found = run(&versions, how);
            for (version, (found, expected)) in found.iter().zip(&expected).enumerate() {
                prop_assert_eq!(found, expected, "version {}, {} workers", version, workers);
            }
            prop_assert_eq!(found.len(), expected.len());
        }
        cover.count("cases", 1);
        cover.count("restarts", usize::from(restart < versions.len()));
        cover.see(&expected);
        Ok(())
    };
    if let Err(broken) = TestRunner::new(config).run(&(script(), how), law) {
        panic!("{broken}");
    }
    cover.report();
}

#[test]
fn a_person_outranks_denoising_and_denoising_outranks_the_scores() {
    let (video, class) = (VideoId(9), ClassId(1));
    let quarters = |values: [i32; 4]| values.map(|value| Score::new(f64::from(value) / 4.0).unwrap());
    let candidate = |modality, scores| Candidate {
        modality,
        source: "a.npy".into(),
        record: Arc::new(ScoreRecord::new(
            4,
            vec![class],
            vec![Cosine::new(0.0); 4],
            quarters(scores).to_vec(),
        )),
        features: FeatureHash::default(),
    };
    let sure_of_none_but_the_last = [0.01, 0.01, 0.01, 0.99].map(Probability::new);
    let steps = [
        GraphChange::Introduce(class, Score::new(0.5).unwrap()),
        GraphChange::Weak(video, Some(vec![class])),
        // 0.5 is on the threshold, so it is no label.
        GraphChange::Add(video, candidate(Modality::Audio, [3, 2, 3, 3])),
        GraphChange::Add(video, candidate(Modality::Visual, [3, 3, 1, 1])),
        GraphChange::Predict(
            video,
            Modality::Visual,
            Prediction::new(7, 4, vec![class], sure_of_none_but_the_last.to_vec()),
        ),
        GraphChange::Denoise(Modality::Visual, Some(DenoisingRule::pld(1, 10.0, 0.5).unwrap())),
        GraphChange::UserLabelTrack {
            video,
            modality: Modality::Visual,
            class,
            from: 0,
            to: 1,
            label: true,
        },
    ];
    let inputs = steps.into_iter().fold(GraphInputs::default(), GraphInputs::after);
    let how = ScriptOptions {
        workers: 1,
        restart: 0,
        whole: false,
    };
    let answer = run(&[inputs], how).remove(0);
    let shown = |bits: &Bits| format!("{bits:?}");
    let audio = &answer.labels[&(video, Modality::Audio)].tracks[0];
    let visual = &answer.labels[&(video, Modality::Visual)].tracks[0];
    assert_eq!(
        [&audio.label, &audio.pld, &audio.user].map(shown),
        ["1011", "", ""]
    );
    // PLG says 1100; PLD flips segments 0, 1 and 3; a person holds segment 0.
    assert_eq!(
        [&visual.label, &visual.pld, &visual.user].map(shown),
        ["1001", "0101", "1000"]
    );
    assert_eq!(visual.denoised.as_ref().unwrap().losses.len(), 2);
    assert_eq!(shown(&answer.audio_visual[&video].tracks[0].label), "1001");
    let rules: Vec<SetBy> = answer.changes.iter().map(|change| change.rule).collect();
    assert_eq!(
        rules,
        [SetBy::Plg, SetBy::Plg, SetBy::Plg, SetBy::User, SetBy::Pld]
    );
}
