//! Tables of choices.

use k8s_openapi::ByteString;
use kuboard_api::crd::{
    CredentialProvider, RegistryCredential, RegistryCredentialSpec, SecretReference,
};
use proptest::prelude::*;

use super::*;
use crate::credentials::{Namespaces, PullSecret, ServiceAccountPull};

/// A cluster with one namespace `team`: what its Secrets, service accounts and RegistryCredentials
/// say.
struct Table(Known);

fn table() -> Table {
    Table(Known { synced: true, namespaces: Namespaces::All, ..Known::default() })
}

impl Table {
    /// A Secret whose entries' users are their keys.
    fn secret(self, name: &str, keys: &[&str]) -> Self {
        let auths: serde_json::Map<String, serde_json::Value> = keys
            .iter()
            .map(|key| {
                let entry =
                    serde_json::json!({"username": format!("{name}@{key}"), "password": "p"});
                ((*key).to_owned(), entry)
            })
            .collect();
        self.raw(name, &serde_json::json!({ "auths": auths }).to_string())
    }

    fn raw(mut self, name: &str, text: &str) -> Self {
        let key = ".dockerconfigjson".to_owned();
        let data = [(key, ByteString(text.as_bytes().to_vec()))].into();
        self.0.put_secret("team", name, PullSecret::read("kubernetes.io/dockerconfigjson", &data));
        self
    }

    fn account(mut self, name: &str, secrets: &[&str]) -> Self {
        let image_pull_secrets = secrets.iter().map(|it| (*it).to_owned()).collect();
        self.0.put_account("team", name, ServiceAccountPull { image_pull_secrets });
        self
    }

    fn credential(mut self, at: &str, registries: &[&str], secret: &str, allowed: &[&str]) -> Self {
        let (namespace, name) = at.split_once('/').unwrap();
        let texts = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let aws = CredentialProvider { kind: "Ecr".to_owned(), region: None };
        let mut object = RegistryCredential::new(
            name,
            RegistryCredentialSpec {
                registries: texts(registries),
                secret_ref: (secret != "ecr").then(|| SecretReference { name: secret.to_owned() }),
                provider: (secret == "ecr").then_some(aws),
                allowed_namespaces: texts(allowed),
            },
        );
        object.metadata.namespace = Some(namespace.to_owned());
        self.0.put_credential(object.check().unwrap());
        self
    }

    fn choose(&self, image: &str, secrets: &[&str], exists: bool) -> Choice {
        let secrets: Vec<String> = secrets.iter().map(|it| (*it).to_owned()).collect();
        let pod = PodPull {
            namespace: "team",
            image_pull_secrets: &secrets,
            service_account: "",
            exists,
        };
        choose(&image.parse().unwrap(), &pod, &self.0)
    }

    /// `source: user`, or `anonymous`.
    fn check(&self, image: &str, secrets: &[&str], expected: &str) {
        let choice = self.choose(image, secrets, false);
        let said = match &choice.found {
            None => "anonymous".to_owned(),
            Some(Found { source, credential: None }) => format!("{source}: ecr"),
            Some(Found { source, credential: Some(Credential::Basic { user, .. }) }) => {
                format!("{source}: {user}")
            }
            Some(other) => format!("{other:?}"),
        };
        assert_eq!(said, expected, "{image} with {secrets:?}: {:#?}", choice.why);
    }
}

#[test]
fn the_longest_matching_entry_of_all_secrets_wins() {
    let table = table()
        .secret("wide", &["quay.io", "*.example.com"])
        .secret("deep", &["quay.io/team", "reg.example.com:5000"])
        .secret("hub", &["https://index.docker.io/v1/"])
        .secret("hub2", &["docker.io"]);
    table.check("quay.io/team/app:1", &["wide"], "Secret wide of the pod: wide@quay.io");
    table.check(
        "quay.io/team/app:1",
        &["wide", "deep"],
        "Secret deep of the pod: deep@quay.io/team",
    );
    table.check("quay.io/other/app", &["wide", "deep"], "Secret wide of the pod: wide@quay.io");
    table.check(
        "reg.example.com/app",
        &["wide", "deep"],
        "Secret wide of the pod: wide@*.example.com",
    );
    table.check(
        "reg.example.com:5000/app",
        &["wide", "deep"],
        "Secret deep of the pod: deep@reg.example.com:5000",
    );
    table.check("reg.example.com:5001/app", &["wide", "deep"], "anonymous");
    table.check("alpine", &["wide", "deep"], "anonymous");
    table.check("alpine", &["hub"], "Secret hub of the pod: hub@https://index.docker.io/v1/");
    table.check("alpine", &["hub", "hub2"], "Secret hub2 of the pod: hub2@docker.io");
    table.check(
        "index.docker.io/library/alpine",
        &["hub2"],
        "Secret hub2 of the pod: hub2@docker.io",
    );
}

