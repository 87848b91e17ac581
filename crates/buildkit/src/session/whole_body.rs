// SPDX-License-Identifier: Apache-2.0
//! A request's body that ends only where its sender ended it.
//!
//! tonic takes a request that the peer has cancelled (HTTP/2's CANCEL) for one that has ended. For an export
//! that would make a part of an archive the whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// The body; whatever breaks it off is an error of a code that tonic takes for one.
pub(crate) struct WholeBody(pub(crate) Incoming);

impl Body for WholeBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(
            frame.map(|frame| frame.map_err(|error| tonic::Status::aborted(crate::error::chain_of(&error)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
