//! A server: opens everything, binds, serves until it is told to stop, drains.

use std::{
    fs, os::unix::fs::PermissionsExt, path::Path, process::ExitCode, sync::Arc, time::Duration,
};

use anyhow::{Context, bail};
use http::{HeaderValue, StatusCode, header};
use kuboard_api::{Config, LogFormat, Rules};
use kuboard_operator::Operator;
use kuboard_proxy::{Deps, Front, FrontConfig, Room};
use kuboard_rt::{
    BoxFuture, Scope, Shutdown,
    health::Health,
    http::{Body, Bound, Handler, Limits, Request, Response, handler_fn},
    log,
    metrics::Metrics,
    tls::Certificates,
};

use kuboard_scan::engine::Repositories;

use crate::{
    access, boot,
    boot::{Stores, Use},
    cli::{Role, ServeArgs, UpArgs},
    cluster::{self, Snapshots},
    control::{Control, SOCKET},
    scanning::{self, Apis, DistantRepositories, Ground, Looking, OwnRepositories, Wanted},
    tls,
};

/// `kuboard up`: everything in one process.
pub(crate) fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let config = settings(args)?;
    let mut roles =
        vec![Role::RegistryProxy, Role::RegistryCache, Role::ScanEngine, Role::ScanWorker];
    if config.kubernetes.enable {
        roles.extend([Role::Operator, Role::Admission]);
    }
    boot::block_on(run(config, &roles))
}

/// `kuboard serve`: chosen roles.
pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = settings(&args.up)?;
    boot::block_on(run(config, &args.roles))
}

fn settings(args: &UpArgs) -> anyhow::Result<Config> {
    let mut config = boot::config(&args.place)?;
    if let Some(listen) = args.listen {
        config.server.listen = kuboard_api::ListenAddress(listen);
    }
    if args.anonymous.is_some() {
        config.access.anonymous = args.anonymous;
    }
    if let Some(folder) = &args.policies {
        config.scan.policies = Some(folder.clone());
    }
    config.validate()?;
    let format = match config.log.format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    log::init(format, &config.log.filter)?;
    for advice in config.advice() {
        tracing::warn!("{advice}");
    }
    if let Err(error) = kuboard_rt::process::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    Ok(config)
}

async fn run(config: Config, roles: &[Role]) -> anyhow::Result<ExitCode> {
    let mut scope = Scope::default();
    let metrics = Metrics::new();
    let health = Health::new();
    let grace = config.server.drain.duration();
    let certificates = tls::certificates(&config)?;
    if let Some(certificates) = certificates.clone() {
        scope.spawn("certificates", move |stop| tls::keep_fresh(certificates, stop));
    }
    let mut stores = None;
    let mut apis = None;
    let (operator, snapshots) = cluster::open(&config, roles, &metrics).await?;
    let seen = Seen { operator, snapshots };
    let registry: Arc<dyn Handler> = if roles.contains(&Role::RegistryCache) {
        let (room, opened, looking) = cache_role(&config, roles, &scope, &metrics, &health).await?;
        let registry = room.handler();
        if let Some(looking) = looking {
            let ground = ground(&config, &opened, &scope);
            scope.spawn("hosted images", looking.catch_up(&ground, room.reader()));
            let repositories = Arc::new(OwnRepositories(room.reader()));
            let mut house = House { scope: &mut scope, metrics: &metrics, health: &health };
            apis = engine_roles(looking, &ground, repositories, roles, seen, &mut house).await?;
        }
        stores = Some(opened);
        let control = Control { admin: room.admin() };
        let socket = control_socket(&config.data_dir)?;
        let stop = scope.shutdown();
        scope.spawn("control socket", move |_| async move {
            socket.serve(Arc::new(control), stop, Duration::from_secs(1)).await
        });
        scope.spawn("registry", move |stop| room.run(stop));
        registry
    } else if scanning::is_wanted(&config, roles) {
        let opened = Stores::open(&config, Use::Own, scope.tasks()).await?;
        watch_health(&health, &opened, &config);
        let ground = ground(&config, &opened, &scope);
        let repositories = Arc::new(DistantRepositories::new(&config, metrics.registry())?);
        let looking = Looking::new(&ground)?;
        let mut house = House { scope: &mut scope, metrics: &metrics, health: &health };
        apis = engine_roles(looking, &ground, repositories, roles, seen, &mut house).await?;
        stores = Some(opened);
        if roles.contains(&Role::RegistryProxy) {
            front_role(&config, &health)?
        } else {
            handler_fn(|_| async { text(StatusCode::NOT_FOUND, String::new(), "text/plain") })
        }
    } else {
        front_role(&config, &health)?
    };
    let top = Arc::new(Top { registry, apis, metrics, health: health.clone(), certificates });
    listen(&config, &mut scope, top, grace).await?;
    let draining = health;
    let signal = async move {
        kuboard_rt::signal::terminated().await;
        tracing::info!("stopping: running requests may end");
        draining.set_draining();
    };
    scope.run(signal, grace + Duration::from_secs(5)).await?;
    // The folder stays locked until the last task has ended.
    drop(stores);
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// What is known of the cluster, or of files in its place.
struct Seen {
    operator: Option<Operator>,
    snapshots: Snapshots,
}

/// Where a role puts its tasks, counters and checks.
struct House<'a> {
    scope: &'a mut Scope,
    metrics: &'a Metrics,
    health: &'a Health,
}

