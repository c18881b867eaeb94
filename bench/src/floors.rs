//! What the machine itself needs for the bare work, with nothing around it: the least that any
//! server could cost. Each floor runs in one thread and is read from that thread's CPU clock.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use kuboard_oci::{Algorithm, Hasher};
use serde_json::{Value, json};

use crate::manifests::{self, load};
use crate::payload::Payload;
use crate::plan::{GIB, MIB, Plan};
use crate::process::thread_seconds;
use crate::series::Series;
use crate::wire::{connect, drop_bytes, send_file};

/// Plain text of one TLS record.
const RECORD: usize = 16 * 1024;

/// CPU seconds per GiB, and microseconds per request.
pub(crate) struct Floors {
    /// sendfile(2) from the page cache to a socket.
    pub(crate) send: f64,
    /// Reading, sealing records with AES-128-GCM, writing them to a socket.
    pub(crate) seal: f64,
    /// One read(2) and one write(2) for a request, microseconds.
    pub(crate) request: f64,
    /// SHA-256 alone.
    pub(crate) hash: f64,
    /// Reading from a socket, SHA-256, writing to a file, forcing it to the disk.
    pub(crate) store: f64,
}

impl Floors {
    /// Measures all of them.
    pub(crate) fn measure(plan: &Plan, folder: &std::path::Path) -> Result<Floors> {
        let size = plan.push.min(256 * MIB);
        let payload = Payload::noise(folder, 1, size)?;
        let weight = size as f64 / GIB as f64;
        let least = |floor: &dyn Fn() -> Result<f64>| -> Result<f64> {
            let rounds = (0..plan.rounds).map(|_| floor());
            Ok(rounds.collect::<Result<Series>>()?.least())
        };
        let floors = Floors {
            send: least(&|| send(&payload))? / weight,
            seal: least(&|| seal(&payload))? / weight,
            request: request(plan.manifest_seconds)?,
            hash: least(&|| hash(&payload))? / weight,
            store: least(&|| store(&payload))? / weight,
        };
        std::fs::remove_file(&payload.path)?;
        Ok(floors)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "sendfile": {"value": self.send, "unit": "CPU s/GiB"},
            "readSealWrite": {"value": self.seal, "unit": "CPU s/GiB"},
            "readWritePerRequest": {"value": self.request, "unit": "CPU us"},
            "sha256": {"value": self.hash, "unit": "CPU s/GiB"},
            "receiveHashWrite": {"value": self.store, "unit": "CPU s/GiB"},
        })
    }

    pub(crate) fn text(&self) -> String {
        let Floors { send, seal, request, hash, store } = self;
        format!(
            "floors, the bare work in one thread:\n  \
             plain GET: sendfile(2) of each byte once, no copy in user space  {send:.3} CPU s/GiB\n  \
             TLS GET: read, AES-128-GCM in records of 16 KiB, write           {seal:.3} CPU s/GiB\n  \
             manifest: one read(2), one write(2), poll(2) shared              {request:.2} CPU us\n  \
             push: SHA-256 alone                                              {hash:.3} CPU s/GiB\n  \
             push: receive, SHA-256, write(2) once, fdatasync                 {store:.3} CPU s/GiB\n  \
             cold pulls: each byte leaves the upstream once                   1 image size\n  \
             first byte: the upstream's own                                   0 ms over it\n"
        )
    }
}

/// Sends to a socket whose other end drops everything; the sending thread's CPU seconds.
fn to_socket(work: impl FnOnce(&mut TcpStream) -> Result<()>) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = connect(&listener.local_addr()?.to_string())?;
    let (receiver, _) = listener.accept()?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> Result<()> {
            while drop_bytes(&receiver, u64::MAX)? > 0 {}
            Ok(())
        });
        let before = thread_seconds();
        work(&mut sender)?;
        let used = thread_seconds() - before;
        drop(sender);
        reader.join().map_err(|_| anyhow!("the reader panicked"))??;
        Ok(used)
    })
}

fn send(payload: &Payload) -> Result<f64> {
    to_socket(|socket| send_file(&File::open(&payload.path)?, socket, payload.size))
}

