// SPDX-License-Identifier: Apache-2.0
//! A part of a git repository: resolved to a commit, and checked out when no tree of that commit is here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use polyarch_snapshot::{Kind, TreeRoot};
use polyarch_solver::{CancelFlag, KeyHasher};

use super::git_program::GitProgram;
use super::git_reference::GitReference;
use crate::definition::GitFacts;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::blocking;
use crate::provenance::Material;
use crate::secrets::SecretSource;
use crate::services::Services;
use crate::tree::Tree;

/// A part of a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitSource {
    /// What is meant.
    pub(crate) reference: GitReference,
    /// Whether `.git` is kept.
    pub(crate) keep_git_dir: bool,
}

/// What a reference stands for at the moment.
struct Resolved {
    /// The full name, `refs/heads/main`, or the commit itself.
    name: String,
    /// The object that it names: a commit, or an annotated tag.
    object: String,
    /// The commit, where the object is a tag and the server told.
    commit: Option<String>,
}

impl Resolved {
    fn commit(&self) -> &str {
        self.commit.as_ref().unwrap_or(&self.object)
    }
}

impl GitSource {
    pub(super) fn key_parts(&self) -> Vec<String> {
        let GitReference { remote, reference, subdirectory, checksum, .. } = &self.reference;
        let GitReference { submodules, has_commit_times, fetch_by_commit, .. } = &self.reference;
        vec![
            "git".to_owned(),
            remote.clone(),
            format!("{reference:?} {subdirectory:?} {checksum:?}"),
            format!("{} {submodules:?} {has_commit_times} {fetch_by_commit}", self.keep_git_dir),
        ]
    }

    /// Names the repository by the commit that was found.
    pub(super) fn material(&self, commit: String) -> Material {
        Material::Git { url: self.reference.with_fragment(false), commit }
    }

    /// Returns the tree of the commit that the reference stands for, and the commit.
    pub(super) async fn tree(
        &self,
        services: &Arc<Services>,
        secrets: &dyn SecretSource,
        cancel: &CancelFlag,
    ) -> Result<(Tree, String), BuildError> {
        let git = self.program(services, secrets, cancel).await?;
        let resolved = self.resolve(&git).await?;
        let commit = resolved.commit().to_owned();
        let submodules = self.reference.submodules != Some(false);
        let mut hasher = KeyHasher::new("git tree 2");
        hasher
            .part(&self.reference.remote)
            .part(&commit)
            .part(format!("{:?}", self.reference.subdirectory))
            .part([self.keep_git_dir, submodules, self.reference.has_commit_times].map(u8::from));
        if self.keep_git_dir {
            // Then the names of references are part of the files.
            hasher.part(&resolved.name).part(&resolved.object);
        }
        let key = hasher.finish();
        if let Some(tree) = services.recorded_tree(&key) {
            return Ok((tree, commit));
        }
        let scratch = services.scratch()?;
        let (directory, _) = self.check_out(&git, &resolved, scratch.path()).await?;
        let tree = services.tree_of_directory(&directory).await?;
        services.record_tree(&key, &tree, &format!("{} at {commit}", self.reference.shown()));
        Ok((tree, commit))
    }

    /// Returns the time of the commit that the reference stands for, in seconds since 1970.
    pub(super) async fn time(
        &self,
        services: &Services,
        secrets: &dyn SecretSource,
        cancel: &CancelFlag,
    ) -> Result<i64, BuildError> {
        let git = self.program(services, secrets, cancel).await?;
        let resolved = self.resolve(&git).await?;
        let scratch = services.scratch()?;
        self.prepare(&git, &resolved, scratch.path()).await?;
        commit_time(&git, scratch.path(), "FETCH_HEAD").await?.ok_or_else(|| self.has_no_time())
    }

