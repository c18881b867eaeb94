//! The public registries that are known without configuration, and their public mirrors, as data.
//!
//! A mirror is used only where the configuration names its list: whoever runs it sees what is
//! pulled. What a mirror answers is checked like everything else, so it can withhold, not forge,
//! what is pulled by digest; which digest a tag has, it can choose.

use crate::config::Mirrors;

/// A rule that needs no configuration.
pub(crate) struct BuiltIn {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// Where it is asked, if not at `https://` and its name.
    pub(crate) endpoint: Option<&'static str>,
    /// Names of one component stand in `library/`.
    pub(crate) library: bool,
    pub(crate) mirrors: &'static [(Mirrors, &'static [&'static str])],
}

const fn plain(name: &'static str) -> BuiltIn {
    BuiltIn { name, aliases: &[], endpoint: None, library: false, mirrors: &[] }
}

const fn mirrored(
    name: &'static str,
    mirrors: &'static [(Mirrors, &'static [&'static str])],
) -> BuiltIn {
    BuiltIn { name, aliases: &[], endpoint: None, library: false, mirrors }
}

/// Every built-in rule.
pub(crate) const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "docker.io",
        aliases: &["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"],
        endpoint: Some("https://registry-1.docker.io"),
        library: true,
        mirrors: &[
            (Mirrors::Cn, &["https://docker.m.daocloud.io"]),
            (Mirrors::Google, &["https://mirror.gcr.io"]),
        ],
    },
    mirrored("ghcr.io", &[(Mirrors::Cn, &["https://ghcr.m.daocloud.io"])]),
    mirrored("quay.io", &[(Mirrors::Cn, &["https://quay.m.daocloud.io"])]),
    mirrored("registry.k8s.io", &[(Mirrors::Cn, &["https://k8s.m.daocloud.io"])]),
    mirrored("k8s.gcr.io", &[(Mirrors::Cn, &["https://k8s-gcr.m.daocloud.io"])]),
    mirrored("gcr.io", &[(Mirrors::Cn, &["https://gcr.m.daocloud.io"])]),
    plain("*.gcr.io"),
    plain("*.pkg.dev"),
    mirrored("mcr.microsoft.com", &[(Mirrors::Cn, &["https://mcr.m.daocloud.io"])]),
    plain("public.ecr.aws"),
    plain("*.dkr.ecr.*.amazonaws.com"),
    plain("*.dkr.ecr.*.amazonaws.com.cn"),
    mirrored("docker.elastic.co", &[(Mirrors::Cn, &["https://elastic.m.daocloud.io"])]),
    mirrored("nvcr.io", &[(Mirrors::Cn, &["https://nvcr.m.daocloud.io"])]),
    plain("registry.gitlab.com"),
    plain("registry.access.redhat.com"),
    plain("registry.redhat.io"),
    plain("registry.fedoraproject.org"),
    plain("container-registry.oracle.com"),
    plain("cgr.dev"),
    plain("registry.suse.com"),
    plain("registry.opensuse.org"),
    plain("lscr.io"),
    plain("registry.*.aliyuncs.com"),
    plain("swr.*.myhuaweicloud.com"),
    plain("ccr.ccs.tencentyun.com"),
];
