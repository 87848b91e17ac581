// SPDX-License-Identifier: Apache-2.0
//! What the source policies of a build make of its sources.

use std::collections::BTreeMap;

use polyarch_oci::Reference;
use url::Url;

use super::Frontend;
use crate::error::{BuildError, ErrorKind};
use crate::named_context::{ContextSource, NamedContext};
use crate::remote::{GitReference, GitSource, RemoteSource, WebSource, is_http};
use crate::request::{BuildRequest, Context};
use crate::source_policy::{PolicySource, SourcePolicies};

const IMAGE: &str = "docker-image://";
const LOCAL: &str = "local://";
const GIT: &str = "git://";
/// The attribute that has a repository's URL as `git` takes it.
const GIT_URL: &str = "git.fullurl";
/// The attribute that has the digest of a URL's file.
const CHECKSUM: &str = "http.checksum";

impl Frontend<'_> {
    /// Returns the image that is read in the place of one.
    pub(super) fn permitted_image(&self, reference: &Reference) -> Result<Reference, BuildError> {
        let Some(other) = evaluate_image(&self.request.policies, reference)? else {
            return Ok(reference.clone());
        };
        image_of(&other).unwrap_or_else(|| {
            let message = format!("{IMAGE}{reference} is replaced by {other}, which is no image");
            Err(BuildError::new(ErrorKind::Usage, message)
                .with_hint("let the source policy name an image, or give the image as a named context"))
        })
    }

    /// Returns what is read in the place of a named context; `None` when that is the context itself.
    pub(super) fn converted(&self, context: &NamedContext) -> Result<Option<NamedContext>, BuildError> {
        let policies = &self.request.policies;
        let other = match &context.source {
            ContextSource::Image(reference) => evaluate_image(policies, reference)?,
            ContextSource::Directory(_) | ContextSource::Distant(_) => {
                evaluate(policies, format!("{LOCAL}{}", context.name))?
            }
            ContextSource::Scratch
            | ContextSource::OciLayout { .. }
            | ContextSource::StoredLayout(_)
            | ContextSource::Git(_)
            | ContextSource::Http(_)
            | ContextSource::Built(_) => None,
        };
        let Some(other) = other else { return Ok(None) };
        let source = match (image_of(&other), other.strip_prefix(LOCAL)) {
            (Some(image), _) => ContextSource::Image(image?),
            (None, Some(name)) => {
                let label = format!("context {}", context.name);
                let directory = policies.directory(name, &label).ok_or_else(|| {
                    let message =
                        format!("the source policy names {other}, and this build has no directories by name");
                    BuildError::new(ErrorKind::Usage, message)
                })?;
                ContextSource::Distant(directory)
            }
            (None, None) => match ContextSource::parse(&other) {
                Ok(Some(source @ (ContextSource::Git(_) | ContextSource::Http(_)))) => source,
                _ => return Err(no_source(&other)),
            },
        };
        Ok(Some(NamedContext { source, ..context.clone() }))
    }

    /// Returns what is read in the place of something remote.
    pub(super) fn permitted_remote(&self, source: RemoteSource) -> Result<RemoteSource, BuildError> {
        permitted_remote(&self.request.policies, source)
    }
}

