//! A timeline as one self-contained HTML page: no script, no file beside it, no request.

use std::fmt::Write as _;

use quick_xml::escape::escape;

use super::timeline::{Lane, Timeline, TimelineTrack};

const CELL: usize = 22;
const ROW: usize = 20;
const NAMES: usize = 200;

const STYLE: &str = "\
body{font:14px/1.4 sans-serif;margin:2em;color:#222;background:#fff}
svg text{font:12px sans-serif;fill:currentColor}
table{border-collapse:collapse;margin-top:1em}
td,th{border:1px solid #8888;padding:2px 8px;text-align:left}
.on{fill:#2a7d4f}.wrong{fill:#d9a400}.missed{fill:none;stroke:#c0392b;stroke-width:2}.unknown{fill:#2980b9}.off{fill:#8882}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}
";

/// The page. Each track is a row of segments: filled where the label is set, and outlined where the truth has an event that
/// is not labelled. Each segment has a tooltip with its time, label, truth and score. A table below lists the flips.
pub fn html(timeline: &Timeline) -> String {
    let name = escape(&*timeline.video);
    let weak: Vec<_> = timeline
        .weak_labels
        .iter()
        .map(|class| escape(&**class))
        .collect();
    let weak = if weak.is_empty() {
        "none".to_owned()
    } else {
        weak.join(", ")
    };
    let what = match timeline.split {
        Some(split) => format!("{split}, {{}}, {}: {weak}", timeline.heading()),
        None => format!("{{}}, {}: {weak}", timeline.heading()),
    };
    let length = format!("{} segments of {} s", timeline.segments, timeline.segment_seconds);
    let what = what.replacen("{}", &length, 1);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title>\n<style>{STYLE}</style></head>\n\
         <body><h1>{name}</h1>\n<p>{what}</p>\n"
    );
    let mut put = |text: &str| page.push_str(text);
    put(&drawing(timeline));
    put(&legend(timeline));
    put(&flips(timeline));
    put("</body></html>\n");
    page
}

fn drawing(timeline: &Timeline) -> String {
    let rows = timeline.tracks.len() + Lane::ALL.len();
    let (width, height) = (NAMES + CELL * timeline.segments + 40, ROW * rows + 30);
    let mut svg = format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"timeline\">\n"
    );
    let mut y = 0;
    for lane in Lane::ALL {
        y += ROW;
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{}\" font-weight=\"bold\">{}</text>",
            y - 5,
            lane.as_str()
        );
        for track in timeline.tracks.iter().filter(|track| track.lane == lane) {
            y += ROW;
            let _ = writeln!(
                svg,
                "<text x=\"12\" y=\"{}\">{}</text>",
                y - 5,
                escape(&*track.class)
            );
            for segment in 0..timeline.segments {
                cell(&mut svg, timeline, track, segment, y - ROW + 2);
            }
        }
    }
    // The ruler has at most about 20 numbers.
    let step = timeline.segments.div_ceil(20).max(1);
    for segment in (0..=timeline.segments).step_by(step) {
        let x = NAMES + CELL * segment;
        let time = segment as f64 * timeline.segment_seconds;
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            y + 16,
            round(time)
        );
    }
    svg + "</svg>\n"
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn cell(svg: &mut String, timeline: &Timeline, track: &TimelineTrack, segment: usize, y: usize) {
    let label = track.labels.get(segment).copied().unwrap_or(false);
    let truth = track.truth.as_ref().map(|truth| truth[segment]);
    let class = match (label, truth) {
        (true, Some(true)) => "on",
        (true, Some(false)) => "wrong",
        (true, None) => "unknown",
        (false, Some(true)) => "missed",
        (false, _) => "off",
    };
    let (from, to) = (segment as f64, (segment + 1) as f64);
    let mut tip = format!(
        "{} to {} s: {}",
        round(from * timeline.segment_seconds),
        round(to * timeline.segment_seconds),
        if label { "labelled" } else { "not labelled" }
    );
    if let Some(truth) = truth {
        tip += if truth { ", true" } else { ", not true" };
    }
    if let Some(score) = track.scores.as_ref().and_then(|scores| scores.get(segment)) {
        let _ = write!(tip, ", score {score:.4}");
        if let Some(threshold) = track.score_threshold {
            let _ = write!(tip, ", threshold {threshold:.4}");
        }
    }
    if track.flips.iter().any(|flip| flip.segment == segment) {
        tip += ", flipped by PLD";
    }
    let x = NAMES + CELL * segment;
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\"><title>{tip}</title></rect>",
        CELL - 2,
        ROW - 4
    );
}

fn legend(timeline: &Timeline) -> String {
    let annotated = timeline.tracks.iter().any(|track| track.truth.is_some());
    let text = match annotated {
        true => "Green: labelled and true. Yellow: labelled, not true. Red outline: true, not labelled.",
        false => "Blue: labelled; no truth is known.",
    };
    format!("<p>{text} Point at a segment for its score.</p>\n")
}

fn flips(timeline: &Timeline) -> String {
    let mut rows = String::new();
    for track in &timeline.tracks {
        for flip in &track.flips {
            let to = if flip.label { "set" } else { "unset" };
            let epoch = flip.why.map_or_else(String::new, |why| why.epoch.to_string());
            let loss = flip
                .why
                .and_then(|why| why.loss)
                .map_or_else(String::new, |loss| format!("{loss:.2}"));
            let _ = writeln!(
                rows,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{to}</td><td>{epoch}</td><td>{loss}</td></tr>",
                track.lane.as_str(),
                escape(&*track.class),
                round(flip.segment as f64 * timeline.segment_seconds)
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<table><caption>Labels that PLD flipped</caption><tr><th>modality</th><th>class</th><th>second</th><th>now</th>\
         <th>epoch</th><th>loss</th></tr>\n{rows}</table>\n"
    )
}
