//! A timeline as text: coloured, or plain ASCII.
//!
//! ```text
//! audio                 0       2       4       6       8       10 s
//!   Dog          label  ################........................
//!                truth  ............####################........
//!        > 0.0380 score 8888999977776666222211110000000000001111
//! ```

use std::io::{self, Write};
use std::ops::Range;

use anstyle::{AnsiColor, Style};

use super::timeline::{Lane, Timeline, TimelineTrack};

/// How a timeline is written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineStyle {
    /// Write ASCII without escape codes, for files, pipes and `NO_COLOR`.
    pub plain: bool,
    /// Available columns. A segment is 4, 2 or 1 columns wide, the widest that fits. A video that does not fit at a
    /// width of 1 is shown in pieces, one below the other.
    pub width: usize,
}

/// Number of characters of a class name that are shown.
const NAME_WIDTH: usize = 24;
/// Smallest number of segments in a piece, even if the terminal is narrower.
const FEWEST: usize = 10;
/// Columns reserved after the last segment, for the last number of the ruler.
const RULER_END: usize = 6;

const HIT: Style = AnsiColor::Green.on_default();
const FALSE_ALARM: Style = AnsiColor::Yellow.on_default();
const UNCHECKED: Style = AnsiColor::Cyan.on_default();
const MISS: Style = AnsiColor::Red.on_default();
const FAINT: Style = Style::new().dimmed();
const PLAIN: Style = Style::new();
const HEADING: Style = Style::new().bold();

/// Writes a timeline.
///
/// Each class has a row of labels, then a row of truth if the video is annotated, and a row of scores if it has
/// scores. Scores are shown in ten (plain) or eight (blocks) equal steps from the lowest to the highest score of
/// their lane. In colour, a label is green if the truth agrees, yellow if it does not, and cyan if there is no truth.
/// Truth without a label is red.
///
/// # Errors
/// Returns the error of `out` if it cannot be written to.
pub fn render(timeline: &Timeline, look: TimelineStyle, out: &mut dyn Write) -> io::Result<()> {
    let page = TimelinePage::new(timeline, look);
    page.head(out)?;
    if timeline.segments == 0 {
        return writeln!(out, "no features were readable, so there are no segments to show");
    }
    let per_piece = page.segments_per_piece();
    for first in (0..timeline.segments).step_by(per_piece) {
        writeln!(out)?;
        page.piece(first..timeline.segments.min(first + per_piece), out)?;
    }
    writeln!(out)?;
    page.legend(out)?;
    page.flips(out)
}

/// A timeline with the widths of its parts.
struct TimelinePage<'a> {
    timeline: &'a Timeline,
    look: TimelineStyle,
    /// Width of the class names, in columns.
    names: usize,
    /// Width of a segment, in columns.
    cell: usize,
}

/// One line of text in several styles.
struct StyledLine {
    plain: bool,
    text: String,
    style: Style,
}

impl StyledLine {
    fn new(plain: bool) -> StyledLine {
        StyledLine {
            plain,
            text: String::new(),
            style: PLAIN,
        }
    }

    fn push(&mut self, style: Style, text: &str) {
        if !self.plain && style != self.style {
            self.text
                .push_str(&format!("{}{}", self.style.render_reset(), style.render()));
            self.style = style;
        }
        self.text.push_str(text);
    }

    fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.push(PLAIN, "");
        writeln!(out, "{}", self.text.trim_end())
    }
}

