// SPDX-License-Identifier: Apache-2.0
//! Sources of LLB: what comes from the client comes here at once, everything else when it is needed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyarch_build::BuildError;
use polyarch_build::definition::VertexKind;
use polyarch_build::request::PullPolicy;
use polyarch_build::source_policy::{PolicySource, SourcePolicies};
use polyarch_oci::{Digest, Reference};

use super::SCHEME;
use crate::api::llb::SourceOp;
use crate::caller::{CallerError, ClientSession, KeptDirectories, KeptDirectory, ReceiveRequest, Received};
use crate::server::Server;
use crate::server::attributes::wrong;
use crate::server::builds::Build;
use crate::server::layouts::{copy_image, without_tag};

/// How long the session of a source is waited for.
const SESSION_PATIENCE: Duration = Duration::from_secs(5);
/// The largest file that a client uploads, in bytes.
const MAX_UPLOAD_BYTES: u64 = 64 << 30;
/// The most files that a client uploads for a build.
const MAX_UPLOADS: usize = 100;
/// The most patterns of a directory.
const MAX_PATTERNS: usize = 10_000;

/// The sources of one definition; what came from the client is there as long as this lives.
pub(in crate::server) struct Sources<'a> {
    server: &'a Server,
    build: &'a Arc<Build>,
    policies: SourcePolicies,
    directories: Vec<KeptDirectory>,
}

