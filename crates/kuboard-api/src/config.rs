//! The tables and keys of kuboard.toml, each with its default. The documentation of a key here is
//! its text in the reference page.

use std::path::PathBuf;

use crate::duration::{Days, Gigabytes, Minutes, Seconds};
use crate::parse::Origin;
use crate::text::{CatalogUrl, EndpointUrl, HttpUrl, ListenAddress};

section! {
    /// The whole file. Every key is optional; an empty file is the default configuration.
    pub struct Config {
        /// Folder of everything that Kuboard keeps on this machine: blobs, the embedded
        /// catalogue, its own certificates and keys.
        "dataDir" => data_dir: PathBuf = PathBuf::from("kuboard-data"),
        /// Addresses, TLS and limits of the listener.
        "server" => server: Server = Server::default(),
        /// The role `registry-proxy` where it runs by itself.
        "proxy" => proxy: Proxy = Proxy::default(),
        /// The pull-through cache.
        "cache" => cache: Cache = Cache::default(),
        /// Where blobs are kept.
        "storage" => storage: Storage = Storage::default(),
        /// Where metadata is kept.
        "catalog" => catalog: Catalog = Catalog::default(),
        /// Who may pull and push.
        "access" => access: Access = Access::default(),
        /// Garbage collection of hosted repositories.
        "gc" => gc: Gc = Gc::default(),
        /// The vulnerability scanner.
        "scan" => scan: Scan = Scan::default(),
        /// Advisories: where they come from and how often.
        "advisories" => advisories: Advisories = Advisories::default(),
        /// How the Kubernetes API is reached, by the roles `operator` and `admission` and by access
        /// through Kubernetes RBAC.
        "kubernetes" => kubernetes: Kubernetes = Kubernetes::default(),
        /// The webhook that judges pods.
        "admission" => admission: Admission = Admission::default(),
        /// Who is told of scans, one table each.
        "webhook" => webhook: Vec<Webhook> = Vec::new(),
        /// Logging.
        "log" => log: Log = Log::default(),
        /// What holds for every upstream that does not say otherwise.
        "defaults" => defaults: Defaults = Defaults::default(),
        /// Rules for upstream registries, one table each.
        "upstream" => upstream: Vec<Upstream> = Vec::new(),
    }
    hidden origin: Origin
}

section! {
    /// The one listener that serves the registry, `/metrics`, `/healthz` and `/readyz`.
    pub struct Server {
        /// Address to listen on. On a loopback address anonymous pushes are taken unless `[access]`
        /// says otherwise; any other address needs users or an explicit `access.anonymous`.
        "listen" => listen: ListenAddress = ListenAddress(([127, 0, 0, 1], 5000).into()),
        /// A second address without TLS, for ACME's `http-01` challenge. Only with TLS.
        "plainListen" => plain_listen: Option<ListenAddress> = None,
        /// How clients reach this registry, when that is not what their `Host` header says, for
        /// example behind a proxy that ends TLS. Token challenges name it.
        "externalUrl" => external_url: Option<HttpUrl> = None,
        /// How long a stop waits for requests under way.
        "drainSeconds" => drain: Seconds = Seconds::of(30),
        /// TLS of the listener.
        "tls" => tls: Tls = Tls::default(),
        /// Bounds on what clients may take.
        "limits" => limits: Limits = Limits::default(),
    }
}

section! {
    /// Certificates are read again when they change; no restart is needed.
    pub struct Tls {
        /// `off` serves plain HTTP, `files` reads `cert` and `key`, `selfMade` makes an own
        /// certificate authority in `dataDir`, `acme` asks an ACME server such as Let's Encrypt.
        "mode" => mode: TlsMode = TlsMode::Off,
        /// PEM file with the certificate chain (`files`).
        "cert" => cert: Option<PathBuf> = None,
        /// PEM file with the private key (`files`).
        "key" => key: Option<PathBuf> = None,
        /// Host names and addresses of the certificate (`selfMade`); none means `localhost` and
        /// the listen address.
        "names" => names: Vec<String> = Vec::new(),
        /// The ACME account and order (`acme`).
        "acme" => acme: Acme = Acme::default(),
    }
}

