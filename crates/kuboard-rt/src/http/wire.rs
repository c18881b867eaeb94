//! The stream under a connection: counts progress, and turns bytes that lie in a mapped file
//! into `sendfile(2)`.
//!
//! The HTTP library knows only buffers. On a plain HTTP/1.1 connection, the body of a mapped
//! response is handed to it as slices of the map, which it passes on without looking inside.
//! Here the address of each buffer is compared with the map of the response being sent: if it
//! lies inside, the kernel is told (file, offset, length) instead, and the bytes are neither
//! copied nor even mapped in. A buffer from anywhere else is written as usual, so a wrong
//! guess costs time and never changes a byte.

use super::progress::Progress;
use super::socket::Socket;
use crate::Mapping;
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The map of the response that a connection is sending. Holding it keeps its addresses from
/// being given to other memory.
#[derive(Default)]
pub(crate) struct Slot(Mutex<Held>);

#[derive(Default)]
struct Held {
    mapping: Option<Arc<Mapping>>,
    /// The response is over; once flushed, the map may go.
    ended: bool,
}

impl Slot {
    /// The next response sends parts of `mapping`.
    pub(crate) fn hold(&self, mapping: Arc<Mapping>) {
        *self.0.lock() = Held { mapping: Some(mapping), ended: false };
    }

    /// The response was handed over whole, or given up.
    pub(crate) fn end(&self) {
        self.0.lock().ended = true;
    }

    /// Lets go of a map whose response has left: an idle connection must not keep a deleted
    /// file's space.
    fn flushed(&self) {
        let mut held = self.0.lock();
        if held.ended {
            held.mapping = None;
        }
    }

    fn mapping(&self) -> Option<Arc<Mapping>> {
        self.0.lock().mapping.clone()
    }
}

pub(crate) struct Wire {
    socket: Socket,
    /// Bytes that were read to find out the protocol.
    prefix: Bytes,
    progress: Arc<Progress>,
    /// Present where `sendfile` may be used, that is, where nothing encrypts above.
    slot: Option<Arc<Slot>>,
}

impl Wire {
    pub(crate) fn new(socket: Socket, progress: Arc<Progress>) -> Self {
        Self { socket, prefix: Bytes::new(), progress, slot: None }
    }

    /// From now on, bytes in the map of `slot` leave by `sendfile`.
    pub(crate) fn set_slot(&mut self, slot: Arc<Slot>) {
        self.slot = Some(slot);
    }

    /// Puts bytes back in front of what is still to be read.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.prefix = bytes;
    }

    fn poll_write_bufs(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(first) = bufs.iter().position(|buf| !buf.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        let bufs = &bufs[first..];
        let Some(mapping) = self.slot.as_ref().and_then(|slot| slot.mapping()) else {
            return self.socket.poll_write_vectored(cx, bufs);
        };
        match run(&mapping, bufs) {
            Some((offset, len)) => {
                match ready!(self.socket.poll_call(cx, |to| sendfile(to, &mapping, offset, len))) {
                    Err(err) if is_unsupported(&err) => {
                        // Some filesystem cannot; the bytes are in reach anyway.
                        tracing::debug!("sendfile is not possible here, copying: {err}");
                        self.slot = None;
                        self.socket.poll_write_vectored(cx, bufs)
                    }
                    done => Poll::Ready(done),
                }
            }
            None => {
                let plain = bufs.iter().take_while(|buf| !lies_in(&mapping, buf)).count();
                if plain == bufs.len() {
                    self.socket.poll_write_vectored(cx, bufs)
                } else {
                    // The head of a response: its body follows at once, in the same packets.
                    self.socket.poll_call(cx, |to| send_more(to, &bufs[..plain]))
                }
            }
        }
    }
}