/// Starts the scan engine, and what rests on it: the webhook, and what knows the cluster.
async fn engine_roles(
    looking: Looking,
    ground: &Ground<'_>,
    repositories: Arc<dyn Repositories>,
    roles: &[Role],
    seen: Seen,
    house: &mut House<'_>,
) -> anyhow::Result<Option<Apis>> {
    let registry = house.metrics.registry();
    let Seen { operator, snapshots } = seen;
    let wanted = Wanted { roles, desired: &snapshots.desired };
    let started = looking.start(ground, repositories.clone(), registry, house.scope, &wanted)?;
    if let Some(operator) = operator {
        let engine = started.engine;
        let parts = cluster::Parts { ground, engine, repositories, snapshots: &snapshots };
        cluster::start(operator, parts, house.scope, registry, house.health).await?;
    }
    Ok(started.apis)
}

/// Binds the addresses and starts to serve; prints where.
async fn listen(
    config: &Config,
    scope: &mut Scope,
    top: Arc<Top>,
    grace: Duration,
) -> anyhow::Result<()> {
    let limits = Limits {
        max_connections: config.server.limits.max_connections,
        header_timeout: config.server.limits.header_timeout.duration(),
        idle_timeout: config.server.limits.idle_timeout.duration(),
        ..Limits::default()
    };
    let address = config.server.listen.0;
    let bound =
        kuboard_rt::http::bind(address, top.certificates.clone(), limits).await.with_context(
            || format!("{address} can't be listened on; hint: --listen takes another address"),
        )?;
    let at = bound.local_addr().unwrap_or(address);
    let scheme = if top.certificates.is_some() { "https" } else { "http" };
    serve_on(scope, "listener", bound, top.clone(), grace);
    if let Some(plain) = &config.server.plain_listen {
        let address = plain.0;
        let bound = kuboard_rt::http::bind(address, None, limits)
            .await
            .with_context(|| format!("server.plainListen {address} can't be listened on"))?;
        serve_on(scope, "plain listener", bound, Arc::new(Plain(top)), grace);
    }
    // Scripts that start us on port 0 read the port from here.
    fs::write(config.data_dir.join("address"), format!("{at}\n"))?;
    tracing::info!(addr = %at, scheme, "listening");
    if scheme == "http" {
        tracing::info!(
            "try: skopeo copy --src-tls-verify=false \
             docker://{at}/docker.io/library/alpine:latest dir:alpine"
        );
    }
    Ok(())
}

fn serve_on(
    scope: &mut Scope,
    name: &'static str,
    bound: Bound,
    handler: Arc<dyn Handler>,
    grace: Duration,
) {
    scope.spawn(name, move |stop: Shutdown| bound.serve(handler, stop, grace));
}

fn ground<'a>(config: &'a Config, stores: &Stores, scope: &Scope) -> Ground<'a> {
    Ground {
        config,
        catalog: stores.catalog.clone(),
        clock: stores.clock.clone(),
        tasks: scope.tasks(),
    }
}

async fn cache_role(
    config: &Config,
    roles: &[Role],
    scope: &Scope,
    metrics: &Metrics,
    health: &Health,
) -> anyhow::Result<(Room, Stores, Option<Looking>)> {
    let stores = Stores::open(config, Use::Own, scope.tasks()).await?;
    let cache = stores.cache(config).await?;
    let rules = Arc::new(Rules::new(config)?);
    let access = access::open(config, &stores.catalog, rules.clone(), metrics.registry()).await?;
    watch_health(health, &stores, config);
    let room = kuboard_proxy::Config {
        rules,
        lease: config.gc.lease.duration(),
        gc_interval: config.gc.interval.duration(),
        untagged: config.gc.untagged.duration(),
        exclusive: config.catalog.url.expose().is_empty(),
    };
    let looking = scanning::is_wanted(config, roles)
        .then(|| Looking::new(&ground(config, &stores, scope)))
        .transpose()?;
    let (cache_spool, upload_spool) = stores.spools()?;
    let (clock, tasks) = (stores.clock.clone(), scope.tasks());
    let credentials = access::cluster_credentials(config, clock, &tasks).await?;
    let deps = Deps {
        cache,
        cache_spool,
        hosted: stores.hosted.clone(),
        upload_spool,
        catalog: stores.catalog.clone(),
        access,
        credentials,
        clock: stores.clock.clone(),
        tasks: scope.tasks(),
        registry: metrics.registry().clone(),
        observers: looking.as_ref().map(Looking::observers).unwrap_or_default(),
    };
    Ok((room.build(deps).await?, stores, looking))
}