section! {
    /// Certificates from an ACME server, renewed on their own.
    pub struct Acme {
        /// Directory URL of the ACME server.
        "directory" => directory: Option<HttpUrl> = "https://acme-v02.api.letsencrypt.org/directory".parse().ok(),
        /// Contact addresses of the account, for example `mailto:ops@example.com`.
        "contacts" => contacts: Vec<String> = Vec::new(),
        /// Names to ask a certificate for; at least one.
        "domains" => domains: Vec<String> = Vec::new(),
        /// How to prove that the names are ours: `tls-alpn-01` on `server.listen` (which the
        /// ACME server reaches as port 443) or `http-01` on `server.plainListen` (port 80).
        "challenge" => challenge: AcmeChallenge = AcmeChallenge::TlsAlpn01,
        /// PEM file with the authority of the ACME server itself, when it is a private one.
        "caFile" => ca_file: Option<PathBuf> = None,
    }
}

section! {
    /// Bounds that keep slow or greedy clients from starving the others.
    pub struct Limits {
        /// Connections at a time; further ones wait.
        "maxConnections" => max_connections: usize = 8192,
        /// Time for a client to send its request headers.
        "headerTimeoutSeconds" => header_timeout: Seconds = Seconds::of(30),
        /// Time a transfer may make no progress, either way.
        "idleTimeoutSeconds" => idle_timeout: Seconds = Seconds::of(60),
    }
}

section! {
    /// A front without storage passes each request to one of the caches, chosen by the
    /// repository's name, so that all fronts agree. Not used where the process is itself a cache.
    pub struct Proxy {
        /// Base addresses of the caches, such as `http://registry-cache-0.registry-cache:5000`.
        "caches" => caches: Vec<HttpUrl> = Vec::new(),
    }
}

section! {
    /// What is pulled through is kept, verified and served from here until its room is needed.
    pub struct Cache {
        /// Keep what is pulled through. Without it every pull goes to the upstream.
        "enable" => enable: bool = true,
        /// Storage class of the volume that the Helm chart asks for; not used outside Kubernetes.
        "storageClass" => storage_class: String = String::new(),
        /// Bound on the cached blobs. A full cache makes room or passes through, it never refuses
        /// a pull. Hosted repositories do not count.
        "cacheSizeGB" => cache_size_gb: Gigabytes = Gigabytes::of(50),
        /// How often peers are looked for. Read and checked; used by peer-to-peer distribution.
        "peerDiscoveryInterval" => peer_discovery_interval: Seconds = Seconds::of(30),
    }
}

section! {
    /// Blobs of hosted repositories live in `dataDir` or in an object store; cached ones always in
    /// `dataDir`.
    pub struct Storage {
        /// Empty for `dataDir`, else `s3://bucket/prefix`, `gs://bucket/prefix` or
        /// `az://container/prefix`.
        "url" => url: String = String::new(),
        /// Address of an S3-compatible service; unset means the provider's own.
        "endpoint" => endpoint: Option<HttpUrl> = None,
        /// Region of the bucket.
        "region" => region: Option<String> = None,
        /// Access key id; unset means the environment's own identity.
        "accessKeyId" => access_key_id: Option<String> = None,
        /// File with the secret that belongs to `accessKeyId`.
        "secretAccessKeyFile" => secret_access_key_file: Option<PathBuf> = None,
        /// Let `endpoint` be plain HTTP.
        "allowHttp" => allow_http: bool = false,
    }
}

section! {
    /// Repositories, tags, leases and access keys.
    pub struct Catalog {
        /// Empty for SQLite in `dataDir`, else `sqlite:///path/catalog.db` or
        /// `postgres://user:password@host/database`. A password in it is never shown.
        "url" => url: CatalogUrl = CatalogUrl::default(),
        /// File with the URL instead, for one with a password in it.
        "urlFile" => url_file: Option<PathBuf> = None,
    }
}

