//! A client that costs as little as can be: bodies are thrown away inside the kernel, and files
//! are sent from the page cache, so that two cores are left to the server that is measured.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kuboard_testkit::http::Request;

use crate::payload::{LargeImage, Payload};
use crate::plan::MIB;

/// How long one read or write may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// A response head is shorter than this.
const MAX_HEAD: usize = 16 * 1024;

/// An answer of which the head is read and the body not.
pub(crate) struct Download {
    stream: TcpStream,
    /// Body bytes that came with the head.
    early: u64,
    /// Length of the body.
    pub(crate) length: u64,
}

/// Connects with the timeouts of a test.
pub(crate) fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("reach {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The bytes of a GET request on a connection of its own.
pub(crate) fn request(address: &str, target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nAccept: {}\r\nConnection: close\r\n\r\n",
        kuboard_oci::media_type::ACCEPT_ALL
    )
}

/// Reads a response head; the body's length and the body bytes that came along. Fails unless the
/// status is 200.
pub(crate) fn read_head(reader: &mut impl Read) -> Result<(u64, u64)> {
    let mut head = vec![0; MAX_HEAD];
    let mut filled = 0;
    let end = loop {
        ensure!(filled < head.len(), "a response head without end");
        let count = reader.read(&mut head[filled..])?;
        ensure!(count > 0, "the server hung up without an answer");
        filled += count;
        if let Some(at) = head[..filled].windows(4).position(|it| it == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    if text.split(' ').nth(1) != Some("200") {
        bail!("answered {}", text.lines().next().unwrap_or_default());
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Ok((length.context("an answer without Content-Length")?, (filled - end) as u64))
}

/// Receives and drops at most `most` bytes that no one looks at; 0 at the end of the stream.
pub(crate) fn drop_bytes(stream: &TcpStream, most: u64) -> Result<u64> {
    let most = usize::try_from(most.min(8 * MIB))?;
    // SAFETY: with MSG_TRUNC a TCP socket discards what it would have copied (tcp(7)), so that
    // nothing is written through the pointer; the descriptor is open as long as `stream`.
    let count =
        unsafe { libc::recv(stream.as_raw_fd(), std::ptr::null_mut(), most, libc::MSG_TRUNC) };
    u64::try_from(count).map_err(|_| std::io::Error::last_os_error()).context("receive")
}

impl Download {
    /// Sends a GET request and reads the answer's head.
    pub(crate) fn open(address: &str, target: &str) -> Result<Download> {
        let mut stream = connect(address)?;
        stream.write_all(request(address, target).as_bytes())?;
        let (length, early) = read_head(&mut stream).with_context(|| format!("GET {target}"))?;
        Ok(Download { stream, early, length })
    }

    /// Waits for the first byte of the body.
    pub(crate) fn first_byte(&self) -> Result<()> {
        if self.early == 0 && self.length > 0 {
            ensure!(self.stream.peek(&mut [0])? == 1, "the body ended before its first byte");
        }
        Ok(())
    }

    /// Drops `count` bytes of the body at most, and stops at `until`; the bytes that came.
    pub(crate) fn discard(&self, count: u64, until: Option<Instant>) -> Result<u64> {
        let mut left = self.length.min(count).saturating_sub(self.early);
        while left > 0 && until.is_none_or(|until| Instant::now() < until) {
            let dropped = drop_bytes(&self.stream, left)?;
            ensure!(dropped > 0, "the body ended {left} bytes early");
            left -= dropped;
        }
        Ok(self.length.min(count) - left)
    }
}

/// GET, with the body dropped; its length.
pub(crate) fn pull(address: &str, target: &str) -> Result<u64> {
    let download = Download::open(address, target)?;
    download.discard(u64::MAX, None)
}

/// Sends `size` bytes of a file from the page cache, without a copy of our own. (`std::io::copy`
/// reads and writes here: it does not let a file's pages wait in a socket.)
pub(crate) fn send_file(file: &File, stream: &TcpStream, size: u64) -> Result<()> {
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left)?;
        // SAFETY: both descriptors are open as long as the borrows; a null offset means the
        // file's own cursor.
        let sent = unsafe {
            libc::sendfile64(stream.as_raw_fd(), file.as_raw_fd(), std::ptr::null_mut(), most)
        };
        let sent = u64::try_from(sent).map_err(|_| std::io::Error::last_os_error())?;
        ensure!(sent > 0, "the file is {left} bytes too short");
        left -= sent;
    }
    Ok(())
}

/// Where a blob is.
pub(crate) fn blob_path(repository: &str, blob: &Payload) -> String {
    format!("/v2/{repository}/blobs/{}", blob.digest)
}

/// Pushes a blob in one piece: POST, then PUT with the whole body.
pub(crate) fn push_blob(address: &str, repository: &str, blob: &Payload) -> Result<()> {
    let begun = Request::new("POST", format!("/v2/{repository}/blobs/uploads/")).send(address)?;
    ensure!(begun.status == 202, "POST uploads: {} {}", begun.status, begun.text());
    let place = begun.headers.get("location").context("an upload without Location")?;
    let path = match place.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => place,
    };
    let mark = if path.contains('?') { '&' } else { '?' };
    let mut stream = connect(address)?;
    let head = format!(
        "PUT {path}{mark}digest={} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\
         Content-Type: application/octet-stream\r\nConnection: close\r\n\r\n",
        blob.digest, blob.size
    );
    stream.write_all(head.as_bytes())?;
    send_file(&File::open(&blob.path)?, &stream, blob.size).context("send the blob")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 201"), "PUT blob: {answer}");
    Ok(())
}

/// Pushes an image with all its blobs.
pub(crate) fn push(address: &str, repository: &str, tag: &str, image: &LargeImage) -> Result<()> {
    for blob in &image.blobs {
        push_blob(address, repository, blob)?;
    }
    let put = Request::new("PUT", format!("/v2/{repository}/manifests/{tag}"))
        .header("Content-Type", kuboard_oci::media_type::OCI_MANIFEST)
        .body(image.manifest.to_vec());
    let answer = put.send(address)?;
    ensure!(answer.status == 201, "PUT manifest: {} {}", answer.status, answer.text());
    Ok(())
}