    /// Returns what the reference stands for at present; with objects, these are fetched and checked.
    pub(crate) async fn facts(
        &self,
        services: &Services,
        secrets: &dyn SecretSource,
        wants_objects: bool,
        cancel: &CancelFlag,
    ) -> Result<GitFacts, BuildError> {
        let git = self.program(services, secrets, cancel).await?;
        let resolved = self.resolve(&git).await?;
        let facts = GitFacts {
            name: resolved.name.clone(),
            object: resolved.object.clone(),
            commit: resolved.commit.clone(),
            ..GitFacts::default()
        };
        if !wants_objects {
            return Ok(facts);
        }
        let scratch = services.scratch()?;
        let work = scratch.path();
        self.prepare(&git, &resolved, work).await?;
        let commit = git.run(Some(work), &["rev-parse", "--verify", "FETCH_HEAD^{commit}"]).await?;
        let commit = commit.trim();
        let meant = format!("{}^{{commit}}", resolved.object);
        let meant = git.run(Some(work), &["rev-parse", "--verify", &meant]).await?;
        check_commit(&resolved, commit, meant.trim(), self.reference.checksum.as_deref())
            .map_err(|problem| failure(format!("{} can't be trusted: {problem}", self.reference.shown())))?;
        let commit_object = git.run(Some(work), &["cat-file", "commit", commit]).await?.into_bytes();
        let tag_object = match commit == resolved.object {
            true => Vec::new(),
            false => git.run(Some(work), &["cat-file", "tag", &resolved.object]).await?.into_bytes(),
        };
        let is_tag = commit != resolved.object;
        Ok(GitFacts { commit: is_tag.then(|| commit.to_owned()), commit_object, tag_object, ..facts })
    }

    /// Checks the files out below an empty directory and returns where they are, the time of the commit, and
    /// which it is.
    pub(super) async fn directory(
        &self,
        services: &Services,
        secrets: &dyn SecretSource,
        scratch: &Path,
        cancel: &CancelFlag,
    ) -> Result<(PathBuf, Option<i64>, Material), BuildError> {
        let git = self.program(services, secrets, cancel).await?;
        let resolved = self.resolve(&git).await?;
        let (directory, time) = self.check_out(&git, &resolved, scratch).await?;
        Ok((directory, time, self.material(resolved.commit().to_owned())))
    }

    async fn program(
        &self,
        services: &Services,
        secrets: &dyn SecretSource,
        cancel: &CancelFlag,
    ) -> Result<GitProgram, BuildError> {
        tokio::select! {
            git = GitProgram::new(&services.options, secrets, &self.reference, cancel) => git,
            // Who knows the secrets may be far away.
            () = cancel.cancelled() => Err(BuildError::cancelled()),
        }
    }

    async fn resolve(&self, git: &GitProgram) -> Result<Resolved, BuildError> {
        let reference = &self.reference;
        let checksum = reference.checksum.as_deref();
        if let Some(checksum) =
            checksum.filter(|it| it.is_empty() || !it.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            let message = format!("invalid checksum {checksum} for Git URL, expected hex commit hash");
            return Err(failure(message));
        }
        if let Some(commit) = reference.reference.as_deref().filter(|it| is_commit(it)) {
            if let Some(checksum) = checksum.filter(|checksum| !commit.starts_with(checksum)) {
                return Err(failure(format!("expected checksum to match {checksum}, got {commit}")));
            }
            return Ok(Resolved { name: commit.to_owned(), object: commit.to_owned(), commit: None });
        }
        if reference.fetch_by_commit {
            let Some(commit) = checksum.filter(|it| is_commit(it)) else {
                return Err(failure("fetch-by-commit requires a full commit SHA checksum".to_owned()));
            };
            return Ok(Resolved { name: commit.to_owned(), object: commit.to_owned(), commit: None });
        }
        let wanted = match &reference.reference {
            Some(wanted) => wanted.clone(),
            None => self.default_branch(git).await?,
        };
        let peeled = format!("{wanted}^{{}}");
        let listed = git.run(None, &["ls-remote", "--", git.remote(), &wanted, &peeled]).await?;
        let found = choose(&listed, &wanted).ok_or_else(|| {
            failure(format!("repository does not contain ref {wanted}, output: {listed:?}"))
        })?;
        if !is_commit(&found.object) {
            return Err(failure(format!("invalid commit sha {:?}", found.object)));
        }
        let matches = |checksum: &&str| {
            found.object.starts_with(*checksum)
                || found.commit.as_ref().is_some_and(|commit| commit.starts_with(*checksum))
        };
        if let Some(checksum) = checksum.filter(|checksum| !matches(checksum)) {
            let got = match &found.commit {
                Some(commit) => format!("{} or {commit}", found.object),
                None => found.object.clone(),
            };
            return Err(failure(format!("expected checksum to match {checksum}, got {got}")));
        }
        Ok(found)
    }

