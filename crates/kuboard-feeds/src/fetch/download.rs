//! One document onto disk.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use futures_util::StreamExt;
use http::{StatusCode, header};
use kuboard_oci::{Algorithm, ContentRange, Hasher};
use kuboard_rt::retry::Backoff;
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncReadExt;

use super::{
    Place,
    error::{FetchError, FetchErrorKind},
};

/// Breaks in a row, without progress between them, after which a download gives up.
const MAX_BREAKS: u32 = 5;
/// Bytes that count as progress.
const PROGRESS: u64 = 1 << 20;
/// Longest wait that a throttling server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(120);
/// Waits for a throttling server in all.
const MAX_THROTTLES: u32 = 4;
/// Redirects in a row.
const MAX_REDIRECTS: usize = 5;
/// A document takes at most this long, however its server drips.
const MAX_TIME: Duration = Duration::from_secs(2 * 3600);
/// The largest document (Red Hat's archive, npm's) is below 1 GB.
pub(super) const MAX_BYTES: u64 = 4 << 30;

/// By which a document is recognised as unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fingerprint {
    /// The server's `ETag`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub etag: String,
    /// The server's `Last-Modified`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_modified: String,
    /// sha256 of the bytes, hex.
    pub sha256: String,
    /// How many.
    pub size: u64,
}

/// What came of a fetch.
#[derive(Debug)]
pub enum Fetched {
    /// The same bytes as last time, maybe under other tags.
    Unchanged(Fingerprint),
    /// A new document, in a file that goes away with this.
    File(TempPath, Fingerprint),
}

/// Downloads documents.
#[derive(Clone)]
pub struct Downloader {
    client: reqwest::Client,
    pause: Backoff,
}

