//! What the HTTP servers on loopback addresses share: a bounded number of connections, and the check of the header `Host`.
//!
//! A server on a loopback address is out of reach of other machines, but not of the web pages in a browser on this machine.
//! A page of another site can give its own host name the address 127.0.0.1 (DNS rebinding). The browser then sends that
//! name in the header `Host`, which the page cannot choose.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::header::HOST;
use hyper::http::uri::Authority;
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

/// Whether a request is for this machine: each of its headers `Host`, and the host in its URI if there is one, is `localhost` or a
/// loopback address, with or without a port. A request that names no host at all is for this machine, too.
pub(crate) fn is_for_this_machine<B>(request: &Request<B>) -> bool {
    let headers = request.headers().get_all(HOST).iter();
    let mut named = headers.map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    named.all(|host| host.is_some_and(|host| is_own(&host))) && request.uri().authority().is_none_or(is_own)
}

fn is_own(authority: &Authority) -> bool {
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
        let request = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            is_for_this_machine(&request.body(()).unwrap())
        };
        let own = |host| request("/", &[host]);
        assert!(request("/", &[]) && request("http://localhost/", &["127.0.0.1:80"]));
        assert!(
            !request("/", &["localhost", "example.org"]) && !request("http://example.org/", &["localhost"])
        );
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
