// SPDX-License-Identifier: Apache-2.0
//! A method of a gRPC service: its path and messages, to be called and to be served.

use std::marker::PhantomData;

use futures_util::{FutureExt as _, Stream};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::body::Body;
use tonic::server::{ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::api::MAX_MESSAGE_BYTES;

/// A method that takes messages `Q` and gives messages `A`.
///
/// Which of the two are streams is a matter of the function called; a path alone doesn't tell.
pub struct Method<Q, A> {
    path: &'static str,
    messages: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Method<Q, A> {
    /// Names a method, `/package.Service/Method`.
    pub const fn new(path: &'static str) -> Method<Q, A> {
        Method { path, messages: PhantomData }
    }

    /// Returns `/package.Service/Method`.
    pub const fn path(&self) -> &'static str {
        self.path
    }
}

impl<Q, A> Method<Q, A>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    fn client(channel: &Channel) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn ready_client(channel: &Channel) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut client = Self::client(channel);
        client.ready().await.map_err(|error| Status::unavailable(crate::error::chain_of(&error)))?;
        Ok(client)
    }

    /// Calls it with one message for one message.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn call(&self, channel: &Channel, request: Request<Q>) -> Result<A, Status> {
        let mut client = Self::ready_client(channel).await?;
        let path = PathAndQuery::from_static(self.path);
        client.unary(request, path, ProstCodec::<Q, A>::default()).await.map(Response::into_inner)
    }

    /// Calls it with one message for a stream of messages.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn call_for_stream(
        &self,
        channel: &Channel,
        request: Request<Q>,
    ) -> Result<Response<Streaming<A>>, Status> {
        let mut client = Self::ready_client(channel).await?;
        let path = PathAndQuery::from_static(self.path);
        client.server_streaming(request, path, ProstCodec::<Q, A>::default()).await
    }

    /// Calls it with a stream for a stream.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn open<S>(&self, channel: &Channel, request: Request<S>) -> Result<Streaming<A>, Status>
    where
        S: Stream<Item = Q> + Send + 'static,
    {
        let mut client = Self::ready_client(channel).await?;
        let path = PathAndQuery::from_static(self.path);
        client.streaming(request, path, ProstCodec::<Q, A>::default()).await.map(Response::into_inner)
    }

    fn server() -> tonic::server::Grpc<ProstCodec<A, Q>> {
        tonic::server::Grpc::new(ProstCodec::default())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Serves one message for one message.
    pub async fn serve<F, T>(&self, request: http::Request<Body>, handle: F) -> http::Response<Body>
    where
        F: FnOnce(Request<Q>) -> T + Send,
        T: Future<Output = Result<A, Status>> + Send,
    {
        let handle = |request| handle(request).map(|answer| answer.map(Response::new));
        Self::server().unary(Once(Some(handle)), request).await
    }

    /// Serves a stream for one message.
    pub async fn serve_stream<F, T, S>(&self, request: http::Request<Body>, handle: F) -> http::Response<Body>
    where
        F: FnOnce(Request<Q>) -> T + Send,
        T: Future<Output = Result<Response<S>, Status>> + Send,
        S: Stream<Item = Result<A, Status>> + Send + 'static,
    {
        Self::server().server_streaming(Once(Some(handle)), request).await
    }

    /// Serves a stream for a stream.
    pub async fn exchange<F, T, S>(&self, request: http::Request<Body>, handle: F) -> http::Response<Body>
    where
        F: FnOnce(Request<Streaming<Q>>) -> T + Send,
        T: Future<Output = Result<Response<S>, Status>> + Send,
        S: Stream<Item = Result<A, Status>> + Send + 'static,
    {
        Self::server().streaming(Once(Some(handle)), request).await
    }
}

/// A handler of one call, in the form that tonic's server asks for.
struct Once<F>(Option<F>);

impl<F> Once<F> {
    fn take(&mut self) -> F {
        self.0.take().expect("each server is made for one request, and calls its handler once for it")
    }
}

impl<Q, A, F, T> UnaryService<Q> for Once<F>
where
    F: FnOnce(Request<Q>) -> T,
    T: Future<Output = Result<Response<A>, Status>>,
{
    type Response = A;
    type Future = T;

    fn call(&mut self, request: Request<Q>) -> T {
        self.take()(request)
    }
}

impl<Q, A, F, T, S> ServerStreamingService<Q> for Once<F>
where
    F: FnOnce(Request<Q>) -> T,
    T: Future<Output = Result<Response<S>, Status>>,
    S: Stream<Item = Result<A, Status>>,
{
    type Response = A;
    type ResponseStream = S;
    type Future = T;

    fn call(&mut self, request: Request<Q>) -> T {
        self.take()(request)
    }
}

impl<Q, A, F, T, S> StreamingService<Q> for Once<F>
where
    F: FnOnce(Request<Streaming<Q>>) -> T,
    T: Future<Output = Result<Response<S>, Status>>,
    S: Stream<Item = Result<A, Status>>,
{
    type Response = A;
    type ResponseStream = S;
    type Future = T;

    fn call(&mut self, request: Request<Streaming<Q>>) -> T {
        self.take()(request)
    }
}
