//! Upstream rules: the built-in ones, changed field by field by the configuration's, and the
//! configuration's own.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::built_in::{BUILT_IN, BuiltIn};
use crate::config::{Config, CredentialKind, Credentials, Defaults, Mirrors, Upstream, Visibility};
use crate::error::{ConfigError, Problem};
use crate::globs::Globs;
use crate::text::EndpointUrl;

/// Where an upstream is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Base URL, without `/v2/`.
    pub url: Url,
    /// True for a public mirror of the built-in lists: credentials must not go there.
    pub mirror: bool,
}

/// What an upstream is asked with; secrets are named by file, never held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamCredentials {
    /// Anonymously.
    None,
    /// A user and the file with its password.
    Basic {
        /// User name.
        user: String,
        /// File whose text, without the line end, is the password.
        password_file: PathBuf,
    },
    /// A docker `config.json`.
    DockerConfig(PathBuf),
    /// Tokens of the AWS registry.
    Ecr,
}

/// All that is decided about one upstream, or about one family of upstreams.
#[derive(Clone, Debug)]
pub struct UpstreamRule {
    /// The registry's canonical name, lower case, with `*` labels for a family.
    pub name: String,
    /// Other names that mean it.
    pub aliases: Vec<String>,
    /// `Host` headers that mean it, without port.
    pub hosts: Vec<String>,
    /// Repositories that may be pulled; empty means all.
    pub allow: Globs,
    /// Repositories that may not be pulled.
    pub deny: Globs,
    /// How long a tag is fresh.
    pub tag_ttl: Duration,
    /// How long beyond that a tag is answered while it is checked in the background.
    pub max_stale: Duration,
    /// How long a 404 is remembered.
    pub negative_ttl: Duration,
    /// Tags that never change.
    pub immutable_tags: Globs,
    /// Requests at a time; at least 1.
    pub concurrency: usize,
    /// Bound on reaching an endpoint.
    pub connect_timeout: Duration,
    /// Bound on silence of an endpoint.
    pub read_timeout: Duration,
    /// Who may read what is cached.
    pub visibility: Visibility,
    /// What it is asked with.
    pub credentials: UpstreamCredentials,
    /// Hosts outside the upstream's domain whose token service may get its credentials.
    pub trusted_realms: Vec<String>,
    /// Authority of its certificate.
    pub ca_file: Option<PathBuf>,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
    /// Asked for names without a registry that are not hosted.
    pub default_upstream: bool,
    /// Names of one component stand in `library/`.
    pub library_prefix: bool,
    /// Known without configuration.
    pub built_in: bool,
    endpoints: Vec<(EndpointUrl, bool)>,
}

impl UpstreamRule {
    /// Where to ask for a registry of this rule, in order, mirrors first. `registry` is the name
    /// that [`crate::Rules`] resolved, which differs from [`UpstreamRule::name`] for a family.
    pub fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        self.endpoints
            .iter()
            .filter_map(|(url, mirror)| Some(Endpoint { url: url.url(registry)?, mirror: *mirror }))
            .collect()
    }

    /// True if a repository, as the upstream spells it, may be pulled.
    pub fn admits(&self, repository: &str) -> bool {
        (self.allow.is_empty() || self.allow.matches(repository)) && !self.deny.matches(repository)
    }

    /// True if a tag never changes once it was seen.
    pub fn is_immutable(&self, tag: &str) -> bool {
        self.immutable_tags.matches(tag)
    }

    /// True if the rule covers many registries.
    pub fn is_family(&self) -> bool {
        self.name.contains('*')
    }

    /// A repository as the upstream spells it: docker.io's `alpine` is `library/alpine`.
    pub(crate) fn spelling(&self, repository: &str) -> String {
        if self.library_prefix && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        }
    }
}

impl Config {
    /// The upstream rules that follow from this configuration: the built-in ones in their order,
    /// then the file's own in theirs.
    ///
    /// # Errors
    /// Rules that contradict each other or are not what they should be. [`Config::parse`] has
    /// refused them already; only a configuration made by code can fail here.
    pub fn upstreams(&self) -> Result<Vec<UpstreamRule>, ConfigError> {
        let (rules, problems) = self.resolve();
        if problems.is_empty() { Ok(rules) } else { Err(self.origin.error(problems)) }
    }

