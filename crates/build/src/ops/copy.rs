// SPDX-License-Identifier: Apache-2.0
//! One part of a COPY or ADD: what it brings from one input, and its heredocs.

use std::path::Path;

use polyarch_dockerfile::value::chmod::Chmod;
use polyarch_dockerfile::{IgnoreRules, IgnoreState, Pattern};
use polyarch_snapshot::{
    CopySource, CopySpec, KeepAll, Kind, ModeChange, PathFilter, SnapshotError, SnapshotId, TreeRoot,
    Verdict, Within, copy,
};

use super::file::{UNKNOWN_TIME, read_accounts};
use super::user::resolve_owner;
use crate::context::{IgnoreFilter, verdict};
use crate::distant::followed;
use crate::error::{BuildError, ErrorKind};
use crate::services::Services;
use crate::tree::Output;

/// The mode of directories that a destination needs and that nothing describes.
const CREATED_DIRECTORY_MODE: u32 = 0o755;

/// The mode of heredocs.
const HEREDOC_MODE: u32 = 0o644;

/// What is copied from one input.
#[derive(Debug, Clone, Default)]
pub(crate) struct CopyAction {
    /// The number of the input that is copied from; 0 when there are only heredocs.
    pub(crate) input: usize,
    /// What is copied of it.
    pub(crate) sources: Vec<CopyPath>,
    /// Files whose text stands in the Dockerfile: name and content.
    pub(crate) heredocs: Vec<(String, String)>,
    /// The absolute destination; with a trailing slash it is a directory.
    pub(crate) destination: String,
    /// `--chown`, unresolved.
    pub(crate) owner: Option<String>,
    /// `--chmod`, as written.
    pub(crate) mode: Option<String>,
    /// Patterns of `--exclude`.
    pub(crate) exclude: Vec<String>,
    /// Whether archives are unpacked.
    pub(crate) unpack: bool,
    /// Whether the input is the user's context: its owners and times mean nothing.
    pub(crate) from_context: bool,
    /// Whether what is copied gets [`UNKNOWN_TIME`] instead of times that say nothing.
    pub(crate) has_unknown_times: bool,
    /// What only definitions of clients can ask for.
    pub(crate) form: CopyForm,
}

/// How a definition's copy differs from that of a Dockerfile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CopyForm {
    /// Whether directories bring themselves and not only what is in them.
    pub(crate) keeps_directories: bool,
    /// Whether a source that is a symlink brings that link.
    pub(crate) keeps_links: bool,
    /// Whether the directory above the destination must be there.
    pub(crate) needs_parent: bool,
    /// Whether a pattern must match something.
    pub(crate) needs_match: bool,
    /// The time of what is copied, in seconds since 1970.
    pub(crate) modified: Option<i64>,
    /// Patterns of what is copied beneath the sources; all of it when there are none.
    pub(crate) include: Vec<String>,
    /// Paths without which the source is missing.
    pub(crate) required: Vec<String>,
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone, Default)]
pub(crate) struct CopyPath {
    /// The path or pattern, relative to the root of the input.
    pub(crate) pattern: String,
    /// With `--parents`, what is copied beneath that path, as a pattern of ignore files; what matches keeps the
    /// directories between.
    pub(crate) include: Option<String>,
    /// Whether the path is a name as it stands, without wildcards.
    pub(crate) is_literal: bool,
}

impl CopyPath {
    /// Makes a source that brings itself, or what is in it.
    pub(crate) fn plain(pattern: impl Into<String>) -> CopyPath {
        CopyPath { pattern: pattern.into(), ..CopyPath::default() }
    }

    /// Makes a source of one file, whatever characters its name has.
    pub(crate) fn literal(name: &str) -> CopyPath {
        CopyPath { pattern: name.to_owned(), include: None, is_literal: true }
    }

    /// Returns the path by which files are asked for; `None` where that is everything.
    pub(super) fn followed(&self) -> Option<String> {
        match &self.include {
            Some(include) => followed(&format!("{}/{include}", self.pattern)),
            None => followed(&self.pattern),
        }
    }

    /// Returns the path that must be there, which only a pattern need not.
    fn required(&self) -> Option<String> {
        let include = self.include.as_ref()?;
        let path = format!("{}/{include}", self.pattern.trim_end_matches('.'));
        (!polyarch_dockerfile::pattern::has_wildcards(&path)).then_some(path)
    }
}

impl CopyAction {
    /// Returns what decides about the result, as texts that can't be mistaken for others.
    pub(crate) fn key_parts(&self) -> Vec<String> {
        let mut parts = vec![
            format!("{} {} {} {}", self.input, self.sources.len(), self.heredocs.len(), self.exclude.len()),
            format!("{:?} {:?}", self.owner, self.mode),
            format!("{} {} {}", self.unpack, self.from_context, self.has_unknown_times),
            self.destination.clone(),
        ];
        for source in &self.sources {
            parts.push(source.pattern.clone());
            parts.push(format!("{:?} {}", source.include, source.is_literal));
        }
        for (name, text) in &self.heredocs {
            parts.extend([name.clone(), text.clone()]);
        }
        parts.extend(self.exclude.iter().cloned());
        if self.form != CopyForm::default() {
            parts.push(format!("{:?}", self.form));
        }
        parts
    }

