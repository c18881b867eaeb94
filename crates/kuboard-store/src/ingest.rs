//! One blob being written: bytes go to the file and through the hash once, and are not read again.
//!
//! The writer hands over pieces and goes back to the network; a worker on a blocking thread takes
//! all that has gathered, up to [`BATCH`] bytes at a time, so reading from the network overlaps
//! with hashing and writing, and pieces are never copied together unless they are tiny. A worker
//! stays for [`LINGER`] when it has caught up: at full speed there is one hop between threads for
//! the whole blob rather than one a batch, and a slow source still sees each piece on file within
//! that time. With a batch in hand and a batch gathered, an ingest holds two batches in memory.
//!
//! Each write begins and ends at a multiple of its length, so that the page cache takes it as one
//! piece where the file system can do so (pieces are aligned to their size there; a write across
//! them is cut into ever smaller ones), and goes into space reserved ahead ([`Reserve`]). The two
//! took pushes from 1.65 to 1.5 CPU seconds per GiB on ext4.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice, Write as _},
    mem,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use kuboard_oci::{Digest, Hasher};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::{
    Error, ErrorKind, Result, blocking, page,
    reserve::Reserve,
    spool::Slot,
    tail::{Progress, State, Tail},
};

/// Bytes gathered before the writer has to wait.
const BATCH: usize = 1 << 20;
/// Bytes worth waking a lingering worker for.
const WORTH_WAKING: usize = BATCH / 2;
/// How long a worker that has caught up waits for more.
const LINGER: Duration = Duration::from_millis(2);
/// Bytes that are written, announced and hashed together: small enough to be still in the
/// processor's cache for the second of the two. From 128 KiB to 1 MiB make no difference.
const GROUP: usize = 256 << 10;
/// Pieces of one write; the system takes at most 1,024.
const GROUP_PIECES: usize = 256;
/// Pieces below this size are copied together.
const TINY: usize = 8 << 10;
/// Bytes after which the kernel is asked to begin writing to disk.
const WRITEBACK: u64 = 16 << 20;

/// A blob being written. Dropping it removes the file; see [`Ingest::keep`].
pub struct Ingest {
    slot: Slot,
    writer: Writer,
    accepted: u64,
}

/// A checked, synced file that waits to be published. Dropping it unpublished removes the file.
pub struct Verified {
    slot: Slot,
    file: Arc<File>,
    digest: Digest,
    size: u64,
}

impl Ingest {
    /// `hasher` has seen the `written` bytes of `file`, whose cursor is at their end.
    pub(crate) fn start(slot: Slot, file: File, hasher: Hasher, written: u64) -> Ingest {
        let reserve = Reserve::new(written);
        let desk = Desk { hasher, written, advised: written, reserve };
        let (progress, _) = watch::channel(Progress { written, state: State::Writing });
        let shared = Shared {
            file: Arc::new(file),
            queue: Mutex::new(Queue { desk: Some(desk), ..Queue::default() }),
            arrived: Condvar::new(),
            taken: Notify::new(),
            progress,
        };
        Ingest { slot, writer: Writer(Arc::new(shared)), accepted: written }
    }

    /// The name in the spool.
    pub fn name(&self) -> &str {
        self.slot.name()
    }

    /// Bytes accepted so far, whether on file yet or not.
    pub fn written(&self) -> u64 {
        self.accepted
    }

    /// A follower of this blob; it may begin at any offset, and outlives the ingest.
    pub fn tail(&self) -> Tail {
        Tail::new(self.writer.0.file.clone(), self.writer.0.progress.subscribe())
    }

