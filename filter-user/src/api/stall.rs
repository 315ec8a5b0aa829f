//! A stream whose writes fail when the reader takes nothing, and sends nothing, for too long.
//!
//! Without it, one who asks and never reads would hold its connection for ever: the other time bounds end with the
//! answer being ready.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

pub(super) struct Stalling<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Stalling<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Stalling<S> {
        Stalling {
            stream,
            patience,
            timer: Box::pin(tokio::time::sleep(patience)),
            waiting: false,
        }
    }

    /// Passes on what a write gave, and starts or stops the timer by it.
    fn timed<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = false;
            return result;
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            ErrorKind::TimedOut,
            "the reader takes nothing of its answer",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.waiting && buffer.filled().len() > before {
            // Who sends is there: one who sends all of a batch before it reads takes its time.
            let deadline = Instant::now() + self.patience;
            self.timer.as_mut().reset(deadline);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.timed(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.timed(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.timed(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.timed(context, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn peer_that_sends_all_before_it_reads_is_waited_for() {
        let patience = Duration::from_millis(300);
        let (near, mut far) = tokio::io::duplex(16);
        let (mut from, mut to) = tokio::io::split(Stalling::new(near, patience));
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 16];
            while from.read_exact(&mut bytes).await.is_ok() {}
        });
        let writing = tokio::spawn(async move { to.write_all(&[0; 64]).await });
        let began = Instant::now();
        while began.elapsed() < patience * 3 {
            far.write_all(&[1; 16]).await.unwrap();
            tokio::time::sleep(patience / 10).await;
        }
        let mut answer = [0; 64];
        far.read_exact(&mut answer).await.unwrap();
        writing.await.unwrap().unwrap();
        drop(far);
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn reader_who_takes_nothing_ends_the_write_and_one_who_reads_does_not() {
        let patience = Duration::from_millis(50);
        let (near, far) = tokio::io::duplex(16);
        let mut stalling = Stalling::new(near, patience);
        let error = stalling.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(far);

        let (near, mut far) = tokio::io::duplex(16);
        let mut stalling = Stalling::new(near, patience);
        let reader = tokio::spawn(async move {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.map(|_| bytes.len())
        });
        stalling.write_all(&[0; 64]).await.unwrap();
        drop(stalling);
        assert_eq!(reader.await.unwrap().unwrap(), 64);
    }
}
