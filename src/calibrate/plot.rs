//! The curves of a calibration as one SVG picture.

use super::curve::CalibrationCurve;
use crate::events::xml::XmlPage;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 280.0;
/// Space around the curve: left, right, top, bottom.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 44.0;

/// A picture with one panel per modality: the metric over the threshold, today's threshold and the chosen one. `metric` is
/// the name of the metric.
pub fn svg(curves: &[CalibrationCurve], metric: &str) -> String {
    let all = HEIGHT * curves.len() as f64;
    let (width, height) = (number(WIDTH), number(all));
    let view = format!("0 0 {width} {height}");
    let mut page = XmlPage::new();
    let attributes = [
        ("xmlns", "http://www.w3.org/2000/svg"),
        ("width", width.as_str()),
        ("height", &height),
        ("viewBox", &view),
        ("font-family", "sans-serif"),
        ("font-size", "12"),
        ("role", "img"),
    ];
    page.element("svg", &attributes, |page| {
        page.text("title", &[], &format!("{metric} over the threshold"));
        page.empty(
            "rect",
            &[("width", "100%"), ("height", "100%"), ("fill", "#ffffff")],
        );
        for (nth, curve) in curves.iter().enumerate() {
            let place = format!("translate(0 {})", number(nth as f64 * HEIGHT));
            page.element("g", &[("transform", &place)], |page| panel(page, curve, metric));
        }
    });
    page.finish()
}

/// The place of a value on an axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // A flat curve needs an axis with a length.
        let least = high.abs().max(1e-6) * 1e-3;
        if high - low < least {
            (low, high) = (low - least, high + least);
        }
        Axis { low, high, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }
}

fn panel(page: &mut XmlPage, curve: &CalibrationCurve, metric: &str) {
    let marks = [curve.now, curve.chosen].into_iter().flatten();
    let across = Axis::of(
        curve.points.iter().map(|point| point.0).chain(marks),
        (LEFT, WIDTH - RIGHT),
    );
    let up = Axis::of(curve.points.iter().map(|point| point.1), (HEIGHT - BOTTOM, TOP));
    let text = |page: &mut XmlPage, (x, y): (f64, f64), anchor: &str, content: &str| {
        let (x, y) = (number(x), number(y));
        page.text(
            "text",
            &[("x", &x), ("y", &y), ("text-anchor", anchor), ("fill", "#333333")],
            content,
        );
    };
    text(
        page,
        (LEFT, 18.0),
        "start",
        &format!("{}: {metric}, percent", curve.modality),
    );
    let corners = [LEFT, TOP, WIDTH - RIGHT - LEFT, HEIGHT - BOTTOM - TOP].map(number);
    let [x, y, width, height] = &corners;
    let frame = [
        ("x", x.as_str()),
        ("y", y),
        ("width", width),
        ("height", height),
        ("fill", "none"),
        ("stroke", "#999999"),
    ];
    page.empty("rect", &frame);
    for (value, digits) in [(up.low, 1), (up.high, 1)] {
        text(
            page,
            (LEFT - 6.0, up.place(value) + 4.0),
            "end",
            &format!("{value:.digits$}"),
        );
    }
    for (value, anchor) in [(across.low, "start"), (across.high, "end")] {
        text(
            page,
            (across.place(value), HEIGHT - BOTTOM + 16.0),
            anchor,
            &format!("{value:.4}"),
        );
    }
    text(
        page,
        (LEFT + (WIDTH - RIGHT - LEFT) / 2.0, HEIGHT - 10.0),
        "middle",
        "threshold",
    );
    let points: Vec<String> = curve
        .points
        .iter()
        .map(|(threshold, value)| {
            format!(
                "{},{}",
                number(across.place(*threshold)),
                number(up.place(*value))
            )
        })
        .collect();
    let points = points.join(" ");
    page.empty(
        "polyline",
        &[
            ("points", &points),
            ("fill", "none"),
            ("stroke", "#1f6fb2"),
            ("stroke-width", "2"),
        ],
    );
    for (value, name, colour, dash, y) in [
        (curve.now, "now", "#888888", "4 3", TOP + 14.0),
        (curve.chosen, "chosen", "#b2421f", "none", TOP + 30.0),
    ] {
        let Some(value) = value else { continue };
        let x = across.place(value);
        let (place, top, bottom) = (number(x), number(TOP), number(HEIGHT - BOTTOM));
        let line = [
            ("x1", place.as_str()),
            ("x2", &place),
            ("y1", &top),
            ("y2", &bottom),
            ("stroke", colour),
            ("stroke-dasharray", dash),
        ];
        page.empty("line", &line);
        // The text stays within the frame.
        let right = x > (LEFT + WIDTH - RIGHT) / 2.0;
        let (at, anchor) = if right {
            (x - 4.0, "end")
        } else {
            (x + 4.0, "start")
        };
        text(page, (at, y), anchor, &format!("{name} {value}"));
    }
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vaplan_schemas::Modality;

    #[test]
    fn a_curve_is_drawn_from_edge_to_edge_with_both_thresholds() {
        let curve = CalibrationCurve {
            modality: Modality::Visual,
            points: vec![(1.0, 50.0), (1.5, 70.0), (2.0, 40.0)],
            now: Some(1.0),
            chosen: Some(2.0),
        };
        let svg = svg(&[curve], "Type@AV <&>");
        assert!(svg.contains("points=\"56,168 340,32 624,236\""), "{svg}");
        assert!(
            svg.contains("Type@AV &lt;&amp;&gt;") && svg.contains(">now 1<") && svg.contains(">chosen 2<"),
            "{svg}"
        );
    }

    #[test]
    fn curves_without_points_and_flat_curves_have_finite_coordinates() {
        for points in [vec![], vec![(1.0, 0.0), (1.0, 0.0)]] {
            let curve = CalibrationCurve {
                modality: Modality::Audio,
                points,
                now: None,
                chosen: None,
            };
            let svg = svg(&[curve], "A");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
