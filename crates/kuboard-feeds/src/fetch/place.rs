//! Where a feed's document is: its own address, or the same under a mirror.
//!
//! A mirror has each feed in a folder of the feed's name (`debian/data.json`,
//! `redhat/changes.csv`), and OSV as its bucket has it (`osv/Rocky Linux/all.zip`).

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use url::{Host, Url};

use super::{FetchError, FetchErrorKind};

/// What can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By HTTP.
    Url(String),
    /// From a folder, for an air gap.
    File(PathBuf),
}

/// A base for all feeds instead of their own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// By HTTP.
    Web(Url),
    /// A folder.
    Folder(PathBuf),
}

impl FromStr for Mirror {
    type Err = FetchError;

    /// Reads `https://host/path`, `file:///folder` or the path of a folder.
    fn from_str(text: &str) -> Result<Self, FetchError> {
        let refused = |why: &str| FetchError::new(FetchErrorKind::Denied, text, why);
        let Some((scheme, _)) = text.split_once("://") else {
            return Ok(Self::Folder(PathBuf::from(text)));
        };
        let url = Url::parse(text).map_err(|_| refused("this is no address of a mirror"))?;
        match scheme {
            "http" | "https" if url.query().is_none() && url.fragment().is_none() => {
                Ok(Self::Web(url))
            }
            "file" => url
                .to_file_path()
                .map(Self::Folder)
                .map_err(|()| refused("this is no folder; hint: write file:///folder")),
            _ => Err(refused(
                "this is no address of a mirror; hint: give http(s)://host/path without a query, \
                 file:///folder, or a path",
            )),
        }
    }
}

impl Mirror {
    /// Whether it is on this machine, where no proxy is wanted.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Folder(_) => true,
            Self::Web(url) => match url.host() {
                Some(Host::Domain(name)) => name == "localhost",
                Some(Host::Ipv4(address)) => address.is_loopback(),
                Some(Host::Ipv6(address)) => address.is_loopback(),
                None => false,
            },
        }
    }
}

impl Place {
    /// The document with this path under a mirror; without one, at `url`. Neither side of a path
    /// leads out of the mirror: that is for the parsers of lists to see to.
    #[must_use]
    pub fn of(mirror: Option<&Mirror>, path: &str, url: &str) -> Self {
        match mirror {
            None => Self::Url(url.to_owned()),
            Some(Mirror::Folder(folder)) => Self::File(folder.join(Path::new(path))),
            Some(Mirror::Web(base)) => Self::Url(below(base.clone(), path)),
        }
    }

    /// The document with this path below a base address.
    pub(crate) fn below(base: &str, path: &str) -> Self {
        Self::Url(
            Url::parse(base).map_or_else(|_| format!("{base}/{path}"), |base| below(base, path)),
        )
    }
}

/// A path may hold anything, such as the space of `Rocky Linux`.
fn below(mut base: Url, path: &str) -> String {
    if let Ok(mut segments) = base.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/'));
    }
    base.into()
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&super::error::without_credentials(url)),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mirror, Place};

    #[test]
    fn a_mirror_has_each_feed_in_a_folder() {
        let own = "https://own/x.json";
        for (mirror, path, place) in [
            (None, "debian/x.json", "https://own/x.json"),
            (Some("https://m/feeds/"), "debian/x.json", "https://m/feeds/debian/x.json"),
            (Some("http://u:p@m"), "osv/Go/a?b#c.json", "http://m/osv/Go/a%3Fb%23c.json"),
            (
                Some("https://m/f"),
                "osv/Rocky Linux/all.zip",
                "https://m/f/osv/Rocky%20Linux/all.zip",
            ),
            (Some("file:///srv/my%20feeds"), "osv/Go/all.zip", "/srv/my feeds/osv/Go/all.zip"),
            (Some("/srv/feeds"), "osv/Rocky Linux/all.zip", "/srv/feeds/osv/Rocky Linux/all.zip"),
        ] {
            let mirror: Option<Mirror> = mirror.map(|mirror| mirror.parse().unwrap());
            assert_eq!(Place::of(mirror.as_ref(), path, own).to_string(), place);
        }
    }

    #[test]
    fn other_things_are_no_mirrors() {
        for text in ["ftp://m/x", "https://", "https://m/?token=x", "file://host/x", "http://a b"] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
        let local = |text: &str| text.parse::<Mirror>().unwrap().is_local();
        assert!(local("http://127.0.0.1:1/x") && local("http://[::1]/") && local("/x"));
        assert!(!local("http://example.org"));
    }
}
