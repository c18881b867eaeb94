//! Pushing blobs: in one piece, in chunks, as a stream, resumed, or mounted from elsewhere.
//!
//! A body that breaks off leaves its session with what was written; the client asks how far it is
//! and goes on. Only a wrong digest, or a failing disk, ends a session against its client's will.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use kuboard_oci::{Algorithm, ContentRange, Digest, RepositoryName};
use kuboard_registry::server::{ApiError, Query};
use kuboard_rt::http::{Body, Request, Response};
use kuboard_store::Ingest;

use super::{
    Hosted, MountSource, refusals,
    sessions::{Refused, Session},
};
use crate::answer::{DOCKER_CONTENT_DIGEST, respond, text};

impl Hosted {
    /// `POST uploads/`: mounts, takes a whole blob, or begins a session.
    pub(super) async fn begin_upload(
        self: &Arc<Self>,
        repository: &RepositoryName,
        query: &Query,
        request: Request,
        mounts: &dyn MountSource,
    ) -> Result<Response, ApiError> {
        if let Some(mount) = query.get("mount") {
            let digest = parse_digest(mount)?;
            if self.mount(repository, &digest, query.get("from"), mounts).await? {
                return Ok(blob_created(repository, &digest));
            }
        } else if let Some(digest) = query.get("digest") {
            let digest = parse_digest(digest)?;
            let (this, repository) = (self.clone(), repository.clone());
            return self
                .detached(
                    "push",
                    async move { this.take_whole(&repository, digest, request).await },
                )
                .await;
        }
        let algorithm = match query.get("digest-algorithm") {
            None => Algorithm::Sha256,
            Some(name) => parse_algorithm(name)?,
        };
        let now_ms = self.clock.now_ms();
        let begun = self.sessions.begin(repository, algorithm, now_ms).await;
        let id = begun.map_err(|error| refusals::store_failed(&error))?;
        Ok(upload_response(StatusCode::ACCEPTED, repository, &id, 0))
    }

    /// `GET` of an upload: how far it is.
    pub(super) async fn upload_status(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Response, ApiError> {
        let progress = self.sessions.progress(repository, id, self.clock.now_ms()).await;
        let written = progress.map_err(|refused| refusal(repository, refused))?;
        Ok(upload_response(StatusCode::NO_CONTENT, repository, id, written))
    }

    /// `PATCH` of an upload: a chunk, or a stream.
    pub(super) async fn go_on(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &str,
        request: Request,
    ) -> Result<Response, ApiError> {
        let (this, repository, id) = (self.clone(), repository.clone(), id.to_owned());
        let change = async move {
            let session = this.receive(&repository, &id, request, None).await?;
            let written = session.written();
            session.rest(this.clock.now_ms());
            Ok(upload_response(StatusCode::ACCEPTED, &repository, &id, written))
        };
        self.detached("push", change).await
    }

    /// `PUT` of an upload: its last bytes, if any are left, and its digest.
    pub(super) async fn finish_upload(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &str,
        query: &Query,
        request: Request,
    ) -> Result<Response, ApiError> {
        let digest = query.get("digest").ok_or_else(|| {
            refusals::digest_invalid("the digest is missing; hint: add ?digest=<digest>")
        })?;
        let digest = parse_digest(digest)?;
        let (this, repository, id) = (self.clone(), repository.clone(), id.to_owned());
        let change = async move {
            let session = this.receive(&repository, &id, request, Some(digest.algorithm())).await?;
            match session.end() {
                Some(ingest) => this.accept_blob(&repository, &digest, ingest).await,
                None => Err(refusals::upload_unknown(&repository)),
            }
        };
        self.detached("push", change).await
    }

    /// `DELETE` of an upload.
    pub(super) async fn cancel_upload(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Response, ApiError> {
        let (this, repository, id) = (self.clone(), repository.clone(), id.to_owned());
        let change = async move {
            let taken = this.sessions.take(&repository, &id).await;
            let session = taken.map_err(|refused| refusal(&repository, refused))?;
            if let Some(ingest) = session.end() {
                ingest.abandon().await;
            }
            Ok(respond(StatusCode::NO_CONTENT, HeaderMap::new(), Body::empty()))
        };
        self.detached("push", change).await
    }

    /// A blob in the body of the one request that pushes it.
    async fn take_whole(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        request: Request,
    ) -> Result<Response, ApiError> {
        let announced = announced(request.headers(), 0)?;
        let created = self.spool.create(digest.algorithm(), announced.length).await;
        let mut ingest = created.map_err(|error| refusals::store_failed(&error))?;
        match write_all(&mut ingest, request.into_body(), announced.length).await {
            Ok(received) => {
                self.metrics.pushed_bytes.inc_by(received);
                self.accept_blob(repository, &digest, ingest).await
            }
            Err(Broken { answer, .. }) => Err(answer),
        }
    }

    /// Writes a request's body to its session. On failure the session rests, with what was
    /// written, unless the disk failed.
    async fn receive(
        &self,
        repository: &RepositoryName,
        id: &str,
        request: Request,
        algorithm: Option<Algorithm>,
    ) -> Result<Session, ApiError> {
        let taken = self.sessions.take(repository, id).await;
        let mut session = taken.map_err(|refused| refusal(repository, refused))?;
        let written = session.written();
        let announced = match announced(request.headers(), written) {
            Ok(announced) => announced,
            Err(error) => {
                session.rest(self.clock.now_ms());
                return Err(error);
            }
        };
        if announced.start.is_some_and(|start| start != written) {
            session.rest(self.clock.now_ms());
            let (location, range) = (upload_path(repository, id), upload_range(written));
            return Err(refusals::out_of_order(&location, &range, written));
        }
        // The digest is known before the first byte: hash by its algorithm at once rather than
        // read everything again.
        if let Some(algorithm) = algorithm.filter(|_| written == 0) {
            let begun = session.hash_by(algorithm).await;
            begun.map_err(|error| refusals::store_failed(&error))?;
        }
        let Some(ingest) = session.ingest() else {
            return Err(refusals::upload_unknown(repository));
        };
        match write_all(ingest, request.into_body(), announced.length).await {
            Ok(received) => {
                self.metrics.pushed_bytes.inc_by(received);
                Ok(session)
            }
            Err(broken) => {
                if broken.keeps_session {
                    session.rest(self.clock.now_ms());
                } else if let Some(ingest) = session.end() {
                    ingest.abandon().await;
                }
                Err(broken.answer)
            }
        }
    }

    /// Checks a written blob and takes it into the repository.
    pub(super) async fn accept_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        ingest: Ingest,
    ) -> Result<Response, ApiError> {
        let finished = ingest.finish(digest, None).await;
        let verified = finished.map_err(|error| refusals::store_failed(&error))?;
        self.publish(repository, verified).await?;
        self.metrics.pushed_blobs.inc();
        Ok(blob_created(repository, digest))
    }
}

/// What a request says about its body.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    /// Where in the blob it begins, if it says so.
    start: Option<u64>,
    /// Its length, if it says so.
    length: Option<u64>,
}

