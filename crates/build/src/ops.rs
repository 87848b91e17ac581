// SPDX-License-Identifier: Apache-2.0
//! The operations of a build's graph: inputs are trees, outputs are trees.

mod agent_socket;
pub(crate) mod context_op;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod exec;
pub(crate) mod exec_mounts;
pub(crate) mod file;
pub(crate) mod file_change;
pub(crate) mod image;
pub(crate) mod merge;
pub(crate) mod pick;
pub(crate) mod remote;
pub(crate) mod user;

use std::sync::Arc;

use polyarch_solver::{CacheKey, Graph, Op, VertexContext, VertexId};

use crate::error::{BuildError, SourceLocation};
use crate::fetch::Shown;
use crate::tree::Output;

/// One vertex of a build.
pub struct BuildOp {
    /// What it does.
    pub(crate) kind: OpKind,
    /// What people read; empty for a vertex that is not shown.
    pub(crate) name: Arc<str>,
    /// Where it stands in the Dockerfile.
    pub(crate) location: Option<SourceLocation>,
    /// Execute whatever is recorded.
    pub(crate) no_cache: bool,
}

/// What an operation does.
pub(crate) enum OpKind {
    /// Layers of an image.
    Image(image::ImageOp),
    /// What another build has made.
    Built(image::BuiltOp),
    /// The user's files.
    Context(context_op::ContextOp),
    /// Files from elsewhere.
    Remote(remote::RemoteOp),
    /// Trees on top of each other.
    Merge(merge::MergeOp),
    /// What one tree has and another has not.
    Diff(diff::DiffOp),
    /// One of several trees.
    Pick(pick::PickOp),
    /// Files made or copied.
    File(file::FileOp),
    /// A process.
    Exec(Box<exec::ExecOp>),
}

impl Op for BuildOp {
    type Output = Output;
    type Error = BuildError;

    fn digest(&self) -> CacheKey {
        match &self.kind {
            OpKind::Image(op) => op.digest(),
            OpKind::Built(op) => op.digest(),
            OpKind::Context(op) => op.digest(),
            OpKind::Remote(op) => op.digest(),
            OpKind::Merge(op) => op.digest(),
            OpKind::Diff(op) => op.digest(),
            OpKind::Pick(op) => op.digest(),
            OpKind::File(op) => op.digest(),
            OpKind::Exec(op) => op.digest(),
        }
    }

    fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    fn is_volatile(&self) -> bool {
        matches!(self.kind, OpKind::Context(_) | OpKind::Remote(_))
    }

    fn ignores_records(&self) -> bool {
        self.no_cache
    }

    fn is_heavy(&self) -> bool {
        matches!(self.kind, OpKind::Exec(_))
    }

    fn is_keyed_by_content(&self, input: usize) -> bool {
        // What COPY brings and what a mount shows decides, not how it came to be; the tree that it is brought
        // to is input 0.
        match &self.kind {
            OpKind::File(_) => input > 0,
            OpKind::Exec(op) => input > 0 && !op.keeps(input),
            _ => false,
        }
    }

    async fn content_key(
        &self,
        input: usize,
        output: Output,
        context: VertexContext,
    ) -> Result<CacheKey, BuildError> {
        let key = match &self.kind {
            OpKind::File(op) => {
                unless_cancelled(&context, op.content_key(input, output, &shown(&context))).await
            }
            OpKind::Exec(op) => {
                unless_cancelled(&context, op.content_key(input, output, &shown(&context))).await
            }
            // Never asked: `is_keyed_by_content` says so.
            OpKind::Image(_)
            | OpKind::Built(_)
            | OpKind::Context(_)
            | OpKind::Remote(_)
            | OpKind::Merge(_)
            | OpKind::Diff(_)
            | OpKind::Pick(_) => Ok(self.digest()),
        };
        key.map_err(|error| self.locate(error))
    }

