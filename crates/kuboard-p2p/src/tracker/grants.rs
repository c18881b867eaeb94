//! Which node may have which repository's blobs: short words of the tracker, shown to peers.
//!
//! A node asks with the repository that it pulls from. Whoever knows that a pod of that node may
//! use the repository notes it here; the tracker then signs grants for the repository's blobs, and
//! a peer serves a block only for a grant in the asking node's own name.

use std::collections::BTreeMap;

use kuboard_oci::Digest;
use thiserror::Error;

use crate::{
    keys::{SIGNATURE_BYTES, SigningKey, TrustedKeys},
    tracker::NodeId,
};

const CONTEXT: &[u8] = b"kuboard grant 1\0";

/// Pairs of node and repository that are remembered.
const MAX_PAIRS: usize = 200_000;

/// The notes: who may pull which repository, until when.
#[derive(Debug, Default)]
pub struct Grants {
    until: BTreeMap<(NodeId, String), u64>,
}

impl Grants {
    /// Notes that a node may have a repository's blobs until then. When the notes are full, what
    /// is over goes first; whether there was room.
    pub fn allow(&mut self, now: u64, node: NodeId, repository: &str, until_ms: u64) -> bool {
        if self.until.len() >= MAX_PAIRS {
            self.until.retain(|_, until| now < *until);
        }
        if self.until.len() >= MAX_PAIRS {
            return false;
        }
        let until = self.until.entry((node, repository.to_owned())).or_insert(until_ms);
        *until = (*until).max(until_ms);
        true
    }

    /// Takes all of a repository's notes back.
    pub fn revoke(&mut self, repository: &str) {
        self.until.retain(|(_, of), _| of != repository);
    }

    /// Whether a node may have a repository's blobs now.
    #[must_use]
    pub fn may(&self, now: u64, node: NodeId, repository: &str) -> bool {
        self.until.get(&(node, repository.to_owned())).is_some_and(|until| now < *until)
    }
}

/// What a grant says. Times are Unix milliseconds, since it is read on another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Who may.
    pub node: NodeId,
    /// Have what.
    pub digest: Digest,
    /// From when on.
    pub from_unix_ms: u64,
    /// Until when.
    pub until_unix_ms: u64,
}

/// Why a grant is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GrantError {
    /// No trusted key signed it.
    #[error("no trusted key signed this grant")]
    Signature,
    /// Another node's or another blob's.
    #[error("this grant is for another node or blob")]
    Other,
    /// Not yet, or not any more.
    #[error("this grant is not in force; hint: ask for another one, and compare the clocks")]
    Time,
}

/// How far clocks of two machines may be apart.
const SKEW_MS: u64 = 30_000;

impl Grant {
    fn message(&self) -> Vec<u8> {
        let mut message = CONTEXT.to_vec();
        message.extend(self.node.0.to_be_bytes());
        message.extend(self.digest.to_string().as_bytes());
        message.push(0);
        message.extend(self.from_unix_ms.to_be_bytes());
        message.extend(self.until_unix_ms.to_be_bytes());
        message
    }

    /// The grant with the tracker's signature.
    #[must_use]
    pub fn sign(self, key: &SigningKey) -> SignedGrant {
        SignedGrant { grant: self, signature: key.sign(&self.message()) }
    }
}

/// A grant as it is shown to peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedGrant {
    /// What it says.
    pub grant: Grant,
    /// Ed25519 over it.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl SignedGrant {
    /// Checks it for a node that proved its name and asks for a blob.
    ///
    /// # Errors
    /// See [`GrantError`].
    pub fn check(
        &self,
        unix_ms: u64,
        node: NodeId,
        digest: &Digest,
        keys: &TrustedKeys,
    ) -> Result<(), GrantError> {
        let grant = &self.grant;
        if grant.node != node || grant.digest != *digest {
            return Err(GrantError::Other);
        }
        let early = unix_ms.saturating_add(SKEW_MS) < grant.from_unix_ms;
        let late = unix_ms >= grant.until_unix_ms.saturating_add(SKEW_MS);
        if early || late {
            return Err(GrantError::Time);
        }
        if !keys.verifies(&grant.message(), &self.signature) {
            return Err(GrantError::Signature);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Grant, GrantError, Grants, SKEW_MS};
    use crate::{
        keys::{SigningKey, TrustedKeys},
        tracker::NodeId,
    };
    use kuboard_oci::Digest;

    #[test]
    fn notes_end_by_themselves() {
        let mut grants = Grants::default();
        assert!(grants.allow(0, NodeId(1), "team/app", 100));
        assert!(grants.allow(0, NodeId(1), "team/app", 50));
        for (now, node, repository, expected) in [
            (0, 1, "team/app", true),
            (99, 1, "team/app", true),
            (100, 1, "team/app", false),
            (0, 2, "team/app", false),
            (0, 1, "team/other", false),
        ] {
            assert_eq!(grants.may(now, NodeId(node), repository), expected, "{now} {repository}");
        }
        grants.revoke("team/app");
        assert!(!grants.may(0, NodeId(1), "team/app"));
    }

    #[test]
    fn a_grant_is_for_one_node_one_blob_and_a_while() {
        let (key, _) = SigningKey::generate().unwrap();
        let (stranger, _) = SigningKey::generate().unwrap();
        let keys = TrustedKeys::new(vec![key.public()]);
        let (node, digest) = (NodeId(7), Digest::sha256(b"x"));
        let grant = Grant { node, digest, from_unix_ms: 100_000, until_unix_ms: 160_000 };
        let good = grant.sign(&key);
        let check = |signed: super::SignedGrant, now: u64, expected: Result<(), GrantError>| {
            assert_eq!(signed.check(now, node, &digest, &keys), expected, "{now}");
        };
        check(good, 100_000, Ok(()));
        check(good, 100_000 - SKEW_MS, Ok(()));
        check(good, 100_000 - SKEW_MS - 1, Err(GrantError::Time));
        check(good, 160_000 + SKEW_MS, Err(GrantError::Time));
        check(grant.sign(&stranger), 100_000, Err(GrantError::Signature));
        let mut longer = good;
        longer.grant.until_unix_ms += 1;
        check(longer, 100_000, Err(GrantError::Signature));
        let other = good.check(100_000, NodeId(8), &digest, &keys);
        assert_eq!(other, Err(GrantError::Other));
        let other = good.check(100_000, node, &Digest::sha256(b"y"), &keys);
        assert_eq!(other, Err(GrantError::Other));
    }
}
