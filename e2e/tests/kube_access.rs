//! Access by Kubernetes RBAC on a real API server and a real kubelet, with the very YAML that the
//! guide shows.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kuboard_testkit::cluster::{Cluster, Component, Level, NODE, busybox};
use kuboard_testkit::http::{Answer, Request};
use kuboard_testkit::upstream::Login;
use kuboard_testkit::{FakeUpstream, Image, Kuboard, RegistryClient, tool};
use serde_json::Value;

const GUIDE: &str = include_str!("../../docs/guides/en/registry-access.md");
const AUDIENCE: &str = "registry.kuboard.cn";
/// Longer than the registry remembers a yes, a no, and a client's backoff together.
const SOON: Duration = Duration::from_secs(120);

/// A YAML block of the guide, by the comment in its first line.
fn sample(name: &str) -> Result<String> {
    let first = format!("```yaml\n# {name}\n");
    let (_, after) = GUIDE.split_once(&first).with_context(|| format!("no sample {name}"))?;
    let (text, _) = after.split_once("```").context("a block without an end")?;
    Ok(text.to_owned())
}

/// A registry whose right to ask about others is what the guide says, for a user `registry`.
fn registry(cluster: &Cluster, more: &str, listen: &str) -> Result<Kuboard> {
    let binding = sample("registry-auth")?;
    let (binding, _) = binding.split_once("subjects:").context("no subjects")?;
    cluster.apply(&format!(
        "{binding}subjects:\n  - kind: User\n    apiGroup: rbac.authorization.k8s.io\n    name: \
         registry\n"
    ))?;
    let kubeconfig = cluster.kubeconfig_of("registry")?;
    Kuboard::builder()
        .config(&format!(
            "[access]\nanonymous = \"none\"\n[access.kubernetes]\nenable = true\n[kubernetes]\n\
             kubeconfig = {kubeconfig:?}\n[log]\nformat = \"json\"\n{more}"
        ))
        .listen(listen)
        .start()
}

fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["create", "namespace", name]).map(drop)
}

fn account(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    cluster.kubectl(&["create", "serviceaccount", name, "-n", namespace]).map(drop)
}

fn token(cluster: &Cluster, namespace: &str, name: &str, audience: &str) -> Result<String> {
    let made = ["create", "token", name, "-n", namespace, "--audience", audience];
    Ok(cluster.kubectl(&made)?.trim().to_owned())
}

fn bind(cluster: &Cluster, namespace: &str, role: &str, account: &str) -> Result<()> {
    let name = format!("{role}-{}", account.replace(':', "-"));
    let (role, account) = (format!("--role={role}"), format!("--serviceaccount={account}"));
    cluster.kubectl(&["create", "rolebinding", &name, "-n", namespace, &role, &account]).map(drop)
}

/// Asks with a service-account token as bearer token: one request, no token service between.
fn manifest(kuboard: &Kuboard, token: &str, repository: &str) -> Result<Answer> {
    Request::get(format!("/v2/{repository}/manifests/v1"))
        .header("Accept", "application/vnd.oci.image.manifest.v1+json")
        .header("Authorization", format!("Bearer {token}"))
        .send(kuboard.address())
}

/// Waits until the answer has that status: what was refused before is remembered for a while.
fn becomes(kuboard: &Kuboard, token: &str, repository: &str, status: u16) -> Result<()> {
    tool::wait_until(&format!("{repository} to answer {status}"), SOON, || {
        Ok(manifest(kuboard, token, repository)?.status == status)
    })
}

