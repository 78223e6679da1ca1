//! `vaplan export`: what it prints, and what it writes of a small store.

use vaplan::ingest::npy;

use crate::small_store::{LONG, SHORT, small_store};
use crate::support::{assert_status, run, scratch, stderr, stdout};

#[test]
fn export_writes_a_file_for_each_video_and_refuses_a_folder_with_files() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let out = folder.path().join("labels");
    let export = || {
        run([
            "export".as_ref(),
            "--store".as_ref(),
            store.as_os_str(),
            "--format".as_ref(),
            "valor".as_ref(),
            "--out".as_ref(),
            out.as_os_str(),
        ])
    };
    let output = export();
    assert_status(&output, 0);
    assert_eq!(
        stdout(&output),
        format!("2 videos of version 2 in {}\n", out.display())
    );
    let labels = |modality: &str, video: &str| {
        let path = out.join(modality).join(format!("{}.npy", &video[..11]));
        let array = npy::read_ints(&path).unwrap();
        (array.shape.clone(), array.data)
    };
    // Classes: Dog, Speech. A person set the last label of Dog in the picture.
    let (shape, values) = labels("visual", LONG);
    assert_eq!(shape, [6, 2]);
    let dog: Vec<i64> = values.iter().copied().step_by(2).collect();
    assert_eq!(dog, [0, 0, 1, 1, 1, 1]);
    assert_eq!(labels("audio", SHORT).0, [3, 2]);

    let again = export();
    assert_status(&again, 2);
    let expected = format!(
        "vaplan: `{}` is not empty, expected a folder that is new or empty\n",
        out.display()
    );
    assert_eq!(stderr(&again), expected);
}