impl<'a> Sources<'a> {
    /// # Errors
    /// When the build's source policy is malformed.
    pub(in crate::server) fn new(
        server: &'a Server,
        build: &'a Arc<Build>,
    ) -> Result<Sources<'a>, BuildError> {
        let policies = match &build.request.source_policy {
            None => SourcePolicies::default(),
            Some(message) => SourcePolicies::new(&[crate::policy::read(message)?])?,
        };
        Ok(Sources { server, build, policies, directories: Vec::new() })
    }

    /// Returns what the build's source policy makes of a source.
    pub(in crate::server) fn permitted<'b>(&self, op: &'b SourceOp) -> Result<Cow<'b, SourceOp>, BuildError> {
        if self.policies.is_empty() || op.identifier.starts_with(SCHEME) {
            return Ok(Cow::Borrowed(op));
        }
        let asked = PolicySource { identifier: op.identifier.clone(), attributes: op.attrs.clone() };
        Ok(match self.policies.evaluate(&asked)? {
            // A rule makes no result of another client's build out of a source.
            Some(other) if other.identifier.starts_with(SCHEME) => {
                return Err(wrong(format!("the source policy names {}", other.identifier)));
            }
            Some(other) => Cow::Owned(SourceOp { identifier: other.identifier, attrs: other.attributes }),
            None => Cow::Borrowed(op),
        })
    }

    /// Converts a source; `digest` is that of its vertex.
    pub(in crate::server) async fn source(
        &mut self,
        op: &SourceOp,
        digest: &str,
        shown: &str,
    ) -> Result<VertexKind, BuildError> {
        let op = &*self.permitted(op)?;
        let (scheme, rest) = op
            .identifier
            .split_once("://")
            .ok_or_else(|| wrong(format!("failed to parse source identifier {:?}", op.identifier)))?;
        let attributes = Attributes(&op.attrs);
        match scheme {
            "docker-image" => image(rest, &attributes),
            "local" => self.local(rest, digest, shown, &attributes).await,
            "git" => git(rest, &attributes),
            "http" | "https" if rest.starts_with("buildkit-session/") => {
                self.upload(&op.identifier, digest, &attributes).await
            }
            "http" | "https" => http(&op.identifier, &attributes),
            "oci-layout" => Ok(VertexKind::Layout { reference: self.bring_layout(rest, &op.attrs).await? }),
            _ if op.identifier.starts_with(SCHEME) => {
                let tree = self.server.0.builds.result(rest);
                let tree = tree.map_err(|status| wrong(status.message()))?;
                let built = tree.evaluation.evaluated.built_tree(tree.platform);
                let built = built.ok_or_else(|| wrong("the result of another build has no tree"))?;
                Ok(VertexKind::Built(Box::new(built)))
            }
            _ => Err(wrong(format!("sources of the scheme {scheme} are not supported by this builder"))),
        }
    }

    async fn session(&self, id: Option<&str>) -> Result<ClientSession, CallerError> {
        match (id, &self.build.session) {
            (Some(id), Some(session)) if session.id() != id => {
                self.server.0.sessions.find(id, SESSION_PATIENCE).await
            }
            (Some(id), None) => self.server.0.sessions.find(id, SESSION_PATIENCE).await,
            (_, Some(session)) => Ok(session.clone()),
            (None, None) => Err(CallerError::NoSession { id: self.build.request.session.clone() }),
        }
    }

    /// Brings a directory of the client's here.
    async fn local(
        &mut self,
        name: &str,
        digest: &str,
        shown: &str,
        attributes: &Attributes<'_>,
    ) -> Result<VertexKind, BuildError> {
        let request = ReceiveRequest {
            name: name.to_owned(),
            include: attributes.list("local.includepattern")?,
            exclude: attributes.list("local.excludepatterns")?,
            follow_paths: attributes.list("local.followpaths")?,
        };
        let session = self.session(attributes.get("local.session")).await?;
        let kept = KeptDirectories::new(&self.build.services.root().join("contexts"));
        let hint = attributes.get("local.sharedkeyhint").unwrap_or(name);
        let kept = kept.lease(&session, &format!("local {hint} {request:?}"))?;
        let vertex = self.build.progress().begin(digest, shown);
        let status = Mutex::new(vertex.status(format!("transferring {name}:"), 0));
        let told = Arc::new(status);
        let so_far = told.clone();
        let progress = move |received: Received| {
            so_far.lock().unwrap_or_else(PoisonError::into_inner).update(received.bytes);
        };
        let received = session.receive_directory(&request, &kept, progress).await;
        if let Ok(received) = &received {
            told.lock().unwrap_or_else(PoisonError::into_inner).update(received.bytes);
        }
        drop(told);
        match received {
            Ok(_) => vertex.done(),
            Err(error) => {
                vertex.failed(&error);
                return Err(error.into());
            }
        }
        let path = kept.path().to_owned();
        self.directories.push(kept);
        Ok(VertexKind::Directory { name: format!("{name} {digest}"), local: name.to_owned(), path })
    }

    /// Takes a file that the client sends through its session; it does so once, and the build keeps it.
    async fn upload(
        &self,
        url: &str,
        digest: &str,
        attributes: &Attributes<'_>,
    ) -> Result<VertexKind, BuildError> {
        let session = self.session(None).await?;
        let name = attributes.get("http.filename").unwrap_or("context");
        if name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(wrong(format!("{name:?} can't be the name of a file")));
        }
        let mut uploads = self.build.uploads.lock().await;
        let key = format!("{name} {url}");
        if !uploads.contains_key(&key) {
            if uploads.len() >= MAX_UPLOADS {
                return Err(wrong(format!("a build takes at most {MAX_UPLOADS} uploads")));
            }
            let directory = self.build.services.scratch()?;
            session.upload(url, &directory.path().join(name), MAX_UPLOAD_BYTES).await?;
            uploads.insert(key.clone(), directory);
        }
        let path = uploads.get(&key).map(|directory| directory.path().to_owned()).unwrap_or_default();
        Ok(VertexKind::Directory { name: format!("upload {digest}"), local: name.to_owned(), path })
    }

    /// Brings an image of a layout of the client's here.
    pub(in crate::server) async fn bring_layout(
        &self,
        rest: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<Reference, BuildError> {
        let attributes = Attributes(attributes);
        let reference: Reference = rest.parse().map_err(|error: polyarch_oci::ReferenceError| {
            wrong(format!("could not parse oci-layout reference {rest:?}: {error}"))
        })?;
        let digest = reference.digest().cloned();
        let digest = digest.ok_or_else(|| wrong(format!("oci-layout reference {rest:?} needs a digest")))?;
        let session = self.session(attributes.get("oci.session")).await?;
        let store = attributes.get("oci.store").unwrap_or_default();
        let store = format!("oci:{}", without_tag(store));
        copy_image(&session, &store, &digest, &self.build.services).await?;
        Ok(reference)
    }
}

