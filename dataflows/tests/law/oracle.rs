//! The plain loop that says what the answer is, cell by cell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::admit::Admitted;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::decide::{Denoising, ModalityEvidence, decide_video};
use vaplan_dataflows::records::{Candidate, LabelRecord, Score, VideoId};
use vaplan_dataflows::{Bits, Denoised, DenoisingRule, Flip, Rejection, SetBy, Track, UserLabelRejection};
use vaplan_schemas::{ClassId, Modality};

use crate::inputs::GraphInputs;

pub(crate) type LabelRecords = BTreeMap<(VideoId, Modality), LabelRecord>;

/// What a version must give.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VersionOutput {
    pub(crate) admitted: BTreeMap<(VideoId, Modality), Admitted>,
    pub(crate) labels: LabelRecords,
    pub(crate) audio_visual: BTreeMap<VideoId, LabelRecord>,
    pub(crate) rejections: BTreeSet<(VideoId, Rejection)>,
    pub(crate) changes: BTreeSet<Change>,
}

/// The answer of each version; `previous` are the labels before the first.
pub(crate) fn answers(versions: &[GraphInputs], previous: &LabelRecords) -> Vec<VersionOutput> {
    let mut before = previous.clone();
    let answer = |inputs| {
        let answer = answer(inputs, &before);
        before = answer.labels.clone();
        answer
    };
    versions.iter().map(answer).collect()
}

fn answer(inputs: &GraphInputs, before: &LabelRecords) -> VersionOutput {
    let mut answer = VersionOutput::default();
    admit(inputs, &mut answer);
    for (&(video, modality), admitted) in &answer.admitted {
        let mut tracks = Vec::new();
        for (class, _, scores) in admitted.record.tracks() {
            if let Some(score_threshold) = inputs.thresholds.get(&(modality, class)) {
                let label: Vec<bool> = scores
                    .iter()
                    .map(|score| score.get() > score_threshold.get())
                    .collect();
                let margins: Vec<f64> = scores
                    .iter()
                    .map(|score| score.get() - score_threshold.get())
                    .collect();
                tracks.push(track(
                    inputs,
                    (video, modality, class),
                    (&label, &margins),
                    &mut answer.rejections,
                ));
            }
        }
        if !tracks.is_empty() {
            answer.labels.insert((video, modality), LabelRecord { tracks });
        }
    }
    misplaced(inputs, &mut answer);
    for (&(video, modality), audio) in &answer.labels {
        let visual = answer.labels.get(&(video, Modality::Visual));
        if let (Modality::Audio, Some(visual)) = (modality, visual) {
            let mut tracks = Vec::new();
            for track in &audio.tracks {
                if let Some(other) = visual.track(track.class) {
                    let both = |t| track.label.get(t) && other.label.get(t);
                    tracks.push(Track::plg(
                        track.class,
                        (0..track.label.len()).map(both).collect(),
                    ));
                }
            }
            answer.audio_visual.insert(video, LabelRecord { tracks });
        }
    }
    answer.changes = changes(before, &answer.labels);
    decided_alike(inputs, &answer);
    answer
}

/// Holds [`decide_video`] to the plain loop, for every video that has features that count.
fn decided_alike(inputs: &GraphInputs, answer: &VersionOutput) {
    let videos: BTreeSet<VideoId> = answer.admitted.keys().map(|(video, _)| *video).collect();
    for video in videos {
        let key = |modality| (video, modality);
        let thresholds = Modality::ALL.map(|modality| -> Vec<(ClassId, Score)> {
            let own = inputs.thresholds.iter().filter(|((of, _), _)| *of == modality);
            own.map(|((_, class), threshold)| (*class, *threshold)).collect()
        });
        let denoising = Modality::ALL.map(|modality| {
            Some(Denoising {
                prediction: inputs.predictions.get(&key(modality))?.clone(),
                rule: *inputs.denoising.get(&modality)?,
            })
        });
        let evidence = |modality, at: usize| ModalityEvidence {
            scores: answer.admitted.get(&key(modality)).map(|own| &*own.record),
            thresholds: &thresholds[at],
            denoising: denoising[at].as_ref(),
            user_labels: inputs.user_labels.get(&key(modality)).map(|own| &**own),
        };
        let [audio, visual] = [0, 1].map(|at| evidence(Modality::ALL[at], at));
        let decided = decide_video(audio, visual);
        let labels = |modality| answer.labels.get(&key(modality));
        assert_eq!(decided.audio.as_ref(), labels(Modality::Audio), "{video:?}");
        assert_eq!(decided.visual.as_ref(), labels(Modality::Visual), "{video:?}");
        assert_eq!(
            decided.audio_visual.as_ref(),
            answer.audio_visual.get(&video),
            "{video:?}"
        );
        for rejection in decided.rejections {
            assert!(
                answer.rejections.contains(&(video, rejection.clone())),
                "{video:?}: {rejection:?}"
            );
        }
    }
}

