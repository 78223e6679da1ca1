//! Runs the network on the embeddings of one video.

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::Tensor;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::ParseRequest;
use super::encoders::{EncodingPlan, shown};
use crate::encode::embed::VideoEmbeddings;
use crate::encode::media::{Media, Pictures};
use crate::eval::{BitMatrix, Task};
use crate::events::{EventMatrices, VideoEvents, of_matrices};
use crate::parser::probabilities::predict_inputs;
use crate::parser::{ParserInputs, TrainedModel};
use crate::show::Timeline;
use crate::show::predicted::PredictedRows;

/// The probability from which on a segment is labelled, in every protocol.
const THRESHOLD: f64 = 0.5;

/// A video that was parsed.
#[derive(Clone, Debug)]
pub struct ParsedVideo {
    /// The events of the modalities that the video has.
    pub events: VideoEvents,
    /// The timeline of the video.
    pub timeline: Timeline,
    /// A note, if the video has one modality only.
    pub note: Option<RejectRow>,
}

/// The embeddings of audio and visual of the video at position `at`.
pub(super) fn embeddings_of(
    all: &mut BTreeMap<(usize, Modality), VideoEmbeddings>,
    at: usize,
) -> [Option<VideoEmbeddings>; 2] {
    Modality::ALL.map(|modality| all.remove(&(at, modality)))
}

/// The number of segments of a video. `None` if no modality has embeddings.
pub(super) fn segments_of(found: &[Option<VideoEmbeddings>; 2]) -> Option<u32> {
    found.iter().flatten().map(|own| own.segments).min()
}

/// Whether a rejected row says that the video has no file of the row's modality.
pub(super) fn has_no_file(media: &Media, row: &RejectRow) -> bool {
    let absent = match row.modality {
        Some(Modality::Visual) => media.pictures.is_none(),
        Some(Modality::Audio) => media.sound.is_none(),
        None => false,
    };
    absent && !media.ambiguous && row.video.as_deref() == Some(&*media.name)
}

/// Parses one video. `None` if no modality has embeddings, or if both have different numbers of segments; rows of the
/// encoding then give the reason.
///
/// The network takes both modalities. The features of a modality that the video lacks are zeros, and its events are not
/// reported. The network was not trained on such videos, and a note says so.
pub(super) fn parse(
    model: &TrainedModel,
    plan: &EncodingPlan,
    request: &ParseRequest,
    media: &Media,
    (mut found, clips): ([Option<VideoEmbeddings>; 2], Option<Tensor>),
) -> Option<ParsedVideo> {
    let segments = segments_of(&found)?;
    let has = found.each_ref().map(Option::is_some);
    let inputs = Modality::ALL.map(|modality| {
        let width = plan.widths[modality.index()];
        let mut values = match found[modality.index()].take() {
            Some(own) => plan.features(modality, own.values),
            None => Vec::new(),
        };
        // Both modalities have the number of segments that the pictures decide. Should they ever differ, the events of the
        // common segments are still right.
        values.resize(segments as usize * width, 0.0);
        let shape = [1, i64::from(segments), width as i64];
        Tensor::from_slice(&values)
            .view(shape)
            .to_device(model.parser.device())
    });
    let [audio, visual] = inputs;
    let inputs = ParserInputs {
        audio,
        visual,
        clips: clips.map(|clips| clips.to_device(model.parser.device())),
        padding: None,
    };
    let predicted = predict_inputs(&*model.parser, &inputs, &[(media.name.clone(), segments)]);
    let predicted = predicted.into_iter().next()?;
    let settings = &model.description.training;
    let gate = request.protocol.unwrap_or(settings.best_gate);
    let labels = match settings.task {
        Task::Avvp => predicted.labels(gate),
        Task::Ave => predicted.single(gate),
    };
    let classes: Arc<[Arc<str>]> = model.description.classes.clone().into();
    let cells = |bits: Option<BitMatrix>, modality: Modality| match bits {
        Some(bits) if has[modality.index()] => cells(&bits),
        _ => Vec::new(),
    };
    let labels = [
        cells(labels.audio, Modality::Audio),
        cells(labels.visual, Modality::Visual),
    ];
    let probabilities = [&predicted.segments[0][..], &predicted.segments[1][..]];
    let seconds = model.description.segment_seconds;
    let labels = [&labels[0][..], &labels[1][..]];
    let events = of_matrices(&EventMatrices {
        classes: classes.len(),
        labels,
        scores: Some(probabilities),
        segment_seconds: seconds,
    });
    let path = media
        .pictures
        .as_ref()
        .map(Pictures::path)
        .or(media.sound.as_deref());
    let tracks = Modality::ALL.into_iter().filter(|modality| has[modality.index()]);
    let tracks = tracks.flat_map(|modality| (0..classes.len()).map(move |class| (modality, class)));
    Some(ParsedVideo {
        timeline: Timeline::of_predictions(&PredictedRows {
            video: &media.name,
            segments: segments as usize,
            segment_seconds: seconds,
            classes: &classes,
            labels,
            probabilities,
            threshold: THRESHOLD,
        }),
        events: VideoEvents {
            video: media.name.clone(),
            media: path.map(shown),
            duration: f64::from(segments) * seconds,
            segment_seconds: seconds,
            // An editor that shows a tier for each of hundreds of classes is of no use: only classes with an event have one.
            tracks: tracks
                .filter(|(_, class)| events.iter().any(|event| event.class == *class))
                .collect(),
            classes,
            events,
            made_at: chrono::Utc::now().timestamp_millis(),
        },
        note: note(media, has),
    })
}

/// The labels `[T, C]` of a matrix of classes by segments.
fn cells(bits: &BitMatrix) -> Vec<u8> {
    let classes = bits.classes();
    let cell = |at: usize| u8::from(bits.get(at % classes, at / classes));
    (0..bits.segments() * classes).map(cell).collect()
}

fn note(media: &Media, has: [bool; 2]) -> Option<RejectRow> {
    let (missing, there) = match has {
        [true, false] => (Modality::Visual, Modality::Audio),
        [false, true] => (Modality::Audio, Modality::Visual),
        _ => return None,
    };
    let path = media
        .pictures
        .as_ref()
        .map(Pictures::path)
        .or(media.sound.as_deref());
    let file = path.map_or_else(String::new, |path| path.display().to_string());
    let reason = format!(
        "has no {missing} features, so that they are zeros for the network, and only {there} events are reported; the network \
         was trained on videos with both"
    );
    Some(
        RejectRow::note(RejectKind::Media, file, reason)
            .video(&*media.name)
            .modality(missing),
    )
}