section! {
    /// Users of `htpasswd` may do everything; access keys are scoped to repositories and actions.
    pub struct Access {
        /// What callers without credentials may do: nothing, pull and list, or everything.
        /// Unset: `push` on a loopback address without users, `none` with users (`htpasswd` or
        /// `kubernetes`); on any other address without users it must be said.
        "anonymous" => anonymous: Option<Anonymous> = None,
        /// File with `user:hash` lines as `htpasswd -B` writes them (bcrypt only); read again when
        /// it changes.
        "htpasswd" => htpasswd: Option<PathBuf> = None,
        /// File with the Ed25519 key that signs tokens, made on first start. Unset means
        /// `token-key.pem` in `dataDir`. Replicas must share it.
        "tokenKey" => token_key: Option<PathBuf> = None,
        /// Callers with service-account tokens, whose rights are Kubernetes RBAC's.
        "kubernetes" => kubernetes: AccessKubernetes = AccessKubernetes::default(),
    }
}

section! {
    /// A service-account token for `audience` is taken as a password (under any user name) and as
    /// a bearer token. What it may do is what RBAC allows on `repositories` in the API group
    /// `registry.kuboard.cn`: `get` to pull, `create` to push, `delete`, and `list` for the list
    /// of repositories.
    pub struct AccessKubernetes {
        /// Take such tokens. The registry's own service account must be allowed to create
        /// TokenReviews and SubjectAccessReviews (ClusterRole `system:auth-delegator`).
        "enable" => enable: bool = false,
        /// The audience that tokens must be for. Kubelets ask for tokens for the same one.
        "audience" => audience: String = crate::names::AUDIENCE.to_owned(),
    }
}

section! {
    /// Blobs that no manifest names are removed while pushes go on.
    pub struct Gc {
        /// How often; 0 never.
        "intervalSeconds" => interval: Seconds = Seconds::of(3600),
        /// How long a fresh upload or mount is protected before a manifest must name it.
        "leaseMinutes" => lease: Minutes = Minutes::of(15),
        /// Age at which hosted manifests without tag, parent and referrer go; 0 keeps them.
        "untaggedDays" => untagged: Days = Days::of(0),
    }
}

section! {
    /// Layers are indexed while they pass; what was indexed is matched with the advisories, and
    /// matched again when those change.
    pub struct Scan {
        /// Index and scan what is pulled through and pushed.
        "enable" => enable: bool = true,
        /// What finds vulnerabilities: `native`, or `clair` for an external Clair 4.
        "engine" => engine: ScanEngine = ScanEngine::Native,
        /// Jobs at a time in this process.
        "workers" => workers: usize = 2,
        /// Registries whose images are not scanned, as globs: `*.internal.corp`.
        "excludeRegistries" => exclude_registries: Vec<String> = Vec::new(),
        /// Folder with policies (ImageScanPolicy) as YAML files, for use without Kubernetes.
        "policies" => policies: Option<PathBuf> = None,
        /// Clair's and Harbor's HTTP APIs.
        "api" => api: ScanApi = ScanApi::default(),
        /// The external Clair, where `engine` is `clair`.
        "clair" => clair: ExternalClair = ExternalClair::default(),
    }
}

section! {
    /// The APIs of Clair 4 (`/indexer`, `/matcher`, `/notifier`) and of Harbor's pluggable scanners
    /// (`/api/v1/scan`), on the listener. Without `pskFile` they answer on a loopback address only.
    pub struct ScanApi {
        /// Answer them.
        "enable" => enable: bool = true,
        /// File with the key, in Base64, that signs callers' tokens (JWT, HS256), as in Clair's
        /// `auth.psk.key`.
        "pskFile" => psk_file: Option<PathBuf> = None,
        /// Issuers that tokens may name; none means any.
        "issuers" => issuers: Vec<String> = Vec::new(),
        /// Where the notifier posts `{"notification_id", "callback"}`.
        "notifierTarget" => notifier_target: Option<HttpUrl> = None,
        /// How those who are notified reach the notifier API.
        "notifierCallback" => notifier_callback: Option<HttpUrl> = None,
        /// Seconds that Clair's clients may keep a vulnerability report.
        "cacheSeconds" => cache: Seconds = Seconds::of(30),
        /// Let the indexer fetch layers from addresses of private and loopback networks.
        "allowPrivateAddresses" => allow_private_addresses: bool = false,
    }
}