    /// Copies into a tree.
    pub(crate) fn apply(
        &self,
        services: &Services,
        source: Option<&Source<'_>>,
        tree: &TreeRoot,
    ) -> Result<(), BuildError> {
        let owner = match &self.owner {
            Some(owner) => Some(owner_in(tree, owner)?),
            None if self.from_context => Some((0, 0)),
            None => None,
        };
        for (name, text) in &self.heredocs {
            self.write_heredoc(services, name, text, owner.unwrap_or((0, 0)), tree)?;
        }
        let Some(source) = source.filter(|_| !self.sources.is_empty()) else { return Ok(()) };
        self.check(source, tree)?;
        let explicit = self.owner.as_ref().and(owner);
        source.with_spec(services, self, owner, explicit, |spec| copy(spec, tree))
    }

    /// Makes sure of what a definition relies on.
    fn check(&self, source: &Source<'_>, tree: &TreeRoot) -> Result<(), BuildError> {
        let refused = |message: String| Err(BuildError::new(ErrorKind::Dockerfile, message));
        let destination = self.destination.trim_end_matches('/');
        if self.form.needs_parent
            && let Some((parent, _)) = destination.rsplit_once('/')
            && !tree.exists(if parent.is_empty() { "/" } else { parent })
        {
            return refused(format!("failed to stat {}: no such file or directory", self.destination));
        }
        match self.form.required.iter().find(|path| !source.tree.exists(path.as_str())) {
            Some(path) => refused(format!("{}: {path:?}: not found", source.unknown())),
            None => Ok(()),
        }
    }

    /// Writes one heredoc, below the destination when that is a directory.
    fn write_heredoc(
        &self,
        services: &Services,
        name: &str,
        text: &str,
        owner: (u32, u32),
        tree: &TreeRoot,
    ) -> Result<(), BuildError> {
        let failed = |error| services.snapshot_error("can't write a heredoc", &error);
        let destination = self.destination.as_str();
        let existing = tree.metadata(destination).map_err(failed)?;
        let is_directory = destination.ends_with('/')
            || existing.is_some_and(|metadata| metadata.kind == Kind::Directory)
            || self.heredocs.len() + self.sources.len() > 1;
        let path = if is_directory {
            format!("{}/{name}", destination.trim_end_matches('/'))
        } else {
            destination.to_owned()
        };
        let chmod = self.chmod()?;
        let mode = chmod.as_ref().map_or(HEREDOC_MODE, |chmod| chmod.apply(HEREDOC_MODE, false));
        if let Some((parent, _)) = path.rsplit_once('/') {
            tree.mkdir_all(parent, created_mode(chmod.as_ref()), owner).map_err(failed)?;
        }
        tree.write_file(path.as_str(), text.as_bytes(), mode, owner).map_err(failed)
    }

    fn chmod(&self) -> Result<Option<Chmod>, BuildError> {
        let parse = |text: &String| {
            Chmod::parse(text)
                .map_err(|error| BuildError::from_source(ErrorKind::Dockerfile, "--chmod", &error))
        };
        self.mode.as_ref().map(parse).transpose()
    }
}

/// A mode in numbers is also that of directories that are made on the way, as in BuildKit.
fn created_mode(chmod: Option<&Chmod>) -> u32 {
    match chmod {
        Some(Chmod::Absolute { mode }) => *mode,
        Some(Chmod::Symbolic { .. }) | None => CREATED_DIRECTORY_MODE,
    }
}

/// Resolves `--chown` by the names in the tree that is copied into.
pub(crate) fn owner_in(tree: &TreeRoot, owner: &str) -> Result<(u32, u32), BuildError> {
    resolve_owner(owner, &read_accounts(tree, "etc/passwd")?, &read_accounts(tree, "etc/group")?)
        .map_err(|error| BuildError::new(ErrorKind::Dockerfile, format!("--chown={owner}: {error}")))
}

/// What `--exclude` and `--parents` choose beneath the sources.
struct Choice {
    included: Vec<Option<(IgnoreRules, Option<String>)>>,
    /// What is chosen of every source.
    included_of_all: Option<IgnoreRules>,
    excluded: Option<IgnoreRules>,
}

impl Choice {
    /// Returns what an action chooses; `None` when that is everything.
    fn of(action: &CopyAction) -> Result<Option<Choice>, BuildError> {
        let rules = |flag: &'static str, patterns: &[String]| {
            IgnoreRules::from_patterns(patterns)
                .map_err(|error| BuildError::from_source(ErrorKind::Dockerfile, flag, &error))
        };
        let excluded = match action.exclude.as_slice() {
            [] => None,
            patterns => Some(rules("--exclude", patterns)?),
        };
        let mut included = Vec::new();
        for source in &action.sources {
            included.push(match &source.include {
                Some(include) => {
                    Some((rules("--parents", std::slice::from_ref(include))?, source.required()))
                }
                None => None,
            });
        }
        let included_of_all = match action.form.include.as_slice() {
            [] => None,
            patterns => Some(rules("include", patterns)?),
        };
        let is_everything =
            excluded.is_none() && included_of_all.is_none() && included.iter().all(Option::is_none);
        Ok((!is_everything).then_some(Choice { included, included_of_all, excluded }))
    }
}

