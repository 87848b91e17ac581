// SPDX-License-Identifier: Apache-2.0
//! A file of a web server: asked for by its ETag, kept by its digest.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use polyarch_oci::{Algorithm, Digest, Hasher};
use polyarch_registry::{WebAnswer, WebFile};
use polyarch_solver::progress::Progress;
use polyarch_solver::{CacheKey, KeyHasher};
use serde::{Deserialize, Serialize};
use url::Url;

use super::redaction::redacted;
use crate::definition::WebFacts;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking, registry_error};
use crate::provenance::Material;
use crate::services::Services;
use crate::source_time::newest;
use crate::tree::Tree;

/// The largest file that is fetched, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// The namespace of records of what servers said about their files.
const WEB_FILES: &str = "web-files";

/// A file of a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebSource {
    /// Where it is.
    pub(crate) url: String,
    /// The name that it gets.
    pub(crate) file_name: String,
    /// The digest that it must have.
    pub(crate) checksum: Option<Digest>,
}

/// What a server said about a file.
#[derive(Serialize, Deserialize)]
struct Told {
    etag: String,
    tree: String,
    digest: Digest,
}

/// A file that was fetched.
struct Fetched {
    digest: Digest,
    modified: Option<SystemTime>,
    etag: Option<String>,
}

impl WebSource {
    /// Makes the source that ADD means by a URL.
    pub(crate) fn of_add(url: &str, checksum: Option<Digest>) -> WebSource {
        let path = Url::parse(url).map(|url| url.path().to_owned()).unwrap_or_default();
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = percent_decoded(name);
        let is_usable = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        let file_name = if is_usable { name } else { "__unnamed__".to_owned() };
        WebSource { url: url.to_owned(), file_name, checksum }
    }

    pub(super) fn key_parts(&self) -> Vec<String> {
        let checksum = self.checksum.as_ref().map(ToString::to_string).unwrap_or_default();
        vec!["web".to_owned(), self.url.clone(), self.file_name.clone(), checksum]
    }

    /// Names the file by what it was found to be.
    pub(super) fn material(&self, digest: Digest) -> Material {
        Material::Http { url: self.url.clone(), digest }
    }

    /// Returns the tree of the file, and the file's digest.
    pub(super) async fn tree(&self, services: &Arc<Services>) -> Result<(Tree, Digest), BuildError> {
        // What has a digest can't change: nobody has to be asked.
        let checked =
            self.checksum.as_ref().map(|_| KeyHasher::new("web checked").parts(self.key_parts()).finish());
        if let Some(tree) = checked.as_ref().and_then(|key| services.recorded_tree(key))
            && let Some(digest) = &self.checksum
        {
            return Ok((tree, digest.clone()));
        }
        let url = self.parsed()?;
        let asked = KeyHasher::new("web file").parts([&self.url, &self.file_name]).finish().hex();
        let known = services.store.get_record(WEB_FILES, &asked).ok().flatten();
        let known = known.and_then(|bytes| serde_json::from_slice::<Told>(&bytes).ok());
        let known = known.and_then(|told| {
            let tree = services.recorded_tree(&CacheKey::from_hex(&told.tree)?)?;
            Some((told.etag, tree, told.digest))
        });
        let known = known.filter(|_| self.checksum.is_none());
        let etag = known.as_ref().map(|(etag, ..)| etag.as_str());
        let mut file = match (self.ask(services, &url, etag).await?, known) {
            (WebAnswer::NotModified, Some((_, tree, digest))) => return Ok((tree, digest)),
            // Only what was asked with an ETag is answered so.
            (WebAnswer::NotModified, None) => return Err(self.failure("invalid not-modified answer")),
            (WebAnswer::File(file), _) => file,
        };
        let scratch = services.scratch()?;
        let path = scratch.path().join(&self.file_name);
        let fetched = self.save(&mut file, &path).await?;
        let modified = fetched.modified.map_or(0, seconds);
        let key = KeyHasher::new("web tree")
            .part(&self.file_name)
            .part(fetched.digest.to_string())
            .part(modified.to_string())
            .finish();
        let tree = match services.recorded_tree(&key) {
            Some(tree) => tree,
            None => services.tree_of_directory(scratch.path()).await?,
        };
        let description = format!("ADD {}", redacted(&self.url));
        services.record_tree(&key, &tree, &description);
        if let Some(checked) = checked {
            services.record_tree(&checked, &tree, &description);
        }
        if let Some(etag) = fetched.etag
            && let Ok(bytes) =
                serde_json::to_vec(&Told { etag, tree: key.hex(), digest: fetched.digest.clone() })
        {
            // Only a saving for the next build.
            let _ = services.store.put_record(WEB_FILES, &asked, &bytes);
        }
        Ok((tree, fetched.digest))
    }

    fn parsed(&self) -> Result<Url, BuildError> {
        Url::parse(&self.url).map_err(|error| self.failure(&format!("it is not a URL ({error})")))
    }

    async fn ask(&self, services: &Services, url: &Url, etag: Option<&str>) -> Result<WebAnswer, BuildError> {
        let asked = services.registry.get_file(url, etag).await;
        asked.map_err(|error| registry_error(format!("can't fetch {}", redacted(&self.url)), &error))
    }

