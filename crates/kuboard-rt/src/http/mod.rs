//! The HTTP listener: HTTP/1.1 and HTTP/2, plain or TLS, over TCP or a unix socket.
//!
//! A request goes one way: socket (`wire.rs`) → connection → [`Handler`] → [`Body`]. The
//! listener bounds everything that a stranger controls ([`Limits`]), gives each request an id,
//! answers a panic with 500, and drains on stop. What the handler answers is sent the cheapest
//! way the connection allows: a mapped file leaves a plain HTTP/1.1 connection by
//! `sendfile(2)`, and TLS or HTTP/2 in slices of the map.

mod body;
mod connection;
mod exchange;
mod limits;
mod progress;
mod request;
mod server;
mod socket;
mod wire;

pub use body::Body;
pub use limits::Limits;
pub use request::{Peer, RequestBody, RequestId};
pub use server::{Bound, bind, bind_unix};

use crate::BoxFuture;
use std::sync::Arc;

/// What a [`Handler`] is asked.
pub type Request = ::http::Request<RequestBody>;

/// What a [`Handler`] answers.
pub type Response = ::http::Response<Body>;

/// Answers requests. The future is dropped when the client goes away; work that must outlive
/// the client belongs in a task of its own.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. A panic becomes a 500.
    fn handle(&self, request: Request) -> BoxFuture<'_, Response>;
}

/// A handler that is just a function.
pub fn handler_fn<F, A>(function: F) -> Arc<dyn Handler>
where
    F: Fn(Request) -> A + Send + Sync + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    struct Function<F>(F);

    impl<F, A> Handler for Function<F>
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
            Box::pin((self.0)(request))
        }
    }

    Arc::new(Function(function))
}
