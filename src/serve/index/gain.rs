//! Which classes gain most from review.
//!
//! A class and modality gains from review what PLD flipped, where PLG and the parser differ, and what is near a threshold, in the
//! share of its videos that nobody reviewed.

use vaplan_schemas::Modality;

use super::{IndexedTrack, ReviewIndex};

/// Relative distance of a score from its threshold up to which a track counts as near.
pub const NEAR: f32 = 0.02;

/// What a person would review in a track: flips, disagreements with the parser, and a score near the threshold. 0 for a track that
/// a person reviewed.
pub fn to_review(track: &IndexedTrack) -> u32 {
    match track.user {
        0 => worth(track),
        _ => 0,
    }
}

fn worth(track: &IndexedTrack) -> u32 {
    (track.flipped + track.parser).saturating_add(u32::from(track.distance <= NEAR))
}

/// What review of each class and modality gains: the counts of its tracks, in the share of its videos without a user label. By
/// class, and then modality.
pub fn of_classes(index: &ReviewIndex) -> Vec<f64> {
    let mut counts = vec![(0_u64, 0_u64, 0_u64); index.classes.len() * Modality::ALL.len()];
    for at in 0..index.len() {
        for track in index.tracks(at) {
            let (found, videos, open) = &mut counts[place(track)];
            *found += u64::from(worth(track));
            *videos += 1;
            *open += u64::from(track.user == 0);
        }
    }
    let gain = |(found, videos, open): (u64, u64, u64)| found as f64 * open as f64 / videos.max(1) as f64;
    counts.into_iter().map(gain).collect()
}

/// The places of all classes and modalities: a class that gains more has a higher place.
#[derive(Debug)]
pub struct GainPlaces(Vec<usize>);

/// The places of the classes of an index.
pub fn places(index: &ReviewIndex) -> GainPlaces {
    let gains = of_classes(index);
    let mut order: Vec<usize> = (0..gains.len()).collect();
    // Of two that gain alike, the first class comes first.
    order.sort_by(|a, b| gains[*a].total_cmp(&gains[*b]).then(b.cmp(a)));
    let mut places = vec![0; order.len()];
    for (place, class) in order.into_iter().enumerate() {
        places[class] = place;
    }
    GainPlaces(places)
}

impl GainPlaces {
    /// The place of the class and modality of a track, from 0.
    pub fn of(&self, track: &IndexedTrack) -> f64 {
        self.0[place(track)] as f64
    }
}

fn place(track: &IndexedTrack) -> usize {
    track.class as usize * Modality::ALL.len() + track.modality.index()
}
