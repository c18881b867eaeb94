//! The addresses of an upstream: which of them is the upstream itself, in what order they are
//! asked, and which are left alone for a while. Pure: time comes in as an argument.

use std::time::Duration;

use kuboard_oci::RepositoryName;
use url::{Host, Url};

use super::boundary::{TrustedRealm, is_private, same_site};

/// One address of an upstream.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) index: usize,
    /// Its path ends in a slash; repositories follow.
    pub(super) base: Url,
    /// What the endpoint puts before repository names, such as `project/`.
    pub(super) prefix: String,
    /// Whether it is the upstream itself and not a mirror: its answers are authoritative, and
    /// the upstream's credentials may go there.
    pub(super) own: bool,
}

impl Endpoint {
    /// `url` is `https://host`, `https://host/path` for a registry below a path, or
    /// `https://host/v2/project` where a mirror keeps the upstream's repositories in a project.
    pub(super) fn new(index: usize, url: &Url, own: bool) -> Endpoint {
        let path = url.path().trim_matches('/');
        let (path, prefix) = if path == "v2" || path.starts_with("v2/") {
            (String::from("/v2/"), path.trim_start_matches("v2").trim_matches('/'))
        } else if path.is_empty() {
            (String::from("/v2/"), "")
        } else {
            (format!("/{path}/v2/"), "")
        };
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let mut base = url.clone();
        base.set_path(&path);
        base.set_query(None);
        base.set_fragment(None);
        Endpoint { index, base, prefix, own }
    }

    pub(super) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// `host[:port]`, as messages and docker's files name it.
    pub(super) fn authority(&self) -> String {
        match self.base.port() {
            Some(port) => format!("{}:{port}", self.host()),
            None => self.host().to_owned(),
        }
    }

    /// The name by which the endpoint knows a repository.
    pub(super) fn repository(&self, repository: &RepositoryName) -> String {
        format!("{}{repository}", self.prefix)
    }

    /// The address of something in a repository, such as `manifests/latest`.
    pub(super) fn url(&self, repository: &RepositoryName, tail: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}{repository}/{tail}", self.base.path(), self.prefix));
        url
    }
}

/// Tells the upstream's own endpoints from mirrors.
///
/// An endpoint is the upstream itself if its host is of one site with the upstream's name, or if
/// the operator vouched for it in `trustedRealms`. If there is none, the last one is, but only if
/// the name is not a host name, or the endpoint is in the operator's own network: the
/// credentials of `ghcr.io` must not go to a public mirror because it is the only endpoint.
pub(super) fn endpoints(name: &str, urls: &[Url], trusted: &[TrustedRealm]) -> Vec<Endpoint> {
    let name_host = host_in(name);
    let own = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        name_host.as_deref().is_some_and(|name| same_site(name, host))
            || trusted.iter().any(|trusted| trusted.holds_endpoint(url))
    };
    let mut endpoints: Vec<Endpoint> =
        urls.iter().enumerate().map(|(index, url)| Endpoint::new(index, url, own(url))).collect();
    if endpoints.iter().all(|endpoint| !endpoint.own)
        && let Some(last) = endpoints.last_mut()
    {
        last.own = name_host.is_none() || is_private(last.host());
    }
    endpoints
}

/// The host in an upstream's name, if the name is one: it has a dot or a port.
pub(super) fn host_in(name: &str) -> Option<String> {
    if !name.contains(['.', ':']) {
        return None;
    }
    let url = Url::parse(&format!("https://{name}")).ok()?;
    match url.host()? {
        Host::Domain(host) => Some(host.to_owned()),
        address => Some(address.to_string()),
    }
}

/// In what order the endpoints are asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// As configured, mirrors first: for content.
    Configured,
    /// The upstream itself first: for lists, which mirrors often know in part only.
    OwnFirst,
    /// No mirror: for questions about a caller's rights.
    OwnOnly,
}

/// Endpoints that failed this often in a row are not asked at all while they cool down.
const DEAD_AFTER: u32 = 3;
/// Failures within this time count once: one restart breaks all requests under way.
const BURST: Duration = Duration::from_millis(250);
const FIRST_COOL_DOWN: Duration = Duration::from_secs(1);
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(30);
/// For an upstream that throttles without saying for how long.
const DEFAULT_THROTTLE: Duration = Duration::from_secs(60);
/// A longer wait is believed only this far.
const LONGEST_THROTTLE: Duration = Duration::from_secs(15 * 60);
/// For an endpoint that served wrong bytes.
const BLAMED: Duration = Duration::from_secs(5 * 60);

/// How one endpoint has been doing. All times are monotonic.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    /// In a row.
    failures: u32,
    /// When the last failure that counts happened.
    failed_at: Option<Duration>,
    cooling_until: Duration,
    blamed_until: Duration,
    throttled_until: Duration,
}