/// Returns a request whose main context is what its policies make of it; `None` when that is what it is.
pub(crate) fn permitted_context(request: &BuildRequest) -> Result<Option<BuildRequest>, BuildError> {
    let policies = &request.policies;
    if policies.is_empty() {
        return Ok(None);
    }
    let context = match request.context.whole() {
        Context::Http(url) => evaluate(policies, url.clone())?.map(|other| match is_http(&other) {
            true => Ok(Context::Http(other)),
            false => Err(no_source(&other)),
        }),
        Context::Git(url) => {
            let reference = GitReference::parse(url).ok().flatten().unwrap_or_default();
            let source = RemoteSource::Git(GitSource { reference: reference.clone(), keep_git_dir: false });
            match permitted_remote(policies, source)? {
                RemoteSource::Git(other) if other.reference != reference => {
                    Some(Ok(Context::Git(written(&other.reference))))
                }
                RemoteSource::Git(_) => None,
                RemoteSource::Web(other) => Some(Err(no_source(&other.url))),
            }
        }
        Context::Directory(_) | Context::Distant(_) => {
            evaluate(policies, format!("{LOCAL}context"))?.map(|other| Err(no_source(&other)))
        }
        Context::Archive(_) | Context::Empty | Context::Subdirectory { .. } => None,
    };
    let Some(context) = context.transpose()? else { return Ok(None) };
    let context = match &request.context {
        Context::Subdirectory { path, .. } => {
            Context::Subdirectory { of: Box::new(context), path: path.clone() }
        }
        _ => context,
    };
    Ok(Some(BuildRequest { context, ..request.clone() }))
}

