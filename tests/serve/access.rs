//! Who may use the server.

use serde_json::json;

use super::harness::{ServedStore, Server, edit, quoted};
use crate::sample::{Sample, name};
use crate::support::assert_status;

const SAVE: &str = r#"{"version":1,"edits":[]}"#;

#[test]
fn only_the_token_opens_a_page() {
    let served = ServedStore::new(4, &[]);
    let server = &served.server;
    let host = format!("Host: 127.0.0.1:{}", server.port);
    let token = &server.token;
    let status = |path: &str, header: &str| {
        server
            .raw(&format!("GET {path} HTTP/1.1\n{host}{header}"), b"")
            .status
    };
    let wrong = "0".repeat(64);
    for path in [
        "/",
        "/web/app.js",
        "/api/info",
        "/api/videos",
        "/metrics",
        "/media?name=x",
        "/nothing",
    ] {
        assert_eq!(status(path, ""), 401, "{path}");
        assert_eq!(
            status(path, &format!("\nAuthorization: Bearer {wrong}")),
            401,
            "{path}"
        );
        assert_eq!(
            status(path, &format!("\nCookie: vaplan_{}={wrong}", server.port)),
            401,
            "{path}"
        );
        assert_eq!(
            status(path, &format!("\nCookie: vaplan_1={token}")),
            401,
            "{path}"
        );
    }
    assert_eq!(status(&format!("/?token={wrong}"), ""), 401);
    assert_eq!(
        status(&format!("/api/info?token={token}"), ""),
        401,
        "the URL opens only the page"
    );

    let page = server.raw(&format!("GET /?token={token} HTTP/1.1\n{host}"), b"");
    assert_eq!(page.status, 200);
    let cookie = page.header("set-cookie").expect("a cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(status("/api/info", &format!("\nCookie: other=1; {cookie}")), 200);
    assert_eq!(status("/web/app.js", &format!("\nCookie: {cookie}")), 200);
    assert_eq!(
        status("/api/info", &format!("\nAuthorization: Bearer {token}")),
        200
    );
    assert!(
        !page.text().contains(token.as_str()),
        "the page does not contain the token"
    );
}

#[test]
fn every_answer_forbids_other_hosts_scripts_and_frames() {
    let served = ServedStore::new(4, &[]);
    let server = &served.server;
    let refused = server.raw(&format!("GET / HTTP/1.1\nHost: 127.0.0.1:{}", server.port), b"");
    for answer in [
        server.get("/"),
        server.get("/api/info"),
        server.get("/nothing"),
        refused,
    ] {
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'")
                && !policy.contains("unsafe")
                && !policy.contains("http")
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    }
    // The files of the page name no host but that of SVG's namespace, which is a name and not an address.
    for file in [
        "",
        "web/app.js",
        "web/api.js",
        "web/style.css",
        "web/timeline.js",
        "web/overview.js",
        "web/stages.js",
        "web/rowplot.js",
        "web/plot.js",
        "web/dom.js",
    ] {
        let text = server
            .get(&format!("/{file}"))
            .text()
            .replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{file}");
        assert!(
            !text.contains("innerHTML") && !text.contains("document.write"),
            "{file}"
        );
    }
    assert!(!server.get("/").text().contains("<script>"), "no inline script");
}

#[test]
fn another_host_or_site_is_refused() {
    let served = ServedStore::new(4, &[]);
    let server = &served.server;
    let token = &server.token;
    let ask = |method: &str, host: &str, more: &str, body: &str| {
        let head = format!(
            "{method} /api/{} HTTP/1.1\nHost: {host}\nAuthorization: Bearer {token}\nContent-Type: application/json{more}",
            if method == "POST" { "save" } else { "info" }
        );
        server.raw(&head, body.as_bytes()).status
    };
    let own = format!("127.0.0.1:{}", server.port);
    assert_eq!(ask("GET", &own, "", ""), 200);
    assert_eq!(ask("GET", &format!("localhost:{}", server.port), "", ""), 200);
    for host in ["example.org", "127.0.0.1.example.org", "10.0.0.1", "x:80"] {
        assert_eq!(ask("GET", host, "", ""), 403, "{host}");
    }
    for origin in [
        "http://example.org",
        "null",
        "https://127.0.0.1",
        "http://127.0.0.1:1",
    ] {
        assert_eq!(
            ask("POST", &own, &format!("\nOrigin: {origin}"), SAVE),
            403,
            "{origin}"
        );
        assert_eq!(
            ask("GET", &own, &format!("\nOrigin: {origin}"), ""),
            403,
            "{origin}"
        );
    }
    assert_eq!(ask("GET", &own, "\nSec-Fetch-Site: cross-site", ""), 403);
    assert_eq!(ask("GET", &own, "\nSec-Fetch-Site: same-origin", ""), 200);
    // Of the own origin, only the body is at fault.
    assert_eq!(ask("POST", &own, &format!("\nOrigin: http://{own}"), SAVE), 422);
}

#[test]
fn a_cookie_alone_cannot_save() {
    let served = ServedStore::new(4, &[]);
    let server = &served.server;
    let (port, token) = (server.port, &server.token);
    let head = |origin: &str, kind: &str| {
        format!(
            "POST /api/save HTTP/1.1\nHost: 127.0.0.1:{port}\nCookie: vaplan_{port}={token}\nContent-Type: {kind}{origin}"
        )
    };
    let own = format!("\nOrigin: http://127.0.0.1:{port}");
    assert_eq!(
        server.raw(&head("", "application/json"), SAVE.as_bytes()).status,
        403
    );
    assert_eq!(
        server
            .raw(&head(&own, "application/json"), SAVE.as_bytes())
            .status,
        422
    );
    assert_eq!(server.raw(&head(&own, "text/plain"), SAVE.as_bytes()).status, 415);
}

#[test]
fn no_parameter_leads_out_of_the_store() {
    let sample = Sample::new(4);
    assert_status(&sample.label("store", &[]), 0);
    let media = sample.path("media");
    std::fs::create_dir(&media).unwrap();
    std::fs::write(media.join(format!("{}.wav", name(0))), "sound").unwrap();
    std::fs::write(sample.path("secret.wav"), "secret").unwrap();
    let server = Server::start(&sample.path("store"), &["--media", media.to_str().unwrap()]);
    let absolute = sample.path("secret.wav").display().to_string();
    let names = [
        "../secret",
        "../secret.wav",
        "..%2fsecret",
        "..\\secret",
        "media/../../secret",
        &absolute,
        "\0",
        ".",
    ];
    for bad in names {
        for path in ["/media?name=", "/api/video?name="] {
            let answer = server.get(&format!("{path}{}", quoted(bad)));
            assert_eq!(answer.status, 404, "{path}{bad}");
            assert!(!answer.text().contains("secret\n"), "{bad}");
        }
        for path in ["class", "split", "order", "modality", "rule", "differs"] {
            let answer = server.get(&format!("/api/videos?{path}={}", quoted(bad)));
            assert_eq!(answer.status, 422, "{path}={bad}");
        }
        for path in ["by", "split", "seed", "count", "version"] {
            let answer = server.get(&format!("/api/audit/sample?{path}={}", quoted(bad)));
            assert_eq!(answer.status, 422, "{path}={bad}");
        }
        let found = server.json(&format!("/api/videos?q={}", quoted(bad)));
        let none = bad != ".";
        assert!(!none || found["total"] == 0, "{bad}");
        assert_eq!(
            server.json(&format!("/api/history?name={}", quoted(bad)))["versions"],
            json!([])
        );
        let refused =
            server.save(&json!({"version": 1, "edits": [edit(bad, "audio", "Bark", (0, 1), Some(true))]}));
        assert_eq!(refused.status, 422, "{bad}");
        let refused =
            server.save(&json!({"version": 1, "edits": [edit(&name(0), "audio", bad, (0, 1), Some(true))]}));
        assert_eq!(refused.status, 422, "{bad}");
    }
    for path in [
        "/web/../secret.wav",
        "/web/..%2f..%2fsecret.wav",
        "/web/%2e%2e/Cargo.toml",
        "/../secret.wav",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.get(&format!("/media?name={}", name(0))).text(), "sound");
}

#[test]
fn ten_thousand_requests_leave_no_connection_behind() {
    let served = ServedStore::new(4, &["--read-only"]);
    let server = &served.server;
    let before = server.descriptors();
    let paths = ["/api/info", "/api/videos?order=near", "/nothing", "/web/app.js"];
    std::thread::scope(|threads| {
        for thread in 0..8_usize {
            threads.spawn(move || {
                for turn in 0..1250 {
                    let answer = server.get(paths[(thread + turn) % paths.len()]);
                    assert!([200, 404].contains(&answer.status), "{}", answer.text());
                }
            });
        }
    });
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("vaplan_requests_total 10001\n"), "{metrics}");
    let after = server.descriptors();
    // Some of the last connections may still be closing; the server has at most 64.
    assert!(after <= before + 64, "{before} descriptors became {after}");
}

#[test]
fn too_much_is_refused() {
    let served = ServedStore::new(4, &[]);
    let server = &served.server;
    let long = vec![b' '; (1 << 20) + 1];
    let answer = server.ask("POST", "/api/save", "Content-Type: application/json", &long);
    assert_eq!(answer.status, 413);
    let header = format!("X-Long: {}", "y".repeat(64 << 10));
    assert!([400, 431].contains(&server.ask("GET", "/api/info", &header, b"").status));
    assert_eq!(server.get("/api/videos?rows=201").status, 422);
    assert_eq!(server.get("/api/videos?unknown=1").status, 422);
    assert_eq!(server.ask("DELETE", "/api/save", "", b"").status, 405);
    assert_eq!(server.json("/api/info")["version"], 1, "the server goes on");
}
