//! `vaplan query`, `log` and `check`, end to end.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use crate::sample::{Sample, Tables, name};
use crate::support::{assert_status, run, stderr, stdout, vaplan};

fn labelled(videos: usize) -> (Sample, String) {
    let sample = Sample::new(videos);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    (sample, store)
}

fn ask(store: &str, sql: &str, format: &str) -> String {
    let output = run(["query", "--store", store, "--format", format, sql]);
    assert_status(&output, 0);
    stdout(&output).to_owned()
}

#[test]
fn every_table_can_be_asked_and_counts_agree() {
    let (sample, store) = labelled(24);
    let tables = Tables::read(&sample.path("store"));
    let cells: usize = tables.labels.iter().map(|track| track.segments()).sum();
    let count = |sql: &str| ask(&store, sql, "csv").lines().nth(1).unwrap().to_owned();
    assert_eq!(count("SELECT count(*) FROM videos"), "24");
    assert_eq!(count("SELECT count(*) FROM labels"), cells.to_string());
    assert_eq!(count("SELECT count(*) FROM scores"), cells.to_string());
    assert_eq!(count("SELECT count(*) FROM classes"), "6");
    assert_eq!(count("SELECT count(*) FROM truth"), "12");
    assert_eq!(
        count("SELECT count(*) FROM label_changes"),
        tables.changes.len().to_string()
    );
    assert_eq!(
        count("SELECT count(*) FROM rejects"),
        tables.rejects.len().to_string()
    );
    // Created with its first files in one commit of Delta.
    assert_eq!(count("SELECT tables['labels'] FROM versions"), "0");
}

#[test]
fn events_are_maximal_runs_of_labels_and_audio_visual_ones_are_in_both() {
    let (sample, store) = labelled(24);
    let tables = Tables::read(&sample.path("store"));
    let sql = "SELECT video, modality, class, onset, \"offset\", score FROM events \
               ORDER BY video, modality, class, onset";
    let answer = ask(&store, sql, "csv");
    // The plain loop that says what the runs are.
    let mut wanted = Vec::new();
    let mut push = |video: &str, modality: &str, class: &str, cells: &[Option<f64>]| {
        let mut from = 0;
        while from < cells.len() {
            let run: Vec<f64> = cells[from..].iter().map_while(|cell| *cell).collect();
            if !run.is_empty() {
                let mean = run.iter().sum::<f64>() / run.len() as f64;
                let (onset, offset) = (from as f64, (from + run.len()) as f64);
                wanted.push((
                    video.to_owned(),
                    modality.to_owned(),
                    class.to_owned(),
                    onset,
                    offset,
                    mean,
                ));
            }
            from += run.len().max(1);
        }
    };
    for track in &tables.labels {
        let cells: Vec<_> = track
            .iter()
            .map(|cell| cell.score.filter(|_| cell.label))
            .collect();
        push(&track.video, track.modality.as_str(), &track.class, &cells);
        let other = tables.labels.iter().find(|other| {
            other.modality > track.modality && (&other.video, &other.class) == (&track.video, &track.class)
        });
        if let Some(other) = other {
            let both = track.iter().zip(other.iter());
            let cells: Vec<_> = both
                .map(|(a, v)| (a.label && v.label).then(|| (a.score.unwrap() + v.score.unwrap()) / 2.0))
                .collect();
            push(&track.video, "audio_visual", &track.class, &cells);
        }
    }
    wanted.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let rows: Vec<&str> = answer.lines().skip(1).collect();
    assert_eq!(rows.len(), wanted.len());
    assert!(
        wanted.iter().any(|run| run.1 == "audio_visual"),
        "some are in both"
    );
    for (row, (video, modality, class, onset, offset, mean)) in rows.iter().zip(&wanted) {
        let fields: Vec<&str> = row.split(',').collect();
        assert_eq!(fields[..3], [video.as_str(), modality, class]);
        let numbers: Vec<f64> = fields[3..].iter().map(|field| field.parse().unwrap()).collect();
        assert_eq!(numbers[..2], [*onset, *offset], "{row}");
        assert!((numbers[2] - mean).abs() < 1e-12, "{row}: {mean}");
    }
}

#[test]
fn every_format_holds_the_same_answer() {
    let (sample, store) = labelled(8);
    let sql = "SELECT video, segments FROM videos ORDER BY video LIMIT 2";
    let csv = format!("video,segments\n{},10\n{},10\n", name(0), name(1));
    assert_eq!(ask(&store, sql, "csv"), csv);
    let json: serde_json::Value = serde_json::from_str(&ask(&store, sql, "json")).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{"video": name(0), "segments": 10}, {"video": name(1), "segments": 10}])
    );
    assert!(ask(&store, sql, "table").contains(&format!("| {} | 10       |", name(0))));
    let file = sample.path("answer.parquet");
    let file = file.to_str().unwrap();
    let output = run([
        "query", "--store", &store, "--format", "parquet", "--out", file, sql,
    ]);
    assert_status(&output, 0);
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(fs::File::open(file).unwrap());
    let rows: usize = reader
        .unwrap()
        .build()
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 2);
    assert_eq!(
        ask(&store, "SELECT video FROM videos WHERE false", "csv"),
        "video\n"
    );
}

