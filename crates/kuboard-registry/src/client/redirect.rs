//! Where a redirect may lead. Pure: it reads addresses and decides.
//!
//! Registries send clients to object stores and CDNs for blobs. Five hops at most; no address
//! twice; never from https to http; never to this machine or its link from elsewhere; and the
//! `Authorization` header ends at the first change of host (CDNs refuse it, strangers keep it).

use url::Url;

use super::boundary::is_local;

const MAX_HOPS: usize = 5;
const MAX_LOCATION: usize = 8 * 1024;

/// The way of one request so far.
#[derive(Debug)]
pub(super) struct Trail {
    visited: Vec<Url>,
    same_host: bool,
}

impl Trail {
    /// Begins at the first address.
    pub(super) fn new(start: Url) -> Trail {
        Trail { visited: vec![start], same_host: true }
    }

    /// Where the request stands.
    pub(super) fn at(&self) -> &Url {
        // Never empty: it begins with one and only grows.
        &self.visited[self.visited.len() - 1]
    }

    /// Whether all hops so far were on the host of the first.
    pub(super) fn is_home(&self) -> bool {
        self.same_host
    }

    /// Follows one `Location`. The error says why not.
    pub(super) fn follow(&mut self, location: &str) -> Result<(), String> {
        if self.visited.len() > MAX_HOPS {
            return Err(format!("more than {MAX_HOPS} redirects"));
        }
        if location.len() > MAX_LOCATION {
            return Err(String::from("a redirect to an address above 8 KiB"));
        }
        let mut next = self
            .at()
            .join(location)
            .map_err(|_| String::from("a redirect to something that is no address"))?;
        next.set_fragment(None);
        let host = next.host_str().unwrap_or_default();
        if !matches!(next.scheme(), "http" | "https") || host.is_empty() {
            return Err(format!("a redirect to the scheme {:?}", next.scheme()));
        }
        if !next.username().is_empty() || next.password().is_some() {
            return Err(format!("a redirect to {host} with a user name in it"));
        }
        if self.at().scheme() == "https" && next.scheme() == "http" {
            return Err(format!("a redirect from https to http at {host}"));
        }
        if is_local(host) && !is_local(self.at().host_str().unwrap_or_default()) {
            return Err(format!("a redirect from outside to the local address {host}"));
        }
        if self.visited.contains(&next) {
            return Err(format!("a redirect loop at {host}"));
        }
        self.same_host = self.same_host && same_origin(self.at(), &next);
        self.visited.push(next);
        Ok(())
    }
}

/// The same server, or its secure side on the default ports.
pub(super) fn same_origin(from: &Url, to: &Url) -> bool {
    let upgrade = (from.scheme(), to.scheme()) == ("http", "https")
        && (from.port(), to.port()) == (None, None);
    from.host_str() == to.host_str()
        && (upgrade
            || (from.scheme() == to.scheme()
                && from.port_or_known_default() == to.port_or_known_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the hops; the outcome is the last address and whether it is still home, or the
    /// refusal.
    #[track_caller]
    fn check(start: &str, hops: &[&str], expected: Result<(&str, bool), &str>) {
        let mut trail = Trail::new(Url::parse(start).unwrap());
        let outcome = hops.iter().try_for_each(|hop| trail.follow(hop));
        match (outcome, expected) {
            (Ok(()), Ok(expected)) => {
                assert_eq!((trail.at().as_str(), trail.is_home()), expected, "{hops:?}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (outcome, _) => panic!("{hops:?}: {outcome:?}, not {expected:?}"),
        }
    }

    #[test]
    fn hops() {
        let start = "https://reg.test/v2/a/blobs/x";
        let cdn = "https://cdn.test/x?sig=1";
        check(start, &[cdn], Ok((cdn, false)));
        check(start, &["/other"], Ok(("https://reg.test/other", true)));
        check(start, &["../y#z"], Ok(("https://reg.test/v2/a/y", true)));
        check(start, &["https://reg.test:8443/x"], Ok(("https://reg.test:8443/x", false)));
        check(start, &[cdn, "https://reg.test/z"], Ok(("https://reg.test/z", false)));
        check("http://reg.test/x", &["https://reg.test/x"], Ok(("https://reg.test/x", true)));
        check("http://reg.test/x", &["http://cdn.test/x"], Ok(("http://cdn.test/x", false)));
        check(
            "http://127.0.0.1:1/x",
            &["http://127.0.0.1:2/y"],
            Ok(("http://127.0.0.1:2/y", false)),
        );
    }

    #[test]
    fn refusals() {
        let start = "https://reg.test/v2/a/blobs/x";
        check(start, &["http://cdn.test/x"], Err("from https to http"));
        check(start, &["https://cdn.test/x", "http://cdn.test/x"], Err("from https to http"));
        check(start, &[start], Err("loop"));
        check(start, &["/a", "/b", "/a"], Err("loop"));
        check(start, &["/1", "/2", "/3", "/4", "/5", "/6"], Err("more than 5"));
        check(start, &["ftp://cdn.test/x"], Err("scheme"));
        check(start, &["file:///etc/passwd"], Err("scheme"));
        check(start, &["https://u:p@cdn.test/x"], Err("user name"));
        check(start, &["https://127.0.0.1/x"], Err("local address"));
        check(start, &["https://169.254.169.254/latest"], Err("local address"));
        check(start, &["https://[::ffff:127.0.0.1]/x"], Err("local address"));
        check(start, &["https://[bad"], Err("no address"));
        check(start, &[&"a".repeat(10_000)], Err("8 KiB"));
    }
}
