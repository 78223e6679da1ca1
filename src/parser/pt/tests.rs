//! Tests on files that `tests/torch/make.py` writes in the formats of `torch.save`.

use super::*;

fn file(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch");
    std::fs::read(folder.join(name)).unwrap()
}

fn values(tensor: &Tensor) -> (Vec<i64>, Vec<f32>) {
    let flat = Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
    (tensor.size(), flat)
}

#[test]
fn both_formats_give_the_tensors_with_offset_and_stride_and_without_the_prefix() {
    for name in ["small.pt", "small_legacy.pt"] {
        let weights = read(&file(name)).unwrap().without_wrappers().tensors;
        let names: Vec<&str> = weights.keys().map(String::as_str).collect();
        assert_eq!(names, ["fc.bias", "fc.turned", "fc.weight"], "{name}");
        let weight = vec![0.0, 0.25, 0.5, 0.75, 1.0, 1.25];
        assert_eq!(values(&weights["fc.weight"]), (vec![3, 2], weight), "{name}");
        let turned = vec![1.5, 2.0, 2.5, 1.75, 2.25, 2.75];
        assert_eq!(values(&weights["fc.turned"]), (vec![2, 3], turned), "{name}");
        assert_eq!(values(&weights["fc.bias"]), (vec![2], vec![-1.0, 2.5]), "{name}");
    }
}

#[test]
fn the_state_dict_is_found_under_every_key_of_training_scripts() {
    for key in HOLDERS {
        let weights = read(&file(&format!("held/{key}.pt"))).unwrap();
        let weights = weights.without_wrappers().tensors;
        let names: Vec<&str> = weights.keys().map(String::as_str).collect();
        assert_eq!(names, ["fc.bias", "fc.turned", "fc.weight"], "{key}");
        assert_eq!(values(&weights["fc.bias"]), (vec![2], vec![-1.0, 2.5]), "{key}");
    }
    let refused = read(&file("held/unknown.pt")).unwrap_err().to_string();
    for key in HOLDERS {
        assert!(refused.contains(&format!("`{key}`")), "{refused}");
    }
}

#[test]
fn a_pickle_that_wants_to_run_something_is_refused_by_name() {
    let refused = read(&file("evil.pt")).unwrap_err();
    // The pickle names `os.system` by the module that defines it.
    let found = "posix.system".to_owned();
    assert_eq!(refused, WeightsProblem::Call { found });
}

#[test]
fn every_cut_and_changed_byte_is_refused_or_read_without_a_panic() {
    let mut refused = 0;
    for name in ["small.pt", "small_legacy.pt"] {
        let good = file(name);
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{name} cut at {length}");
        }
        for place in 0..good.len() {
            for byte in [0, 0x85, 0xff, b'h', b'('] {
                let mut bytes = good.clone();
                bytes[place] = byte;
                refused += usize::from(read(&bytes).is_err());
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_tensor_that_says_to_be_larger_than_its_storage_is_refused_before_it_takes_memory() {
    let storages = Storages::from([("0".to_owned(), vec![0_u8; 24])]);
    let rebuilt = |offset, size: &[i64], stride: &[i64]| Rebuilt {
        key: "0".to_owned(),
        kind: Kind::Float,
        offset,
        size: size.to_vec(),
        stride: stride.to_vec(),
    };
    let refused = [
        rebuilt(0, &[1 << 34], &[0]),
        rebuilt(0, &[7], &[0]),
        rebuilt(0, &[i64::MIN], &[1]),
        rebuilt(-1, &[2], &[1]),
        rebuilt(0, &[2, 2], &[i64::MAX, i64::MAX]),
        rebuilt(0, &[2], &[-1]),
        rebuilt(2, &[5], &[1]),
        rebuilt(0, &[2, 2], &[1]),
    ];
    for rebuilt in refused {
        let problem = materialize(&rebuilt, &storages, 1 << 20).unwrap_err().to_string();
        assert!(
            problem.contains("lies outside its storage `0`"),
            "{rebuilt:?}: {problem}"
        );
    }
    let whole = materialize(&rebuilt(0, &[2, 3], &[1, 2]), &storages, 24).unwrap();
    assert_eq!(whole.size(), [2, 3]);
    assert_eq!(
        materialize(&rebuilt(9, &[0], &[1]), &storages, 0).unwrap().size(),
        [0]
    );
    let full = materialize(&rebuilt(0, &[6], &[1]), &storages, 23)
        .unwrap_err()
        .to_string();
    assert!(full.contains("8 times the file's length"), "{full}");
}

#[test]
fn a_pickle_nested_without_end_is_no_overflow() {
    // [[[[...]]]]: a list is memoised, a list around it is memoised, and so on.
    let mut pickle = vec![0x80, 2, b']', b'q', 0];
    for _ in 0..300_000 {
        pickle.extend([b']', b'h', 0, b'a', b'q', 0]);
    }
    pickle.push(b'.');
    let pickled = Machine::new(&pickle).run().unwrap();
    assert_eq!(pickled.length, pickle.len());
}
