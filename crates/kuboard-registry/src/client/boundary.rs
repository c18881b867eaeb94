//! The trust boundary of an upstream: to which token services its credentials may go.
//!
//! A registry answers 401 with the address ("realm") of a token service, and a client that
//! believes any address hands its password to whoever wrote that answer (CVE-2026-33540). A
//! realm is inside the boundary if its host
//!
//! - is the host of the endpoint that named it, on any port, or
//! - has the same registrable domain as that endpoint (`auth.docker.io` for
//!   `registry-1.docker.io`), or
//! - is on the operator's list (`trustedRealms`).
//!
//! The registrable domain is guessed without the public suffix list, and the guess errs towards
//! "different": country domains with a generic second level (`co.uk`, `com.cn`) and hosting
//! domains under which strangers get names (`github.io`, `amazonaws.com`) count as suffixes; of
//! countries with geographic domains only the generic second levels are understood. Addresses
//! and names of one label have no registrable domain. Where the guess is wrong, the error says
//! to name the realm in `trustedRealms`.

use url::{Host, Url};

use super::endpoint::Endpoint;

/// Domains under which anybody can get a name. Hosts in them are each on their own.
#[rustfmt::skip]
const SHARED: [&str; 58] = [
    "aliyuncs.com", "amazonaws.com", "amazonaws.com.cn", "api.aws", "on.aws", "appspot.com",
    "azure.com", "azurecr.io", "azurefd.net", "azurewebsites.net", "bcebos.com", "blogspot.com",
    "cleverapps.io", "cloudapp.net", "cloudfront.net", "cluster.local", "compute.internal",
    "ddns.net", "digitaloceanspaces.com", "duckdns.org", "ec2.internal", "fly.dev", "github.io",
    "githubusercontent.com", "gitlab.io", "glitch.me", "googleapis.com", "herokuapp.com",
    "jfrog.io", "linodeobjects.com", "myhuaweicloud.com", "myqcloud.com", "netlify.app", "ngrok-
    free.app", "ngrok-free.dev", "ngrok.app", "ngrok.dev", "ngrok.io", "nip.io", "no-ip.org",
    "ocir.io", "ondigitalocean.app", "onrender.com", "oraclecloud.com", "pages.dev", "pkg.dev",
    "railway.app", "replit.dev", "run.app", "scw.cloud", "sslip.io", "surge.sh",
    "trycloudflare.com", "vercel.app", "volces.com", "web.app", "windows.net", "workers.dev",
];
/// Second levels that registries of country domains give names below.
const GENERIC: [&str; 26] = [
    "com", "org", "net", "edu", "gov", "gob", "gouv", "mil", "int", "nom", "ltd", "plc", "sch",
    "nhs", "info", "biz", "asn", "web", "name", "pro", "art", "eng", "adv", "ind", "police",
    "club",
];
/// Country domains with names below cities, states or anything.
const GEOGRAPHIC: [&str; 12] =
    ["jp", "no", "us", "it", "ck", "er", "fk", "kh", "mm", "np", "pg", "bd"];

/// The part of a host name that one owner registers; `None` where that cannot be said. `host`
/// is in lower case, without a dot at its end.
fn site(host: &str) -> Option<&str> {
    let labels: Vec<&str> = host.split('.').collect();
    if labels.len() < 2 || labels.iter().any(|label| label.is_empty()) {
        return None;
    }
    if labels.last() == Some(&"svc") || SHARED.iter().any(|shared| is_below(host, shared)) {
        return None;
    }
    let (top, second) = (labels[labels.len() - 1], labels[labels.len() - 2]);
    let country = top.len() == 2;
    let suffix_labels = match country {
        true if second.len() <= 2 || GENERIC.contains(&second) => 2,
        true if GEOGRAPHIC.contains(&top) => return None,
        _ => 1,
    };
    let start = labels.len().checked_sub(suffix_labels + 1)?;
    let skipped: usize = labels[..start].iter().map(|label| label.len() + 1).sum();
    host.get(skipped..)
}

