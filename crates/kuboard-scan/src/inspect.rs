//! From an image to its inventory: layers that are known are taken as they are, the others are read
//! once, several at a time, the largest first.

use std::{collections::HashMap, io, sync::Arc};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{BoxStream, FuturesUnordered},
};
use kuboard_oci::Digest;
use kuboard_rt::Tasks;
use kuboard_vuln::{ImageInventory, LayerInventory, LayerReference, Problem};
use tokio::sync::mpsc;

use crate::{
    index::{Indexers, LayerIndex, Settings, index_reader, is_lasting},
    inventories::Inventories,
    merge::merge,
    source::{BlobBytes, Image, SourceError},
};

/// Pieces that wait between the network and the thread that indexes.
const QUEUE: usize = 16;

/// Reads images.
#[derive(Clone)]
pub struct Inspector {
    /// What looks into layers.
    pub indexers: Indexers,
    /// Bounds.
    pub settings: Arc<Settings>,
    /// What is known already, and where it is kept.
    pub inventories: Arc<dyn Inventories>,
    /// Where threads come from.
    pub tasks: Tasks,
    /// Layers read at once.
    pub parallel: usize,
}

/// What happened to a layer, for whoever shows progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStep {
    /// It was known.
    Known,
    /// It is being read.
    Begun,
    /// It was read.
    Done,
}

/// Told of each step: layer and what happened.
pub type Progress<'a> = &'a (dyn Fn(&LayerReference, LayerStep) + Send + Sync);

impl Inspector {
    /// The inventory of an image.
    ///
    /// # Errors
    /// A layer can't be had. What is wrong within a layer is a problem of the inventory instead.
    pub async fn inspect(
        &self,
        image: &Image,
        progress: Progress<'_>,
    ) -> Result<ImageInventory, SourceError> {
        let mut layers: Vec<Option<Arc<LayerInventory>>> = vec![None; image.layers.len()];
        let mut unknown = Vec::new();
        // The same layer may stand in an image any number of times.
        let mut first = HashMap::new();
        let mut repeated = Vec::new();
        for (position, layer) in image.layers.iter().enumerate() {
            if let Some(first) = first.get(&(layer.digest, layer.diff_id)) {
                repeated.push((position, *first));
                continue;
            }
            first.insert((layer.digest, layer.diff_id), position);
            match self.known(layer).await {
                Some(inventory) => {
                    progress(layer, LayerStep::Known);
                    layers[position] = Some(Arc::new(inventory));
                }
                None => unknown.push((position, layer)),
            }
        }
        unknown.sort_by_key(|(_, layer)| std::cmp::Reverse(layer.size));
        let mut waiting = unknown.into_iter();
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < self.parallel.max(1)
                && let Some((position, layer)) = waiting.next()
            {
                progress(layer, LayerStep::Begun);
                reading.push(self.read_at(image, position, layer));
            }
            let Some(read) = reading.next().await else { break };
            let (position, inventory) = read?;
            if let Some(layer) = image.layers.get(position) {
                progress(layer, LayerStep::Done);
            }
            layers[position] = Some(Arc::new(inventory));
        }
        drop(reading);
        for (position, first) in repeated {
            layers[position] = layers[first].clone();
        }
        let layers: Vec<(LayerReference, Arc<LayerInventory>)> =
            image.layers.iter().cloned().zip(layers.into_iter().flatten()).collect();
        Ok(merge(&layers))
    }

    /// What is kept under the digest of the uncompressed archive, or of the blob.
    async fn known(&self, layer: &LayerReference) -> Option<LayerInventory> {
        if let Some(diff_id) = &layer.diff_id
            && let Some(known) = self.inventories.get(diff_id).await
        {
            return Some(known);
        }
        let known = self.inventories.get(&layer.digest).await?;
        // Somebody's configuration may claim another archive for the same blob.
        let same = layer.diff_id.is_none() || known.diff_id == layer.diff_id;
        same.then_some(known)
    }

    async fn read_at(
        &self,
        image: &Image,
        position: usize,
        layer: &LayerReference,
    ) -> Result<(usize, LayerInventory), SourceError> {
        Ok((position, self.read(image, position, layer).await?))
    }

    async fn read(
        &self,
        image: &Image,
        position: usize,
        layer: &LayerReference,
    ) -> Result<LayerInventory, SourceError> {
        let mut inventory = match image.content.open(position, layer).await? {
            BlobBytes::Reader(reader) => {
                let (indexers, settings) = (self.indexers.clone(), self.settings.clone());
                let reading = move || index_reader(&indexers, &settings, reader);
                self.tasks.blocking("layer", reading).await.map_err(SourceError::io)?
            }
            BlobBytes::Stream(stream) => self.index_stream(stream).await?,
        };
        match (&layer.diff_id, &inventory.diff_id) {
            (Some(expected), Some(actual)) if expected == actual && is_lasting(&inventory) => {
                self.inventories.put(expected, &inventory).await;
            }
            (Some(expected), Some(actual)) if expected != actual => {
                inventory.problems.push(Problem {
                    path: String::new(),
                    by: "archive".to_owned(),
                    why: format!("layer {} holds {actual} instead of {expected}", layer.digest),
                })
            }
            _ => {}
        }
        Ok(inventory)
    }

    /// Indexes bytes as they come.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn index_stream(
        &self,
        mut stream: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<LayerInventory, SourceError> {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
        let mut index = LayerIndex::new(&self.indexers, &self.settings);
        let indexing = self.tasks.blocking("layer", move || {
            while let Some(piece) = receiver.blocking_recv() {
                index.push(&piece);
            }
            index.finish()
        });
        let feeding = async move {
            while let Some(piece) = stream.next().await {
                if sender.send(piece.map_err(SourceError::io)?).await.is_err() {
                    break;
                }
            }
            Ok::<_, SourceError>(())
        };
        let (fed, indexed) = tokio::join!(feeding, indexing);
        fed?;
        indexed.map_err(SourceError::io)
    }
}

/// The key under which what a blob contains is found again: its own digest.
#[must_use]
pub fn is_layer_like(head: &[u8]) -> bool {
    matches!(head, [0x1f, 0x8b, 0x08, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..])
        || head.get(257..262).is_some_and(|magic| magic == b"ustar")
}

/// Keeps the inventory of a blob whose digest was checked by whoever gave the bytes.
pub(crate) async fn keep(inventories: &dyn Inventories, blob: &Digest, found: &LayerInventory) {
    if is_lasting(found) {
        inventories.put(blob, found).await;
    }
}
