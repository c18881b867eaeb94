//! Writing and following blobs.

use std::{fs, future, os::fd::AsRawFd as _};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use kuboard_oci::{Algorithm, Digest};
use kuboard_store::{
    BlobStore, DiskStore, Error, ErrorKind, Ingest, Result, Spool, State, Tail, conformance,
};

use crate::place;

async fn feed(ingest: &mut Ingest, bytes: &Bytes, piece: usize) -> Result<()> {
    for start in (0..bytes.len()).step_by(piece) {
        ingest.write(bytes.slice(start..bytes.len().min(start + piece))).await?;
    }
    Ok(())
}

/// Reads to the end, `max` bytes at a time.
async fn follow(tail: Tail, mut offset: u64, max: usize) -> Result<Bytes> {
    let mut all = BytesMut::new();
    loop {
        let read = tail.read(offset, max).await?;
        if read.is_empty() {
            return Ok(all.freeze());
        }
        offset += read.len() as u64;
        all.extend_from_slice(&read);
    }
}

async fn begin(spool: &Spool) -> Ingest {
    spool.create(Algorithm::Sha256, None).await.unwrap()
}

#[tokio::test]
async fn any_pieces_make_the_same_blob() {
    let (_dir, spool) = place();
    let sizes = [1, 100, 8_191, 8_192, 70_000, (1 << 20) + 1, 9 << 20];
    for (piece, length) in sizes.into_iter().map(|piece| (piece, (piece * 50).min(5 << 20))) {
        let bytes = conformance::sample(piece as u64, length);
        for algorithm in Algorithm::ALL {
            let mut ingest = spool.create(algorithm, None).await.unwrap();
            feed(&mut ingest, &bytes, piece).await.unwrap();
            assert_eq!(ingest.written(), length as u64);
            let digest = Digest::of(algorithm, &bytes);
            let verified = ingest.finish(&digest, Some(length as u64)).await.unwrap();
            assert_eq!((verified.digest(), verified.size()), (digest, length as u64));
            assert_eq!(fs::read(verified.path()).unwrap(), bytes, "{length} by {piece}");
        }
    }
    assert_eq!(spool.names().await.unwrap(), []);
}

