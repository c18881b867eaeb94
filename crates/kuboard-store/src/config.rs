//! Settings of the cache and of remote object stores, and the building of the latter.

use std::{fmt, sync::Arc};

use kuboard_rt::Tasks;
use object_store::{
    ClientOptions, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
};

use crate::{Error, ErrorKind, ObjectStore, Result};

/// Settings of a [`crate::Cache`].
#[derive(Clone)]
pub struct CacheConfig {
    /// What the stored and the reserved bytes together may reach.
    pub max_bytes: u64,
    /// Where evictions and publications run, so that a hung-up caller cancels neither.
    pub tasks: Tasks,
}

impl CacheConfig {
    /// A cache of at most `max_bytes`, whose background work is owned by `tasks`.
    pub fn new(max_bytes: u64, tasks: Tasks) -> CacheConfig {
        CacheConfig { max_bytes, tasks }
    }
}

/// Where a remote object store is and how to get in.
#[derive(Clone, Default)]
pub struct ObjectConfig {
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// Service address, for S3-compatible servers and emulators; `None` asks the cloud itself.
    pub endpoint: Option<String>,
    /// S3 region; `None` takes the environment's, else `us-east-1`, which S3-compatible servers
    /// commonly accept.
    pub region: Option<String>,
    /// S3 access key id or Azure account. `None` takes the environment's workload identity.
    pub access_key_id: Option<String>,
    /// S3 secret, Azure account key, or the JSON of a Google service account.
    pub secret_access_key: Option<String>,
    /// Whether plain `http://` endpoints are acceptable.
    pub allow_http: bool,
}

/// Shows no secret.
impl fmt::Debug for ObjectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectConfig")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Builds the store that `config` describes. Connects to nothing yet; uploads run on `tasks`.
///
/// Fails with [`ErrorKind::Invalid`] when the URL or a setting makes no sense.
pub fn object_store_from(config: ObjectConfig, tasks: Tasks) -> Result<ObjectStore> {
    let (scheme, bucket, prefix) = split_url(&config.url)?;
    let store: Arc<dyn object_store::ObjectStore> = match scheme {
        "s3" => Arc::new(s3(&config, bucket)?),
        "gs" => Arc::new(google(&config, bucket)?),
        "az" => Arc::new(azure(&config, bucket)?),
        _ => return Err(bad_url(&config.url)),
    };
    Ok(ObjectStore::new(store, prefix)?.with_tasks(tasks))
}

fn split_url(url: &str) -> Result<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad_url(url))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.contains(['@', '?', '#']) {
        return Err(bad_url(url));
    }
    Ok((scheme, bucket, prefix))
}

fn bad_url(url: &str) -> Error {
    let hint = "hint: write s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";
    Error::new(ErrorKind::Invalid, format!("storage url {url:?} is not understood\n{hint}"))
}

fn settings(source: object_store::Error) -> Error {
    Error::new(ErrorKind::Invalid, format!("storage settings do not fit together: {source}"))
}

fn client(config: &ObjectConfig) -> ClientOptions {
    ClientOptions::new().with_allow_http(config.allow_http)
}

fn s3(config: &ObjectConfig, bucket: &str) -> Result<object_store::aws::AmazonS3> {
    let mut builder = match (&config.access_key_id, &config.secret_access_key) {
        (Some(id), Some(secret)) => {
            AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret)
        }
        // Web identity, pod identity and instance roles are announced in the environment only.
        (None, None) => AmazonS3Builder::from_env(),
        _ => {
            let fact = "an access key id and a secret go together; only one of them is set";
            return Err(Error::new(ErrorKind::Invalid, fact));
        }
    };
    if let Some(endpoint) = &config.endpoint {
        // Over TLS the transport guards the payload; signing it would hash every byte again.
        builder = builder
            .with_endpoint(endpoint)
            .with_unsigned_payload(endpoint.starts_with("https://"))
            .with_virtual_hosted_style_request(false);
    } else {
        builder = builder.with_unsigned_payload(true);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    builder
        .with_bucket_name(bucket)
        .with_client_options(client(config))
        .with_allow_http(config.allow_http)
        .with_retry(RetryConfig::default())
        .build()
        .map_err(settings)
}

fn google(config: &ObjectConfig, bucket: &str) -> Result<object_store::gcp::GoogleCloudStorage> {
    let mut builder = match &config.secret_access_key {
        Some(account) => GoogleCloudStorageBuilder::new().with_service_account_key(account),
        None => GoogleCloudStorageBuilder::from_env(),
    };
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder
        .with_bucket_name(bucket)
        .with_client_options(client(config))
        .with_retry(RetryConfig::default())
        .build()
        .map_err(settings)
}

fn azure(config: &ObjectConfig, container: &str) -> Result<object_store::azure::MicrosoftAzure> {
    let mut builder = match (&config.access_key_id, &config.secret_access_key) {
        (Some(account), Some(key)) => {
            MicrosoftAzureBuilder::new().with_account(account).with_access_key(key)
        }
        (Some(account), None) => MicrosoftAzureBuilder::from_env().with_account(account),
        _ => MicrosoftAzureBuilder::from_env(),
    };
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder
        .with_container_name(container)
        .with_client_options(client(config))
        .with_allow_http(config.allow_http)
        .with_retry(RetryConfig::default())
        .build()
        .map_err(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_or_refused_with_a_hint() {
        let check = |url: &str, wanted: Option<(&str, &str, &str)>| {
            assert_eq!(split_url(url).ok(), wanted, "{url}");
        };
        check("s3://bucket/a/b", Some(("s3", "bucket", "a/b")));
        check("gs://bucket", Some(("gs", "bucket", "")));
        check("s3://", None);
        check("bucket/prefix", None);
        check("s3://user@host/x", None);
        let config = ObjectConfig { url: "ftp://x/y".into(), ..ObjectConfig::default() };
        let error = object_store_from(config, Tasks::default()).err().map(|e| e.to_string());
        assert!(error.is_some_and(|text| text.contains("hint: write s3://")));
    }

    #[test]
    fn half_a_key_is_refused_and_no_secret_is_shown() {
        let config = ObjectConfig {
            url: "s3://bucket".into(),
            secret_access_key: Some("hush".into()),
            ..ObjectConfig::default()
        };
        assert!(!format!("{config:?}").contains("hush"));
        let error = object_store_from(config, Tasks::default()).err();
        assert_eq!(error.map(|e| e.kind().clone()), Some(ErrorKind::Invalid));
    }
}