/// What must be true for this process to take requests.
fn watch_health(health: &Health, stores: &Stores, config: &Config) {
    let catalog = stores.catalog.clone();
    health.register("catalogue", move || {
        let catalog = catalog.clone();
        Box::pin(async move { catalog.ping().await.map_err(|error| error.to_string()) })
    });
    let hosted = stores.hosted.clone();
    health.register("hosted storage", move || {
        let hosted = hosted.clone();
        Box::pin(async move {
            // Whether it is there does not matter, only that the storage can say so.
            let any = kuboard_oci::Digest::sha256(b"");
            let asked = tokio::time::timeout(Duration::from_secs(5), hosted.stat(&any)).await;
            match asked {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer within 5 s".to_owned()),
            }
        })
    });
    let probe = config.data_dir.join(".ready");
    health.register("data folder", move || {
        let probe = probe.clone();
        Box::pin(async move {
            match tokio::fs::write(&probe, b"ready").await {
                Ok(()) => Ok(()),
                // Pulls go on without room: a full disk must not take us out of service.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
                Err(error) => Err(format!("{} can't be written: {error}", probe.display())),
            }
        })
    });
}

fn front_role(config: &Config, health: &Health) -> anyhow::Result<Arc<dyn Handler>> {
    let front: Arc<Front> = FrontConfig {
        caches: config.proxy.caches.iter().map(ToString::to_string).collect(),
        connect_timeout: Duration::from_secs(2),
        read_timeout: config.server.limits.idle_timeout.duration(),
    }
    .build()?;
    fs::create_dir_all(&config.data_dir)?;
    let asked = front.clone();
    health.register("caches", move || {
        let front = asked.clone();
        Box::pin(async move { front.ready().await })
    });
    Ok(front)
}

fn control_socket(data_dir: &Path) -> anyhow::Result<Bound> {
    let path = data_dir.join(SOCKET);
    if path.as_os_str().len() > 100 {
        bail!("{} is too long a path for a socket; hint: use a shorter --data-dir", path.display());
    }
    let bound = kuboard_rt::http::bind_unix(&path)
        .with_context(|| format!("control socket {}", path.display()))?;
    // Whoever can open it can empty the cache.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(bound)
}

/// All that one address answers.
struct Top {
    registry: Arc<dyn Handler>,
    apis: Option<Apis>,
    metrics: Metrics,
    health: Health,
    certificates: Option<Arc<Certificates>>,
}

impl Handler for Top {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        match request.uri().path() {
            "/metrics" => Box::pin(async {
                text(StatusCode::OK, self.metrics.encode(), "text/plain; version=0.0.4")
            }),
            "/healthz" => Box::pin(async {
                let code = if self.health.live() { 200 } else { 503 };
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
                text(status, "ok\n".to_owned(), "text/plain; charset=utf-8")
            }),
            "/readyz" => Box::pin(self.ready()),
            path => {
                let answer = self.certificates.as_ref().and_then(|c| c.http01_answer(path));
                if let Some(answer) = answer {
                    return Box::pin(async {
                        text(StatusCode::OK, answer, "application/octet-stream")
                    });
                }
                let handler = self.apis.as_ref().and_then(|apis| apis.of(path));
                handler.unwrap_or(&*self.registry).handle(request)
            }
        }
    }
}

impl Top {
    async fn ready(&self) -> Response {
        let mut lines = String::new();
        let mut status = StatusCode::OK;
        if self.health.is_draining() {
            status = StatusCode::SERVICE_UNAVAILABLE;
            lines.push_str("[-] stopping\n");
        }
        for (name, outcome) in self.health.ready().await {
            match outcome {
                Ok(()) => lines.push_str(&format!("[+] {name}\n")),
                Err(why) => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    lines.push_str(&format!("[-] {name}: {why}\n"));
                }
            }
        }
        text(status, lines, "text/plain; charset=utf-8")
    }
}

/// The address without TLS: answers ACME's challenge and nothing else.
struct Plain(Arc<Top>);

impl Handler for Plain {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        let path = request.uri().path();
        let answer = self.0.certificates.as_ref().and_then(|c| c.http01_answer(path));
        Box::pin(async move {
            match answer {
                Some(answer) => text(StatusCode::OK, answer, "application/octet-stream"),
                None => text(
                    StatusCode::NOT_FOUND,
                    "this address only proves certificates; hint: use https\n".to_owned(),
                    "text/plain; charset=utf-8",
                ),
            }
        })
    }
}

fn text(status: StatusCode, text: String, media_type: &'static str) -> Response {
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_LENGTH, length);
    response
}