/// Whether `host` is `domain` or a name below it.
fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether two hosts are one, or belong to one owner.
pub(super) fn same_site(one: &str, other: &str) -> bool {
    let (one, other) = (plain(one), plain(other));
    let is_name = |host: &str| matches!(Host::parse(host), Ok(Host::Domain(_)));
    one == other
        || is_name(&one)
            && is_name(&other)
            && (site(&one).is_some_and(|own| site(&other) == Some(own))
                || aliyun_token_service(&one, &other))
}

/// Alibaba's registries stand in a domain that it also gives to customers' buckets; their token
/// services have names that no bucket can have (a bucket's second label begins with `oss-`).
fn aliyun_token_service(endpoint: &str, realm: &str) -> bool {
    let Some(name) = realm.strip_suffix(".aliyuncs.com") else { return false };
    let mut labels = name.split('.');
    let (service, region) = (labels.next().unwrap_or(""), labels.next().unwrap_or(""));
    is_below(endpoint, "aliyuncs.com")
        && service.starts_with("dockerauth")
        && !region.is_empty()
        && !region.starts_with("oss-")
        && labels.next().is_none()
}

/// Whether a host is one of the operator's own network, judging by its name alone.
pub(super) fn is_private(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(Host::Ipv6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Ok(Host::Domain(name)) => {
            let name = plain(&name);
            let inner = ["localhost", "local", "internal", "lan", "svc", "test", "home.arpa"];
            !name.contains('.') || inner.iter().any(|domain| is_below(&name, domain))
        }
        Err(_) => false,
    }
}

/// Whether a host is this machine, or an address that only this machine or link can mean.
pub(super) fn is_local(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        Ok(Host::Ipv6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
            None => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
        },
        Ok(Host::Domain(name)) => is_below(&plain(&name), "localhost"),
        Err(_) => false,
    }
}

/// One entry of `trustedRealms`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TrustedRealm {
    /// `host` or `host:port`; with `*.` in front, all names below.
    Host { host: String, port: Option<u16>, below: bool },
    /// A whole address; the realm's path is below its path.
    Address(Url),
}

impl TrustedRealm {
    pub(super) fn parse(text: &str) -> Option<TrustedRealm> {
        if text.contains("://") {
            let url = Url::parse(text).ok()?;
            let plain = matches!(url.scheme(), "http" | "https")
                && url.host_str().is_some()
                && url.query().is_none()
                && url.username().is_empty();
            return plain.then_some(TrustedRealm::Address(url));
        }
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // The parser of addresses knows brackets, ports and international names.
        let url = Url::parse(&format!("https://{rest}")).ok()?;
        let bare = url.path() == "/" && !rest.contains(['/', '@', '?', '#']);
        // 443 is the default of the scheme, and hidden by the parser.
        let port = url.port().or_else(|| rest.ends_with(":443").then_some(443));
        let host = plain(url.host_str()?);
        bare.then_some(TrustedRealm::Host { host, port, below })
    }

