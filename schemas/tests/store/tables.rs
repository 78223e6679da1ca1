//! Rows to columns and back; wrong tables are refused by column, wrong values by row and column.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StringViewArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{
    CandidateRow, FlipLimit, FlipReason, LabelRule, PredictionTrack, PromptRow, SettingRow, UserLabelRow,
    VerdictRow, VersionRow,
};
use vaplan_schemas::tables::{
    Candidates, Classes, LabelChanges, Labels, Predictions, Prompts, Rejects, Scores, Settings, Table, Truth,
    UserLabels, Verdicts, Versions, Videos, all,
};

use crate::support::{ScoredTracks, changes, classes, labels, rejects, scored, scores, truth, videos, with};

fn version() -> VersionRow {
    VersionRow {
        version: 7,
        tables: vec![("labels".to_owned(), 6), ("scores".to_owned(), 2)],
        epoch: Some(3),
        settings: "s".into(),
        models: "m".into(),
        inputs: "i".into(),
        program: "0.1.0".into(),
        command: "vaplan label".into(),
        changed_labels: Some(5),
        committed_at: 1_700_000_000_123,
        author: Some("Ana".into()),
        note: None,
    }
}

fn round_trip<T: Table>(rows: &[T::Row]) {
    let batch = T::encode(rows);
    assert_eq!(T::decode(&batch).unwrap(), rows, "{}", T::NAME);
    assert_eq!(T::decode(&T::encode(&[])).unwrap(), [], "{}", T::NAME);
    // As any other writer would hold the text.
    for text in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
        let plain = |array: &ArrayRef| match array.data_type() {
            DataType::Dictionary(..) => cast(array, &text).unwrap(),
            _ => array.clone(),
        };
        let columns: Vec<ArrayRef> = batch.columns().iter().map(plain).collect();
        let field = |(field, column): (&Arc<Field>, &ArrayRef)| {
            Field::new(field.name(), column.data_type().clone(), field.is_nullable())
        };
        let schema = batch.schema();
        let fields: Vec<Field> = schema.fields().iter().zip(&columns).map(field).collect();
        let plain = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        assert_eq!(T::decode(&plain).unwrap(), rows, "{} as {text}", T::NAME);
    }
}

#[test]
fn every_table_gives_back_its_rows() {
    let scored = scored(9, 1);
    round_trip::<Classes>(&classes());
    round_trip::<Videos>(&videos(&scored));
    round_trip::<Truth>(&truth());
    round_trip::<Scores>(&scores(&scored));
    round_trip::<LabelChanges>(&changes(4, &ScoredTracks::new(), &scored));
    round_trip::<Rejects>(&rejects(&scored));
    round_trip::<Versions>(&[version()]);
    round_trip::<Settings>(&[SettingRow {
        name: "features.audio".into(),
        position: 1,
        value: "a/b.parquet".into(),
    }]);
    round_trip::<Prompts>(&[PromptRow {
        class: "Dog".into(),
        position: 3,
        modality: Modality::Visual,
        embedding: vec![0.5, -1.0, 2.25],
    }]);
    round_trip::<Candidates>(&[CandidateRow {
        video: "v".into(),
        modality: Modality::Audio,
        source: "copy.npy".into(),
    }]);
    round_trip::<UserLabels>(&[UserLabelRow {
        video: "v".into(),
        modality: Modality::Visual,
        class: "Dog".into(),
        segment: 9,
        label: false,
        source: "mine.csv".into(),
    }]);
    let verdict = |segment, present| VerdictRow {
        video: "v".into(),
        modality: Modality::Audio,
        class: "Dog".into(),
        segment,
        present,
        version: 7,
        strata: "class".into(),
        source: "mine.csv".into(),
    };
    round_trip::<Verdicts>(&[verdict(3, Some(true)), verdict(4, Some(false)), verdict(5, None)]);
    round_trip::<Predictions>(&predictions());
    let mut tracks = labels(&scored);
    tracks[0].set(0, true, LabelRule::User, None);
    let without_limit = FlipReason {
        loss: None,
        limit: None,
        ..*why()
    };
    tracks[0].flips = vec![(1, *why()), (2, without_limit)];
    let segments = tracks[1].segments();
    (0..segments).for_each(|segment| tracks[1].set(segment, false, LabelRule::User, None));
    round_trip::<Labels>(&tracks);
    let mut rows = changes(4, &ScoredTracks::new(), &scored);
    (rows[1].rule, rows[1].why) = (LabelRule::Pld, vec![*why(); rows[1].segments.len()]);
    round_trip::<LabelChanges>(&rows);
}