fn admit(inputs: &GraphInputs, answer: &mut VersionOutput) {
    for (&video, weak) in &inputs.weak {
        let mut taken: BTreeMap<Modality, &Candidate> = BTreeMap::new();
        for modality in Modality::ALL {
            let mut found: Vec<&Candidate> = Vec::new();
            for (owner, candidate) in &inputs.scored {
                if *owner == video && candidate.modality == modality {
                    found.push(candidate);
                }
            }
            found.sort();
            found.dedup();
            if found.is_empty() {
                answer.rejections.insert((video, Rejection::Missing(modality)));
            } else if found.iter().any(|other| other.features != found[0].features) {
                let sources = found.iter().map(|candidate| candidate.source.clone()).collect();
                answer
                    .rejections
                    .insert((video, Rejection::Conflict(modality, sources)));
            } else if let Some(class) = weak
                .iter()
                .find(|class| !found[0].record.classes().contains(class))
            {
                answer
                    .rejections
                    .insert((video, Rejection::Unscored(modality, *class)));
            } else {
                taken.insert(modality, found[0]);
            }
        }
        let lengths: Vec<u32> = taken
            .values()
            .map(|candidate| candidate.record.segments())
            .collect();
        if let [audio, visual] = lengths[..]
            && audio != visual
        {
            answer
                .rejections
                .insert((video, Rejection::Lengths { audio, visual }));
            continue;
        }
        for (modality, candidate) in taken {
            let admitted = Admitted {
                source: candidate.source.clone(),
                record: Arc::new(candidate.record.restricted(|class| weak.contains(&class))),
            };
            answer.admitted.insert((video, modality), admitted);
        }
    }
}

/// LabelRecords of PLG, flipped, and then set by a person.
fn track(
    inputs: &GraphInputs,
    (video, modality, class): (VideoId, Modality, ClassId),
    (plg, margins): (&[bool], &[f64]),
    rejections: &mut BTreeSet<(VideoId, Rejection)>,
) -> Track {
    let segments = plg.len();
    let user_labels = inputs.user_labels.get(&(video, modality));
    let user_label = user_labels.and_then(|user_labels| {
        user_labels
            .classes
            .iter()
            .find(|user_label| user_label.class == class)
    });
    let known = |t: usize| user_label.is_some_and(|user_label| user_label.known.get(t));
    let prediction = inputs.predictions.get(&(video, modality));
    let settings = inputs.denoising.get(&modality);
    let mut loss: Vec<Option<f64>> = vec![None; segments];
    let mut flipped = vec![false; segments];
    let mut base = None;
    if let (Some(prediction), Some(rule)) = (prediction, settings)
        && prediction.segments() as usize == segments
        && let Some(probabilities) = prediction.of(class)
    {
        for t in 0..segments {
            let p = f64::from(probabilities[t].raw());
            if (0.0..=1.0).contains(&p) {
                let p = p.clamp(1e-7, 1.0 - 1e-7);
                loss[t] = Some(if plg[t] { -p.ln() } else { -(1.0 - p).ln() });
            }
        }
        if let Some(t) = (0..segments).find(|&t| loss[t].is_none()) {
            let rejection = Rejection::Probability {
                modality,
                epoch: prediction.epoch(),
                class,
                segment: t as u32,
                value: probabilities[t],
            };
            rejections.insert((video, rejection));
        }
        match rule {
            DenoisingRule::Pld(pld) => {
                let mut smallest: Vec<f64> = loss.iter().flatten().copied().collect();
                smallest.sort_by(f64::total_cmp);
                smallest.truncate(pld.k() as usize);
                let mut mean = 0.0;
                for loss in &smallest {
                    mean += loss;
                }
                mean /= smallest.len() as f64;
                for t in 0..segments {
                    let distance = (f64::from(probabilities[t].raw()) - f64::from(u8::from(plg[t]))).abs();
                    let abnormal = loss[t].is_some_and(|loss| loss > pld.alpha() * mean);
                    flipped[t] = abnormal && distance > pld.guard();
                }
                base = Some(mean);
            }
            DenoisingRule::Bounds(bounds) => {
                for t in 0..segments {
                    let p = f64::from(probabilities[t].raw());
                    let against = if plg[t] {
                        p < bounds.clear()
                    } else {
                        p > bounds.set()
                    };
                    flipped[t] = loss[t].is_some() && against;
                }
            }
            DenoisingRule::Margin(margin) => {
                for t in 0..segments {
                    let p = f64::from(probabilities[t].raw()).clamp(1e-7, 1.0 - 1e-7);
                    let sum = margins[t] / margin.scale() + (p / (1.0 - p)).ln();
                    flipped[t] = loss[t].is_some() && (sum > margin.bias()) != plg[t];
                }
            }
        }
    }
    let bits = |of: &dyn Fn(usize) -> bool| -> Bits {
        match (0..segments).any(of) {
            true => (0..segments).map(of).collect(),
            false => Bits::default(),
        }
    };
    let stands = |t: usize| flipped[t] && !known(t);
    Track {
        class,
        label: (0..segments)
            .map(|t| match known(t) {
                true => user_label.expect("it is known").label.get(t),
                false => plg[t] != flipped[t],
            })
            .collect(),
        pld: bits(&stands),
        user: bits(&known),
        denoised: (0..segments).any(stands).then(|| {
            Arc::new(Denoised {
                epoch: prediction.expect("it flipped").epoch(),
                rule: *settings.expect("it flipped"),
                base: base.map(|base| Score::new(base).expect("a number")),
                losses: (0..segments)
                    .filter(|&t| stands(t))
                    .map(|t| Score::new(loss[t].expect("it flipped")).expect("a number"))
                    .collect(),
            })
        }),
    }
}