impl Downloader {
    /// A downloader; `authority` is PEM certificates that are trusted besides the system's,
    /// `direct` passes by the proxies of the environment.
    ///
    /// # Errors
    /// The certificate can't be read.
    pub fn new(authority: Option<&[u8]>, direct: bool) -> Result<Self, FetchError> {
        let failed = |error: reqwest::Error| {
            FetchError::new(FetchErrorKind::Unreachable, "https", chain(&error.without_url()))
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("kuboard/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60))
            .referer(false)
            .redirect(reqwest::redirect::Policy::custom(redirect));
        if direct {
            builder = builder.no_proxy();
        }
        if let Some(pem) = authority {
            let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(failed)?;
            builder = builder.tls_certs_merge(roots);
        }
        let client = builder.build().map_err(failed)?;
        let pause = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(20) };
        Ok(Self { client, pause })
    }

    /// The same with other pauses, for tests.
    #[must_use]
    pub fn with_pause(mut self, pause: Backoff) -> Self {
        self.pause = pause;
        self
    }

    /// Fetches a document of at most `max` bytes into `folder`, unless it is what `last` says.
    ///
    /// # Errors
    /// See [`FetchErrorKind`]. No file is left then.
    pub async fn fetch(
        &self,
        place: &Place,
        last: Option<&Fingerprint>,
        folder: &Path,
        max: u64,
    ) -> Result<Fetched, FetchError> {
        let (file, fingerprint) = match place {
            Place::File(path) => copy(path, folder, max).await?,
            Place::Url(url) => {
                let download = self.download(url, last, folder, max);
                let downloaded = tokio::time::timeout(MAX_TIME, download).await;
                match downloaded.map_err(|_| slow(url))?? {
                    Some(new) => new,
                    // Only what was asked with a condition can be answered so.
                    None => return Ok(Fetched::Unchanged(last.cloned().unwrap_or_default())),
                }
            }
        };
        if last.is_some_and(|last| last.sha256 == fingerprint.sha256) {
            // The server does not know conditions, or changed its tag only.
            return Ok(Fetched::Unchanged(fingerprint));
        }
        Ok(Fetched::File(file.into_temp_path(), fingerprint))
    }

    /// A small document's bytes, at most `max` of them; `folder` is for the meantime.
    ///
    /// # Errors
    /// See [`FetchErrorKind`].
    pub async fn bytes(
        &self,
        place: &Place,
        folder: &Path,
        max: u64,
    ) -> Result<Vec<u8>, FetchError> {
        match self.fetch(place, None, folder, max).await? {
            Fetched::Unchanged(_) => Ok(Vec::new()),
            Fetched::File(path, _) => std::fs::read(&path).map_err(|error| disk(&path, error)),
        }
    }

    /// `None`: not changed.
    async fn download(
        &self,
        url: &str,
        last: Option<&Fingerprint>,
        folder: &Path,
        max: u64,
    ) -> Result<Option<(NamedTempFile, Fingerprint)>, FetchError> {
        let writer = Writer::new(folder, max)?;
        let mut state = Transfer { writer, etag: String::new(), total: None };
        let (mut breaks, mut throttles) = (0, 0);
        let mut furthest = 0;
        loop {
            match self.attempt(url, last, &mut state).await? {
                Step::Unchanged => return Ok(None),
                Step::Whole { last_modified } => {
                    return Ok(Some(state.writer.finish(state.etag, last_modified)));
                }
                Step::Later(asked) => {
                    throttles += 1;
                    let wait = asked.unwrap_or_else(|| self.pause.delay(throttles, 0.5));
                    if throttles > MAX_THROTTLES || wait > MAX_WAIT {
                        let message = format!(
                            "the server is throttling us (wait {} s); the next update tries again",
                            wait.as_secs()
                        );
                        return Err(FetchError::new(FetchErrorKind::Throttled, url, message));
                    }
                    tokio::time::sleep(wait).await;
                }
                Step::Broken(why) => {
                    if state.writer.written >= PROGRESS + furthest {
                        breaks = 0;
                        furthest = state.writer.written;
                    }
                    breaks += 1;
                    if breaks > MAX_BREAKS {
                        let message = format!("it broke off {breaks} times: {why}");
                        return Err(FetchError::new(FetchErrorKind::Unreachable, url, message));
                    }
                    tokio::time::sleep(self.pause.delay(breaks - 1, 0.5)).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        url: &str,
        last: Option<&Fingerprint>,
        state: &mut Transfer,
    ) -> Result<Step, FetchError> {
        let resume = state.can_resume();
        if !resume {
            state.restart()?;
        }
        let request = self.request(url, last.filter(|_| !resume), state);
        let response = match request.send().await.map_err(reqwest::Error::without_url) {
            Ok(response) => response,
            Err(error) if error.is_redirect() || error.is_builder() => {
                return Err(FetchError::new(FetchErrorKind::Denied, url, chain(&error)));
            }
            Err(error) => return Ok(Step::Broken(chain(&error))),
        };
        match response.status() {
            StatusCode::NOT_MODIFIED if last.is_some() && !resume => return Ok(Step::Unchanged),
            // Also when a range was asked for: the document is another one now.
            StatusCode::OK => state.restart()?,
            StatusCode::PARTIAL_CONTENT if resume && state.continues(&response) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                // What is there is of no use: begin again.
                state.etag.clear();
                return Ok(Step::Broken("the server can't go on where it broke off".to_owned()));
            }
            status => return refused(url, status, &response),
        }
        state.etag = text(response.headers(), &header::ETAG);
        let last_modified = text(response.headers(), &header::LAST_MODIFIED);
        let promised =
            response.content_length().map(|left| state.writer.written.saturating_add(left));
        state.total = promised;
        if promised.is_some_and(|all| all > state.writer.max) {
            return Err(state.writer.too_large(url));
        }
        match receive(response, &mut state.writer, url).await? {
            Some(why) => Ok(Step::Broken(why)),
            None if promised.is_some_and(|length| length != state.writer.written) => {
                Ok(Step::Broken("it ended early".to_owned()))
            }
            None => Ok(Step::Whole { last_modified }),
        }
    }

    fn request(
        &self,
        url: &str,
        last: Option<&Fingerprint>,
        state: &Transfer,
    ) -> reqwest::RequestBuilder {
        let mut request = self.client.get(url);
        if state.writer.written > 0 {
            request = request
                .header(header::RANGE, format!("bytes={}-", state.writer.written))
                .header(header::IF_RANGE, &state.etag);
        }
        if let Some(last) = last {
            if !last.etag.is_empty() {
                request = request.header(header::IF_NONE_MATCH, &last.etag);
            }
            if !last.last_modified.is_empty() {
                request = request.header(header::IF_MODIFIED_SINCE, &last.last_modified);
            }
        }
        request
    }
}

/// What a status that brings no document means.
fn refused(
    url: &str,
    status: StatusCode,
    response: &reqwest::Response,
) -> Result<Step, FetchError> {
    let failed = |kind, message: String| Err(FetchError::new(kind, url, message));
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Ok(Step::Later(retry_after(response.headers())))
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            failed(FetchErrorKind::NotFound, "the server has none".to_owned())
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::NOT_MODIFIED => {
            Ok(Step::Broken(format!("the server said {status}")))
        }
        status if status.is_server_error() => Ok(Step::Broken(format!("the server said {status}"))),
        status => failed(FetchErrorKind::Denied, format!("the server refuses: {status}")),
    }
}

/// Where a redirect may lead: a few hops, no address twice, and never out of TLS.
fn redirect(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let previous = attempt.previous();
    if previous.contains(attempt.url()) {
        return attempt.error("a redirect loop");
    }
    if previous.len() > MAX_REDIRECTS {
        return attempt.error(format!("more than {MAX_REDIRECTS} redirects"));
    }
    let secure = previous.last().is_some_and(|from| from.scheme() == "https");
    if secure && attempt.url().scheme() != "https" {
        return attempt.error("a redirect from https to http");
    }
    attempt.follow()
}

async fn copy(
    path: &Path,
    folder: &Path,
    max: u64,
) -> Result<(NamedTempFile, Fingerprint), FetchError> {
    let named = path.display().to_string();
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                FetchErrorKind::NotFound
            }
            _ => FetchErrorKind::Disk,
        };
        FetchError::new(kind, &named, error.to_string())
    };
    let about = tokio::fs::metadata(path).await.map_err(failed)?;
    if !about.is_file() {
        return Err(FetchError::new(FetchErrorKind::NotFound, &named, "it is no file"));
    }
    let mut source = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut writer = Writer::new(folder, max)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = source.read(&mut buffer).await.map_err(failed)?;
        if read == 0 {
            return Ok(writer.finish(String::new(), String::new()));
        }
        writer.write(buffer.get(..read).unwrap_or_default(), &named)?;
    }
}