/// The audit lines so far.
fn audit(kuboard: &Kuboard) -> Result<Vec<Value>> {
    let log = fs::read_to_string(kuboard.folder().join("kuboard.log"))?;
    let lines = log.lines().filter(|line| line.contains(r#""target":"audit""#));
    lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn what_a_service_account_may_is_what_its_roles_say() -> Result<()> {
    let cluster = Cluster::builder(Level::ApiServer).user("registry", &[]).start()?;
    let kuboard = registry(&cluster, "", "127.0.0.1:0")?;
    for name in ["dev-team", "other-team"] {
        namespace(&cluster, name)?;
    }
    cluster.apply(&sample("article")?)?;
    account(&cluster, "dev-team", "ci")?;
    account(&cluster, "other-team", "default")?;
    let puller = token(&cluster, "dev-team", "image-puller", AUDIENCE)?;
    let ci = token(&cluster, "dev-team", "ci", AUDIENCE)?;
    let stranger = token(&cluster, "other-team", "default", AUDIENCE)?;
    let image = Image::oci(1, &[50_000])?;

    // The token is a password for every client; rights by name and by prefix, and no others.
    let push = |repository: &str| {
        RegistryClient::with_login(kuboard.address(), "ci", &ci).push(repository, "v1", &image)
    };
    ensure!(push("dev-team/app").is_err(), "pushed without a right");
    cluster.apply(&sample("push-role")?)?;
    bind(&cluster, "dev-team", "push-images", "dev-team:ci")?;
    tool::wait_until("the right to push", SOON, || Ok(push("dev-team/app").is_ok()))?;
    push("dev-team/base/java")?;
    ensure!(push("dev-team/other").is_err(), "pushed beyond the rule's names");
    ensure!(push("other-team/app").is_err(), "pushed to another namespace");
    ensure!(push("app").is_err(), "pushed outside of namespaces");

    // The article's account and Role give no right in the registry; one binding does.
    ensure!(manifest(&kuboard, &puller, "dev-team/app")?.status == 403);
    cluster.apply(&sample("pull-role")?)?;
    cluster.kubectl(&["delete", "rolebinding", "pull-images", "-n", "dev-team"])?;
    cluster.apply(&sample("article-binding")?)?;
    becomes(&kuboard, &puller, "dev-team/app", 200)?;
    // What the guide tells people to ask says the same.
    let review = sample("ask")?;
    let said = cluster.admin().ask(&["create", "-o", "json", "-f", "-"], Some(&review))?;
    let said: Value = serde_json::from_str(&said.stdout)?;
    ensure!(said["status"]["allowed"] == true, "{said}");
    ensure!(manifest(&kuboard, &puller, "other-team/app")?.status == 403);
    ensure!(manifest(&kuboard, &stranger, "dev-team/app")?.status == 403);
    let pulled = RegistryClient::with_login(kuboard.address(), "x", &puller);
    ensure!(pulled.pull("dev-team/app", "v1")?.digest == image.digest);
    ensure!(pulled.push("dev-team/app", "v2", &image).is_err(), "pushed with a right to pull");

    // A right that is taken away ends.
    cluster.kubectl(&["delete", "rolebinding", "image-puller", "-n", "dev-team"])?;
    becomes(&kuboard, &puller, "dev-team/app", 403)?;
    ensure!(
        audit(&kuboard)?.iter().any(|line| {
            line["subject"] == "system:serviceaccount:dev-team:image-puller"
                && line["repository"] == "dev-team/app"
                && line["allowed"] == false
        }),
        "no audit line of the refusal"
    );
    Ok(())
}

#[test]
fn upstreams_lists_deletes_and_other_audiences() -> Result<()> {
    let upstream = kuboard_testkit::distribution::DistributionRegistry::start()?;
    let image = Image::oci(1, &[50_000])?;
    RegistryClient::new(upstream.address()).push("library/app", "v1", &image)?;
    let cluster = Cluster::builder(Level::ApiServer).user("registry", &[]).start()?;
    let rule = format!("[[upstream]]\nname = \"docker.io\"\nendpoints = [\"{}\"]", upstream.url());
    let kuboard = registry(&cluster, &rule, "127.0.0.1:0")?;
    namespace(&cluster, "dev-team")?;
    account(&cluster, "dev-team", "all")?;
    let all = token(&cluster, "dev-team", "all", AUDIENCE)?;

    // Names of upstreams lie in no namespace.
    ensure!(manifest(&kuboard, &all, "docker.io/library/app")?.status == 403);
    cluster.apply(&sample("upstream-role")?)?;
    let everywhere = |role: &str| {
        let name = format!("{role}-all");
        let role = format!("--clusterrole={role}");
        let to = "--serviceaccount=dev-team:all";
        cluster.kubectl(&["create", "clusterrolebinding", &name, &role, to]).map(drop)
    };
    everywhere("pull-from-docker-hub")?;
    becomes(&kuboard, &all, "docker.io/library/app", 200)?;

    let ask = |method: &str, target: &str| {
        Request::new(method, target)
            .header("Authorization", format!("Bearer {all}"))
            .send(kuboard.address())
    };
    ensure!(ask("GET", "/v2/_catalog")?.status == 403);
    cluster.apply(
        r#"{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "registry-admin"}, "rules": [{
                "apiGroups": ["registry.kuboard.cn"], "resources": ["repositories"],
                "verbs": ["get", "create", "delete", "list"]}]}"#,
    )?;
    everywhere("registry-admin")?;
    tool::wait_until("the right to push", SOON, || {
        let client = RegistryClient::with_login(kuboard.address(), "x", &all);
        Ok(client.push("dev-team/app", "v1", &image).is_ok())
    })?;
    tool::wait_until("the right to list", SOON, || Ok(ask("GET", "/v2/_catalog")?.status == 200))?;
    let listed = ask("GET", "/v2/_catalog")?.json()?;
    ensure!(
        listed["repositories"].as_array().is_some_and(|all| all.contains(&"dev-team/app".into())),
        "{listed}"
    );
    let gone = ask("DELETE", &format!("/v2/dev-team/app/manifests/{}", image.digest))?;
    ensure!(gone.status == 202, "{}", gone.text());

    // A token for somebody else opens nothing, and says why.
    let foreign = token(&cluster, "dev-team", "all", "https://elsewhere.example.com")?;
    let login = RegistryClient::with_login(kuboard.address(), "x", &foreign);
    ensure!(login.manifest("docker.io/library/app", "v1").is_err());
    let refused = Request::get("/token?service=kuboard")
        .header("Authorization", format!("Bearer {foreign}"))
        .send(kuboard.address())?;
    ensure!(refused.status == 401, "{}", refused.status);
    Ok(())
}

