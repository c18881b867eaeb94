//! A TCP relay in front of an upstream that counts every byte, whatever the protocol says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The listening relay. Dropping it closes the port and every connection.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Bytes that the upstream sent.
    down: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Listens on a free port of loopback for connections to `target`.
    pub(crate) fn start(target: &str) -> Result<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (accepting, target) = (shared.clone(), target.to_owned());
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                // A client that is gone already, or an upstream that refuses: both see an end.
                let _ = client.and_then(|client| accepting.join(client, &target));
            }
        });
        Ok(Relay { address, shared, acceptor: Some(acceptor) })
    }

    /// `http://host:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that the upstream sent so far, heads included.
    pub(crate) fn received(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    /// Waits until nothing has come for a second.
    pub(crate) fn wait_quiet(&self, bound: Duration) {
        let begun = Instant::now();
        let mut last = (self.received(), Instant::now());
        while last.1.elapsed() < Duration::from_secs(1) && begun.elapsed() < bound {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.received();
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    }

    /// The upstream is gone: the port refuses and connections end.
    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let connections = self.shared.connections.lock();
        for stream in connections.unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream, target: &str) -> std::io::Result<()> {
        let upstream = TcpStream::connect(target)?;
        client.set_nodelay(true)?;
        upstream.set_nodelay(true)?;
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.extend([client.try_clone()?, upstream.try_clone()?]);
        drop(connections);
        let (client_again, upstream_again) = (client.try_clone()?, upstream.try_clone()?);
        std::thread::spawn(move || pass(client, upstream, |_| ()));
        let shared = self.clone();
        std::thread::spawn(move || {
            pass(upstream_again, client_again, |count| {
                shared.down.fetch_add(count, Ordering::SeqCst);
            });
        });
        Ok(())
    }
}

/// Passes bytes on until either side ends, then ends both directions' writing half.
fn pass(mut from: TcpStream, mut to: TcpStream, count: impl Fn(u64)) {
    let mut piece = vec![0; 256 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        count(length as u64);
        if to.write_all(&piece[..length]).is_err() {
            // Tells the sender that nobody listens.
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