fn why() -> Box<FlipReason> {
    Box::new(FlipReason {
        epoch: 12,
        loss: Some(2.5),
        limit: Some(FlipLimit {
            base: 0.125,
            alpha: 10.0,
            k: 5,
        }),
    })
}

/// A batch of `labels` in which one field of `why` is another.
fn with_field(batch: &RecordBatch, field: &str, array: ArrayRef) -> RecordBatch {
    let lists = batch.column_by_name("why").unwrap().as_list::<i32>();
    let why = lists.values().as_struct();
    let at = why.column_names().iter().position(|name| *name == field).unwrap();
    let mut fields: Vec<_> = why.fields().iter().cloned().collect();
    let mut columns = why.columns().to_vec();
    fields[at] = Arc::new(Field::new(field, array.data_type().clone(), true));
    columns[at] = array;
    let why: ArrayRef = Arc::new(StructArray::try_new(fields.into(), columns, why.nulls().cloned()).unwrap());
    let field = Arc::new(Field::new("element", why.data_type().clone(), true));
    let lists = ListArray::new(field, lists.offsets().clone(), why, lists.nulls().cloned());
    with(batch, "why", Arc::new(lists))
}

#[test]
fn half_a_flip_is_named_by_row() {
    let mut tracks = labels(&scored(1, 1));
    tracks[0].flips = vec![(1, *why())];
    let batch = Labels::encode(&tracks);
    let refused = |column: &str, array: ArrayRef| {
        Labels::decode(&with_field(&batch, column, array))
            .unwrap_err()
            .to_string()
    };
    // The values of the lists: segments 0 to 2 of the first track. The second track has no flip.
    let rows = 3;
    assert_eq!(
        refused("alpha", Arc::new(Float64Array::new_null(rows))),
        "table `labels`, row 0: why.alpha is null, expected a number, or base, alpha and k all null"
    );
    assert_eq!(
        refused("epoch", Arc::new(Int64Array::new_null(rows))),
        "table `labels`, row 0: why.epoch is null, expected a number from 0"
    );
    let k = |row: usize| (row == 1).then_some(-1);
    assert_eq!(
        refused("k", Arc::new((0..rows).map(k).collect::<Int32Array>())),
        "table `labels`, row 0: why.k is -1, expected a number from 0"
    );
    assert_eq!(
        refused("base", Arc::new(Int32Array::new_null(rows))),
        "table `labels`: column `why` is Struct(\"epoch\": Int64, \"loss\": Float64, \"base\": Int32, \"alpha\": Float64, \"k\": \
         Int32), expected Struct with base: Float64"
    );
}

fn predictions() -> Vec<PredictionTrack> {
    let track = |epoch, video: &str, modality, segments: usize| PredictionTrack {
        epoch,
        video: video.into(),
        modality,
        classes: 2,
        probability: (0..2 * segments).map(|cell| cell as f32 / 16.0).collect(),
    };
    vec![
        track(1, "a", Modality::Audio, 3),
        track(1, "a", Modality::Visual, 3),
        track(1, "b", Modality::Visual, 1),
        track(2, "b", Modality::Visual, 1),
    ]
}

#[test]
fn predictions_that_are_no_track_are_named_by_row() {
    let batch = Predictions::encode(&predictions());
    let refused = |column: &str, array: ArrayRef| {
        Predictions::decode(&with(&batch, column, array))
            .unwrap_err()
            .to_string()
    };
    let segments: Vec<i32> = vec![0, 1, 2, 0, 2, 2, 0, 0];
    assert_eq!(
        refused("segment", Arc::new(Int32Array::from(segments))),
        "table `predictions`, row 4: segment is 2, expected the segment after the row before"
    );
    let begins: Vec<i32> = vec![1, 1, 2, 0, 1, 2, 0, 0];
    assert_eq!(
        refused("segment", Arc::new(Int32Array::from(begins))),
        "table `predictions`, row 0: segment is 1, expected 0, where a track begins"
    );
}

#[test]
fn an_absent_column_is_named_with_those_there() {
    let batch = Truth::encode(&truth()).project(&[0, 1, 3]).unwrap();
    assert_eq!(
        Truth::decode(&batch).unwrap_err().to_string(),
        "table `truth` has no column `class` (columns found: video, modality, onset)"
    );
}

#[test]
fn a_column_of_another_type_is_named() {
    let batch = Truth::encode(&truth());
    let refused = Truth::decode(&with(&batch, "onset", Arc::new(Float64Array::from(vec![0.0])))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "table `truth`: column `onset` is Float64, expected Int32"
    );
    let refused = Truth::decode(&with(&batch, "video", Arc::new(Int32Array::from(vec![0])))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "table `truth`: column `video` is Int32, expected Utf8"
    );
}