/// Writes the body; why it broke off, if it did.
async fn receive(
    response: reqwest::Response,
    writer: &mut Writer,
    url: &str,
) -> Result<Option<String>, FetchError> {
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => writer.write(&piece, url)?,
            Err(error) => return Ok(Some(chain(&error.without_url()))),
        }
    }
    Ok(None)
}

enum Step {
    Unchanged,
    Whole {
        last_modified: String,
    },
    /// For how long, if the server said so.
    Later(Option<Duration>),
    Broken(String),
}

struct Transfer {
    writer: Writer,
    /// As the server sent it; empty if it did not.
    etag: String,
    /// How long the whole is, if the server said so.
    total: Option<u64>,
}

impl Transfer {
    /// A weak tag does not promise the same bytes: nothing can be resumed by it.
    fn can_resume(&self) -> bool {
        self.writer.written > 0 && !self.etag.is_empty() && !self.etag.starts_with("W/")
    }

    fn restart(&mut self) -> Result<(), FetchError> {
        self.total = None;
        self.writer.restart()
    }

    /// Whether an answer is the rest of the same document.
    fn continues(&self, response: &reqwest::Response) -> bool {
        let etag = text(response.headers(), &header::ETAG);
        let range = text(response.headers(), &header::CONTENT_RANGE);
        let same = etag.is_empty() || etag == self.etag;
        let fits = range.parse::<ContentRange>().is_ok_and(|range| {
            range.start == self.writer.written
                && (range.total.is_none() || self.total.is_none() || range.total == self.total)
        });
        same && fits
    }
}

struct Writer {
    file: NamedTempFile,
    hasher: Hasher,
    written: u64,
    max: u64,
}

impl Writer {
    fn new(folder: &Path, max: u64) -> Result<Self, FetchError> {
        let file = tempfile::Builder::new()
            .prefix("feed-")
            .tempfile_in(folder)
            .map_err(|error| disk(folder, error))?;
        Ok(Self { file, hasher: Hasher::new(Algorithm::Sha256), written: 0, max })
    }

    fn restart(&mut self) -> Result<(), FetchError> {
        if self.written > 0 {
            let emptied = self.file.as_file().set_len(0);
            let rewound = emptied.and_then(|()| self.file.as_file_mut().seek(SeekFrom::Start(0)));
            rewound.map_err(|error| disk(self.file.path(), error))?;
            self.hasher = Hasher::new(Algorithm::Sha256);
            self.written = 0;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], from: &str) -> Result<(), FetchError> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.max {
            return Err(self.too_large(from));
        }
        self.hasher.update(bytes);
        let file: &mut File = self.file.as_file_mut();
        file.write_all(bytes).map_err(|error| disk(self.file.path(), error))
    }

    fn too_large(&self, from: &str) -> FetchError {
        let message = format!("it has more than {} bytes", self.max);
        FetchError::new(FetchErrorKind::TooLarge, from, message)
    }

    fn finish(self, etag: String, last_modified: String) -> (NamedTempFile, Fingerprint) {
        let sha256 = self.hasher.finish().hex();
        let fingerprint = Fingerprint { etag, last_modified, sha256, size: self.written };
        (self.file, fingerprint)
    }
}

fn disk(path: &Path, error: impl std::fmt::Display) -> FetchError {
    let message = format!("it can't be kept: {error}");
    FetchError::new(FetchErrorKind::Disk, &path.display().to_string(), message)
}

fn slow(url: &str) -> FetchError {
    let message = format!("it was not there after {} s", MAX_TIME.as_secs());
    FetchError::new(FetchErrorKind::Unreachable, url, message)
}

fn text(headers: &http::HeaderMap, name: &header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// Seconds, or a date by the server's own clock.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let wanted = text(headers, &header::RETRY_AFTER);
    let wanted = wanted.trim();
    if let Ok(seconds) = wanted.parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(86_400)));
    }
    let date = |text: &str| {
        let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(parsed.as_second())
    };
    let seconds = date(wanted)?.saturating_sub(date(&text(headers, &header::DATE))?);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(86_400)))
}

/// An error with its causes: reqwest's own words say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::retry_after;

    #[test]
    fn waits_are_seconds_or_dates() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (value, seconds) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("99999999999", Some(86_400)),
            ("soon", None),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert("date", date.parse().unwrap());
            headers.insert("retry-after", value.parse().unwrap());
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&http::HeaderMap::new()), None);
    }
}