/// If `bufs` begin in `mapping`: the offset, and the length as far as they go on there.
fn run(mapping: &Mapping, bufs: &[IoSlice<'_>]) -> Option<(u64, usize)> {
    let (first, rest) = bufs.split_first()?;
    let offset = mapping.contains(first.as_ptr(), first.len())?;
    let mut len = first.len();
    for buf in rest {
        if mapping.contains(buf.as_ptr(), buf.len()) != Some(offset + len as u64) {
            break;
        }
        len += buf.len();
    }
    Some((offset, len))
}

fn lies_in(mapping: &Mapping, buf: &IoSlice<'_>) -> bool {
    !buf.is_empty() && mapping.contains(buf.as_ptr(), buf.len()).is_some()
}

fn sendfile(to: RawFd, mapping: &Mapping, offset: u64, len: usize) -> io::Result<usize> {
    let mut offset = libc::off64_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: both descriptors are open, held by the socket and by `mapping`; `offset` is a
    // local that outlives the call.
    let sent = unsafe { libc::sendfile64(to, mapping.file().as_raw_fd(), &raw mut offset, len) };
    match usize::try_from(sent) {
        Ok(0) => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a mapped file has become shorter than it was",
        )),
        Ok(sent) => Ok(sent),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Writes, and lets the kernel wait for more before it sends a small packet.
fn send_more(to: RawFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: an all-zero msghdr is a valid one without name, control data and buffers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = bufs.as_ptr().cast_mut().cast();
    message.msg_iovlen = bufs.len() as _;
    let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: `IoSlice` is guaranteed to have the layout of iovec; the buffers live through the
    // call, which only reads them; their number is far below IOV_MAX.
    let sent = unsafe { libc::sendmsg(to, &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn is_unsupported(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EOVERFLOW)
    )
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return self.socket.poll_read(cx, buf);
        }
        let len = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..len]);
        self.prefix.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_write_bufs(cx, bufs);
        match &written {
            Poll::Ready(Ok(bytes)) => self.progress.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.progress.write_blocks(),
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(slot) = &self.slot {
            slot.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Body, Limits, Response, bind, handler_fn};
    use crate::{Mapping, Tasks};
    use std::fs::File;
    use std::io::Write;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// The map says `m` everywhere, the file says `f`.
    fn two_faced(len: usize) -> Arc<Mapping> {
        Mapping::two_faced(&file_of(&vec![b'm'; len]), file_of(&vec![b'f'; len]))
    }

    /// Writes `bufs` of a mapped file and other memory, with the mapping in the slot or not,
    /// until all is gone; what arrived is `expected`.
    async fn check(len: usize, in_slot: bool, bufs: &[&[u8]], expected: &[u8]) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mapping = two_faced(len);
        let mapped = mapping.slice(0..len as u64);
        let mut wire = Wire::new(Socket::Unix(ours), Arc::default());
        let slot = Arc::new(Slot::default());
        wire.set_slot(slot.clone());
        if in_slot {
            slot.hold(mapping.clone());
        }
        let mut slices: Vec<&[u8]> = bufs.to_vec();
        for slice in &mut slices {
            if *slice == b"MAP" {
                *slice = &mapped;
            }
        }
        let writing = async {
            let mut slices: Vec<IoSlice<'_>> = slices.iter().map(|s| IoSlice::new(s)).collect();
            let mut left = &mut slices[..];
            while !left.is_empty() {
                let written = wire.write_vectored(left).await.unwrap();
                IoSlice::advance_slices(&mut left, written);
            }
            wire.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(theirs.read_to_end(&mut got), writing);
        read.unwrap();
        assert!(got == expected, "{} bytes, {} expected", got.len(), expected.len());
    }

    #[tokio::test]
    async fn only_the_map_in_the_slot_leaves_by_sendfile() {
        let (f, m) = (vec![b'f'; 3_000_000], vec![b'm'; 3_000_000]);
        check(3_000_000, true, &[b"MAP"], &f).await;
        check(3_000_000, false, &[b"MAP"], &m).await;
        let around = |middle: &[u8]| [b"head", middle, b"tail"].concat();
        check(3_000_000, true, &[b"head", b"MAP", b"tail"], &around(&f)).await;
        check(3_000_000, false, &[b"he", b"ad", b"MAP", b"tail"], &around(&m)).await;
        check(10, true, &[b"a", b"MAP", b"b", b"MAP"], b"affffffffffbffffffffff").await;
        check(10, true, &[b"", b"head"], b"head").await;
    }

    #[test]
    fn neighbouring_pieces_become_one_call() {
        let mapping = two_faced(1_000);
        let bytes = mapping.slice(0..1_000);
        let other = [0_u8; 4];
        let at = |range: std::ops::Range<usize>| IoSlice::new(&bytes[range]);
        let cases = [
            (vec![at(5..10), at(10..700), at(700..900)], Some((5, 895))),
            (vec![at(5..10), at(11..12)], Some((5, 5))),
            (vec![at(5..10), IoSlice::new(&other)], Some((5, 5))),
            (vec![IoSlice::new(&other), at(5..10)], None),
        ];
        for (bufs, expected) in cases {
            assert_eq!(run(&mapping, &bufs), expected);
        }
    }

    #[tokio::test]
    async fn the_slot_lets_go_once_the_response_has_left() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(Socket::Unix(ours), Arc::default());
        let slot = Arc::new(Slot::default());
        wire.set_slot(slot.clone());
        let mapping = two_faced(10);
        slot.hold(mapping.clone());
        wire.flush().await.unwrap();
        assert_eq!(Arc::strong_count(&mapping), 2, "the response still goes on");
        slot.end();
        wire.flush().await.unwrap();
        assert_eq!(Arc::strong_count(&mapping), 1);
    }

    #[tokio::test]
    async fn a_whole_response_leaves_by_sendfile_and_an_empty_file_is_told_from_a_cut_one() {
        let mapping = two_faced(5_000_000);
        let cut = Mapping::two_faced(&file_of(&[b'm'; 1_000]), file_of(b""));
        let handler = handler_fn(move |request| {
            let mapping = if request.uri().path() == "/cut" { &cut } else { &mapping };
            let body = Body::mapped(mapping.clone(), 0..u64::MAX);
            async { Response::new(body) }
        });
        let bound = bind(([127, 0, 0, 1], 0).into(), None, Limits::default()).await.unwrap();
        let addr = bound.local_addr().unwrap();
        let tasks = Tasks::default();
        let stop = tasks.shutdown();
        tasks.spawn("server", async move {
            bound.serve(handler, stop, Duration::from_secs(60)).await.unwrap();
        });
        for (path, expected) in [("/", vec![b'f'; 5_000_000]), ("/cut", vec![])] {
            let mut client = TcpStream::connect(addr).await.unwrap();
            let ask = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            client.write_all(ask.as_bytes()).await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            let head = got.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            assert!(got[head..] == expected, "{path}: {} bytes", got.len() - head);
        }
        tasks.drain(Duration::from_secs(60)).await;
    }
}
