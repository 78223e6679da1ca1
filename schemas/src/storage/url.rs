//! URLs of stores and inputs, without their secrets.

use std::fmt;
use std::path::{Path, PathBuf};

use object_store::path::Path as Location;

use crate::error::StoreError;

/// The schemes that name an object store, and the schemes that mean the same.
const SCHEMES: [(&str, &str); 9] = [
    ("s3", "s3"),
    ("s3a", "s3"),
    ("gs", "gs"),
    ("az", "az"),
    ("azure", "az"),
    ("abfs", "az"),
    ("abfss", "az"),
    ("file", "file"),
    ("memory", "memory"),
];

/// The URL of a folder or object: scheme, bucket (of Azure: container) and key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreUrl {
    scheme: &'static str,
    bucket: String,
    key: String,
}

impl StoreUrl {
    /// Reads a path as a URL. Returns `None` for a path of the local disk; a `file` URL is one, too, and
    /// [`local_path`](super::local_path) gives its path.
    ///
    /// # Errors
    /// Returns [`StoreError::Url`] if the scheme is unknown, the bucket is missing, or the URL has a user, a password or a
    /// query. The error does not repeat these parts, because they may be secrets.
    pub fn parse(path: &Path) -> Result<Option<StoreUrl>, StoreError> {
        let Some((scheme, rest)) = path.to_str().and_then(split) else {
            return Ok(None);
        };
        let wrong = |problem: &'static str| StoreError::Url {
            url: redacted(&path.to_string_lossy()),
            problem,
        };
        let known = SCHEMES.iter().find(|(own, _)| scheme.eq_ignore_ascii_case(own));
        let Some((_, scheme)) = known else {
            return Err(wrong("unknown scheme, expected s3, gs, az or file"));
        };
        if *scheme == "file" {
            return Ok(None);
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') || rest.contains(['?', '#']) {
            return Err(wrong(
                "a URL must not hold a user, a password, a query or a fragment: give credentials by environment variables (docs/object-stores.md)",
            ));
        }
        if bucket.is_empty() {
            return Err(wrong("no bucket, expected SCHEME://BUCKET/PREFIX"));
        }
        let names: Vec<&str> = key.split('/').filter(|name| !name.is_empty()).collect();
        if names.iter().any(|name| [".", ".."].contains(name)) {
            return Err(wrong("`.` or `..` in the key, expected the whole key"));
        }
        if rest.contains(|c: char| c.is_ascii_control()) {
            return Err(wrong("a control character, expected letters, digits and signs"));
        }
        Ok(Some(StoreUrl {
            scheme,
            bucket: bucket.to_owned(),
            key: names.join("/"),
        }))
    }

    /// `s3`, `gs`, `az` or `memory`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key without slashes at its ends; empty for the root of the bucket.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key as the object store takes it. The characters stay as they are: `From` of this type would encode some of them, and
    /// the object would have another name for every other program.
    pub(crate) fn location(&self) -> Location {
        Location::parse(&self.key).expect("a URL has no empty name, no dots and no control character")
    }

    /// The URL without its key.
    pub fn base(&self) -> String {
        format!("{}://{}", self.scheme, self.bucket)
    }

    /// The folder and the name of an object; `None` for a bucket.
    pub fn split(&self) -> Option<(StoreUrl, &str)> {
        let (folder, name) = self.key.rsplit_once('/').unwrap_or(("", &self.key));
        let folder = StoreUrl {
            key: folder.to_owned(),
            ..self.clone()
        };
        (!name.is_empty()).then_some((folder, name))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.is_empty() {
            true => f.write_str(&self.base()),
            false => write!(f, "{}/{}", self.base(), self.key),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The scheme of a URL and the text after `://`.
fn split(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme.then_some((scheme, rest))
}

/// Returns whether a path is a URL of an object store. A `file` URL is a path of the local disk.
pub fn is_url(path: &Path) -> bool {
    let scheme = path.to_str().and_then(split).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.eq_ignore_ascii_case("file"))
}

/// The path of the local disk that a `file` URL names. Any other path stays as it is.
///
/// # Errors
/// Returns [`StoreError::Url`] if the URL names another host or does not decode.
pub(crate) fn local(path: &Path) -> Result<PathBuf, StoreError> {
    let is_file = |scheme: &str| scheme.eq_ignore_ascii_case("file");
    let text = path.to_str().unwrap_or_default();
    if split(text).is_none_or(|(scheme, _)| !is_file(scheme)) {
        return Ok(path.to_owned());
    }
    let parsed = ::url::Url::parse(text).ok();
    parsed
        .and_then(|url| url.to_file_path().ok())
        .ok_or_else(|| StoreError::Url {
            url: redacted(text),
            problem: "no path of this machine, expected file:///FOLDER",
        })
}

/// A text in which no URL has a user, a password or a query.
///
/// ```
/// use vaplan_schemas::storage::redacted;
/// assert_eq!(redacted("--store=s3://me:secret@bucket/a?sig=1 --quiet"), "--store=s3://bucket/a --quiet");
/// ```
pub fn redacted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| c.is_whitespace() || "\"'`,;()<>".contains(c);
        let end = after.find(ends).unwrap_or(after.len());
        // In JSON a quote has a backslash before it, which must stay.
        let end = match after[end..].starts_with('"') && after[..end].ends_with('\\') {
            true => end - 1,
            false => end,
        };
        let (url, later) = after.split_at(end);
        let plain = url.split(['?', '#']).next().unwrap_or_default();
        let (host, path) = plain.split_at(plain.find('/').unwrap_or(plain.len()));
        // A password can hold a slash that is not encoded, so an `@` in the first part of the path counts, too.
        let host = match path
            .split('/')
            .nth(1)
            .filter(|part| part.contains('@') && host.contains(':'))
        {
            Some(_) => "",
            None => host.rsplit('@').next().unwrap_or_default(),
        };
        let path = match host.is_empty() {
            true => path.rsplit('@').next().unwrap_or_default(),
            false => path,
        };
        out.push_str(host);
        out.push_str(path);
        rest = later;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<StoreUrl>, StoreError> {
        StoreUrl::parse(Path::new(text))
    }

    #[test]
    fn urls_of_object_stores_are_told_from_paths() {
        let url = parsed("s3a://bucket//a/b/").unwrap().unwrap();
        assert_eq!((url.scheme(), url.bucket(), url.key()), ("s3", "bucket", "a/b"));
        assert_eq!(url.to_string(), "s3://bucket/a/b");
        assert_eq!(parsed("gs://bucket").unwrap().unwrap().to_string(), "gs://bucket");
        for path in ["store", "/a/b", "a:b", "C://x y", "file:///a"] {
            let other = parsed(path);
            assert!(!matches!(other, Ok(Some(_))), "{path}: {other:?}");
        }
        assert_eq!(local(Path::new("file:///a%20b/c")).unwrap(), Path::new("/a b/c"));
        assert_eq!(local(Path::new("a b")).unwrap(), Path::new("a b"));
        assert!(local(Path::new("file://host/a")).is_err());
    }

    #[test]
    fn a_key_keeps_its_characters_and_has_no_control_character() {
        for key in ["ü/ä b", "100%", "p%20q/x", "a+b&c=d", "~[x]{y}"] {
            let url = parsed(&format!("s3://bucket/{key}")).unwrap().unwrap();
            assert_eq!(url.location().as_ref(), key);
        }
        let refused = parsed("s3://bucket/a\nb").unwrap_err().to_string();
        assert!(refused.contains("a control character"), "{refused}");
    }

    #[test]
    fn secrets_in_a_url_are_refused_and_not_repeated() {
        for text in [
            "s3://me:hunter2@bucket/a",
            "az://box/a?sig=hunter2",
            "s3://me:hun/ter2@bucket/a?sig=hunter2",
        ] {
            let refused = parsed(text).unwrap_err().to_string();
            assert!(
                !refused.contains("hunter2") && !refused.contains("ter2"),
                "{refused}"
            );
        }
        assert_eq!(
            redacted("PUT https://h/a?x=1 (b://u@h/c)"),
            "PUT https://h/a (b://h/c)"
        );
        assert_eq!(
            redacted(r#"{"message":"GET \"https://me:pass@h/a?x=1\" failed"}"#),
            r#"{"message":"GET \"https://h/a\" failed"}"#
        );
        let unknown = parsed("ftp://host/a").unwrap_err().to_string();
        assert!(unknown.contains("expected s3, gs, az or file"), "{unknown}");
    }
}
