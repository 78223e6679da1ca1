//! `vaplan query`: what answers look like in every format, and what is refused.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Output, Stdio};

use crate::small_store::{LONG, SHORT, small_store};
use crate::support::{self, assert_status, scratch, stderr, stdout};

fn query<'a>(store: &'a Path, arguments: impl IntoIterator<Item = &'a str>) -> Output {
    let store = ["query".as_ref(), "--store".as_ref(), store.as_os_str()];
    support::run(store.into_iter().chain(arguments.into_iter().map(OsStr::new)))
}

/// The answer as CSV.
fn csv(store: &Path, sql: &str) -> String {
    let output = query(store, [sql, "--format", "csv"]);
    assert_status(&output, 0);
    stdout(&output).to_owned()
}

/// Runs the program with this on standard input.
fn query_stdin(store: &Path, sql: &str, arguments: &[&str]) -> Output {
    let mut child = support::vaplan()
        .args(["query".as_ref(), "--store".as_ref(), store.as_os_str()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

const EVENTS: &str =
    "SELECT video, modality, class, onset, \"offset\", score FROM events ORDER BY video, modality, onset";

#[test]
fn events_are_the_maximal_runs_of_labels_and_where_both_modalities_meet() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let output = query(&store, [EVENTS, "--version", "1", "--format", "csv"]);
    assert_status(&output, 0);
    assert_eq!(
        stdout(&output),
        format!(
            "video,modality,class,onset,offset,score\n\
             {SHORT},audio,Speech,2.0,4.0,\n\
             {SHORT},audio_visual,Speech,2.0,4.0,0.25\n\
             {SHORT},visual,Speech,0.0,6.0,0.3333333333333333\n\
             {LONG},audio,Dog,1.0,3.0,0.375\n\
             {LONG},audio,Dog,4.0,6.0,0.875\n\
             {LONG},audio_visual,Dog,2.0,3.0,0.375\n\
             {LONG},audio_visual,Dog,4.0,5.0,0.75\n\
             {LONG},visual,Dog,2.0,5.0,0.5\n"
        )
    );
}

#[test]
fn the_column_offset_needs_no_quotes_and_stays_a_keyword_before_a_number() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let csv = |sql: &str| csv(&store, sql);
    assert_eq!(csv(&EVENTS.replace('"', "")), csv(EVENTS));
    for (sql, expected) in [
        ("SELECT max(offset - onset) AS most FROM events", "most\n6.0\n"),
        (
            "SELECT e.offset FROM events e ORDER BY offset, onset LIMIT 1 OFFSET 1",
            "offset\n3.0\n",
        ),
        (
            "SELECT Offset AS offset FROM events WHERE offset IN (6) LIMIT 1",
            "offset\n6.0\n",
        ),
        (
            "SELECT count(*) AS n FROM events GROUP BY offset HAVING offset > 5",
            "n\n4\n",
        ),
        (
            "SELECT 'offset 3' AS offset FROM events LIMIT 1 OFFSET (0)",
            "offset\noffset 3\n",
        ),
    ] {
        assert_eq!(csv(sql), expected, "{sql}");
    }
}

#[test]
fn whole_numbers_that_overflow_are_an_error_and_not_another_number() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let large = "(SELECT segment, 9223372036854775800 + segment AS x FROM labels)";
    for sql in [
        "SELECT 9223372036854775807 + 1",
        &format!("SELECT x + 100 FROM {large}"),
        &format!("SELECT x * 2 FROM {large}"),
        &format!("SELECT -x - 100 FROM {large}"),
        &format!("SELECT sum(x) FROM {large}"),
        &format!("SELECT sum(DISTINCT x) FROM {large}"),
        &format!("SELECT segment, sum(x) FROM {large} GROUP BY segment"),
        &format!(
            "SELECT sum(x) OVER (ORDER BY segment ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) FROM {large}"
        ),
        &format!("SELECT * FROM {large} WHERE x + 100 > 0"),
    ] {
        let output = query(&store, [sql]);
        assert_status(&output, 2);
        let said = stderr(&output).to_lowercase();
        assert!(
            said.contains("overflow") || said.contains("out of range"),
            "{sql}: {said}"
        );
    }
    let sums = "SELECT sum(segment) AS sum, sum(segment + 2 * segment) AS of_three, sum(DISTINCT segment) AS alone, \
                sum(score) AS score, -1 * min(segment) AS least, count(*) - 1 AS n FROM labels";
    assert_eq!(
        csv(&store, sums),
        "sum,of_three,alone,score,least,n\n36,108,15,5.75,0,17\n"
    );
}

