// SPDX-License-Identifier: Apache-2.0
//! One run over a graph: keys, records, execution.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::sync::{Notify, OnceCell, Semaphore};

use crate::graph::Node;
use crate::progress::{Event, Progress, Vertex};
use crate::traits::Traits;
use crate::{CacheKey, Graph, KeyHasher, VertexId};

/// All that the engine knows about work.
pub trait Op: Send + Sync + 'static {
    /// What execution gives; cheap to clone.
    type Output: Clone + Send + Sync + 'static;
    /// How execution fails.
    type Error: std::fmt::Display + Send + Sync + 'static;

    /// Returns the digest of the definition, inputs left out.
    fn digest(&self) -> CacheKey;

    /// Returns the name for people.
    fn name(&self) -> Arc<str>;

    /// Tells whether the definition does not determine the result, as with a directory of the user's.
    ///
    /// A volatile vertex has no record; readers key it by content.
    fn is_volatile(&self) -> bool {
        false
    }

    /// Tells whether an existing record must not be used.
    fn ignores_records(&self) -> bool {
        false
    }

    /// Tells whether it runs something heavy, whose number at a time is limited.
    fn is_heavy(&self) -> bool {
        false
    }

    /// Tells whether an input enters the slow key by its content.
    fn is_keyed_by_content(&self, input: usize) -> bool;

    /// Computes the key of what this operation reads of an input.
    fn content_key(
        &self,
        input: usize,
        output: Self::Output,
        context: VertexContext,
    ) -> impl Future<Output = Result<CacheKey, Self::Error>> + Send;

    /// Executes on the results of the inputs, in order.
    fn exec(
        &self,
        inputs: Vec<Self::Output>,
        context: VertexContext,
    ) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send;
}

/// What is remembered from run to run.
///
/// A record is complete or absent. Failing to write one is not an error of the run; the
/// implementation reports it on its own.
pub trait Records<O: Op>: Send + Sync + 'static {
    /// Returns the result recorded under a key, when all that it names is still there.
    fn load(&self, key: &CacheKey) -> Option<O::Output>;

    /// Records a result under keys.
    fn save(&self, keys: &[CacheKey], op: &O, output: &O::Output);
}

/// What an executing operation may use of its run.
#[derive(Clone)]
pub struct VertexContext {
    /// The identity of the vertex in progress events.
    pub digest: Arc<str>,
    /// Where events go.
    pub progress: Progress,
    /// Set when the run shall stop.
    pub cancel: CancelFlag,
}

/// Asks a run to stop; cheap to clone.
#[derive(Clone, Default)]
pub struct CancelFlag(Arc<CancelState>);

#[derive(Default)]
struct CancelState {
    is_set: AtomicBool,
    notify: Notify,
}