/// UserLabelRecord and predictions that fit no label.
fn misplaced(inputs: &GraphInputs, answer: &mut VersionOutput) {
    for (&(video, modality), user_labels) in &inputs.user_labels {
        let record = answer.labels.get(&(video, modality));
        let mut rejection = |why| {
            answer
                .rejections
                .insert((video, Rejection::UserLabel { modality, why }))
        };
        for user_label in user_labels
            .classes
            .iter()
            .filter(|user_label| user_label.known.ones() > 0)
        {
            let class = user_label.class;
            match record.map(|record| record.track(class)) {
                None => rejection(UserLabelRejection::Unlabelled),
                Some(None) => rejection(UserLabelRejection::Class(class)),
                Some(Some(track)) => {
                    let segments = track.label.len();
                    match (segments..user_label.known.len()).find(|&t| user_label.known.get(t)) {
                        None => continue,
                        Some(t) => rejection(UserLabelRejection::Segment {
                            class,
                            segment: t as u32,
                            segments: segments as u32,
                        }),
                    }
                }
            };
        }
    }
    for (&(video, modality), prediction) in &inputs.predictions {
        if let Some(record) = answer.labels.get(&(video, modality))
            && inputs.denoising.contains_key(&modality)
            && record.tracks[0].label.len() != prediction.segments() as usize
        {
            let rejection = Rejection::Prediction {
                modality,
                epoch: prediction.epoch(),
                segments: prediction.segments(),
                expected: record.tracks[0].label.len() as u32,
            };
            answer.rejections.insert((video, rejection));
        }
    }
}

fn changes(before: &LabelRecords, after: &LabelRecords) -> BTreeSet<Change> {
    let ones = |labels: &LabelRecords| -> BTreeSet<(VideoId, Modality, ClassId, u32)> {
        let mut ones = BTreeSet::new();
        for ((video, modality), record) in labels {
            for track in &record.tracks {
                let set = (0..track.label.len()).filter(|&segment| track.label.get(segment));
                ones.extend(set.map(|segment| (*video, *modality, track.class, segment as u32)));
            }
        }
        ones
    };
    let (was, is) = (ones(before), ones(after));
    let mut changes = BTreeSet::new();
    for (to, cells) in [(true, is.difference(&was)), (false, was.difference(&is))] {
        changes.extend(cells.map(|&(video, modality, class, segment)| {
            let track = after
                .get(&(video, modality))
                .and_then(|record| record.track(class));
            let rule = match track {
                Some(track) if track.user.get(segment as usize) => SetBy::User,
                Some(track) if track.pld.get(segment as usize) => SetBy::Pld,
                _ => SetBy::Plg,
            };
            Change {
                video,
                modality,
                class,
                segment,
                to,
                rule,
                flip: track.filter(|_| rule == SetBy::Pld).map(|track| {
                    let denoised = track.denoised.as_ref().expect("what PLD set was denoised");
                    let flipped = (0..=segment as usize).filter(|&t| track.pld.get(t));
                    Box::new(Flip {
                        epoch: denoised.epoch,
                        rule: denoised.rule,
                        base: denoised.base,
                        loss: denoised.losses[flipped.count() - 1],
                    })
                }),
            }
        }));
    }
    changes
}
