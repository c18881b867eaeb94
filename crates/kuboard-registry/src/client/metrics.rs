//! What is counted of one upstream. Each upstream has its own collectors, told apart by the
//! constant label `upstream`.

use std::sync::OnceLock;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry, core::Collector};

#[derive(Debug)]
pub(super) struct Metrics {
    /// Answers by status, failures by their kind.
    pub(super) requests: IntCounterVec,
    pub(super) tokens: IntCounterVec,
    /// Made when the upstream first says it: a gauge at 0 would read as "nothing left".
    remaining: OnceLock<Option<IntGauge>>,
    name: Box<str>,
    registry: Registry,
}

impl Metrics {
    /// Takes the place of an upstream of the same name, as after a reload.
    pub(super) fn new(name: &str, registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let requests = IntCounterVec::new(
            opts(
                name,
                "registry_proxy_upstream_requests_total",
                "HTTP requests to upstream registries by status code, or kind of failure",
            ),
            &["code"],
        )?;
        let tokens = IntCounterVec::new(
            opts(
                name,
                "registry_proxy_upstream_token_requests_total",
                "Requests to token services of upstream registries by outcome",
            ),
            &["outcome"],
        )?;
        register(registry, &requests)?;
        register(registry, &tokens)?;
        Ok(Metrics {
            requests,
            tokens,
            remaining: OnceLock::new(),
            name: name.into(),
            registry: registry.clone(),
        })
    }

    pub(super) fn remaining(&self, remaining: u64) {
        let made = self.remaining.get_or_init(|| {
            let opts = opts(
                &self.name,
                "registry_proxy_upstream_ratelimit_remaining",
                "Requests that the upstream registry still allows in its window",
            );
            let gauge = IntGauge::with_opts(opts).and_then(|gauge| {
                register(&self.registry, &gauge)?;
                Ok(gauge)
            });
            gauge
                .inspect_err(|error| {
                    tracing::warn!(upstream = %self.name, %error, "a metric cannot be registered");
                })
                .ok()
        });
        if let Some(gauge) = made {
            gauge.set(i64::try_from(remaining).unwrap_or(i64::MAX));
        }
    }
}

fn opts(upstream: &str, name: &str, help: &str) -> Opts {
    Opts::new(name, help).const_label("upstream", upstream)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: &C,
) -> Result<(), prometheus::Error> {
    match registry.register(Box::new(collector.clone())) {
        Err(prometheus::Error::AlreadyReg) => {
            registry.unregister(Box::new(collector.clone()))?;
            registry.register(Box::new(collector.clone()))
        }
        result => result,
    }
}
