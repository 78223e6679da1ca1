//! Times PLD on packed tracks. `bench/compare/denoise.py` compares the time with numpy.
//!
//! Usage: `pld PROBABILITY LABEL K ALPHA GUARD THREADS`. PROBABILITY and LABEL are npy files of f32 of shape (N, T),
//! with one track per row; labels are 0 or 1. The program prints one JSON object with the seconds that the flips of all
//! tracks took, without reading the files, and the number of flips.

use std::path::Path;
use std::time::Instant;

use vaplan::ingest::npy;

use vaplan_dataflows::flips::PredictedTrack;
use vaplan_dataflows::{Bits, DenoisingRule, Probability};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [probability, label, k, alpha, guard, threads] = &arguments[..] else {
        return Err("pld PROBABILITY LABEL K ALPHA GUARD THREADS".into());
    };
    let settings = DenoisingRule::pld(k.parse()?, alpha.parse()?, guard.parse()?)?;
    let threads: usize = threads.parse()?;
    let probability = npy::read_floats(Path::new(probability))?;
    let label = npy::read_floats(Path::new(label))?;
    let segments = *probability.shape.last().ok_or("a number, expected tracks")?;
    // Convert the tracks to the types that the dataflow holds.
    let tracks: Vec<(Bits, Vec<Probability>)> = label
        .data
        .chunks_exact(segments)
        .zip(probability.data.chunks_exact(segments))
        .map(|(label, probability)| {
            let bits = label.iter().map(|label| *label > 0.5).collect();
            (bits, probability.iter().copied().map(Probability::new).collect())
        })
        .collect();
    let start = Instant::now();
    let count = |tracks: &[(Bits, Vec<Probability>)]| -> u64 {
        let flipped = |(labels, probabilities): &(Bits, Vec<Probability>)| {
            let track = PredictedTrack {
                labels,
                margins: None,
                probabilities,
            };
            u64::from(settings.flips(track).flipped.ones())
        };
        tracks.iter().map(flipped).sum()
    };
    let share = tracks.len().div_ceil(threads.max(1)).max(1);
    let flipped: u64 = std::thread::scope(|scope| {
        let parts: Vec<_> = tracks
            .chunks(share)
            .map(|part| scope.spawn(move || count(part)))
            .collect();
        parts
            .into_iter()
            .map(|part| part.join().expect("it does not panic"))
            .sum()
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({"seconds": seconds, "tracks": tracks.len(), "flips": flipped})
    );
    Ok(())
}
