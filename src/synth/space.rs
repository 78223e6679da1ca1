//! The geometry of one encoder: text embeddings, and features for given tracks.
//!
//! All texts share a unit vector μ. All segments share a unit vector g that no text has: the modality gap. Each class
//! has a unit vector `u[c]`, orthogonal to μ and g. The embedding of class c is `e[c] = ρ·μ + √(1−ρ²)·u[c]`. The
//! feature of segment t, except for its length, is
//!
//! ```text
//! f[t] = ((base + shared[t]) / ρ)·μ + Σ_c k[t,c]·u[c] + noise[t] + gap[t]·g
//! k[t,c] = (strength[c]·factor[c]·level[t,c] + video[c] + segment[t,c]) / √(1−ρ²)
//! ```
//!
//! gap\[t\] makes the length 1. The cosine of f\[t\] and e\[c\] is therefore about base +
//! strength\[c\]·factor\[c\]·level\[t,c\] + noise, for any width D. The constants are in [`encoders`](super::encoders).

use std::sync::Arc;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use vaplan_schemas::Modality;
use vaplan_schemas::ids::video_hash;

use super::encoders::{EncoderProfile, SimulatedEncoder, SynthPreset};
use super::generator;
use super::tracks::SimulatedTracks;

/// Correlation of the noise of consecutive segments.
const PERSISTENCE: f32 = 0.7;
/// Smallest width for which the length of the diffuse noise is exact. In a narrower space the noise per value stays the same, so that
/// narrow features do not get noisier.
const DIFFUSE_WIDTH: f32 = 512.0;
/// Probability that an event that is audible but not visible still changes the visual features, because its source is
/// in the picture.
const DISTRACTOR: f64 = 0.35;
/// Strength of such a distractor, as a share of the strength of an event.
const DISTRACTOR_LEVEL: f32 = 0.7;
/// Smallest part of the squared length that is left for the modality gap.
const LEAST_GAP: f32 = 0.05;

/// Embedding space of one encoder.
#[derive(Clone, Debug)]
pub struct EmbeddingSpace {
    encoder: SimulatedEncoder,
    profile: EncoderProfile,
    width: usize,
    classes: usize,
    seed: u64,
    /// The vectors u, then μ: shape `[C + 1, D]`.
    directions: Vec<f32>,
    /// The vector g: shape `[D]`.
    gap: Vec<f32>,
    strengths: Vec<f32>,
}

/// Smallest width. In a narrower space, classes can hardly be distinguished.
pub const LEAST_WIDTH: usize = 8;

impl EmbeddingSpace {
    /// Draws the directions at random. The direction of a class depends on its name and the seed, but not on its
    /// position or on the other classes.
    ///
    /// # Panics
    /// Panics if `width` is below [`LEAST_WIDTH`].
    pub fn new(
        (encoder, preset): (SimulatedEncoder, SynthPreset),
        classes: &[Arc<str>],
        width: usize,
        seed: u64,
    ) -> EmbeddingSpace {
        assert!(width >= LEAST_WIDTH, "width {width} is too small");
        let draw = |name: &str| -> Vec<f32> {
            let mut rng = generator(seed, encoder.folder(), name);
            (0..width).map(|_| rng.sample(StandardNormal)).collect()
        };
        let common = unit(draw("\tcommon"));
        let gap = unit(without(draw("\tgap"), &common));
        let mut directions = Vec::with_capacity((classes.len() + 1) * width);
        for class in classes {
            directions.extend(unit(without(without(draw(class), &common), &gap)));
        }
        directions.extend(common);

        // The strengths are evenly spaced over the classes in a random order, so that no seed makes all classes hard.
        let mut order: Vec<usize> = (0..classes.len()).collect();
        order.sort_by_key(|&class| {
            (
                video_hash(&format!("{seed} {} {}", encoder.folder(), classes[class])),
                class,
            )
        });
        let profile = EncoderProfile::of(encoder, preset);
        let (hardest, easiest) = profile.strength;
        let mut strengths = vec![0.0; classes.len()];
        for (rank, class) in order.into_iter().enumerate() {
            let share = (rank as f32 + 0.5) / classes.len() as f32;
            strengths[class] = hardest + share * (easiest - hardest);
        }
        EmbeddingSpace {
            encoder,
            profile,
            width,
            classes: classes.len(),
            seed,
            directions,
            gap,
            strengths,
        }
    }

    /// The encoder whose features the space has.
    pub fn encoder(&self) -> SimulatedEncoder {
        self.encoder
    }

    /// Width D of the embeddings.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Increase of the cosine by an event, for each class. A small value means a hard class.
    pub fn strengths(&self) -> &[f32] {
        &self.strengths
    }