impl CancelFlag {
    /// Asks to stop.
    pub fn cancel(&self) {
        self.0.is_set.store(true, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// Tells whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Waits until it is asked to stop.
    pub async fn cancelled(&self) {
        loop {
            let notified = self.0.notify.notified();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }
}

/// Why a vertex has no result.
#[derive(Debug, thiserror::Error)]
pub enum SolveError<E: std::fmt::Display> {
    /// The vertex, or one that it needs, failed.
    #[error("{source}")]
    Op {
        /// The vertex that failed.
        vertex: VertexId,
        /// How it failed.
        source: Arc<E>,
    },
    /// The run was asked to stop.
    #[error("canceled")]
    Cancelled,
}

impl<E: std::fmt::Display> Clone for SolveError<E> {
    fn clone(&self) -> SolveError<E> {
        match self {
            SolveError::Op { vertex, source } => SolveError::Op { vertex: *vertex, source: source.clone() },
            SolveError::Cancelled => SolveError::Cancelled,
        }
    }
}

/// Settings of a run.
pub struct JobOptions {
    /// Where events go.
    pub progress: Progress,
    /// Stops the run from outside; also set by the first failure.
    pub cancel: CancelFlag,
    /// How many heavy operations execute at a time.
    pub max_parallel: usize,
}

type Outcome<O> = Result<<O as Op>::Output, SolveError<<O as Op>::Error>>;

type KeyOutcome<O> = Result<Option<CacheKey>, SolveError<<O as Op>::Error>>;

struct Slots<O: Op> {
    fast: std::sync::OnceLock<Option<CacheKey>>,
    chain: OnceCell<KeyOutcome<O>>,
    slow: OnceCell<KeyOutcome<O>>,
    /// What the vertex reads of each input.
    contents: Vec<OnceCell<Result<CacheKey, SolveError<O::Error>>>>,
    result: OnceCell<Outcome<O>>,
    is_reported: AtomicBool,
}

/// One run; each vertex executes at most once in it.
pub struct Job<O: Op, R>(Arc<Run<O, R>>);

struct Run<O: Op, R> {
    graph: Arc<Graph<O>>,
    records: Arc<R>,
    options: JobOptions,
    slots: Vec<Slots<O>>,
    traits: Vec<Traits>,
    heavy: Semaphore,
    /// What stopped the run.
    failure: std::sync::OnceLock<SolveError<O::Error>>,
}

impl<O: Op, R: Records<O>> Job<O, R> {
    /// Starts a run.
    pub fn new(graph: Arc<Graph<O>>, records: Arc<R>, options: JobOptions) -> Job<O, R> {
        let slot = |at: usize| Slots {
            fast: std::sync::OnceLock::new(),
            chain: OnceCell::new(),
            slow: OnceCell::new(),
            contents: graph.nodes[at].inputs.iter().map(|_| OnceCell::new()).collect(),
            result: OnceCell::new(),
            is_reported: AtomicBool::new(false),
        };
        let slots = (0..graph.len()).map(slot).collect();
        let heavy = Semaphore::new(options.max_parallel.max(1));
        let traits = Traits::of_all(&graph);
        let failure = std::sync::OnceLock::new();
        Job(Arc::new(Run { graph, records, options, slots, traits, heavy, failure }))
    }

    /// Solves several vertices at a time; results are in the order of `targets`.
    ///
    /// When an operation failed, at least one of them says so: which, if all were only stopped, is no matter.
    pub async fn solve(&self, targets: &[VertexId]) -> Vec<Outcome<O>> {
        let mut outcomes = join_all(targets.iter().map(|target| self.0.result(*target))).await;
        let tells_why = outcomes.iter().any(|outcome| matches!(outcome, Err(SolveError::Op { .. })));
        if let Some(failure) = self.0.failure.get().filter(|_| !tells_why)
            && let Some(stopped) = outcomes.iter_mut().find(|outcome| outcome.is_err())
        {
            *stopped = Err(failure.clone());
        }
        outcomes
    }

    /// Returns the keys of a vertex that are known by now, under any of which its result was recorded or would
    /// be. Computes nothing.
    pub fn known_keys(&self, id: VertexId) -> Vec<CacheKey> {
        let slots = &self.0.slots[id.0];
        let fast = slots.fast.get().copied().flatten();
        let known = |slot: &OnceCell<KeyOutcome<O>>| slot.get().and_then(|key| key.clone().ok().flatten());
        [fast, known(&slots.chain), known(&slots.slow)].into_iter().flatten().collect()
    }
}

impl<O: Op, R: Records<O>> Run<O, R> {
    /// Returns the key of the definition, `None` below a volatile vertex. Executes nothing.
    fn fast(&self, id: VertexId) -> Option<CacheKey> {
        // Inputs have smaller numbers than their readers, so a loop replaces deep recursion.
        for vertex in self.graph.reachable(&[id]) {
            let node = self.node(vertex);
            self.slots[vertex.0].fast.get_or_init(|| {
                if node.op.is_volatile() {
                    return None;
                }
                let mut hasher = KeyHasher::new("fast");
                hasher.part(node.op.digest().as_bytes());
                for input in &node.inputs {
                    hasher.part((*self.slots[input.0].fast.get()?)?.as_bytes());
                }
                Some(hasher.finish())
            });
        }
        self.slots[id.0].fast.get().copied().flatten()
    }

    /// Returns the key of the definition and of the content of volatile inputs, `None` where another key tells
    /// the same. Executes nothing but volatile vertices.
    fn chain(self: &Arc<Self>, id: VertexId) -> BoxFuture<'_, KeyOutcome<O>> {
        let run = self.clone();
        let start = move || own_task(async move { run.compute_chain(id).await });
        Box::pin(async move { self.slots[id.0].chain.get_or_init(start).await.clone() })
    }

    async fn compute_chain(self: &Arc<Self>, id: VertexId) -> KeyOutcome<O> {
        if !self.traits[id.0].has_chain {
            return Ok(None);
        }
        let node = self.node(id);
        let parts = join_all(node.inputs.iter().enumerate().map(|(at, input)| async move {
            let is_volatile = self.node(*input).op.is_volatile();
            match (is_volatile, node.op.is_keyed_by_content(at), self.fast(*input)) {
                (true, true, _) => self.content(id, at).await.map(Some),
                (true, false, _) => Ok(None),
                (false, _, Some(fast)) => Ok(Some(fast)),
                (false, _, None) if self.traits[input.0].has_chain => self.chain(*input).await,
                (false, _, None) => self.slow(*input).await,
            }
        }))
        .await;
        self.hash("chain", id, parts)
    }

    /// Puts a key together; there is none where a part is missing.
    fn hash(&self, kind: &str, id: VertexId, parts: Vec<KeyOutcome<O>>) -> KeyOutcome<O> {
        let mut hasher = KeyHasher::new(kind);
        hasher.part(self.node(id).op.digest().as_bytes());
        for part in parts {
            let Some(key) = part? else { return Ok(None) };
            hasher.part(key.as_bytes());
        }
        Ok(Some(hasher.finish()))
    }

    /// Returns the key of what a vertex reads of an input.
    fn content(
        self: &Arc<Self>,
        id: VertexId,
        at: usize,
    ) -> BoxFuture<'_, Result<CacheKey, SolveError<O::Error>>> {
        let run = self.clone();
        let start = move || {
            own_task(async move {
                let node = run.node(id);
                let output = run.result(node.inputs[at]).await?;
                let key = node.op.content_key(at, output, run.context(id)).await;
                key.map_err(|error| run.fail(id, error))
            })
        };
        Box::pin(async move { self.slots[id.0].contents[at].get_or_init(start).await.clone() })
    }

    /// Returns the key by content, `None` for a volatile vertex.
    fn slow(self: &Arc<Self>, id: VertexId) -> BoxFuture<'_, KeyOutcome<O>> {
        let run = self.clone();
        let start = move || own_task(async move { run.compute_slow(id).await });
        Box::pin(async move { self.slots[id.0].slow.get_or_init(start).await.clone() })
    }