    pub(crate) fn resolve(&self) -> (Vec<UpstreamRule>, Vec<Problem>) {
        let mut resolving = Resolving { defaults: &self.defaults, problems: Vec::new() };
        let mut entries: Vec<(usize, &Upstream, String)> = Vec::new();
        for (index, entry) in self.upstream.iter().enumerate() {
            match registry_name(&entry.name) {
                Ok(name) => entries.push((index, entry, name)),
                Err(problem) => {
                    let key = if entry.name.is_empty() { "" } else { ".name" };
                    let key = format!("upstream[{index}]{key}");
                    resolving.problems.push(Problem { key, ..problem });
                }
            }
        }
        let mut rules = Vec::new();
        let mut sources = Vec::new();
        for base in BUILT_IN {
            let is_this = |name: &str| base.name == name || base.aliases.contains(&name);
            let mut named = entries.iter().filter(|(_, _, name)| is_this(name));
            let entry = named.next();
            for (index, ..) in named {
                resolving.twice(*index, base.name);
            }
            if entry.is_some() || self.defaults.built_in_upstreams {
                sources.push(entry.map(|(index, ..)| *index));
                rules.push(resolving.rule(
                    Some(base),
                    entry.map(|(index, entry, _)| (*index, *entry)),
                    base.name,
                ));
            }
        }
        for (index, entry, name) in &entries {
            let is_built_in =
                |base: &BuiltIn| base.name == name || base.aliases.contains(&name.as_str());
            if BUILT_IN.iter().any(is_built_in) {
                continue;
            }
            if rules.iter().any(|rule: &UpstreamRule| rule.name == *name) {
                resolving.twice(*index, name);
                continue;
            }
            sources.push(Some(*index));
            rules.push(resolving.rule(None, Some((*index, entry)), name));
        }
        resolving.contradictions(&rules, &sources);
        (rules, resolving.problems)
    }
}

struct Resolving<'c> {
    defaults: &'c Defaults,
    problems: Vec<Problem>,
}

