//! Connections of the review page, with limits.
//!
//! The server holds bounded resources, whatever a client sends: at most 64 connections at a time, 32 KiB of a request's
//! header, 1 MiB of a body, 10 s for a header, and 60 s for an answer. Only the bytes of a media file may take longer.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::{ServeError, ServeStop};
use crate::loopback::accept;

/// Connections that are open at a time. Further clients wait in the queue of the operating system.
const CONNECTIONS: usize = 64;
/// Bytes of the longest header of a request.
const HEADER_BYTES: usize = 32 << 10;
/// Time that a client has to send the header of its request; also the time that a connection may be idle.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Threads that answer requests. Reading tables and committing have threads of their own.
const THREADS: usize = 2;

/// Binds the port on 127.0.0.1.
pub(super) fn bind(port: u16) -> Result<std::net::TcpListener, ServeError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |error: std::io::Error| ServeError::Address {
        address,
        problem: error.to_string(),
    };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Answers connections until `stop` is used.
pub(super) fn serve(
    listener: std::net::TcpListener,
    app: Router,
    stop: &ServeStop,
) -> Result<(), ServeError> {
    let failed = |error: std::io::Error| ServeError::Start(error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("serve")
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed)?;
    let done = runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        tokio::select! {
            () = accept(listener, CONNECTIONS, |stream| serve_connection(stream, app.clone())) => {}
            () = stop.stopped() => {}
        }
        Ok(())
    });
    // A request that waits for a slow client must not hold up the end. A save is completed by its own thread.
    runtime.shutdown_background();
    done.map_err(failed)
}

async fn serve_connection(stream: TcpStream, app: Router) {
    // Answers are small, and a person waits for them.
    let _ = stream.set_nodelay(true);
    let service =
        service_fn(move |request: Request<Incoming>| app.clone().oneshot(request.map(axum::body::Body::new)));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of the review page ended");
    }
}
