//! The fast path: which rows hit one package. No allocation per lookup, keys compared as bytes;
//! re-matching all inventories after an update is nothing but this.

use std::ops::ControlFlow;

use crate::lookup::{Advisories, Row, Until, is_of_module, name_key};
use crate::{Conditions, Ecosystem, Package, Status, version};

/// Room for the keys of one package's versions, used again for the next. One for each thread.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    own: Vec<u8>,
    source: Vec<u8>,
}

/// A row that hits a package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit<'a> {
    /// Number of the advisory.
    pub advisory: u32,
    /// What its source decided; `NotAffected` rows are hits too, for they silence others.
    pub status: Status,
    /// The row compares the source package's version.
    pub by_source: bool,
    /// The version that fixes it, or empty.
    pub fixed_in: &'a str,
    /// Severities for this package are in there.
    pub conditions: Option<Conditions<'a>>,
}

/// Whether the versions of a package could be compared with its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// All rows were compared, or there are none.
    All,
    /// The scheme refuses the version: only rows for all versions, and those that name this very
    /// text, could be compared.
    VersionRefused,
    /// The package states no version that could be compared (`(devel)`), or no whole name: it
    /// matches nothing.
    Unversioned,
}

/// Visits every row of `namespace` that hits `package`: of a distribution's package by the names
/// of its source package and its own, of a language's by its name.
pub fn match_package(
    package: &Package,
    namespace: &str,
    db: &dyn Advisories,
    buffers: &mut Buffers,
    visit: &mut dyn FnMut(Hit<'_>),
) -> Compared {
    if !is_comparable(package) {
        return Compared::Unversioned;
    }
    let mut job = Job::new(package, namespace, db, buffers);
    if !package.ecosystem.is_os() {
        let name = name_key(package.ecosystem, &package.name);
        job.lookup(&name, Names::Own, visit);
        if package.ecosystem == Ecosystem::Golang
            && package.name == "stdlib"
            && package.role.as_deref() == Some("toolchain")
        {
            // A whole Go installation: the `go` command has advisories of its own.
            job.lookup("toolchain", Names::Own, visit);
        }
        return job.compared();
    }
    let (source, _) = package.source_or_self();
    if source == package.name {
        job.lookup(source, Names::Both, visit);
    } else {
        job.lookup(source, Names::Source, visit);
        job.lookup(&package.name, Names::Own, visit);
    }
    job.compared()
}

/// A Java artifact without its group is not guessed at; a Go module built from a working copy
/// has no version.
fn is_comparable(package: &Package) -> bool {
    match package.ecosystem {
        Ecosystem::Maven if !package.name.contains(':') => false,
        Ecosystem::Golang if package.version == "(devel)" => false,
        _ => !package.version.is_empty() && !package.name.is_empty(),
    }
}

/// As which package a name was looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Source,
    Own,
    Both,
}

/// The version as the scheme reads it: Go's releases are `go1.22.1` in places.
fn version_of(ecosystem: Ecosystem, version: &str) -> &str {
    match ecosystem {
        Ecosystem::Golang => version
            .strip_prefix("go")
            .filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            .unwrap_or(version),
        _ => version,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    NotMade,
    Made,
    Refused,
}

struct Job<'a> {
    package: &'a Package,
    namespace: &'a str,
    db: &'a dyn Advisories,
    buffers: &'a mut Buffers,
    keys: Keys,
    /// Modules of rpm tell packages of one name apart.
    modular: bool,
    of_module: bool,
    /// The source package has the package's version.
    one_key: bool,
    own_version: &'a str,
    source_version: &'a str,
}

impl<'a> Job<'a> {
    fn new(
        package: &'a Package,
        namespace: &'a str,
        db: &'a dyn Advisories,
        buffers: &'a mut Buffers,
    ) -> Self {
        let (_, source_version) = package.source_or_self();
        let modular = has_modules(namespace);
        Self {
            package,
            namespace,
            db,
            buffers,
            keys: Keys::NotMade,
            modular,
            of_module: modular && (package.module.is_some() || is_of_module(&package.version)),
            one_key: source_version == package.version,
            own_version: version_of(package.ecosystem, &package.version),
            source_version: version_of(package.ecosystem, source_version),
        }
    }

    fn compared(&self) -> Compared {
        if self.keys == Keys::Refused { Compared::VersionRefused } else { Compared::All }
    }

    /// Makes the keys when the first row shows up: most packages have none.
    fn make_keys(&mut self) {
        let scheme = self.package.ecosystem.scheme();
        self.buffers.own.clear();
        self.buffers.source.clear();
        self.keys = Keys::Made;
        if version::sort_key(scheme, self.own_version, &mut self.buffers.own).is_err() {
            self.keys = Keys::Refused;
        } else if self.one_key {
            let Buffers { own, source } = &mut *self.buffers;
            source.extend_from_slice(own);
        } else if version::sort_key(scheme, self.source_version, &mut self.buffers.source).is_err()
        {
            self.keys = Keys::Refused;
        }
    }