impl<'a> TimelinePage<'a> {
    fn new(timeline: &'a Timeline, look: TimelineStyle) -> TimelinePage<'a> {
        let name = |track: &TimelineTrack| printable(&track.class).chars().count().min(NAME_WIDTH);
        let names = timeline
            .tracks
            .iter()
            .map(name)
            .max()
            .unwrap_or(0)
            .max(Lane::AudioVisual.as_str().len());
        let mut page = TimelinePage {
            timeline,
            look,
            names,
            cell: 1,
        };
        page.cell = [4, 2]
            .into_iter()
            .find(|cell| timeline.segments * cell <= page.room())
            .unwrap_or(1);
        page
    }

    /// Columns left of the segments: two spaces, the name, and 8 columns for the kind of row with spaces.
    fn gutter(&self) -> usize {
        2 + self.names + 8
    }

    /// Columns that are available for segments.
    fn room(&self) -> usize {
        self.look
            .width
            .saturating_sub(self.gutter() + RULER_END)
            .max(FEWEST)
    }

    /// Number of segments in a piece: a multiple of 10, so that the rulers of all pieces look alike.
    fn segments_per_piece(&self) -> usize {
        let fit = self.room() / self.cell;
        if self.timeline.segments <= fit {
            self.timeline.segments
        } else {
            fit / FEWEST * FEWEST
        }
    }

    fn head(&self, out: &mut dyn Write) -> io::Result<()> {
        let Timeline {
            video,
            split,
            segments,
            segment_seconds,
            weak_labels,
            ..
        } = self.timeline;
        let weak: Vec<String> = weak_labels.iter().map(|class| printable(class)).collect();
        let weak = if weak.is_empty() {
            "none".to_owned()
        } else {
            weak.join(", ")
        };
        let mut line = StyledLine::new(self.look.plain);
        line.push(HEADING, &printable(video));
        let plural = if *segments == 1 { "" } else { "s" };
        let heading = self.timeline.heading();
        let length = number(*segment_seconds);
        let length = format!("{segments} segment{plural} of {length} s");
        let rest = match split {
            Some(split) => format!("  {split}, {length}, {heading}: {weak}"),
            None => format!("  {length}, {heading}: {weak}"),
        };
        line.push(PLAIN, &rest);
        line.write(out)
    }

    fn piece(&self, segments: Range<usize>, out: &mut dyn Write) -> io::Result<()> {
        for lane in Lane::ALL {
            let mut line = StyledLine::new(self.look.plain);
            line.push(HEADING, &format!("{:<1$}", lane.as_str(), self.gutter()));
            line.push(FAINT, &self.ruler(&segments));
            line.write(out)?;
            let tracks: Vec<&TimelineTrack> = self
                .timeline
                .tracks
                .iter()
                .filter(|track| track.lane == lane)
                .collect();
            if tracks.is_empty() {
                writeln!(out, "  nothing")?;
            }
            let scale = ScoreScale::of(&tracks);
            for track in tracks {
                self.track(track, scale, &segments, out)?;
            }
        }
        Ok(())
    }

    /// A line with the time in seconds at regular steps, as many as fit.
    fn ruler(&self, segments: &Range<usize>) -> String {
        let label = |segment: usize| number(segment as f64 * self.timeline.segment_seconds);
        // Use the longest number of the whole video, so that the rulers of all pieces have the same step.
        let longest = (0..=self.timeline.segments)
            .map(|segment| label(segment).len())
            .max()
            .unwrap_or(0);
        let steps = (0..).flat_map(|power| [1, 2, 5].map(|step| step * 10usize.pow(power)));
        let step = steps
            .take(18)
            .find(|step| step * self.cell > longest)
            .unwrap_or(segments.len().max(1));
        let mut ruler = String::new();
        for segment in (segments.start..=segments.end).filter(|segment| segment % step == 0) {
            let column = (segment - segments.start) * self.cell;
            ruler.push_str(&" ".repeat(column.saturating_sub(ruler.len())));
            ruler.push_str(&label(segment));
        }
        ruler + " s"
    }

    fn track(
        &self,
        track: &TimelineTrack,
        scale: ScoreScale,
        segments: &Range<usize>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let truth = |segment: usize| track.truth.as_ref().map(|truth| truth[segment]);
        let name: String = printable(&track.class).chars().take(NAME_WIDTH).collect();
        self.row(&name, "label", segments, out, |segment| {
            match (track.labels[segment], truth(segment)) {
                (false, _) => self.off(),
                (true, None) => (UNCHECKED, self.glyph('#', '█')),
                (true, Some(true)) => (HIT, self.glyph('#', '█')),
                (true, Some(false)) => (FALSE_ALARM, self.glyph('#', '█')),
            }
        })?;
        if let Some(truth) = &track.truth {
            self.row("", "truth", segments, out, |segment| {
                match (truth[segment], track.labels[segment]) {
                    (false, _) => self.off(),
                    (true, true) => (HIT, self.glyph('=', '▀')),
                    (true, false) => (MISS, self.glyph('=', '▀')),
                }
            })?;
        }
        let Some(scores) = &track.scores else {
            return Ok(());
        };
        let score_threshold = track.score_threshold.map_or_else(String::new, |score_threshold| {
            format!("> {}", score(score_threshold))
        });
        let score_threshold = format!("{score_threshold:>0$}", self.names);
        self.row(&score_threshold, "score", segments, out, |segment| {
            let value = scores.get(segment).copied().unwrap_or(f64::NAN);
            let above = track
                .score_threshold
                .is_none_or(|score_threshold| value > score_threshold);
            (
                if above { PLAIN } else { FAINT },
                scale.glyph(value, self.look.plain),
            )
        })
    }

    fn row(
        &self,
        name: &str,
        what: &str,
        segments: &Range<usize>,
        out: &mut dyn Write,
        cell: impl Fn(usize) -> (Style, char),
    ) -> io::Result<()> {
        let mut line = StyledLine::new(self.look.plain);
        line.push(PLAIN, &format!("  {name:<0$} ", self.names));
        line.push(FAINT, &format!("{what}  "));
        for segment in segments.clone() {
            let (style, glyph) = cell(segment);
            line.push(style, &glyph.to_string().repeat(self.cell));
        }
        line.write(out)
    }

    /// Writes a line for each label that PLD flipped: the label, its new value, and the reason.
    fn flips(&self, out: &mut dyn Write) -> io::Result<()> {
        for track in &self.timeline.tracks {
            for flip in &track.flips {
                let (lane, class) = (track.lane.as_str(), printable(&track.class));
                let second = number(flip.segment as f64 * self.timeline.segment_seconds);
                let to = if flip.label { "set" } else { "unset" };
                write!(out, "flipped: {lane} {class}, {second} s: {to}")?;
                if let Some(why) = flip.why {
                    write!(out, " after epoch {}", why.epoch)?;
                }
                if let Some((loss, limit)) = flip.why.and_then(|why| Some((why.loss?, why.limit?))) {
                    let (loss, base) = (score(loss), score(limit.base));
                    let (k, alpha) = (limit.k, limit.alpha);
                    write!(
                        out,
                        ", loss {loss} > {alpha} x {base}, the mean of the {k} smallest"
                    )?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn glyph(&self, plain: char, block: char) -> char {
        if self.look.plain { plain } else { block }
    }

    fn off(&self) -> (Style, char) {
        (FAINT, self.glyph('.', '·'))
    }

    fn legend(&self, out: &mut dyn Write) -> io::Result<()> {
        let annotated = self.timeline.tracks.iter().any(|track| track.truth.is_some());
        let mut line = StyledLine::new(self.look.plain);
        if self.look.plain {
            line.push(
                PLAIN,
                if annotated {
                    "# label, = truth"
                } else {
                    "# label; no truth is known"
                },
            );
        } else if annotated {
            for (style, text) in [
                (HIT, "█ label, true"),
                (FALSE_ALARM, "  █ label, not true"),
                (MISS, "  ▀ true, not labelled"),
            ] {
                line.push(style, text);
            }
        } else {
            line.push(UNCHECKED, "█ label");
            line.push(PLAIN, "; no truth is known");
        }
        line.write(out)?;
        for lane in Lane::ALL {
            let tracks: Vec<&TimelineTrack> = self
                .timeline
                .tracks
                .iter()
                .filter(|track| track.lane == lane)
                .collect();
            let scale = ScoreScale::of(&tracks);
            let (low, high) = (scale.low, scale.high);
            let glyph = |value| scale.glyph(value, self.look.plain);
            let lane = lane.as_str();
            if low < high {
                let (first, last) = (glyph(low), glyph(high));
                writeln!(
                    out,
                    "{lane} scores: {first} is {}, {last} is {}",
                    score(low),
                    score(high)
                )?;
            } else if low == high {
                writeln!(out, "{lane} scores: all {}", score(low))?;
            }
        }
        Ok(())
    }
}

/// Lowest and highest score of a lane.
#[derive(Clone, Copy)]
struct ScoreScale {
    low: f64,
    high: f64,
}

impl ScoreScale {
    fn of(tracks: &[&TimelineTrack]) -> ScoreScale {
        let mut scale = ScoreScale {
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
        };
        let scores = tracks.iter().flat_map(|track| track.scores.iter().flatten());
        for value in scores.copied().filter(|value| value.is_finite()) {
            scale.low = scale.low.min(value);
            scale.high = scale.high.max(value);
        }
        scale
    }

    /// The character for a score: `?` if the score is not finite, and the lowest step if all scores are equal.
    fn glyph(self, value: f64, plain: bool) -> char {
        const DIGITS: &[char] = &['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];
        const BLOCKS: &[char] = &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        if !value.is_finite() {
            return '?';
        }
        let glyphs = if plain { DIGITS } else { BLOCKS };
        let share = (value - self.low) / (self.high - self.low);
        // A share of NaN (0 / 0) becomes step 0.
        let step = (share * glyphs.len() as f64) as usize;
        glyphs[step.min(glyphs.len() - 1)]
    }
}

/// The number with at most two decimals, without trailing zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The score with four decimals below 1, and two otherwise: probabilities are near 1 / C, scaled cosines are in the
/// tens.
fn score(value: f64) -> String {
    if value.abs() < 1.0 {
        format!("{value:.4}")
    } else {
        format!("{value:.2}")
    }
}

/// Escapes control characters, because a name comes from the data and must not control the terminal.
fn printable(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}