/// The attributes of a source.
struct Attributes<'a>(&'a BTreeMap<String, String>);

impl Attributes<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Reads a list of texts, which is JSON.
    fn list(&self, key: &str) -> Result<Vec<String>, BuildError> {
        let Some(text) = self.get(key) else { return Ok(Vec::new()) };
        let list: Option<Vec<String>> =
            serde_json::from_str(text).map_err(|error| wrong(format!("failed to parse {key}: {error}")))?;
        let list = list.unwrap_or_default();
        match list.len() <= MAX_PATTERNS && !list.iter().any(|text| text.contains('\0')) {
            true => Ok(list),
            false => Err(wrong(format!("{key} has more than {MAX_PATTERNS} patterns, or a zero byte"))),
        }
    }

    fn is_true(&self, key: &str) -> bool {
        self.get(key) == Some("true")
    }

    fn digest(&self, key: &str) -> Result<Option<Digest>, BuildError> {
        let parse = |text: &str| text.parse().map_err(|_| wrong(format!("{key}: invalid digest {text}")));
        self.get(key).map(parse).transpose()
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, BuildError> {
        let parse = |text: &str| text.parse().map_err(|_| wrong(format!("{key}: invalid number {text:?}")));
        self.get(key).map(parse).transpose()
    }
}

fn image(name: &str, attributes: &Attributes<'_>) -> Result<VertexKind, BuildError> {
    let reference: Reference = name.parse().map_err(|error: polyarch_oci::ReferenceError| {
        wrong(format!("could not parse image reference {name:?}: {error}"))
    })?;
    Ok(VertexKind::Image {
        reference: reference.with_default_tag(),
        pull: match attributes.get("image.resolvemode") {
            None | Some("default" | "local") => PullPolicy::Default,
            Some("pull") => PullPolicy::Always,
            Some(mode) => return Err(wrong(format!("unsupported image resolvemode: {mode}"))),
        },
        checksum: attributes.digest("image.checksum")?,
        layer_limit: attributes.number("image.layerlimit")?,
    })
}