    /// Text embeddings of the classes: shape `[C, D]`, each of length 1.
    pub fn text(&self) -> Vec<f32> {
        let common = self.profile.common;
        let (towards, aside) = (common.sqrt(), (1.0 - common).sqrt());
        let (classes, shared) = self.directions.split_at(self.classes * self.width);
        let rows = classes.chunks_exact(self.width);
        rows.flat_map(|row| row.iter().zip(shared).map(|(u, mu)| towards * mu + aside * u))
            .collect()
    }

    /// Features of the video `name` with the events of `tracks`: shape `[T, D]`.
    pub fn features(&self, name: &str, tracks: &SimulatedTracks, segments: u32) -> Vec<f32> {
        let profile = &self.profile;
        let (segments, classes) = (segments as usize, self.classes);
        let mut rng = generator(self.seed, self.encoder.folder(), &format!("{name}\tvideo"));

        // Coefficients of `directions`: of the classes, then of μ.
        let mut weights = vec![0.0_f32; segments * (classes + 1)];
        self.add_events(&mut weights, name, tracks, segments, &mut rng);
        let mut lasting = vec![0.0_f32; classes + 1];
        for value in &mut lasting[..classes] {
            *value = profile.video * normal(&mut rng);
        }
        let fresh = (1.0 - PERSISTENCE * PERSISTENCE).sqrt();
        let aside = (1.0 - profile.common).sqrt();
        let towards = profile.common.sqrt();
        let mut drift = vec![0.0_f32; classes + 1];
        for (segment, row) in weights.chunks_exact_mut(classes + 1).enumerate() {
            for (class, (value, drift)) in row.iter_mut().zip(&mut drift).enumerate() {
                let chance = normal(&mut rng);
                *drift = if segment == 0 {
                    chance
                } else {
                    PERSISTENCE * *drift + fresh * chance
                };
                *value = if class < classes {
                    (*value + lasting[class] + profile.segment * *drift) / aside
                } else {
                    (profile.base + profile.shared * *drift) / towards
                };
            }
        }

        let length = profile.length * rng.random_range(0.9..1.1_f32);
        let mut features = Diffuse::new(profile.diffuse, self.width, segments, &mut rng).values;
        for (row, weights) in features
            .chunks_exact_mut(self.width)
            .zip(weights.chunks_exact(classes + 1))
        {
            add_product(row, weights, &self.directions);
            let squared: f32 = row.iter().map(|value| value * value).sum();
            let gap = (1.0 - squared).max(LEAST_GAP);
            let scale = length / (squared + gap).sqrt();
            let gap = gap.sqrt();
            for (value, direction) in row.iter_mut().zip(&self.gap) {
                *value = scale * (*value + gap * direction);
            }
        }
        features
    }

    /// Adds the effect of the events of this modality, and of distractors, on the cosines.
    ///
    /// A distractor is in the picture, so every encoder of pictures sees it: its random numbers depend on the video,
    /// and not on the encoder.
    fn add_events(
        &self,
        weights: &mut [f32],
        name: &str,
        tracks: &SimulatedTracks,
        segments: usize,
        rng: &mut ChaCha8Rng,
    ) {
        let modality = self.encoder.modality();
        let mut distractors = generator(self.seed, "distractors", name);
        for (&(of, class), track) in tracks {
            let level = if of == modality {
                1.0
            } else if modality == Modality::Visual
                && !tracks.contains_key(&(Modality::Visual, class))
                && distractors.random_bool(DISTRACTOR)
            {
                DISTRACTOR_LEVEL
            } else {
                continue;
            };
            let factor = (1.0 + self.profile.vary * normal(rng)).max(0.0);
            for segment in (0..segments).filter(|&segment| track[segment]) {
                weights[segment * (self.classes + 1) + class.index()] +=
                    factor * level * self.strengths[class.index()];
            }
        }
    }
}

/// Noise without a preferred direction, correlated over time: shape `[T, D]`.
struct Diffuse {
    values: Vec<f32>,
}

impl Diffuse {
    fn new(length: f32, width: usize, segments: usize, rng: &mut ChaCha8Rng) -> Diffuse {
        // Each value has a uniform distribution of 16 bits. A projection sums hundreds of values, so that it is
        // nearly normal.
        let mut bits = vec![0_u8; 2 * width * segments];
        rng.fill_bytes(&mut bits);
        let deviation = length / DIFFUSE_WIDTH.max(width as f32).sqrt();
        let step = deviation * 12.0_f32.sqrt() / 65_536.0;
        let mut values: Vec<f32> = bits
            .chunks_exact(2)
            .map(|pair| step * f32::from(i16::from_le_bytes([pair[0], pair[1]])))
            .collect();
        let fresh = (1.0 - PERSISTENCE * PERSISTENCE).sqrt();
        for segment in 1..segments {
            let (before, now) = values.split_at_mut(segment * width);
            for (now, before) in now[..width].iter_mut().zip(&before[(segment - 1) * width..]) {
                *now = fresh * *now + PERSISTENCE * before;
            }
        }
        Diffuse { values }
    }
}