    async fn exec(&self, inputs: Vec<Output>, context: VertexContext) -> Result<Output, BuildError> {
        let is_foreign = inputs.iter().any(Output::is_foreign);
        let result = match &self.kind {
            OpKind::Image(op) => Ok(op.exec()),
            OpKind::Built(op) => Ok(op.exec()),
            OpKind::Context(op) => unless_cancelled(&context, op.exec(&context)).await,
            OpKind::Remote(op) => op.exec(&context).await,
            OpKind::Merge(op) => Ok(op.exec(inputs)),
            OpKind::Diff(op) => op.exec(inputs, &context).await,
            OpKind::Pick(op) => op.exec(&inputs),
            OpKind::File(op) => op.exec(inputs, &context).await,
            OpKind::Exec(op) => op.exec(inputs, &context, &self.name, self.no_cache).await,
        };
        let result = if is_foreign { result.map(Output::into_foreign) } else { result };
        result.map_err(|error| self.locate(error))
    }
}

/// Tells contexts that are not here what the steps that targets need read of them.
pub(crate) fn want_of_contexts(graph: &Graph<BuildOp>, targets: &[VertexId]) {
    for vertex in graph.reachable(targets) {
        for (at, input) in graph.inputs(vertex).iter().enumerate() {
            if let OpKind::Context(context) = &graph.op(*input).kind {
                context.context.want(graph.op(vertex).paths_read(at));
            }
        }
    }
}

impl BuildOp {
    /// Returns the paths that are read of an input; `None` is all of it.
    fn paths_read(&self, input: usize) -> Option<Vec<String>> {
        match &self.kind {
            OpKind::File(op) => op.paths_read(input),
            OpKind::Exec(op) => exec_mounts::paths_read(&op.mounts, input),
            _ => None,
        }
    }

    fn locate(&self, error: BuildError) -> BuildError {
        match &self.location {
            Some(location) => error.at(location.clone()),
            None => error,
        }
    }
}

/// Does work that does not look whether the run shall stop, such as a transfer: then it is dropped. What has to clean up
/// after itself looks itself.
pub(crate) async fn unless_cancelled<T>(
    context: &VertexContext,
    work: impl Future<Output = Result<T, BuildError>>,
) -> Result<T, BuildError> {
    tokio::select! {
        biased;
        done = work => done,
        () = context.cancel.cancelled() => Err(BuildError::cancelled()),
    }
}

/// Returns where an operation's transfers are shown.
pub(crate) fn shown(context: &VertexContext) -> Shown {
    Shown { progress: context.progress.clone(), vertex: context.digest.clone() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::BoxFuture;
    use polyarch_solver::CancelFlag;
    use polyarch_solver::progress::Progress;

    use super::*;
    use crate::context::LocalContext;
    use crate::distant::{Distant, DistantDirectory, Wanted};
    use crate::error::ErrorKind;

    /// Never brings anything; tells when that is asked for, and when nobody waits for it any more.
    #[derive(Debug, Clone, Default)]
    struct Silent {
        cancel: Option<CancelOnAsk>,
        is_given_up: Arc<AtomicBool>,
    }

    #[derive(Clone)]
    struct CancelOnAsk(CancelFlag);

    impl std::fmt::Debug for CancelOnAsk {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("CancelOnAsk")
        }
    }

    struct NoteDrop(Arc<AtomicBool>);

    impl Drop for NoteDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl DistantDirectory for Silent {
        fn ignore_file<'a>(&'a self, _: &'a Progress) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
            Box::pin(std::future::ready(Ok(None)))
        }

        fn bring<'a>(&'a self, _: Wanted, _: &'a Shown) -> BoxFuture<'a, Result<PathBuf, BuildError>> {
            Box::pin(async {
                let _note = NoteDrop(self.is_given_up.clone());
                if let Some(CancelOnAsk(cancel)) = &self.cancel {
                    cancel.cancel();
                }
                std::future::pending().await
            })
        }
    }

    #[tokio::test]
    async fn a_client_that_brings_nothing_is_not_waited_for_when_the_run_shall_stop() {
        let cancel = CancelFlag::default();
        let silent = Silent { cancel: Some(CancelOnAsk(cancel.clone())), ..Silent::default() };
        let (distant, progress) = (Distant::new(silent.clone()), Progress::none());
        let context = Arc::new(LocalContext::open_distant_named(&distant, &progress).await.unwrap());
        let op = BuildOp {
            kind: OpKind::Context(context_op::ContextOp { identity: String::new(), context }),
            name: "".into(),
            location: None,
            no_cache: false,
        };
        let context = VertexContext { digest: "".into(), progress: Progress::none(), cancel };
        let error = op.exec(Vec::new(), context).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Cancelled);
        assert!(silent.is_given_up.load(Ordering::SeqCst));
    }
}
