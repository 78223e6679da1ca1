//! Cosines against a plain loop in f64, and the same bits whatever shares the batch.

use std::sync::Arc;

use proptest::prelude::*;
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::similarity::{PromptEmbeddings, RowRejection, SegmentBatch, Span};
use vaplan_dataflows::{FeatureHash, VideoId};
use vaplan_schemas::{ClassId, Modality};

/// Values without a pattern, from a seed: large shapes are slow to draw one by one.
fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed | 1;
    let draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(draw).take(count).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn cosines_are_those_of_a_plain_loop_and_do_not_depend_on_the_batch(
        seed in any::<u64>(),
        rows in 1..70usize,
        classes in 1..40usize,
        width in prop_oneof![1..40usize, Just(512usize), 250..1100usize],
        scale in prop_oneof![Just(1.0f32), Just(1e-25), Just(1e25)],
        split in 0..70usize,
    ) {
        let segments: Vec<f32> = values(seed, rows * width).into_iter().map(|value| value * scale).collect();
        let texts = values(seed ^ 0x5555, classes * width);
        let prompts = PromptEmbeddings::new(&texts, width, Rule::Softmax { scale: 1.0 }).unwrap();
        let (whole, rejections) = prompts.cosines(&segments);
        prop_assert!(rejections.is_empty());
        for (row, segment) in segments.chunks(width).enumerate() {
            for (class, text) in texts.chunks(width).enumerate() {
                let (is, wanted) = (f64::from(whole[row * classes + class]), cosine(segment, text));
                prop_assert!((is - wanted).abs() < 2e-6, "row {row} class {class}: {is} {wanted}");
            }
        }
        let (head, tail) = segments.split_at(split.min(rows) * width);
        let mut parts = prompts.cosines(head).0;
        parts.extend(prompts.cosines(tail).0);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&whole), bits(&parts));
    }

    #[test]
    fn softmax_scores_add_up_to_one_and_keep_the_order(
        cosines in proptest::collection::vec(-1.0f32..1.0, 1..50),
        scale in 0.1f64..1000.0,
    ) {
        let mut scores = vec![0.0; cosines.len()];
        Rule::Softmax { scale }.score(&cosines, &mut scores);
        prop_assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        for (a, b) in (0..cosines.len()).zip(1..cosines.len()) {
            prop_assert!(cosines[a] <= cosines[b] || scores[a] >= scores[b]);
        }
    }
}

#[test]
fn a_faulty_row_is_named_by_its_row_in_the_file_and_costs_its_video_only() {
    let prompts = PromptEmbeddings::new(&[1.0, 0.0, 0.0, 1.0], 2, Rule::Logit { scale: 10.0 }).unwrap();
    let span = |video, row| Span {
        video: VideoId(video),
        segments: 2,
        weak: [ClassId(1)].into(),
        source: Arc::from("shard.parquet"),
        row,
        features: FeatureHash::default(),
    };
    let batch = SegmentBatch {
        modality: Modality::Audio,
        data: vec![3.0, 4.0, 0.0, 2.0, 1.0, 1.0, 1.0, f32::NAN, 0.0, 0.0, 1.0, 1.0],
        spans: vec![span(1, 40), span(2, 42), span(3, 44)],
    };
    let verdicts = prompts.score(&batch);
    let record = verdicts[0].as_ref().unwrap();
    let scores: Vec<f64> = record.score_of(0).iter().map(|score| score.get()).collect();
    assert!(
        (scores[0] - 8.0).abs() < 1e-6 && (scores[1] - 10.0).abs() < 1e-6,
        "{scores:?}"
    );
    let (row, rejection) = verdicts[1].as_ref().unwrap_err();
    assert_eq!(
        (*row, rejection.to_string().as_str()),
        (43, "feature[1] is NaN, expected a finite number")
    );
    assert_eq!(verdicts[2], Err((44, RowRejection::Zero)));
}

#[test]
fn prompts_refuse_a_row_without_a_direction() {
    let refused = PromptEmbeddings::new(&[1.0, 0.0, 0.0, 0.0], 2, Rule::Softmax { scale: 1.0 }).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "text embedding of class 1: feature is all zero, expected a vector with a direction"
    );
}
