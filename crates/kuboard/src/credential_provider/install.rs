//! Sets a node up for the credential provider: the program where kubelet looks for it, and the
//! provider in kubelet's CredentialProviderConfig, beside those of others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::protocol::{CacheKey, VERSION};

/// Name of the program in kubelet's folder, which is the provider's name in its configuration.
const NAME: &str = "kuboard";
const KIND: &str = "CredentialProviderConfig";

/// What kubelet should use the provider for.
pub(super) struct Wanted<'a> {
    pub(super) match_images: &'a [String],
    pub(super) audience: &'a str,
    pub(super) cache_key: CacheKey,
    pub(super) docker_config: Option<&'a Path>,
}

/// Sets the node up; says what is left to do.
pub(super) fn install(folder: &Path, config: &Path, wanted: &Wanted<'_>) -> anyhow::Result<String> {
    for pattern in wanted.match_images {
        if kuboard_operator::credentials::Key::parse(pattern).is_none() {
            bail!(
                "{pattern:?} matches no image; hint: write a host, with its port if it has one: \
                 registry.example.com:5000"
            );
        }
    }
    let program = copy_program(folder)?;
    let file = if config.is_dir() { config.join("kuboard.yaml") } else { config.to_owned() };
    let before = match fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", file.display()));
        }
    };
    let text =
        merged(before.as_deref(), provider(wanted)).with_context(|| file.display().to_string())?;
    replace(&file, text.as_bytes(), 0o644)?;
    Ok(format!(
        "installed {} and {}\nnext: start kubelet with --image-credential-provider-bin-dir={} \
         --image-credential-provider-config={}\nand let nodes ask for such tokens, once for the \
         cluster: a ClusterRole with verb request-serviceaccounts-token-audience on resource {} \
         (apiGroups \"\"), bound to the group system:nodes",
        program.display(),
        file.display(),
        folder.display(),
        config.display(),
        wanted.audience
    ))
}

/// The provider as the configuration spells it.
fn provider(wanted: &Wanted<'_>) -> Value {
    let mut args = vec!["credential-provider".to_owned()];
    args.push(format!("--audience={}", wanted.audience));
    args.push(format!("--cache-key={}", wanted.cache_key.as_argument()));
    if wanted.cache_key == CacheKey::Global {
        args.extend(wanted.match_images.iter().map(|image| format!("--match-image={image}")));
    }
    if let Some(file) = wanted.docker_config {
        args.push(format!("--docker-config={}", file.display()));
    }
    json!({
        "name": NAME,
        "apiVersion": VERSION,
        "matchImages": wanted.match_images,
        "defaultCacheDuration": "0s",
        "args": args,
        "tokenAttributes": {
            "serviceAccountTokenAudience": wanted.audience,
            // Kubelet refuses a token as a password under any other.
            "cacheType": "Token",
            "requireServiceAccount": wanted.docker_config.is_none(),
        },
    })
}

/// The configuration with the provider in it, in the place of an older one of that name.
fn merged(before: Option<&str>, provider: Value) -> anyhow::Result<String> {
    let mut config: Value = match before.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => serde_yaml_ng::from_str(text).context("not YAML")?,
        None => json!({
            "apiVersion": "kubelet.config.k8s.io/v1", "kind": KIND, "providers": []
        }),
    };
    if config["kind"] != KIND {
        bail!("not a {KIND}; hint: name the file of kubelet's --image-credential-provider-config");
    }
    let Some(providers) = config["providers"].as_array_mut() else {
        bail!("its providers are not a list");
    };
    match providers.iter_mut().find(|one| one["name"] == NAME) {
        Some(old) => *old = provider,
        None => providers.push(provider),
    }
    if config["apiVersion"] != "kubelet.config.k8s.io/v1" {
        // Only v1 has tokenAttributes; the older versions have no field that v1 has not.
        config["apiVersion"] = json!("kubelet.config.k8s.io/v1");
    }
    Ok(serde_yaml_ng::to_string(&config)?)
}

