//! Media files: whole, in ranges, and missing.

use std::fs;

use super::harness::Server;
use crate::sample::{Sample, key, name};
use crate::support::assert_status;

#[test]
fn a_media_file_is_served_in_ranges() {
    let sample = Sample::new(4);
    assert_status(&sample.label("store", &[]), 0);
    let media = sample.path("media");
    fs::create_dir_all(media.join("deep")).unwrap();
    // More than several pieces of the server, and not a multiple of one.
    let bytes: Vec<u8> = (0..1_300_001_u32).map(|at| (at % 251) as u8).collect();
    fs::write(media.join(format!("{}.mp4", name(0))), &bytes).unwrap();
    fs::write(media.join("deep").join(format!("{}.wav", key(1))), b"sound").unwrap();
    let server = Server::start(&sample.path("store"), &["--media", media.to_str().unwrap()]);

    let path = format!("/media?name={}", name(0));
    let whole = server.get(&path);
    assert_eq!(
        (whole.status, whole.header("content-type")),
        (200, Some("video/mp4"))
    );
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert!(whole.body == bytes, "{} bytes", whole.body.len());
    for (range, expected) in [
        ("0-0", 0..1),
        ("1000-", 1000..1_300_001),
        ("-7", 1_299_994..1_300_001),
        ("262143-786432", 262_143..786_433),
    ] {
        let part = server.ask("GET", &path, &format!("Range: bytes={range}"), b"");
        assert_eq!(part.status, 206, "{range}");
        let text = format!("bytes {}-{}/1300001", expected.start, expected.end - 1);
        assert_eq!(part.header("content-range"), Some(&*text));
        assert!(part.body == bytes[expected], "{range}");
    }
    assert_eq!(server.ask("GET", &path, "Range: bytes=1300001-", b"").status, 416);

    // A short name stands for the only video that begins with it.
    let short = server.get(&format!("/media?name={}", name(1)));
    assert_eq!(
        (short.status, short.header("content-type")),
        (200, Some("audio/wav"))
    );
    assert_eq!(server.get(&format!("/media?name={}", name(2))).status, 404);
    assert_eq!(
        server.json(&format!("/api/video?name={}", name(0)))["media"],
        "video"
    );
    assert_eq!(
        server.json(&format!("/api/video?name={}", name(1)))["media"],
        "audio"
    );
    assert!(server.json(&format!("/api/video?name={}", name(2)))["media"].is_null());
}
