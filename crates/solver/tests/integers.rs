// SPDX-License-Identifier: Apache-2.0
//! The engine, proved with integers: operations that count their calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use polyarch_solver::progress::{Event, Progress};
use polyarch_solver::{
    CacheKey, CancelFlag, Graph, Job, JobOptions, KeyHasher, Op, Records, SolveError, VertexContext,
};

/// Adds a constant to the sum of its inputs, and counts.
struct Sum {
    label: &'static str,
    add: i64,
    volatile: bool,
    by_content: bool,
    fails: bool,
    waits_for_stop: bool,
    no_cache: bool,
    runs: Arc<AtomicUsize>,
}

fn sum(label: &'static str, add: i64) -> Sum {
    Sum {
        label,
        add,
        volatile: false,
        by_content: false,
        fails: false,
        waits_for_stop: false,
        no_cache: false,
        runs: Arc::new(AtomicUsize::new(0)),
    }
}

impl Op for Sum {
    type Output = i64;
    type Error = String;

    fn digest(&self) -> CacheKey {
        // A volatile operation's constant stands for what the user changes behind our back.
        let add = if self.volatile { 0 } else { self.add };
        KeyHasher::new("sum").part(self.label).part(add.to_le_bytes()).finish()
    }

    fn name(&self) -> Arc<str> {
        self.label.into()
    }

    fn is_volatile(&self) -> bool {
        self.volatile
    }

    fn ignores_records(&self) -> bool {
        self.no_cache
    }

    fn is_keyed_by_content(&self, _input: usize) -> bool {
        self.by_content
    }

    async fn content_key(&self, _: usize, output: i64, _: VertexContext) -> Result<CacheKey, String> {
        Ok(KeyHasher::new("content").part(output.to_le_bytes()).finish())
    }

    async fn exec(&self, inputs: Vec<i64>, context: VertexContext) -> Result<i64, String> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.waits_for_stop {
            context.cancel.cancelled().await;
            return Err(format!("{} was stopped", self.label));
        }
        if self.fails {
            Err(format!("{} failed", self.label))
        } else {
            Ok(inputs.iter().sum::<i64>() + self.add)
        }
    }
}

#[derive(Default)]
struct Memory(Mutex<HashMap<CacheKey, i64>>);

impl Records<Sum> for Memory {
    fn load(&self, key: &CacheKey) -> Option<i64> {
        self.0.lock().expect("no test panics while holding it").get(key).copied()
    }

    fn save(&self, keys: &[CacheKey], _: &Sum, output: &i64) {
        self.0
            .lock()
            .expect("no test panics while holding it")
            .extend(keys.iter().map(|key| (*key, *output)));
    }
}

fn options(progress: Progress) -> JobOptions {
    JobOptions { progress, cancel: CancelFlag::default(), max_parallel: 4 }
}

async fn solve(
    graph: Graph<Sum>,
    target: polyarch_solver::VertexId,
    memory: &Arc<Memory>,
) -> Result<i64, SolveError<String>> {
    let job = Job::new(Arc::new(graph), memory.clone(), options(Progress::none()));
    job.solve(&[target]).await.remove(0)
}

