use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// A file in numpy's format, with any text as header and any data.
fn npy(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dictionary.len() as u16).to_le_bytes());
    bytes.extend(dictionary.as_bytes());
    bytes.extend(data);
    bytes
}

fn of(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy(
        &format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"),
        data,
    )
}

fn scratch(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn floats(bytes: &[u8]) -> Result<NdArray<f32>, IngestError> {
    read_floats(&scratch(bytes).1)
}

fn ints(bytes: &[u8]) -> Result<NdArray<i64>, IngestError> {
    read_ints(&scratch(bytes).1)
}

/// The error message, without the path.
fn refusal(bytes: &[u8]) -> String {
    let (_folder, path) = scratch(bytes);
    let message = read_floats(&path)
        .and_then(|array| array.into_matrix(&path))
        .unwrap_err()
        .to_string();
    let start = format!("npy file `{}`: ", path.display());
    message
        .strip_prefix(&start)
        .unwrap_or_else(|| panic!("`{message}` does not name the file"))
        .to_owned()
}

#[test]
fn floats_of_every_width_and_byte_order_become_the_same_f32() {
    let wanted = [0.5_f32, -2.0, 65504.0, 0.25, 1.0, -0.0];
    let bytes =
        |one: &dyn Fn(f32) -> Vec<u8>| wanted.iter().flat_map(|value| one(*value)).collect::<Vec<u8>>();
    let f16 = half::f16::from_f32;
    for (descr, data) in [
        ("<f2", bytes(&|v| f16(v).to_le_bytes().to_vec())),
        (">f2", bytes(&|v| f16(v).to_be_bytes().to_vec())),
        ("<f4", bytes(&|v| v.to_le_bytes().to_vec())),
        (">f4", bytes(&|v| v.to_be_bytes().to_vec())),
        ("<f8", bytes(&|v| f64::from(v).to_le_bytes().to_vec())),
        (">f8", bytes(&|v| f64::from(v).to_be_bytes().to_vec())),
    ] {
        let array = floats(&of(descr, "False", "(2, 3)", &data)).unwrap();
        assert_eq!(
            (array.shape.as_slice(), array.data.as_slice()),
            (&[2, 3][..], &wanted[..]),
            "{descr}"
        );
    }
}

#[test]
fn integers_of_every_width_sign_and_byte_order_are_read() {
    for (descr, data, wanted) in [
        ("|i1", &[0xff, 0x7f][..], [-1, 127]),
        ("|u1", &[0xff, 0x7f], [255, 127]),
        ("|b1", &[0, 2], [0, 1]),
        ("<i2", &[0xfe, 0xff, 1, 0], [-2, 1]),
        (">i2", &[0xff, 0xfe, 0, 1], [-2, 1]),
        ("<u2", &[0xfe, 0xff, 1, 0], [65534, 1]),
        (">u4", &[0x80, 0, 0, 0, 0, 0, 0, 1], [2_147_483_648, 1]),
        ("<i4", &[0, 0, 0, 0x80, 1, 0, 0, 0], [-2_147_483_648, 1]),
    ] {
        assert_eq!(
            ints(&of(descr, "False", "(2,)", data)).unwrap().data,
            wanted,
            "{descr}"
        );
    }
    let big = |descr: &str, data: [u8; 8]| ints(&of(descr, "False", "()", &data)).map(|array| array.data[0]);
    assert_eq!(big("<i8", [0, 0, 0, 0, 0, 0, 0, 0x80]).unwrap(), i64::MIN);
    assert_eq!(
        big(">u8", [0x7f, 255, 255, 255, 255, 255, 255, 255]).unwrap(),
        i64::MAX
    );
    let message = big("<u8", [255; 8]).unwrap_err().to_string();
    assert!(
        message.ends_with("value 0 is 18446744073709551615, expected at most 9223372036854775807"),
        "{message}"
    );
}

#[test]
fn fortran_order_is_transposed_for_any_number_of_axes() {
    // The bytes of numpy for np.asfortranarray(np.arange(6, dtype='u1').reshape(2, 3)).
    assert_eq!(
        ints(&of("|u1", "True", "(2, 3)", &[0, 3, 1, 4, 2, 5]))
            .unwrap()
            .data,
        [0, 1, 2, 3, 4, 5]
    );
    // The bytes of numpy for np.arange(8).reshape(2, 2, 2) in Fortran order.
    let cube = ints(&of("|u1", "True", "(2, 2, 2)", &[0, 4, 2, 6, 1, 5, 3, 7])).unwrap();
    assert_eq!(cube.data, [0, 1, 2, 3, 4, 5, 6, 7]);
    let data: Vec<u8> = [0.0_f32, 3.0, 1.0, 4.0, 2.0, 5.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(
        floats(&of("<f4", "True", "(2, 3)", &data)).unwrap().data,
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    );
}

#[test]
fn versions_two_and_three_keys_in_any_order_and_python_2_are_read() {
    let dictionary = "{\"shape\": (1L, 2L), \"fortran_order\": False, 'descr': 'u1'}";
    for version in [2, 3] {
        let mut bytes = vec![0x93, b'N', b'U', b'M', b'P', b'Y', version, 0];
        bytes.extend((dictionary.len() as u32).to_le_bytes());
        bytes.extend(dictionary.as_bytes());
        bytes.extend([7, 8]);
        assert_eq!(
            ints(&bytes).unwrap(),
            NdArray {
                shape: vec![1, 2],
                data: vec![7, 8]
            }
        );
    }
}

#[test]
fn hostile_headers_are_refused_by_what_they_say() {
    let f4 = |shape: &str, data: &[u8]| refusal(&of("<f4", "False", shape, data));
    assert_eq!(
        f4("(4294967296, 4294967296)", &[]),
        "shape is (4294967296, 4294967296), expected at most 0 bytes of data as the file has"
    );
    assert_eq!(
        f4("(1000000, 1000000)", &[0; 8]),
        "data is 8 bytes, expected 4000000000000 for shape (1000000, 1000000) of float32"
    );
    assert_eq!(
        f4("(0, 18446744073709551615)", &[]),
        "shape is (0, 18446744073709551615), expected two axes, neither empty, beside axes of length 1"
    );
    assert_eq!(
        f4("(2, 2)", &[0; 15]),
        "data is 15 bytes, expected 16 for shape (2, 2) of float32"
    );
    assert_eq!(
        f4("(2, 2)", &[0; 17]),
        "data is 17 bytes, expected 16 for shape (2, 2) of float32"
    );
    assert_eq!(
        f4("(2, 2)", &[]),
        "data is 0 bytes, expected 16 for shape (2, 2) of float32"
    );
    assert_eq!(
        f4("(4,)", &[0; 16]),
        "shape is (4,), expected two axes, neither empty, beside axes of length 1"
    );
    assert_eq!(
        f4("(2, 1, 2, 2)", &[0; 32]),
        "shape is (2, 1, 2, 2), expected two axes, neither empty, beside axes of length 1"
    );
    assert_eq!(
        f4("(-1, 4)", &[]),
        "header byte 51 is `-1, 4), }\\n`, expected a whole number from 0 to 2^64 - 1"
    );
    assert_eq!(
        f4("(18446744073709551616, 4)", &[]),
        "header byte 51 is `18446744073709551616`, expected a whole number from 0 to 2^64 - 1"
    );
    let axes = format!("({})", "1, ".repeat(65));
    assert!(f4(&axes, &[0; 4]).ends_with("expected at most 64 axes"));

    let mut four_gib = b"\x93NUMPY\x02\x00".to_vec();
    four_gib.extend(u32::MAX.to_le_bytes());
    four_gib.extend([b' '; 100]);
    assert_eq!(
        refusal(&four_gib),
        "header is 4294967295 bytes, expected at most 100"
    );
    four_gib.extend(vec![b' '; 100_000]);
    assert_eq!(
        refusal(&four_gib),
        "header is 4294967295 bytes, expected at most 65524"
    );

    assert_eq!(refusal(b""), "begins with ``, expected `\\x93NUMPY`");
    assert_eq!(
        refusal(b"PAR1...."),
        "begins with `PAR1..`, expected `\\x93NUMPY`"
    );
    assert_eq!(refusal(b"\x93NUMPY"), "header is 10 bytes, expected at most 6");
    assert_eq!(
        refusal(b"\x93NUMPY\x02\x00\x01"),
        "header is 12 bytes, expected at most 9"
    );
    assert_eq!(
        refusal(b"\x93NUMPY\x09\x01\x01\x00"),
        "version is 9.1, expected 1.0, 2.0 or 3.0"
    );
}

#[test]
fn other_dtypes_are_refused_by_name() {
    const EXPECTED: &str = "expected one of f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1";
    let dtype = |descr: &str| refusal(&of(descr, "False", "(1, 1)", &[0; 16]));
    assert_eq!(
        dtype("|O"),
        format!("dtype is `|O` (pickled objects), {EXPECTED}")
    );
    assert_eq!(dtype("|V8"), format!("dtype is `|V8` (structured), {EXPECTED}"));
    assert_eq!(dtype("<c8"), format!("dtype is `<c8`, {EXPECTED}"));
    assert_eq!(dtype("<f16"), format!("dtype is `<f16`, {EXPECTED}"));
    let structured = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1), }\n";
    assert_eq!(
        refusal(&npy(structured, &[0; 4])),
        format!("dtype is structured, {EXPECTED}")
    );
    assert_eq!(
        refusal(&of(">i8", "False", "(1, 2)", &[0; 16])),
        "dtype is big-endian int64, expected float16, float32 or float64"
    );
    let message = ints(&of("<f4", "False", "(1, 4)", &[0; 16]))
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("dtype is float32, expected an integer type or bool"),
        "{message}"
    );
}

