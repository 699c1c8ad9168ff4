//! A stream that ends when the service shuts down, so that open streams do not hold up the drain.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// See the module.
pub(super) struct Until<S> {
    stream: S,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Until<S> {
    /// `stream`, up to `end`.
    pub(super) fn new(stream: S, end: &CancellationToken) -> Self {
        Self { stream, end: Box::pin(end.clone().cancelled_owned()) }
    }
}

impl<S: Stream + Unpin> Stream for Until<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        // What has arrived is answered still.
        match Pin::new(&mut self.stream).poll_next(cx) {
            Poll::Pending => self.end.as_mut().poll(cx).map(|()| None),
            ready => ready,
        }
    }
}
