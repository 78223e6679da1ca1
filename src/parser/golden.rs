//! Compares the network and its loss with the values that the public PyTorch code gave (`../shared/golden/han`).

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::han::Han;
use super::loss::{LossConfig, RichnessClasses, RichnessTerms, TERMS, TargetName, Targets};
use super::optimizer::{Adam, AdamConfig, gradients};
use super::{Network, NetworkSizes, Parser, ParserInputs, ParserOutputs, Weights};

/// The loss that the golden values are of.
const WEAK_CLASSES: LossConfig = LossConfig {
    targets: TargetName::Pseudo,
    richness: 0.5,
    classes: RichnessClasses::Weak,
    richness_terms: RichnessTerms::Both,
    segment: 0.0,
};

/// A softmax does not depend on its bias, so the gradients of these biases are rounding errors, about 1e-8, in both
/// programs.
const NO_GRADIENT: [&str; 2] = ["fc_frame_att.bias", "fc_av_att.bias"];

struct Golden {
    han: Han,
    inputs: ParserInputs,
    targets: Targets,
    expected: Weights,
    numbers: serde_json::Value,
}

fn golden(test: &str) -> Option<Golden> {
    tch::set_num_threads(1);
    let folder = crate::ingest::shared(test)?.join("golden/han");
    let mut weights = Weights::read(&folder.join("weights.safetensors")).unwrap();
    let han = Han::load(&mut weights, Device::Cpu).unwrap();
    let sizes = NetworkSizes {
        audio: 128,
        visual: 2048,
        clips: Some(512),
        classes: 25,
    };
    assert_eq!(*han.sizes(), sizes);
    assert_eq!(weights.tensors.keys().count(), 0, "every tensor is a parameter");
    let mut given = Weights::read(&folder.join("inputs.safetensors")).unwrap();
    let mut take = |name: &str| given.take(name).unwrap();
    let visual = take("visual"); // [4, 80, 2048]
    let inputs = ParserInputs {
        audio: take("audio"),
        visual: visual.view([4, 10, 8, 2048]).mean_dim(2, false, None::<Kind>),
        clips: Some(take("visual_st")),
        padding: None,
    };
    let targets = Targets {
        audio: take("pseudo_audio"),
        visual: take("pseudo_visual"),
        weak: take("video_label"),
        within: None,
    };
    let numbers = std::fs::read(folder.join("expected.json")).unwrap();
    Some(Golden {
        han,
        inputs,
        targets,
        expected: Weights::read(&folder.join("expected.safetensors")).unwrap(),
        numbers: serde_json::from_slice(&numbers).unwrap(),
    })
}

fn largest(tensor: &Tensor) -> f64 {
    f64::try_from(tensor.abs().max()).unwrap()
}

fn close(name: &str, found: f64, expected: &serde_json::Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= 1e-4 * expected.abs(),
        "{name}: {found}, expected {expected}"
    );
}

fn segments(outputs: &ParserOutputs) -> Tensor {
    Tensor::stack(&[&outputs.segment_audio, &outputs.segment_visual], 2)
}

#[test]
fn outputs_are_those_of_the_public_network() {
    let Some(golden) = golden("the network's golden outputs") else {
        return;
    };
    let outputs = golden.han.forward(&golden.inputs, None);
    let pairs = [
        ("segment_prob", segments(&outputs)),
        ("video_prob", outputs.video),
        ("audio_prob", outputs.audio),
        ("visual_prob", outputs.visual),
    ];
    for (name, found) in pairs {
        let difference = largest(&(found - &golden.expected.tensors[name]));
        assert!(difference < 1e-5, "{name} differs by {difference}");
    }
}

#[test]
fn every_loss_term_and_gradient_is_that_of_pytorch() {
    let Some(golden) = golden("golden losses and gradients") else {
        return;
    };
    let expected = &golden.numbers["losses"];
    let outputs = golden.han.forward(&golden.inputs, None);
    let loss = WEAK_CLASSES.loss(&outputs, &golden.targets);
    let terms: BTreeMap<&str, f64> = TERMS
        .into_iter()
        .zip(loss.terms.iter().map(|term| f64::try_from(term).unwrap()))
        .collect();
    let basic = terms["video"] + terms["audio"] + terms["visual"];
    close("basic_pseudo", basic, &expected["basic_pseudo"]);
    let mut richness = 0.0;
    for (name, value) in &terms {
        if name.contains("richness") {
            close(name, *value, &expected[name]);
            richness += value;
        }
    }
    close("richness", richness, &expected["richness"]);
    close("total", f64::try_from(&loss.total).unwrap(), &expected["total"]);

    let smoothed = LossConfig {
        targets: TargetName::Smoothed,
        richness: 0.0,
        ..WEAK_CLASSES
    };
    let smoothed = smoothed.loss(&outputs, &golden.targets).total;
    close(
        "basic_smoothed",
        f64::try_from(smoothed).unwrap(),
        &expected["basic_smoothed"],
    );

    let parameters = golden.han.trainable();
    let (gradients, _) = gradients(&loss.total, &parameters, None).unwrap();
    let norms = golden.numbers["grad_norms"].as_object().unwrap();
    assert_eq!(parameters.len(), norms.len());
    for ((name, _), gradient) in parameters.iter().zip(gradients) {
        let norm = f64::try_from(gradient.norm()).unwrap();
        if NO_GRADIENT.contains(&name.as_str()) {
            assert!(norm < 1e-6, "{name}: {norm}");
        } else {
            close(name, norm, &norms[name.as_str()]);
        }
    }
}

