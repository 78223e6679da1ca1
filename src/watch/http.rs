//! A small HTTP server for pages on a loopback address.
//!
//! The server holds bounded resources, whatever a client sends: one thread, at most 32 connections at a time, 16 KiB of a
//! request's header, no body, and 10 s for a connection. One request is served on each connection.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::loopback::{accept, is_for_this_machine};

/// Connections that are open at a time. Further clients wait in the queue of the operating system.
const CONNECTIONS: usize = 32;
/// Bytes of the longest header of a request.
const HEADER_BYTES: usize = 16 << 10;
/// Time that a client has to send the header of its request.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Time after which a connection is closed, whatever its state.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Content of a page, by its path; `None` if there is no such page.
pub(crate) type Pages = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Serves pages of type `content_type` from a thread of its own. Returns the address. If the port of `address` is 0, the
/// returned address has the port that the system chose.
///
/// # Errors
/// Returns the error of the system if the address cannot be bound or the thread cannot start.
pub(crate) fn serve(
    address: SocketAddr,
    name: &str,
    content_type: &'static str,
    pages: Arc<Pages>,
) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let own = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let work = move || {
        runtime.block_on(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let connection = move |stream| {
                        let served = serve_connection(stream, content_type, pages.clone());
                        // A client that is too slow or sends nonsense gets no answer. Other clients are not affected.
                        async move { drop(tokio::time::timeout(CONNECTION_TIME, served).await) }
                    };
                    accept(listener, CONNECTIONS, connection).await;
                }
                Err(error) => tracing::error!(%error, "the HTTP server cannot start"),
            }
        });
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(own)
}

async fn serve_connection(stream: TcpStream, content_type: &'static str, pages: Arc<Pages>) {
    let service = service_fn(move |request| {
        let response = answer(&request, content_type, &*pages);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of the HTTP server ended");
    }
}

/// Answers a request. The body of the request is not read.
fn answer(request: &Request<Incoming>, content_type: &'static str, pages: &Pages) -> Response<Full<Bytes>> {
    // A request without the header comes from a program, since browsers always send it.
    let (status, text) = if !is_for_this_machine(request) {
        // A web page of another site can make a browser on this machine send requests, but cannot choose their Host.
        let reason = "the Host of the request is not `localhost` or a loopback address\n";
        (StatusCode::FORBIDDEN, reason.to_owned())
    } else if request.method() != Method::GET && request.method() != Method::HEAD {
        (StatusCode::METHOD_NOT_ALLOWED, "expected GET\n".to_owned())
    } else {
        match pages(request.uri().path()) {
            Some(text) => (StatusCode::OK, text),
            None => (StatusCode::NOT_FOUND, "there is no such page\n".to_owned()),
        }
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
