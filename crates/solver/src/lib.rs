// SPDX-License-Identifier: Apache-2.0
//! A graph of cacheable operations, each solved once.
//!
//! The engine knows no containers. Three memoized recursions over a run-once map do all the work:
//!
//! ```text
//! fast(vertex)   = digest + fast(inputs)                                 executes nothing
//! slow(vertex)   = digest + content key of inputs keyed by content       executes only what those keys read
//!                         + slow(other inputs)
//! result(vertex) = record under fast → load
//!                  else record under slow → load and link
//!                  else execute on the inputs, save under both
//! ```
//!
//! A vertex runs at most once in a [`Job`]; nothing outside a vertex's digest and inputs changes its
//! keys. Identical vertices are one vertex, whoever added them.

mod graph;
mod job;
mod key;
pub mod progress;
mod traits;

pub use graph::{Graph, VertexId};
pub use job::{CancelFlag, Job, JobOptions, Op, Records, SolveError, VertexContext};
pub use key::{CacheKey, KeyHasher};
