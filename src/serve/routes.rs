//! The paths of the server.
//!
//! | path | answer |
//! |---|---|
//! | `GET /`, `GET /web/FILE` | the page |
//! | `GET /api/info` | the store, its classes, and how far the index is |
//! | `GET /api/videos?q=&class=&..` | a page of the list |
//! | `GET /api/video?name=V` | one video |
//! | `GET /api/history?name=V` | the versions that changed a video |
//! | `GET /api/overview` | numbers and plots of a version |
//! | `GET /media?name=V` | the media file of a video, with ranges |
//! | `GET /api/audit/sample?by=&count=&..` | a sample of segments to judge |
//! | `GET /api/audit/report?by=&split=` | precision and recall of the labels by the verdicts so far |
//! | `POST /api/save` | a correction |
//! | `POST /api/verdicts` | verdicts on segments of a sample |
//! | `GET /metrics` | numbers for Prometheus |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::access::{self, AccessGate};
use super::answer::{ApiAnswer, ApiError, JsonAnswer};
use super::audit::{
    ReportQuery, SampleQuery, SegmentVerdict, ShownAudit, ShownSample, VerdictError, VerdictRequest,
};
use super::index::ReviewIndex;
use super::index::query::{ListPage, ListQuery};
use super::media::MediaKind;
use super::overview::Overview;
use super::save::{SaveError, SaveRequest};
use super::state::{IndexState, ReviewState};
use super::video::ShownVideo;
use super::writer::ReviewWriter;
use super::{file, history, page, video};
use crate::error::LabelError;

/// Bytes of the longest body of a request.
const BODY: usize = 1 << 20;
/// Time in which a request is answered, apart from the bytes of a media file.
const ANSWER: Duration = Duration::from_secs(60);
/// Time that a request waits for the index.
const INDEX: Duration = Duration::from_secs(30);

type Shared = State<Arc<ReviewState>>;

/// The server: its paths behind the checks of [`access`].
pub(super) fn router(state: Arc<ReviewState>, gate: AccessGate) -> Router {
    Router::new()
        .route("/", get(|| async { page::file("") }))
        .route(
            "/web/{name}",
            get(|Path(name): Path<String>| async move { page::file(&name) }),
        )
        .route("/api/info", get(info))
        .route("/api/videos", get(videos))
        .route("/api/video", get(one))
        .route("/api/history", get(changes))
        .route("/api/overview", get(overview))
        .route("/api/audit/sample", get(sample))
        .route("/api/audit/report", get(report))
        .route("/api/save", post(save))
        .route("/api/verdicts", post(verdicts))
        .route("/media", get(media))
        .route("/metrics", get(metrics))
        .fallback(|| async { ApiError::missing("there is no such page") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "request",
                "the path has another method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(state.clone(), in_time))
        .layer(middleware::from_fn_with_state(gate, access::guard))
        .with_state(state)
}

/// Answers in time, and counts the request.
async fn in_time(State(state): Shared, request: Request, next: Next) -> Response {
    state.asked();
    match tokio::time::timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::busy(format!("no answer within {} s", ANSWER.as_secs())).into_response(),
    }
}

/// Reads tables on a thread of its own, because a table can take longer than other requests should wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> ApiAnswer<T> + Send + 'static) -> ApiAnswer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "bug",
            format!("the answer could not be made: {error}"),
        )),
    }
}

/// The index, of version `at_least` or later.
async fn index(state: &ReviewState, at_least: u64) -> ApiAnswer<Arc<ReviewIndex>> {
    let mut states = state.watch_index();
    let ready = states.wait_for(|state| match state {
        IndexState::Loading => false,
        IndexState::Ready(index) => index.version >= at_least,
        IndexState::Failed(_) => true,
    });
    let found = tokio::time::timeout(INDEX, ready).await;
    match found.map(|state| state.map(|state| state.clone())) {
        Ok(Ok(IndexState::Ready(index))) => Ok(index),
        Ok(Ok(IndexState::Failed(reason))) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "store",
            reason.to_string(),
        )),
        _ => Err(ApiError::busy(
            "the list of videos is still being made: ask again",
        )),
    }
}