#[test]
fn a_version_is_as_it_was_and_the_latest_is_the_default() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let sql = "SELECT count(*) AS labels, (SELECT count(*) FROM label_changes) AS changes, \
               (SELECT max(version) FROM versions) AS version FROM labels WHERE label";
    let ask = |version: &[&str]| {
        let output = query(
            &store,
            [sql, "--format", "csv"]
                .into_iter()
                .chain(version.iter().copied()),
        );
        assert_status(&output, 0);
        stdout(&output).lines().last().unwrap().to_owned()
    };
    assert_eq!(ask(&["--version", "1"]), "11,11,1");
    assert_eq!(ask(&["--version", "2"]), "12,12,2");
    assert_eq!(ask(&[]), "12,12,2");
    let output = query(&store, [sql, "--version", "3"]);
    assert_status(&output, 2);
    assert_eq!(
        stderr(&output),
        "vaplan: store has no version 3, expected 1 to 2\n"
    );
}

#[test]
fn json_is_an_array_of_objects_with_nulls_and_lists() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let sql = "SELECT v.video, weak_labels, score FROM videos v JOIN labels l ON l.video = v.video \
               WHERE modality = 'audio' AND segment = 1 ORDER BY v.video";
    let output = query(&store, [sql, "--format", "json"]);
    assert_status(&output, 0);
    let rows: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    let expected = serde_json::json!([
        {"video": SHORT, "weak_labels": ["Speech"], "score": null},
        {"video": LONG, "weak_labels": ["Dog"], "score": 0.25},
    ]);
    assert_eq!(rows, expected);
}

#[test]
fn csv_writes_lists_as_text_and_a_header_without_rows() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let csv = |sql: &str| csv(&store, sql);
    assert_eq!(
        csv("SELECT weak_labels, segments FROM videos ORDER BY segments"),
        "weak_labels,segments\n[Speech],3\n[Dog],6\n"
    );
    assert_eq!(csv("SELECT file, reason FROM rejects"), "file,reason\n");
    let output = query(&store, ["SELECT file FROM rejects", "--format", "json"]);
    assert_eq!(stdout(&output), "[\n]\n");
}

#[test]
fn a_table_is_the_default() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let output = query(
        &store,
        ["SELECT segment, score FROM scores WHERE class = 'Speech' AND modality = 'visual' ORDER BY 1"],
    );
    assert_status(&output, 0);
    assert_eq!(
        stdout(&output),
        "+---------+-------+\n\
         | segment | score |\n\
         +---------+-------+\n\
         | 0       | 0.25  |\n\
         | 1       | 0.25  |\n\
         | 2       | 0.5   |\n\
         +---------+-------+\n"
    );
}

#[test]
fn a_table_is_cut_at_ten_thousand_rows_and_says_so() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let sql = "SELECT a.segment FROM labels a, labels b, labels c, labels d";
    let output = query(&store, [sql]);
    assert_status(&output, 0);
    assert_eq!(stdout(&output).lines().count(), 10_000 + 4);
    assert_eq!(
        stderr(&output),
        "vaplan: only the first 10000 rows are shown; --format csv writes all rows\n"
    );
}

#[test]
fn parquet_goes_to_a_file_and_reads_back() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let output = query(&store, ["SELECT * FROM labels", "--format", "parquet"]);
    assert_status(&output, 2);
    assert_eq!(
        stderr(&output),
        "vaplan: format `parquet` needs a file to write, expected --out FILE\n"
    );
    let file = folder.path().join("labels.parquet");
    let output = query(
        &store,
        [
            "SELECT * FROM labels",
            "--format",
            "parquet",
            "--out",
            file.to_str().unwrap(),
        ],
    );
    assert_status(&output, 0);
    assert_eq!(stdout(&output), "");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
        std::fs::File::open(&file).unwrap(),
    )
    .unwrap();
    assert_eq!(reader.schema().field(4).name(), "label");
    let rows: usize = reader
        .build()
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 18);
    // Nothing else is left beside it.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[cfg(unix)]