section! {
    /// An external Clair 4 in combo mode. It fetches layers from this registry.
    pub struct ExternalClair {
        /// Its base address, such as `http://clair:6060`.
        "url" => url: Option<HttpUrl> = None,
        /// File with its `auth.psk.key`.
        "pskFile" => psk_file: Option<PathBuf> = None,
        /// How it reaches this registry, such as `http://registry-cache:5000`.
        "registryUrl" => registry_url: Option<HttpUrl> = None,
    }
}

section! {
    /// The Kubernetes API. Without `kubeconfig`, the service account of the pod is used.
    pub struct Kubernetes {
        /// Let `kuboard up` run the roles `operator` and `admission` too.
        "enable" => enable: bool = false,
        /// File with the address and credentials of the API server.
        "kubeconfig" => kubeconfig: Option<PathBuf> = None,
        /// Namespace that Kuboard runs in; its pods are never judged.
        "namespace" => namespace: String = crate::names::NAMESPACE.to_owned(),
        /// Namespaces whose pods are never judged, beside that one, kube-system, kube-public and
        /// kube-node-lease.
        "excludedNamespaces" => excluded_namespaces: Vec<String> = Vec::new(),
        /// Ask upstreams that have no `credentials` here with the RegistryCredentials of the
        /// cluster: those of `namespace`, and those of other namespaces that allow it. What is
        /// pulled with them is for everybody who may pull here.
        "registryCredentials" => registry_credentials: bool = false,
        /// Namespaces whose Secrets are read for that; none means `namespace` alone, `*` all.
        "secretNamespaces" => secret_namespaces: Vec<String> = Vec::new(),
    }
}

section! {
    /// The role `admission`: pods that want to run images are judged by the policies.
    pub struct Admission {
        /// Address to listen on for the API server, with TLS; the certificate makes itself.
        "listen" => listen: ListenAddress = ListenAddress(([0, 0, 0, 0], 9443).into()),
        /// The Service by which the API server reaches it, in Kuboard's namespace.
        "service" => service: String = "kuboard-admission".to_owned(),
        /// Where the API server reaches it instead of by the Service, such as
        /// `https://127.0.0.1:9443`.
        "webhookUrl" => webhook_url: Option<HttpUrl> = None,
        /// Arm the webhook by itself, once it has answered a test through the API server. Without
        /// it, `kuboard admission arm` does so.
        "arm" => arm: bool = true,
        /// Replace tags by digests in pods, so that all replicas run the same bytes.
        "pinDigests" => pin_digests: bool = false,
        /// Platforms of the nodes, as `linux/amd64`: of a multi-platform image these count. None
        /// means the platform of this machine.
        "platforms" => platforms: Vec<String> = Vec::new(),
        /// Names by which nodes reach this registry, beside `server.externalUrl` and the loopback
        /// addresses: `registry.internal:5000`. Images under them are those of this registry.
        "registryHosts" => registry_hosts: Vec<String> = Vec::new(),
        /// How long decisions are kept.
        "keepDecisionsDays" => keep_decisions: Days = Days::of(30),
    }
}

section! {
    /// Feeds are fetched, parsed and compiled into one file; the last good one stays in use until
    /// the next is complete.
    pub struct Advisories {
        /// Fetch them. Without it, they come by `kuboard db import` only.
        "update" => update: bool = true,
        /// How often feeds are asked for changes.
        "updateMinutes" => update_interval: Minutes = Minutes::of(60),
        /// Folder of the compiled database; unset means `advisories` in `dataDir`.
        "dir" => dir: Option<PathBuf> = None,
        /// Feeds to use; none means all that are known (`kuboard db status` lists them).
        "feeds" => feeds: Vec<String> = Vec::new(),
        /// One base address in place of the feeds' own: `MIRROR/FEED/…`, also `file:///folder`
        /// for an air gap.
        "mirror" => mirror: Option<String> = None,
        /// PEM file with the authority of the mirror's certificate.
        "caFile" => ca_file: Option<PathBuf> = None,
    }
}

