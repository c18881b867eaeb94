//! Large blobs in files, and images made of them: too large to be held in memory as the testkit's
//! images are.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use kuboard_oci::{Algorithm, Digest, Hasher, media_type};
use serde_json::{Value, json};

use crate::plan::MIB;

/// A blob in a file.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Payload {
    /// A file of bytes that do not compress; the seed decides which.
    pub(crate) fn noise(folder: &Path, seed: u64, size: u64) -> Result<Payload> {
        let path = folder.join(format!("noise-{seed}"));
        let mut file = File::create(&path)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut piece = vec![0_u8; MIB as usize];
        let mut left = size;
        while left > 0 {
            for word in piece.chunks_exact_mut(8) {
                // xorshift64*
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                word.copy_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
            }
            let part = &piece[..left.min(MIB) as usize];
            hasher.update(part);
            file.write_all(part)?;
            left -= part.len() as u64;
        }
        Ok(Payload { path, digest: hasher.finish(), size })
    }

    /// The same file with other first bytes, so that a store has never seen it.
    pub(crate) fn vary(&mut self, seed: u64) -> Result<()> {
        let mut file = File::options().read(true).write(true).open(&self.path)?;
        file.write_all(&seed.to_le_bytes())?;
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut piece = vec![0; MIB as usize];
        loop {
            let count = file.read(&mut piece)?;
            if count == 0 {
                break;
            }
            hasher.update(&piece[..count]);
        }
        self.digest = hasher.finish();
        Ok(())
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": self.digest.to_string(), "size": self.size})
    }
}

/// An image whose blobs are payloads; the first is its configuration.
pub(crate) struct LargeImage {
    pub(crate) manifest: Arc<[u8]>,
    pub(crate) digest: Digest,
    pub(crate) blobs: Vec<Payload>,
}

impl LargeImage {
    /// An image with layers of these sizes.
    pub(crate) fn noise(folder: &Path, seed: u64, layers: &[u64]) -> Result<LargeImage> {
        let path = folder.join(format!("config-{seed}"));
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "config": {"Labels": {"seed": seed.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": []},
        }))?;
        std::fs::write(&path, &config)?;
        let (digest, size) = (Digest::sha256(&config), config.len() as u64);
        let mut blobs = vec![Payload { path, digest, size }];
        for (number, size) in layers.iter().enumerate() {
            blobs.push(Payload::noise(folder, seed * 100 + number as u64, *size)?);
        }
        let manifest = serde_json::to_vec_pretty(&json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": blobs[0].descriptor(media_type::OCI_CONFIG),
            "layers": blobs[1..].iter().map(|it| it.descriptor(media_type::OCI_LAYER)).collect::<Vec<_>>(),
        }))?;
        Ok(LargeImage { digest: Digest::sha256(&manifest), manifest: manifest.into(), blobs })
    }

    /// Bytes of the manifest and all blobs: what one pull moves at least.
    pub(crate) fn bytes(&self) -> u64 {
        self.manifest.len() as u64 + self.blobs.iter().map(|blob| blob.size).sum::<u64>()
    }
}
