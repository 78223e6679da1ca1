//! Edits of user labels, and the files that they are read from.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectKind;

use super::{ChangeRows, Origin, elan, label_studio};
use crate::ingest::sheet::{self, optional, required};
use crate::ingest::{IngestError, open_regular};

/// One edit of user labels.
#[derive(Clone, Debug, PartialEq)]
pub struct UserEditRow {
    /// Full name of the video, or its first 11 characters if no other video has them.
    pub video: Arc<str>,
    /// Modality of the labels.
    pub modality: Modality,
    /// Name of the class.
    pub class: Arc<str>,
    /// The segments of the edit.
    pub span: UserSpan,
    /// The label of these segments. `None` withdraws the user labels.
    pub label: Option<bool>,
    /// Source of the row.
    pub origin: Origin,
}

/// The segments of an edit, as the user states them.
#[derive(Clone, Debug, PartialEq)]
pub enum UserSpan {
    /// Segments from 0. The end is the first segment after the range.
    Segments(Range<u32>),
    /// Seconds from the start of the video.
    Seconds(Range<f64>),
    /// Every segment of the video.
    Whole,
}

impl UserSpan {
    /// Largest segment number of a user label, 1,048,576. No video has so many segments.
    pub const MOST_SEGMENT: u32 = 1 << 20;
    /// Largest number of segments of one row, 16,384. Each segment becomes a row of table `user_labels`, so that one
    /// wrong digit could otherwise make millions of rows.
    pub const MOST_OF_A_ROW: u32 = 1 << 14;

    /// The segments of this span, if a segment lasts `segment_seconds` and the video has `all` segments. Seconds are rounded
    /// to the nearest border of two segments; a span that is then empty means the segment of its middle.
    ///
    /// ```
    /// use vaplan::ingest::changes::UserSpan;
    /// assert_eq!(UserSpan::Seconds(1.4..3.6).segments(1.0, 10)?, 1..4);
    /// assert_eq!(UserSpan::Seconds(1.4..1.5).segments(1.0, 10)?, 1..2);
    /// assert_eq!(UserSpan::Seconds(1.0..2.0).segments(0.5, 10)?, 2..4);
    /// assert_eq!(UserSpan::Whole.segments(1.0, 10)?, 0..10);
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// Returns a message with the value found and the value expected, if the span is empty, has more than
    /// [`Self::MOST_OF_A_ROW`] segments, or begins after segment [`Self::MOST_SEGMENT`].
    pub fn segments(&self, segment_seconds: f64, all: u32) -> Result<Range<u32>, String> {
        self.check()?;
        let segments = match self {
            UserSpan::Segments(segments) => segments.clone(),
            UserSpan::Whole if all == 0 => {
                return Err("the video has no segments, expected one with features".to_owned());
            }
            UserSpan::Whole => 0..all,
            UserSpan::Seconds(Range { start, end }) => {
                // A cast of a float stops at the largest whole number, which the checks below refuse.
                let border = |seconds: f64| (seconds / segment_seconds).round() as u32;
                match (border(*start), border(*end)) {
                    (first, past) if first < past => first..past,
                    _ => {
                        let middle = ((start + end) / 2.0 / segment_seconds).floor() as u32;
                        middle..middle.saturating_add(1)
                    }
                }
            }
        };
        UserSpan::check_segments(&segments)?;
        Ok(segments)
    }

    /// Checks what can be checked without the length of a segment.
    ///
    /// # Errors
    /// Returns the message that [`UserSpan::segments`] would return, except that of too many segments for a span in
    /// seconds.
    pub fn check(&self) -> Result<(), String> {
        match self {
            UserSpan::Whole => Ok(()),
            UserSpan::Segments(segments) => UserSpan::check_segments(segments),
            UserSpan::Seconds(Range { start, end })
                if start.is_finite() && end.is_finite() && *start >= 0.0 && start < end =>
            {
                Ok(())
            }
            UserSpan::Seconds(Range { start, end }) => Err(format!(
                "start_seconds is {start} and end_seconds is {end}, expected numbers from 0, the first one less"
            )),
        }
    }