#[test]
fn five_steps_of_adam_are_those_of_pytorch() {
    let Some(golden) = golden("golden Adam steps") else {
        return;
    };
    let expected = &golden.numbers["adam"];
    let parameters = golden.han.trainable();
    let mut adam = Adam::new(AdamConfig::default());
    for step in 0..5 {
        let outputs = golden.han.forward(&golden.inputs, None);
        let loss = WEAK_CLASSES.loss(&outputs, &golden.targets).total;
        close(
            "loss",
            f64::try_from(&loss).unwrap(),
            &expected["total_loss"][step],
        );
        let (gradients, _) = gradients(&loss, &parameters, None).unwrap();
        adam.step(&parameters, &gradients, expected["lr"].as_f64().unwrap());
    }
    let norms = expected["param_norms_after"].as_object().unwrap();
    for (name, tensor) in &golden.han.weights().tensors {
        let norm = f64::try_from(tensor.norm()).unwrap();
        if NO_GRADIENT.contains(&name.as_str()) {
            // Adam divides one rounding error by another here. So each of the 25 elements can move by up to the
            // learning rate in each of 5 steps, in any direction.
            let expected = norms[name.as_str()].as_f64().unwrap();
            assert!(
                (norm - expected).abs() < 5.0 * 3e-4 * 25_f64.sqrt(),
                "{name}: {norm}"
            );
        } else {
            close(name, norm, &norms[name.as_str()]);
        }
    }
}

#[test]
fn averaging_the_frames_first_is_the_same_function() {
    let Some(golden) = golden("frames averaged first") else {
        return;
    };
    let folder = crate::ingest::shared("frames averaged first").unwrap();
    let mut given = Weights::read(&folder.join("golden/han/inputs.safetensors")).unwrap();
    let frames = given.take("visual").unwrap(); // [4, 80, 2048]
    let weights = golden.han.weights();
    let (weight, bias) = (&weights.tensors["fc_v.weight"], &weights.tensors["fc_v.bias"]);
    // As published: the linear map is applied to every frame, then the mean is taken.
    let after = frames
        .linear(weight, Some(bias))
        .view([4, 10, 8, 512])
        .mean_dim(2, false, None::<Kind>);
    let before = golden.inputs.visual.linear(weight, Some(bias));
    let scale = largest(&after);
    assert!(largest(&(after - before)) < 1e-6 * scale.max(1.0));
}

#[test]
fn a_padded_video_is_predicted_as_if_it_were_alone_and_weighs_nothing_past_its_end() {
    let Some(golden) = golden("padding") else { return };
    let alone = ParserInputs {
        audio: golden.inputs.audio.narrow(0, 0, 1).narrow(1, 0, 7),
        visual: golden.inputs.visual.narrow(0, 0, 1).narrow(1, 0, 7),
        clips: golden
            .inputs
            .clips
            .as_ref()
            .map(|x| x.narrow(0, 0, 1).narrow(1, 0, 7)),
        padding: None,
    };
    let padding = Tensor::zeros([4, 10], (Kind::Bool, Device::Cpu));
    let _ = padding.narrow(0, 0, 1).narrow(1, 7, 3).fill_(1);
    let padded = ParserInputs {
        padding: Some(padding.shallow_clone()),
        ..golden.inputs
    };
    let (one, many) = (
        golden.han.forward(&alone, None),
        golden.han.forward(&padded, None),
    );
    let first = |x: &Tensor| x.narrow(0, 0, 1);
    assert!(largest(&(&one.video - first(&many.video))) < 1e-6);
    assert!(largest(&(&one.visual - first(&many.visual))) < 1e-6);
    assert!(largest(&(&one.segment_audio - first(&many.segment_audio).narrow(1, 0, 7))) < 1e-6);

    // Compare the loss of the first video alone with its loss as the only video of a padded batch.
    let labels = |x: &Tensor| first(x).narrow(1, 0, 7);
    let short = Targets {
        audio: labels(&golden.targets.audio),
        visual: labels(&golden.targets.visual),
        weak: first(&golden.targets.weak),
        within: None,
    };
    let pad = |x: Tensor| x.constant_pad_nd([0, 0, 0, 3]);
    let long = Targets {
        audio: pad(labels(&golden.targets.audio)),
        visual: pad(labels(&golden.targets.visual)),
        weak: first(&golden.targets.weak),
        within: Some(first(&padding).logical_not().to_kind(Kind::Float)),
    };
    let both = ParserOutputs {
        segment_audio: first(&many.segment_audio),
        segment_visual: first(&many.segment_visual),
        audio: first(&many.audio),
        visual: first(&many.visual),
        video: first(&many.video),
    };
    let config = LossConfig {
        segment: 1.0,
        ..WEAK_CLASSES
    };
    let (short, long) = (config.loss(&one, &short), config.loss(&both, &long));
    for ((name, a), b) in TERMS.into_iter().zip(&short.terms).zip(&long.terms) {
        let (a, b) = (f64::try_from(a).unwrap(), f64::try_from(b).unwrap());
        assert!((a - b).abs() < 1e-5, "{name}: {a}, padded {b}");
    }
}
