//! The files of the page, which are part of the program.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::answer::{ApiAnswer, ApiError};

/// Path, type and content of each file.
const FILES: [(&str, &str, &str); 17] = [
    ("", HTML, include_str!("../../web/index.html")),
    ("style.css", CSS, include_str!("../../web/style.css")),
    ("app.js", JS, include_str!("../../web/app.js")),
    ("api.js", JS, include_str!("../../web/api.js")),
    ("dom.js", JS, include_str!("../../web/dom.js")),
    ("list.js", JS, include_str!("../../web/list.js")),
    ("video.js", JS, include_str!("../../web/video.js")),
    ("timeline.js", JS, include_str!("../../web/timeline.js")),
    ("outbox.js", JS, include_str!("../../web/outbox.js")),
    ("edits.js", JS, include_str!("../../web/edits.js")),
    ("audit.js", JS, include_str!("../../web/audit.js")),
    ("classes.js", JS, include_str!("../../web/classes.js")),
    ("overview.js", JS, include_str!("../../web/overview.js")),
    ("stages.js", JS, include_str!("../../web/stages.js")),
    ("plot.js", JS, include_str!("../../web/plot.js")),
    ("rowplot.js", JS, include_str!("../../web/rowplot.js")),
    ("icon.svg", SVG, include_str!("../../web/icon.svg")),
];
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The file of a name; the empty name is the page itself.
pub(super) fn file(name: &str) -> ApiAnswer<Response> {
    let found = FILES.iter().find(|(own, ..)| *own == name);
    let (_, content_type, content) =
        found.ok_or_else(|| ApiError::missing(format!("there is no file `{name}`")))?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        // Another build of the program has other files under the same names.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, *content).into_response())
}
