//! What a report is grouped by: the packages of the distribution, then each language; a file that
//! states several packages (a program, an archive, a lockfile) is a group of its own.

use std::collections::BTreeMap;

use kuboard_vuln::{Ecosystem, Finding, Report, Suppressed};

/// A group.
pub(super) struct Target<'a> {
    /// The kind of its packages.
    pub ecosystem: Ecosystem,
    /// The file, or empty.
    pub path: &'a str,
    /// How many packages it has.
    pub packages: usize,
    /// Its findings, in the report's order.
    pub findings: Vec<&'a Finding>,
    /// What does not count.
    pub suppressed: Vec<&'a Suppressed>,
}

impl Target<'_> {
    /// `debian 12 packages`, `Go, usr/bin/app`; not yet safe to show.
    pub(super) fn title(&self, report: &Report) -> String {
        if self.ecosystem.is_os() {
            return match &report.distribution {
                Some(distribution) if !distribution.id.is_empty() => {
                    let version = distribution.version_id.as_str();
                    let name = format!("{} {version}", distribution.id);
                    format!("{} ({})", name.trim_end(), self.ecosystem.as_str())
                }
                _ => format!("operating system ({})", self.ecosystem.as_str()),
            };
        }
        let language = language(self.ecosystem);
        if self.path.is_empty() {
            language.to_owned()
        } else {
            format!("{language} in {}", self.path)
        }
    }
}

/// The name that people know a kind of package by.
pub(super) const fn language(ecosystem: Ecosystem) -> &'static str {
    match ecosystem {
        Ecosystem::Deb => "Debian packages",
        Ecosystem::Apk => "Alpine packages",
        Ecosystem::Rpm => "RPM packages",
        Ecosystem::Golang => "Go",
        Ecosystem::Cargo => "Rust",
        Ecosystem::Pypi => "Python",
        Ecosystem::Npm => "Node.js",
        Ecosystem::Maven => "Java",
        Ecosystem::Gem => "Ruby",
        Ecosystem::Nuget => ".NET",
        Ecosystem::Composer => "PHP",
        Ecosystem::Cran => "R",
    }
}

/// The groups of a report, in order.
pub(super) fn of(report: &Report) -> Vec<Target<'_>> {
    let mut groups = Groups::default();
    for placed in &report.packages {
        *groups.stated.entry((placed.package.ecosystem, &placed.path)).or_default() += 1;
    }
    for placed in &report.packages {
        groups.at(placed.package.ecosystem, &placed.path).packages += 1;
    }
    for finding in &report.findings {
        groups.at(finding.package.ecosystem, &finding.path).findings.push(finding);
    }
    for one in &report.suppressed {
        let finding = &one.finding;
        groups.at(finding.package.ecosystem, &finding.path).suppressed.push(one);
    }
    groups.targets.into_values().collect()
}

#[derive(Default)]
struct Groups<'a> {
    /// How many packages a file states.
    stated: BTreeMap<(Ecosystem, &'a str), usize>,
    /// In the order in which they are shown.
    targets: BTreeMap<(bool, Ecosystem, &'a str), Target<'a>>,
}

impl<'a> Groups<'a> {
    fn at(&mut self, ecosystem: Ecosystem, path: &'a str) -> &mut Target<'a> {
        let several = self.stated.get(&(ecosystem, path)).is_some_and(|count| *count > 1);
        let path = if several && !ecosystem.is_os() { path } else { "" };
        self.targets.entry((!ecosystem.is_os(), ecosystem, path)).or_insert(Target {
            ecosystem,
            path,
            packages: 0,
            findings: Vec::new(),
            suppressed: Vec::new(),
        })
    }
}
