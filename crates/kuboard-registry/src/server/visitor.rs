//! What of a request matters for who asks and how to answer them.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap};
use http::{Uri, request};
use kuboard_rt::http::Peer;

/// A request as far as access is concerned.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Visitor<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) address: Option<IpAddr>,
    host: Option<&'a str>,
    tls: bool,
}

impl<'a> Visitor<'a> {
    pub(crate) fn of<B>(request: &'a http::Request<B>) -> Self {
        Self::new(request.uri(), request.headers(), request.extensions().get::<Peer>().copied())
    }

    pub(crate) fn of_parts(parts: &'a request::Parts) -> Self {
        Self::new(&parts.uri, &parts.headers, parts.extensions.get::<Peer>().copied())
    }

    fn new(uri: &'a Uri, headers: &'a HeaderMap, peer: Option<Peer>) -> Self {
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let host = authority.or_else(|| headers.get(HOST)?.to_str().ok());
        Self {
            headers,
            address: peer.and_then(|peer| peer.addr).map(|address| address.ip()),
            host: host.filter(|host| is_authority(host)),
            tls: peer.is_some_and(|peer| peer.tls),
        }
    }

    /// The name, with its port, by which the client reached us: HTTP/2's authority or the `Host`
    /// header. `None` if there is none or it is malformed.
    pub(crate) fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// Base URL by which the client reached us. A proxy before us that ends TLS says so in
    /// `X-Forwarded-Proto`; whoever lies there misleads nobody but himself.
    pub(crate) fn base_url(&self) -> String {
        let forwarded = self.headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        let scheme = match forwarded {
            Some(said) if said.eq_ignore_ascii_case("https") => "https",
            Some(said) if said.eq_ignore_ascii_case("http") => "http",
            _ if self.tls => "https",
            _ => "http",
        };
        match self.host {
            Some(host) => format!("{scheme}://{host}"),
            None => String::new(),
        }
    }
}

fn is_authority(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (1..=255).contains(&host.len()) && host.bytes().all(fits)
}
