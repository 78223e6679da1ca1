use super::*;
use crate::ingest::shared;

fn golden(test: &str, tokenizer: &str, golden: &str) {
    let Some(shared) = shared(test) else { return };
    let tokenizer = Tokenizer::read(&shared.join(tokenizer)).unwrap();
    let text = std::fs::read_to_string(shared.join("golden/tokenizers").join(golden)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let most = json["max_len"].as_u64().unwrap() as usize;
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 38);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids = |key: &str| -> Vec<u32> {
            case[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_u64().unwrap() as u32)
                .collect()
        };
        assert_eq!(
            tokenizer.encode(text, usize::MAX).unwrap(),
            ids("ids"),
            "{text:?}"
        );
        assert_eq!(
            tokenizer.encode(text, most).unwrap(),
            ids("truncated_ids"),
            "{text:?}, cut"
        );
    }
}

#[test]
fn clips_own_tokenizer_gives_the_golden_ids() {
    golden(
        "clips_own_tokenizer",
        "tokenizers/clip.json",
        "clip_full_golden.json",
    );
}

#[test]
fn clips_tiny_tokenizer_gives_the_golden_ids() {
    golden(
        "clips_tiny_tokenizer",
        "golden/tokenizers/clip_tiny_tokenizer.json",
        "clip_tiny_golden.json",
    );
}

#[test]
fn robertas_own_tokenizer_gives_the_golden_ids() {
    golden(
        "robertas_own_tokenizer",
        "tokenizers/roberta.json",
        "roberta_full_golden.json",
    );
}

#[test]
fn robertas_tiny_tokenizer_gives_the_golden_ids() {
    golden(
        "robertas_tiny_tokenizer",
        "golden/tokenizers/roberta_tiny_tokenizer.json",
        "roberta_tiny_golden.json",
    );
}

/// A tokenizer of a few letters, with changes to its file.
fn small(change: impl FnOnce(&mut serde_json::Value)) -> Result<Tokenizer, TokenizerError> {
    let added = |id: u32, content: &str| {
        serde_json::json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false
        })
    };
    let mut json = serde_json::json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "</s>"
        },
        "added_tokens": [added(0, "<s>"), added(1, "</s>")],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        },
        "post_processor": {
            "type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 1],
            "trim_offsets": true, "add_prefix_space": false
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4, "aba": 5, "\u{120}": 6},
            "merges": ["a b", "ab a"]
        }
    });
    change(&mut json);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    Tokenizer::read(&path)
}

#[test]
fn long_texts_are_cut_before_the_last_id_whatever_the_file_says() {
    let tokenizer = small(|_| {}).unwrap();
    let ids = |text: &str, most: usize| tokenizer.encode(text, most).unwrap();
    assert_eq!(ids("abab", 77), [0, 4, 4, 1]);
    assert_eq!(ids("ABA", 77), [0, 5, 1]);
    assert_eq!(ids("ab ab ab", 4), [0, 4, 6, 1]);
    assert_eq!(ids("ab<s>a", 77), [0, 4, 0, 2, 1]);
    assert_eq!(ids("", 77), [0, 1]);
    assert_eq!(tokenizer.end(), 1);
}

#[test]
fn unusable_files_are_refused_by_name() {
    let refused = |change: fn(&mut serde_json::Value)| small(change).unwrap_err().to_string();
    let unknown = refused(|json| json["model"] = serde_json::json!({"type": "Letters"}));
    assert!(unknown.contains("is not a tokenizer"), "{unknown}");
    let merge = refused(|json| json["model"]["merges"] = serde_json::json!(["a z"]));
    assert!(
        merge.contains('z') && merge.contains("is not a tokenizer"),
        "{merge}"
    );
    let bare = refused(|json| json["post_processor"] = serde_json::Value::Null);
    assert!(
        bare.contains("expected two ids") && bare.contains("post_processor"),
        "{bare}"
    );
    let incomplete = refused(|json| {
        json["pre_tokenizer"].as_object_mut().unwrap().remove("type");
    });
    assert!(incomplete.contains("is not a tokenizer"), "{incomplete}");
    let none = Tokenizer::read(Path::new("/nowhere/tokenizer.json"))
        .unwrap_err()
        .to_string();
    assert!(
        none.starts_with("tokenizer `/nowhere/tokenizer.json`: cannot be read"),
        "{none}"
    );
}