#[tokio::test]
async fn sizes_of_pieces_may_be_mixed() {
    let (_dir, spool) = place();
    let bytes = conformance::sample(9, 3 << 20);
    let mut ingest = begin(&spool).await;
    let (mut start, mut piece) = (0, 1);
    while start < bytes.len() {
        let end = bytes.len().min(start + piece);
        ingest.write(bytes.slice(start..end)).await.unwrap();
        (start, piece) = (end, piece * 7 % 100_003);
    }
    ingest.write(Bytes::new()).await.unwrap();
    ingest.finish(&Digest::sha256(&bytes), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_follow_while_it_is_written() {
    let (dir, spool) = place();
    let store = DiskStore::open(dir.path()).unwrap();
    let bytes = conformance::sample(10, (6 << 20) + 123);
    let size = bytes.len() as u64;
    let mut ingest = begin(&spool).await;
    let tail = ingest.tail();
    let followers = (0..20_u64).map(|number| {
        let tail = tail.clone();
        let offset = [0, 1, 1 << 20, size - 1, size, size + 10][number as usize % 6];
        let max = [100_000, 1 << 20, 4 << 20, 256 << 10][number as usize % 4];
        let wanted = bytes.slice((offset.min(size) as usize)..);
        async move { assert_eq!(follow(tail, offset, max).await.unwrap(), wanted, "{offset}") }
    });
    let write = async {
        for start in (0..bytes.len()).step_by(40_000) {
            ingest.write(bytes.slice(start..bytes.len().min(start + 40_000))).await.unwrap();
            tokio::task::yield_now().await;
        }
        let verified = ingest.finish(&Digest::sha256(&bytes), Some(size)).await.unwrap();
        let digest = verified.digest();
        store.publish(verified).await.unwrap();
        assert!(store.remove(&digest).await.unwrap());
    };
    tokio::join!(write, join_all(followers));
    // Published, removed, and still there for who follows.
    assert!(matches!(tail.state(), State::Complete));
    assert_eq!(follow(tail.clone(), 0, 1 << 20).await.unwrap(), bytes);
    assert_eq!(tail.clone().body(5..size).collect().await.unwrap(), bytes.slice(5..));
    assert_eq!(tail.clone().body(7..7).collect().await.unwrap(), Bytes::new());
    let short = tail.body(0..size + 1).collect().await.unwrap_err();
    assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn each_piece_of_a_slow_source_is_seen_before_the_next() {
    let (_dir, spool) = place();
    let mut ingest = begin(&spool).await;
    let tail = ingest.tail();
    assert_eq!(tail.written(), 0);
    for number in 1..50_u64 {
        ingest.write(Bytes::from(vec![number as u8; 100])).await.unwrap();
        // No flush; the worker gets there by itself. All but the very last byte is to be seen.
        let readable = tail.wait_beyond(number * 100 - 2).await.unwrap();
        assert_eq!(readable, number * 100 - 1);
        let seen = tail.read((number - 1) * 100, 1_000).await.unwrap();
        assert_eq!(seen, vec![number as u8; 99]);
    }
}

/// Polls once; whether it is ready.
async fn is_ready(future: impl Future) -> bool {
    let mut future = std::pin::pin!(future);
    future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_ready()))
        .await
}

#[tokio::test]
async fn another_blob_never_looks_whole_to_a_follower() {
    let (_dir, spool) = place();
    let bytes = conformance::sample(11, 300_000);
    let mut ingest = begin(&spool).await;
    let tail = ingest.tail();
    feed(&mut ingest, &bytes, 50_000).await.unwrap();
    ingest.flush().await.unwrap();
    assert_eq!((tail.written(), tail.wait_beyond(0).await.unwrap()), (300_000, 299_999));
    assert!(!is_ready(tail.read(299_999, 1)).await, "the last byte waits for the digest");
    let wrong = Digest::sha256(b"wrong");
    let error = ingest.finish(&wrong, Some(300_000)).await.err().unwrap();
    let actual = Digest::sha256(&bytes);
    assert_eq!(*error.kind(), ErrorKind::Mismatch { expected: wrong, actual });
    let seen: Error = tail.read(299_999, 1).await.unwrap_err();
    assert_eq!(seen.kind(), error.kind());
    assert!(tail.read(0, 1).await.is_err(), "what is there is worth nothing");
    let body = tail.body(0..300_000).collect().await.unwrap_err();
    assert_eq!(body.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(spool.names().await.unwrap(), []);
}

#[tokio::test]
async fn endings_are_told_to_followers_and_leave_no_file() {
    let (_dir, spool) = place();
    let start = async || {
        let mut ingest = begin(&spool).await;
        ingest.write(Bytes::from_static(b"some bytes")).await.unwrap();
        let tail = ingest.tail();
        (ingest, tail)
    };
    let kind = async |tail: Tail| tail.read(100, 1).await.unwrap_err().kind().clone();
    let (ingest, tail) = start().await;
    let error = ingest.finish(&Digest::sha256(b"some bytes"), Some(11)).await.err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::Length { expected: 11, actual: 10 });
    assert_eq!(kind(tail).await, *error.kind());
    let (ingest, tail) = start().await;
    drop(ingest);
    assert_eq!(kind(tail).await, ErrorKind::Closed);
    let (ingest, tail) = start().await;
    ingest.abandon().await;
    assert_eq!(kind(tail).await, ErrorKind::Closed);
    assert_eq!(spool.names().await.unwrap(), []);
    let (mut ingest, tail) = start().await;
    ingest.flush().await.unwrap();
    ingest.keep();
    assert_eq!(kind(tail).await, ErrorKind::Closed);
    assert_eq!(spool.names().await.unwrap().len(), 1);
}

#[tokio::test]
async fn another_algorithm_is_computed_from_the_file() {
    let (_dir, spool) = place();
    let bytes = conformance::sample(12, 2 << 20);
    for (begun, asked) in
        [(Algorithm::Sha256, Algorithm::Sha512), (Algorithm::Sha512, Algorithm::Sha256)]
    {
        let mut ingest = spool.create(begun, None).await.unwrap();
        feed(&mut ingest, &bytes, 100_000).await.unwrap();
        let verified = ingest.finish(&Digest::of(asked, &bytes), None).await.unwrap();
        assert_eq!(verified.digest().algorithm(), asked);
    }
}

#[tokio::test]
async fn a_given_up_write_has_taken_nothing() {
    let (_dir, spool) = place();
    let mut ingest = begin(&spool).await;
    let mut taken = Vec::new();
    for number in 0..200_u32 {
        let piece = Bytes::from(vec![number as u8; 200_000]);
        if is_ready(ingest.write(piece.clone())).await {
            taken.extend_from_slice(&piece);
        }
        assert_eq!(ingest.written(), taken.len() as u64);
    }
    ingest.finish(&Digest::sha256(&taken), Some(taken.len() as u64)).await.unwrap();
}

#[tokio::test]
async fn a_follower_so_far_behind_that_the_bytes_are_only_on_disk_reads_them() {
    let (_dir, spool) = place();
    let bytes = conformance::sample(13, 4 << 20);
    let mut ingest = begin(&spool).await;
    feed(&mut ingest, &bytes, 1 << 20).await.unwrap();
    let tail = ingest.tail();
    let verified = ingest.finish(&Digest::sha256(&bytes), None).await.unwrap();
    // SAFETY: takes no pointers, and the descriptor is open as long as `verified`.
    let dropped = unsafe {
        libc::posix_fadvise(verified.file().as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED)
    };
    assert_eq!(dropped, 0);
    assert_eq!(follow(tail, 0, 300_000).await.unwrap(), bytes);
}