#[test]
fn what_is_no_such_dictionary_is_refused_where_it_goes_wrong() {
    let dictionary = |text: &str| refusal(&npy(text, &[0; 4]));
    assert_eq!(dictionary("[]"), "header byte 0 is `[]`, expected `{`");
    assert_eq!(
        dictionary("{'descr': '<f4'"),
        "header byte 15 is `the end`, expected `,` or `}`"
    );
    assert_eq!(
        dictionary("{'descr': '<f4', 'shape': (1,)}"),
        "header byte 31 is `the end`, expected all of `descr`, `fortran_order` and `shape`"
    );
    assert_eq!(
        dictionary("{'descr': '<f4', 'descr': '<f4'}"),
        "header byte 17 is `\\'descr\\': \\'<f4\\'}`, expected each of `descr`, `fortran_order` and `shape` once"
    );
    assert_eq!(
        dictionary("{'fortran_order': __import__('os')}"),
        "header byte 18 is `__import__(\\'os\\')}`, expected `True` or `False`"
    );
    assert_eq!(
        dictionary("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), } x"),
        "header byte 60 is `x`, expected nothing but blanks after `}`"
    );
}

#[test]
fn what_is_written_is_what_numpy_writes_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let values = [0.5, -1.25, 3.0, 0.0, 1.0, 65504.0];
    write_f32(&path, &[2, 3], &values).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    // The same bytes that numpy 2.2 writes for a float32 array of shape (2, 3).
    let header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    assert_eq!(&bytes[..header.len()], header);
    assert_eq!((bytes.len(), bytes[127]), (128 + 24, b'\n'));
    assert_eq!(
        read_floats(&path).unwrap(),
        NdArray {
            shape: vec![2, 3],
            data: values.to_vec()
        }
    );
    write_f16(&path, &[6], &values).unwrap();
    assert_eq!(
        read_floats(&path).unwrap(),
        NdArray {
            shape: vec![6],
            data: values.to_vec()
        }
    );
    write_i64(&path, &[1, 2], &[-1, i64::MAX]).unwrap();
    assert_eq!(
        read_ints(&path).unwrap(),
        NdArray {
            shape: vec![1, 2],
            data: vec![-1, i64::MAX]
        }
    );
}

