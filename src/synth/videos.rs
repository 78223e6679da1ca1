//! Which videos are simulated, and their names.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_schemas::ids::video_hash;

use super::SynthError;
use crate::ingest::annotations::{Annotations, key11, split_name};

/// One video to simulate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedVideo {
    /// Full name of the video.
    pub name: Arc<str>,
    /// Position in [`Annotations::videos`] of this video, or of the video that it is a copy of.
    pub of: usize,
}

/// Chooses `videos` of the annotated videos (`None`: all), and makes each of them `repeat` times.
///
/// A subset is spread evenly over the list, so that every split keeps its share. Copies come after the originals, in
/// the order of the list. [`copy_name`] gives their names.
///
/// # Errors
/// - Returns [`SynthError::NoVideos`] if no video is chosen.
/// - Returns [`SynthError::NameTwice`] if a copy would have the key of another video.
///
/// # Panics
/// Panics if `repeat` is 0.
pub fn choose_videos(
    annotations: &Annotations,
    videos: Option<usize>,
    repeat: u32,
) -> Result<Vec<SimulatedVideo>, SynthError> {
    assert!(repeat > 0, "each video is there at least once");
    let total = annotations.videos.len();
    let wanted = videos.unwrap_or(total).min(total);
    // Choose the positions at which the rounded-down share increases: they are evenly spaced.
    let share = |position: usize| position as u128 * wanted as u128 / total as u128;
    let chosen: Vec<usize> = (0..total)
        .filter(|&position| share(position) != share(position + 1))
        .collect();
    if chosen.is_empty() {
        return Err(SynthError::NoVideos);
    }
    let mut members = Vec::with_capacity(chosen.len() * repeat as usize);
    let mut keys: BTreeSet<String> = BTreeSet::new();
    for copy in 0..repeat {
        for &of in &chosen {
            let name = annotations.videos.get(of).name;
            let name: Arc<str> = if copy == 0 {
                name.into()
            } else {
                copy_name(name, copy).into()
            };
            // Originals may share a key, if the annotations have it so. A copy must not have the key of another
            // video.
            if !keys.insert(key11(&name).to_owned()) && copy > 0 {
                return Err(SynthError::NameTwice {
                    video: annotations.videos.get(of).name.to_owned(),
                    copy,
                    name: name.to_string(),
                });
            }
            members.push(SimulatedVideo { name, of });
        }
    }
    Ok(members)
}

/// Name of the copy with number `copy`: 11 characters from a hash of name and number, then the times of the original.
///
/// ```
/// use vaplan::synth::videos::copy_name;
/// let copy = copy_name("demo0000001_0_10", 1);
/// assert_eq!(copy.len(), "demo0000001_0_10".len());
/// assert!(copy.ends_with("_0_10"));
/// assert_ne!(copy, copy_name("demo0000001_0_10", 2));
/// ```
pub fn copy_name(name: &str, copy: u32) -> String {
    // The characters that ids in LLP consist of.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = video_hash(&format!("{name}\t{copy}"));
    let mut copy = String::with_capacity(name.len());
    for _ in 0..11 {
        copy.push(char::from(ALPHABET[(bits % 64) as usize]));
        bits /= 64;
    }
    if let Some((id, _, _)) = split_name(name) {
        copy.push_str(&name[id.len()..]);
    }
    copy
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::rows::Split;

    use super::*;
    use crate::ingest::annotations::VideoLabel;

    fn annotations(count: usize) -> Annotations {
        let video = |number: usize| {
            let label = VideoLabel {
                split: if number < count * 8 / 10 {
                    Split::Train
                } else {
                    Split::Test
                },
                weak: [].into(),
                source: "train.csv".into(),
            };
            (format!("test{number:07}_0_10"), label)
        };
        Annotations {
            classes: vec!["Dog".into()],
            videos: (0..count).map(video).collect(),
            events: Vec::new(),
            rejects: Vec::new(),
        }
    }

    #[test]
    fn a_subset_keeps_the_share_of_every_split() {
        let annotations = annotations(1000);
        for wanted in [1, 7, 10, 333, 1000] {
            let members = choose_videos(&annotations, Some(wanted), 1).unwrap();
            assert_eq!(members.len(), wanted);
            let tests = members.iter().filter(|member| member.of >= 800).count();
            assert!(
                tests.abs_diff(wanted / 5) <= 1,
                "{tests} of {wanted} are of the test split"
            );
        }
        assert_eq!(choose_videos(&annotations, Some(5000), 1).unwrap().len(), 1000);
        assert!(matches!(
            choose_videos(&annotations, Some(0), 1),
            Err(SynthError::NoVideos)
        ));
    }

    #[test]
    fn copies_have_keys_of_their_own() {
        let members = choose_videos(&annotations(64), None, 625).unwrap();
        let keys: BTreeSet<&str> = members.iter().map(|member| key11(&member.name)).collect();
        assert_eq!(keys.len(), 40_000);
        assert_eq!(members[64].of, 0);
    }
}
