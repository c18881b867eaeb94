//! What goes into the state machine and what comes out of it.

use std::sync::Arc;

use crate::{bits::Bits, blocks::Geometry, swarm::Limits};

/// A peer, by the number that the driver gave it. A peer that comes back may keep its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// A blob, by the number that the driver gave its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub u32);

/// One block of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The blob.
    pub blob: BlobId,
    /// Index of the block in it.
    pub block: u32,
}

/// What a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The agent of a node.
    Agent,
    /// A registry cache: it gives each block away once, then only helps out.
    Cache,
}

/// A peer as the driver knows it when the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub id: PeerId,
    /// What it is.
    pub kind: Kind,
    /// Whether it is in this node's zone (between caches: region).
    pub near: bool,
    /// Whether it asked for the connection, so that it may be turned away.
    pub incoming: bool,
    /// What others measured of its uploads, in bytes per second, if the tracker said so.
    pub rate: Option<u64>,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Broken,
    /// No byte for [`Limits::stall_ms`].
    Stalled,
    /// The bytes are not the block's.
    Bad,
}

/// The tracker's answer to the wish to fetch from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceAnswer {
    /// Yes, until then.
    Granted {
        /// End of the permission, in the machine's milliseconds.
        until_ms: u64,
    },
    /// Others do already.
    Denied,
    /// No tracker answered.
    NoTracker,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The time that [`Node::wake_at`](crate::swarm::Node::wake_at) named has come.
    Tick,
    /// Other limits from now on.
    Limits(Box<Limits>),
    /// A blob is wanted, or held (`have` full), or being filled by other means (`wanted` false).
    Blob {
        /// Its number.
        blob: BlobId,
        /// Size and block size.
        geometry: Geometry,
        /// Its place among the layers of its image; lower is fetched first.
        order: u32,
        /// What is on the disk already, verified.
        have: Bits,
        /// Blocks whose hashes are known: only those can be fetched.
        mapped: u32,
        /// Whether missing blocks are to be fetched.
        wanted: bool,
    },
    /// The blob is not served any more and nobody waits for it.
    Forget(BlobId),
    /// The block map reaches further: hashes of the first `blocks` blocks are known.
    MapGrew {
        /// The blob.
        blob: BlobId,
        /// Blocks with a known hash.
        blocks: u32,
    },
    /// A connection to a peer stands.
    PeerUp(Peer),
    /// It does not any more.
    PeerGone(PeerId),
    /// What others measured of a peer's uploads, in bytes per second.
    PeerRate(PeerId, u64),
    /// A peer says which blocks of a blob it has; the first word on that blob.
    Share {
        /// Who.
        peer: PeerId,
        /// The blob.
        blob: BlobId,
        /// The blocks.
        have: Arc<Bits>,
        /// Whether the peer wants the rest.
        wanted: bool,
    },
    /// A peer has further blocks.
    Have {
        /// Who.
        peer: PeerId,
        /// The blob.
        blob: BlobId,
        /// The blocks.
        blocks: Arc<[u32]>,
    },
    /// A peer would like an offer.
    Want(PeerId),
    /// A peer has an upload slot for us, and perhaps proposes a block.
    Offer {
        /// Who.
        peer: PeerId,
        /// The block that it would like to give.
        proposal: Option<BlockId>,
    },
    /// A peer can't use our offer now.
    Decline(PeerId),
    /// A peer asks for a block.
    Asked {
        /// Who.
        peer: PeerId,
        /// What for.
        block: BlockId,
        /// Whether it would like another offer.
        more: bool,
    },
    /// An upload is over, well or not.
    Sent {
        /// To whom.
        peer: PeerId,
        /// Which block.
        block: BlockId,
    },
    /// A block was received and its hash is right.
    Arrived {
        /// From whom.
        peer: PeerId,
        /// Which block.
        block: BlockId,
    },
    /// A block is there by other means: the cache's own download, or the upstream.
    Stored(BlockId),
    /// A request came to nothing.
    Failed {
        /// Whose fault.
        peer: PeerId,
        /// Which block.
        block: BlockId,
        /// How.
        failure: Failure,
    },
    /// A peer did not take a request.
    Refused {
        /// Who.
        peer: PeerId,
        /// Which block.
        block: BlockId,
        /// When to try again; `None`: it does not have the block.
        retry_after_ms: Option<u64>,
    },
    /// The tracker's word on [`Action::AskSource`].
    Source(BlobId, SourceAnswer),
    /// A fetch from the upstream failed.
    SourceFailed(BlockId),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell a peer all that we have of a blob, and whether we want the rest.
    Share {
        /// Whom.
        peer: PeerId,
        /// The blob.
        blob: BlobId,
        /// The blocks.
        have: Arc<Bits>,
        /// Whether we want the rest.
        wanted: bool,
    },
    /// Tell every connected agent that shares the blob (and, on a cache, every other cache) that we
    /// have these blocks too.
    Announce {
        /// The blob.
        blob: BlobId,
        /// The blocks.
        blocks: Arc<[u32]>,
    },
    /// Tell a peer that we would like an offer.
    Want(PeerId),
    /// Offer a peer an upload slot.
    Offer {
        /// Whom.
        peer: PeerId,
        /// The block that it should rather take.
        proposal: Option<BlockId>,
    },
    /// Tell a peer that its offer can't be used.
    Decline(PeerId),
    /// Ask a peer for a block.
    Request {
        /// Whom.
        peer: PeerId,
        /// What for.
        block: BlockId,
        /// Say that we would like another offer.
        more: bool,
    },
    /// Break off a request: somebody else was faster.
    Cancel {
        /// To whom it went.
        peer: PeerId,
        /// What for.
        block: BlockId,
    },
    /// Send a block that was asked for, now.
    Serve {
        /// To whom.
        peer: PeerId,
        /// Which block.
        block: BlockId,
    },
    /// Turn a request away.
    Refuse {
        /// Whose.
        peer: PeerId,
        /// Which block.
        block: BlockId,
        /// When to try again; `None`: not from us.
        retry_after_ms: Option<u64>,
    },
    /// Hang up on a peer.
    Drop(PeerId),
    /// Hang up, tell the tracker, and take no connection from or to it until then.
    Ban {
        /// Whom.
        peer: PeerId,
        /// End of the ban, in the machine's milliseconds.
        until_ms: u64,
    },
    /// Ask the tracker for more peers that share the blob.
    AskPeers(BlobId),
    /// Ask the tracker for the right to fetch from the upstream.
    AskSource(BlobId),
    /// Fetch a block from the upstream.
    Fetch(BlockId),
    /// The blob is complete.
    Complete(BlobId),
    /// The reader's bytes have not advanced for a minute: end its body short, so that it resumes
    /// elsewhere.
    EndShort(BlobId),
}