#[test]
fn a_failed_read_leaves_what_was_read_before() {
    let (_good_folder, good) = scratch(&of("<f4", "False", "(1, 1)", &1.0_f32.to_le_bytes()));
    let (_bad_folder, bad) = scratch(&of("<f4", "False", "(2, 1)", &1.0_f32.to_le_bytes()));
    let (mut reader, mut data) = (Reader::default(), Vec::new());
    assert_eq!(reader.append_matrix(&good, &mut data).unwrap(), (1, 1));
    reader.append_matrix(&bad, &mut data).unwrap_err();
    assert_eq!(reader.append_matrix(&good, &mut data).unwrap(), (1, 1));
    assert_eq!(data, [1.0, 1.0]);
}

#[test]
fn files_longer_than_the_first_read_are_read_whole() {
    let values: Vec<f32> = (0..40_000).map(|value| value as f32).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.npy");
    write_f32(&path, &[40, 1000], &values).unwrap();
    assert_eq!(
        read_floats(&path).unwrap().into_matrix(&path).unwrap().data,
        values
    );
}

#[test]
fn every_golden_array_is_read() {
    let Some(shared) = crate::ingest::shared("every_golden_array_is_read") else {
        return;
    };
    let (mut floats, mut ints) = (0, 0);
    for folder in ["labels", "eval", "clip", "clap", "audio"] {
        for entry in std::fs::read_dir(shared.join("golden").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "npy") {
                continue;
            }
            match read_floats(&path) {
                Ok(array) => {
                    assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
                    assert!(
                        array.data.iter().all(|value| value.is_finite()),
                        "{}",
                        path.display()
                    );
                    floats += 1;
                }
                Err(_) => {
                    let array = read_ints(&path).unwrap();
                    assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
                    ints += 1;
                }
            }
        }
    }
    assert!(floats >= 4 && ints >= 23, "{floats} and {ints}");
    let label = read_ints(&shared.join("golden/labels/video_label.npy")).unwrap();
    assert_eq!(label.shape, [64, 25]);
    assert!(label.data.iter().all(|value| [0, 1].contains(value)) && label.data.contains(&1));
}

