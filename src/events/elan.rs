//! ELAN annotation files (.eaf): one tier per modality and class.

use sha2::{Digest, Sha256};
use vaplan_schemas::Modality;

use super::xml::XmlPage;
use super::{TimedEvent, VideoEvents, milliseconds};

/// The annotator of tiers that the program wrote. A tier with another annotator was confirmed by a person.
pub const ANNOTATOR: &str = "vaplan";
/// Name of the header property with the full name of the video.
pub const VIDEO: &str = "vaplan:video";
/// Prefix of the header properties with the fingerprint of each tier, as it was exported. The name of the tier follows.
pub const FINGERPRINT: &str = "vaplan:tier:";

const LINGUISTIC_TYPE: &str = "default-lt";
/// The constraints that ELAN writes into every file; the schema has them as fixed names.
const CONSTRAINTS: [(&str, &str); 4] = [
    (
        "Time_Subdivision",
        "Time subdivision of parent annotation's time interval, no time gaps allowed within this interval",
    ),
    (
        "Symbolic_Subdivision",
        "Symbolic subdivision of a parent annotation. Annotations refering to the same parent are ordered",
    ),
    ("Symbolic_Association", "1-1 association with a parent annotation"),
    (
        "Included_In",
        "Time alignable annotations within the parent annotation's time interval, gaps are allowed",
    ),
];

/// The name of the tier of a modality and class.
pub fn tier_name(modality: Modality, class: &str) -> String {
    format!("{modality}/{class}")
}

/// A fingerprint of the spans of a tier: a tier whose fingerprint changed was edited. Spans are milliseconds.
pub fn fingerprint(spans: &[(u64, u64)]) -> String {
    let mut spans = spans.to_vec();
    spans.sort_unstable();
    let mut sum = Sha256::new();
    for (onset, offset) in spans {
        sum.update(format!("{onset}-{offset};"));
    }
    let bytes = sum.finalize();
    bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spans<'a>(events: impl Iterator<Item = &'a TimedEvent>) -> Vec<(u64, u64)> {
    let span = |event: &TimedEvent| (milliseconds(event.onset), milliseconds(event.offset));
    events.map(span).collect()
}

/// A document of format 3.0. Times are milliseconds. The header records the name of the video and a fingerprint of each
/// tier, so that `relabel --user` knows which tiers a person edited.
///
/// Source: the schema <http://www.mpi.nl/tools/elan/EAFv3.0.xsd>.
pub fn text(video: &VideoEvents) -> String {
    let made = chrono::DateTime::from_timestamp_millis(video.made_at).unwrap_or_default();
    let mut page = XmlPage::new();
    let root = [
        ("AUTHOR", ANNOTATOR),
        ("DATE", &made.to_rfc3339_opts(chrono::SecondsFormat::Secs, false)),
        ("FORMAT", "3.0"),
        ("VERSION", "3.0"),
        ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
        (
            "xsi:noNamespaceSchemaLocation",
            "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        ),
    ];
    page.element("ANNOTATION_DOCUMENT", &root, |page| {
        header(video, page);
        times(video, page);
        tiers(video, page);
        let linguistic = [
            ("GRAPHIC_REFERENCES", "false"),
            ("LINGUISTIC_TYPE_ID", LINGUISTIC_TYPE),
            ("TIME_ALIGNABLE", "true"),
        ];
        page.empty("LINGUISTIC_TYPE", &linguistic);
        for (stereotype, description) in CONSTRAINTS {
            page.empty(
                "CONSTRAINT",
                &[("DESCRIPTION", description), ("STEREOTYPE", stereotype)],
            );
        }
    });
    page.finish()
}

fn header(video: &VideoEvents, page: &mut XmlPage) {
    let attributes = [("MEDIA_FILE", ""), ("TIME_UNITS", "milliseconds")];
    page.element("HEADER", &attributes, |page| {
        if let Some(media) = &video.media {
            page.empty(
                "MEDIA_DESCRIPTOR",
                &[("MEDIA_URL", &media_url(media)), ("MIME_TYPE", mime_type(media))],
            );
        }
        page.text("PROPERTY", &[("NAME", VIDEO)], &video.video);
        for (modality, class) in &video.tracks {
            let tier = tier_name(*modality, video.class(*class));
            let name = format!("{FINGERPRINT}{tier}");
            page.text(
                "PROPERTY",
                &[("NAME", &name)],
                &fingerprint(&spans(video.of_track(*modality, *class))),
            );
        }
        page.text(
            "PROPERTY",
            &[("NAME", "lastUsedAnnotationId")],
            &video.events.len().to_string(),
        );
    });
}

fn times(video: &VideoEvents, page: &mut XmlPage) {
    page.element("TIME_ORDER", &[], |page| {
        // The schema wants the slots in order of time; each event has two of its own, and refers to them by number.
        let mut slots: Vec<(u64, usize)> = Vec::new();
        for (nth, (onset, offset)) in spans(video.events.iter()).into_iter().enumerate() {
            slots.extend([(onset, 2 * nth), (offset, 2 * nth + 1)]);
        }
        slots.sort_unstable();
        for (time, slot) in slots {
            let (id, time) = (slot_id(slot), time.to_string());
            page.empty("TIME_SLOT", &[("TIME_SLOT_ID", &id), ("TIME_VALUE", &time)]);
        }
    });
}

fn slot_id(slot: usize) -> String {
    format!("ts{}", slot + 1)
}

fn tiers(video: &VideoEvents, page: &mut XmlPage) {
    for (modality, class) in &video.tracks {
        let name = tier_name(*modality, video.class(*class));
        let attributes = [
            ("ANNOTATOR", ANNOTATOR),
            ("LINGUISTIC_TYPE_REF", LINGUISTIC_TYPE),
            ("TIER_ID", &name),
        ];
        let own = video.events.iter().enumerate();
        let own: Vec<usize> = own
            .filter(|(_, event)| (event.modality, event.class) == (*modality, *class))
            .map(|(nth, _)| nth)
            .collect();
        if own.is_empty() {
            page.empty("TIER", &attributes);
            continue;
        }
        page.element("TIER", &attributes, |page| {
            for nth in own {
                annotation(video, nth, page);
            }
        });
    }
}

fn annotation(video: &VideoEvents, nth: usize, page: &mut XmlPage) {
    let (id, first, last) = (format!("a{}", nth + 1), slot_id(2 * nth), slot_id(2 * nth + 1));
    let attributes = [
        ("ANNOTATION_ID", id.as_str()),
        ("TIME_SLOT_REF1", &first),
        ("TIME_SLOT_REF2", &last),
    ];
    page.element("ANNOTATION", &[], |page| {
        page.element("ALIGNABLE_ANNOTATION", &attributes, |page| {
            page.text("ANNOTATION_VALUE", &[], video.class(video.events[nth].class));
        });
    });
}

/// A path or a name as part of a URL: all bytes but unreserved characters (RFC 3986) and `/` are percent-encoded.
pub(crate) fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    let encoded = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

/// ELAN wants a URL. A path becomes a `file:` URL with its special characters escaped.
fn media_url(media: &str) -> String {
    if media.contains("://") || !media.starts_with('/') {
        return media.to_owned();
    }
    format!("file://{}", percent_encoded(media))
}

fn mime_type(media: &str) -> &'static str {
    let extension = media.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match &*extension {
        "mp4" | "m4v" => "video/mp4",
        "wav" => "audio/x-wav",
        "mov" => "video/quicktime",
        "mpg" | "mpeg" => "video/mpeg",
        _ => "unknown",
    }
}
