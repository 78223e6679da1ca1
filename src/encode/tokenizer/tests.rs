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
        assert_eq!(tokenizer.encode(text, usize::MAX), ids("ids"), "{text:?}");
        assert_eq!(
            tokenizer.encode(text, most),
            ids("truncated_ids"),
            "{text:?}, cut"
        );
        assert!(ids("ids").iter().all(|&id| id < tokenizer.size()));
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
    let mut json = serde_json::json!({
        "added_tokens": [
            {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
            {"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": {"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 1]},
        "model": {
            "type": "BPE", "unk_token": null,
            "vocab": {"a": 2, "b": 3, "ab": 4, "aba": 5, "\u{120}": 6},
            "merges": ["a b", ["ab", "a"]]
        }
    });
    change(&mut json);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    Tokenizer::read(&path)
}

#[test]
fn merges_go_by_rank_and_from_the_left() {
    let tokenizer = small(|_| {}).unwrap();
    // `abab`: both `a b` first, so `ab a` finds nothing to take.
    assert_eq!(tokenizer.encode("abab", 77), [0, 4, 4, 1]);
    assert_eq!(tokenizer.encode("ABA", 77), [0, 5, 1]);
    // Of three spaces before a word the last is the word's, and an unknown letter is nothing.
    assert_eq!(tokenizer.encode("a   bz", 77), [0, 2, 6, 6, 6, 3, 1]);
    assert_eq!(tokenizer.encode("ab<s>a", 77), [0, 4, 0, 2, 1]);
    assert_eq!(tokenizer.encode("ab ab ab", 4), [0, 4, 6, 1]);
    assert_eq!(tokenizer.encode("", 77), [0, 1]);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let refused = |change: fn(&mut serde_json::Value)| small(change).unwrap_err().to_string();
    let unigram = refused(|json| json["model"]["type"] = "Unigram".into());
    assert!(
        unigram.contains("Unigram") && unigram.contains("BPE"),
        "{unigram}"
    );
    let fallback = refused(|json| json["model"]["byte_fallback"] = true.into());
    assert!(fallback.contains("`byte_fallback`"), "{fallback}");
    let strip = refused(|json| json["normalizer"] = serde_json::json!({"type": "Strip"}));
    assert!(strip.contains("Strip"), "{strip}");
    let merge = refused(|json| json["model"]["merges"] = serde_json::json!(["a z"]));
    assert!(
        merge.contains("token `z` of a merge is not in its vocabulary"),
        "{merge}"
    );
    let word = refused(|json| json["added_tokens"][0]["single_word"] = true.into());
    assert!(word.contains("`<s>`") && word.contains("single_word"), "{word}");
    let none = Tokenizer::read(Path::new("/nowhere/tokenizer.json"))
        .unwrap_err()
        .to_string();
    assert!(
        none.starts_with("tokenizer `/nowhere/tokenizer.json`: cannot be read"),
        "{none}"
    );
}
