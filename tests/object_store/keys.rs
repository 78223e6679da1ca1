//! Keys of the URLs that users give, and processes of a cluster that cannot reach the store.

use std::process::Command;

use super::{S3, UPLOAD, label_words, words};
use crate::cluster::processes::cluster_of;
use crate::support::{assert_status, stderr};

/// Prefixes with characters that URLs or object stores encode, and with slashes that mean nothing.
const PREFIXES: [(&str, &str); 4] = [
    ("ü/ä store", "ü/ä store"),
    ("100%/p%20q", "100%/p%20q"),
    ("a+b&c=d/~[x]{y}", "a+b&c=d/~[x]{y}"),
    ("/slash//s/", "slash/s"),
];

#[test]
fn a_key_is_the_text_of_the_url_for_stores_and_inputs() {
    let Some(s3) = S3::start("a_key_is_the_text_of_the_url_for_stores_and_inputs") else {
        return;
    };
    s3.inputs();
    let local = s3.path("store");
    let here = s3.path("");
    s3.done(&words(&label_words(&local, here.trim_end_matches('/'))));
    for (prefix, key) in PREFIXES {
        for folder in ["annotations", "features"] {
            s3.python(UPLOAD, &[&s3.path(folder), &format!("{key}/in/{folder}")]);
        }
        let (store, inputs) = (
            format!("s3://bucket/{prefix}/store"),
            format!("s3://bucket/{prefix}/in"),
        );
        s3.done(&words(&label_words(&store, inputs.trim_end_matches('/'))));
        assert_eq!(s3.rows(&store), s3.rows(&local), "{prefix}");
        let listed = s3.python(
            "import boto3, sys; found = boto3.client('s3').list_objects_v2(Bucket='bucket', Prefix=sys.argv[1])\n\
             print(found['KeyCount'])",
            &[&format!("{key}/store/labels/")],
        );
        assert!(listed.trim() != "0", "{prefix}: other programs find the objects");
    }
    println!("{} prefixes are the keys that other programs see", PREFIXES.len());
}

#[test]
fn a_process_that_cannot_reach_the_store_says_which_request_failed_and_why() {
    let Some(s3) = S3::start("a_process_that_cannot_reach_the_store_says_which_request_failed_and_why")
    else {
        return;
    };
    s3.inputs();
    let here = s3.path("");
    let label = |store: &str, own: &dyn Fn(usize, &mut Command)| {
        let outputs = cluster_of(2, |process| {
            let mut command = s3.command(&words(&label_words(store, here.trim_end_matches('/'))));
            own(process, &mut command);
            command
        });
        outputs.iter().for_each(|output| assert_status(output, 2));
        [0, 1].map(|process| stderr(&outputs[process]).to_owned())
    };
    let unreachable = |process: usize, command: &mut Command| {
        command.env("VAPLAN_OBJECT_ATTEMPTS", "1");
        if process == 1 {
            command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
        }
    };
    let [first, second] = label("s3://bucket/reach", &unreachable);
    assert!(
        second.contains("vaplan: GET `s3://bucket/reach/") && second.contains(" failed after 1 attempt"),
        "{second}"
    );
    assert!(
        first.contains("vaplan: process 1 (") && first.contains(") failed: GET `s3://bucket/reach/"),
        "{first}"
    );
    for told in label("s3://no-such-bucket/store", &|_, _| ()) {
        assert!(
            told.contains("`s3://no-such-bucket/store/")
                && told.contains("create the bucket if it is missing"),
            "{told}"
        );
    }
    let elsewhere = |process: usize, command: &mut Command| {
        if process == 1 {
            *command = s3.command(&words(&label_words(
                "s3://bucket/other",
                here.trim_end_matches('/'),
            )));
        }
    };
    let told = label("s3://bucket/one", &elsewhere);
    assert!(
        told[1].contains("store `s3://bucket/other` is not that of process 0"),
        "{}",
        told[1]
    );
}