    /// Takes bytes, waiting only while a whole batch is already gathered. Cancel safe: when the
    /// wait is given up, nothing was taken.
    ///
    /// A failed write (say [`ErrorKind::NoSpace`]) is reported by this or a later call; the blob
    /// is then lost, and its followers have been told.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        self.writer.until(|queue| queue.length < BATCH).await?;
        self.accepted += piece.len() as u64;
        self.writer.put(piece);
        Ok(())
    }

    /// Waits until all accepted bytes are on file (not on disk: see [`Ingest::finish`]).
    pub async fn flush(&mut self) -> Result<()> {
        self.writer.hurry(true);
        let done = self.writer.until(|queue| queue.length == 0 && queue.desk.is_some()).await;
        self.writer.hurry(false);
        done
    }

    /// Checks length and digest, then syncs the file's bytes to disk.
    ///
    /// Fails with [`ErrorKind::Length`] or [`ErrorKind::Mismatch`] when it is another blob; then,
    /// as after any failure, the file is gone. Followers see the end as soon as the digest is
    /// known to be right, before the sync. The file is read again only if `expected` is of another
    /// algorithm than the ingest. Giving up the wait gives up the blob.
    pub async fn finish(mut self, expected: &Digest, size: Option<u64>) -> Result<Verified> {
        match self.conclude(*expected, size).await {
            Ok(()) => {
                let file = self.writer.0.file.clone();
                Ok(Verified { slot: self.slot, file, digest: *expected, size: self.accepted })
            }
            Err(error) => {
                self.writer.fail(error.clone());
                self.abandon().await;
                Err(error)
            }
        }
    }

    async fn conclude(&mut self, expected: Digest, size: Option<u64>) -> Result<()> {
        self.flush().await?;
        let doing = || format!("checking {expected}");
        if let Some(size) = size.filter(|size| *size != self.accepted) {
            let kind = ErrorKind::Length { expected: size, actual: self.accepted };
            return Err(Error::new(kind, doing()));
        }
        let desk = self.writer.0.queue.lock().desk.take();
        let mut desk = desk.ok_or_else(|| Error::new(ErrorKind::Closed, doing()))?;
        let shared = self.writer.0.clone();
        blocking("checking a blob", move || {
            let doing = |e| Error::io(format!("checking {expected}"), e);
            let actual = if expected.algorithm() == desk.hasher.algorithm() {
                desk.hasher.finish()
            } else {
                page::hash_file(&shared.file, expected.algorithm()).map_err(doing)?.0.finish()
            };
            if actual != expected {
                let kind = ErrorKind::Mismatch { expected, actual };
                return Err(Error::new(kind, "checking a blob"));
            }
            shared.settle(State::Complete);
            desk.reserve.give_back(&shared.file, desk.written).map_err(doing)?;
            shared.file.sync_data().map_err(doing)
        })
        .await
    }

    /// Lets go of the blob but leaves its file for [`crate::Spool::resume`]. Bytes that were not
    /// flushed are lost.
    pub fn keep(mut self) {
        self.slot.keep();
    }

    /// Removes the file, off the async threads: freeing the blocks of a big one takes a while.
    pub async fn abandon(self) {
        let Ingest { slot, writer, .. } = self;
        drop(writer);
        // The only error is that the runtime is going down; the slot is dropped all the same.
        let removed: Result<()> = blocking("abandoning a blob", move || {
            drop(slot);
            Ok(())
        })
        .await;
        drop(removed);
    }
}

impl Verified {
    /// The digest the bytes have.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        self.slot.path()
    }

    /// The open file. Its cursor stands anywhere; read at offsets.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The file has been renamed to its place in a store.
    pub(crate) fn moved(mut self) {
        self.slot.keep();
    }
}

/// The writer's end; when it goes, followers who are still waiting are told.
struct Writer(Arc<Shared>);

struct Shared {
    file: Arc<File>,
    queue: Mutex<Queue>,
    /// Wakes the worker.
    arrived: Condvar,
    /// Wakes the writer, of which there is one.
    taken: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    /// Tiny pieces copied together; they come after `pieces`.
    tiny: BytesMut,
    length: usize,
    /// Rests here while no worker runs.
    desk: Option<Desk>,
    /// A flush waits: do not linger.
    hurry: bool,
    error: Option<Error>,
}

/// What a worker carries from batch to batch.
struct Desk {
    hasher: Hasher,
    written: u64,
    /// Up to where the kernel was asked to begin writing to disk.
    advised: u64,
    reserve: Reserve,
}

impl Writer {
    async fn until(&self, ready: impl Fn(&Queue) -> bool) -> Result<()> {
        loop {
            {
                let queue = self.0.queue.lock();
                if let Some(error) = &queue.error {
                    return Err(error.clone());
                }
                if ready(&queue) {
                    return Ok(());
                }
            }
            // A wake-up between the look and this wait is kept for it.
            self.0.taken.notified().await;
        }
    }

