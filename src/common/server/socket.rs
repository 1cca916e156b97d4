//! A TCP stream that notes its progress for the watchdog, sees whether the client speaks HTTP/2, and is lenient (see `leniency`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::common::server::activity::Activity;
use crate::common::server::leniency::{self, Line};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub struct WatchedSocket {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// What of the preface may still come; `None`: decided.
    preface_rest: Option<&'static [u8]>,
    line: Line,
    /// The request after which `line` began.
    n_requests: u32,
    /// Bytes read that did not fit the reader's buffer once they were encoded.
    inbound: Vec<u8>,
    /// An answer of our own that is not out yet.
    outbound: Vec<u8>,
}

impl WatchedSocket {
    pub fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            preface_rest: Some(HTTP2_PREFACE),
            line: Line::Method(0),
            n_requests: 0,
            inbound: Vec::new(),
            outbound: Vec::new(),
        }
    }

    fn note_bytes(&mut self, bytes: &[u8]) {
        self.activity.note_read();
        let Some(rest) = self.preface_rest else {
            return;
        };
        let n = bytes.len().min(rest.len());
        let (expected, later) = rest.split_at(n);
        self.preface_rest = bytes.starts_with(expected).then_some(later);
        if later.is_empty() && self.preface_rest.is_some() {
            self.preface_rest = None;
            self.activity.note_http2();
        }
    }
}

impl WatchedSocket {
    /// Puts as much of `inbound` into `buf` as fits.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.inbound.len().min(buf.remaining());
        buf.put_slice(self.inbound.get(..n).unwrap_or_default());
        self.inbound.drain(..n);
    }

    /// Encodes what was read since `before`, if it is in a request line and has to be.
    fn encode(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let (n_requests, is_in_flight) = self.activity.requests();
        if is_in_flight || self.activity.is_http2() {
            return;
        }
        if n_requests != self.n_requests {
            self.n_requests = n_requests;
            self.line = Line::Method(0);
        }
        if self.line == Line::Over {
            return;
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        if let Some(encoded) = leniency::encode_target(&mut self.line, read) {
            buf.set_filled(before);
            self.inbound = encoded;
            self.deliver(buf);
        }
    }

    /// Ready when nothing of our own is left to send.
    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbound.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_write(cx, &self.outbound);
            self.activity.note_write(polled.is_pending());
            let n = std::task::ready!(polled)?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbound.drain(..n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for WatchedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.inbound.is_empty() {
            self.deliver(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            self.note_bytes(read);
            self.encode(buf, before);
        }
        polled
    }
}

impl AsyncWrite for WatchedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_outbound(cx))?;
        if let Some(answer) = leniency::explained_refusal(bytes) {
            self.outbound = answer;
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.activity.note_write(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_outbound(cx))?;
        if let [head] = slices
            && let Some(answer) = leniency::explained_refusal(head)
        {
            self.outbound = answer;
            return Poll::Ready(Ok(head.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.activity.note_write(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_outbound(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_outbound(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
