// SPDX-License-Identifier: Apache-2.0
//! The progress of a build as BuildKit keeps it: messages of its status stream, each behind its length.
//!
//! `application/vnd.buildkit.status.v0`: four bytes, the least significant first, then so many bytes of a
//! `StatusResponse`, again and again.

use polyarch_solver::progress::Event;
use prost::Message as _;

use super::MAX_ATTACHMENT_BYTES;
use crate::api::control::StatusResponse;

/// The media type.
pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.status.v0";

/// Writes messages one behind another; what is beyond the room for it is left out, but for the ends of steps.
pub(super) fn encode(messages: impl IntoIterator<Item = StatusResponse>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut message in messages {
        // Half of the room is for what steps wrote.
        if bytes.len() + message.encoded_len() > MAX_ATTACHMENT_BYTES / 2 {
            message.logs.clear();
            message.statuses.clear();
        }
        let size = message.encoded_len();
        let Ok(prefix) = u32::try_from(size) else { continue };
        if size == 0 || bytes.len() + size + 4 > MAX_ATTACHMENT_BYTES {
            continue;
        }
        bytes.extend_from_slice(&prefix.to_le_bytes());
        bytes.extend_from_slice(&message.encode_to_vec());
    }
    bytes
}

/// Reads what was kept as the events that it was made of, but for a few details.
pub fn events_of(bytes: &[u8]) -> Vec<Event> {
    messages_of(bytes).into_iter().flat_map(crate::client::status::events_of).collect()
}

/// Reads messages; ends where the bytes make no sense any more.
pub fn messages_of(mut bytes: &[u8]) -> Vec<StatusResponse> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<4>() {
        let size = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        let Some((message, rest)) = rest.split_at_checked(size) else { break };
        let Ok(message) = StatusResponse::decode(message) else { break };
        messages.push(message);
        bytes = rest;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::control::{Vertex, VertexLog};

    fn said(bytes: usize) -> StatusResponse {
        let log = VertexLog { msg: vec![b'x'; bytes], ..VertexLog::default() };
        let vertex = Vertex { name: "step".to_owned(), ..Vertex::default() };
        StatusResponse { logs: vec![log], vertexes: vec![vertex], ..StatusResponse::default() }
    }

    #[test]
    fn messages_come_back_and_garbage_ends_them() {
        let messages = vec![said(3), said(5)];
        let mut bytes = encode(messages.clone());
        assert_eq!(messages_of(&bytes), messages);
        bytes.extend_from_slice(&[255, 255, 255, 255, 1]);
        assert_eq!(messages_of(&bytes), messages);
        assert_eq!(messages_of(&[1, 2]), []);
    }

    #[test]
    fn what_steps_wrote_is_clipped_before_the_steps_are() {
        let bytes = encode((0..10).map(|_| said(1 << 20)));
        assert!(bytes.len() <= MAX_ATTACHMENT_BYTES);
        let messages = messages_of(&bytes);
        assert_eq!(messages.len(), 10);
        assert!(messages[9].logs.is_empty() && !messages[9].vertexes.is_empty());
    }
}
