//! Asking for manifests. Their bytes are taken as they are; only their digest is checked.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use kuboard_oci::{Digest, MAX_MANIFEST_BYTES, Reference, media_type};

use super::{
    endpoint::Order,
    error::Failure,
    exchange::{Answer, Ask},
    shared::{Ground, Lane, Operation},
};

const DIGEST_HEADER: &str = "docker-content-digest";

/// What the head of a manifest says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// What the reference stands for now, in the upstream's words; some do not say it.
    pub digest: Option<Digest>,
    /// Without parameters.
    pub media_type: Option<String>,
    /// In bytes.
    pub size: Option<u64>,
    /// As sent, quotes included.
    pub etag: Option<String>,
}

/// A manifest whose digest was checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fetched {
    /// As sent.
    pub bytes: Bytes,
    /// Without parameters; empty where neither the answer nor the manifest says it.
    pub media_type: String,
    /// Computed. The one asked for, else the one the upstream named, else sha256.
    pub digest: Digest,
}

/// Asks what a reference stands for.
pub(super) struct HeadManifest<'a> {
    pub(super) reference: &'a Reference,
    pub(super) order: Order,
}

impl Operation for HeadManifest<'_> {
    type Output = Head;
    const LANE: Lane = Lane::Small;

    fn order(&self) -> Order {
        self.order
    }

    fn ask(&self) -> Ask {
        ask(Method::HEAD, self.reference)
    }

    fn again(&self, answer: &Answer) -> Option<Ask> {
        let unsupported =
            matches!(answer.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
        unsupported.then(|| ask(Method::GET, self.reference))
    }

    async fn read(&self, answer: Answer, ground: Ground) -> Result<Head, Failure> {
        let etag = answer.header(header::ETAG).map(str::to_owned);
        if answer.method == Method::GET {
            let fetched = read(self.reference, answer, &ground).await?;
            return Ok(Head {
                digest: Some(fetched.digest),
                size: u64::try_from(fetched.bytes.len()).ok(),
                media_type: Some(fetched.media_type).filter(|known| !known.is_empty()),
                etag,
            });
        }
        let digest = named_digest(&answer);
        if let (Some(asked), Some(named)) = (self.reference.digest(), &digest)
            && asked.algorithm() == named.algorithm()
            && asked != named
        {
            return Err(Failure::wrong(format!("it answered with another manifest, {named}")));
        }
        let size = answer.length();
        if size.is_some_and(is_too_large) {
            return Err(too_large());
        }
        Ok(Head { digest, media_type: named_type(&answer).map(str::to_owned), size, etag })
    }
}

/// Fetches what a reference stands for.
pub(super) struct GetManifest<'a> {
    pub(super) reference: &'a Reference,
}

impl Operation for GetManifest<'_> {
    type Output = Fetched;
    const LANE: Lane = Lane::Small;

    fn order(&self) -> Order {
        Order::Configured
    }

    fn ask(&self) -> Ask {
        ask(Method::GET, self.reference)
    }

    async fn read(&self, answer: Answer, ground: Ground) -> Result<Fetched, Failure> {
        read(self.reference, answer, &ground).await
    }
}

fn ask(method: Method, reference: &Reference) -> Ask {
    let mut ask = Ask::new(method, format!("manifests/{reference}"));
    ask.accept = Some(media_type::ACCEPT_ALL);
    ask
}

async fn read(reference: &Reference, answer: Answer, ground: &Ground) -> Result<Fetched, Failure> {
    if answer.status() != StatusCode::OK {
        return Err(Failure::wrong("it answered with a part of the manifest"));
    }
    if answer.length().is_some_and(is_too_large) {
        return Err(too_large());
    }
    let named = named_digest(&answer);
    let named_type = named_type(&answer).map(str::to_owned);
    let bytes = ground.shared.transport.body(answer.response, MAX_MANIFEST_BYTES).await?;
    let digest = verify(&bytes, reference.digest(), named.as_ref())?;
    // Some object stores behind a redirect only know that it is JSON, or bytes.
    let media_type = match named_type.filter(|known| !is_generic(known)) {
        Some(known) => known,
        None => type_inside(&bytes).unwrap_or_default(),
    };
    Ok(Fetched { bytes, media_type, digest })
}

/// The digest of the bytes, if it is the one asked for and the one the upstream named.
fn verify(bytes: &[u8], asked: Option<&Digest>, named: Option<&Digest>) -> Result<Digest, Failure> {
    for expected in [asked, named].into_iter().flatten() {
        let actual = Digest::of(expected.algorithm(), bytes);
        if actual != *expected {
            return Err(Failure::wrong(format!(
                "its manifest has the digest {actual}, not {expected}"
            )));
        }
    }
    Ok(asked.or(named).copied().unwrap_or_else(|| Digest::sha256(bytes)))
}

fn is_too_large(size: u64) -> bool {
    usize::try_from(size).map_or(true, |size| size > MAX_MANIFEST_BYTES)
}

fn too_large() -> Failure {
    Failure::invalid(format!("its manifest is above {MAX_MANIFEST_BYTES} bytes"))
}

fn named_digest(answer: &Answer) -> Option<Digest> {
    answer.header(DIGEST_HEADER)?.trim().parse().ok()
}

fn named_type(answer: &Answer) -> Option<&str> {
    answer.header(header::CONTENT_TYPE).map(media_type::essence).filter(|known| !known.is_empty())
}

fn is_generic(known: &str) -> bool {
    [media_type::JSON, media_type::OCTET_STREAM, "binary/octet-stream", "text/plain"]
        .iter()
        .any(|generic| media_type::same(generic, known))
}

/// The `mediaType` that a manifest says of itself.
fn type_inside(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Inside {
        media_type: Option<String>,
    }
    serde_json::from_slice::<Inside>(bytes).ok()?.media_type
}

#[cfg(test)]
mod tests {
    use kuboard_oci::Algorithm;

    use super::*;

    #[test]
    fn digests_are_checked_against_both_words() {
        let bytes = b"{}";
        let short = Digest::sha256(bytes);
        let long = Digest::of(Algorithm::Sha512, bytes);
        let wrong = Digest::sha256(b"other");
        let cases = [
            (None, None, Some(short)),
            (None, Some(long), Some(long)),
            (Some(short), None, Some(short)),
            (Some(long), Some(short), Some(long)),
            (Some(wrong), None, None),
            (Some(short), Some(wrong), None),
            (None, Some(wrong), None),
        ];
        for (asked, named, expected) in cases {
            let digest = verify(bytes, asked.as_ref(), named.as_ref()).ok();
            assert_eq!(digest, expected, "{asked:?} {named:?}");
        }
    }
}