section! {
    /// Events are CloudEvents in JSON, signed, and delivered at least once.
    pub struct Webhook {
        /// Name, for `kuboard events` and metrics.
        "name" => name: String = String::new(),
        /// Where to post.
        "url" => url: Option<HttpUrl> = None,
        /// File with the address instead, for those with a secret in them (DingTalk, WeCom, Slack).
        "urlFile" => url_file: Option<PathBuf> = None,
        /// File with the secret of the HMAC-SHA256 signature in `webhook-signature`.
        "secretFile" => secret_file: Option<PathBuf> = None,
        /// What is posted: `cloudevents`, or a message for `slack`, `dingtalk`, `feishu`, `wecom`.
        "template" => template: WebhookTemplate = WebhookTemplate::CloudEvents,
        /// The least severe finding worth an event; unset means any.
        "severityThreshold" => severity_threshold: Option<String> = None,
        /// PEM file with the authority of its certificate.
        "caFile" => ca_file: Option<PathBuf> = None,
    }
}

section! {
    /// Logs go to the standard error stream.
    pub struct Log {
        /// `text` for people, `json` for machines.
        "format" => format: LogFormat = LogFormat::Text,
        /// Level, or levels per module: `info`, `warn,kuboard_proxy=debug`.
        "filter" => filter: String = "info".to_owned(),
    }
}

section! {
    /// Every upstream may say otherwise for itself.
    pub struct Defaults {
        /// How long a tag is answered from memory without asking the upstream.
        "tagTtlSeconds" => tag_ttl: Seconds = Seconds::of(60),
        /// Beyond `tagTtlSeconds`, how long a tag is still answered at once while it is checked in
        /// the background. An upstream that fails is bridged without limit.
        "maxStaleSeconds" => max_stale: Seconds = Seconds::of(300),
        /// How long an upstream's 404 is remembered. Other failures never are.
        "negativeTtlSeconds" => negative_ttl: Seconds = Seconds::of(10),
        /// Requests to an upstream at a time.
        "concurrency" => concurrency: usize = 16,
        /// Time to reach an upstream before the next endpoint is tried.
        "connectTimeoutSeconds" => connect_timeout: Seconds = Seconds::of(10),
        /// Time an upstream may send nothing before the transfer is resumed elsewhere.
        "readTimeoutSeconds" => read_timeout: Seconds = Seconds::of(30),
        /// Public mirrors to try before the registries themselves. Mirrors are run by third
        /// parties, who see what is pulled; none is used unless named here.
        "mirrors" => mirrors: Mirrors = Mirrors::None,
        /// Know the public registries (table below). Without them only the upstreams of this file
        /// are ever dialled.
        "builtInUpstreams" => built_in_upstreams: bool = true,
    }
}

section! {
    /// An entry with the name or an alias of a built-in rule changes the fields it names and
    /// leaves the others; any other name makes a new rule, for which `name` alone is enough.
    pub struct Upstream {
        /// Registry as image names spell it, with its port if it is not 443. `*` stands for one
        /// label: `*.pkg.dev` is a family of registries under one rule.
        "name" => name: String = String::new(),
        /// Other names of the same registry.
        "aliases" => aliases: Option<Vec<String>> = None,
        /// Where to ask, in this order. Unset: `https://` and the name. `{host}` stands for the
        /// registry's name. A list given here replaces the mirrors too.
        "endpoints" => endpoints: Option<Vec<EndpointUrl>> = None,
        /// Public mirrors to try first, as in `[defaults]`.
        "mirrors" => mirrors: Option<Mirrors> = None,
        /// `Host` headers that mean this upstream, so that a name of yours can stand for it.
        "hosts" => hosts: Option<Vec<String>> = None,
        /// Repositories that may be pulled; unset means all. `*` stands for a part of one path
        /// component, `**` for any number of them.
        "allow" => allow: Option<Vec<String>> = None,
        /// Repositories that may not be pulled; it wins over `allow`.
        "deny" => deny: Option<Vec<String>> = None,
        /// As in `[defaults]`.
        "tagTtlSeconds" => tag_ttl: Option<Seconds> = None,
        /// As in `[defaults]`.
        "maxStaleSeconds" => max_stale: Option<Seconds> = None,
        /// As in `[defaults]`.
        "negativeTtlSeconds" => negative_ttl: Option<Seconds> = None,
        /// Tags that never change once seen, as globs: `v*`.
        "immutableTags" => immutable_tags: Option<Vec<String>> = None,
        /// As in `[defaults]`.
        "concurrency" => concurrency: Option<usize> = None,
        /// As in `[defaults]`.
        "connectTimeoutSeconds" => connect_timeout: Option<Seconds> = None,
        /// As in `[defaults]`.
        "readTimeoutSeconds" => read_timeout: Option<Seconds> = None,
        /// Who may read what is cached from it: whoever may pull here, only callers with
        /// credentials of ours, or only callers whose own credentials the upstream accepts.
        "visibility" => visibility: Option<Visibility> = None,
        /// Hosts of token services that get this upstream's credentials although they lie outside
        /// its own domain.
        "trustedRealms" => trusted_realms: Option<Vec<String>> = None,
        /// PEM file with the authority of its certificate.
        "caFile" => ca_file: Option<PathBuf> = None,
        /// Take any certificate. For tests only.
        "insecureSkipVerify" => insecure_skip_verify: Option<bool> = None,
        /// Ask this upstream for names without a registry that are not hosted here. Only one rule
        /// may be it, and only on purpose: whoever owns such a name upstream answers for it.
        "defaultUpstream" => default_upstream: Option<bool> = None,
        /// What this upstream is asked with.
        "credentials" => credentials: Option<Credentials> = None,
    }
}