    fn check_segments(&Range { start, end }: &Range<u32>) -> Result<(), String> {
        if start >= end {
            return Err(format!("onset is {start}, expected less than offset {end}"));
        }
        let most = Self::MOST_OF_A_ROW;
        if end - start > most {
            return Err(format!(
                "onset {start} and offset {end} are {} segments, expected at most {most} in a row",
                end - start
            ));
        }
        if start > Self::MOST_SEGMENT {
            let most = Self::MOST_SEGMENT;
            return Err(format!("segment is {start}, expected a segment from 0 to {most}"));
        }
        Ok(())
    }
}

impl ChangeRows {
    /// Reads user labels. The first character of the file tells its kind: an ELAN file begins with `<`, Label Studio's export
    /// with `[` or `{`, and every other file is CSV.
    ///
    /// # Errors
    /// Returns [`IngestError::UserLabels`] if the file is no ELAN file or no export of Label Studio, and the errors of
    /// [`ChangeRows::read_weak`].
    pub fn read_user(&mut self, path: &Path) -> Result<(), IngestError> {
        let (path, file) = self.file(path)?;
        let (mut open, _) = open_regular(&path)?;
        let mut bytes = Vec::new();
        open.read_to_end(&mut bytes)
            .map_err(IngestError::io("read", &path))?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        // UTF-16 begins with a byte order mark, and every second byte of its ASCII characters is 0.
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
            return Err(IngestError::UserLabels {
                path: path.clone(),
                problem: "is UTF-16 or no text, expected UTF-8: save the file as UTF-8".to_owned(),
            });
        }
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if !matches!(first, Some(b'<' | b'[' | b'{')) {
            return self.read_user_csv(&path, &file);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| IngestError::UserLabels {
            path: path.clone(),
            problem: format!(
                "is not UTF-8 from byte {} on, expected UTF-8",
                error.valid_up_to()
            ),
        })?;
        match first {
            Some(b'<') => elan::read(self, &path, Origin { file, row: None }, text),
            _ => label_studio::read(self, &path, &file, text),
        }
    }

    /// Reads a CSV file: columns `video`, `modality`, `class`, `label` (0, 1 or `withdraw`), and one of: `segment`;
    /// `onset` and `offset` (segment numbers; the offset is the first segment after the range); `start_seconds` and
    /// `end_seconds`.
    fn read_user_csv(&mut self, path: &Path, file: &Arc<str>) -> Result<(), IngestError> {
        let columns = [
            required("video"),
            required("modality"),
            required("class"),
            required("label"),
            optional("segment"),
            optional("onset"),
            optional("offset"),
            optional("start_seconds"),
            optional("end_seconds"),
        ];
        for row in sheet::read(path, columns, &mut self.rejects)? {
            let origin = Origin {
                file: file.clone(),
                row: Some(row.line),
            };
            match user_row(row.fields.each_ref().map(Option::as_deref), origin.clone()) {
                Ok(row) => self.user.push(row),
                Err((kind, reason)) => {
                    let video = row.fields[0].as_deref();
                    self.rejects.push(origin.reject(kind, video, reason));
                }
            }
        }
        Ok(())
    }
}