    fn put(&self, piece: Bytes) {
        let mut queue = self.0.queue.lock();
        queue.push(piece);
        if let Some(desk) = queue.desk.take() {
            drop(queue);
            let shared = self.0.clone();
            tokio::task::spawn_blocking(move || shared.work(desk));
        } else if queue.length >= WORTH_WAKING {
            self.0.arrived.notify_one();
        }
    }

    fn hurry(&self, hurry: bool) {
        self.0.queue.lock().hurry = hurry;
        self.0.arrived.notify_one();
    }

    fn fail(&self, error: Error) {
        self.0.fail(error);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let complete = matches!(self.0.progress.borrow().state, State::Complete);
        if !complete {
            self.0.fail(Error::new(ErrorKind::Closed, "writing a blob"));
        }
    }
}

impl Queue {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if piece.len() < TINY {
            self.tiny.extend_from_slice(&piece);
            if self.tiny.len() >= GROUP {
                self.pieces.push_back(self.tiny.split().freeze());
            }
        } else {
            if !self.tiny.is_empty() {
                self.pieces.push_back(self.tiny.split().freeze());
            }
            self.pieces.push_back(piece);
        }
    }

    fn take(&mut self) -> VecDeque<Bytes> {
        if !self.tiny.is_empty() {
            self.pieces.push_back(self.tiny.split().freeze());
        }
        self.length = 0;
        mem::take(&mut self.pieces)
    }
}

impl Shared {
    /// Runs on a blocking thread until there is nothing to do for [`LINGER`].
    fn work(&self, mut desk: Desk) {
        let _told = TellPanic(self);
        let mut batch = VecDeque::new();
        // A first piece is written at once: nothing says that more will come.
        let mut more_comes = false;
        let mut linger = false;
        loop {
            let mut queue = self.queue.lock();
            if linger {
                more_comes = self.wait_for_more(&mut queue);
            }
            batch.append(&mut queue.take());
            if batch.is_empty() {
                queue.desk = Some(desk);
                drop(queue);
                self.taken.notify_one();
                return;
            }
            drop(queue);
            self.taken.notify_one();
            if let Err(error) = self.store(&mut batch, &mut desk, more_comes) {
                self.fail(Error::io("writing a blob", error));
                return;
            }
            linger = true;
        }
    }

    /// Whether bytes come fast enough that a group may wait to become whole.
    fn wait_for_more(&self, queue: &mut MutexGuard<'_, Queue>) -> bool {
        let until = Instant::now() + LINGER;
        while queue.length < WORTH_WAKING && !queue.hurry && queue.error.is_none() {
            if self.arrived.wait_until(queue, until).timed_out() {
                break;
            }
        }
        queue.length >= WORTH_WAKING && !queue.hurry
    }

    /// Writes the groups of `batch`; if `more_comes`, an unfinished last one stays in it.
    fn store(
        &self,
        batch: &mut VecDeque<Bytes>,
        desk: &mut Desk,
        more_comes: bool,
    ) -> io::Result<()> {
        let mut left: usize = batch.iter().map(Bytes::len).sum();
        while left > 0 {
            let room = room_at(desk.written);
            if more_comes && left < room {
                break;
            }
            let group = take_group(batch, room);
            let length: usize = group.iter().map(Bytes::len).sum();
            desk.reserve.reach(&self.file, desk.written, desk.written + length as u64);
            write_all(&self.file, &group)?;
            left -= length;
            desk.written += length as u64;
            // Followers go on while the same bytes are hashed.
            self.progress.send_modify(|now| now.written = desk.written);
            for piece in &group {
                desk.hasher.update(piece);
            }
        }
        let pending = desk.written - desk.advised;
        if pending >= WRITEBACK {
            page::begin_writeback(&self.file, desk.advised, pending);
            desk.advised = desk.written;
        }
        Ok(())
    }

    /// The first error stays.
    fn fail(&self, error: Error) {
        let mut queue = self.queue.lock();
        queue.take();
        let error = queue.error.get_or_insert(error).clone();
        drop(queue);
        self.settle(State::Failed(error));
        self.taken.notify_one();
        self.arrived.notify_one();
    }

    /// Tells followers how it ended; what they have been told once stands.
    fn settle(&self, state: State) {
        self.progress.send_if_modified(|now| {
            let open = matches!(now.state, State::Writing);
            if open {
                now.state = state;
            }
            open
        });
    }
}

