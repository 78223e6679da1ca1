//! Network `transformer` against golden values of PyTorch (tests/golden/transformer).

use std::collections::BTreeMap;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::parser::network::{NetworkSizes, ParserInputs, ParserOutputs};
use crate::parser::optimizer::gradients;
use crate::parser::{Network as _, Noise, Parser as _, TemporalTransformer, TransformerSettings, Weights};

/// A softmax does not depend on its bias, so the gradients of these biases are rounding errors.
const NO_GRADIENT: [&str; 2] = ["segment_attention.bias", "modality_attention.bias"];

struct Golden {
    network: TemporalTransformer,
    inputs: ParserInputs,
    values: Value,
}

fn tensor(value: &Value) -> Tensor {
    let numbers = |key: &str| value[key].as_array().unwrap().iter();
    let shape: Vec<i64> = numbers("shape").map(|size| size.as_i64().unwrap()).collect();
    let values: Vec<f32> = numbers("values")
        .map(|value| value.as_f64().unwrap() as f32)
        .collect();
    Tensor::from_slice(&values).view(&*shape)
}

fn golden() -> Golden {
    tch::set_num_threads(1);
    let text = include_str!("../../../tests/golden/transformer/golden.json");
    let values: Value = serde_json::from_str(text).unwrap();
    let named = values["weights"].as_object().unwrap();
    let mut weights = Weights {
        tensors: named
            .iter()
            .map(|(name, value)| (name.clone(), tensor(value)))
            .collect(),
        metadata: BTreeMap::from([("heads".to_owned(), "2".to_owned())]),
    };
    let network = TemporalTransformer::load(&mut weights, Device::Cpu).unwrap();
    assert!(weights.tensors.is_empty(), "every tensor is a parameter");
    let padding: Vec<Vec<i64>> = serde_json::from_value(values["padding"].clone()).unwrap();
    let input = |name: &str| tensor(&values["inputs"][name]);
    let inputs = ParserInputs {
        audio: input("audio"),
        visual: input("visual"),
        clips: Some(input("clips")),
        padding: Some(
            Tensor::from_slice(&padding.concat())
                .view([2, 4])
                .to_kind(Kind::Bool),
        ),
    };
    Golden {
        network,
        inputs,
        values,
    }
}