impl Resolving<'_> {
    fn twice(&mut self, index: usize, name: &str) {
        self.problems.push(
            Problem::at(
                format!("upstream[{index}].name"),
                format!("a second [[upstream]] for \"{name}\""),
            )
            .hint("put the keys of both into one [[upstream]]"),
        );
    }

    /// One rule out of what is built in and what the configuration says, which wins.
    fn rule(
        &mut self,
        base: Option<&BuiltIn>,
        entry: Option<(usize, &Upstream)>,
        name: &str,
    ) -> UpstreamRule {
        let unset = Upstream::default();
        let (index, said) = entry.unwrap_or((0, &unset));
        let defaults = self.defaults;
        let built_in_aliases = || base.map_or(Vec::new(), |base| owned(base.aliases));
        let aliases = said.aliases.clone().unwrap_or_else(built_in_aliases);
        UpstreamRule {
            name: name.to_owned(),
            aliases: self.names(index, "aliases", &aliases),
            hosts: self.hosts(index, name, said),
            allow: self.globs(index, "allow", said.allow.as_deref()),
            deny: self.globs(index, "deny", said.deny.as_deref()),
            tag_ttl: said.tag_ttl.unwrap_or(defaults.tag_ttl).duration(),
            max_stale: said.max_stale.unwrap_or(defaults.max_stale).duration(),
            negative_ttl: said.negative_ttl.unwrap_or(defaults.negative_ttl).duration(),
            immutable_tags: self.globs(index, "immutableTags", said.immutable_tags.as_deref()),
            concurrency: said.concurrency.unwrap_or(defaults.concurrency),
            connect_timeout: said.connect_timeout.unwrap_or(defaults.connect_timeout).duration(),
            read_timeout: said.read_timeout.unwrap_or(defaults.read_timeout).duration(),
            visibility: said.visibility.unwrap_or(Visibility::Public),
            credentials: self.credentials(index, said.credentials.as_ref()),
            trusted_realms: said.trusted_realms.clone().unwrap_or_default(),
            ca_file: said.ca_file.clone(),
            insecure_skip_verify: said.insecure_skip_verify.unwrap_or(false),
            default_upstream: said.default_upstream.unwrap_or(false),
            library_prefix: base.is_some_and(|base| base.library),
            built_in: base.is_some(),
            endpoints: self.endpoints(index, base, said, name),
        }
    }

    fn endpoints(
        &mut self,
        index: usize,
        base: Option<&BuiltIn>,
        said: &Upstream,
        name: &str,
    ) -> Vec<(EndpointUrl, bool)> {
        if let Some(list) = &said.endpoints {
            if list.is_empty() {
                self.problems.push(
                    Problem::at(
                        format!("upstream[{index}].endpoints"),
                        "an upstream without endpoints",
                    )
                    .hint(format!("remove the key for \"https://{name}\", or name where to ask")),
                );
            }
            return list.iter().map(|url| (url.clone(), false)).collect();
        }
        let profile = said.mirrors.unwrap_or(self.defaults.mirrors);
        let lists = base.map_or(&[][..], |base| base.mirrors);
        let mirrors =
            lists.iter().find(|(of, _)| *of == profile).map_or(&[][..], |(_, list)| *list);
        if mirrors.is_empty() && said.mirrors.is_some_and(|said| said != Mirrors::None) {
            self.problems.push(
                Problem::at(
                    format!("upstream[{index}].mirrors"),
                    format!("no \"{profile}\" mirror of \"{name}\" is known"),
                )
                .hint("name the mirrors yourself: endpoints = [\"https://mirror…\", \"https://registry…\"]"),
            );
        }
        let family = name.contains('*');
        let own = match base.and_then(|base| base.endpoint) {
            Some(endpoint) => endpoint.to_owned(),
            None if family => "https://{host}".to_owned(),
            None => format!("https://{name}"),
        };
        let mut endpoints = Vec::new();
        for (text, mirror) in mirrors.iter().map(|url| (*url, true)).chain([(own.as_str(), false)])
        {
            match text.parse() {
                Ok(url) => endpoints.push((url, mirror)),
                Err(fault) => {
                    self.problems.push(Problem::at(format!("upstream[{index}].name"), fault));
                }
            }
        }
        endpoints
    }

    fn names(&mut self, index: usize, key: &str, names: &[String]) -> Vec<String> {
        let mut good = Vec::new();
        for name in names {
            match registry_name(name) {
                Ok(name) => good.push(name),
                Err(problem) => self
                    .problems
                    .push(Problem { key: format!("upstream[{index}].{key}"), ..problem }),
            }
        }
        good
    }

    fn hosts(&mut self, index: usize, name: &str, said: &Upstream) -> Vec<String> {
        let hosts = said.hosts.as_deref().unwrap_or_default();
        let wild = name.contains('*') && !hosts.is_empty();
        if wild || hosts.iter().any(|host| host.contains('*')) {
            self.problems.push(
                Problem::at(
                    format!("upstream[{index}].hosts"),
                    "a host must mean one registry, not a family",
                )
                .hint(
                    "add an [[upstream]] with the full name of the registry, and give it the hosts",
                ),
            );
        }
        let names = self.names(index, "hosts", hosts);
        names.iter().map(|host| without_port(host).to_owned()).collect()
    }

    fn globs(&mut self, index: usize, key: &str, patterns: Option<&[String]>) -> Globs {
        match Globs::new(patterns.unwrap_or_default()) {
            Ok(globs) => globs,
            Err(fault) => {
                self.problems.push(
                    Problem::at(format!("upstream[{index}].{key}"), fault)
                        .hint("write for example \"library/*\", \"team/**\" or \"v*\""),
                );
                Globs::default()
            }
        }
    }

    fn credentials(&mut self, index: usize, said: Option<&Credentials>) -> UpstreamCredentials {
        let Some(said) = said else { return UpstreamCredentials::None };
        let key = |name: &str| format!("upstream[{index}].credentials.{name}");
        let mut stray = |name: &str, set: bool, kind: CredentialKind| {
            if set && said.kind != kind {
                let message = format!("`{name}` is not read with kind = \"{}\"", said.kind);
                let hint = format!("write kind = \"{kind}\", or remove `{name}`");
                self.problems.push(Problem::at(key(name), message).hint(hint));
            }
        };
        stray("user", said.user.is_some(), CredentialKind::Basic);
        stray("passwordFile", said.password_file.is_some(), CredentialKind::Basic);
        stray("dockerConfig", said.docker_config.is_some(), CredentialKind::DockerConfig);
        match (said.kind, &said.user, &said.password_file, &said.docker_config) {
            (CredentialKind::None, ..) => UpstreamCredentials::None,
            (CredentialKind::Ecr, ..) => UpstreamCredentials::Ecr,
            (CredentialKind::Basic, Some(user), Some(file), _) => {
                UpstreamCredentials::Basic { user: user.clone(), password_file: file.clone() }
            }
            (CredentialKind::DockerConfig, _, _, Some(path)) => {
                UpstreamCredentials::DockerConfig(path.clone())
            }
            (kind, ..) => {
                let needs = match kind {
                    CredentialKind::Basic => "user = \"…\" and passwordFile = \"…\"",
                    _ => "dockerConfig = \"/path/config.json\"",
                };
                self.problems.push(
                    Problem::at(
                        key("kind"),
                        format!("credentials of kind \"{kind}\" are incomplete"),
                    )
                    .hint(format!("add {needs}")),
                );
                UpstreamCredentials::None
            }
        }
    }

    /// What two rules cannot both say. `sources` gives the entry that each rule comes from.
    fn contradictions(&mut self, rules: &[UpstreamRule], sources: &[Option<usize>]) {
        let mut default: Option<&str> = None;
        for (at, rule) in rules.iter().enumerate() {
            // Only an entry of the file can be at fault: the built-in rules agree.
            let index = sources.get(at).copied().flatten().unwrap_or(0);
            let others = || rules.iter().enumerate().filter(|(other, _)| *other != at);
            for alias in &rule.aliases {
                let taken = others().find(|(other, rule)| {
                    rule.name == *alias || (*other < at && rule.aliases.contains(alias))
                });
                if let Some((_, owner)) = taken {
                    let key = format!("upstream[{index}].aliases");
                    self.problems.push(taken_twice(key, alias, &owner.name));
                }
            }
            for host in &rule.hosts {
                if let Some((_, owner)) =
                    others().find(|(other, rule)| *other < at && rule.hosts.contains(host))
                {
                    let key = format!("upstream[{index}].hosts");
                    self.problems.push(taken_twice(key, host, &owner.name));
                }
            }
            if rule.concurrency == 0 {
                let key = format!("upstream[{index}].concurrency");
                self.problems.push(
                    Problem::at(key, "an upstream that may never be asked")
                        .hint("write concurrency = 1 or more"),
                );
            }
            if rule.default_upstream && (rule.is_family() || default.is_some()) {
                let key = format!("upstream[{index}].defaultUpstream");
                let message = match default {
                    Some(first) => format!("\"{first}\" is the default upstream already"),
                    None => "a family of registries cannot be the default upstream".to_owned(),
                };
                self.problems.push(Problem::at(key, message).hint("set it for one registry only"));
            }
            if rule.default_upstream {
                default = Some(&rule.name);
            }
        }
    }
}