section! {
    /// Secrets stand in files, never here. They go to the upstream's own endpoints and token
    /// service only, never to mirrors.
    pub struct Credentials {
        /// `none` asks anonymously, `basic` with `user` and `passwordFile` (robot accounts too),
        /// `dockerConfig` as a docker `config.json` says, `ecr` with tokens made from AWS
        /// credentials.
        "kind" => kind: CredentialKind = CredentialKind::None,
        /// User name (`basic`).
        "user" => user: Option<String> = None,
        /// File with the password or token (`basic`).
        "passwordFile" => password_file: Option<PathBuf> = None,
        /// Path of a docker `config.json` (`dockerConfig`), with its credential helpers.
        "dockerConfig" => docker_config: Option<PathBuf> = None,
    }
}

choice! {
    /// What finds vulnerabilities.
    pub enum ScanEngine {
        /// Kuboard's own engine.
        Native = "native",
        /// An external Clair 4.
        Clair = "clair",
    }
}

choice! {
    /// The form of a webhook's messages.
    pub enum WebhookTemplate {
        /// CloudEvents 1.0 in JSON.
        CloudEvents = "cloudevents",
        /// Slack's incoming webhooks.
        Slack = "slack",
        /// DingTalk robots.
        DingTalk = "dingtalk",
        /// Feishu robots.
        Feishu = "feishu",
        /// WeCom robots.
        WeCom = "wecom",
    }
}

choice! {
    /// Where the listener's certificate comes from.
    pub enum TlsMode {
        /// Plain HTTP.
        Off = "off",
        /// Certificate and key files.
        Files = "files",
        /// An own certificate authority.
        SelfMade = "selfMade",
        /// An ACME server.
        Acme = "acme",
    }
}

choice! {
    /// How the names of an ACME order are proven.
    pub enum AcmeChallenge {
        /// A file served over plain HTTP.
        Http01 = "http-01",
        /// A certificate served over TLS.
        TlsAlpn01 = "tls-alpn-01",
    }
}

choice! {
    /// What callers without credentials may do.
    pub enum Anonymous {
        /// Nothing.
        None = "none",
        /// Pull and list.
        Pull = "pull",
        /// Everything.
        Push = "push",
    }
}

choice! {
    /// The form of log lines.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// A list of public mirrors.
    pub enum Mirrors {
        /// Only the registries themselves.
        None = "none",
        /// Mirrors in mainland China.
        Cn = "cn",
        /// Google's cache of Docker Hub.
        Google = "google",
    }
}

choice! {
    /// Who may read what is cached from an upstream.
    pub enum Visibility {
        /// Whoever may pull here.
        Public = "public",
        /// Callers with credentials of ours.
        Authenticated = "authenticated",
        /// Callers whose own credentials the upstream accepts.
        Recheck = "recheck",
    }
}

choice! {
    /// What an upstream is asked with.
    pub enum CredentialKind {
        /// Nothing.
        None = "none",
        /// A user and a password file.
        Basic = "basic",
        /// A docker `config.json`.
        DockerConfig = "dockerConfig",
        /// Tokens of the AWS registry.
        Ecr = "ecr",
    }
}
