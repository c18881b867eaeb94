//! Binding and accepting.

use super::connection::{Listening, serve};
use super::socket::Socket;
use super::{Handler, Limits};
use crate::{Shutdown, Tasks, tls};
use anyhow::Context;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// After an error that a new try would meet again (no descriptors left), wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that has its address but does not answer yet.
pub struct Bound {
    listener: Listener,
    certificates: Option<Arc<tls::Certificates>>,
    limits: Limits,
}

enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _path: Unlink },
}

/// Takes TCP connections at `addr` (port 0: any free port), encrypted if `certificates` are
/// given.
///
/// # Errors
/// When the address is not ours to take; the message names it.
pub async fn bind(
    addr: SocketAddr,
    certificates: Option<Arc<tls::Certificates>>,
    limits: Limits,
) -> io::Result<Bound> {
    let listener = TcpListener::bind(addr).await.map_err(|err| {
        let hint = match err.kind() {
            io::ErrorKind::AddrInUse => {
                "; hint: another process listens there, choose another port"
            }
            io::ErrorKind::AddrNotAvailable => "; hint: this machine does not have that address",
            io::ErrorKind::PermissionDenied => "; hint: ports below 1024 need a privilege",
            _ => "",
        };
        io::Error::new(err.kind(), format!("cannot listen on {addr}: {err}{hint}"))
    })?;
    Ok(Bound { listener: Listener::Tcp(listener), certificates, limits })
}

/// Takes connections at a unix socket. A socket file that nobody listens on any more is
/// replaced; the file goes away with the listener. Must be called in a Tokio runtime.
///
/// # Errors
/// When another process listens there, or the path is taken by something else.
pub fn bind_unix(path: &Path) -> io::Result<Bound> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(|err| {
        io::Error::new(err.kind(), format!("cannot listen on {}: {err}", path.display()))
    })?;
    let listener = Listener::Unix { listener, _path: Unlink(path.to_owned()) };
    Ok(Bound { listener, certificates: None, limits: Limits::default() })
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if found.file_type().is_socket() && std::os::unix::net::UnixStream::connect(path).is_err() {
        return std::fs::remove_file(path);
    }
    let message = format!("cannot listen on {}: the path is in use", path.display());
    Err(io::Error::new(io::ErrorKind::AddrInUse, message))
}

struct Unlink(PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Bound {
    /// The address, with the port that was chosen; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix { .. } => None,
        }
    }

    /// Changes the bounds that were given to [`bind`], or the defaults of [`bind_unix`].
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Answers requests until `stop` begins; then takes no new connection, lets running
    /// requests end for up to `grace`, and drops what is left. Returns when nothing of this
    /// listener runs any more.
    ///
    /// # Errors
    /// When the listening socket itself is broken.
    pub async fn serve(
        self,
        handler: Arc<dyn Handler>,
        stop: Shutdown,
        grace: Duration,
    ) -> anyhow::Result<()> {
        let tasks = Tasks::under(&stop);
        let listening = Arc::new(Listening {
            handler,
            certificates: self.certificates,
            limits: self.limits,
            tasks: tasks.clone(),
        });
        let accepting = accept_all(&self.listener, &listening);
        let outcome = stop.token().run_until_cancelled(accepting).await;
        // Closed before the drain: whoever connects now must be refused, not left waiting.
        drop(self.listener);
        tasks.drain(grace).await;
        outcome.unwrap_or(Ok(()))
    }
}

async fn accept_all(listener: &Listener, listening: &Arc<Listening>) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(listening.limits.max_connections));
    let mut failing = false;
    loop {
        let place = places.clone().acquire_owned().await?;
        match accept(listener).await {
            Ok((socket, addr)) => {
                failing = false;
                let serving = serve(socket, addr, listening.clone());
                listening.tasks.spawn("connection", async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(err) => match judge(&err) {
                Accepting::GoesOn => tracing::debug!("connection ended while accepted: {err}"),
                Accepting::Pauses => {
                    if !failing {
                        tracing::warn!(
                            "cannot accept connections for now: {err}; \
                             hint: raise the limit of open files"
                        );
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                Accepting::Ends => return Err(err).context("the listening socket is broken"),
            },
        }
    }
}

async fn accept(listener: &Listener) -> io::Result<(Socket, Option<SocketAddr>)> {
    match listener {
        Listener::Tcp(listener) => {
            let (socket, addr) = listener.accept().await?;
            // Answers leave at once; what belongs together is written together.
            let _ = socket.set_nodelay(true);
            Ok((Socket::Tcp(socket), Some(addr)))
        }
        Listener::Unix { listener, .. } => {
            let (socket, _) = listener.accept().await?;
            Ok((Socket::Unix(socket), None))
        }
    }
}

#[derive(Debug, Eq, PartialEq)]
enum Accepting {
    GoesOn,
    Pauses,
    Ends,
}

/// What an error of accept(2) means. Errors of the network are passed on to the new socket.
fn judge(err: &io::Error) -> Accepting {
    match err.raw_os_error() {
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) => Accepting::Ends,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Accepting::Pauses,
        Some(
            libc::ECONNABORTED
            | libc::ECONNRESET
            | libc::EINTR
            | libc::EPROTO
            | libc::EPERM
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ENOPROTOOPT
            | libc::ENONET
            | libc::EOPNOTSUPP,
        ) => Accepting::GoesOn,
        // Unknown: survive it, but never spin.
        _ => Accepting::Pauses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept_neither_spin_nor_end_the_listener() {
        let cases = [
            (libc::EMFILE, Accepting::Pauses),
            (libc::ENFILE, Accepting::Pauses),
            (libc::ECONNABORTED, Accepting::GoesOn),
            (libc::EBADF, Accepting::Ends),
            (libc::EIO, Accepting::Pauses),
        ];
        for (errno, expected) in cases {
            let err = io::Error::from_raw_os_error(errno);
            assert_eq!(judge(&err), expected, "{err}");
        }
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_a_hint() {
        let first = bind(([127, 0, 0, 1], 0).into(), None, Limits::default()).await.unwrap();
        let addr = first.local_addr().unwrap();
        let err = bind(addr, None, Limits::default()).await.err().unwrap().to_string();
        assert!(err.contains(&addr.to_string()) && err.contains("hint: another process"), "{err}");
    }

    #[tokio::test]
    async fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kuboard.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = bind_unix(&path).unwrap();
        assert_eq!(bound.local_addr(), None);
        assert!(bind_unix(&path).err().unwrap().to_string().contains("in use"));
        drop(bound);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        assert!(bind_unix(&path).is_err());
        assert!(path.exists());
    }
}