fn taken_twice(key: String, name: &str, owner: &str) -> Problem {
    Problem::at(key, format!("\"{name}\" is taken by the upstream \"{owner}\""))
        .hint("a name can mean one upstream only; remove it from one of the two")
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// A host without its port; brackets of an IPv6 address stay.
pub(crate) fn without_port(name: &str) -> &str {
    match name.rfind(':') {
        Some(colon) if !name.ends_with(']') => &name[..colon],
        _ => name,
    }
}

/// A registry's name in its one spelling: lower case, without final dot, without port 443.
/// `None` for what cannot be a name at all.
pub(crate) fn normalised(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let name = lower.strip_suffix(":443").unwrap_or(&lower);
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let good = !name.is_empty() && name.len() <= 255 && name.chars().all(fits);
    good.then(|| name.to_owned())
}

/// Checks a name of the configuration and gives it its one spelling.
fn registry_name(name: &str) -> Result<String, Problem> {
    let bad = |message: String, hint: &str| Err(Problem::at("", message).hint(hint));
    if name.is_empty() {
        return bad("an upstream without a name".to_owned(), "add name = \"registry.example.com\"");
    }
    if name.contains("://") {
        return bad(
            format!("\"{name}\" is a URL, not a name"),
            "write the name as images have it, \"registry.example.com:5000\"; a URL belongs in endpoints",
        );
    }
    if name.contains('/') {
        return bad(
            format!("\"{name}\" holds a path"),
            "write the registry only; repositories belong in allow = [\"team/**\"]",
        );
    }
    let Some(normal) = normalised(&name.replace('*', "wild")) else {
        return bad(format!("\"{name}\" is not a registry's name"), "write host or host:port");
    };
    if !name.contains('*') {
        return Ok(normal);
    }
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_suffix(":443").unwrap_or(&lower);
    let labels: Vec<&str> = without_port(lower).split('.').collect();
    let whole = labels.iter().all(|label| *label == "*" || !label.contains('*'));
    let anchored =
        labels.len() > 2 && labels.iter().rev().take(2).all(|label| !label.contains('*'));
    if !whole || !anchored {
        return bad(
            format!("\"{name}\" would cover registries of strangers"),
            "let * stand for whole labels before a domain: \"*.example.com\", \"registry.*.example.com\"",
        );
    }
    Ok(lower.to_owned())
}

/// True if a family's pattern covers a name: `*` is one label of letters, digits and hyphens.
pub(crate) fn covers(family: &str, name: &str) -> bool {
    let label = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let mut wanted = family.split('.');
    let mut given = name.split('.');
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("*"), Some(part)) if label(part) => {}
            (Some(text), Some(part)) if text == part => {}
            _ => return false,
        }
    }
}

/// The built-in rules as rows for the reference: name, aliases, mirrors by list.
pub(crate) fn built_in_rows() -> impl Iterator<Item = (&'static str, String, String)> {
    BUILT_IN.iter().map(|rule| {
        let mirrors: Vec<String> = rule
            .mirrors
            .iter()
            .map(|(list, urls)| format!("`{list}`: {}", urls.join(", ")))
            .collect();
        let aliases: Vec<String> = rule.aliases.iter().map(|alias| format!("`{alias}`")).collect();
        (rule.name, aliases.join(", "), mirrors.join("; "))
    })
}