/// A worker that panics must not leave the writer waiting for it.
struct TellPanic<'a>(&'a Shared);

impl Drop for TellPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::new(ErrorKind::Io, "writing a blob: the worker panicked"));
        }
    }
}

/// Bytes from `written` to the end of its group.
fn room_at(written: u64) -> usize {
    // The rest is below `GROUP`, whatever the width of a `usize`.
    GROUP - (written % GROUP as u64) as usize
}

fn take_group(batch: &mut VecDeque<Bytes>, mut room: usize) -> Vec<Bytes> {
    let mut group = Vec::new();
    while room > 0 && group.len() < GROUP_PIECES {
        let Some(mut piece) = batch.pop_front() else { break };
        if piece.len() > room {
            let head = piece.split_to(room);
            batch.push_front(piece);
            piece = head;
        }
        room -= piece.len();
        group.push(piece);
    }
    group
}

/// Writes at the file's cursor.
fn write_all(mut file: &File, group: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = group.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kuboard_oci::Algorithm;

    use super::*;
    use crate::Spool;

    /// `/dev/full` fails each write as a full disk does, and needs no mount.
    #[tokio::test]
    async fn a_full_disk_fails_the_writer_and_its_followers() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let full = || File::options().read(true).write(true).open("/dev/full").unwrap();
        let slot = spool.claim("full".into(), Algorithm::Sha256).unwrap();
        let mut ingest = Ingest::start(slot, full(), Hasher::new(Algorithm::Sha256), 0);
        let tail = ingest.tail();
        ingest.write(Bytes::from_static(b"does not fit")).await.unwrap();
        assert!(tail.read(0, 100).await.unwrap_err().is_no_space());
        assert!(ingest.flush().await.unwrap_err().is_no_space());
        assert!(ingest.write(Bytes::from_static(b"more")).await.unwrap_err().is_no_space());
        let digest = Digest::sha256(b"does not fit");
        let error = ingest.finish(&digest, None).await.err().unwrap();
        assert!(error.is_no_space(), "{error:?}");
        assert!(tail.read(0, 100).await.unwrap_err().is_no_space(), "the first reason stays");
    }

    #[test]
    fn groups_keep_the_order_and_are_bounded() {
        let pieces = [10, GROUP + 5, 1, 3 * GROUP, 7].map(|length| Bytes::from(vec![1; length]));
        let mut batch: VecDeque<Bytes> = pieces.into_iter().collect();
        batch.extend((0..1_000).map(|_| Bytes::from_static(b"x")));
        let total: usize = batch.iter().map(Bytes::len).sum();
        // The groups of a file of which 3 bytes are there.
        let mut seen = 3;
        while !batch.is_empty() {
            let group = take_group(&mut batch, room_at(seen as u64));
            let length: usize = group.iter().map(Bytes::len).sum();
            assert!((1..=GROUP).contains(&length) && group.len() <= GROUP_PIECES);
            assert!(seen / GROUP == (seen + length - 1) / GROUP, "{seen} + {length}");
            seen += length;
        }
        assert_eq!(seen, total + 3);
    }

    /// A group that is not whole must not wait for bytes that do not come; and what was reserved
    /// for a file is gone when it is kept, resumed and finished.
    #[tokio::test]
    async fn odd_pieces_are_written_and_resumed_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let bytes: Bytes = (0..9_000_017_u32).map(|at| (at % 251) as u8).collect();
        let mut ingest = spool.create_named("odd", Algorithm::Sha256).await.unwrap();
        for start in (0..7_000_000).step_by(70_000) {
            ingest.write(bytes.slice(start..start + 70_000)).await.unwrap();
        }
        ingest.tail().wait_beyond(6_999_998).await.unwrap();
        ingest.flush().await.unwrap();
        ingest.keep();
        let mut ingest = spool.resume("odd").await.unwrap().unwrap();
        assert_eq!(ingest.written(), 7_000_000);
        ingest.write(bytes.slice(7_000_000..)).await.unwrap();
        let size = bytes.len() as u64;
        let verified = ingest.finish(&Digest::sha256(&bytes), Some(size)).await.unwrap();
        let meta = verified.file().metadata().unwrap();
        assert_eq!(meta.len(), size);
        let on_disk = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
        assert!(on_disk < size + (1 << 20), "{on_disk}");
    }
}