fn user_row(fields: [Option<&str>; 9], origin: Origin) -> Result<UserEditRow, (RejectKind, String)> {
    let [video, modality, class, label, segment, onset, offset, start, end] = fields;
    let bad = |reason: String| (RejectKind::FieldValue, reason);
    let Some(video) = video else {
        let reason = "video is empty, expected a name".to_owned();
        return Err((RejectKind::EmptyName, reason));
    };
    let modality = modality.unwrap_or_default();
    let modality: Modality = modality
        .parse()
        .map_err(|_| bad(format!("modality is `{modality}`, expected `audio` or `visual`")))?;
    let label = match label {
        Some("0") => Some(false),
        Some("1") => Some(true),
        Some("withdraw") => None,
        other => {
            let found = other.unwrap_or_default();
            return Err(bad(format!("label is `{found}`, expected 0, 1 or `withdraw`")));
        }
    };
    let number = |name: &str, text: &str| {
        let most = UserSpan::MOST_SEGMENT;
        let value = text.parse::<u32>().ok().filter(|value| *value <= most);
        value.ok_or_else(|| bad(format!("{name} is `{text}`, expected a segment from 0 to {most}")))
    };
    let seconds = |name: &str, text: &str| {
        let value = text.parse::<f64>().ok().filter(|value| *value >= 0.0);
        value.ok_or_else(|| bad(format!("{name} is `{text}`, expected a number of seconds from 0")))
    };
    let span = match (segment, onset, offset, start, end) {
        (Some(segment), None, None, None, None) => {
            let first = number("segment", segment)?;
            UserSpan::Segments(first..first + 1)
        }
        (None, Some(onset), Some(offset), None, None) => {
            UserSpan::Segments(number("onset", onset)?..number("offset", offset)?)
        }
        (None, None, None, Some(start), Some(end)) => {
            UserSpan::Seconds(seconds("start_seconds", start)?..seconds("end_seconds", end)?)
        }
        _ => {
            let expected = "expected either segment, or onset and offset, or start_seconds and end_seconds";
            return Err(bad(expected.to_owned()));
        }
    };
    span.check().map_err(bad)?;
    Ok(UserEditRow {
        video: video.into(),
        modality,
        class: class.unwrap_or_default().into(),
        span,
        label,
        origin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_labels_by_segment_range_or_seconds_and_bad_rows_with_their_line() {
        let csv = tempfile::NamedTempFile::new().unwrap();
        let text = "video,modality,class,label,segment,onset,offset,start_seconds,end_seconds\n\
             a,audio,Dog,1,3,,,,\n\
             a,visual,Dog,withdraw,,2,5,,\n\
             a,visual,Dog,1,,,,1.5,3.25\n\
             a,smell,Dog,1,3,,,,\n\
             a,audio,Dog,maybe,3,,,,\n\
             a,audio,Dog,1,3,2,5,,\n\
             a,audio,Dog,1,-1,,,,\n\
             a,audio,Dog,1,,5,5,,\n\
             a,audio,Dog,1,,0,20000,,\n\
             ,audio,Dog,1,3,,,,\n\
             a,audio,Dog,1,,,,2,nan\n\
             a,audio,Dog,1,,,,2,1\n";
        std::fs::write(csv.path(), text).unwrap();
        let mut rows = ChangeRows::default();
        rows.read_user(csv.path()).unwrap();
        let found: Vec<_> = rows
            .user
            .iter()
            .map(|row| (row.span.clone(), row.label))
            .collect();
        let expected = [
            (UserSpan::Segments(3..4), Some(true)),
            (UserSpan::Segments(2..5), None),
            (UserSpan::Seconds(1.5..3.25), Some(true)),
        ];
        assert_eq!(found, expected);
        let reasons: Vec<String> = rows
            .rejects
            .iter()
            .map(|row| format!("{}: {} ({})", row.row.unwrap(), row.reason, row.kind))
            .collect();
        assert_eq!(
            reasons,
            [
                "5: modality is `smell`, expected `audio` or `visual` (field_value)",
                "6: label is `maybe`, expected 0, 1 or `withdraw` (field_value)",
                "7: expected either segment, or onset and offset, or start_seconds and end_seconds (field_value)",
                "8: segment is `-1`, expected a segment from 0 to 1048576 (field_value)",
                "9: onset is 5, expected less than offset 5 (field_value)",
                "10: onset 0 and offset 20000 are 20000 segments, expected at most 16384 in a row (field_value)",
                "11: video is empty, expected a name (empty_name)",
                "12: end_seconds is `nan`, expected a number of seconds from 0 (field_value)",
                "13: start_seconds is 2 and end_seconds is 1, expected numbers from 0, the first one less (field_value)",
            ]
        );
    }

    #[test]
    fn seconds_of_long_segments_may_be_many_and_seconds_far_beyond_any_video_are_refused() {
        let hours = UserSpan::Seconds(0.0..100_000.0);
        assert_eq!((hours.check(), hours.segments(10.0, 0)), (Ok(()), Ok(0..10_000)));
        for span in [1e300..2e300, 0.0..1e9] {
            let refused = UserSpan::Seconds(span).segments(1.0, 0).unwrap_err();
            assert!(refused.contains("expected"), "{refused}");
        }
    }
}
