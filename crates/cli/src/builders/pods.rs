// SPDX-License-Identifier: Apache-2.0
//! The driver kubernetes: nodes that are pods of a cluster, made, reached and removed.
//!
//! What speaks to a cluster is behind the cargo feature `kubernetes`. Without it the driver is refused with the next
//! command to run, and builders that another program made with it are shown, but not used.

#[cfg(feature = "kubernetes")]
mod cluster;

#[cfg(feature = "kubernetes")]
pub use cluster::{boot, dialer, endpoint, remove, validate, validate_options};
#[cfg(not(feature = "kubernetes"))]
pub use without::{boot, dialer, endpoint, remove, validate, validate_options};

use polyarch_build::BuildError;

use crate::builders::{Builder, driver};
use crate::session::Session;
use crate::{CommandError, Environment};

/// Makes the pods of a builder's nodes and waits until they are ready; builders of other drivers need nothing.
///
/// # Errors
/// When the cluster refuses, or pods are not ready in time.
pub fn boot_builder(builder: &Builder, session: &Session) -> Result<(), CommandError> {
    let (environment, printer) = (&session.environment, session.printer);
    each_node(builder, async |node| {
        let report = |ready: u32, wanted: u32| {
            printer.message(&format!("{}: {ready} of {wanted} pods are ready\n", node.name));
        };
        boot(environment, node, report).await
    })
}

/// Removes the pods of a builder's nodes, with their caches.
///
/// # Errors
/// When the cluster refuses.
pub fn remove_builder(builder: &Builder, environment: &Environment) -> Result<(), CommandError> {
    each_node(builder, async |node| remove(environment, node).await)
}

/// Does something with each node, in a runtime that has ended afterwards: what follows may need a process of one thread.
fn each_node(
    builder: &Builder,
    work: impl AsyncFn(&super::BuilderNode) -> Result<(), BuildError>,
) -> Result<(), CommandError> {
    if builder.driver != driver::KUBERNETES {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::io("can't start", "a runtime", &error))?;
    let done = runtime.block_on(async {
        for node in &builder.nodes {
            work(node).await?;
        }
        Ok(())
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done.map_err(|error: BuildError| error.into())
}

#[cfg(not(feature = "kubernetes"))]
mod without {
    use std::collections::BTreeMap;

    use polyarch_build::BuildError;
    use polyarch_buildkit::client::Dialer;

    use crate::builders::BuilderNode;
    use crate::{CommandError, Environment};

    /// Refuses the driver.
    ///
    /// # Errors
    /// Always.
    pub fn validate() -> Result<(), CommandError> {
        Err(CommandError::usage("the driver kubernetes is not built into this binary").with_hint(
            "build it with `cargo build --release --features kubernetes`, or name a pod's address with --driver \
             remote tcp://HOST:PORT",
        ))
    }

    /// Refuses the driver.
    ///
    /// # Errors
    /// Always.
    pub fn validate_options(_: &BTreeMap<String, String>) -> Result<(), CommandError> {
        validate()
    }

    /// Refuses the driver.
    ///
    /// # Errors
    /// Always.
    pub fn endpoint(_: &str, _: &str, _: Option<&str>) -> Result<String, CommandError> {
        validate().map(|()| String::new())
    }

    /// Knows no way.
    pub fn dialer(_: &Environment, _: &BuilderNode) -> Option<Dialer> {
        None
    }

    /// Refuses the driver.
    ///
    /// # Errors
    /// Always.
    pub async fn boot(_: &Environment, _: &BuilderNode, _: impl FnMut(u32, u32)) -> Result<(), BuildError> {
        validate().map_err(|error| *error.error)
    }

    /// Refuses the driver.
    ///
    /// # Errors
    /// Always.
    pub async fn remove(_: &Environment, _: &BuilderNode) -> Result<(), BuildError> {
        validate().map_err(|error| *error.error)
    }
}
