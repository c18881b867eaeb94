//! The addresses of a cluster with a node: one range for its pods, one for its Services, and the
//! first of the Services as an address of the machine, so that pods reach the API server on it.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::files::random;
use crate::tool;

/// What the labels of our addresses start with; the id of the process that added it follows.
const LABEL: &str = "lo:kb";

/// Ranges that no other cluster on the machine has. Dropping the value gives them back.
pub(super) struct Network {
    ranges: Ranges,
}

/// The ranges of a number below 1024.
#[derive(Clone, Copy)]
pub(super) struct Ranges(u16);

impl Network {
    /// Takes ranges that are free: the kernel refuses an address that it has. It needs root.
    pub(super) fn reserve() -> Result<Network> {
        sweep()?;
        let label = format!("{LABEL}{}", std::process::id());
        let mut refused = None;
        for _ in 0..20 {
            let ranges = Ranges(u16::from_be_bytes(random()?) % 1024);
            match ip(&["address", "add", &ranges.address(), "dev", "lo", "label", &label]) {
                Ok(_) => return Ok(Network { ranges }),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(()), Err).context("hint: a node needs root")?;
        bail!("no addresses are free")
    }

    pub(super) fn ranges(&self) -> Ranges {
        self.ranges
    }
}

impl Ranges {
    /// Those of a cluster without a node: its Services lead nowhere.
    pub(super) const NOWHERE: Ranges = Ranges(0);

    /// The range of the pods, of the space that is set aside for tests (RFC 2544).
    pub(super) fn pods(self) -> String {
        let n = self.0;
        format!("198.{}.{}.{}/25", 18 + n / 512, n / 2 % 256, n % 2 * 128)
    }

    /// The range of the Services, of the space that carriers share (RFC 6598).
    pub(super) fn services(self) -> String {
        format!("100.{}.{}.0/24", 64 + self.0 / 256, self.0 % 256)
    }

    /// The first address of it, which every cluster gives to the API server's own Service.
    pub(super) fn first_service(self) -> String {
        format!("100.{}.{}.1", 64 + self.0 / 256, self.0 % 256)
    }

    fn address(self) -> String {
        format!("{}/32", self.first_service())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // One that stays is swept by a later test.
        let _ = ip(&["address", "del", &self.ranges.address(), "dev", "lo"]);
    }
}

/// Removes the addresses of processes that are gone.
fn sweep() -> Result<()> {
    let listed = ip(&["-4", "-oneline", "address", "show", "dev", "lo"])?;
    for (address, maker) in labelled(&listed) {
        if !Path::new("/proc").join(maker).exists() {
            // Another test may have done so just now.
            let _ = ip(&["address", "del", address, "dev", "lo"]);
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<String> {
    tool::output(tool::command("ip")?.args(arguments))
}

/// Address and maker of each of ours among the lines of `ip -oneline address`.
fn labelled(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.by_ref().skip_while(|word| *word != "inet").nth(1)?;
            let label = words.find_map(|word| word.strip_prefix(LABEL))?;
            Some((address, label.trim_end_matches('\\')))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Ranges, labelled};
    use std::collections::BTreeSet;

    #[test]
    fn the_ranges_of_1024_clusters_differ() {
        let check = |range: fn(Ranges) -> String, first: &str, last: &str| {
            let of = |number| range(Ranges(number));
            let all: BTreeSet<String> = (0..1024).map(of).collect();
            assert_eq!((all.len(), of(0), of(1023)), (1024, first.to_owned(), last.to_owned()));
        };
        check(Ranges::pods, "198.18.0.0/25", "198.19.255.128/25");
        check(Ranges::services, "100.64.0.0/24", "100.67.255.0/24");
        check(Ranges::first_service, "100.64.0.1", "100.67.255.1");
    }

    #[test]
    fn our_addresses_are_told_by_their_labels() {
        let text = "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n\
            1: lo    inet 100.64.3.1/32 scope global lo:kb4711\\       valid_lft forever\n";
        assert_eq!(labelled(text), [("100.64.3.1/32", "4711")]);
    }
}