#[test]
fn sql_comes_from_standard_input_too() {
    let (_sample, store) = labelled(8);
    let mut child = vaplan()
        .args(["query", "--store", &store, "--format", "csv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"SELECT 1 + 1 AS two;\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(stdout(&output), "two\n2\n");
}

#[test]
fn a_query_that_writes_or_is_wrong_is_refused() {
    let (_sample, store) = labelled(8);
    for (sql, told) in [
        ("DROP TABLE labels", "expected a statement that only reads"),
        (
            "CREATE TABLE t AS SELECT 1",
            "expected a statement that only reads",
        ),
        (
            "INSERT INTO videos SELECT * FROM videos",
            "expected a statement that only reads",
        ),
        (
            "COPY videos TO '/tmp/never.csv'",
            "expected a statement that only reads",
        ),
        (
            "SET datafusion.execution.batch_size = 1",
            "expected a statement that only reads",
        ),
        ("SELECT no_such FROM videos", "no_such"),
        ("SELECT", "vaplan: "),
    ] {
        let output = run(["query", "--store", &store, sql]);
        assert_status(&output, 2);
        assert!(stderr(&output).contains(told), "{sql}: {}", stderr(&output));
    }
}

#[test]
fn an_older_version_is_read_as_it_was() {
    let (sample, store) = labelled(16);
    assert_status(&sample.label("store", &["--audio-threshold", "3"]), 0);
    let sql = "SELECT count(*) FROM labels WHERE label AND modality = 'audio'";
    let at = |version: &str| {
        let output = run([
            "query",
            "--store",
            &store,
            "--version",
            version,
            "--format",
            "csv",
            sql,
        ]);
        assert_status(&output, 0);
        stdout(&output).lines().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert!(at("1") > 0);
    assert_eq!(at("2"), 0);
    let refused = run(["query", "--store", &store, "--version", "3", sql]);
    assert_status(&refused, 2);
    assert_eq!(
        stderr(&refused),
        "vaplan: store has no version 3, expected 1 to 2\n"
    );
}

#[test]
fn log_lists_every_version_with_what_was_asked() {
    let (sample, store) = labelled(8);
    assert_status(&sample.label("store", &["--audio-threshold", "1.5"]), 0);
    let output = run(["log", "--store", &store]);
    assert_status(&output, 0);
    let lines: Vec<&str> = stdout(&output).lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].starts_with("    1  20") && lines[0].contains("  vaplan label --store "),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].starts_with("    2  20") && lines[1].ends_with(" --audio-threshold 1.5"),
        "{}",
        lines[1]
    );
    let json = run(["log", "--store", &store, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(stdout(&json)).unwrap();
    assert_eq!(json[1]["version"], 2);
    assert_eq!(
        json[0]["tables"]["truth"], json[1]["tables"]["truth"],
        "a table that did not change is not committed"
    );
    let nowhere = run(["log", "--store", sample.path("nowhere").to_str().unwrap()]);
    assert_status(&nowhere, 2);
    assert!(
        stderr(&nowhere).contains("nowhere` is no store"),
        "{}",
        stderr(&nowhere)
    );
}

#[test]
fn check_finds_a_whole_store_whole_and_names_what_is_damaged() {
    let (sample, store) = labelled(16);
    let whole = run(["check", "--store", &store]);
    assert_status(&whole, 0);
    assert_eq!(stdout(&whole), "version 1 is whole\n");
    let labels = fs::read_dir(sample.path("store/labels")).unwrap().flatten();
    let file = labels
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "parquet"))
        .unwrap();
    let bytes = fs::read(&file).unwrap();
    for (damage, told) in [
        (bytes[..bytes.len() / 2].to_vec(), "bytes, expected"),
        (Vec::new(), "0 bytes, expected"),
        ([&[0; 64][..], &bytes[64..]].concat(), ""),
    ] {
        fs::write(&file, damage).unwrap();
        let damaged = run(["check", "--store", &store]);
        assert_status(&damaged, 2);
        assert!(
            stdout(&damaged).contains(file.to_str().unwrap()),
            "{}",
            stdout(&damaged)
        );
        assert!(stdout(&damaged).contains(told), "{}", stdout(&damaged));
        assert!(!stderr(&damaged).contains("panicked"), "{}", stderr(&damaged));
    }
    fs::remove_file(&file).unwrap();
    let gone = run(["check", "--store", &store]);
    assert_status(&gone, 2);
    assert!(stdout(&gone).contains("No such file"), "{}", stdout(&gone));
}