fn copy_program(folder: &Path) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("the path of this program is not known")?;
    let program = folder.join(NAME);
    fs::create_dir_all(folder)
        .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    let same = |path: &Path| fs::canonicalize(path).ok();
    if same(&own).is_some() && same(&own) == same(&program) {
        return Ok(program);
    }
    let draft = folder.join(format!(".{NAME}.new"));
    let failed = || format!("{} cannot be written", draft.display());
    fs::copy(&own, &draft).with_context(failed)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).with_context(failed)?;
    // A kubelet that runs the old one right now keeps it.
    fs::rename(&draft, &program).with_context(failed)?;
    Ok(program)
}

fn replace(file: &Path, text: &[u8], mode: u32) -> anyhow::Result<()> {
    let failed = || format!("{} cannot be written", file.display());
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    fs::write(&draft, text).with_context(failed)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(mode)).with_context(failed)?;
    fs::rename(&draft, file).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Vec<String> {
        vec!["registry.example.com".to_owned()]
    }

    fn wanted(images: &[String]) -> Wanted<'_> {
        Wanted {
            match_images: images,
            audience: "registry.kuboard.cn",
            cache_key: CacheKey::Registry,
            docker_config: None,
        }
    }

    #[test]
    fn a_new_configuration_is_what_kubelet_asks_for() {
        let text = merged(None, provider(&wanted(&images()))).unwrap();
        let config: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(config["apiVersion"], "kubelet.config.k8s.io/v1");
        assert_eq!(config["kind"], "CredentialProviderConfig");
        let provider = &config["providers"][0];
        assert_eq!(provider["name"], "kuboard");
        assert_eq!(provider["matchImages"], json!(["registry.example.com"]));
        assert_eq!(
            provider["tokenAttributes"],
            json!({
                "serviceAccountTokenAudience": "registry.kuboard.cn",
                "cacheType": "Token",
                "requireServiceAccount": true,
            })
        );
        assert_eq!(
            provider["args"],
            json!([
                "credential-provider",
                "--audience=registry.kuboard.cn",
                "--cache-key=registry"
            ])
        );
    }

    #[test]
    fn static_pods_need_no_service_account_and_a_global_answer_its_patterns() {
        let images = images();
        let file = Path::new("/etc/kuboard/config.json");
        let wanted =
            Wanted { docker_config: Some(file), cache_key: CacheKey::Global, ..wanted(&images) };
        let provider = provider(&wanted);
        assert_eq!(provider["tokenAttributes"]["requireServiceAccount"], false);
        let args = provider["args"].to_string();
        assert!(args.contains("--match-image=registry.example.com"), "{args}");
        assert!(args.contains("--docker-config=/etc/kuboard/config.json"), "{args}");
    }

    #[test]
    fn other_providers_stay_and_an_older_one_of_ours_is_replaced() {
        let before = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: CredentialProviderConfig\n\
                      providers:\n- name: ecr-credential-provider\n  matchImages: ['*.aws']\n\
                      - name: kuboard\n  matchImages: [old]\n";
        let text = merged(Some(before), provider(&wanted(&images()))).unwrap();
        let config: Value = serde_yaml_ng::from_str(&text).unwrap();
        let names: Vec<&Value> =
            config["providers"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["ecr-credential-provider", "kuboard"]);
        assert_eq!(config["providers"][1]["matchImages"], json!(["registry.example.com"]));
        assert_eq!(config["apiVersion"], "kubelet.config.k8s.io/v1");
        assert_eq!(merged(Some(&text), provider(&wanted(&images()))).unwrap(), text);
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let check = |text: &str, expected: &str| {
            let error = merged(Some(text), provider(&wanted(&images()))).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        };
        check("kind: KubeletConfiguration", "not a CredentialProviderConfig");
        check("[", "not YAML");
        check("kind: CredentialProviderConfig\nproviders: {}", "not a list");
    }

    #[test]
    fn a_node_is_set_up_twice_with_the_same_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let (bin, config) = (folder.path().join("bin"), folder.path().join("config"));
        fs::create_dir(&config).unwrap();
        let images = images();
        for _ in 0..2 {
            let said = install(&bin, &config, &wanted(&images)).unwrap();
            assert!(said.contains("request-serviceaccounts-token-audience"), "{said}");
            let mode = fs::metadata(bin.join("kuboard")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
            assert!(config.join("kuboard.yaml").exists());
        }
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 1, "no drafts stay");
        let bad = ["a b".to_owned()];
        assert!(install(&bin, &config, &wanted(&bad)).is_err());
    }
}