/// How all of them have been doing.
#[derive(Clone, Debug)]
pub(super) struct Healths(Vec<Health>);

/// Whom to ask.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Plan {
    /// In this order.
    pub(super) ask: Vec<usize>,
    /// Left alone, why, and for how long still.
    pub(super) skipped: Vec<(usize, Skip, Duration)>,
}

/// Why an endpoint is not asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Skip {
    /// It asked us to wait.
    Throttled,
    /// It failed several times in a row.
    Down,
}

impl Healths {
    pub(super) fn new(count: usize) -> Healths {
        Healths(vec![Health::default(); count])
    }

    /// Sound endpoints in their order, then those that failed lately.
    pub(super) fn plan(&self, endpoints: &[Endpoint], order: Order, now: Duration) -> Plan {
        let mut candidates: Vec<&Endpoint> =
            endpoints.iter().filter(|e| order != Order::OwnOnly || e.own).collect();
        if order == Order::OwnFirst {
            candidates.sort_by_key(|endpoint| !endpoint.own);
        }
        let mut plan = Plan::default();
        let mut suspects = Vec::new();
        for Endpoint { index, .. } in candidates {
            let health = self.0.get(*index).copied().unwrap_or_default();
            if now < health.throttled_until {
                plan.skipped.push((*index, Skip::Throttled, health.throttled_until - now));
            } else if now < health.cooling_until && health.failures >= DEAD_AFTER {
                plan.skipped.push((*index, Skip::Down, health.cooling_until - now));
            } else if now < health.cooling_until.max(health.blamed_until) {
                suspects.push(*index);
            } else {
                plan.ask.push(*index);
            }
        }
        plan.ask.extend(suspects);
        plan
    }

    pub(super) fn succeeded(&mut self, index: usize) {
        if let Some(health) = self.0.get_mut(index) {
            health.failures = 0;
            health.failed_at = None;
            health.cooling_until = Duration::ZERO;
        }
    }

    /// No connection, no answer in time, or a gateway's error.
    pub(super) fn failed(&mut self, index: usize, now: Duration) {
        if let Some(health) = self.0.get_mut(index) {
            if health.failed_at.is_some_and(|at| now.saturating_sub(at) < BURST) {
                return;
            }
            health.failed_at = Some(now);
            health.failures = health.failures.saturating_add(1);
            let doublings = health.failures.saturating_sub(1).min(16);
            let cool_down = FIRST_COOL_DOWN.saturating_mul(1 << doublings).min(LONGEST_COOL_DOWN);
            health.cooling_until = now + cool_down;
        }
    }

    /// Asked us to wait. Returns for how long it is left alone.
    pub(super) fn throttled(
        &mut self,
        index: usize,
        retry_after: Option<Duration>,
        now: Duration,
    ) -> Duration {
        let wait =
            retry_after.unwrap_or(DEFAULT_THROTTLE).clamp(Duration::from_secs(1), LONGEST_THROTTLE);
        if let Some(health) = self.0.get_mut(index) {
            health.throttled_until = now + wait;
        }
        wait
    }