#[tokio::test]
async fn a_diamond_runs_each_vertex_once() {
    let base = sum("base", 1);
    let runs = base.runs.clone();
    let mut graph = Graph::new();
    let base = graph.add(base, vec![]);
    let left = graph.add(sum("left", 10), vec![base]);
    let right = graph.add(sum("right", 20), vec![base]);
    let top = graph.add(sum("top", 0), vec![left, right]);
    assert_eq!(solve(graph, top, &Arc::default()).await.unwrap(), 32);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn identical_vertices_are_one() {
    let mut graph = Graph::new();
    let a = graph.add(sum("a", 1), vec![]);
    assert_eq!(graph.add(sum("a", 1), vec![]), a);
    assert_ne!(graph.add(sum("a", 2), vec![]), a);
}

#[tokio::test]
async fn a_second_run_executes_nothing() {
    let memory: Arc<Memory> = Arc::default();
    for expected_runs in [1, 0] {
        let (low, high) = (sum("low", 1), sum("high", 2));
        let runs = [low.runs.clone(), high.runs.clone()];
        let mut graph = Graph::new();
        let low = graph.add(low, vec![]);
        let high = graph.add(high, vec![low]);
        assert_eq!(solve(graph, high, &memory).await.unwrap(), 3);
        assert!(runs.iter().all(|runs| runs.load(Ordering::SeqCst) == expected_runs));
    }
}

#[tokio::test]
async fn a_volatile_input_is_keyed_by_its_content() {
    let memory: Arc<Memory> = Arc::default();
    let mut counts = Vec::new();
    // The same content is a hit also two steps further up; a changed one is not.
    for user_content in [5, 5, 6] {
        let context = Sum { volatile: true, ..sum("context", user_content) };
        let copy = Sum { by_content: true, ..sum("copy", 0) };
        let run = sum("run", 100);
        let runs = [copy.runs.clone(), run.runs.clone()];
        let mut graph = Graph::new();
        let context = graph.add(context, vec![]);
        let copy = graph.add(copy, vec![context]);
        let run = graph.add(run, vec![copy]);
        assert_eq!(solve(graph, run, &memory).await.unwrap(), user_content + 100);
        counts.push(runs.map(|runs| runs.load(Ordering::SeqCst)));
    }
    assert_eq!(counts, [[1, 1], [0, 0], [1, 1]]);
}

#[tokio::test]
async fn what_was_made_of_the_same_files_hits_without_the_steps_between() {
    // The reader of a step's content needs that step only when the files below have changed.
    let memory: Arc<Memory> = Arc::default();
    let mut counts = Vec::new();
    for (user_content, forgets) in [(5, false), (5, true), (6, true)] {
        let context = Sum { volatile: true, ..sum("context", user_content) };
        let copy = Sum { by_content: true, ..sum("copy", 0) };
        let run = sum("run", 100);
        let reader = Sum { by_content: true, ..sum("reader", 1) };
        let runs = [copy.runs.clone(), run.runs.clone(), reader.runs.clone()];
        let mut graph = Graph::new();
        let context = graph.add(context, vec![]);
        let copy = graph.add(copy, vec![context]);
        let run = graph.add(run, vec![copy]);
        let reader = graph.add(reader, vec![run]);
        let top = graph.add(sum("top", 1000), vec![reader]);
        if forgets {
            // What a place that has only the results' records would lack.
            memory.0.lock().unwrap().retain(|_, sum| *sum > 105);
        }
        assert_eq!(solve(graph, top, &memory).await.unwrap(), user_content + 1101);
        counts.push(runs.map(|runs| runs.load(Ordering::SeqCst)));
    }
    assert_eq!(counts, [[1, 1, 1], [0, 0, 0], [1, 1, 1]]);
}

#[tokio::test]
async fn what_stands_on_a_step_that_must_execute_is_not_taken_from_a_record() {
    let memory: Arc<Memory> = Arc::default();
    let mut counts = Vec::new();
    for (no_cache, result) in [(false, 1), (true, 1), (true, 2)] {
        // The same definition gives something else in the last round, as downloads do.
        let download = Sum { no_cache, volatile: false, ..sum("download", 0) };
        let change = Sum { volatile: true, ..sum("elsewhere", result) };
        let reader = Sum { by_content: true, ..sum("reader", 0) };
        let above = sum("above", 10);
        let runs = [download.runs.clone(), reader.runs.clone(), above.runs.clone()];
        let mut graph = Graph::new();
        let change = graph.add(change, vec![]);
        let download = Sum { by_content: true, ..download };
        let download = graph.add(download, vec![change]);
        let reader = graph.add(reader, vec![download]);
        let above = graph.add(above, vec![download]);
        let top = graph.add(sum("top", 0), vec![reader, above]);
        assert_eq!(solve(graph, top, &memory).await.unwrap(), 2 * result + 10);
        counts.push(runs.map(|runs| runs.load(Ordering::SeqCst)));
    }
    // Equal content serves its reader; what stands on the step itself executes with it.
    assert_eq!(counts, [[1, 1, 1], [1, 0, 1], [1, 1, 1]]);
}

#[tokio::test]
async fn a_changed_step_with_equal_content_hits_above() {
    let memory: Arc<Memory> = Arc::default();
    for (constant, expected) in [(1, 1), (-1, 0)] {
        // Two different definitions give 4; the reader keyed by content runs once.
        let source = sum("source", 3 * constant + if constant < 0 { 7 } else { 1 });
        let reader = Sum { by_content: true, ..sum("reader", 0) };
        let runs = reader.runs.clone();
        let mut graph = Graph::new();
        let other = graph.add(sum(if constant < 0 { "x" } else { "y" }, 0), vec![]);
        let source = graph.add(source, vec![other]);
        let reader = graph.add(reader, vec![source]);
        assert_eq!(solve(graph, reader, &memory).await.unwrap(), 4);
        assert_eq!(runs.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn a_failure_runs_once_and_names_its_vertex() {
    let failing = Sum { fails: true, ..sum("failing", 0) };
    let runs = failing.runs.clone();
    let mut graph = Graph::new();
    let failing = graph.add(failing, vec![]);
    let left = graph.add(sum("left", 1), vec![failing]);
    let right = graph.add(sum("right", 2), vec![failing]);
    let top = graph.add(sum("top", 0), vec![left, right]);
    match solve(graph, top, &Arc::default()).await {
        Err(SolveError::Op { vertex, source }) => {
            assert_eq!((vertex, source.as_str()), (failing, "failing failed"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_was_stopped_does_not_hide_the_failure_that_stopped_it() {
    let mut graph = Graph::new();
    let stopped = graph.add(Sum { waits_for_stop: true, ..sum("stopped", 0) }, vec![]);
    let failing = graph.add(Sum { fails: true, ..sum("failing", 0) }, vec![]);
    // What was stopped is the first input, and the first of what the other target waits for.
    let top = graph.add(sum("top", 0), vec![stopped, failing]);
    let other = graph.add(sum("other", 0), vec![stopped]);
    let job = Job::new(Arc::new(graph), Arc::new(Memory::default()), options(Progress::none()));
    let outcomes = job.solve(&[other, top]).await;
    let failures: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Err(SolveError::Op { vertex, source }) => Some((*vertex, source.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(failures, [(failing, "failing failed")]);
}

#[tokio::test]
async fn a_cancelled_run_executes_nothing_more() {
    let op = sum("never", 1);
    let runs = op.runs.clone();
    let mut graph = Graph::new();
    let target = graph.add(op, vec![]);
    let options = options(Progress::none());
    options.cancel.cancel();
    let job = Job::new(Arc::new(graph), Arc::new(Memory::default()), options);
    assert!(matches!(job.solve(&[target]).await[0], Err(SolveError::Cancelled)));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn no_cache_executes_and_records() {
    let memory: Arc<Memory> = Arc::default();
    for no_cache in [true, true, false] {
        let op = Sum { no_cache, ..sum("op", 1) };
        let runs = op.runs.clone();
        let mut graph = Graph::new();
        let target = graph.add(op, vec![]);
        solve(graph, target, &memory).await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), usize::from(no_cache));
    }
}

#[tokio::test]
async fn a_cached_target_reports_all_its_steps_as_cached() {
    let memory: Arc<Memory> = Arc::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..2 {
        let mut graph = Graph::new();
        let low = graph.add(sum("low", 1), vec![]);
        let high = graph.add(sum("high", 2), vec![low]);
        seen.lock().unwrap().clear();
        let sink = seen.clone();
        let progress = Progress::new(move |event| {
            if let Event::Vertex(vertex) = event {
                sink.lock().unwrap().push((vertex.name.to_string(), vertex.cached));
            }
        });
        let job = Job::new(Arc::new(graph), memory.clone(), options(progress));
        job.solve(&[high]).await.remove(0).unwrap();
    }
    let seen = seen.lock().unwrap();
    assert_eq!(*seen, [("low".to_owned(), true), ("high".to_owned(), true)]);
}

#[tokio::test]
async fn a_deep_graph_needs_no_deep_stack() {
    let mut graph = Graph::new();
    let mut top = graph.add(sum("op", 0), vec![]);
    for depth in 1..=500 {
        top = graph.add(sum("op", depth), vec![top]);
    }
    assert_eq!(solve(graph, top, &Arc::default()).await.unwrap(), 125_250);
}