fn permitted_remote(policies: &SourcePolicies, source: RemoteSource) -> Result<RemoteSource, BuildError> {
    if policies.is_empty() {
        return Ok(source);
    }
    match source {
        RemoteSource::Web(web) => {
            let checksum = web.checksum.as_ref().map(|digest| (CHECKSUM.to_owned(), digest.to_string()));
            let asked =
                PolicySource { identifier: web.url.clone(), attributes: checksum.into_iter().collect() };
            let Some(other) = policies.evaluate(&asked)? else { return Ok(RemoteSource::Web(web)) };
            if !is_http(&other.identifier) {
                return Err(no_source(&other.identifier));
            }
            let checksum = other.attributes.get(CHECKSUM).filter(|text| !text.is_empty());
            let checksum = checksum.map(|text| text.parse()).transpose().map_err(|error| {
                let error: polyarch_oci::DigestError = error;
                BuildError::from_source(ErrorKind::Usage, "the source policy's http.checksum", &error)
            })?;
            Ok(RemoteSource::Web(WebSource { url: other.identifier, checksum, ..web }))
        }
        RemoteSource::Git(git) => {
            let remote = git.reference.remote.clone();
            let asked = PolicySource {
                identifier: git_identifier(&git.reference),
                attributes: BTreeMap::from([(GIT_URL.to_owned(), remote.clone())]),
            };
            let Some(other) = policies.evaluate(&asked)? else { return Ok(RemoteSource::Git(git)) };
            let mut reference = git.reference.clone();
            if other.identifier != asked.identifier {
                let rest = other.identifier.strip_prefix(GIT).ok_or_else(|| no_source(&other.identifier))?;
                let (place, fragment) = rest.split_once('#').unwrap_or((rest, ""));
                let (name, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
                reference.remote = format!("https://{place}");
                reference.reference = Some(name.to_owned()).filter(|name| !name.is_empty());
                reference.subdirectory = Some(directory.to_owned()).filter(|name| !name.is_empty());
            }
            if let Some(url) = other.attributes.get(GIT_URL).filter(|url| **url != remote) {
                reference.remote.clone_from(url);
            }
            // It is read again: what may stand in a reference is checked there.
            match GitReference::parse(&written(&reference)) {
                Ok(Some(checked)) => {
                    let reference = GitReference {
                        remote: checked.remote,
                        reference: checked.reference,
                        subdirectory: checked.subdirectory,
                        ..git.reference
                    };
                    Ok(RemoteSource::Git(GitSource { reference, ..git }))
                }
                Ok(None) | Err(_) => Err(no_source(&other.identifier)),
            }
        }
    }
}

/// Returns the identifier of a repository: host and path, whatever the protocol, and which part is meant.
fn git_identifier(reference: &GitReference) -> String {
    let place = match (Url::parse(&reference.remote), reference.remote.split_once(':')) {
        (Ok(url), _) if url.has_host() => format!("{}{}", url.host_str().unwrap_or_default(), url.path()),
        (_, Some((host, path))) => {
            let host = host.rsplit('@').next().unwrap_or(host);
            format!("{host}/{}", path.trim_start_matches('/'))
        }
        (_, None) => reference.remote.clone(),
    };
    format!("{GIT}{place}{}", fragment(reference))
}

/// Writes a reference the way that it can be read.
fn written(reference: &GitReference) -> String {
    format!("{}{}", reference.remote, fragment(reference))
}

fn fragment(reference: &GitReference) -> String {
    match (&reference.reference, &reference.subdirectory) {
        (None, None) => String::new(),
        (name, None) => format!("#{}", name.as_deref().unwrap_or_default()),
        (name, Some(directory)) => format!("#{}:{directory}", name.as_deref().unwrap_or_default()),
    }
}

fn evaluate_image(policies: &SourcePolicies, reference: &Reference) -> Result<Option<String>, BuildError> {
    evaluate(policies, format!("{IMAGE}{}", reference.clone().with_default_tag()))
}

fn evaluate(policies: &SourcePolicies, identifier: String) -> Result<Option<String>, BuildError> {
    let asked = PolicySource { identifier, attributes: BTreeMap::new() };
    let other = policies.evaluate(&asked)?;
    Ok(other.map(|other| other.identifier).filter(|identifier| *identifier != asked.identifier))
}

/// Reads the name of an image; `None` when the identifier is of something else.
fn image_of(identifier: &str) -> Option<Result<Reference, BuildError>> {
    let name = identifier.strip_prefix(IMAGE)?;
    Some(name.parse::<Reference>().map(Reference::with_default_tag).map_err(|error| {
        BuildError::from_source(ErrorKind::Usage, format!("the source policy names {identifier}"), &error)
    }))
}

fn no_source(identifier: &str) -> BuildError {
    let message = format!("the source policy names {identifier}, which can't be read in this place");
    BuildError::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(identifier: &str, updates: &str) -> SourcePolicies {
        let rule = format!(
            r#"{{"rules": [{{"action": "CONVERT", "selector": {{"identifier": "{identifier}"}}, "updates": {updates}}}]}}"#
        );
        SourcePolicies::parse(rule.as_bytes()).unwrap()
    }

    fn git(text: &str) -> RemoteSource {
        let reference = GitReference::parse(text).unwrap().unwrap();
        RemoteSource::Git(GitSource { reference, keep_git_dir: false })
    }

    #[test]
    fn repositories_are_one_whatever_the_protocol() {
        for text in [
            "https://example.com/a/b.git#v1:sub",
            "ssh://git@example.com/a/b.git#v1:sub",
            "git@example.com:a/b.git#v1:sub",
        ] {
            let RemoteSource::Git(source) = git(text) else { panic!() };
            assert_eq!(git_identifier(&source.reference), "git://example.com/a/b.git#v1:sub", "{text}");
        }
        let rules = policies("git://example.com/*", r#"{"identifier": "git://mirror.example/$1"}"#);
        let RemoteSource::Git(other) = permitted_remote(&rules, git("git@example.com:a/b.git#v1")).unwrap()
        else {
            panic!()
        };
        assert_eq!(other.reference.remote, "https://mirror.example/a/b.git");
        assert_eq!(other.reference.reference.as_deref(), Some("v1"));
    }

    #[test]
    fn a_url_gets_a_checksum_and_no_other_scheme() {
        let web = || RemoteSource::Web(WebSource::of_add("https://example.com/a", None));
        let digest = format!("sha256:{}", "0".repeat(64));
        let rules =
            policies("https://example.com/a", &format!(r#"{{"attrs": {{"http.checksum": "{digest}"}}}}"#));
        let RemoteSource::Web(other) = permitted_remote(&rules, web()).unwrap() else { panic!() };
        assert_eq!(other.checksum.map(|it| it.to_string()), Some(digest));
        let rules = policies("https://*", r#"{"identifier": "local://secret"}"#);
        assert!(permitted_remote(&rules, web()).is_err());
    }
}
