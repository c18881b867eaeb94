//! Fetching what strangers name: only `http` and `https`, only public addresses unless private ones
//! are allowed, credentials only for the host that they were given for.
//!
//! Names are resolved here, and the addresses that were judged are the ones that are connected to,
//! so a name that changes its address in between gains nothing. Proxies of the environment are not
//! used then: behind one, nobody could tell where a request ends.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{ACCEPT, LOCATION},
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

const MAX_REDIRECTS: usize = 5;
const CONNECT: Duration = Duration::from_secs(15);
/// No byte for so long, and a transfer is given up.
const IDLE: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("kuboard/", env!("CARGO_PKG_VERSION"));

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// It is not allowed.
    #[error("{0}")]
    Refused(String),
    /// The server said something else than 200.
    #[error("{host} answers {status}")]
    Status {
        /// Who.
        host: String,
        /// What.
        status: StatusCode,
        /// `WWW-Authenticate`, where it came.
        challenge: String,
    },
    /// There is no answer.
    #[error("{0}")]
    Network(String),
}

impl From<FetchError> for crate::source::SourceError {
    fn from(error: FetchError) -> Self {
        use crate::source::SourceErrorKind::{Denied, NotFound, Unreachable};
        let kind = match &error {
            FetchError::Refused(_) => Denied,
            FetchError::Status { status: StatusCode::NOT_FOUND, .. } => NotFound,
            FetchError::Status {
                status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, ..
            } => Denied,
            FetchError::Status { .. } | FetchError::Network(_) => Unreachable,
        };
        Self::new(kind, error.to_string())
    }
}

/// Fetches.
#[derive(Clone)]
pub(super) struct Outbound {
    client: reqwest::Client,
    allow_private: bool,
}

impl Outbound {
    pub(super) fn new(allow_private: bool) -> reqwest::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT)
            .read_timeout(IDLE);
        if !allow_private {
            builder = builder.no_proxy().dns_resolver(PublicOnly);
        }
        Ok(Self { client: builder.build()?, allow_private })
    }

    /// Fetches with these headers; the answer is a 200. After a redirect to another host, only
    /// `Accept` of the headers is sent.
    pub(super) async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<reqwest::Response, FetchError> {
        let mut url = url.clone();
        let mut headers = headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.judge(&url)?;
            let request = self.client.get(url.clone()).headers(headers.clone());
            let response = request.send().await.map_err(|error| network(&url, &error))?;
            let status = response.status();
            if status == StatusCode::OK {
                return Ok(response);
            }
            let text = |name: HeaderName| {
                let value = response.headers().get(name).and_then(|value| value.to_str().ok());
                value.unwrap_or_default().to_owned()
            };
            let location = text(LOCATION);
            if !status.is_redirection() || location.is_empty() {
                let challenge = text(http::header::WWW_AUTHENTICATE);
                return Err(FetchError::Status { host: host(&url), status, challenge });
            }
            let next = url.join(&location).map_err(|_| {
                FetchError::Network(format!("{} redirects to no address", host(&url)))
            })?;
            if next.origin() != url.origin() {
                let accept = headers.get(ACCEPT).cloned();
                headers = accept.map(|value| (ACCEPT, value)).into_iter().collect();
            }
            url = next;
        }
        Err(FetchError::Network(format!("{} redirects too often", host(&url))))
    }

    fn judge(&self, url: &Url) -> Result<(), FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Refused(format!(
                "{:?} is neither http nor https",
                url.scheme()
            )));
        }
        let literal = match url.host() {
            None => return Err(FetchError::Refused("the address has no host".to_owned())),
            Some(Host::Domain(_)) => None,
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        };
        match literal {
            Some(ip) if !self.allow_private && !is_public(ip) => {
                Err(FetchError::Refused(private(&host(url))))
            }
            _ => Ok(()),
        }
    }
}

fn private(host: &str) -> String {
    format!(
        "{host} is an address of a private network; hint: set scan.api.allowPrivateAddresses if it \
         is yours"
    )
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The innermost reason; never the address with its parameters, which may be a secret.
fn network(url: &Url, error: &reqwest::Error) -> FetchError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    let mut reason = if error.is_timeout() { "it takes too long" } else { "it failed" }.to_owned();
    while let Some(inner) = source {
        if let Some(PrivateName(name)) = inner.downcast_ref() {
            return FetchError::Refused(private(name));
        }
        reason = inner.to_string();
        source = inner.source();
    }
    FetchError::Network(format!("{} can't be reached: {reason}", host(url)))
}

#[derive(Debug, thiserror::Error)]
#[error("{0} has private addresses only")]
struct PrivateName(String);

/// Resolves names to their public addresses.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let any = !found.is_empty();
            let public: Vec<_> = found.into_iter().filter(|one| is_public(one.ip())).collect();
            if public.is_empty() && any {
                return Err(Box::new(PrivateName(name)) as _);
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the internet's: not of this machine, this network, a private
/// network, or one that stands for such an address (RFC 6890, RFC 6052, RFC 3056).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(a == 0
        || a >= 224
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b)))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let words = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match words {
        // Mapped and compatible IPv4, which covers the unspecified and the loopback address.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Only 2000::/3 is given out; in it, Teredo and documentation.
        [0x2001, 0 | 0xdb8, ..] => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::{FetchError, Outbound, is_public};

    #[test]
    fn private_addresses_are_known() {
        for (ip, public) in [
            ("1.1.1.1", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("::", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::a00:1", false),
            ("2002:7f00:1::", false),
            ("fe80::1", false),
            ("fc00::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
            ("2001::1", false),
            ("2606:4700::1111", true),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }

    #[tokio::test]
    async fn private_hosts_are_refused_before_a_connection() {
        let outbound = Outbound::new(false).unwrap();
        for url in [
            "http://127.0.0.1:1/",
            "http://[::1]/",
            "http://0x7f000001/",
            "http://2130706433/",
            "https://169.254.169.254/latest/meta-data",
            "http://localhost:1/",
            "file:///etc/passwd",
            "ftp://example.com/",
        ] {
            let got = outbound.get(&url.parse().unwrap(), &http::HeaderMap::new()).await;
            assert!(matches!(got, Err(FetchError::Refused(_))), "{url}: {got:?}");
        }
    }
}
