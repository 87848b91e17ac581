// SPDX-License-Identifier: Apache-2.0
//! Our errors as a client understands them: a code, a sentence, and details that show the place.
//!
//! The details are BuildKit's: `Any`s whose bytes are JSON (`errdefs.Source+json` has the Dockerfile and the
//! lines, `gatewayapi.ExitMessage+json` the exit code), in the `grpc-status-details-bin` header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_build::{BuildError, ErrorKind};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::api::rpc;

/// The largest Dockerfile that goes into a header; clients take so much and not more.
const MAX_SOURCE_BYTES: usize = 32 << 10;
/// The most lines that an error points at.
const MAX_LINES: usize = 100;

/// Puts an error into a status.
pub(crate) fn status_of(error: &BuildError) -> Status {
    let code = match error.kind {
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Storage => Code::Internal,
        // Clients print any other code before the text; BuildKit's own errors have none.
        _ => Code::Unknown,
    };
    let mut message = error.message.clone();
    if !error.hints.is_empty() {
        // Clients show one text and nothing else.
        message = format!("{message} ({})", error.hints.join("; "));
    }
    let mut details = Vec::new();
    if let Some(exit_code) = error.exit_code {
        details.push(detail("gatewayapi.ExitMessage+json", &json!({ "code": exit_code })));
    }
    if let Some(location) = &error.location
        && location.text.len() <= MAX_SOURCE_BYTES
    {
        // As BuildKit does, one for each line.
        let range = |line: u32| json!({ "start": { "line": line }, "end": { "line": line } });
        let source = json!({
            "info": {
                "filename": location.file,
                "data": STANDARD.encode(location.text.as_bytes()),
                "language": "Dockerfile",
                // Where the file came from; clients only look whether it is there.
                "definition": {},
            },
            "ranges": location.lines.clone().take(MAX_LINES).map(range).collect::<Vec<_>>(),
        });
        details.push(detail("errdefs.Source+json", &source));
    }
    if let Some(vertex) = &error.vertex {
        details.push(detail("errdefs.Vertex+json", &json!({ "digest": vertex })));
    }
    // Clients print this when they are to tell more: whose error it is.
    let origin = json!({
        "frames": [{ "Name": format!("polyarch_build::ErrorKind::{:?}", error.kind) }],
        "cmdline": ["polyarch"],
        "version": format!("v{}", env!("CARGO_PKG_VERSION")),
    });
    details.push(detail("stack.Stack+json", &origin));
    let status = rpc::Status { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// Says what became of work of ours that has not ended by itself: a mistake of the node's own, which ends that
/// work alone, or the end of the node.
pub(crate) fn status_of_lost_task(error: &tokio::task::JoinError) -> Status {
    if error.is_panic() { internal_error() } else { Status::unavailable("the node is shutting down") }
}

/// Says that a mistake of the node's own ended a call. What exactly, is for whoever runs the node.
pub(crate) fn internal_error() -> Status {
    Status::internal(
        "internal error of the node, whose log tells where; please report it. Other builds go on",
    )
}

/// Says that a frontend lacks what a client needs.
pub(crate) fn unsupported_capability(name: &str) -> Status {
    let message = format!("unsupported frontend capability {name}");
    let details = vec![detail("errdefs.FrontendCap+json", &json!({ "name": name }))];
    let status = rpc::Status { code: Code::Unimplemented.into(), message: message.clone(), details };
    Status::with_details(Code::Unimplemented, message, status.encode_to_vec().into())
}

/// Says that a question about a Dockerfile is not known.
pub(crate) fn unsupported_request(name: &str) -> Status {
    let message = format!("unsupported request {name}");
    let details = vec![detail("errdefs.Subrequest+json", &json!({ "name": name }))];
    let status = rpc::Status { code: Code::Unimplemented.into(), message: message.clone(), details };
    Status::with_details(Code::Unimplemented, message, status.encode_to_vec().into())
}

fn detail(kind: &str, value: &Value) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("github.com/moby/buildkit/{kind}"),
        value: value.to_string().into_bytes(),
    }
}

/// Returns the status that a client has put into a message, with its details.
pub(crate) fn status_of_message(message: rpc::Status) -> Status {
    let code = match Code::from_i32(message.code) {
        Code::Ok => Code::Unknown,
        code => code,
    };
    let text = message.message.clone();
    Status::with_details(code, text, message.encode_to_vec().into())
}

/// Returns a status as a message, with its details.
pub(crate) fn message_of_status(status: &Status) -> rpc::Status {
    match rpc::Status::decode(status.details()) {
        Ok(message) if !status.details().is_empty() => message,
        _ => rpc::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use polyarch_build::error::SourceLocation;

    use super::*;

    #[test]
    fn place_and_exit_code_are_told() {
        let location = SourceLocation {
            file: "Dockerfile".to_owned(),
            text: "FROM scratch\nRUN x\n".into(),
            lines: 2..=2,
        };
        let mut error =
            BuildError::new(ErrorKind::Step, "process failed").with_hint("try again").at(location);
        error.exit_code = Some(3);
        error.vertex = Some("sha256:00".into());
        let status = status_of(&error);
        assert_eq!((status.code(), status.message()), (Code::Unknown, "process failed (try again)"));
        let message = rpc::Status::decode(status.details()).unwrap();
        let kinds: Vec<&str> = message.details.iter().map(|it| it.type_url.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "github.com/moby/buildkit/gatewayapi.ExitMessage+json",
                "github.com/moby/buildkit/errdefs.Source+json",
                "github.com/moby/buildkit/errdefs.Vertex+json",
                "github.com/moby/buildkit/stack.Stack+json",
            ]
        );
        let source: Value = serde_json::from_slice(&message.details[1].value).unwrap();
        assert_eq!(source["ranges"][0]["start"]["line"], 2);
        let again = status_of_message(message);
        assert_eq!((again.code(), again.message()), (Code::Unknown, "process failed (try again)"));
    }
}