impl Within for Choice {
    fn verdict(&self, source: usize, path: &Path, is_directory: bool) -> Verdict {
        // Patterns are text; a name that is none is judged by what is left of it.
        let path = path.to_string_lossy();
        let excluded =
            self.excluded.as_ref().map_or(Verdict::Keep, |rules| verdict(rules, &path, is_directory));
        let included = |rules: &IgnoreRules| {
            // What is beneath a match is a match.
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let state = ends.fold(IgnoreState::default(), |state, end| rules.check(&state, &path[..end]));
            match state.is_ignored() {
                true => Verdict::Keep,
                false if is_directory && rules.may_match_below(&path) => Verdict::Descend,
                false => Verdict::Skip,
            }
        };
        let of_all = self.included_of_all.as_ref().map_or(Verdict::Keep, included);
        let own = match self.included.get(source) {
            Some(Some((rules, _))) => included(rules),
            Some(None) | None => Verdict::Keep,
        };
        excluded.and(of_all).and(own)
    }

    fn required(&self, source: usize) -> Option<&str> {
        self.included.get(source)?.as_ref()?.1.as_deref()
    }
}

/// An opened source of a copy.
pub(crate) struct Source<'a> {
    tree: TreeRoot,
    ignored: Option<&'a IgnoreRules>,
    /// What messages call it; one word, as the identity in BuildKit's messages is.
    label: &'static str,
}

impl<'a> Source<'a> {
    pub(crate) fn open(
        services: &Services,
        output: &'a Output,
        ids: Option<&[SnapshotId]>,
    ) -> Result<Source<'a>, BuildError> {
        match output {
            Output::Trees(_) => Err(BuildError::several_trees()),
            Output::Context(context) => {
                Ok(Source { tree: context.tree()?, ignored: context.ignored(), label: "context" })
            }
            Output::Tree(_) => {
                let tree = services
                    .snapshots
                    .view(ids.unwrap_or_default())
                    .map_err(|error| services.snapshot_error("can't open the tree to copy from", &error))?;
                Ok(Source { tree, ignored: None, label: "source" })
            }
        }
    }

    /// Says that there is something that it lacks, in words that clients look for.
    fn unknown(&self) -> String {
        format!("failed to compute cache key: failed to calculate checksum of ref {}", self.label)
    }

    /// Calls a function of the snapshot room with what the action copies.
    pub(crate) fn with_spec<T>(
        &self,
        services: &Services,
        action: &CopyAction,
        owner: Option<(u32, u32)>,
        unpack_owner: Option<(u32, u32)>,
        call: impl FnOnce(&CopySpec<'_>) -> Result<T, SnapshotError>,
    ) -> Result<T, BuildError> {
        let choice = Choice::of(action)?;
        let ignore = IgnoreFilter { rules: self.ignored };
        let filter: &dyn PathFilter = if self.ignored.is_some() { &ignore } else { &KeepAll };
        let sources: Vec<CopySource> = action
            .sources
            .iter()
            .map(|source| CopySource { pattern: source.pattern.clone(), allow_wildcard: !source.is_literal })
            .collect();
        let chmod = action.chmod()?;
        let change =
            chmod.as_ref().map(|chmod| move |mode: u32, is_directory: bool| chmod.apply(mode, is_directory));
        let keeps_owner = action.owner.is_none() && !action.from_context;
        let spec = CopySpec {
            source: &self.tree,
            sources: &sources,
            filter,
            matcher: &|pattern, name| Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name)),
            destination: &action.destination,
            owner: owner.filter(|_| !keeps_owner),
            mode: change.as_ref().map(|change| -> ModeChange<'_> { change }),
            unpack: action.unpack,
            unpack_owner,
            modified: action.form.modified.or(action.has_unknown_times.then_some(UNKNOWN_TIME)),
            within: choice.as_ref().map(|choice| -> &dyn Within { choice }),
            created_mode: created_mode(chmod.as_ref()),
            keeps_directories: action.form.keeps_directories,
            follows_links: !action.form.keeps_links,
            needs_match: action.form.needs_match,
        };
        call(&spec).map_err(|error| self.failure(services, &error))
    }

    fn failure(&self, services: &Services, error: &SnapshotError) -> BuildError {
        let what = match error {
            // The words by which BuildKit's users look for it.
            SnapshotError::MissingSource { .. } => self.unknown(),
            _ => "can't copy".to_owned(),
        };
        let mut failure = services.snapshot_error(&what, error);
        if matches!(
            error,
            SnapshotError::MissingSource { .. }
                | SnapshotError::DestinationNotDirectory { .. }
                | SnapshotError::TypeConflict { .. }
        ) {
            failure.kind = ErrorKind::Dockerfile;
        }
        failure
    }
}