    /// Served wrong bytes: asked only after all others for some minutes.
    pub(super) fn blamed(&mut self, index: usize, now: Duration) {
        if let Some(health) = self.0.get_mut(index) {
            health.blamed_until = now + BLAMED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn made(name: &str, urls: &[&str], trusted: &[&str]) -> Vec<Endpoint> {
        let urls: Vec<Url> = urls.iter().map(|url| Url::parse(url).unwrap()).collect();
        let trusted: Vec<_> = trusted.iter().map(|t| TrustedRealm::parse(t).unwrap()).collect();
        endpoints(name, &urls, &trusted)
    }

    #[test]
    fn paths_become_bases() {
        let cases = [
            ("https://reg.test", "https://reg.test/v2/team/app/tags/list", "team/app"),
            ("https://reg.test/v2/", "https://reg.test/v2/team/app/tags/list", "team/app"),
            ("https://reg.test:5000/", "https://reg.test:5000/v2/team/app/tags/list", "team/app"),
            (
                "https://reg.test/api/docker/",
                "https://reg.test/api/docker/v2/team/app/tags/list",
                "team/app",
            ),
            (
                "https://reg.test/v2/hub/",
                "https://reg.test/v2/hub/team/app/tags/list",
                "hub/team/app",
            ),
        ];
        for (base, expected, repository) in cases {
            let endpoint = Endpoint::new(0, &Url::parse(base).unwrap(), true);
            let name: RepositoryName = "team/app".parse().unwrap();
            assert_eq!(endpoint.url(&name, "tags/list").as_str(), expected);
            assert_eq!(endpoint.repository(&name), repository);
        }
    }

    #[track_caller]
    fn check_own(name: &str, urls: &[&str], trusted: &[&str], expected: &[bool]) {
        let own: Vec<bool> = made(name, urls, trusted).iter().map(|e| e.own).collect();
        assert_eq!(own, expected, "{name} {urls:?}");
    }

    #[test]
    fn the_upstream_is_told_from_its_mirrors() {
        let (mirror, hub) = ("https://m.example.cn", "https://registry-1.docker.io");
        let (inner, other) = ("https://harbor.corp.internal", "https://reg.example.org");
        check_own("docker.io", &[mirror, hub], &[], &[false, true]);
        check_own("docker.io", &[mirror], &[], &[false]);
        check_own("docker.io", &[mirror], &["m.example.cn"], &[true]);
        check_own("docker.io", &[inner], &[], &[true]);
        check_own("docker.io", &[inner, hub], &[], &[false, true]);
        check_own("ghcr.io", &["https://ghcr.nju.edu.cn"], &[], &[false]);
        check_own("team", &[mirror, other], &[], &[false, true]);
        check_own("reg.example.org:5000", &["https://reg.example.org:5000"], &[], &[true]);
        check_own("127.0.0.1:5000", &["http://127.0.0.1:5000"], &[], &[true]);
        let (one, two) = ("http://127.0.0.1:5000", "http://127.0.0.1:5001");
        check_own("upstream.test", &[one], &[], &[true]);
        check_own("upstream.test", &[one, two], &[], &[false, true]);
    }

    #[test]
    fn orders() {
        let all = made("docker.io", &["https://m.cn", "https://registry-1.docker.io"], &[]);
        let health = Healths::new(2);
        let ask = |order| health.plan(&all, order, SECOND).ask;
        assert_eq!(ask(Order::Configured), [0, 1]);
        assert_eq!(ask(Order::OwnFirst), [1, 0]);
        assert_eq!(ask(Order::OwnOnly), [1]);
    }

    #[test]
    fn failing_endpoints_go_last_then_rest_then_come_back() {
        let all = made("docker.io", &["https://m.cn", "https://registry-1.docker.io"], &[]);
        let mut health = Healths::new(2);
        let plan = |health: &Healths, at: u64| {
            let plan = health.plan(&all, Order::Configured, Duration::from_secs(at));
            (plan.ask, plan.skipped)
        };
        health.failed(0, Duration::from_secs(100));
        assert_eq!(plan(&health, 100), (vec![1, 0], vec![]));
        assert_eq!(plan(&health, 101), (vec![0, 1], vec![]));
        health.failed(0, Duration::from_secs(101));
        health.failed(0, Duration::from_secs(102));
        assert_eq!(plan(&health, 103), (vec![1], vec![(0, Skip::Down, 3 * SECOND)]));
        assert_eq!(plan(&health, 106), (vec![0, 1], vec![]));
        for at in 101..=200 {
            health.failed(0, Duration::from_secs(at));
        }
        assert_eq!(plan(&health, 200), (vec![1], vec![(0, Skip::Down, 30 * SECOND)]));
        assert_eq!(plan(&health, 230), (vec![0, 1], vec![]));
        health.failed(0, Duration::from_secs(300));
        health.succeeded(0);
        assert_eq!(plan(&health, 300), (vec![0, 1], vec![]));
    }

    #[test]
    fn a_burst_of_failures_counts_once() {
        let all = made("docker.io", &["https://registry-1.docker.io"], &[]);
        let mut health = Healths::new(1);
        for at in 0..16 {
            health.failed(0, SECOND + Duration::from_millis(at));
        }
        assert_eq!(health.plan(&all, Order::Configured, SECOND).ask, [0]);
    }

    #[test]
    fn throttled_endpoints_are_left_alone() {
        let all = made("docker.io", &["https://registry-1.docker.io"], &[]);
        let cases = [(Some(10), 10), (Some(0), 1), (None, 60), (Some(1_000_000), 900)];
        for (retry_after, expected) in cases {
            let mut health = Healths::new(1);
            let wait = health.throttled(0, retry_after.map(Duration::from_secs), 5 * SECOND);
            assert_eq!(wait, Duration::from_secs(expected));
            health.succeeded(0);
            let plan = health.plan(&all, Order::Configured, 5 * SECOND);
            assert_eq!(plan.skipped, [(0, Skip::Throttled, wait)]);
            assert_eq!(health.plan(&all, Order::Configured, 5 * SECOND + wait).ask, [0]);
        }
    }

    #[test]
    fn a_blamed_endpoint_is_the_last_resort() {
        let all = made("docker.io", &["https://m.cn", "https://registry-1.docker.io"], &[]);
        let mut health = Healths::new(2);
        health.blamed(0, SECOND);
        health.succeeded(0);
        assert_eq!(health.plan(&all, Order::Configured, 200 * SECOND).ask, [1, 0]);
        assert_eq!(health.plan(&all, Order::Configured, 302 * SECOND).ask, [0, 1]);
    }
}