#[test]
fn completions_know_the_commands() {
    let output = run(["completions", "bash"]);
    assert_status(&output, 0);
    assert!(stdout(&output).contains("label") && stdout(&output).contains("query"));
}

#[test]
fn a_memory_limit_ends_a_query_that_needs_more_with_an_error() {
    let sample = Sample::new(24);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    // Every label beside every label: millions of groups.
    let sql = "SELECT a.video, b.video, a.segment * 1000 + b.segment AS n, count(*) FROM labels a CROSS JOIN labels b \
               GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT 1";
    let query = |memory: &str, sql: &str| run(["query", "--store", &store, "--memory", memory, sql]);
    assert_status(&query("512MiB", "SELECT count(*) FROM labels"), 0);
    let refused = query("1KiB", sql);
    assert_status(&refused, 2);
    let said = stderr(&refused);
    assert!(
        said.contains("give a larger --memory, or none") && !said.contains("datafusion."),
        "{said}"
    );
    let refused = query("much", sql);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("expected a whole number above 0"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn a_sort_of_more_than_the_memory_limit_spills_and_gives_the_same_rows() {
    let (_sample, store) = labelled(24);
    // 163,840 rows of about 100 bytes.
    let sql = "SELECT a.video AS one, b.video AS two, a.class, a.segment * 7919 % 1009 AS n, b.score FROM scores a \
               CROSS JOIN scores b WHERE b.segment < 4 ORDER BY n, b.score, one, two, a.class, a.modality, a.segment, \
               b.modality, b.class, b.segment";
    let query = |more: &[&str], sql: &str| {
        let words = ["query", "--store", &store, "--format", "csv"];
        let output = run(words.iter().chain(more).chain(&[sql]));
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    let limit = ["--memory", "8MiB"];
    let whole = query(&[], sql);
    assert!(whole.lines().count() > 100_000, "{}", whole.lines().count());
    assert!(query(&limit, sql) == whole, "other rows with a limit");
    // The plan of the same query tells that it spilled.
    let plan = query(&limit, &format!("EXPLAIN ANALYZE {sql}"));
    let spills: Vec<&str> = plan
        .split("spill_count=")
        .skip(1)
        .map(|rest| {
            rest.split(|letter: char| !letter.is_ascii_digit())
                .next()
                .unwrap()
        })
        .collect();
    assert!(
        spills.iter().any(|count| *count != "0" && !count.is_empty()),
        "{plan}"
    );
}

#[test]
fn a_query_that_fails_at_once_writes_nothing_to_standard_output() {
    let (_sample, store) = labelled(8);
    // The planner cannot compute the column, so the error comes while the query runs.
    let sql = "SELECT abs(-9223372036854775807 - 1 - segment) FROM labels WHERE segment = 0";
    for format in ["csv", "json", "table"] {
        let output = run(["query", "--store", &store, "--format", format, sql]);
        assert_status(&output, 2);
        assert!(stderr(&output).contains("overflow"), "{}", stderr(&output));
        assert_eq!(stdout(&output), "", "{format}");
    }
}

#[test]
fn a_long_chain_of_operators_is_answered_and_a_longer_one_is_refused() {
    let (_sample, store) = labelled(8);
    let all = ask(&store, "SELECT count(*) FROM labels", "csv");
    let or = |terms: usize| {
        let terms: Vec<String> = (0..terms)
            .map(|at| format!("(segment = {at} AND score < {at}.5)"))
            .collect();
        format!(
            "SELECT count(*) FROM labels WHERE score IS NULL OR score >= 0 OR {}",
            terms.join(" OR ")
        )
    };
    let sum = |terms: usize| format!("SELECT {}1", "1 + ".repeat(terms));
    // A long statement does not fit an argument of a command.
    let ask = |sql: &str| {
        let mut child = vaplan()
            .args(["query", "--store", &store, "--format", "csv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let long = ask(&or(900));
    assert_status(&long, 0);
    let rows = |text: &str| text.lines().last().unwrap().to_owned();
    assert_eq!(rows(stdout(&long)), rows(&all));
    let added = ask(&sum(100));
    assert_status(&added, 0);
    assert_eq!(rows(stdout(&added)), "101");
    // A list is no chain.
    let list: Vec<String> = (0..20_000).map(|at| format!("-{at}")).collect();
    assert_status(
        &ask(&format!(
            "SELECT count(*) FROM labels WHERE segment IN ({})",
            list.join(", ")
        )),
        0,
    );
    for longer in [or(5_000), sum(100_000)] {
        let refused = ask(&longer);
        assert_status(&refused, 2);
        let said = stderr(&refused);
        assert!(
            said.contains("operators such as AND, OR and +, expected at most 1000: use IN (..)"),
            "{said}"
        );
    }
}
