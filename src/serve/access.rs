//! Who may use the server: requests that carry the token, and that no other site caused.
//!
//! The token is in the URL that the program prints. The first answer puts it into a cookie with `HttpOnly` and
//! `SameSite=Strict`, and the page removes it from the address bar. Programs send it as `Authorization: Bearer TOKEN`.
//!
//! | attack | what stops it |
//! |---|---|
//! | another user or program of this machine | the token: 256 random bits |
//! | a name of another site that leads to 127.0.0.1 (DNS rebinding) | the check of `Host` |
//! | a form or script of another site | `SameSite=Strict`, the check of `Origin` and `Sec-Fetch-Site` |
//! | a name of a video or class that contains HTML | the content security policy; the page never parses names as HTML |

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rand::TryRng as _;
use sha2::{Digest, Sha256};

use super::ServeError;
use super::answer::ApiError;
use crate::loopback::is_for_this_machine;

/// Nothing comes from another host, no script or style is in the HTML, and no other page may frame this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Bytes of the token, before it is written in hex.
const TOKEN_BYTES: usize = 32;

/// The secret of one server.
#[derive(Clone)]
pub(super) struct Token(Arc<str>);

impl Token {
    /// Makes a token from the random numbers of the system.
    pub(super) fn random() -> Result<Token, ServeError> {
        let mut bytes = [0; TOKEN_BYTES];
        rand::rngs::SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| ServeError::Start(error.to_string()))?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Token(text.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares hashes, so that the time of the comparison tells nothing about the token.
    fn is(&self, other: &str) -> bool {
        Sha256::digest(self.0.as_bytes()) == Sha256::digest(other.as_bytes())
    }
}

/// Checks every request of a server.
#[derive(Clone)]
pub(super) struct AccessGate {
    token: Token,
    /// Cookies do not belong to a port, so the name of the cookie has the port: two servers do not sign each other off.
    cookie: Arc<str>,
}

impl AccessGate {
    pub(super) fn new(token: Token, port: u16) -> AccessGate {
        AccessGate {
            token,
            cookie: format!("vaplan_{port}").into(),
        }
    }

    /// Refuses a request that may not be answered.
    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let refuse = |reason: &str| Err(ApiError::new(StatusCode::FORBIDDEN, "access", reason));
        let Some(host) = headers.get(HOST).filter(|_| is_for_this_machine(request)) else {
            return refuse("the Host of the request is not `localhost` or a loopback address");
        };
        let origin = headers.get(ORIGIN);
        if origin.is_some_and(|origin| !is_same_origin(origin, host)) {
            return refuse("the request comes from another site");
        }
        let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
        let follows_link = self.in_query(request) && request.uri().path() == "/";
        if !matches!(site, None | Some("same-origin" | "none")) && !follows_link {
            return refuse("the request comes from another site");
        }
        if !(self.in_header(headers) || self.in_cookie(headers) || follows_link) {
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "token",
                "the token is missing or wrong: open the URL that `vaplan serve` printed",
            ));
        }
        // Browsers send Origin with every request that is not GET or HEAD. Without it, the token must not come from a
        // cookie, which the browser sends on its own.
        let safe = matches!(*request.method(), Method::GET | Method::HEAD);
        if !safe && origin.is_none() && !self.in_header(headers) {
            return refuse("the request has no Origin: send the token as `Authorization: Bearer TOKEN`");
        }
        Ok(())
    }

    fn in_header(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        value
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| self.token.is(token))
    }

    fn in_cookie(&self, headers: &HeaderMap) -> bool {
        let cookies = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .any(|(name, token)| name == &*self.cookie && self.token.is(token))
    }

    fn in_query(&self, request: &Request) -> bool {
        let query = request.uri().query().unwrap_or_default();
        query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("token="))
            .any(|token| self.token.is(token))
    }
}

/// Whether the header `Origin` names the server that the request was sent to.
fn is_same_origin(origin: &HeaderValue, host: &HeaderValue) -> bool {
    let (Ok(origin), Ok(host)) = (origin.to_str(), host.to_str()) else {
        return false;
    };
    origin
        .strip_prefix("http://")
        .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Checks a request, and adds the headers that every answer has.
pub(super) async fn guard(State(gate): State<AccessGate>, request: Request, next: Next) -> Response {
    let signs_in = gate.in_query(&request);
    let mut response = match gate.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    let ok = response.status().is_success();
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if signs_in && ok {
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict",
            gate.cookie,
            gate.token.as_str()
        );
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.insert(SET_COOKIE, cookie);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_the_host_with_its_port() {
        let same = |origin: &'static str, host: &'static str| {
            is_same_origin(&HeaderValue::from_static(origin), &HeaderValue::from_static(host))
        };
        assert!(same("http://127.0.0.1:8000", "127.0.0.1:8000"));
        assert!(same("http://LOCALHOST:1", "localhost:1"));
        for other in [
            "null",
            "http://127.0.0.1:8001",
            "https://127.0.0.1:8000",
            "http://127.0.0.1:8000.example.org",
            "http://example.org",
        ] {
            assert!(!same(other, "127.0.0.1:8000"), "{other}");
        }
    }

    #[test]
    fn two_tokens_differ_and_are_64_digits_long() {
        let (a, b) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(a.as_str(), b.as_str());
        assert_eq!(a.as_str().len(), 2 * TOKEN_BYTES);
        assert!(a.is(a.as_str()) && !a.is(b.as_str()) && !a.is(&a.as_str()[1..]));
    }
}
