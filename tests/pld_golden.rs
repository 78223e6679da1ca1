//! PLD against numbers from outside this project: losses, and labels after PLD equal in every cell.

use vaplan::ingest::npy;
use vaplan_dataflows::decide::{Denoising, PlgTrack, decide_track};
use vaplan_dataflows::pld::forward_loss;
use vaplan_dataflows::{Bits, DenoisingRule, Prediction, Probability};
use vaplan_schemas::{ClassId, Modality};

use crate::support::golden_path;

const VIDEOS: usize = 64;
const SEGMENTS: usize = 10;
const CLASSES: usize = 25;

fn floats(name: &str) -> Vec<f32> {
    npy::read_floats(&golden_path(&format!("labels/{name}.npy")))
        .unwrap()
        .data
}

fn ints(name: &str) -> Vec<i64> {
    npy::read_ints(&golden_path(&format!("labels/{name}.npy")))
        .unwrap()
        .data
}

#[test]
fn forward_losses_equal_the_golden_ones() {
    let (probabilities, labels) = (floats("pld_probability"), ints("plg_softmax_0_041"));
    let golden = floats("pld_forward_loss");
    assert_eq!(golden.len(), VIDEOS * SEGMENTS * CLASSES);
    for (cell, wanted) in golden.iter().enumerate() {
        let loss = forward_loss(Probability::new(probabilities[cell]), labels[cell] == 1).unwrap();
        let error = (loss - f64::from(*wanted)).abs();
        assert!(
            error <= 1e-6 * f64::from(*wanted).max(1e-6),
            "cell {cell}: {loss}, wanted {wanted}"
        );
    }
}

/// Labels (N, T, C) after PLD of the classes of the weak label, and how many of them flipped.
fn denoised(settings: DenoisingRule) -> (Vec<i64>, usize) {
    let (probabilities, allowed) = (floats("pld_probability"), ints("video_label"));
    let mut labels = ints("plg_softmax_0_041");
    let mut count = 0;
    for video in 0..VIDEOS {
        for class in (0..CLASSES).filter(|class| allowed[video * CLASSES + class] == 1) {
            let cells: Vec<usize> = (0..SEGMENTS)
                .map(|segment| (video * SEGMENTS + segment) * CLASSES + class)
                .collect();
            let track: Bits = cells.iter().map(|&cell| labels[cell] == 1).collect();
            let own: Vec<Probability> = cells
                .iter()
                .map(|&cell| Probability::new(probabilities[cell]))
                .collect();
            let id = ClassId(class as u32);
            let prediction = Prediction::new(1, SEGMENTS as u32, vec![id], own);
            let denoising = Denoising {
                prediction: prediction.into(),
                rule: settings,
            };
            let track = PlgTrack {
                class: id,
                label: track,
                margins: None,
            };
            let (decided, rejection) = decide_track(Modality::Visual, track, Some(&denoising));
            assert_eq!(rejection, None);
            for (segment, &cell) in cells.iter().enumerate() {
                labels[cell] = i64::from(decided.label.get(segment));
                count += usize::from(decided.flip(segment).is_some());
            }
        }
    }
    (labels, count)
}

#[test]
fn denoised_labels_equal_the_golden_ones_in_every_cell() {
    // Counts as in ../shared/golden/expected.json.
    for (name, k, alpha, guard, flips) in [
        ("pld_k5_a10", 5, 10.0, 0.0, 178),
        ("pld_k5_a4", 5, 4.0, 0.0, 458),
        ("pld_k3_a2", 3, 2.0, 0.0, 1112),
        ("pld_k10_a3", 10, 3.0, 0.0, 128),
        ("pld_k1_a20", 1, 20.0, 0.0, 505),
        ("pld_k5_a10_g0.5", 5, 10.0, 0.5, 155),
        ("pld_k3_a2_g0.5", 3, 2.0, 0.5, 187),
        ("pld_k5_a4_g0.8", 5, 4.0, 0.8, 100),
    ] {
        let (labels, count) = denoised(DenoisingRule::pld(k, alpha, guard).unwrap());
        let golden = ints(name);
        let wrong = golden.iter().zip(&labels).filter(|(a, b)| a != b).count();
        assert_eq!((golden.len(), wrong, count), (labels.len(), 0, flips), "{name}");
    }
}