/// Reads `HOST/PATH[#REFERENCE[:DIRECTORY]]`; the whole URL is an attribute where the client tells it.
fn git(rest: &str, attributes: &Attributes<'_>) -> Result<VertexKind, BuildError> {
    for key in ["git.bundle", "git.checkoutbundle", "git.sig.pubkey"] {
        if attributes.get(key).is_some() {
            return Err(wrong(format!("{key} of git sources is not supported by this builder")));
        }
    }
    let (place, part) = match rest.split_once('#') {
        Some((place, part)) => (place, Some(part)),
        None => (rest, None),
    };
    let remote = match attributes.get("git.fullurl") {
        Some(url) => url.split('#').next().unwrap_or(url).to_owned(),
        None => format!("https://{place}"),
    };
    let mut query = Vec::new();
    if attributes.get("git.mtime") == Some("commit") {
        query.push("mtime=commit");
    }
    if attributes.is_true("git.fetchbycommit") {
        query.push("fetch-by-commit=true");
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let part = part.map(|part| format!("#{part}")).unwrap_or_default();
    Ok(VertexKind::Git {
        url: format!("{remote}{query}{part}"),
        keep_git_dir: attributes.is_true("git.keepgitdir"),
        checksum: attributes.get("git.checksum").map(str::to_owned),
        skips_submodules: attributes.is_true("git.skipsubmodules"),
    })
}

fn http(url: &str, attributes: &Attributes<'_>) -> Result<VertexKind, BuildError> {
    for key in attributes.0.keys() {
        if key.starts_with("http.header.") || key.starts_with("http.sig.") {
            return Err(wrong(format!("{key} of downloads is not supported by this builder")));
        }
    }
    // Numbers of a mode are written as in Go: 0600 is octal.
    let mode = attributes.get("http.perm").map(|text| match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal.trim_start_matches('o'), 8),
        _ => text.parse(),
    });
    let mode = mode.transpose().map_err(|_| wrong("http.perm: invalid mode"))?;
    let (uid, gid) = (attributes.number("http.uid")?, attributes.number("http.gid")?);
    Ok(VertexKind::Http {
        url: url.to_owned(),
        file_name: attributes.get("http.filename").map(str::to_owned),
        checksum: attributes.digest("http.checksum")?,
        mode,
        owner: (uid.is_some() || gid.is_some()).then(|| (uid.unwrap_or(0), gid.unwrap_or(0))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn git_sources_name_their_part() {
        let pairs = attributes(&[("git.fullurl", "ssh://git@example.com/a"), ("git.keepgitdir", "true")]);
        let kind = git("example.com/a#v1:dir", &Attributes(&pairs)).unwrap();
        let VertexKind::Git { url, keep_git_dir, .. } = kind else { panic!("not git") };
        assert_eq!((url.as_str(), keep_git_dir), ("ssh://git@example.com/a#v1:dir", true));
        let pairs = attributes(&[("git.mtime", "commit")]);
        let VertexKind::Git { url, .. } = git("example.com/a.git", &Attributes(&pairs)).unwrap() else {
            panic!("not git")
        };
        assert_eq!(url, "https://example.com/a.git?mtime=commit");
        let bundle = attributes(&[("git.bundle", "x")]);
        assert!(git("example.com/a.git", &Attributes(&bundle)).is_err());
    }

    #[test]
    fn downloads_have_permissions() {
        let pairs = attributes(&[("http.perm", "0644"), ("http.uid", "7"), ("http.filename", "f")]);
        let VertexKind::Http { mode, owner, file_name, .. } =
            http("https://h/f", &Attributes(&pairs)).unwrap()
        else {
            panic!("not a download")
        };
        assert_eq!((mode, owner, file_name.as_deref()), (Some(0o644), Some((7, 0)), Some("f")));
        for (key, value) in [("http.perm", "rw"), ("http.checksum", "x"), ("http.header.accept", "a")] {
            assert!(http("https://h/f", &Attributes(&attributes(&[(key, value)]))).is_err(), "{key}");
        }
    }

    #[test]
    fn images_are_asked_for_as_told() {
        let pairs = attributes(&[("image.resolvemode", "pull"), ("image.layerlimit", "2")]);
        let VertexKind::Image { reference, pull, layer_limit, .. } =
            image("docker.io/library/a", &Attributes(&pairs)).unwrap()
        else {
            panic!("not an image")
        };
        assert_eq!(reference.familiar(), "a:latest");
        assert_eq!((pull, layer_limit), (PullPolicy::Always, Some(2)));
        assert!(image("Not A Name", &Attributes(&BTreeMap::new())).is_err());
        let never = attributes(&[("image.resolvemode", "never")]);
        assert!(image("a", &Attributes(&never)).is_err());
    }

    #[test]
    fn patterns_are_lists() {
        let pairs = attributes(&[("a", "[\"x\",\"y\"]"), ("b", "x"), ("c", "null"), ("d", "[\"\\u0000\"]")]);
        let pairs = Attributes(&pairs);
        assert_eq!(pairs.list("a").unwrap(), ["x", "y"]);
        assert!(pairs.list("b").is_err());
        assert!(pairs.list("c").unwrap().is_empty() && pairs.list("none").unwrap().is_empty());
        assert!(pairs.list("d").is_err());
    }
}
