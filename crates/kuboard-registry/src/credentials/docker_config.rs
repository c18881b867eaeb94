//! Credentials from a docker `config.json`, or from the `.dockerconfigjson` of a Kubernetes
//! Secret mounted as a file. Read again when it changes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use kuboard_rt::{BoxFuture, Clock};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;

use super::{Credential, CredentialError, Credentials, helper, keyring::Keyring};

/// Longest file read.
const MAX_FILE: u64 = 1024 * 1024;
/// How long the answer of a helper is used; starting a program for each request is too much.
const HELPER_TTL: Duration = Duration::from_secs(60);
/// Answers of helpers kept.
const MAX_ANSWERS: usize = 256;

/// See the module.
pub struct DockerConfig {
    path: PathBuf,
    helpers: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    loaded: Mutex<Loaded>,
    /// By helper and server. Held while the helper runs, so that one runs at a time.
    answers: tokio::sync::Mutex<HashMap<(String, String), Answer>>,
}

/// What a helper said.
struct Answer {
    /// Monotonic.
    use_until: Duration,
    credential: Option<Credential>,
}

#[derive(Clone)]
struct Loaded {
    stamp: Stamp,
    ring: Arc<Keyring>,
}

/// Changes when the file does.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    /// Kubernetes replaces mounted files by renaming a folder; the times may stay.
    inode: u64,
}

impl DockerConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, is above 1 MiB, or is not a docker configuration.
    pub async fn open(
        path: impl Into<PathBuf>,
        clock: Arc<dyn Clock>,
    ) -> Result<DockerConfig, CredentialError> {
        let path = path.into();
        let loaded = load(&path).await?;
        let answers = tokio::sync::Mutex::default();
        Ok(DockerConfig { path, helpers: None, clock, loaded: Mutex::new(loaded), answers })
    }

    /// Looks for credential helpers in this folder instead of on the `PATH`.
    #[must_use]
    pub fn with_helpers_in(mut self, folder: impl Into<PathBuf>) -> DockerConfig {
        self.helpers = Some(folder.into());
        self
    }

    /// The file's content as of now. A file that became unreadable to the parser, for example
    /// because it is just being written, leaves the last good content in use.
    async fn ring(&self) -> Result<Arc<Keyring>, CredentialError> {
        let seen = self.loaded.lock().clone();
        if stamp(&self.path).await? == seen.stamp {
            return Ok(seen.ring);
        }
        match load(&self.path).await {
            Ok(fresh) => {
                self.answers.lock().await.clear();
                *self.loaded.lock() = fresh.clone();
                Ok(fresh.ring)
            }
            Err(error) => {
                tracing::warn!(
                    path = %self.path.display(),
                    error = &error as &dyn std::error::Error,
                    "the docker configuration changed but cannot be used; keeping the last one"
                );
                Ok(seen.ring)
            }
        }
    }

    async fn ask_helper(
        &self,
        name: &str,
        server: String,
    ) -> Result<Option<Credential>, CredentialError> {
        let key = (name.to_owned(), server);
        let mut answers = self.answers.lock().await;
        let now = self.clock.monotonic();
        if let Some(answer) = answers.get(&key)
            && now < answer.use_until
        {
            return Ok(answer.credential.clone());
        }
        let credential = helper::ask(name, self.helpers.as_deref(), &key.1).await?;
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        let answer = Answer { use_until: now + HELPER_TTL, credential: credential.clone() };
        answers.insert(key, answer);
        Ok(credential)
    }
}

impl Credentials for DockerConfig {
    fn for_repository<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>> {
        Box::pin(async move {
            let ring = self.ring().await?;
            let found = ring.find(registry, repository);
            if let Some((name, server)) = found.helper
                && let Some(answer) = self.ask_helper(name, server).await?
            {
                return Ok(Some(answer));
            }
            found.entry.transpose().map(Option::<&Credential>::cloned).map_err(|why| {
                CredentialError::lasting(format!(
                    "{}: the entry for {registry} cannot be used: {why}; hint: run docker login \
                     again",
                    self.path.display()
                ))
            })
        })
    }
}

async fn stamp(path: &Path) -> Result<Stamp, CredentialError> {
    let metadata = tokio::fs::metadata(path).await.map_err(|error| unreadable(path, error))?;
    Ok(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: std::os::unix::fs::MetadataExt::ino(&metadata),
    })
}

async fn load(path: &Path) -> Result<Loaded, CredentialError> {
    // Before the content: a change in between is then seen at the next look.
    let stamp = stamp(path).await?;
    let file = tokio::fs::File::open(path).await.map_err(|error| unreadable(path, error))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| unreadable(path, error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(CredentialError::lasting(format!("{} is above 1 MiB", path.display())));
    }
    let ring = Keyring::parse(&bytes).map_err(|error| {
        // Only the place: serde_json's text may quote what it found.
        CredentialError::lasting(format!(
            "{}:{}: not a docker configuration; hint: it is a JSON object with \"auths\", \
             \"credHelpers\" or \"credsStore\"",
            path.display(),
            error.line()
        ))
    })?;
    Ok(Loaded { stamp, ring: Arc::new(ring) })
}

fn unreadable(path: &Path, error: std::io::Error) -> CredentialError {
    CredentialError::passing(format!("the docker configuration {} cannot be read", path.display()))
        .because(error)
}
