//! What the HTTP servers on loopback addresses share: a bounded number of connections, and the check of the header `Host`.
//!
//! A server on a loopback address is out of reach of other machines, but not of the web pages in a browser on this machine.
//! A page of another site can give its own host name the address 127.0.0.1 (DNS rebinding). The browser then sends that
//! name in the header `Host`, which the page cannot choose.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Pause after a failed accept, for example if the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves each connection in a task of its own, at most `most` at a time. Further clients wait in the queue of the
/// operating system.
pub(crate) async fn accept<F>(listener: TcpListener, most: usize, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = serve(stream);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the HTTP server cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether the header `Host` of a request names this machine: `localhost` or a loopback address, with or without a port.
pub(crate) fn is_own_host(host: &HeaderValue) -> bool {
    let Ok(authority) = host
        .to_str()
        .unwrap_or_default()
        .parse::<hyper::http::uri::Authority>()
    else {
        return false;
    };
    let name = authority.host();
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let own = |host: &'static str| is_own_host(&HeaderValue::from_static(host));
        for host in [
            "localhost",
            "LocalHost:9464",
            "127.0.0.1",
            "127.3.0.1:80",
            "[::1]:9464",
            "[::1]",
        ] {
            assert!(own(host), "{host}");
        }
        for host in [
            "x",
            "example.org:9464",
            "127.0.0.1.example.org",
            "10.0.0.1",
            "",
            "localhost:x y",
        ] {
            assert!(!own(host), "{host}");
        }
    }
}
