//! Which registry a request means: the one pure function between a request's names and a rule.

use std::collections::HashMap;

use kuboard_oci::RepositoryName;

use crate::config::Config;
use crate::error::ConfigError;
use crate::upstream::{UpstreamRule, covers, normalised, without_port};

/// What a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A repository of an upstream.
    Upstream {
        /// Index into [`Rules::upstreams`].
        rule: usize,
        /// The registry's name: the rule's, or the member's of a family.
        registry: String,
        /// The repository as the upstream spells it.
        repository: RepositoryName,
    },
    /// A repository of this registry; if it is not there, the fallback may have it.
    Hosted {
        /// The repository as the request spells it.
        repository: RepositoryName,
        /// The default upstream's view of the same name.
        fallback: Option<Fallback>,
    },
    /// The request names a registry that no rule knows. It is answered with 404 and never dialled.
    UnknownNamespace {
        /// The name, cut to 255 characters.
        name: String,
    },
}

/// A repository of the default upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Index into [`Rules::upstreams`].
    pub rule: usize,
    /// The registry's name.
    pub registry: String,
    /// The repository as the upstream spells it.
    pub repository: RepositoryName,
}

/// The upstream rules, ready for lookups.
#[derive(Clone, Debug)]
pub struct Rules {
    upstreams: Vec<UpstreamRule>,
    /// Names and aliases.
    names: HashMap<String, usize>,
    hosts: HashMap<String, usize>,
    /// Names and aliases with `*` labels, those with the most fixed labels first.
    families: Vec<(String, usize)>,
    default: Option<usize>,
    /// The name of this registry itself, from `server.externalUrl`.
    own: Option<String>,
}

impl Rules {
    /// The rules of a configuration; fails as [`Config::upstreams`] does.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let upstreams = config.upstreams()?;
        let mut names = HashMap::new();
        let mut hosts = HashMap::new();
        let mut families = Vec::new();
        for (index, rule) in upstreams.iter().enumerate() {
            for name in rule.aliases.iter().chain([&rule.name]) {
                if name.contains('*') {
                    families.push((name.clone(), index));
                } else {
                    names.insert(name.clone(), index);
                }
            }
            hosts.extend(rule.hosts.iter().map(|host| (host.clone(), index)));
        }
        families.sort_by_key(|(pattern, _)| {
            std::cmp::Reverse(pattern.split('.').filter(|label| *label != "*").count())
        });
        let default = upstreams.iter().position(|rule| rule.default_upstream);
        let own = config.server.external_url.as_ref().and_then(|url| {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            normalised(&format!("{}{port}", url.host_str()?))
        });
        Ok(Self { upstreams, names, hosts, families, default, own })
    }

    /// Every rule; [`Target`] names them by index.
    pub fn upstreams(&self) -> &[UpstreamRule] {
        &self.upstreams
    }

    /// The rule of an index that [`Rules::target`] gave.
    pub fn get(&self, rule: usize) -> Option<&UpstreamRule> {
        self.upstreams.get(rule)
    }

    /// The rule that knows a registry by this name, and the registry's one name.
    pub fn find(&self, name: &str) -> Option<(usize, String)> {
        let name = normalised(name)?;
        if let Some(index) = self.names.get(&name) {
            return Some((*index, self.upstreams.get(*index)?.name.clone()));
        }
        let covering = self.families.iter().filter(|(pattern, _)| covers(pattern, &name));
        let (index, rule) =
            covering.filter_map(|(_, index)| Some((*index, self.upstreams.get(*index)?))).next()?;
        let registry = if rule.is_family() { name } else { rule.name.clone() };
        (!rule.endpoints(&registry).is_empty()).then_some((index, registry))
    }

    /// What a request means, decided in this order:
    ///
    /// 1. `ns`, the query parameter by which containerd names the registry of an image. It is a
    ///    key, never an address: what no rule knows is [`Target::UnknownNamespace`].
    /// 2. `host`, the `Host` header, where a rule claims it with `hosts`.
    /// 3. The first component of the path, if a rule knows it. If none does and it looks like a
    ///    host (a dot, a colon, `localhost`), it is unknown.
    /// 4. This registry's own repositories, with the default upstream behind them.
    pub fn target(&self, ns: Option<&str>, host: Option<&str>, path: &RepositoryName) -> Target {
        if let Some(ns) = ns.filter(|ns| !ns.is_empty())
            && !self.is_own(ns)
        {
            return match self.find(ns).or_else(|| self.claimed(ns)) {
                Some(found) => self.upstream(found, path.as_str()),
                None => unknown(ns),
            };
        }
        if let Some(found) = host.and_then(|host| self.claimed(host)) {
            return self.upstream(found, path.as_str());
        }
        let (first, rest) = path.as_str().split_once('/').unwrap_or((path.as_str(), ""));
        let is_host = first.contains(['.', ':']) || first == "localhost";
        match self.find(first) {
            Some(found) if !rest.is_empty() => self.upstream(found, rest),
            // The name of a registry alone is no repository of anybody.
            Some(_) => unknown(first),
            None if is_host => unknown(first),
            None => Target::Hosted { repository: path.clone(), fallback: self.fallback(path) },
        }
    }

    fn is_own(&self, name: &str) -> bool {
        let name = normalised(name);
        name.is_some() && name == self.own
    }

    /// The rule that claims a `Host` header.
    fn claimed(&self, host: &str) -> Option<(usize, String)> {
        let host = normalised(host)?;
        let index = *self.hosts.get(without_port(&host))?;
        Some((index, self.upstreams.get(index)?.name.clone()))
    }

    fn upstream(&self, (rule, registry): (usize, String), repository: &str) -> Target {
        let spelled = self.get(rule).and_then(|rule| rule.spelling(repository).parse().ok());
        match spelled {
            Some(repository) => Target::Upstream { rule, registry, repository },
            // `library/` made the name longer than a name may be: no such repository exists.
            None => unknown(&registry),
        }
    }

    fn fallback(&self, path: &RepositoryName) -> Option<Fallback> {
        let rule = self.default?;
        let upstream = self.get(rule)?;
        let repository = upstream.spelling(path.as_str()).parse().ok()?;
        Some(Fallback { rule, registry: upstream.name.clone(), repository })
    }
}

fn unknown(name: &str) -> Target {
    Target::UnknownNamespace { name: name.chars().take(255).collect() }
}