    async fn compute_slow(self: &Arc<Self>, id: VertexId) -> KeyOutcome<O> {
        let node = self.node(id);
        if node.op.is_volatile() {
            return Ok(None);
        }
        let parts = join_all(node.inputs.iter().enumerate().map(|(at, input)| async move {
            match node.op.is_keyed_by_content(at) {
                true => self.content(id, at).await.map(Some),
                false => self.slow(*input).await,
            }
        }))
        .await;
        self.hash("slow", id, parts)
    }

    fn result(self: &Arc<Self>, id: VertexId) -> BoxFuture<'_, Outcome<O>> {
        let run = self.clone();
        let start = move || own_task(async move { run.compute_result(id).await });
        Box::pin(async move { self.slots[id.0].result.get_or_init(start).await.clone() })
    }

    async fn compute_result(self: &Arc<Self>, id: VertexId) -> Outcome<O> {
        let node = self.node(id);
        let fast = self.fast(id);
        let Traits { is_definition_stale, is_slow_stale, .. } = self.traits[id.0];
        let load = |key: Option<CacheKey>, is_stale: bool| {
            key.filter(|_| !is_stale).and_then(|key| self.records.load(&key))
        };
        if let Some(output) = load(fast, is_definition_stale) {
            self.report_cached(id);
            return Ok(output);
        }
        if self.options.cancel.is_cancelled() {
            return Err(SolveError::Cancelled);
        }
        let chain = self.chain(id).await?;
        if let Some(output) = load(chain, is_definition_stale) {
            self.report_cached(id);
            return Ok(output);
        }
        let slow = self.slow(id).await?;
        let by_definition: Vec<CacheKey> = fast.into_iter().chain(chain).collect();
        if let Some(output) = load(slow, is_slow_stale) {
            self.report_cached(id);
            if !by_definition.is_empty() {
                self.records.save(&by_definition, &node.op, &output);
            }
            return Ok(output);
        }
        // All inputs are awaited even when one fails: none may be left half-done and run again.
        let inputs = join_all(node.inputs.iter().map(|input| self.result(*input))).await;
        let inputs = inputs.into_iter().collect::<Result<Vec<_>, _>>()?;
        let output = self.execute(id, inputs).await?;
        let keys: Vec<CacheKey> = by_definition.into_iter().chain(slow).collect();
        if !keys.is_empty() {
            self.records.save(&keys, &node.op, &output);
        }
        Ok(output)
    }

    async fn execute(&self, id: VertexId, inputs: Vec<O::Output>) -> Outcome<O> {
        let node = self.node(id);
        let permit = if node.op.is_heavy() { Some(self.heavy.acquire().await) } else { None };
        if self.options.cancel.is_cancelled() {
            return Err(SolveError::Cancelled);
        }
        let mut vertex = self.vertex(id);
        vertex.started = Some(SystemTime::now());
        let is_shown = !vertex.name.is_empty();
        self.slots[id.0].is_reported.store(true, Ordering::SeqCst);
        if is_shown {
            self.options.progress.send(Event::Vertex(vertex.clone()));
        }
        let outcome = node.op.exec(inputs, self.context(id)).await;
        drop(permit);
        vertex.completed = Some(SystemTime::now());
        if let Err(error) = &outcome {
            vertex.error =
                if self.options.cancel.is_cancelled() { "canceled".to_owned() } else { error.to_string() };
        }
        if is_shown {
            self.options.progress.send(Event::Vertex(vertex));
        }
        outcome.map_err(|error| self.fail(id, error))
    }

    /// Turns a failure into the run's error, and stops the rest of the run.
    fn fail(&self, vertex: VertexId, error: O::Error) -> SolveError<O::Error> {
        if self.options.cancel.is_cancelled() {
            // What fails after the first failure fails because it was stopped.
            return SolveError::Cancelled;
        }
        let failure = SolveError::Op { vertex, source: Arc::new(error) };
        let failure = self.failure.get_or_init(|| failure).clone();
        self.options.cancel.cancel();
        failure
    }

    /// Reports a vertex and all that it needs as found in the cache, inputs first.
    fn report_cached(&self, id: VertexId) {
        for vertex_id in self.graph.reachable(&[id]) {
            if self.slots[vertex_id.0].is_reported.swap(true, Ordering::SeqCst) {
                continue;
            }
            let mut vertex = self.vertex(vertex_id);
            if vertex.name.is_empty() || self.node(vertex_id).op.is_volatile() {
                continue;
            }
            vertex.started = Some(SystemTime::now());
            vertex.completed = vertex.started;
            vertex.cached = true;
            self.options.progress.send(Event::Vertex(vertex));
        }
    }

    fn node(&self, id: VertexId) -> &Node<O> {
        &self.graph.nodes[id.0]
    }

    fn context(&self, id: VertexId) -> VertexContext {
        VertexContext {
            digest: self.graph.progress_digest(id),
            progress: self.options.progress.clone(),
            cancel: self.options.cancel.clone(),
        }
    }

    fn vertex(&self, id: VertexId) -> Vertex {
        let node = self.node(id);
        Vertex {
            digest: self.graph.progress_digest(id),
            inputs: node.inputs.iter().map(|input| self.graph.progress_digest(*input)).collect(),
            name: node.op.name(),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
        }
    }
}

/// Runs a vertex's work as a task of its own: deep graphs need no deep stack, and work once begun is
/// never dropped half-way because somebody stopped waiting for it.
fn own_task<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
    let task = tokio::spawn(work);
    Box::pin(async move {
        match task.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(value) => value,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and this task will be dropped like that one.
            Err(Err(_)) => std::future::pending().await,
        }
    })
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
