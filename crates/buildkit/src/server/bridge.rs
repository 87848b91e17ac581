// SPDX-License-Identifier: Apache-2.0
//! `LLBBridge`: what a frontend that runs in the client asks of its build.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_dockerfile::Pattern;
use polyarch_oci::Digest;
use polyarch_snapshot::{Kind, Metadata, TreeRoot};
use polyarch_solver::progress::Event;
use tonic::Status;

use crate::api::fsutil::Stat;
use crate::api::gateway::{
    EvaluateRequest, EvaluateResponse, InputsRequest, InputsResponse, ReadDirRequest, ReadDirResponse,
    ReadFileRequest, ReadFileResponse, Ref, RefMap, RefMapDeprecated, Result as GatewayResult, ResultRefs,
    ReturnRequest, ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse,
    WarnRequest, WarnResponse,
};
use crate::server::Server;
use crate::server::builds::Build;
use crate::server::definition::definition_of;
use crate::server::errors::{status_of, status_of_lost_task, status_of_message};
use crate::server::results::Solved;
use crate::server::returned::solved_of;
use crate::session::go_mode;
use crate::warning;

/// The most that is read of a file at once, in bytes: what fits into a message.
const MAX_READ_BYTES: u64 = 15 << 20;
/// The most entries of a directory that are told.
const MAX_ENTRIES: usize = 50_000;

