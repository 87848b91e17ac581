// SPDX-License-Identifier: Apache-2.0
//! Addresses of the page: a repository's is its name, a tag's `NAME:TAG`, as in the names of images.

use http::{Method, Request};
use hyper::body::Incoming;
use polyarch_oci::Digest;

use super::assets;
use crate::server::names::{ManifestName, RepositoryName, Tag};
use crate::server::route::decode;

/// Where repositories are whose names mean something else to the server, such as `v2`.
const ESCAPE: &str = "/-/repository/";
/// The longest path that is looked at, in bytes.
const MAX_PATH_BYTES: usize = 1024;

/// What a browser asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Address {
    /// The repositories.
    Home,
    /// A style, a script, an icon.
    Asset,
    /// A repository's tags, or a comparison in it.
    Repository(RepositoryName),
    /// A tag or a digest.
    Image(RepositoryName, ManifestName),
}

impl Address {
    /// Reads a path; `None` for one where nothing can be.
    pub(super) fn parse(path: &str) -> Option<Address> {
        if path == "/" {
            return Some(Address::Home);
        }
        if path.starts_with(assets::PREFIX) {
            return Some(Address::Asset);
        }
        if path.len() > MAX_PATH_BYTES {
            return None;
        }
        let path = decode(path)?;
        let rest = path.strip_prefix(ESCAPE).or_else(|| path.strip_prefix('/'))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some((name, digest)) = rest.split_once('@') {
            let digest: Digest = digest.parse().ok()?;
            return Some(Address::Image(RepositoryName::new(name)?, ManifestName::Digest(digest)));
        }
        if let Some((name, tag)) = rest.split_once(':') {
            return Some(Address::Image(RepositoryName::new(name)?, ManifestName::Tag(Tag::new(tag)?)));
        }
        RepositoryName::new(rest).map(Address::Repository)
    }
}

/// Tells whether a request is for the page, and not for the API.
pub(super) fn is_page(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    matches!(*request.method(), Method::GET | Method::HEAD) && path.starts_with('/') && !is_api(path)
}

fn is_api(path: &str) -> bool {
    matches!(path, "/v2" | "/healthz" | "/metrics") || path.starts_with("/v2/")
}

/// Returns the path of a repository.
pub(super) fn repository_path(name: &RepositoryName) -> String {
    let path = format!("/{name}");
    if is_api(&path) { format!("{ESCAPE}{name}") } else { path }
}

/// Returns the path of a tag.
pub(super) fn tag_path(name: &RepositoryName, tag: &Tag) -> String {
    let path = format!("/{name}:{tag}");
    if is_api(&path) { format!("{ESCAPE}{name}:{tag}") } else { path }
}

/// Returns the path of a manifest.
pub(super) fn digest_path(name: &RepositoryName, digest: &Digest) -> String {
    let path = format!("/{name}@{digest}");
    if is_api(&path) { format!("{ESCAPE}{name}@{digest}") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::new(text).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (tag, digest) = (Tag::new("v1").unwrap(), Digest::of("x"));
        for repository in ["a", "a/b", "v2", "v2/a", "metrics", "healthz"].map(name) {
            let path = repository_path(&repository);
            assert!(!is_api(&path), "{path}");
            assert_eq!(Address::parse(&path), Some(Address::Repository(repository.clone())));
            let path = tag_path(&repository, &tag);
            assert!(!is_api(&path), "{path}");
            let image = Address::Image(repository.clone(), ManifestName::Tag(tag.clone()));
            assert_eq!(Address::parse(&path), Some(image));
            let path = digest_path(&repository, &digest);
            assert!(!is_api(&path), "{path}");
            let image = Address::Image(repository.clone(), ManifestName::Digest(digest.clone()));
            assert_eq!(Address::parse(&path), Some(image));
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for path in
            ["/A", "//", "/a//b", "/../etc", "/%2e%2e/x", "/a:", "/a:b:c", "/a@sha256:0", "/a%zz", "/-/x"]
        {
            assert_eq!(Address::parse(path), None, "{path}");
        }
        assert_eq!(Address::parse("/%61:b/"), Address::parse("/a:b"));
    }
}