#[test]
fn a_link_and_a_device_stay_what_they_are() {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let out = |place: &Path| {
        query(
            &store,
            [
                "SELECT 1 AS one",
                "--format",
                "csv",
                "--out",
                place.to_str().unwrap(),
            ],
        )
    };
    let (file, link) = (folder.path().join("answer.csv"), folder.path().join("link.csv"));
    fs::write(&file, "a longer text than the answer\n").unwrap();
    symlink("answer.csv", &link).unwrap();
    assert_status(&out(&link), 0);
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\n1\n");
    // A link whose target does not exist yet.
    let dangling = folder.path().join("dangling.csv");
    symlink("made.csv", &dangling).unwrap();
    assert_status(&out(&dangling), 0);
    assert!(dangling.is_symlink());
    assert_eq!(
        fs::read_to_string(folder.path().join("made.csv")).unwrap(),
        "one\n1\n"
    );
    // A named pipe stands for any device: the rows go through it.
    let pipe = folder.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let read = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    assert_status(&out(&pipe), 0);
    assert_eq!(read.join().unwrap(), "one\n1\n");
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let output = query(
        &store,
        ["SELECT 1", "--format", "csv", "--out", "/nowhere/at/all.csv"],
    );
    assert_status(&output, 2);
    assert!(
        stderr(&output).starts_with("vaplan: cannot write `/nowhere/at/all.csv`: "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn nothing_can_be_changed() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let file = folder.path().join("x.csv");
    let place = file.to_str().unwrap();
    for (statement, word) in [
        ("CREATE TABLE mine AS SELECT * FROM labels", "CREATE"),
        ("CREATE VIEW mine AS SELECT 1", "CREATE"),
        ("DROP TABLE labels", "DROP"),
        ("DROP VIEW events", "DROP"),
        ("INSERT INTO labels SELECT * FROM labels", "INSERT"),
        ("DELETE FROM labels", "DELETE"),
        ("UPDATE labels SET label = true", "UPDATE"),
        (&*format!("COPY (SELECT 1) TO '{place}'"), "COPY"),
        (
            &*format!("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION '{place}'"),
            "CREATE",
        ),
        ("SET datafusion.execution.batch_size = 1", "SET"),
        (
            "EXPLAIN ANALYZE INSERT INTO labels SELECT * FROM labels",
            "EXPLAIN",
        ),
    ] {
        let output = query(&store, [statement]);
        assert_status(&output, 2);
        let said = stderr(&output);
        let told = format!("vaplan: statement {word} is refused, expected a statement that only reads");
        assert!(said.starts_with(&told), "{statement}: {said}");
    }
    assert!(!file.exists());
    let output = query(&store, ["SELECT count(*) AS n FROM labels", "--format", "csv"]);
    assert_eq!(stdout(&output), "n\n18\n");
}

#[test]
fn a_file_is_no_table() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let file = folder.path().join("secret.csv");
    std::fs::write(&file, "a\n1\n").unwrap();
    let sql = format!("SELECT * FROM '{}'", file.display());
    assert_status(&query(&store, [&*sql]), 2);
}

#[test]
fn wrong_sql_says_what_there_is() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let output = query(&store, ["SELECT lable FROM labels"]);
    assert_status(&output, 2);
    assert!(
        stderr(&output).contains("No field named lable"),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("labels.label"), "{}", stderr(&output));
    let output = query(&store, ["SELECT * FROM nowhere"]);
    assert_status(&output, 2);
    assert!(stderr(&output).contains("nowhere"), "{}", stderr(&output));
    assert_status(&query(&store, ["SELECT"]), 2);
    assert_status(&query(&store, [""]), 2);
}

#[test]
fn statements_come_from_standard_input() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let output = query_stdin(&store, "SELECT 1 AS one;\nSELECT 2 AS two;\n", &[]);
    assert_status(&output, 0);
    assert_eq!(
        stdout(&output),
        "+-----+\n| one |\n+-----+\n| 1   |\n+-----+\n+-----+\n| two |\n+-----+\n| 2   |\n+-----+\n"
    );
    let output = query_stdin(&store, "SELECT 1; SELECT 2", &["--format", "csv"]);
    assert_status(&output, 2);
    assert_eq!(
        stderr(&output),
        "vaplan: 2 SQL statements, expected one, because the output holds one answer\n"
    );
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_store_may_lie_in_a_folder_of_any_name() {
    let folder = scratch();
    let store = small_store(folder.path(), "it's a [store] 100% *");
    let output = query(&store, ["SELECT count(*) AS n FROM scores", "--format", "csv"]);
    assert_status(&output, 0);
    assert_eq!(stdout(&output), "n\n18\n");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let mut child = support::vaplan()
        .args(["query".as_ref(), "--store".as_ref(), store.as_os_str()])
        .args([
            "--format",
            "csv",
            "SELECT a.video FROM labels a, labels b, labels c, labels d",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "video\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "");
    assert_status(&output, 0);
}

#[test]
fn a_question_about_one_video_leaves_the_files_of_others_unread() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let sql = format!("EXPLAIN ANALYZE SELECT * FROM labels WHERE video = '{LONG}'");
    let output = query(&store, [&*sql, "--format", "csv"]);
    assert_status(&output, 0);
    assert!(
        stdout(&output).contains("row_groups_pruned_statistics=2 total → 1 matched"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_damaged_file_is_an_error_not_a_wrong_answer() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    for entry in std::fs::read_dir(store.join("scores")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() == Some(OsStr::new("parquet")) {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    let output = query(&store, ["SELECT * FROM scores"]);
    assert_status(&output, 2);
    assert_eq!(stdout(&output), "");
}