#[derive(Serialize)]
struct Info {
    program: &'static str,
    store: String,
    version: u64,
    read_only: bool,
    author: Option<Arc<str>>,
    media: bool,
    index: IndexInfo,
}

#[derive(Serialize)]
struct IndexInfo {
    version: Option<u64>,
    videos: usize,
    classes: Vec<Arc<str>>,
    epoch: Option<u64>,
    error: Option<Arc<str>>,
}

async fn info(State(state): Shared) -> JsonAnswer<Info> {
    let index = match state.index() {
        IndexState::Ready(index) => IndexInfo {
            version: Some(index.version),
            videos: index.len(),
            classes: index.classes.clone(),
            epoch: index.epoch,
            error: None,
        },
        other => IndexInfo {
            version: None,
            videos: 0,
            classes: Vec::new(),
            epoch: None,
            error: match other {
                IndexState::Failed(reason) => Some(reason),
                _ => None,
            },
        },
    };
    JsonAnswer(Info {
        program: env!("CARGO_PKG_VERSION"),
        store: state.store.root().display().to_string(),
        version: state.latest(),
        read_only: state.request.read_only,
        author: state.request.author.clone(),
        media: state.media.is_some(),
        index,
    })
}

async fn videos(
    State(state): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> ApiAnswer<JsonAnswer<ListPage>> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    let mut at_least = query.at_least.unwrap_or(0);
    if at_least > state.latest() {
        // Another program may have made the version since the last look. A version that does not exist is not waited for.
        let own = state.clone();
        let latest = blocking(move || Ok(own.snapshot()?.version().version)).await?;
        at_least = at_least.min(latest);
    }
    let index = index(&state, at_least).await?;
    query.check(&index).map_err(ApiError::bad)?;
    blocking(move || Ok(JsonAnswer(query.page(&index)))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

fn named(query: Result<Query<Named>, QueryRejection>) -> ApiAnswer<String> {
    let Query(Named { name }) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    Ok(name)
}

#[derive(Serialize)]
struct VideoAnswer {
    #[serde(flatten)]
    video: ShownVideo,
    media: Option<MediaKind>,
}

async fn one(
    State(state): Shared,
    query: Result<Query<Named>, QueryRejection>,
) -> ApiAnswer<JsonAnswer<VideoAnswer>> {
    let name = named(query)?;
    blocking(move || {
        let found = video::read(&state.snapshot()?, &name)?;
        let video = found.ok_or_else(|| no_video(&name))?;
        let media = state.media_kind(&name);
        Ok(JsonAnswer(VideoAnswer { video, media }))
    })
    .await
}

fn no_video(name: &str) -> ApiError {
    ApiError::missing(format!(
        "no video `{name}`, expected the full name of a video of the store"
    ))
}

async fn changes(
    State(state): Shared,
    query: Result<Query<Named>, QueryRejection>,
) -> ApiAnswer<JsonAnswer<history::VideoHistory>> {
    let name = named(query)?;
    blocking(move || Ok(JsonAnswer(history::read(&state.snapshot()?, &name)?))).await
}

#[derive(Serialize)]
struct OverviewAnswer {
    /// The latest store version: the overview is of an earlier one while that of the latest is being made.
    latest: u64,
    #[serde(flatten)]
    overview: Arc<Overview>,
}

async fn overview(State(state): Shared) -> ApiAnswer<JsonAnswer<OverviewAnswer>> {
    let index = index(&state, 0).await?;
    blocking(move || {
        let overview = state.overview(&index)?;
        let latest = state.latest();
        Ok(JsonAnswer(OverviewAnswer { latest, overview }))
    })
    .await
}

async fn save(
    State(state): Shared,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiAnswer<Response> {
    let arrived = Instant::now();
    let request: SaveRequest = json_body(&headers, body)?;
    request.check().map_err(refused)?;
    match written(&state, |writer| writer.save(request, arrived))?.await {
        Ok(Ok(saved)) => Ok(JsonAnswer(saved).into_response()),
        Ok(Err(SaveError::Conflict(conflict))) => {
            state.figures.conflicts.fetch_add(1, Ordering::Relaxed);
            Ok((StatusCode::CONFLICT, JsonAnswer(conflict)).into_response())
        }
        Ok(Err(error)) => Err(refused(error)),
        Err(_) => Err(ApiError::busy(
            "the server is ending, and the correction was not saved",
        )),
    }
}

/// Reads the JSON of a request that writes.
fn json_body<T: DeserializeOwned>(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> ApiAnswer<T> {
    let body = body.map_err(|error| ApiError::new(error.status(), "request", error.body_text()))?;
    // A form of another site cannot have this type.
    if headers
        .get(CONTENT_TYPE)
        .is_none_or(|found| !found.as_bytes().starts_with(b"application/json"))
    {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "request",
            "the body must be JSON, with Content-Type: application/json",
        ));
    }
    serde_json::from_slice(&body).map_err(|error| ApiError::bad(format!("body: {error}")))
}

/// Hands a request to the thread that writes, and gives the channel of its answer.
fn written<T>(
    state: &ReviewState,
    hand_in: impl FnOnce(&ReviewWriter) -> Option<oneshot::Receiver<T>>,
) -> ApiAnswer<oneshot::Receiver<T>> {
    let waiting = state.with_writer(hand_in).ok_or_else(|| {
        ApiError::new(
            StatusCode::FORBIDDEN,
            "read_only",
            "the server is read-only: start `vaplan serve` without --read-only to correct and to judge labels",
        )
    })?;
    waiting.ok_or_else(|| ApiError::busy("too many corrections wait: try again"))
}

fn refused(error: SaveError) -> ApiError {
    match error {
        SaveError::Label(error @ LabelError::Change(_)) => ApiError::bad(error.to_string()),
        SaveError::Label(error) => error.into(),
        error => ApiError::bad(error.to_string()),
    }
}

async fn sample(
    State(state): Shared,
    query: Result<Query<SampleQuery>, QueryRejection>,
) -> ApiAnswer<JsonAnswer<ShownSample>> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    blocking(move || {
        let sample = state
            .audit
            .sample(&state.store, &query, |name| state.media_kind(name));
        Ok(JsonAnswer(sample.map_err(not_judged)?))
    })
    .await
}

async fn report(
    State(state): Shared,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> ApiAnswer<JsonAnswer<ShownAudit>> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    blocking(move || {
        let report = state.audit.report(&state.store, &query);
        Ok(JsonAnswer(report.map_err(not_judged)?))
    })
    .await
}

async fn verdicts(
    State(state): Shared,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiAnswer<Response> {
    let arrived = Instant::now();
    let request: VerdictRequest = json_body(&headers, body)?;
    request.check().map_err(not_judged)?;
    match written(&state, |writer| writer.judge(request, arrived))?.await {
        Ok(Ok(saved)) => Ok(JsonAnswer(saved).into_response()),
        Ok(Err(VerdictError::Conflict(now))) => {
            #[derive(Serialize)]
            struct Body {
                error: String,
                now: Vec<SegmentVerdict>,
            }
            let error = VerdictError::Conflict(now.clone()).to_string();
            Ok((StatusCode::CONFLICT, JsonAnswer(Body { error, now })).into_response())
        }
        Ok(Err(error)) => Err(not_judged(error)),
        Err(_) => Err(ApiError::busy(
            "the server is ending, and the verdict was not saved",
        )),
    }
}

fn not_judged(error: VerdictError) -> ApiError {
    match error {
        VerdictError::Label(error) => error.into(),
        error => ApiError::bad(error.to_string()),
    }
}

async fn media(
    State(state): Shared,
    query: Result<Query<Named>, QueryRejection>,
    headers: HeaderMap,
) -> ApiAnswer<Response> {
    let name = named(query)?;
    let missing = || ApiError::missing(format!("no media of video `{name}`"));
    let media = state.media.as_ref().ok_or_else(missing)?;
    let (_, path) = media.find(&name, |key| state.is_only(key)).ok_or_else(missing)?;
    let (path, range) = (path.clone(), headers.get(RANGE).cloned());
    blocking(move || file::open(&path, range.as_ref())).await
}

async fn metrics(State(state): Shared) -> Response {
    let (videos, bytes) = match state.index() {
        IndexState::Ready(index) => (index.len(), index.bytes()),
        _ => (0, 0),
    };
    let text = state.figures.text(state.latest(), videos, bytes);
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type)], text).into_response()
}