impl Server {
    pub(super) async fn bridge_solve(
        &self,
        build: Arc<Build>,
        request: SolveRequest,
    ) -> Result<SolveResponse, Status> {
        // Never closed.
        let _permit = build.solving.acquire().await;
        let has_definition = request.definition.as_ref().is_some_and(|it| !it.def.is_empty());
        let mut failure = None;
        let solved = match (request.frontend.as_str(), has_definition) {
            ("", false) => Solved::default(),
            ("", true) => {
                let definition = request.definition.clone().unwrap_or_default();
                match self.solve_definition(&build, &definition, &request.cache_imports).await {
                    Ok(solved) => solved,
                    // As if it were made only when somebody looks at it.
                    Err(status) if !request.evaluate && status.code() != tonic::Code::Cancelled => {
                        failure = Some(status);
                        Solved::default()
                    }
                    Err(status) => return Err(status),
                }
            }
            (frontend, _) => {
                self.run_frontend(&build, frontend, &request.frontend_opt, &request.frontend_inputs).await?
            }
        };
        let mut ids = BTreeMap::new();
        for (name, tree) in &solved.trees {
            ids.insert(name.clone(), build.results.add(tree.clone())?);
        }
        if let Some(failure) = failure {
            ids.insert(String::new(), build.results.add_failed(failure)?);
        }
        let is_new = request.allow_result_array_ref;
        let one = || ids.values().next().cloned().unwrap_or_default();
        let reference = |id: String| {
            let def = Some(definition_of(&id)).filter(|_| !id.is_empty());
            Ref { id, def }
        };
        let refs = match (solved.is_map, is_new) {
            (true, _) if !request.allow_result_return => {
                return Err(Status::failed_precondition("solve did not return default result"));
            }
            (true, true) => {
                let refs = ids.iter().map(|(name, id)| (name.clone(), reference(id.clone())));
                ResultRefs::Refs(RefMap { refs: refs.collect() })
            }
            (true, false) => ResultRefs::RefsDeprecated(RefMapDeprecated { refs: ids.clone() }),
            (false, true) => ResultRefs::Ref(reference(one())),
            (false, false) => ResultRefs::RefDeprecated(one()),
        };
        let old = if request.allow_result_return { String::new() } else { one() };
        let result =
            GatewayResult { result: Some(refs), metadata: solved.metadata, attestations: BTreeMap::new() };
        Ok(SolveResponse { r#ref: old, result: Some(result) })
    }

    pub(super) async fn bridge_return(
        &self,
        build: Arc<Build>,
        request: ReturnRequest,
    ) -> Result<ReturnResponse, Status> {
        let returned = match (request.error, request.result) {
            (Some(error), _) => Err(status_of_message(error)),
            // What is no tree of the build is a mistake of the frontend's; a tree that could not be made is told by
            // the build.
            (None, Some(result)) => solved_of(&build, result).await?,
            (None, None) => Err(Status::invalid_argument("the frontend returned neither result nor error")),
        };
        build.results.give_back(returned)?;
        Ok(ReturnResponse {})
    }

    pub(super) async fn bridge_inputs(
        &self,
        build: Arc<Build>,
        _: InputsRequest,
    ) -> Result<InputsResponse, Status> {
        Ok(InputsResponse { definitions: build.request.frontend_inputs.clone() })
    }

    pub(super) async fn bridge_evaluate(
        &self,
        build: Arc<Build>,
        request: EvaluateRequest,
    ) -> Result<EvaluateResponse, Status> {
        // Trees are made before they get a name.
        build.results.get(&request.r#ref).map(|_| EvaluateResponse {})
    }

    pub(super) async fn bridge_warn(
        &self,
        build: Arc<Build>,
        request: WarnRequest,
    ) -> Result<WarnResponse, Status> {
        let parts = warning::Parts {
            level: request.level,
            short: &request.short,
            detail: &request.detail,
            url: &request.url,
            info: request.info.as_ref(),
            ranges: &request.ranges,
        };
        if !request.digest.is_empty() && request.digest.parse::<Digest>().is_err() {
            return Err(Status::invalid_argument("the warning is about no step: its digest is none"));
        }
        let warning = warning::read(request.digest.as_str().into(), &parts);
        build.progress().send(Event::Warning(warning));
        Ok(WarnResponse {})
    }

    pub(super) async fn read_file(
        &self,
        build: Arc<Build>,
        request: ReadFileRequest,
    ) -> Result<ReadFileResponse, Status> {
        let tree = open(&build, &request.r#ref).await?;
        let path = request.file_path.clone();
        blocking(move || {
            let missing = || Status::not_found(format!("open {path}: no such file or directory"));
            let found = tree.metadata(&path).map_err(|error| failed(&error))?.ok_or_else(missing)?;
            if found.kind != Kind::File {
                return Err(Status::invalid_argument(format!("{path} is not a regular file")));
            }
            let file = tree.open_file(&path).map_err(|error| failed(&error))?;
            let range = request.range.as_ref().map(|range| (range.offset, range.length));
            match read_part(file, range).map_err(|error| Status::unknown(format!("read {path}: {error}")))? {
                Some(data) => Ok(ReadFileResponse { data }),
                None => Err(Status::out_of_range(format!(
                    "{path} has more than {MAX_READ_BYTES} bytes; read a part of it"
                ))),
            }
        })
        .await
    }

    pub(super) async fn read_dir(
        &self,
        build: Arc<Build>,
        request: ReadDirRequest,
    ) -> Result<ReadDirResponse, Status> {
        let tree = open(&build, &request.r#ref).await?;
        blocking(move || {
            let directory = request.dir_path.trim_end_matches('/');
            let names = tree.read_dir(&request.dir_path).map_err(|error| failed(&error))?;
            let pattern = Some(&request.include_pattern).filter(|pattern| !pattern.is_empty());
            let pattern = pattern.map(|pattern| Pattern::new(pattern)).transpose();
            let pattern = pattern.map_err(|error| Status::invalid_argument(error.to_string()))?;
            let mut entries = Vec::new();
            for (name, _) in names.into_iter().take(MAX_ENTRIES) {
                let name = name.to_string_lossy().into_owned();
                if pattern.as_ref().is_some_and(|pattern| !pattern.matches(&name)) {
                    continue;
                }
                let path = format!("{directory}/{name}");
                if let Some(found) = tree.symlink_metadata(&path).map_err(|error| failed(&error))? {
                    entries.push(stat_of(&tree, &path, name, &found));
                }
            }
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(ReadDirResponse { entries })
        })
        .await
    }

    pub(super) async fn stat_file(
        &self,
        build: Arc<Build>,
        request: StatFileRequest,
    ) -> Result<StatFileResponse, Status> {
        let tree = open(&build, &request.r#ref).await?;
        blocking(move || {
            let found = tree.symlink_metadata(&request.path).map_err(|error| failed(&error))?;
            let missing = || Status::not_found(format!("lstat {}: no such file or directory", request.path));
            let found = found.ok_or_else(missing)?;
            let name = request.path.rsplit('/').next().unwrap_or_default().to_owned();
            Ok(StatFileResponse { stat: Some(stat_of(&tree, &request.path, name, &found)) })
        })
        .await
    }
}

async fn open(build: &Build, id: &str) -> Result<TreeRoot, Status> {
    let tree = build.results.get(id)?;
    let evaluated = &tree.evaluation.evaluated;
    let opened = build.services.open_evaluated(evaluated, tree.platform, &build.progress()).await;
    opened.map_err(|error| status_of(&error))
}

/// Reads a part of a file, from an offset on, of a length when it is over 0; `None` when that is too much for a
/// message.
fn read_part(mut file: File, range: Option<(i64, i64)>) -> std::io::Result<Option<Vec<u8>>> {
    let (offset, length) = range.unwrap_or((0, 0));
    file.seek(SeekFrom::Start(u64::try_from(offset).unwrap_or(0)))?;
    let length = u64::try_from(length).ok().filter(|length| *length > 0).unwrap_or(u64::MAX);
    let mut data = Vec::new();
    file.take(length.min(MAX_READ_BYTES + 1)).read_to_end(&mut data)?;
    Ok(Some(data).filter(|data| data.len() as u64 <= MAX_READ_BYTES))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|lost| Err(status_of_lost_task(&lost)))
}

fn failed(error: &polyarch_snapshot::SnapshotError) -> Status {
    status_of(&BuildError::from_source(ErrorKind::Usage, "can't read the result", error))
}

fn stat_of(tree: &TreeRoot, path: &str, name: String, found: &Metadata) -> Stat {
    let linkname = match found.kind {
        Kind::Symlink => tree.read_link(path).map(|target| target.to_string_lossy().into_owned()),
        _ => Ok(String::new()),
    };
    let modified = jiff::Timestamp::try_from(found.modified).map(|time| time.as_nanosecond());
    Stat {
        path: name,
        mode: go_mode::of_kernel(kernel_type(found.kind) | found.mode),
        uid: found.uid,
        gid: found.gid,
        size: i64::try_from(found.size_bytes).unwrap_or(i64::MAX),
        mod_time: modified.ok().and_then(|time| i64::try_from(time).ok()).unwrap_or_default(),
        linkname: linkname.unwrap_or_default(),
        ..Stat::default()
    }
}

/// Returns the bits of a mode that say what it is (stat(2)).
fn kernel_type(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::Symlink => 0o120_000,
        Kind::CharDevice => 0o020_000,
        Kind::BlockDevice => 0o060_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_large_file_costs_that_part() {
        // A hole of 8 GiB: whoever read all of it would not get far.
        let large = || {
            let file = tempfile::tempfile().unwrap();
            std::os::unix::fs::FileExt::write_at(&file, b"tail", (8 << 30) - 4).unwrap();
            file
        };
        assert_eq!(read_part(large(), Some(((8 << 30) - 3, 2))).unwrap().unwrap(), b"ai");
        assert_eq!(read_part(large(), Some(((8 << 30) - 3, 0))).unwrap().unwrap(), b"ail");
        assert_eq!(read_part(large(), Some((9 << 30, 5))).unwrap().unwrap(), b"");
        assert_eq!(read_part(large(), Some((0, 1))).unwrap().unwrap(), [0]);
        assert_eq!(read_part(large(), Some((0, 0))).unwrap(), None);
        assert_eq!(read_part(large(), None).unwrap(), None);
    }
}