/// Adds the product of `weights` `[K]` and `rows` `[K, D]` to `out` `[D]`.
fn add_product(out: &mut [f32], weights: &[f32], rows: &[f32]) {
    let width = out.len();
    let mut weights = weights.chunks_exact(4);
    let mut rows = rows.chunks_exact(4 * width);
    // Four rows at a time need a quarter of the loads and stores of `out`.
    for (weight, rows) in (&mut weights).zip(&mut rows) {
        let (first, rows) = rows.split_at(width);
        let (second, rows) = rows.split_at(width);
        let (third, fourth) = rows.split_at(width);
        let rows = first.iter().zip(second).zip(third.iter().zip(fourth));
        for (value, ((a, b), (c, d))) in out.iter_mut().zip(rows) {
            *value += weight[0] * a + weight[1] * b + (weight[2] * c + weight[3] * d);
        }
    }
    for (weight, row) in weights
        .remainder()
        .iter()
        .zip(rows.remainder().chunks_exact(width))
    {
        for (value, direction) in out.iter_mut().zip(row) {
            *value += weight * direction;
        }
    }
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    rng.sample(StandardNormal)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `vector` without its component along the unit vector `direction`.
fn without(mut vector: Vec<f32>, direction: &[f32]) -> Vec<f32> {
    let along = dot(&vector, direction);
    for (value, direction) in vector.iter_mut().zip(direction) {
        *value -= along * direction;
    }
    vector
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = dot(&vector, &vector).sqrt();
    for value in &mut vector {
        *value /= length;
    }
    vector
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::ClassId;

    use super::*;
    use crate::ingest::annotations::LLP_CLASSES;

    fn classes() -> Vec<Arc<str>> {
        LLP_CLASSES.iter().map(|&class| class.into()).collect()
    }

    const AUDIO: (SimulatedEncoder, SynthPreset) = (SimulatedEncoder::LabelAudio, SynthPreset::Llp);

    /// Mean cosines over many videos. Each video has one class in segments 0 to 4 of 10. The result has the mean in
    /// these segments, less the strength of the class; the mean in the other segments; and the mean and standard
    /// deviation for an absent class.
    fn cosines(encoder: SimulatedEncoder, width: usize) -> [f32; 4] {
        let modality = encoder.modality();
        let space = EmbeddingSpace::new((encoder, SynthPreset::Llp), &classes(), width, 3);
        let text = space.text();
        let track: Vec<bool> = (0..10).map(|t| t < 5).collect();
        let mut sums = [0.0_f32; 4];
        let videos = 200;
        for video in 0..videos {
            let class = ClassId(video % 25);
            let tracks = SimulatedTracks::from([((modality, class), track.clone())]);
            let features = space.features(&format!("v{video}"), &tracks, 10);
            for (segment, row) in features.chunks_exact(width).enumerate() {
                let length = dot(row, row).sqrt();
                let cosine = |class: usize| dot(row, &text[class * width..][..width]) / length;
                let gain = space.strengths()[class.index()];
                if segment < 5 {
                    sums[0] += cosine(class.index()) - gain;
                } else {
                    sums[1] += cosine(class.index());
                }
                let other = cosine((class.index() + 7) % 25);
                sums[2] += other;
                sums[3] += other * other;
            }
        }
        let count = videos as f32 * 10.0;
        let mean = sums[2] / count;
        [
            sums[0] / (count / 2.0),
            sums[1] / (count / 2.0),
            mean,
            (sums[3] / count - mean * mean).sqrt(),
        ]
    }

    #[test]
    fn cosines_are_those_asked_for_at_any_width() {
        for width in [128, 512, 1024] {
            let [there, before, other, spread] = cosines(SimulatedEncoder::LabelVisual, width);
            assert!((there - 0.2).abs() < 0.02, "{width}: {there}");
            assert!((before - 0.2).abs() < 0.02, "{width}: {before}");
            assert!((other - 0.2).abs() < 0.02, "{width}: {other}");
            assert!((0.025..0.055).contains(&spread), "{width}: {spread}");
            let [there, _, other, spread] = cosines(SimulatedEncoder::LabelAudio, width);
            assert!(
                (there - 0.1).abs() < 0.03 && (other - 0.1).abs() < 0.03,
                "{width}: {there} {other}"
            );
            assert!((0.06..0.11).contains(&spread), "{width}: {spread}");
        }
    }

    /// Components along the directions of the classes of 200 videos without events: the noise of an encoder.
    fn noise(encoder: SimulatedEncoder, preset: SynthPreset) -> Vec<f32> {
        let space = EmbeddingSpace::new((encoder, preset), &classes(), 128, 3);
        let mut found = Vec::new();
        for video in 0..200 {
            let features = space.features(&format!("v{video}"), &SimulatedTracks::new(), 2);
            let length = dot(&features[..128], &features[..128]).sqrt();
            let directions = space.directions.chunks_exact(128).take(25);
            found.extend(directions.map(|direction| dot(&features[..128], direction) / length));
        }
        found
    }

    fn correlation(a: &[f32], b: &[f32]) -> f32 {
        let centred = |x: &[f32]| {
            let mean = x.iter().sum::<f32>() / x.len() as f32;
            unit(x.iter().map(|x| x - mean).collect())
        };
        dot(&centred(a), &centred(b))
    }

    /// The parser can correct the errors of labels only if it does not make the same errors.
    #[test]
    fn encoders_have_independent_noise() {
        let of = |encoder| noise(encoder, SynthPreset::Llp);
        let labelled = SimulatedEncoder::LABEL.map(of);
        assert!(correlation(&labelled[0], &of(SimulatedEncoder::LabelAudio)) > 0.999);
        for learned in SimulatedEncoder::PARSER.map(of) {
            for labelled in &labelled {
                let correlation = correlation(labelled, &learned);
                assert!(correlation.abs() < 0.06, "{correlation} over 5,000 pairs");
            }
        }
    }

    #[test]
    fn presets_have_other_noise() {
        let spread = |preset| {
            let noise = noise(SimulatedEncoder::ParserFrames, preset);
            dot(&noise, &noise)
        };
        let [easy, llp, hard] = [SynthPreset::Easy, SynthPreset::Llp, SynthPreset::Hard].map(spread);
        assert!(easy < 0.8 * llp && hard > 1.3 * llp, "{easy} {llp} {hard}");
        // Preset clear changes the features of the parser only.
        assert!(spread(SynthPreset::Clear) < 0.6 * easy);
        let labels = |preset| noise(SimulatedEncoder::LabelVisual, preset);
        assert_eq!(labels(SynthPreset::Clear), labels(SynthPreset::Llp));
    }

    #[test]
    fn every_encoder_of_pictures_sees_the_same_distractors() {
        let track = vec![true; 2];
        let seen = |encoder| -> Vec<bool> {
            let space = EmbeddingSpace::new((encoder, SynthPreset::Llp), &classes(), 64, 3);
            let weight = |video| {
                let mut weights = vec![0.0; 2 * 26];
                let tracks = SimulatedTracks::from([((Modality::Audio, ClassId(2)), track.clone())]);
                space.add_events(
                    &mut weights,
                    &format!("v{video}"),
                    &tracks,
                    2,
                    &mut generator(1, "t", "n"),
                );
                weights[2] != 0.0
            };
            (0..300).map(weight).collect()
        };
        let frames = seen(SimulatedEncoder::ParserFrames);
        assert_eq!(frames, seen(SimulatedEncoder::LabelVisual));
        let count = frames.iter().filter(|seen| **seen).count();
        assert!((75..135).contains(&count), "{count} of 300");
    }

    #[test]
    fn a_class_keeps_its_direction_among_other_classes() {
        let all = EmbeddingSpace::new(AUDIO, &classes(), 64, 1);
        let mut fewer = classes();
        fewer.rotate_left(3);
        let rotated = EmbeddingSpace::new(AUDIO, &fewer, 64, 1);
        assert_eq!(all.text()[3 * 64..4 * 64], rotated.text()[..64]);
        assert_eq!(all.strengths()[3], rotated.strengths()[0]);
        let other_seed = EmbeddingSpace::new(AUDIO, &classes(), 64, 2);
        assert_ne!(all.text(), other_seed.text());
    }

    #[test]
    fn segments_of_a_video_are_more_alike_than_videos() {
        let space = EmbeddingSpace::new(
            (SimulatedEncoder::LabelVisual, SynthPreset::Llp),
            &classes(),
            256,
            1,
        );
        let one = space.features("one", &SimulatedTracks::new(), 10);
        let two = space.features("two", &SimulatedTracks::new(), 10);
        let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        let within = cosine(&one[..256], &one[256..512]);
        let across = cosine(&one[..256], &two[..256]);
        assert!(within > across + 0.1, "{within} within, {across} across");
    }

    #[test]
    fn products_are_those_of_a_plain_loop() {
        let rows: Vec<f32> = (0..7 * 5).map(|value| value as f32).collect();
        let weights = [1.0, -2.0, 0.5, 3.0, -1.0, 4.0, 0.25];
        let mut out = vec![1.0; 5];
        add_product(&mut out, &weights, &rows);
        for (column, value) in out.iter().enumerate() {
            let expected: f32 = 1.0
                + (0..7)
                    .map(|row| weights[row] * rows[row * 5 + column])
                    .sum::<f32>();
            assert!((value - expected).abs() < 1e-3, "{value} is not {expected}");
        }
    }
}
