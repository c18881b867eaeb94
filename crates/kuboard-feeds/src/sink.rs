//! Where parsers put what they read.

use kuboard_vuln::{Advisory, Epss, SeverityScore};

/// Takes the values of one source, one by one, so that no feed is ever held whole. An
/// implementation may be called from one thread at a time.
pub trait Sink {
    /// An advisory. A later one with the same (source, id) replaces the earlier.
    fn advisory(&mut self, advisory: Advisory);
    /// What a rater (NVD) says of a CVE.
    fn score(&mut self, cve: &str, score: SeverityScore);
    /// EPSS of a CVE.
    fn epss(&mut self, cve: &str, epss: Epss);
    /// A CVE is known to be exploited, listed on that day (`YYYY-MM-DD`).
    fn known_exploited(&mut self, cve: &str, listed: &str);
    /// The last day (`YYYY-MM-DD`) on which a distribution release (a namespace) gets security
    /// fixes without an extra contract.
    fn end_of_life(&mut self, namespace: &str, day: &str);
    /// A CVE of a source is gone (deleted, rejected): nothing of that (source, id) may stay.
    fn retract(&mut self, source: &str, id: &str);
}
