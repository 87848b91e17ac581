// SPDX-License-Identifier: Apache-2.0
//! Addresses: what a path of a request means (distribution-spec, "Endpoints").

use http::StatusCode;
use polyarch_oci::Digest;

use super::api_error::{ApiError, Code};
use super::names::{ManifestName, RepositoryName, Tag};
use crate::api::one_line;

/// The longest path that is looked at, in bytes.
const MAX_PATH_BYTES: usize = 2048;
/// The longest query, in bytes: many tags at 128 bytes each.
const MAX_QUERY_BYTES: usize = 16 << 10;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Route {
    /// `/v2/`: is this a registry?
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/healthz`
    Health,
    /// `/metrics`
    Metrics,
    /// `/v2/NAME/tags/list`
    Tags(RepositoryName),
    /// `/v2/NAME/manifests/TAG-OR-DIGEST`
    Manifest(RepositoryName, ManifestName),
    /// `/v2/NAME/blobs/DIGEST`
    Blob(RepositoryName, Digest),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(RepositoryName),
    /// `/v2/NAME/blobs/uploads/ID`
    Upload(RepositoryName, String),
    /// `/v2/NAME/referrers/DIGEST`
    Referrers(RepositoryName, Digest),
}

impl Route {
    /// Reads a path.
    pub(super) fn parse(path: &str) -> Result<Route, ApiError> {
        match path {
            "/v2" | "/v2/" => return Ok(Route::Base),
            "/v2/_catalog" => return Ok(Route::Catalog),
            "/healthz" => return Ok(Route::Health),
            "/metrics" => return Ok(Route::Metrics),
            _ => {}
        }
        let rest = path.strip_prefix("/v2/").ok_or_else(not_found)?;
        if path.len() > MAX_PATH_BYTES {
            return Err(ApiError::new(
                StatusCode::URI_TOO_LONG,
                Code::NameInvalid,
                format!("the address is longer than {MAX_PATH_BYTES} bytes"),
            ));
        }
        let rest = decode(rest).ok_or_else(not_found)?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Route::Tags(repository(name)?));
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Ok(Route::Uploads(repository(name)?));
        }
        let (rest, last) = rest.rsplit_once('/').ok_or_else(not_found)?;
        if let Some(name) = rest.strip_suffix("/manifests") {
            return Ok(Route::Manifest(repository(name)?, manifest_name(last)?));
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Route::Upload(repository(name)?, last.to_owned()));
        }
        if let Some(name) = rest.strip_suffix("/blobs") {
            return Ok(Route::Blob(repository(name)?, digest(last)?));
        }
        if let Some(name) = rest.strip_suffix("/referrers") {
            return Ok(Route::Referrers(repository(name)?, digest(last)?));
        }
        Err(not_found())
    }

    /// Returns the repository that is meant, when one is.
    pub(super) fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Route::Base | Route::Catalog | Route::Health | Route::Metrics => None,
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => Some(name),
        }
    }
}

impl Route {
    /// Puts another repository in the place of the one that is meant.
    pub(super) fn rename(&mut self, to: &RepositoryName) {
        match self {
            Route::Base | Route::Catalog | Route::Health | Route::Metrics => {}
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => name.clone_from(to),
        }
    }
}

/// The parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Result<Query, ApiError> {
        let query = query.unwrap_or_default();
        if query.len() > MAX_QUERY_BYTES {
            return Err(ApiError::new(
                StatusCode::URI_TOO_LONG,
                Code::Unsupported,
                format!("the parameters are longer than {MAX_QUERY_BYTES} bytes; send fewer tags at a time"),
            ));
        }
        Ok(Query(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }

    /// Returns a parameter's first value.
    pub(super) fn get(&self, name: &'static str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns all values of a parameter.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns a parameter that is a digest.
    pub(super) fn digest(&self, name: &'static str) -> Result<Option<Digest>, ApiError> {
        self.get(name).map(digest).transpose()
    }
}

fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        Code::Unsupported,
        "there is nothing at this address; the API begins at /v2/",
    )
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|_| ApiError::digest_invalid(text))
}

/// Checks the name of a repository.
pub(super) fn repository(text: &str) -> Result<RepositoryName, ApiError> {
    RepositoryName::new(text).ok_or_else(|| {
        let shown = one_line(text, 150);
        ApiError::new(
            StatusCode::BAD_REQUEST,
            Code::NameInvalid,
            format!(
                "{shown:?} is not a name of a repository: lower-case letters and digits, joined by `.`, `_`, `__` or \
                 `-`, in parts separated by `/`, at most 255 bytes"
            ),
        )
    })
}

fn manifest_name(text: &str) -> Result<ManifestName, ApiError> {
    if text.contains(':') {
        return digest(text).map(ManifestName::Digest);
    }
    tag(text).map(ManifestName::Tag)
}

/// Checks a tag.
pub(super) fn tag(text: &str) -> Result<Tag, ApiError> {
    Tag::new(text).ok_or_else(|| {
        let shown = one_line(text, 150);
        ApiError::new(
            StatusCode::BAD_REQUEST,
            Code::ManifestInvalid,
            format!("{shown:?} is not a tag: letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`, at most 128"),
        )
    })
}

/// Undoes percent-encoding (RFC 3986, 2.1); `None` when it is none, or no text.
pub(super) fn decode(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::new(text).unwrap()
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let digest = Digest::of("x");
        let tag = |text: &str| ManifestName::Tag(Tag::new(text).unwrap());
        let encoded = digest.to_string().replace(':', "%3a");
        for (path, route) in [
            ("/v2/".to_owned(), Route::Base),
            ("/v2/a/b/manifests/v1".to_owned(), Route::Manifest(name("a/b"), tag("v1"))),
            (
                format!("/v2/a/manifests/{encoded}"),
                Route::Manifest(name("a"), ManifestName::Digest(digest.clone())),
            ),
            (format!("/v2/a/blobs/{digest}"), Route::Blob(name("a"), digest.clone())),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads/77".to_owned(), Route::Upload(name("a"), "77".to_owned())),
            ("/v2/manifests/blobs/uploads/".to_owned(), Route::Uploads(name("manifests"))),
            (
                "/v2/a/blobs/uploads/manifests/b".to_owned(),
                Route::Manifest(name("a/blobs/uploads"), tag("b")),
            ),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            (format!("/v2/a/referrers/{digest}"), Route::Referrers(name("a"), digest.clone())),
        ] {
            assert_eq!(Route::parse(&path).unwrap(), route, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_of_the_api_is_refused() {
        let long = format!("/v2/{}/tags/list", "a/".repeat(2000));
        for path in [
            "/",
            "/v1/",
            "/v2/x",
            "/v2/../../etc/passwd/manifests/x",
            "/v2/a/%2e%2e/b/manifests/x",
            "/v2/a%2f..%2fb/blobs/uploads/",
            "/v2/a/manifests/..",
            "/v2/a/manifests/%zz",
            "/v2/a/blobs/sha256:..%2f..%2fx",
            "/v2/a/blobs/md5:00",
            "/v2/A/tags/list",
            "/v2//tags/list",
            &long,
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }
}