#[test]
fn an_api_server_that_is_away_is_neither_yes_nor_no() -> Result<()> {
    let cluster = Cluster::builder(Level::ApiServer).user("registry", &[]).start()?;
    let kuboard = registry(&cluster, "", "127.0.0.1:0")?;
    namespace(&cluster, "dev-team")?;
    account(&cluster, "dev-team", "known")?;
    account(&cluster, "dev-team", "new")?;
    cluster.apply(&sample("pull-role")?)?;
    let known = token(&cluster, "dev-team", "known", AUDIENCE)?;
    let new = token(&cluster, "dev-team", "new", AUDIENCE)?;
    // 404: the right is there, the image is not.
    becomes(&kuboard, &known, "dev-team/app", 404)?;
    cluster.kill_component(Component::ApiServer)?;
    let answer = manifest(&kuboard, &new, "dev-team/app")?;
    ensure!(answer.status == 503, "{} {}", answer.status, answer.text());
    ensure!(answer.headers.get("retry-after").is_some(), "no Retry-After");
    ensure!(answer.text().contains("hint"), "{}", answer.text());
    cluster.start_component(Component::ApiServer)?;
    becomes(&kuboard, &new, "dev-team/app", 404)?;
    becomes(&kuboard, &known, "dev-team/app", 404)?;
    ensure!(kuboard.metric("kuboard_access_reviews_total", &[r#"outcome="failed""#])? >= 1.0);
    ensure!(kuboard.metric("kuboard_access_reviews_total", &[r#"outcome="yes""#])? >= 2.0);
    Ok(())
}

/// The proxy asks a private upstream with what a RegistryCredential of the cluster says.
#[test]
fn upstreams_are_asked_with_the_clusters_credentials() -> Result<()> {
    let image = Image::oci(1, &[50_000])?;
    let upstream = FakeUpstream::start()?;
    upstream.put("team/app", "v1", &image);
    upstream.require(Login::Basic { user: "robot".to_owned(), password: "secret".to_owned() });
    let cluster = Cluster::start(Level::ApiServer)?;
    let mut crds = Kuboard::command()?;
    let crds = tool::output(crds.args(["docs", "crd-manifests"]))?;
    cluster.apply(&crds)?;
    namespace(&cluster, "kuboard")?;
    let rule =
        format!("[[upstream]]\nname = \"private.test\"\nendpoints = [\"{}\"]", upstream.url());
    let kubeconfig = cluster.kubeconfig();
    let kuboard = Kuboard::builder()
        .config(&format!(
            "[kubernetes]\nkubeconfig = {kubeconfig:?}\nregistryCredentials = true\n{rule}"
        ))
        .start()?;
    let pull = || kuboard.client().pull("private.test/team/app", "v1");
    ensure!(pull().is_err(), "pulled without credentials");
    cluster.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "robot",
        "-n",
        "kuboard",
        "--docker-server=private.test",
        "--docker-username=robot",
        "--docker-password=secret",
    ])?;
    cluster.apply(
        r#"{"apiVersion": "kuboard.cn/v1alpha1", "kind": "RegistryCredential",
            "metadata": {"name": "private", "namespace": "kuboard"},
            "spec": {"registries": ["private.test"], "secretRef": {"name": "robot"}}}"#,
    )?;
    tool::wait_until("the credential to be used", SOON, || Ok(pull().is_ok()))?;
    Ok(())
}

fn pod(name: &str, namespace: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: app, image: \"{image}\"}}]\n"
    )
}

/// Why a pod's container waits: reason and message.
fn waits(cluster: &Cluster, namespace: &str, name: &str) -> Result<String> {
    let pod = cluster.get_json(&format!("/api/v1/namespaces/{namespace}/pods/{name}"))?;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    Ok(format!(
        "{}: {}",
        waiting["reason"].as_str().unwrap_or_default(),
        waiting["message"].as_str().unwrap_or_default()
    ))
}

#[test]
fn a_pod_pulls_with_its_own_identity_and_no_secret() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (bin, config) = (folder.path().join("bin"), folder.path().join("providers.yaml"));
    let listen = format!("127.0.0.1:{}", tool::free_port()?);
    let mut install = Kuboard::command()?;
    install.args(["credential-provider", "--match-image", &listen, "--install"]);
    install.arg(&bin).arg("--provider-config").arg(&config);
    tool::output(&mut install)?;
    let cluster = Cluster::builder(Level::Node)
        .user("registry", &[])
        .flag(Component::Kubelet, format!("--image-credential-provider-bin-dir={}", bin.display()))
        .flag(
            Component::Kubelet,
            format!("--image-credential-provider-config={}", config.display()),
        )
        .start()?;
    let kuboard = registry(&cluster, "", &listen)?;
    for name in ["dev-team", "other-team"] {
        namespace(&cluster, name)?;
    }
    account(&cluster, "dev-team", "ci")?;
    cluster.apply(&sample("push-role")?)?;
    bind(&cluster, "dev-team", "push-images", "dev-team:ci")?;
    let ci = token(&cluster, "dev-team", "ci", AUDIENCE)?;
    let image = busybox("secretless")?;
    RegistryClient::with_login(kuboard.address(), "ci", &ci).push("dev-team/app", "v1", &image)?;
    let name = format!("{}/dev-team/app:v1", kuboard.address());

    cluster.apply(&sample("pull-role")?)?;
    for namespace in ["dev-team", "other-team"] {
        cluster.wait("the default service account", || {
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
            Ok(cluster.get_json(&path).is_ok_and(|found| found["kind"] == "ServiceAccount"))
        })?;
    }
    // Until nodes may ask for such tokens, kubelet says what is missing.
    cluster.apply(&pod("web", "dev-team", &name))?;
    cluster.wait("the node's missing right", || {
        let log = fs::read_to_string(cluster.log_file(Component::Kubelet))?;
        Ok(log.contains("not found in pod spec volume"))
    })?;
    cluster.apply(&sample("node-audience")?)?;
    cluster.wait_pod_ready("dev-team", "web")?;
    let secrets = cluster.get_json("/api/v1/namespaces/dev-team/secrets")?;
    ensure!(secrets["items"].as_array().is_some_and(Vec::is_empty), "{secrets}");

    // The registry knows who pulled, and from where.
    let lines = audit(&kuboard)?;
    let told = |line: &&Value| {
        line["pod"] == "web"
            && line["namespace"] == "dev-team"
            && line["node"] == NODE
            && line["repository"] == "dev-team/app"
    };
    ensure!(lines.iter().filter(told).any(|line| line["granted"] == "pull"), "{lines:#?}");
    ensure!(lines.iter().filter(told).any(|line| line["allowed"] == true), "{lines:#?}");

    // No Role, no image: not even now that it lies on the node.
    cluster.apply(&pod("thief", "other-team", &name))?;
    cluster.wait("the refusal", || {
        let why = waits(&cluster, "other-team", "thief")?;
        Ok(why.starts_with("ErrImagePull") || why.starts_with("ImagePullBackOff"))
    })?;
    let lines = audit(&kuboard)?;
    ensure!(
        lines.iter().any(|line| line["pod"] == "thief" && line["granted"] == ""),
        "no audit line of the refusal: {lines:#?}"
    );
    // A Role is enough; kubelet tries again by itself.
    bind(&cluster, "dev-team", "pull-images", "other-team:default")?;
    cluster.wait_pod_ready("other-team", "thief")
}
