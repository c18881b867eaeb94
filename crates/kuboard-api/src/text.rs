//! Values that are written as text and mean more: addresses and URLs, checked where they are read.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use url::Url;

use crate::schema::{Described, Shape};

/// Reads a text and parses it; the parser's message reaches the user as it is.
pub(crate) fn from_text<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

macro_rules! text_value {
    ($($type:ty => $words:literal,)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from_text(from)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl Described for $type {
            fn shape() -> Shape {
                Shape::Value($words.to_owned())
            }
        }
    )*};
}

text_value! {
    ListenAddress => "address:port",
    HttpUrl => "URL",
    EndpointUrl => "URL",
    CatalogUrl => "URL",
}

/// Where to listen: `address:port`; `localhost` stands for 127.0.0.1.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let local = text
            .strip_prefix("localhost:")
            .and_then(|port| port.parse().ok())
            .map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        local.or_else(|| text.parse().ok()).map(Self).ok_or_else(|| {
            format!(
                "not an address to listen on: \"{text}\"\nhint: write address:port, for example \
                 \"127.0.0.1:5000\", \"0.0.0.0:5000\" or \"[::]:5000\""
            )
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An `http://` or `https://` URL with a host and without user, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpUrl(Url);

impl FromStr for HttpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let how = "hint: write https://host, https://host:port or, without TLS, http://host:port";
        let url =
            Url::parse(text).map_err(|fault| format!("not a URL: \"{text}\" ({fault})\n{how}"))?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("not an http or https URL: \"{text}\"\n{how}"));
        }
        if !plain {
            // The text is not repeated: a password may stand in it.
            return Err(format!("the URL holds a user, a query or a fragment\n{how}"));
        }
        Ok(Self(url))
    }
}

impl Deref for HttpUrl {
    type Target = Url;

    fn deref(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// An endpoint of an upstream: an [`HttpUrl`] in which `{host}` stands for the registry's name,
/// so that one rule serves a family such as `*.pkg.dev`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointUrl(String);

impl EndpointUrl {
    /// The URL for a registry; `None` when the name makes no valid URL.
    pub(crate) fn url(&self, registry: &str) -> Option<Url> {
        self.0.replace("{host}", registry).parse::<HttpUrl>().ok().map(|url| url.0)
    }
}

impl FromStr for EndpointUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.replace("{host}", "registry.invalid").parse::<HttpUrl>()?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the catalogue lives. It may hold a password, so it is never shown whole: `Display`,
/// `Debug` and serialisation put `***` in its place.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CatalogUrl(String);

impl CatalogUrl {
    /// The whole URL, password included; empty for the default.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for CatalogUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = ["sqlite:", "postgres://", "postgresql://"];
        if text.is_empty() || known.iter().any(|scheme| text.starts_with(scheme)) {
            return Ok(Self(text.to_owned()));
        }
        Err("not a catalogue URL\nhint: write \"sqlite:///path/catalog.db\", \
             \"postgres://user:password@host/database\", or leave it empty for SQLite in dataDir"
            .to_owned())
    }
}

impl fmt::Display for CatalogUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Url::parse(&self.0) {
            Ok(mut url) => {
                if url.password().is_some() {
                    // Cannot fail: a URL with a password can carry another.
                    let _ = url.set_password(Some("***"));
                }
                // PostgreSQL reads the password from a parameter too.
                if url.query().is_some_and(|query| query.contains("password")) {
                    url.set_query(Some("***"));
                }
                f.write_str(url.as_str())
            }
            // What does not parse is not shown: its password could not be found either.
            Err(_) if !self.0.is_empty() && !self.0.starts_with("sqlite:") => f.write_str("***"),
            _ => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for CatalogUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
