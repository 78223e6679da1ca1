//! What the simulated features imitate: the encoders, their constants, and the presets of difficulty.
//!
//! docs/synth.md tells which published numbers the constants were fitted to.

use serde::Serialize;
use vaplan_schemas::Modality;

/// An encoder whose features are simulated.
///
/// The noise of two encoders is independent, so that a parser can correct labels that another encoder got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimulatedEncoder {
    /// CLAP-like sound features, which `label` compares with text embeddings.
    LabelAudio,
    /// CLIP-like picture features, which `label` compares with text embeddings.
    LabelVisual,
    /// VGGish-like sound features for the parser.
    ParserAudio,
    /// ResNet-like picture features for the parser, one row per segment.
    ParserFrames,
    /// R(2+1)D-like motion features for the parser.
    ParserClips,
}

/// How hard the simulated features are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SynthPreset {
    /// Fitted to the published scores of LLP.
    #[default]
    Llp,
    /// The events of [`SynthPreset::Llp`] with less noise in all features.
    Easy,
    /// The events of [`SynthPreset::Llp`] with more noise in all features.
    Hard,
    /// The events and the label features of [`SynthPreset::Llp`], with less noise in the features of the parser. The labels
    /// limit what a parser learns, and not its features.
    Clear,
    /// Videos of AVE ([`super::ave`]), with the noise of [`SynthPreset::Llp`].
    Ave,
}

impl SynthPreset {
    /// Factor of the standard deviation of all noise that is specific to a class.
    fn noise(self, encoder: SimulatedEncoder) -> f32 {
        match self {
            SynthPreset::Llp | SynthPreset::Ave => 1.0,
            SynthPreset::Easy => 0.75,
            SynthPreset::Hard => 1.3,
            SynthPreset::Clear if SimulatedEncoder::PARSER.contains(&encoder) => 0.4,
            SynthPreset::Clear => 1.0,
        }
    }
}

impl SimulatedEncoder {
    /// Encoders of the features that `label` reads.
    pub const LABEL: [SimulatedEncoder; 2] = [SimulatedEncoder::LabelAudio, SimulatedEncoder::LabelVisual];
    /// Encoders of the features that the parser reads.
    pub const PARSER: [SimulatedEncoder; 3] = [
        SimulatedEncoder::ParserAudio,
        SimulatedEncoder::ParserFrames,
        SimulatedEncoder::ParserClips,
    ];

    /// The modality whose events change the features.
    pub const fn modality(self) -> Modality {
        match self {
            SimulatedEncoder::LabelAudio | SimulatedEncoder::ParserAudio => Modality::Audio,
            SimulatedEncoder::LabelVisual
            | SimulatedEncoder::ParserFrames
            | SimulatedEncoder::ParserClips => Modality::Visual,
        }
    }

    /// Name of the encoder, which is also its folder below the output folder.
    pub const fn folder(self) -> &'static str {
        match self {
            SimulatedEncoder::LabelAudio => "audio",
            SimulatedEncoder::LabelVisual => "visual",
            SimulatedEncoder::ParserAudio => "parser/audio",
            SimulatedEncoder::ParserFrames => "parser/frames",
            SimulatedEncoder::ParserClips => "parser/clips",
        }
    }

    /// Width of the features if `--dim` is `width`. VGGish is narrow.
    pub fn width(self, width: usize) -> usize {
        match self {
            SimulatedEncoder::ParserAudio => width.min(128),
            _ => width,
        }
    }
}

/// The constants of one encoder, as cosines.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncoderProfile {
    /// Cosine of a segment and a class that does not occur in it.
    pub(super) base: f32,
    /// ρ².
    pub(super) common: f32,
    /// Increase of the cosine by an event, for the hardest and for the easiest class.
    pub(super) strength: (f32, f32),
    /// Standard deviation of the factor of the increase, one per class and video. The mean is 1.
    pub(super) vary: f32,
    /// Standard deviation of the noise that all classes of a segment share.
    pub(super) shared: f32,
    /// Standard deviation of the noise of one class that lasts over the whole video.
    pub(super) video: f32,
    /// Standard deviation of the noise of one class and segment.
    pub(super) segment: f32,
    /// Length of the noise without a preferred direction.
    pub(super) diffuse: f32,
    /// Length of a feature. It is not 1, because real encoders do not normalise.
    pub(super) length: f32,
}

impl EncoderProfile {
    pub(super) fn of(encoder: SimulatedEncoder, preset: SynthPreset) -> EncoderProfile {
        let profile = EncoderProfile::llp(encoder);
        let noise = preset.noise(encoder);
        EncoderProfile {
            vary: profile.vary * noise,
            video: profile.video * noise,
            segment: profile.segment * noise,
            ..profile
        }
    }

    const fn llp(encoder: SimulatedEncoder) -> EncoderProfile {
        match encoder {
            // Like CLIP: all cosines are in a narrow band around 0.2.
            SimulatedEncoder::LabelVisual => EncoderProfile {
                base: 0.2,
                common: 0.6,
                strength: (0.04, 0.12),
                vary: 0.4,
                shared: 0.015,
                video: 0.025,
                segment: 0.03,
                diffuse: 0.5,
                length: 10.0,
            },
            // Like CLAP: cosines vary more.
            SimulatedEncoder::LabelAudio => EncoderProfile {
                base: 0.1,
                common: 0.3,
                strength: (0.08, 0.28),
                vary: 0.0,
                shared: 0.03,
                video: 0.05,
                segment: 0.05,
                diffuse: 0.5,
                length: 20.0,
            },
            // The parser sees no texts, so that only the strength and the noise of events matter: the rest is as for CLAP.
            SimulatedEncoder::ParserAudio => EncoderProfile {
                strength: (0.06, 0.30),
                vary: 0.4,
                video: 0.06,
                segment: 0.06,
                ..EncoderProfile::llp(SimulatedEncoder::LabelAudio)
            },
            SimulatedEncoder::ParserFrames | SimulatedEncoder::ParserClips => EncoderProfile {
                strength: (0.08, 0.38),
                vary: 0.4,
                video: 0.06,
                ..EncoderProfile::llp(SimulatedEncoder::LabelAudio)
            },
        }
    }
}