    async fn default_branch(&self, git: &GitProgram) -> Result<String, BuildError> {
        let listed = git.run(None, &["ls-remote", "--symref", "--", git.remote(), "HEAD"]).await?;
        let branch = listed.lines().find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
        match branch.map(str::trim).filter(|branch| branch.starts_with("refs/")) {
            Some(branch) => Ok(branch.to_owned()),
            None => {
                let shown = self.reference.shown();
                Err(failure(format!("could not find default branch for repository: {shown}")))
            }
        }
    }

    async fn check_out(
        &self,
        git: &GitProgram,
        resolved: &Resolved,
        scratch: &Path,
    ) -> Result<(PathBuf, Option<i64>), BuildError> {
        let work = scratch.join("work");
        std::fs::create_dir(&work).map_err(|error| BuildError::io("can't make", &work, &error))?;
        let at = Some(work.as_path());
        self.prepare(git, resolved, &work).await?;
        git.run(at, &["checkout", "--quiet", "--detach", "--force", "FETCH_HEAD^{commit}"]).await?;
        self.verify(git, resolved, &work).await?;
        if self.reference.submodules != Some(false) && work.join(".gitmodules").exists() {
            git.update_submodules(&work).await?;
        }
        let is_kept = self.keep_git_dir && self.reference.subdirectory.is_none();
        let time = commit_time(git, &work, "HEAD").await?;
        let wanted_time = match self.reference.has_commit_times {
            true => Some(system_time(time).ok_or_else(|| self.has_no_time())?),
            false => None,
        };
        let own = work.join(".git");
        if is_kept {
            git.run(at, &["reflog", "expire", "--all", "--expire=now"]).await?;
            let _ = std::fs::remove_file(own.join("FETCH_HEAD"));
        } else {
            std::fs::remove_dir_all(&own).map_err(|error| BuildError::io("can't remove", &own, &error))?;
        }
        let subdirectory = self.reference.subdirectory.clone();
        let directory = blocking(move || {
            if let Some(time) = wanted_time {
                set_times(&work, time, 0)?;
            }
            match subdirectory {
                Some(subdirectory) => below(&work, &subdirectory),
                None => Ok(work),
            }
        })
        .await?;
        Ok((directory, time))
    }

    /// Makes a repository and fetches into it what was resolved, as `FETCH_HEAD`.
    async fn prepare(&self, git: &GitProgram, resolved: &Resolved, work: &Path) -> Result<(), BuildError> {
        let at = Some(work);
        let format = if resolved.object.len() == 64 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        git.run(at, &["init", "--quiet", "--template=", &format]).await?;
        git.run(at, &["remote", "add", "origin", git.remote()]).await?;
        self.fetch(git, resolved, work).await
    }

