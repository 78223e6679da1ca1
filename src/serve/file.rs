//! The bytes of a media file, as a whole or in a range. A player asks for ranges to jump in a file.
//!
//! A thread reads the file piece by piece, and waits while the browser does not take the pieces. A file of any size therefore
//! needs the memory of a few pieces.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue,
};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::answer::{ApiAnswer, ApiError};

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces that are read ahead.
const AHEAD: usize = 2;

/// Type of each extension that the media index takes.
const TYPES: [(&str, &str); 14] = [
    ("mp4", "video/mp4"),
    ("m4v", "video/mp4"),
    ("webm", "video/webm"),
    ("mov", "video/quicktime"),
    ("ogv", "video/ogg"),
    ("mkv", "video/x-matroska"),
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("m4a", "audio/mp4"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("flac", "audio/flac"),
    ("aac", "audio/aac"),
];

/// Opens a file and answers with all bytes, or with the bytes of the header `Range`. A header with several ranges gets all
/// bytes, as RFC 9110 allows. Must be called in a tokio runtime, on a thread that may block.
pub(super) fn open(path: &Path, range: Option<&HeaderValue>) -> ApiAnswer<Response<Body>> {
    let failed = |error: io::Error| ApiError::missing(format!("the media file cannot be read: {error}"));
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let range = match range.and_then(|range| range.to_str().ok()) {
        Some(text) => asked(text, length)?,
        None => None,
    };
    let (start, bytes) = match range {
        Some((first, last)) => (first, last - first + 1),
        None => (0, length),
    };
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let (pieces, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || send(file.take(bytes), &pieces));
    let mut response = Response::new(Body::new(FilePieces(receiver)));
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    let own = TYPES.iter().find(|(own, _)| extension.eq_ignore_ascii_case(own));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(own.map_or("application/octet-stream", |(_, own)| own)),
    );
    headers.insert(CONTENT_LENGTH, bytes.into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // A media file can be replaced while the server runs, so that the browser must not keep it.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some((first, last)) = range {
        let text = format!("bytes {first}-{last}/{length}");
        headers.insert(CONTENT_RANGE, HeaderValue::from_str(&text).expect("it is ASCII"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The first and last byte of a header `Range`; `None` if it asks for several ranges, or is not a range of bytes.
fn asked(text: &str, length: u64) -> ApiAnswer<Option<(u64, u64)>> {
    let Ok(parsed) = http_range_header::parse_range_header(text) else {
        return Ok(None);
    };
    match parsed.validate(length) {
        Ok(ranges) => match &ranges[..] {
            [range] => Ok(Some((*range.start(), *range.end()))),
            _ => Ok(None),
        },
        Err(_) => Err(ApiError::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "request",
            format!("Range is `{text}`, expected a range within {length} bytes"),
        )),
    }
}

fn send(mut file: io::Take<File>, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut piece = vec![0; PIECE.min(usize::try_from(file.limit()).unwrap_or(PIECE))];
        let read = match file.read(&mut piece) {
            Ok(0) => return,
            Ok(read) => {
                piece.truncate(read);
                Ok(Bytes::from(piece))
            }
            Err(error) => Err(error),
        };
        let ends = read.is_err();
        // The browser has closed the connection.
        if pieces.blocking_send(read).is_err() || ends {
            return;
        }
    }
}

/// Pieces of a file as the body of an answer.
struct FilePieces(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for FilePieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_within_the_file() {
        let of = |text| asked(text, 100).unwrap();
        assert_eq!(of("bytes=0-9"), Some((0, 9)));
        assert_eq!(of("bytes=90-"), Some((90, 99)));
        assert_eq!(of("bytes=-5"), Some((95, 99)));
        assert_eq!(of("bytes=0-1,5-6"), None, "several ranges get the whole file");
        assert_eq!(of("seconds=0-9"), None);
        assert!(asked("bytes=100-", 100).is_err());
    }
}
