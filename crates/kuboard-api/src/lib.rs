//! kuboard.toml: its schema, its defaults, what is wrong with a file and how to mend it, and the
//! upstream rules that follow from it; the kinds of objects in a cluster, and what they mean.
//!
//! Pure: nothing here reads files, dials or looks at the clock, but for [`policy::load`], which
//! reads a folder. The binary reads the text and hands it in; every other crate sees values of
//! [`Config`], [`Rules`] and [`UpstreamRule`].
//!
//! The way through: text → [`Config::parse`] → command line overrides → [`Config::validate`] →
//! [`Rules::new`] → [`Rules::target`] for each request.

#[macro_use]
mod schema;

mod built_in;
mod config;
pub mod crd;
pub mod desired;
mod duration;
mod error;
mod globs;
pub mod names;
mod parse;
pub mod policy;
pub mod reference;
mod rules;
mod text;
mod upstream;
mod validate;

pub use config::{
    Access, AccessKubernetes, Acme, AcmeChallenge, Admission, Advisories, Anonymous, Cache,
    Catalog, Config, CredentialKind, Credentials, Defaults, ExternalClair, Gc, Kubernetes, Limits,
    Log, LogFormat, Mirrors, Proxy, Scan, ScanApi, ScanEngine, Server, Storage, Tls, TlsMode,
    Upstream, Visibility, Webhook, WebhookTemplate,
};
pub use duration::{Days, Gigabytes, Minutes, Seconds};
pub use error::{ConfigError, Problem};
pub use globs::Globs;
pub use rules::{Fallback, Rules, Target};
pub use text::{CatalogUrl, EndpointUrl, HttpUrl, ListenAddress};
pub use upstream::{Endpoint, UpstreamCredentials, UpstreamRule};
