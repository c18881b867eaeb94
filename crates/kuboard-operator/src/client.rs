//! The way to the API server: short waits, few retries, errors that say what was attempted.
//!
//! kube's own policy retries for minutes without a word; nothing here waits longer than
//! [`ASK`] for one answer, and [`ask`] tries three times.

use std::{path::PathBuf, time::Duration};

use kube::{
    Client,
    config::{Config, KubeConfigOptions, Kubeconfig},
};
use kuboard_rt::retry::Backoff;

use crate::Error;

/// The longest wait for one answer.
pub const ASK: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// Watches are quiet for minutes at most; a connection that is quiet for longer is dead.
const QUIET: Duration = Duration::from_secs(330);
const TRIES: u32 = 3;
const BETWEEN: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_millis(500) };

/// Where the API server is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// A kubeconfig. `None`: the usual places, then the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
}

impl Cluster {
    /// A client for it. Nothing is asked yet.
    ///
    /// # Errors
    /// No kubeconfig and no service account, or one that can't be used.
    pub async fn client(&self) -> Result<Client, Error> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT);
        config.write_timeout = Some(CONNECT * 2);
        config.read_timeout = Some(QUIET);
        config.reset_reader_on_write = true;
        config.default_retry = false;
        Client::try_from(config).map_err(|error| {
            Error::Config(format!("the way to the API server can't be used: {error}"))
        })
    }

    async fn config(&self) -> Result<Config, Error> {
        let options = KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        let said = |error: &dyn std::fmt::Display| {
            Error::Config(format!(
                "no way to an API server: {error}; hint: name a kubeconfig, or run in a pod with a \
                 service account"
            ))
        };
        match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|error| {
                    Error::Config(format!(
                        "the kubeconfig {} can't be read: {error}",
                        path.display()
                    ))
                })?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| said(&error))
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(|error| said(&error))
            }
            None => Config::infer().await.map_err(|error| said(&error)),
        }
    }
}

/// Asks until there is an answer, three times at most; each time waits [`ASK`]. A write that is
/// repeated must be one that says against which state it is, or that may be said twice.
pub(crate) async fn ask<T, F>(what: &str, mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = kube::Result<T>>,
{
    let mut attempt = 0;
    loop {
        let failure = match once(what, ASK, call()).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        attempt += 1;
        if attempt >= TRIES || !failure.is_passing() || failure.is_full() {
            return Err(failure);
        }
        tokio::time::sleep(BETWEEN.delay(attempt, 0.5)).await;
    }
}

/// Asks once.
pub(crate) async fn once<T>(
    what: &str,
    within: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(within, call).await {
        Ok(answer) => answer.map_err(|error| Error::of(what, error)),
        Err(_) => Err(Error::Silent { what: what.to_owned(), within }),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{ASK, Cluster, ask};

    fn status(code: u16) -> kube::Error {
        kube::Error::Api(kube::core::Status::failure("said", "Why").with_code(code).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_and_what_does_not_is_not() {
        async fn check(codes: &[u16], calls: usize, want: Result<(), u16>) {
            let made = Cell::new(0);
            let got = ask("look", || {
                let number = made.get();
                made.set(number + 1);
                let code = codes.get(number).copied();
                async move { code.map_or(Ok(()), |code| Err(status(code))) }
            })
            .await;
            let got = got.map_err(|error| error.code().unwrap_or(0));
            assert_eq!((made.get(), got), (calls, want), "{codes:?}");
        }
        check(&[], 1, Ok(())).await;
        check(&[503], 2, Ok(())).await;
        check(&[503, 429], 3, Ok(())).await;
        check(&[503, 429, 500], 3, Err(500)).await;
        check(&[409], 1, Err(409)).await;
        check(&[403], 1, Err(403)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end() {
        let error = ask::<(), _>("look", std::future::pending).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("look: no answer from the API server within {ASK:?}")
        );
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_missing_is_named() {
        let cluster = Cluster { kubeconfig: Some("/nowhere/config".into()), context: None };
        let error = cluster.client().await.err().unwrap().to_string();
        assert!(error.contains("/nowhere/config"), "{error}");
    }
}