proptest! {
    /// After any change of a good file, the reader returns a result or an error, and a result fits the size of the
    /// file.
    #[test]
    fn mutants_never_panic_nor_give_more_than_the_file_holds(
        which in 0_usize..6,
        changes in prop::collection::vec((0_usize..160, any::<u8>()), 0..6),
        cut in 0_usize..200,
        words in prop::collection::vec((0_usize..120, prop::sample::select(vec![
            "4294967296", "-1", "(", ")", "{", "}", "'", ",", "|O", ">f8", "True", "shape", "0", "99999999999999999999",
        ])), 0..3),
    ) {
        let mut bytes = match which {
            0 => of("<f4", "False", "(2, 3)", &[1; 24]),
            1 => of(">f8", "True", "(3, 1)", &[2; 24]),
            2 => of("<f2", "False", "(4, 3)", &[3; 24]),
            3 => of("<i8", "True", "(3, 1)", &[0; 24]),
            4 => of("|b1", "False", "(0, 4)", &[]),
            _ => of("|u1", "True", "(2, 3, 4)", &[5; 24]),
        };
        for (at, word) in words {
            let at = at.min(bytes.len());
            bytes.splice(at..at, word.bytes());
        }
        for (at, byte) in changes {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        if cut < bytes.len() && cut % 3 == 0 {
            bytes.truncate(cut);
        }
        let (_folder, path) = scratch(&bytes);
        if let Ok(array) = read_floats(&path) {
            prop_assert!(2 * array.data.len() <= bytes.len());
            prop_assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
        }
        if let Ok(array) = read_ints(&path) {
            prop_assert!(array.data.len() <= bytes.len());
        }
        if let Ok(header) = parse_header(&bytes, bytes.len() as u64) {
            prop_assert!(header.data_at <= bytes.len() as u64);
        }
    }
}