fn seal(payload: &Payload) -> Result<f64> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| anyhow!("no AES"))?;
    let key = LessSafeKey::new(key);
    to_socket(|socket| {
        let mut file = File::open(&payload.path)?;
        let mut records = Vec::with_capacity(RECORD * 17);
        let mut record = vec![0; RECORD];
        for number in 0..payload.size / RECORD as u64 {
            file.read_exact(&mut record)?;
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&number.to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key
                .seal_in_place_separate_tag(nonce, Aad::from([0; 5]), &mut record)
                .map_err(|_| anyhow!("sealing failed"))?;
            records.extend_from_slice(&record);
            records.extend_from_slice(tag.as_ref());
            if records.len() >= RECORD * 16 {
                socket.write_all(&records)?;
                records.clear();
            }
        }
        Ok(socket.write_all(&records)?)
    })
}

fn hash(payload: &Payload) -> Result<f64> {
    let piece = vec![3_u8; MIB as usize];
    let before = thread_seconds();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for _ in 0..payload.size / MIB {
        hasher.update(&piece);
    }
    std::hint::black_box(hasher.finish());
    Ok(thread_seconds() - before)
}

fn store(payload: &Payload) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sender = connect(&listener.local_addr()?.to_string())?;
    let (mut receiver, _) = listener.accept()?;
    let path = payload.path.with_extension("stored");
    std::thread::scope(|scope| {
        let feeder = scope.spawn(move || -> Result<()> {
            send_file(&File::open(&payload.path)?, &sender, payload.size)
        });
        let mut file = File::create(&path)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut piece = vec![0; MIB as usize];
        let before = thread_seconds();
        loop {
            let count = receiver.read(&mut piece)?;
            if count == 0 {
                break;
            }
            hasher.update(&piece[..count]);
            file.write_all(&piece[..count])?;
        }
        file.sync_data()?;
        let used = thread_seconds() - before;
        feeder.join().map_err(|_| anyhow!("the feeder panicked"))??;
        std::hint::black_box(hasher.finish());
        std::fs::remove_file(&path)?;
        Ok(used)
    })
}

/// Answers the load generator's requests with bytes made in advance.
fn request(seconds: u64) -> Result<f64> {
    let image = manifests::image()?;
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nDocker-Content-Digest: {}\r\n\
         Content-Length: {}\r\n\r\n",
        image.media_type,
        image.digest,
        image.manifest.len()
    )
    .into_bytes();
    answer.extend_from_slice(&image.manifest);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let server = scope.spawn(move || serve(&listener, &answer, over));
        let load = load(&url, None, seconds);
        over.store(true, Ordering::SeqCst);
        // Wakes the server.
        let _ = TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/'));
        let used = server.join().map_err(|_| anyhow!("the server panicked"))??;
        Ok(used * 1e6 / load?.requests as f64)
    })
}

/// One thread, poll(2), one read and one write a request, until `over`. The thread's CPU
/// seconds.
fn serve(listener: &TcpListener, answer: &[u8], over: &AtomicBool) -> Result<f64> {
    let before = thread_seconds();
    let mut streams: Vec<TcpStream> = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let descriptors =
            std::iter::once(listener.as_raw_fd()).chain(streams.iter().map(AsRawFd::as_raw_fd));
        let mut polled: Vec<libc::pollfd> =
            descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
        let count = libc::nfds_t::try_from(polled.len())?;
        // SAFETY: poll(2) reads and writes `count` elements, which `polled` has.
        if unsafe { libc::poll(polled.as_mut_ptr(), count, -1) } < 0 {
            return Err(std::io::Error::last_os_error()).context("poll");
        }
        let mut ended = Vec::new();
        for (at, stream) in streams.iter_mut().enumerate() {
            if polled[at + 1].revents != 0 {
                match stream.read(&mut [0; 4096]) {
                    Ok(1..) => stream.write_all(answer)?,
                    _ => ended.push(at),
                }
            }
        }
        for at in ended.into_iter().rev() {
            streams.swap_remove(at);
        }
        if polled[0].revents != 0 {
            streams.push(listener.accept()?.0);
        }
    }
    Ok(thread_seconds() - before)
}
