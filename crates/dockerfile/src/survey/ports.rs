// SPDX-License-Identifier: Apache-2.0
//! What EXPOSE says besides ports.

use crate::lint::{Linter, rule};
use crate::{Instruction, Span};

/// Looks at one word of EXPOSE, expanded.
pub(super) fn check_port(text: &str, instruction: &Instruction, linter: &mut Linter) {
    let span: Span = instruction.span;
    let (host, container) = match text.rsplit_once(':') {
        Some((host, container)) => (host, container),
        None => ("", text),
    };
    let protocol = container.split_once('/').map_or("", |(_, protocol)| protocol);
    if protocol != protocol.to_lowercase() {
        let detail = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        linter.report(&rule::EXPOSE_PROTO_CASING, &instruction.comments, span, detail);
    }
    // An empty host address and an empty host port say nothing.
    if !host.trim_matches(':').is_empty() {
        let detail = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
        );
        linter.report(&rule::EXPOSE_INVALID_FORMAT, &instruction.comments, span, detail);
    }
}