    /// Fetches what was resolved; the reference may have moved on since.
    async fn fetch(&self, git: &GitProgram, resolved: &Resolved, work: &Path) -> Result<(), BuildError> {
        let at = Some(work);
        if is_commit(&resolved.name) {
            match git.fetch(work, &["--depth=1", "--no-tags", "origin", &resolved.name]).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind == ErrorKind::Cancelled => return Err(error),
                Err(_) => {}
            }
            // Servers that don't give single commits give everything.
            git.fetch(work, &["--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"]).await?;
            let found =
                git.run(at, &["rev-parse", "--verify", &format!("{}^{{commit}}", resolved.name)]).await;
            let commit = found.map_err(|_| self.has_moved(resolved))?;
            return write_fetch_head(work, commit.trim());
        }
        let name = &resolved.name;
        let both = format!("+{name}:{name}");
        git.fetch(work, &["--depth=1", "--no-tags", "--update-head-ok", "origin", &both]).await?;
        let found = git.run(at, &["rev-parse", "FETCH_HEAD"]).await?;
        if found.trim() == resolved.object {
            return Ok(());
        }
        git.fetch(work, &["--depth=1", "--no-tags", "origin", &resolved.object])
            .await
            .map(drop)
            .map_err(|_| self.has_moved(resolved))
    }

    /// Compares what was checked out with what the server announced and with the checksum: an announcement is
    /// only a text, what was fetched has the names that its bytes give it.
    async fn verify(&self, git: &GitProgram, resolved: &Resolved, work: &Path) -> Result<(), BuildError> {
        let commit_of = async |name: &str| {
            let name = format!("{name}^{{commit}}");
            git.run(Some(work), &["rev-parse", "--verify", &name]).await.map(|text| text.trim().to_owned())
        };
        let (commit, meant) = (commit_of("HEAD").await?, commit_of(&resolved.object).await?);
        check_commit(resolved, &commit, &meant, self.reference.checksum.as_deref())
            .map_err(|problem| failure(format!("{} can't be trusted: {problem}", self.reference.shown())))
    }

    fn has_no_time(&self) -> BuildError {
        failure(format!("the commit of {} has no time that files can have", self.reference.shown()))
            .with_hint("leave out mtime=commit and SOURCE_DATE_EPOCH=context")
    }

    fn has_moved(&self, resolved: &Resolved) -> BuildError {
        let Resolved { name, object, .. } = resolved;
        failure(format!("{} has no commit {object} that {name} pointed at", self.reference.shown()))
            .with_hint("build again")
    }
}

/// Says what is wrong with a commit that was checked out, where the object that was asked for leads to `meant`.
fn check_commit(
    resolved: &Resolved,
    commit: &str,
    meant: &str,
    checksum: Option<&str>,
) -> Result<(), String> {
    let Resolved { name, object, commit: announced } = resolved;
    if commit != meant {
        return Err(format!("it gave commit {commit} for {object}, which is {meant}"));
    }
    if let Some(announced) = announced.as_ref().filter(|announced| *announced != commit) {
        return Err(format!("it announced commit {announced} for {name}, which is {commit}"));
    }
    match checksum {
        // The object was fetched by its own name, and so is what it says.
        Some(checksum) if !commit.starts_with(checksum) && !object.starts_with(checksum) => {
            Err(format!("expected checksum to match {checksum}, got {object} or {commit}"))
        }
        _ => Ok(()),
    }
}

/// Returns the time at which a commit was made, in seconds since 1970, where it has one.
async fn commit_time(git: &GitProgram, work: &Path, name: &str) -> Result<Option<i64>, BuildError> {
    let commit = format!("{name}^{{commit}}");
    let told = git.run(Some(work), &["log", "-1", "--format=%ct", &commit]).await?;
    Ok(usable_time(told.trim()))
}

/// Reads a commit's time; anybody can write what he wants into a commit, and not all of it is a file's time.
fn usable_time(text: &str) -> Option<i64> {
    // The end of the year 9999.
    const MAX_SECONDS: i64 = 253_402_300_799;
    text.parse().ok().filter(|seconds| (0..=MAX_SECONDS).contains(seconds))
}

fn system_time(seconds: Option<i64>) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds?).ok()?))
}

/// Makes `FETCH_HEAD` of a commit that came with others.
fn write_fetch_head(work: &Path, commit: &str) -> Result<(), BuildError> {
    let path = work.join(".git/FETCH_HEAD");
    std::fs::write(&path, format!("{commit}\n")).map_err(|error| BuildError::io("can't write", &path, &error))
}

/// Chooses among what `ls-remote` listed: branches stand before tags, as for `git checkout`.
fn choose(listed: &str, wanted: &str) -> Option<Resolved> {
    let find = |name: &str| {
        listed.lines().find_map(|line| {
            let (object, listed) = line.split_once('\t')?;
            (listed == name).then(|| object.to_owned())
        })
    };
    let full = format!("refs/{}", wanted.strip_prefix("refs/").unwrap_or(wanted));
    let head = format!("refs/heads/{}", wanted.strip_prefix("refs/heads/").unwrap_or(wanted));
    let tag = format!("refs/tags/{}", wanted.strip_prefix("refs/tags/").unwrap_or(wanted));
    for name in [full, head, tag] {
        if let Some(object) = find(&name) {
            let commit = find(&format!("{name}^{{}}"));
            return Some(Resolved { name, object, commit });
        }
    }
    None
}

