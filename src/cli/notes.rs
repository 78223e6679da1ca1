//! Prints a summary of the rejected rows and notes of a command.

use std::collections::BTreeMap;

use vaplan_schemas::rows::{RejectRow, Severity};

/// Prints the kinds of rejected rows and notes on standard error: the number of rows of each kind, and the first row.
/// `quiet` leaves out the notes.
///
/// Returns the number of rejected rows. If it is above 0, the exit status of the command is 1.
pub(super) fn report(rejects: &[RejectRow], quiet: bool) -> usize {
    for line in summary(rejects, quiet) {
        super::stderr::tell(&line);
    }
    rejects
        .iter()
        .filter(|row| row.severity == Severity::Reject)
        .count()
}

/// Largest number of printed kinds. All further kinds share one line with their number.
const LINES: usize = 10;

/// Returns one line per kind of reason: rejected rows first, then what is wrong in the files before what follows from it for the
/// labels, then the most frequent kinds.
pub(super) fn summary(rejects: &[RejectRow], quiet: bool) -> Vec<String> {
    let mut kinds: BTreeMap<(Severity, String), (usize, &RejectRow)> = BTreeMap::new();
    for row in rejects
        .iter()
        .filter(|row| !quiet || row.severity == Severity::Reject)
    {
        kinds
            .entry((row.severity, kind(&row.reason)))
            .or_insert((0, row))
            .0 += 1;
    }
    let mut kinds: Vec<_> = kinds
        .into_iter()
        .map(|((severity, _), found)| (severity, found))
        .collect();
    // The sort is stable, so kinds with equal counts stay in the order of their reasons.
    kinds.sort_by_key(|&(severity, (count, row))| {
        (severity, row.kind.is_of_graph(), std::cmp::Reverse(count))
    });
    let rest = kinds.split_off(kinds.len().min(LINES));
    let more = rest.iter().map(|(_, (count, _))| count).sum::<usize>();
    let more = (more > 0).then(|| format!("and {more} more, odd in {} other ways", rest.len()));
    kinds
        .into_iter()
        .map(|(severity, (count, row))| {
            let word = match severity {
                Severity::Reject => "rejected",
                Severity::Note => "note",
            };
            let more = if count > 1 {
                format!("{count} times, first ")
            } else {
                String::new()
            };
            format!("{word}: {more}{}", place(row))
        })
        .chain(more)
        .collect()
}

/// The text with its control characters escaped, so that a name in a file, or a note of a person, cannot steer the terminal.
pub(super) fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|letter| match letter.is_control() {
            true => letter.escape_default().collect::<Vec<_>>(),
            false => vec![letter],
        })
        .collect()
}

/// Returns "`file`, row 3, video `v`: reason". The file and the video are left out if the reason names them.
fn place(row: &RejectRow) -> String {
    let mut text = format!("`{}`", row.file);
    if row.reason.contains(&text) {
        return row.reason.clone();
    }
    if let Some(number) = row.row {
        text.push_str(&format!(", row {number}"));
    }
    if let Some(video) = row
        .video
        .as_ref()
        .filter(|video| !row.reason.contains(&format!("`{video}`")))
    {
        text.push_str(&format!(", video `{}`", escaped(video)));
    }
    format!("{text}: {}", row.reason)
}

/// Returns the kind of a reason: the reason without quoted values and numbers, which differ from row to row.
fn kind(reason: &str) -> String {
    let mut kind = String::new();
    let mut quoted = false;
    for part in reason.split('`') {
        if quoted {
            kind.push('`');
        } else {
            let words = part
                .split(|c: char| c.is_ascii_digit())
                .filter(|word| !word.is_empty());
            kind.extend(words.flat_map(|word| [word, "0"]));
        }
        quoted = !quoted;
    }
    // A list of values counts as one value, so that reasons with lists of different lengths are of one kind.
    while kind.contains("`, 0`") {
        kind = kind.replace("`, 0`", "`");
    }
    kind
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::rows::RejectKind;

    use super::*;

    fn row(row: u64, severity: Severity, reason: &str) -> RejectRow {
        RejectRow {
            severity,
            ..RejectRow::note(RejectKind::FieldValue, "a.csv", reason)
                .row(row)
                .video("v")
        }
    }

    #[test]
    fn rows_that_differ_in_values_only_are_one_line() {
        let rows = [
            row(2, Severity::Note, "onset is 4, expected less than offset 4"),
            row(5, Severity::Note, "onset is 10, expected less than offset 9"),
            row(
                6,
                Severity::Note,
                "dense events of `Dog` are outside the weak label",
            ),
            row(
                7,
                Severity::Note,
                "dense events of `Car`, `Speech` are outside the weak label",
            ),
            row(
                8,
                Severity::Note,
                "dense events of `Cat`, `Car`, `Speech` are outside the weak label",
            ),
            row(9, Severity::Reject, "class `Dgo` is unknown"),
        ];
        assert_eq!(
            summary(&rows, false),
            [
                "rejected: `a.csv`, row 9, video `v`: class `Dgo` is unknown",
                "note: 3 times, first `a.csv`, row 6, video `v`: dense events of `Dog` are outside the weak label",
                "note: 2 times, first `a.csv`, row 2, video `v`: onset is 4, expected less than offset 4",
            ]
        );
        assert_eq!(summary(&rows, true).len(), 1, "quiet says rejects only");
        assert_eq!(report(&rows, true), 1);
    }

    #[test]
    fn the_fault_of_a_file_comes_before_what_follows_from_it() {
        let kind = vaplan_schemas::rows::RejectKind::MissingFeatures;
        let follows = |video: &str| {
            let reason = format!("video `{video}` has no visual features that can be used");
            RejectRow {
                severity: Severity::Reject,
                ..RejectRow::note(kind, "roster", &reason)
            }
        };
        let rows = [
            follows("a"),
            follows("b"),
            row(1, Severity::Reject, "visual feature has width 32, expected 64"),
        ];
        let lines = summary(&rows, false);
        assert_eq!(
            lines[0],
            "rejected: `a.csv`, row 1, video `v`: visual feature has width 32, expected 64"
        );
        assert!(lines[1].starts_with("rejected: 2 times, first "), "{}", lines[1]);
    }

    #[test]
    fn many_ways_of_being_odd_are_cut_short() {
        let rows: Vec<RejectRow> = ('a'..='z')
            .flat_map(|way| {
                [
                    row(1, Severity::Reject, &way.to_string()),
                    row(2, Severity::Reject, &way.to_string()),
                ]
            })
            .collect();
        let lines = summary(&rows, false);
        assert_eq!(lines.len(), 11);
        assert_eq!(lines[9], "rejected: 2 times, first `a.csv`, row 1, video `v`: j");
        assert_eq!(lines[10], "and 32 more, odd in 16 other ways");
    }

    #[test]
    fn what_the_reason_says_is_not_said_twice() {
        let mut said = row(1, Severity::Reject, "npy file `a.csv`: data ends at byte 4");
        assert_eq!(place(&said), "npy file `a.csv`: data ends at byte 4");
        said.reason = "`v` has no dense event".into();
        assert_eq!(place(&said), "`a.csv`, row 1: `v` has no dense event");
    }
}
