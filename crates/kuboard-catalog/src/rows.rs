//! Values as the tables keep them: digests as text, lists as JSON, sizes as signed integers.

use std::collections::BTreeSet;

use kuboard_oci::Digest;

use crate::error::{Error, ErrorKind, Result};

pub(crate) fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|error| {
        Error::new(ErrorKind::Corrupt, format!("the database holds the bad digest {text:?}"))
            .with_source(error)
    })
}

pub(crate) fn size(stored: i64) -> Result<u64> {
    u64::try_from(stored).map_err(|_| {
        Error::new(ErrorKind::Corrupt, format!("the database holds the bad size {stored}"))
    })
}

pub(crate) fn stored_size(size: u64) -> Result<i64> {
    i64::try_from(size)
        .map_err(|_| Error::new(ErrorKind::Other, format!("no content has {size} bytes")))
}

/// A JSON array for [`crate::Dialect::each`]: sorted, so that transactions that lock the same rows
/// lock them in the same order, and without doubles, which an upsert would trip over.
pub(crate) fn array<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let sorted: BTreeSet<String> = items.into_iter().map(|item| item.to_string()).collect();
    serde_json::Value::from_iter(sorted).to_string()
}

/// Where a listing goes on. Names hold no NUL, so what follows one can't matter to their order;
/// PostgreSQL would refuse it.
pub(crate) fn after(name: Option<&str>) -> &str {
    name.and_then(|name| name.split('\0').next()).unwrap_or_default()
}
