//! Verdicts on the page: a sample, verdicts as versions, conflicts, estimates.

use serde_json::{Value, json};
use vaplan_schemas::tables::{Table, Verdicts};

use super::harness::{ServedStore, Server};
use crate::support::{assert_status, run, stdout};

fn sample(server: &Server, query: &str) -> Value {
    server.json(&format!("/api/audit/sample?{query}"))
}

/// A verdict on a segment of a sample.
fn verdict(segment: &Value, verdict: &Value, before: &Value) -> Value {
    json!({
        "video": segment["video"], "modality": segment["modality"], "class": segment["class"],
        "segment": segment["segment"], "verdict": verdict, "before": before,
    })
}

fn judge(server: &Server, request: &Value) -> super::harness::HttpAnswer {
    let body = serde_json::to_vec(request).unwrap();
    server.ask("POST", "/api/verdicts", "Content-Type: application/json", &body)
}

#[test]
fn verdicts_of_the_page_are_versions_and_their_estimates_are_those_of_the_command() {
    let served = ServedStore::new(24, &["--author", "Ana"]);
    let server = &served.server;
    assert_eq!(server.json("/api/audit/report")["report"], Value::Null);
    let drawn = sample(server, "count=40&seed=4&by=modality");
    let segments = drawn["segments"].as_array().unwrap();
    assert_eq!((segments.len(), &drawn["version"]), (40, &json!(1)));
    assert!(
        segments
            .iter()
            .all(|own| own.get("label").is_none() && own["verdict"].is_null()),
        "{drawn}"
    );
    for (nth, own) in segments.iter().enumerate() {
        let said = ["yes", "no", "unsure", "yes"][nth % 4];
        let request =
            json!({"version": 1, "by": "modality", "verdicts": [verdict(own, &json!(said), &Value::Null)]});
        let answer = judge(server, &request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(
            (&answer["version"], &answer["saved"]),
            (&json!(nth + 2), &json!(true))
        );
    }
    let snapshot = served.latest();
    assert_eq!(snapshot.version().author.as_deref(), Some("Ana"));
    assert_eq!(snapshot.version().changed_labels, Some(0));
    let mut rows = snapshot.read::<Verdicts>().unwrap();
    rows.sort_by(Verdicts::compare);
    assert_eq!(rows.len(), 40);
    assert!(
        rows.iter()
            .all(|row| row.version == 1 && &*row.strata == "modality" && &*row.source == "serve: Ana")
    );
    assert_eq!(rows.iter().filter(|row| row.present.is_none()).count(), 10);
    // The same address gives the same sample with its verdicts, also from a server that is started later.
    let again = sample(server, "count=40&seed=4&by=modality&version=1");
    let other = Server::start(&served.store(), &["--read-only"]);
    assert_eq!(sample(&other, "count=40&seed=4&by=modality&version=1"), again);
    let said: Vec<&str> = again["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| own["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(said[..4], ["yes", "no", "unsure", "yes"]);
    // A new sample has none of these segments.
    let next = sample(server, "count=40&seed=4&by=modality");
    for own in next["segments"].as_array().unwrap() {
        let key = |own: &Value| {
            (
                own["video"].clone(),
                own["modality"].clone(),
                own["class"].clone(),
                own["segment"].clone(),
            )
        };
        assert!(segments.iter().all(|judged| key(judged) != key(own)));
    }
    let shown = server.json("/api/audit/report?by=modality");
    assert_eq!(shown["version"], 41);
    let command = run([
        "audit",
        "--store",
        served.store().to_str().unwrap(),
        "--by",
        "modality",
        "--format",
        "json",
    ]);
    assert_status(&command, 0);
    let command: Value = serde_json::from_str(stdout(&command)).unwrap();
    assert_eq!(shown["report"], command);
    assert_eq!(
        (&command["rows"][0]["verdicts"], &command["unsure"]),
        (&json!(30), &json!(10))
    );
    // Labels change: the report follows, with the same verdicts.
    assert_status(
        &run([
            "relabel",
            "--store",
            served.store().to_str().unwrap(),
            "--visual-threshold",
            "1.01",
        ]),
        0,
    );
    let later = server.json("/api/audit/report?by=modality");
    assert_eq!(
        (&later["version"], &later["report"]["rows"][0]["verdicts"]),
        (&json!(42), &json!(30))
    );
    assert_ne!(
        later["report"]["rows"][0]["set"],
        shown["report"]["rows"][0]["set"]
    );
    assert!(
        server
            .get("/metrics")
            .text()
            .contains("vaplan_verdict_saves_total 40\n")
    );
    assert_status(&run(["check", "--store", served.store().to_str().unwrap()]), 0);
}

#[test]
fn a_verdict_is_taken_back_and_another_persons_verdict_is_not_overwritten_unseen() {
    let served = ServedStore::new(8, &[]);
    let server = &served.server;
    let drawn = sample(server, "count=4");
    let first = &drawn["segments"][0];
    let request = |said: Value, before: Value| json!({"version": 1, "by": "class", "author": "Ben", "verdicts": [verdict(first, &said, &before)]});
    assert_eq!(judge(server, &request(json!("yes"), Value::Null)).status, 200);
    let conflict = judge(server, &request(json!("no"), Value::Null));
    assert_eq!(conflict.status, 409, "{}", conflict.text());
    assert_eq!(conflict.json()["now"][0]["verdict"], "yes");
    assert_eq!(served.latest().version().version, 2, "nothing was saved");
    // The same verdict again changes nothing; one who has seen it can change it, and take it back.
    assert_eq!(
        judge(server, &request(json!("yes"), json!("yes"))).json()["version"],
        2
    );
    assert_eq!(
        judge(server, &request(json!("no"), json!("yes"))).json()["version"],
        3
    );
    assert_eq!(
        judge(server, &request(Value::Null, json!("no"))).json()["version"],
        4
    );
    assert!(served.latest().read::<Verdicts>().unwrap().is_empty());
    let list = server.json("/api/videos?at_least=4");
    assert_eq!(list["version"], 4, "verdicts do not hold up the list");
}

#[test]
fn verdicts_that_name_nothing_are_refused_with_what_was_expected() {
    let served = ServedStore::new(4, &[]);
    let server = &served.server;
    let first = sample(server, "count=1")["segments"][0].clone();
    let refused = |request: Value, expected: &str| {
        let answer = judge(server, &request);
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(answer.text().contains(expected), "{}", answer.text());
    };
    let yes = verdict(&first, &json!("yes"), &Value::Null);
    let mut far = yes.clone();
    far["segment"] = json!(10);
    let mut other = yes.clone();
    other["class"] = json!("Siren");
    refused(
        json!({"version": 1, "by": "class", "verdicts": [far]}),
        "segment is 10, expected less than 10",
    );
    refused(
        json!({"version": 1, "by": "class", "verdicts": [other]}),
        "labels of class `Siren`",
    );
    refused(
        json!({"version": 7, "by": "class", "verdicts": [yes]}),
        "draw a new sample",
    );
    refused(json!({"version": 1, "by": "colour", "verdicts": [yes]}), "colour");
    refused(
        json!({"version": 1, "by": "class", "verdicts": []}),
        "0 verdicts, expected 1 to 1000",
    );
    refused(
        json!({"version": 1, "by": "class", "verdicts": [yes, yes]}),
        "two verdicts",
    );
    for query in [
        "count=0",
        "count=2001",
        "by=colour",
        "split=dev",
        "version=9",
        "seed=x",
        "sample=3",
    ] {
        let answer = server.get(&format!("/api/audit/sample?{query}"));
        assert_eq!(answer.status, 422, "{query}: {}", answer.text());
    }
    let reader = Server::start(&served.store(), &["--read-only"]);
    let answer = judge(&reader, &json!({"version": 1, "by": "class", "verdicts": [yes]}));
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(served.latest().version().version, 1);
}