    pub(super) fn holds(&self, realm: &Url) -> bool {
        let Some(host) = realm.host_str().map(plain) else { return false };
        match self {
            TrustedRealm::Host { host: own, port, below } => {
                let same_host =
                    if *below { is_below(&host, own) && host != *own } else { host == *own };
                same_host && port.is_none_or(|port| realm.port_or_known_default() == Some(port))
            }
            TrustedRealm::Address(own) => {
                let path = own.path().trim_end_matches('/');
                own.scheme() == realm.scheme()
                    && own.host_str().map(plain) == Some(host)
                    && own.port_or_known_default() == realm.port_or_known_default()
                    && realm
                        .path()
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    /// Whether an endpoint of this host and port was vouched for.
    pub(super) fn holds_endpoint(&self, endpoint: &Url) -> bool {
        let root = |url: &Url| {
            let mut root = url.clone();
            root.set_path("/");
            root
        };
        match self {
            TrustedRealm::Host { .. } => self.holds(endpoint),
            TrustedRealm::Address(own) => TrustedRealm::Address(root(own)).holds(&root(endpoint)),
        }
    }
}

/// What may be sent to a realm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The credential of the endpoint that named it.
    Credential,
    /// Nothing: the realm belongs to the upstream, but a mirror named it, whose credential it
    /// must not see.
    Anonymous,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Boundary {
    pub(super) trusted: Vec<TrustedRealm>,
    /// The host in the upstream's name and those of its own endpoints.
    pub(super) hosts: Vec<String>,
}

impl Boundary {
    /// Judges the realm that an endpoint named. The error says what is wrong with it.
    pub(super) fn judge(&self, endpoint: &Endpoint, realm: &Url) -> Result<Verdict, String> {
        let Some(host) = realm.host_str() else {
            return Err(format!("its realm {:?} has no host", shown(realm)));
        };
        let secure = realm.scheme() == "https"
            || (realm.scheme() == "http" && endpoint.base.scheme() == "http");
        if !secure {
            return Err(format!("its realm {} is not https", shown(realm)));
        }
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(format!("its realm {} holds a user name", shown(realm)));
        }
        if same_site(endpoint.host(), host) || self.trusted.iter().any(|t| t.holds(realm)) {
            return Ok(Verdict::Credential);
        }
        if !endpoint.own && self.hosts.iter().any(|own| same_site(own, host)) {
            return Ok(Verdict::Anonymous);
        }
        Err(format!(
            "its token service {} is outside the upstream's trust boundary; hint: if it is \
             right, add \"{host}\" to trustedRealms",
            shown(realm)
        ))
    }
}

/// A realm for messages: without user, query and the like.
fn shown(realm: &Url) -> String {
    let port = realm.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", realm.scheme(), realm.host_str().unwrap_or("?"), realm.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrable_domain_is_guessed_carefully() {
        let cases = [
            ("registry-1.docker.io", Some("docker.io")),
            ("docker.io", Some("docker.io")),
            ("registry.gitlab.com", Some("gitlab.com")),
            ("a.b.example.co.uk", Some("example.co.uk")),
            ("co.uk", None),
            ("example.com.cn", Some("example.com.cn")),
            ("registry.example.de", Some("example.de")),
            ("team.github.io", None),
            ("github.io", None),
            ("notgithub.io", Some("notgithub.io")),
            ("x.s3.amazonaws.com", None),
            ("harbor.kawasaki.jp", None),
            ("registry.example.co.jp", Some("example.co.jp")),
            ("registry.default.svc.cluster.local", None),
            ("registry.default.svc", None),
            ("auth.corp.internal", Some("corp.internal")),
            ("localhost", None),
            ("com", None),
            ("a..b", None),
            ("", None),
        ];
        for (host, expected) in cases {
            assert_eq!(site(host), expected, "{host:?}");
        }
    }

    #[test]
    fn hosts_are_of_one_site() {
        let cases = [
            ("registry-1.docker.io", "auth.docker.io", true),
            ("registry-1.docker.io", "AUTH.Docker.io.", true),
            ("registry-1.docker.io", "auth.docker.io.evil.com", false),
            ("registry-1.docker.io", "authdocker.io", false),
            ("a.github.io", "a.github.io", true),
            ("a.github.io", "b.github.io", false),
            ("a.example.co.uk", "evil.co.uk", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "localhost", false),
            ("10.1.2.3", "9.1.2.3", false),
            ("[::1]", "[::1]", true),
            ("registry.cn-hangzhou.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com", true),
            ("registry.cn-hangzhou.aliyuncs.com", "dockerauth-ee.cn-beijing.aliyuncs.com", true),
            ("registry.cn-hangzhou.aliyuncs.com", "dockerauth.oss-cn-hangzhou.aliyuncs.com", false),
            ("registry.cn-hangzhou.aliyuncs.com", "x.cn-hangzhou.aliyuncs.com", false),
            ("registry.example.com", "dockerauth.cn-hangzhou.aliyuncs.com", false),
        ];
        for (one, other, expected) in cases {
            assert_eq!(same_site(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn private_and_local_hosts() {
        let cases = [
            ("127.0.0.1", true, true),
            ("localhost", true, true),
            ("[::1]", true, true),
            ("[::ffff:127.0.0.1]", false, true),
            ("169.254.169.254", true, true),
            ("10.0.0.5", true, false),
            ("192.168.1.1", true, false),
            ("8.8.8.8", false, false),
            ("harbor", true, false),
            ("harbor.corp.internal", true, false),
            ("registry.test", true, false),
            ("registry.example.com", false, false),
            ("notinternal", true, false),
            ("a.notinternal", false, false),
        ];
        for (host, private, local) in cases {
            assert_eq!((is_private(host), is_local(host)), (private, local), "{host}");
        }
    }

    #[test]
    fn the_operator_names_hosts_domains_or_addresses() {
        let cases = [
            ("sso.corp", "https://sso.corp/token", true),
            ("sso.corp", "https://sso.corp:8443/token", true),
            ("sso.corp:8443", "https://sso.corp:8443/token", true),
            ("sso.corp:443", "https://sso.corp/token", true),
            ("sso.corp:443", "https://sso.corp:8443/token", false),
            ("sso.corp", "https://x.sso.corp/token", false),
            ("*.sso.corp", "https://x.sso.corp/token", true),
            ("*.sso.corp", "https://sso.corp/token", false),
            ("*.sso.corp", "https://evilsso.corp/token", false),
            ("https://sso.corp/realms/a", "https://sso.corp/realms/a/token", true),
            ("https://sso.corp/realms/a/", "https://sso.corp/realms/a", true),
            ("https://sso.corp/realms/a", "https://sso.corp/realms/ab", false),
            ("https://sso.corp/", "http://sso.corp/", false),
            ("[::1]:5001", "https://[::1]:5001/token", true),
        ];
        for (entry, realm, expected) in cases {
            let holds = TrustedRealm::parse(entry).unwrap().holds(&Url::parse(realm).unwrap());
            assert_eq!(holds, expected, "{entry} {realm}");
        }
        for entry in ["", "a/b", "ftp://x", "user@host", "https://a?b", "*."] {
            assert_eq!(TrustedRealm::parse(entry), None, "{entry:?}");
        }
    }

    #[track_caller]
    fn check(endpoint: &str, own: bool, realm: &str, expected: Result<Verdict, &str>) {
        let boundary = Boundary {
            trusted: vec![TrustedRealm::parse("sso.corp").unwrap()],
            hosts: vec!["docker.io".into(), "registry-1.docker.io".into()],
        };
        let endpoint = Endpoint::new(0, &Url::parse(endpoint).unwrap(), own);
        let verdict = boundary.judge(&endpoint, &Url::parse(realm).unwrap());
        match expected {
            Ok(expected) => assert_eq!(verdict, Ok(expected), "{realm}"),
            Err(part) => {
                let message = verdict.unwrap_err();
                assert!(message.contains(part), "{message}");
            }
        }
    }

    #[test]
    fn realms_are_judged_by_who_names_them() {
        let (hub, mirror) = ("https://registry-1.docker.io", "https://mirror.example.cn");
        check(hub, true, "https://auth.docker.io/token", Ok(Verdict::Credential));
        check(hub, true, "https://sso.corp/token", Ok(Verdict::Credential));
        check(hub, true, "http://auth.docker.io/token", Err("not https"));
        check(hub, true, "https://u:p@auth.docker.io/token", Err("user name"));
        check(hub, true, "https://evil.org/token", Err("trustedRealms"));
        check(hub, true, "https://mirror.example.cn/token", Err("trustedRealms"));
        check(mirror, false, "https://auth.example.cn/token", Ok(Verdict::Credential));
        check(mirror, false, "https://auth.docker.io/token", Ok(Verdict::Anonymous));
        check(mirror, false, "https://evil.org/token", Err("trustedRealms"));
        check("http://127.0.0.1:5000", true, "http://127.0.0.1:5001/t", Ok(Verdict::Credential));
        check("http://127.0.0.1:5000", true, "http://127.0.0.2/t", Err("trustedRealms"));
        check("https://127.0.0.1:5000", true, "data:x", Err("no host"));
    }
}