    fn lookup(&mut self, name: &str, names: Names, visit: &mut dyn FnMut(Hit<'_>)) {
        let db = self.db;
        db.rows(self.namespace, name, &mut |row| {
            if self.keys == Keys::NotMade {
                self.make_keys();
            }
            self.row(&row, names, visit)
        });
    }

    fn row(&self, row: &Row<'_>, names: Names, visit: &mut dyn FnMut(Hit<'_>)) -> ControlFlow<()> {
        let is_wanted = match names {
            Names::Both => true,
            Names::Source => row.by_source,
            Names::Own => !row.by_source,
        };
        let holds = match (row.until.bound(), self.keys) {
            (Some(bound), Keys::Made) => {
                let key = self.key(row.by_source);
                let order = bound.cmp(key);
                // Bounds come from the greatest down: no row that follows can hold, unless it
                // compares the other, lower version.
                if order.is_lt() && (self.one_key || (is_wanted && names != Names::Both)) {
                    return ControlFlow::Break(());
                }
                let below = order.is_gt() || (order.is_eq() && is_through(row.until));
                below && (row.from.is_empty() || key >= row.from)
            }
            _ => self.holds_unbounded(row),
        };
        if is_wanted && holds && self.applies(row) {
            visit(Hit {
                advisory: row.advisory,
                status: row.status,
                by_source: row.by_source,
                fixed_in: row.fixed_in,
                conditions: row.conditions,
            });
        }
        ControlFlow::Continue(())
    }

    fn key(&self, by_source: bool) -> &[u8] {
        if by_source { &self.buffers.source } else { &self.buffers.own }
    }

    fn holds_unbounded(&self, row: &Row<'_>) -> bool {
        match row.until {
            Until::Text(version) => {
                version == if row.by_source { self.source_version } else { self.own_version }
            }
            Until::Open if row.from.is_empty() => true,
            _ => {
                let key = self.key(row.by_source);
                self.keys == Keys::Made && key >= row.from && row.until.holds(key)
            }
        }
    }

    /// Architectures, module and repositories.
    fn applies(&self, row: &Row<'_>) -> bool {
        if self.modular && !self.module_applies(row) {
            return false;
        }
        let Some(conditions) = row.conditions else { return true };
        arch_applies(conditions, self.package)
            && (self.modular || module_is(conditions.module(), self.package))
            && repository_applies(conditions, self.package)
    }

    /// In distributions with modules a stream's packages have their own advisories. Feeds that do
    /// not name the stream (AlmaLinux) still show it in the release of the fix: `.module_el8`.
    fn module_applies(&self, row: &Row<'_>) -> bool {
        let module = row.conditions.map_or("", Conditions::module);
        if module.is_empty() {
            let unknown_fix = row.fixed_in.is_empty() && row.status == Status::NotAffected;
            return unknown_fix || row.of_module == self.of_module;
        }
        module_is(module, self.package)
    }
}

fn is_through(until: Until<'_>) -> bool {
    matches!(until, Until::Through(_))
}

fn module_is(module: &str, package: &Package) -> bool {
    module.is_empty()
        || package.module.as_deref().is_some_and(|found| {
            // Labels may go on with version and context: `nodejs:18:8090…:rhel9`.
            found == module || found.strip_prefix(module).is_some_and(|rest| rest.starts_with(':'))
        })
}

fn has_modules(namespace: &str) -> bool {
    ["rhel:", "alma:", "rocky:", "oracle:"].iter().any(|family| namespace.starts_with(family))
}

fn arch_applies(conditions: Conditions<'_>, package: &Package) -> bool {
    let Some(arch) = package.arch.as_deref() else { return true };
    let mut arches = conditions.arches().peekable();
    arches.peek().is_none() || arches.any(|one| one == arch)
}

/// Red Hat: an advisory for a repository holds for packages of images that use it, where the
/// image says which it uses. A CPE of the advisory is a prefix, its trailing wildcards aside.
fn repository_applies(conditions: Conditions<'_>, package: &Package) -> bool {
    let mut wanted = conditions.repositories().peekable();
    let known = || package.repositories.iter().filter(|one| one.starts_with("cpe:"));
    if wanted.peek().is_none() || known().next().is_none() {
        return true;
    }
    wanted.any(|pattern| {
        let prefix = pattern.trim_end_matches([':', '*']);
        known().any(|cpe| {
            cpe.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
    })
}