#[test]
fn a_bad_value_is_named_by_row_and_column() {
    let batch = Scores::encode(&scores(&scored(2, 1)));
    let rows = batch.num_rows();
    let refused = |column: &str, array: ArrayRef| {
        Scores::decode(&with(&batch, column, array))
            .unwrap_err()
            .to_string()
    };
    let cosines = batch.column_by_name("cosine").unwrap().as_list::<i32>();
    let short = OffsetBuffer::from_lengths([3, 3, 2].into_iter().chain(std::iter::repeat_n(3, rows - 3)));
    let values = cosines.values().slice(0, 3 * rows - 1);
    let DataType::List(field) = cosines.data_type() else {
        panic!("cosines are lists");
    };
    assert_eq!(
        refused(
            "cosine",
            Arc::new(ListArray::new(field.clone(), short, values, None))
        ),
        "table `scores`, row 2: cosine is a list of 2, expected as many values as the other lists of the row"
    );
    let modality = |row: usize, name: Option<&'static str>| -> ArrayRef {
        Arc::new(StringViewArray::from_iter(
            (0..rows).map(|at| if at == row { name } else { Some("audio") }),
        ))
    };
    assert_eq!(
        refused("modality", modality(0, Some("smell"))),
        "table `scores`, row 0: modality is `smell`, expected `audio` or `visual`"
    );
    assert_eq!(
        refused("modality", modality(2, None)),
        "table `scores`, row 2: modality is null, expected text"
    );
}

#[test]
fn unknown_rules_and_negative_counts_are_named() {
    let batch = Labels::encode(&labels(&scored(1, 1)));
    let lists = |lengths: &[usize], name: &str, values: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("element", values.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
        assert_eq!(values.len(), lengths.iter().sum::<usize>(), "{name}");
        Arc::new(ListArray::new(field, offsets, values, None))
    };
    let refused = |column: &str, array: ArrayRef| {
        let batch = with(&batch, column, array);
        Labels::decode(&batch).unwrap_err().to_string()
    };
    let rules = |names: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(names)) };
    let guess = rules(vec!["plg", "plg", "plg", "plg", "guess", "plg"]);
    assert_eq!(
        refused("rule", lists(&[3, 3], "rule", guess)),
        "table `labels`, row 1: rule is `guess`, expected `plg`, `import`, `pld` or `user`"
    );
    assert_eq!(
        refused("rule", lists(&[3, 2], "rule", rules(vec!["plg"; 5]))),
        "table `labels`, row 1: rule is a list of 2, expected as many values as the other lists of the row"
    );
    let set: ArrayRef = Arc::new(BooleanArray::from(vec![true; 3]));
    assert_eq!(
        refused("label", lists(&[0, 3], "label", set)),
        "table `labels`, row 0: label is an empty list, expected a value per segment"
    );
    let score: ArrayRef = Arc::new(Float64Array::from_iter((0..6).map(|at| (at != 4).then_some(0.5))));
    assert_eq!(
        refused("score", lists(&[3, 3], "score", score)),
        "table `labels`, row 1: score is null, expected a number, since the rule is not `user`"
    );
    let threshold: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), None]));
    assert_eq!(
        refused("threshold", threshold),
        "table `labels`, row 1: threshold is null, expected a number, since a rule is not `user`"
    );

    let rows = changes(2, &ScoredTracks::new(), &scored(9, 1));
    let batch = LabelChanges::encode(&rows[..1]);
    let refused = |segments: Vec<i32>| {
        let lists = lists(
            &[segments.len()],
            "segments",
            Arc::new(Int32Array::from(segments)),
        );
        let batch = with(&batch, "segments", lists);
        LabelChanges::decode(&batch).unwrap_err().to_string()
    };
    for segments in [vec![], vec![1, 1], vec![2, 0], vec![-1, 0]] {
        let found =
            format!("segments is {segments:?}, expected a list of segments from 0, ascending and not empty");
        assert_eq!(
            refused(segments),
            format!("table `label_changes`, row 0: {found}")
        );
    }
}

#[test]
fn null_is_where_the_schema_allows_it_and_nowhere_else() {
    for (table, schema) in all() {
        let nullable: Vec<&str> = schema
            .fields()
            .iter()
            .filter(|field| field.is_nullable())
            .map(|field| field.name().as_str())
            .collect();
        let expected: &[&str] = match table {
            "classes" => &["prompt"],
            "videos" => &["audio_source", "visual_source", "guessed"],
            "labels" => &["threshold", "why"],
            "label_changes" => &["why"],
            "epochs" => &["flips"],
            "rejects" => &["row", "video", "kind", "modality"],
            "verdicts" => &["present"],
            _ => &[],
        };
        assert_eq!(nullable, expected, "{table}");
    }
}