#[test]
fn of_equal_entries_the_secret_named_first_wins() {
    let table = table().secret("a", &["quay.io"]).secret("b", &["quay.io"]);
    table.check("quay.io/app", &["a", "b"], "Secret a of the pod: a@quay.io");
    table.check("quay.io/app", &["b", "a"], "Secret b of the pod: b@quay.io");
    let choice = table.choose("quay.io/app", &["b", "a"], false);
    assert_eq!(choice.why[1].outcome, Outcome::Next { entry: "quay.io".to_owned() });
}

#[test]
fn the_service_accounts_secrets_are_for_pods_without_their_own() {
    let table = table()
        .secret("own", &["quay.io"])
        .secret("shared", &["quay.io", "ghcr.io"])
        .account("default", &["shared"]);
    let shared = "Secret shared of the service account default";
    table.check("ghcr.io/app", &[], &format!("{shared}: shared@ghcr.io"));
    table.check("quay.io/app", &["own"], "Secret own of the pod: own@quay.io");
    table.check("ghcr.io/app", &["own"], "anonymous");
    let old = table.choose("ghcr.io/app", &[], true);
    assert_eq!(old.found, None);
    assert!(old.why[0].to_string().contains("make the pod anew"), "{}", old.why[0]);
}

#[test]
fn registry_credentials_come_after_what_the_pod_brings() {
    let table = table()
        .secret("own", &["quay.io"])
        .secret("robot", &["quay.io/team", "ghcr.io"])
        .credential("team/mine", &["quay.io", "ghcr.io"], "robot", &[])
        .credential("infra/all", &["*.amazonaws.com", "ghcr.io"], "ecr", &["*"])
        .credential("infra/some", &["harbor.test"], "ecr", &["other"]);
    table.check("quay.io/team/app", &["own"], "Secret own of the pod: own@quay.io");
    table.check("quay.io/team/app", &[], "RegistryCredential team/mine: robot@quay.io/team");
    table.check("ghcr.io/app", &[], "RegistryCredential team/mine: robot@ghcr.io");
    table.check("1.dkr.ecr.eu-west-1.amazonaws.com/a", &[], "RegistryCredential infra/all: ecr");
    table.check("harbor.test/app", &[], "anonymous");
    assert!(!table.choose("ghcr.io/app", &[], false).is_kubelets());
    assert!(table.choose("quay.io/app", &["own"], false).is_kubelets());
}

#[test]
fn what_is_wrong_with_a_secret_is_said_and_stops_kubelet_where_it_does() {
    let table = table()
        .secret("good", &["quay.io"])
        .raw("torn", "{")
        .raw("empty", "")
        .raw("token", r#"{"auths":{"quay.io":{"identitytoken":"t"}}}"#);
    let check = |secrets: &[&str], stopped: bool, found: bool, said: &str| {
        let choice = table.choose("quay.io/app", secrets, true);
        assert_eq!((choice.stopped, choice.found.is_some()), (stopped, found), "{secrets:?}");
        let why: Vec<String> = choice.why.iter().map(Considered::to_string).collect();
        assert!(why.iter().any(|line| line.contains(said)), "{why:#?}");
    };
    check(&["good", "torn"], true, false, "kubelet refuses to pull anything");
    check(&["empty", "good"], false, true, "it has no .dockerconfigjson");
    check(&["none", "good"], false, true, "there is no such Secret");
    check(&["token"], false, false, "holds no user and password");
    check(&["good"], false, true, "used, by its entry quay.io");
}

#[test]
fn where_secrets_are_not_read_nothing_is_said_to_be_missing() {
    let mut table = table();
    table.0.namespaces = Namespaces::These(vec!["other".to_owned()]);
    let choice = table.choose("quay.io/app", &["a"], true);
    assert_eq!(choice.why[0].outcome, Outcome::Unread);
}

proptest! {
    /// What is chosen matches the image, and no entry that kubelet would try before it does.
    #[test]
    fn nothing_before_the_chosen_entry_matches(
        secrets in prop::collection::vec(
            prop::collection::vec("(a|b|\\*)\\.(io|co)(:5000)?(/x|/x/y|/xz)?", 0..4), 0..4),
        image in "(a|b)\\.(io|co)(:5000)?(/x|/x/y|/xz)/app",
    ) {
        let mut known = table();
        let names: Vec<String> = (0..secrets.len()).map(|n| format!("s{n}")).collect();
        for (name, keys) in names.iter().zip(&secrets) {
            known = known.secret(name, &keys.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let choice = known.choose(&image, &names, true);
        let (registry, repository) = image.split_once('/').unwrap();
        let mut matching: Vec<super::super::Key> = secrets
            .iter()
            .flatten()
            .filter_map(|key| super::super::Key::parse(key))
            .filter(|key| key.matches(registry, repository))
            .collect();
        matching.sort();
        match (matching.last(), &choice.why[0].outcome) {
            (Some(key), Outcome::Chosen { entry }) => prop_assert_eq!(key.as_str(), entry),
            (None, outcome) => {
                let chosen = matches!(outcome, Outcome::Chosen { .. });
                prop_assert!(!chosen);
            }
            (Some(key), outcome) => prop_assert!(false, "{} but {:?}", key.as_str(), outcome),
        }
    }
}