/// Tells whether a name is that of a commit, of SHA-1 or SHA-256.
fn is_commit(name: &str) -> bool {
    matches!(name.len(), 40 | 64)
        && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn failure(message: String) -> BuildError {
    BuildError::new(ErrorKind::Registry, message)
}

/// Finds a directory of a checkout; a link in its place is none.
fn below(work: &Path, subdirectory: &str) -> Result<PathBuf, BuildError> {
    let wrong = |problem: String| failure(format!("invalid subdir {subdirectory}: {problem}"));
    let tree = TreeRoot::open(work).map_err(|error| wrong(error.to_string()))?;
    let mut path = String::new();
    for part in subdirectory.split('/') {
        path = if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
        let metadata = tree.symlink_metadata(&path).map_err(|error| wrong(error.to_string()))?;
        match metadata.map(|metadata| metadata.kind) {
            Some(Kind::Directory) => {}
            Some(_) => return Err(wrong(format!("{path} is no directory"))),
            None => return Err(wrong(format!("lstat {path}: no such file or directory"))),
        }
    }
    Ok(work.join(path))
}

/// Gives everything beneath a directory one time.
fn set_times(directory: &Path, time: SystemTime, depth: usize) -> Result<(), BuildError> {
    const MAX_DEPTH: usize = 400;
    let failed = |error: std::io::Error| BuildError::io("can't set the times in", directory, &error);
    if depth > MAX_DEPTH {
        return Err(failure(format!("the repository is deeper than {MAX_DEPTH} directories")));
    }
    let tree = TreeRoot::open(directory).map_err(|error| failure(error.to_string()))?;
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            set_times(&entry.path(), time, depth + 1)?;
        }
        tree.set_modified(entry.file_name(), time).map_err(|error| failure(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_stand_before_tags() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let listed = format!("{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n");
        let found = choose(&listed, "v1").unwrap();
        assert_eq!((found.name.as_str(), found.object, found.commit), ("refs/heads/v1", a, None));
        let found = choose(&listed, "refs/tags/v1").unwrap();
        assert_eq!((found.name.as_str(), found.object, found.commit), ("refs/tags/v1", b, Some(c)));
        assert!(choose(&listed, "v2").is_none());
    }

    #[test]
    fn what_a_server_announces_is_checked() {
        let [good, evil, tag] = ["a", "b", "c"].map(|digit| digit.repeat(40));
        let resolved = |object: &str, commit: Option<&str>| Resolved {
            name: "refs/tags/v1".to_owned(),
            object: object.to_owned(),
            commit: commit.map(str::to_owned),
        };
        let annotated = resolved(&tag, Some(&good));
        for checksum in [None, Some("aaaa"), Some("cccc")] {
            assert_eq!(check_commit(&annotated, &good, &good, checksum), Ok(()));
        }
        for (resolved, commit, meant, checksum, problem) in [
            (&annotated, &evil, &evil, Some("aaaa"), "announced commit aaaa"),
            (&annotated, &evil, &good, None, "gave commit bbbb"),
            (&resolved(&evil, None), &evil, &evil, Some("aaaa"), "expected checksum to match aaaa, got bbbb"),
        ] {
            let error = check_commit(resolved, commit, meant, checksum).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn times_that_no_file_has_are_refused() {
        assert_eq!(usable_time("60"), Some(60));
        assert_eq!(system_time(Some(60)), Some(UNIX_EPOCH + Duration::from_secs(60)));
        for text in ["", "-1", "253402300800", "18446744073709551615", "99999999999999999999"] {
            assert_eq!(usable_time(text), None, "{text}");
        }
    }

    #[test]
    fn commits_are_told_from_names() {
        assert!(is_commit(&"0a".repeat(20)) && is_commit(&"0a".repeat(32)));
        assert!(!is_commit("main") && !is_commit(&"A".repeat(40)) && !is_commit(&"a".repeat(41)));
    }
}
