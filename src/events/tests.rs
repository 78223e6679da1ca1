//! Events of small matrices, and files of names that are hard to write.

use super::*;
use crate::choice::Choice;

/// A video of 5 s with a class whose name is hard to write, one with a line break, and one plain class.
pub(crate) fn hard() -> VideoEvents {
    let classes: [Arc<str>; 3] = ["Dog".into(), "<a & \"b\"> 'ü' 犬".into(), "two\nlines".into()];
    let events = of_matrices(&EventMatrices {
        classes: 3,
        labels: [&[1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0], &[0; 15]],
        scores: None,
        segment_seconds: 1.0,
    });
    VideoEvents {
        video: "vid <1> & \"2\" ü".into(),
        media: Some("/media/vid <1>.mp4".to_owned()),
        duration: 5.0,
        segment_seconds: 1.0,
        classes: classes.into(),
        tracks: Modality::ALL
            .into_iter()
            .flat_map(|modality| (0..3).map(move |class| (modality, class)))
            .collect(),
        events,
        made_at: 0,
    }
}

#[test]
fn runs_become_events_with_mean_scores_and_an_empty_matrix_gives_none() {
    let (audio, scores) = ([1, 1, 0, 1], [0.5, 0.75, 0.25, 1.0]);
    let events = of_matrices(&EventMatrices {
        classes: 1,
        labels: [&audio, &[]],
        scores: Some([&scores, &[]]),
        segment_seconds: 0.96,
    });
    let found: Vec<_> = events
        .iter()
        .map(|event| (event.onset, event.offset, event.score))
        .collect();
    assert_eq!(found, [(0.0, 1.92, Some(0.625)), (2.88, 3.84, Some(1.0))]);
    let none = EventMatrices {
        classes: 0,
        labels: [&[], &[]],
        scores: None,
        segment_seconds: 1.0,
    };
    assert_eq!(of_matrices(&none), []);
}

#[test]
fn formats_of_single_lines_name_the_class_with_a_line_break_and_the_others_keep_it() {
    let video = hard();
    for (format, name, _) in EventFormat::ALL {
        let file = format.file(&video);
        let left: Vec<&str> = file.left_out.iter().map(|class| &**class).collect();
        let whole = matches!(format, EventFormat::Json | EventFormat::Csv);
        assert_eq!(left, if whole { vec![] } else { vec!["two\nlines"] }, "{name}");
        assert_eq!(file.text.contains("lines"), whole, "{name}");
        assert!(file.text.contains("Dog") && file.text.contains('犬'), "{name}");
    }
}

#[test]
fn times_and_escapes_are_those_of_each_format() {
    let video = hard();
    let text = |format: EventFormat| format.file(&video).text;
    assert!(
        text(EventFormat::WebVtt)
            .contains("\n00:00:02.000 --> 00:00:05.000\naudio: &lt;a &amp; \"b\"&gt; 'ü' 犬\n")
    );
    assert!(text(EventFormat::Audacity).starts_with("0.000000\t2.000000\taudio: Dog\n"));
    assert!(text(EventFormat::TextGrid).contains("name = \"audio/<a & \"\"b\"\"> 'ü' 犬\""));
    let elan = text(EventFormat::Elan);
    assert!(
        elan.contains(
            "<TIER ANNOTATOR=\"vaplan\" LINGUISTIC_TYPE_REF=\"default-lt\" TIER_ID=\"visual/Dog\"/>"
        )
    );
    assert!(
        elan.contains("MEDIA_URL=\"file:///media/vid%20%3C1%3E.mp4\""),
        "{elan}"
    );
}