fn named(outputs: &ParserOutputs) -> [(&'static str, &Tensor); 5] {
    [
        ("segment_audio", &outputs.segment_audio),
        ("segment_visual", &outputs.segment_visual),
        ("audio", &outputs.audio),
        ("visual", &outputs.visual),
        ("video", &outputs.video),
    ]
}

/// Values past the end of a video are undefined; they become 0.
fn within(inputs: &ParserInputs, output: &Tensor) -> Tensor {
    match (output.dim(), &inputs.padding) {
        (3, Some(padding)) => output.masked_fill(&padding.unsqueeze(-1), 0.0),
        _ => output.shallow_clone(),
    }
}

fn largest(tensor: &Tensor) -> f64 {
    f64::try_from(tensor.abs().max()).unwrap()
}

#[test]
fn outputs_and_gradients_are_those_of_pytorchs_modules() {
    let Golden {
        network,
        inputs,
        values,
    } = golden();
    let sizes = NetworkSizes {
        audio: 4,
        visual: 5,
        clips: Some(3),
        classes: 3,
    };
    assert_eq!(*network.sizes(), sizes);
    let outputs = network.forward(&inputs, None);
    let mut scalar = Tensor::zeros([], (Kind::Float, Device::Cpu));
    for (at, (name, output)) in named(&outputs).into_iter().enumerate() {
        let found = within(&inputs, output);
        let expected = within(&inputs, &tensor(&values["outputs"][name]));
        let difference = largest(&(&found - expected));
        assert!(difference < 2e-6, "{name} differs by {difference}");
        scalar += found.pow_tensor_scalar(2).sum(None::<Kind>) * (at as f64 + 1.0);
    }
    let parameters = network.trainable();
    let (gradients, _) = gradients(&scalar, &parameters, None).unwrap();
    let norms = values["gradient_norms"].as_object().unwrap();
    assert_eq!(parameters.len(), norms.len());
    for ((name, _), gradient) in parameters.iter().zip(gradients) {
        let norm = f64::try_from(gradient.norm()).unwrap();
        let expected = norms[name.as_str()].as_f64().unwrap();
        match NO_GRADIENT.contains(&name.as_str()) {
            true => assert!(norm < 1e-5 && expected < 1e-5, "{name}: {norm}"),
            // Every parameter learns.
            false => assert!(
                expected > 1e-4 && (norm - expected).abs() < 1e-4 * expected.max(0.1),
                "{name}: {norm}, expected {expected}"
            ),
        }
    }
}

#[test]
fn a_padded_video_is_predicted_as_if_it_were_alone() {
    let Golden { network, inputs, .. } = golden();
    let many = network.forward(&inputs, None);
    let alone = |x: &Tensor| x.narrow(0, 1, 1).narrow(1, 0, 3);
    let one = network.forward(
        &ParserInputs {
            audio: alone(&inputs.audio),
            visual: alone(&inputs.visual),
            clips: inputs.clips.as_ref().map(alone),
            padding: None,
        },
        None,
    );
    for ((name, one), (_, many)) in named(&one).into_iter().zip(named(&many)) {
        let many = match many.dim() {
            3 => alone(many),
            _ => many.narrow(0, 1, 1),
        };
        let difference = largest(&(one - many));
        assert!(difference < 1e-6, "{name} differs by {difference}");
    }
    // Without the padding, the fourth segment counts.
    let unpadded = ParserInputs {
        padding: None,
        ..inputs
    };
    assert!(largest(&(network.forward(&unpadded, None).video - many.video)) > 1e-4);
}

#[test]
fn an_audio_segment_sees_the_other_modality_and_the_order_of_the_segments() {
    let Golden { network, inputs, .. } = golden();
    let before = network.forward(&inputs, None);
    let change = |at: i64| {
        let visual = inputs.visual.copy();
        let _ = visual.narrow(1, at, 1).fill_(3.0);
        let inputs = ParserInputs {
            visual,
            audio: inputs.audio.shallow_clone(),
            clips: inputs.clips.as_ref().map(Tensor::shallow_clone),
            padding: inputs.padding.as_ref().map(Tensor::shallow_clone),
        };
        let after = network.forward(&inputs, None).segment_audio;
        largest(&(after - &before.segment_audio).narrow(1, 0, 1))
    };
    assert!(change(2) > 1e-4, "another segment of the other modality");
    let reversed = ParserInputs {
        audio: inputs.audio.flip([1]),
        visual: inputs.visual.flip([1]),
        clips: inputs.clips.as_ref().map(|clips| clips.flip([1])),
        padding: None,
    };
    let reversed = network.forward(&reversed, None).segment_audio.flip([1]);
    let first = |x: &Tensor| x.narrow(0, 0, 1);
    assert!(largest(&(first(&reversed) - first(&before.segment_audio))) > 1e-4);
}

#[test]
fn weights_depend_on_the_seed_and_dropout_on_the_noise() {
    let sizes = NetworkSizes {
        audio: 4,
        visual: 5,
        clips: None,
        classes: 2,
    };
    let settings = TransformerSettings {
        hidden: 8,
        feedforward: 8,
        ..TransformerSettings::default()
    };
    assert_eq!(settings.layers, 5);
    let build = |seed| TemporalTransformer::build(&settings, &sizes, seed, Device::Cpu).unwrap();
    let inputs = ParserInputs {
        audio: Tensor::ones([1, 3, 4], (Kind::Float, Device::Cpu)),
        visual: Tensor::ones([1, 3, 5], (Kind::Float, Device::Cpu)),
        clips: None,
        padding: None,
    };
    let video = |seed, noise: Option<u64>| {
        let mut noise = noise.map(|epoch| Noise::new(1, epoch));
        build(seed).forward(&inputs, noise.as_mut()).video
    };
    assert_eq!(video(1, None), video(1, None));
    assert_ne!(video(1, None), video(2, None));
    assert_eq!(video(1, Some(1)), video(1, Some(1)));
    assert_ne!(video(1, Some(1)), video(1, Some(2)));
    assert_ne!(video(1, Some(1)), video(1, None));

    // A checkpoint leads to the same network.
    let mut weights = build(1).weights();
    assert_eq!(weights.metadata["heads"], "4");
    let loaded = TemporalTransformer::load(&mut weights, Device::Cpu).unwrap();
    assert_eq!(loaded.forward(&inputs, None).video, video(1, None));
}

#[test]
fn settings_that_make_no_network_are_refused() {
    let refused =
        |settings: TransformerSettings| TemporalTransformer::check(&settings).unwrap_err().to_string();
    let odd = refused(TransformerSettings {
        hidden: 9,
        heads: 3,
        ..TransformerSettings::default()
    });
    assert_eq!(
        odd,
        "network: hidden is 9, expected an even number for network `transformer`"
    );
    let heads = refused(TransformerSettings {
        heads: 3,
        ..TransformerSettings::default()
    });
    assert_eq!(heads, "network: 3 heads do not divide the hidden size 256");
}