/// Reads the lengths that a request's headers announce for an upload of `written` bytes.
fn announced(headers: &HeaderMap, written: u64) -> Result<Announced, ApiError> {
    let length = match headers.get(header::CONTENT_LENGTH) {
        None => None,
        Some(value) => {
            let length = value.to_str().ok().and_then(|value| value.parse::<u64>().ok());
            Some(
                length
                    .ok_or_else(|| refusals::upload_invalid("the Content-Length is no number"))?,
            )
        }
    };
    let Some(value) = headers.get(header::CONTENT_RANGE) else {
        return Ok(Announced { start: None, length });
    };
    // A request without a body can't be out of order, whatever range its client repeats.
    if length == Some(0) {
        return Ok(Announced { start: None, length });
    }
    let range = value.to_str().map_err(|_| refusals::upload_invalid("the range is not text"))?;
    let range: ContentRange = range.parse().map_err(refusals::upload_invalid)?;
    if range.start == written
        && let Some(length) = length
        && length != range.len()
    {
        return Err(refusals::size_invalid(range.len(), length));
    }
    Ok(Announced { start: Some(range.start), length: Some(range.len()) })
}

/// A body that was not taken whole.
pub(super) struct Broken {
    answer: ApiError,
    /// Whether what was written is good, so that the client may go on from there.
    keeps_session: bool,
}

/// Writes a body to the end of `ingest`; its length. Bytes beyond the announced length are not
/// written.
pub(super) async fn write_all<B>(
    ingest: &mut Ingest,
    mut body: B,
    announced: Option<u64>,
) -> Result<u64, Broken>
where
    B: http_body::Body<Data = Bytes, Error = std::io::Error> + Unpin,
{
    let failed = |error: kuboard_store::Error| Broken {
        answer: refusals::store_failed(&error),
        keeps_session: false,
    };
    let mut received = 0_u64;
    let mut ended = Ok(());
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => {
                ended = Err(refusals::broken_body(&error, received));
                break;
            }
        };
        let length = data.len() as u64;
        if let Some(announced) = announced.filter(|announced| received + length > *announced) {
            ended = Err(refusals::size_invalid(announced, received + length));
            break;
        }
        if !data.is_empty() {
            ingest.write(data).await.map_err(failed)?;
            received += length;
        }
    }
    ingest.flush().await.map_err(failed)?;
    if let Some(announced) = announced.filter(|announced| ended.is_ok() && received < *announced) {
        ended = Err(refusals::size_invalid(announced, received));
    }
    ended.map(|()| received).map_err(|answer| Broken { answer, keeps_session: true })
}

fn parse_digest(digest: &str) -> Result<Digest, ApiError> {
    digest.parse().map_err(refusals::digest_invalid)
}

fn parse_algorithm(name: &str) -> Result<Algorithm, ApiError> {
    let known = [Algorithm::Sha256, Algorithm::Sha512];
    known.into_iter().find(|algorithm| algorithm.as_str() == name).ok_or_else(|| {
        refusals::digest_invalid("the digest algorithm is not known; hint: use sha256 or sha512")
    })
}

fn refusal(repository: &RepositoryName, refused: Refused) -> ApiError {
    match refused {
        Refused::Unknown => refusals::upload_unknown(repository),
        Refused::Busy => refusals::upload_busy(),
        Refused::Failed(error) => refusals::store_failed(&error),
    }
}

fn upload_path(repository: &RepositoryName, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// The bytes received, as the specification writes them; an empty upload reads `0-0`.
fn upload_range(written: u64) -> String {
    format!("0-{}", written.saturating_sub(1))
}

fn upload_response(
    status: StatusCode,
    repository: &RepositoryName,
    id: &str,
    written: u64,
) -> Response {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(header::LOCATION, text(&upload_path(repository, id)));
    headers.insert(header::RANGE, text(&upload_range(written)));
    headers.insert(refusals::DOCKER_UPLOAD_UUID, text(id));
    respond(status, headers, Body::empty())
}

fn blob_created(repository: &RepositoryName, digest: &Digest) -> Response {
    let digest = digest.to_string();
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::LOCATION, text(&format!("/v2/{repository}/blobs/{digest}")));
    headers.insert(DOCKER_CONTENT_DIGEST, text(&digest));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    respond(StatusCode::CREATED, headers, Body::empty())
}