    /// Writes the file as only root may read it, with the time that the server tells.
    async fn save(&self, file: &mut WebFile, path: &Path) -> Result<Fetched, BuildError> {
        let writing = |error: std::io::Error| BuildError::io("can't write", path, &error);
        let algorithm = self.checksum.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = Hasher::new(algorithm);
        let mut out = std::fs::File::create_new(path).map_err(writing)?;
        let mut size = 0_u64;
        let reading = |error| registry_error(format!("can't fetch {}", redacted(&self.url)), &error);
        while let Some(chunk) = file.chunk().await.map_err(reading)? {
            size = size.saturating_add(chunk.len() as u64);
            if size > MAX_FILE_BYTES {
                return Err(self.failure(&format!("it is larger than {} GiB", MAX_FILE_BYTES >> 30)));
            }
            hasher.update(&chunk);
            out.write_all(&chunk).map_err(writing)?;
        }
        if let Some(said) = file.size_bytes.filter(|said| *said != size) {
            return Err(self.failure(&format!("{size} bytes came where the server announced {said}")));
        }
        let digest = hasher.finish();
        if let Some(expected) = self.checksum.as_ref().filter(|expected| **expected != digest) {
            let message =
                format!("digest mismatch for {}: {digest} (expected: {expected})", redacted(&self.url));
            return Err(BuildError::new(ErrorKind::Registry, message));
        }
        let modified = file.last_modified.as_deref().and_then(parse_time);
        out.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(writing)?;
        out.set_modified(modified.unwrap_or(UNIX_EPOCH)).map_err(writing)?;
        Ok(Fetched { digest, modified, etag: file.etag.clone() })
    }

    /// Returns when the file changed: as the server tells, or else as the newest file of an archive is.
    pub(super) async fn time(&self, services: &Arc<Services>) -> Result<Option<i64>, BuildError> {
        let (tree, _) = self.tree(services).await?;
        self.time_in(services, &tree, true).await
    }

    /// Returns what the server gives at present.
    pub(crate) async fn facts(&self, services: &Arc<Services>) -> Result<WebFacts, BuildError> {
        let (tree, digest) = self.tree(services).await?;
        let modified = self.time_in(services, &tree, false).await?;
        Ok(WebFacts { digest, file_name: self.file_name.clone(), modified })
    }

    /// Returns when the file of a tree changed; where the server did not tell, its content may.
    async fn time_in(
        &self,
        services: &Arc<Services>,
        tree: &Tree,
        reads_archives: bool,
    ) -> Result<Option<i64>, BuildError> {
        let shown = Shown { progress: Progress::none(), vertex: "".into() };
        let ids = services.directories(tree, &shown).await?;
        let (services, name) = (services.clone(), self.file_name.clone());
        blocking(move || {
            let failed = |error| services.snapshot_error("can't read remote files", &error);
            let tree = services.snapshots.view(&ids).map_err(failed)?;
            let found = tree.metadata(&name).map_err(failed)?;
            // Without a time of the server's the file got none.
            let told = found.map(|found| found.modified).filter(|time| *time != UNIX_EPOCH);
            match told {
                Some(time) => Ok(Some(seconds(time))),
                None if reads_archives => Ok(newest(tree.open_file(&name).map_err(failed)?)),
                None => Ok(None),
            }
        })
        .await
    }

    /// Fetches the file to a path where nothing is; returns what it is, and when it changed, if the server told.
    pub(super) async fn download(
        &self,
        services: &Services,
        path: &Path,
    ) -> Result<(Material, Option<i64>), BuildError> {
        match self.ask(services, &self.parsed()?, None).await? {
            WebAnswer::File(mut file) => {
                let fetched = self.save(&mut file, path).await?;
                Ok((self.material(fetched.digest), fetched.modified.map(seconds)))
            }
            WebAnswer::NotModified => Err(self.failure("invalid not-modified answer")),
        }
    }

    fn failure(&self, problem: &str) -> BuildError {
        BuildError::new(ErrorKind::Registry, format!("can't fetch {}: {problem}", redacted(&self.url)))
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Reads the time of an HTTP header, in any of its three forms (RFC 9110, 5.6.7); what is before 1970 is none.
fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let preferred = jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp());
    let time = preferred.or_else(|| {
        // What stands behind the time is always GMT, whatever it is called.
        let without_zone = text.strip_suffix(" GMT").or_else(|| text.strip_suffix(" UTC")).unwrap_or(text);
        let forms = ["%A, %d-%b-%y %H:%M:%S", "%a %b %e %H:%M:%S %Y"];
        let read = |form: &&str| jiff::civil::DateTime::strptime(form, without_zone).ok();
        let time = forms.iter().find_map(read)?;
        Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    let seconds = u64::try_from(time.as_second()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn percent_decoded(text: &str) -> String {
    let with_key = format!("k={}", text.replace('+', "%2B"));
    let decoded =
        url::form_urlencoded::parse(with_key.as_bytes()).next().map(|(_, value)| value.into_owned());
    decoded.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_path_of_the_url() {
        for (url, name) in [
            ("http://h/a/b.tar.gz?x=/y#z", "b.tar.gz"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/dir/", "dir"),
            ("http://h/a%20b+c", "a b+c"),
            ("http://h/%2e%2e%2fetc", "__unnamed__"),
        ] {
            assert_eq!(WebSource::of_add(url, None).file_name, name, "{url}");
        }
    }

    #[test]
    fn times_of_headers_are_read() {
        for text in [
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Wednesday, 21-Oct-15 07:28:00 GMT",
            "Wednesday, 21-Oct-15 07:28:00 UTC",
            "Wed Oct 21 07:28:00 2015",
        ] {
            assert_eq!(parse_time(text).map(seconds), Some(1_445_412_480), "{text}");
        }
        assert_eq!(parse_time("Thu Oct  1 00:00:00 2015").map(seconds), Some(1_443_657_600));
        assert_eq!(parse_time("yesterday"), None);
    }
}
