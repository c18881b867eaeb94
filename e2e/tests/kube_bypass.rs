//! Ways past admission on a real API server: what a user with every right but `bypass` can ask for
//! to get a vulnerable image into a judged namespace, each refused with its reason; and beside
//! them what must not be refused, so that refusing everything does not pass.
//!
//! Whatever was asked, the last word is what the API server stores: no pod of a judged namespace
//! holds a vulnerable image that the table does not let pass.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::guarded::{CVE, Guarded, bad, good, in_days, namespace, opaque, pod, says};
use kuboard_testkit::Image;
use kuboard_testkit::cluster::{Cluster, Kubectl, Level};
use kuboard_testkit::upstream::{FakeUpstream, Fault, On};
use serde_json::{Value, json};

/// Has every right on pods, workloads and namespaces, but none on anything of ours.
const USER: &str = "ada";
/// A name of the registry beside its address.
const NAMED: &str = "registry.test:5000";

/// What must come of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Refused by the webhook; this is part of the message.
    Refused(&'static str),
    /// Refused by another part of the API server, such as RBAC, a policy or a check of the object.
    Forbidden(&'static str),
    /// Taken, with a warning that has this in it.
    Warned(&'static str),
    /// Taken without a warning of ours.
    Allowed,
    /// Whatever is said, it has no effect.
    NoEffect,
}

use Expect::{Allowed, Forbidden, NoEffect, Refused, Warned};

/// A question.
struct Case {
    name: String,
    /// `kubectl` arguments.
    arguments: Vec<String>,
    /// Its standard input.
    input: Option<String>,
    expect: Expect,
    /// Asked by the administrator rather than by [`USER`].
    as_admin: bool,
    /// The pod that comes of it, with its namespace, if it may hold a vulnerable image.
    makes: Option<(String, String)>,
}

/// What the cases name.
struct World {
    guarded: Guarded,
    _upstream: FakeUpstream,
    /// Address of the registry.
    registry: String,
    bad: Image,
    /// Another vulnerable one.
    other: Image,
    good: Image,
    index: Image,
    multi: Image,
}

/// The table while it is written.
struct Table<'a> {
    world: &'a World,
    cases: Vec<Case>,
}

impl Table<'_> {
    /// A question to kubectl; `{pod}` is a name that no other case has.
    fn ask(&mut self, name: &str, arguments: &[&str], input: Option<String>, expect: Expect) {
        let pod = format!("case-{}", self.cases.len());
        let fill = |it: &str| it.replace("{pod}", &pod);
        self.cases.push(Case {
            name: name.to_owned(),
            arguments: arguments.iter().map(|it| fill(it)).collect(),
            input: input.as_deref().map(fill),
            expect,
            as_admin: false,
            makes: None,
        });
    }

    /// The last case is asked by the administrator.
    fn by_admin(&mut self) {
        if let Some(last) = self.cases.last_mut() {
            last.as_admin = true;
        }
    }

    /// A pod is created.
    fn create(&mut self, name: &str, namespace: &str, mut object: Value, expect: Expect) {
        let generated = object["metadata"]["generateName"].is_string();
        if !generated {
            object["metadata"]["name"] = json!("{pod}");
        }
        object["metadata"]["namespace"] = json!(namespace);
        self.ask(name, &["create", "-f", "-"], Some(object.to_string()), expect);
        let made = format!("case-{}", self.cases.len() - 1);
        if let Some(last) = self.cases.last_mut()
            && matches!(expect, Allowed | Warned(_))
        {
            last.makes = Some((namespace.to_owned(), made));
        }
    }

    /// A pod of one container is created.
    fn image(&mut self, name: &str, namespace: &str, image: &str, expect: Expect) {
        self.create(name, namespace, one(image), expect);
    }
}

/// A pod of one container.
fn one(image: &str) -> Value {
    let mut object = pod("", "", image);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.clear();
    }
    object
}

/// The same with other metadata.
fn marked(image: &str, metadata: Value) -> Value {
    let mut object = one(image);
    object["metadata"] = metadata;
    object
}

/// The same with further fields of the spec.
fn with(image: &str, fields: Value) -> Value {
    let mut object = one(image);
    if let (Some(spec), Value::Object(fields)) = (object["spec"].as_object_mut(), fields) {
        spec.extend(fields);
    }
    object
}

fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image})
}

#[test]
fn nothing_gets_past() -> Result<()> {
    let world = World::start()?;
    let mut table = Table { world: &world, cases: Vec::new() };
    table.positions();
    table.updates();
    table.forms();
    table.names();
    table.unknown();
    table.forgeries();
    table.rights();
    table.namespaces();
    table.policies();
    table.workloads();
    table.subresources();
    let cases = table.cases;
    ensure!(cases.len() >= 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(error) = check(&world, case) {
            wrong.push(format!("{}: {error:#}", case.name));
        }
    }
    wrong.extend(world.stored(&cases)?);
    ensure!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    e2e::figure(json!({"bypassCases": cases.len(), "bypasses": 0}))
}

/// Asks, and holds the answer against what is expected.
fn check(world: &World, case: &Case) -> Result<()> {
    let cluster = &world.guarded.cluster;
    let who: Kubectl = if case.as_admin { cluster.admin() } else { cluster.user(USER)? };
    let arguments: Vec<&str> = case.arguments.iter().map(String::as_str).collect();
    let answer = who.ask(&arguments, case.input.as_deref())?;
    let said = format!("{}{}", answer.stdout, answer.stderr);
    let by_us = said.contains(".kuboard.cn\" denied the request");
    let warned = said.contains("ImageScanPolicy");
    match case.expect {
        NoEffect => Ok(()),
        Refused(word) => {
            ensure!(!answer.success, "passed: {said}");
            ensure!(by_us, "refused, but not by the webhook: {said}");
            says(&said, &[word])
        }
        Forbidden(word) => {
            ensure!(!answer.success, "passed: {said}");
            says(&said, &[word])
        }
        Warned(word) => {
            ensure!(answer.success, "refused: {said}");
            says(&said, &["Warning", word])
        }
        Allowed => {
            ensure!(answer.success, "refused: {said}");
            ensure!(!warned, "warned: {said}");
            Ok(())
        }
    }
}

/// Namespaces with their labels.
const NAMESPACES: &[(&str, &[(&str, &str)])] = &[
    ("shop", &[]),
    ("lax", &[]),
    ("strict", &[("kuboard.cn/enforce", "strict")]),
    ("guarded", &[("guarded", "yes")]),
    ("free", &[]),
    ("warned", &[]),
    ("audited", &[]),
    ("both", &[]),
    ("milder", &[]),
    ("tagged", &[]),
    ("trusting", &[]),
    ("critical", &[]),
    ("exempt", &[]),
    ("expired", &[]),
    ("other-image", &[]),
    ("by-tag", &[]),
    ("careless", &[]),
    ("suspended", &[]),
    ("out", &[("kuboard.cn/admission", "disabled")]),
];

/// Policies: namespace, name, fields of the spec.
fn wanted(future: &str) -> Vec<Value> {
    let policy = |namespace: &str, name: &str, spec: Value| {
        let mut all = json!({"severityThreshold": "HIGH"});
        if let (Some(all), Value::Object(spec)) = (all.as_object_mut(), spec) {
            all.extend(spec);
        }
        json!({"apiVersion": "kuboard.cn/v1alpha1", "kind": "ImageScanPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": all})
    };
    let exemption = |namespace: &str, images: Value, ends: &str| {
        json!({"apiVersion": "kuboard.cn/v1alpha1", "kind": "ImageExemption",
            "metadata": {"name": "accepted", "namespace": namespace},
            "spec": {"images": images, "vulnerabilities": [CVE], "reason": "not reached",
                "expiresAt": ends}})
    };
    vec![
        exemption("exempt", json!([]), future),
        exemption("free", json!([]), future),
        exemption("expired", json!([]), "2020-01-01T00:00:00Z"),
        exemption("other-image", json!(["up.test/team/other"]), future),
        exemption("by-tag", json!(["up.test/team/bad:1"]), future),
        json!({"apiVersion": "kuboard.cn/v1alpha1", "kind": "ClusterImageScanPolicy",
            "metadata": {"name": "guards"},
            "spec": {"severityThreshold": "HIGH", "onUnscanned": "Allow",
                "namespaceSelector": {"matchLabels": {"guarded": "yes"}}}}),
        policy("warned", "p", json!({"mode": "Warn"})),
        policy("audited", "p", json!({"mode": "Audit"})),
        policy("milder", "warns", json!({"mode": "Warn"})),
        policy("milder", "audits", json!({"mode": "Audit"})),
        policy("critical", "p", json!({"severityThreshold": "CRITICAL"})),
        policy("suspended", "p", json!({"suspended": true})),
        policy("both", "audits", json!({"mode": "Audit"})),
        policy("both", "enforces", json!({})),
        policy("tagged", "p", json!({"images": ["up.test/team/*:1*"]})),
        policy("trusting", "p", json!({"excludeRegistries": ["up.test"], "onError": "Deny"})),
        policy("careless", "p", json!({"onUnscanned": "Allow", "onError": "Allow"})),
        policy("exempt", "p", json!({})),
        policy("expired", "p", json!({})),
        policy("other-image", "p", json!({})),
        policy("by-tag", "p", json!({})),
        policy("strict", "p", json!({})),
        policy("lax", "p", json!({})),
        policy("shop", "p", json!({"onUnscanned": "Deny", "onError": "Deny"})),
    ]
}

impl World {
    fn start() -> Result<World> {
        let upstream = FakeUpstream::start()?;
        let (good, other, bad) = (good()?, bad("other")?, bad("bad")?);
        let index = Image::index(vec![bad.clone()])?;
        let multi = Image::index(vec![good.clone(), bad.clone()])?;
        for (tag, image) in [("1", &bad), ("latest", &bad), ("other", &other), ("fine", &good)] {
            upstream.put("library/bad", tag, image);
            upstream.put("team/bad", tag, image);
        }
        upstream.put("team/good", "1", &good);
        upstream.put("team/unread", "1", &e2e::guarded::bad("unread")?);
        // Its layers can't be read, so nobody can say what is in it.
        upstream.fault(On::path("/team/unread/blobs/"), Fault::status(403), None);
        let url = upstream.url();
        let further = format!(
            "registryHosts = [{NAMED:?}]\n\
             [[upstream]]\nname = \"docker.io\"\nendpoints = [{url:?}]\n\
             [[upstream]]\nname = \"up.test\"\nhosts = [\"mirror.test\"]\nendpoints = [{url:?}]\n"
        );
        let cluster = Cluster::builder(Level::ApiServer).user(USER, &["developers"]).start()?;
        let guarded = Guarded::of(cluster, &further)?;
        let client = guarded.product()?.client();
        client.push("hosted/bad-index", "1", &index)?;
        client.push("hosted/bad-multi", "1", &multi)?;
        client.push("hosted/opaque", "1", &opaque()?)?;
        let registry = guarded.image("").trim_end_matches('/').to_owned();
        let world =
            World { guarded, _upstream: upstream, registry, bad, other, good, index, multi };
        world.grant()?;
        world.want()?;
        Ok(world)
    }

    /// What [`USER`] and nodes may do: everything but what is ours.
    fn grant(&self) -> Result<()> {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "developer"},
            "rules": [{"apiGroups": ["", "apps", "batch", "policy"], "resources": ["*"],
                "verbs": ["*"]}]});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding", "metadata": {"name": "developers"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "developer"},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "developers"},
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}]});
        self.guarded.cluster.apply(&format!("{role}\n---\n{binding}"))?;
        Ok(())
    }

    /// Makes namespaces, policies and the pods that cases change, and waits until all of it acts.
    fn want(&self) -> Result<()> {
        let cluster = &self.guarded.cluster;
        let namespaces = NAMESPACES.iter().map(|(name, labels)| namespace(name, labels));
        let objects = wanted(&in_days(60)?).into_iter().map(|it| it.to_string());
        let all: Vec<String> = namespaces.chain(objects).collect();
        cluster.apply(&all.join("\n---\n"))?;
        let shop = |image: &str, word: &str| self.wait_said("shop", image, false, word);
        for name in ["hosted/bad:1", "hosted/bad-index:1", "hosted/bad-multi:1"] {
            shop(&self.own(name), CVE)?;
        }
        shop("bad", CVE)?;
        shop("up.test/team/bad:1", CVE)?;
        shop("up.test/team/bad:other", CVE)?;
        shop("up.test/team/unread:1", "scanned")?;
        shop(&self.own("hosted/opaque:1"), "wholly scanned")?;
        for name in ["up.test/team/good:1", "up.test/team/bad:fine", &self.own("hosted/good:1")] {
            self.wait_said("shop", name, true, "")?;
        }
        for name in ["lax", "strict", "guarded", "both", "expired", "other-image"] {
            self.wait_said(name, &self.own("hosted/bad:1"), false, CVE)?;
        }
        self.wait_said("warned", &self.own("hosted/bad:1"), true, CVE)?;
        self.wait_said("exempt", &self.own("hosted/bad:1"), true, "")?;
        self.wait_said("by-tag", "up.test/team/bad:1", true, "")?;
        // The administrator may bypass, and says so; this one is there for cases that change it.
        let mut held = pod("shop", "held-bad", &self.own("hosted/bad:1"));
        held["metadata"]["annotations"] = json!({"kuboard.cn/bypass": "for the drill"});
        cluster.admin().accepted(&["create", "-f", "-"], &held.to_string())?;
        let mut held = pod("shop", "held", &self.own("hosted/good:1"));
        held["spec"]["initContainers"] = json!([container("init", &self.own("hosted/good:1"))]);
        cluster.admin().accepted(&["create", "-f", "-"], &held.to_string())?;
        for name in ["bound", "evicted"] {
            let object = pod("shop", name, &self.own("hosted/good:1"));
            cluster.admin().accepted(&["create", "-f", "-"], &object.to_string())?;
        }
        Ok(())
    }

    fn own(&self, name: &str) -> String {
        self.guarded.image(name)
    }

    /// Waits until a dry run of a pod with the image is taken or not, and says this.
    fn wait_said(&self, namespace: &str, image: &str, taken: bool, word: &str) -> Result<()> {
        let object = pod(namespace, "probe", image).to_string();
        let mut said = String::new();
        let waited = self.guarded.cluster.wait("the verdict", || {
            let arguments = ["create", "--dry-run=server", "-f", "-"];
            let answer = self.guarded.cluster.admin().ask(&arguments, Some(&object))?;
            said = format!("{}{}", answer.stdout, answer.stderr);
            let warned = said.contains("ImageScanPolicy");
            std::thread::sleep(Duration::from_millis(100));
            Ok(answer.success == taken && said.contains(word) && (!word.is_empty() || !warned))
        });
        waited.with_context(|| {
            let log = self.guarded.product().map(e2e::service::end_of_log).unwrap_or_default();
            format!("{image} in {namespace}: {said}\n{log}")
        })
    }

    /// Pods that hold what no case lets pass.
    fn stored(&self, cases: &[Case]) -> Result<Vec<String>> {
        let mut passed: BTreeSet<(String, String)> =
            cases.iter().filter_map(|it| it.makes.clone()).collect();
        passed.insert(("shop".to_owned(), "held-bad".to_owned()));
        let vulnerable =
            [&self.bad, &self.other, &self.index, &self.multi].map(|it| it.digest.to_string());
        let fine = self.good.digest.to_string();
        let is_bad = |image: &str| {
            let by_digest = vulnerable.iter().any(|it| image.contains(it.as_str()));
            by_digest || (image.contains("bad") && !image.contains(&fine))
        };
        let all = self.guarded.cluster.get_json("/api/v1/pods")?;
        let mut wrong = Vec::new();
        for pod in all["items"].as_array().context("no pods")? {
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
            let mut images = Vec::new();
            for list in ["containers", "initContainers", "ephemeralContainers"] {
                let list = pod["spec"][list].as_array().into_iter().flatten();
                images.extend(list.filter_map(|it| it["image"].as_str()));
            }
            let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            images.extend(volumes.filter_map(|it| it["image"]["reference"].as_str()));
            let unjudged = ["kube-system", "kube-public", "kuboard", "free", "out", "suspended"];
            let key = (text("namespace"), text("name"));
            if !unjudged.contains(&key.0.as_str())
                && !passed.contains(&key)
                && let Some(image) = images.iter().find(|it| is_bad(it))
            {
                wrong.push(format!("{}/{} holds {image}", key.0, key.1));
            }
        }
        Ok(wrong)
    }
}

/// Where an image can stand in a pod.
impl Table<'_> {
    fn positions(&mut self) {
        let (bad, good) = (self.world.own("hosted/bad:1"), self.world.own("hosted/good:1"));
        let volume = |image: &str| json!({"name": "v", "image": {"reference": image}});
        self.image("a container", "shop", &bad, Refused(CVE));
        self.image("a clean container", "shop", &good, Allowed);
        let two = json!({"containers": [container("a", &good), container("b", &bad)]});
        self.create("the second container", "shop", with(&good, two), Refused("container b"));
        let init = json!({"initContainers": [container("i", &bad)]});
        self.create("an init container", "shop", with(&good, init), Refused("init container i"));
        let mut sidecar = container("i", &bad);
        sidecar["restartPolicy"] = json!("Always");
        let sidecar = json!({"initContainers": [container("h", &good), sidecar]});
        self.create("a sidecar", "shop", with(&good, sidecar), Refused("init container i"));
        let init = json!({"initContainers": [container("i", &good)]});
        self.create("a clean init container", "shop", with(&good, init), Allowed);
        let image = json!({"volumes": [{"name": "e", "emptyDir": {}}, volume(&bad)]});
        self.create("an image volume", "shop", with(&good, image), Refused("volume v"));
        let image = json!({"volumes": [volume(&good)]});
        self.create("a clean image volume", "shop", with(&good, image), Allowed);
        let mut ephemeral = container("d", &bad);
        ephemeral["terminationMessagePolicy"] = json!("File");
        let ephemeral = json!({"ephemeralContainers": [ephemeral]});
        self.create(
            "an ephemeral container in a new pod",
            "shop",
            with(&good, ephemeral),
            Forbidden("cannot be set on create"),
        );
        let many: Vec<Value> = (0..600).map(|n| container(&format!("c{n}"), &good)).collect();
        let mut last = many.clone();
        last.push(container("last", &bad));
        let hidden = with(&good, json!({"containers": last}));
        self.create("behind 600 clean ones", "shop", hidden, Refused("container last"));
        let more: Vec<Value> = (0..1001).map(|n| container(&format!("c{n}"), &good)).collect();
        let more = with(&good, json!({"containers": more}));
        self.create("more images than are judged", "shop", more, Refused("at most 1000"));
        let mut large = container("main", &bad);
        large["env"] = json!([{"name": "PADDING", "value": "x".repeat(1_200_000)}]);
        let large = with(&bad, json!({"containers": [large]}));
        self.create("behind a megabyte", "shop", large, Refused(CVE));
        self.create("a node is named", "shop", with(&bad, json!({"nodeName": "n"})), Refused(CVE));
        let gated = json!({"schedulingGates": [{"name": "example.test/gate"}]});
        self.create("it waits at a gate", "shop", with(&bad, gated), Refused(CVE));
        let mut claims = one(&good);
        claims["status"] = json!({"phase": "Running", "containerStatuses": [{"name": "main",
            "image": bad, "imageID": format!("x@{}", self.world.bad.digest), "ready": true,
            "restartCount": 0, "started": true}]});
        self.create("a new pod that says it runs another image", "shop", claims, Allowed);
        self.image("what it said counts for nothing", "shop", &bad, Refused(CVE));
    }

    /// Pods that are there are changed. `held` is clean, `held-bad` is not.
    fn updates(&mut self) {
        let (bad, good) = (self.world.own("hosted/bad:1"), self.world.own("hosted/good:1"));
        let index = self.world.own("hosted/bad-index:1");
        let set = format!("main={bad}");
        self.ask(
            "set image",
            &["-n", "shop", "set", "image", "pod/held", &set],
            None,
            Refused(CVE),
        );
        let set_init = format!("init={bad}");
        let arguments = ["-n", "shop", "set", "image", "pod/held", &set_init];
        self.ask("set the init image", &arguments, None, Refused(CVE));
        let arguments = ["-n", "shop", "set", "image", "pod/held", &set, "--dry-run=server"];
        self.ask("set image as a dry run", &arguments, None, Refused(CVE));
        let patch = |kind: &'static str, body: Value| {
            let body = body.to_string();
            ["-n", "shop", "patch", "pod", "held", "--type", kind, "-p", &body].map(str::to_owned)
        };
        let json_patch =
            json!([{"op": "replace", "path": "/spec/containers/0/image", "value": bad}]);
        let whole = json!({"spec": {"containers": [container("main", &bad)]}});
        for (name, kind, body) in [
            ("a JSON patch", "json", json_patch),
            ("a strategic patch", "strategic", whole.clone()),
            ("a merge patch", "merge", whole),
        ] {
            let arguments = patch(kind, body);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            self.ask(name, &arguments, None, Refused(CVE));
        }
        let mut applied = pod("shop", "held", &bad);
        applied["spec"]["terminationGracePeriodSeconds"] = json!(0);
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.ask("server-side apply", &apply, Some(applied.to_string()), Refused(CVE));
        let mut replaced = pod("shop", "held", &bad);
        replaced["spec"]["initContainers"] = json!([container("init", &good)]);
        self.ask("replace", &["replace", "-f", "-"], Some(replaced.to_string()), Refused(CVE));
        let fresh = pod("shop", "{pod}", &bad).to_string();
        self.ask("create by server-side apply", &apply, Some(fresh), Refused(CVE));
        let label = ["-n", "shop", "label", "pod", "held-bad", "team=shop"];
        self.ask("a label of a pod that stays what it is", &label, None, Allowed);
        let set = format!("main={index}");
        let arguments = ["-n", "shop", "set", "image", "pod/held-bad", &set];
        self.ask("from one vulnerable image to another", &arguments, None, Refused(CVE));
        let set = format!("main={}", self.world.own("hosted/good:1"));
        let arguments = ["-n", "shop", "set", "image", "pod/evicted", &set];
        self.ask("set the image that it has", &arguments, None, Allowed);
        let run = format!("--image={bad}");
        self.ask("kubectl run", &["-n", "shop", "run", "{pod}", &run], None, Refused(CVE));
        let copy = format!("--set-image=main={bad}");
        let arguments = ["-n", "shop", "debug", "held", "--copy-to={pod}", &copy];
        self.ask("a copy with another image", &arguments, None, Refused(CVE));
    }

    /// Ephemeral containers and other subresources.
    fn subresources(&mut self) {
        let (bad, good) = (self.world.own("hosted/bad:1"), self.world.own("hosted/good:1"));
        let debug = |image: &str| format!("--image={image}");
        for (name, image, expect) in [
            ("an ephemeral container", &bad, Refused("ephemeral container e1")),
            ("a clean ephemeral container", &good, Allowed),
            ("a second ephemeral container", &bad, Refused("ephemeral container e1")),
        ] {
            let container = if expect == Allowed { "e0" } else { "e1" };
            let image = debug(image);
            let arguments =
                ["-n", "shop", "debug", "held", &image, "-c", container, "--profile=general"];
            self.ask(name, &arguments, None, expect);
        }
        let arguments =
            ["-n", "shop", "debug", "held-bad", &debug(&bad), "-c", "e1", "--profile=general"]
                .map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // The image is in the pod already: nothing new comes with it.
        self.ask("the same image again, as an ephemeral container", &arguments, None, Allowed);
        let whole = json!({"spec": {"containers": [container("main", &bad)]}}).to_string();
        for resource in ["status", "resize"] {
            let by = format!("--subresource={resource}");
            let arguments = ["-n", "shop", "patch", "pod", "held", &by, "-p", &whole];
            self.ask(
                &format!("an image by the subresource {resource}"),
                &arguments,
                None,
                NoEffect,
            );
        }
        let evict = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": "evicted", "namespace": "shop"}});
        let path = "/api/v1/namespaces/shop/pods/evicted/eviction";
        let arguments = ["create", "--raw", path, "-f", "-"];
        self.ask("an eviction", &arguments, Some(evict.to_string()), Allowed);
        let bind = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": "bound", "namespace": "shop",
                "annotations": {"kuboard.cn/bypass": "please"}},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "n"}});
        let path = "/api/v1/namespaces/shop/pods/bound/binding";
        let arguments = ["create", "--raw", path, "-f", "-"];
        self.ask("a binding", &arguments, Some(bind.to_string()), Allowed);
        let set = format!("main={bad}");
        let arguments = ["-n", "shop", "set", "image", "pod/bound", &set];
        self.ask("a bound pod gets another image", &arguments, None, Refused(CVE));
        self.ask(
            "a deletion",
            &["-n", "shop", "delete", "pod", "bound", "--wait=false"],
            None,
            Allowed,
        );
    }

    /// One image, written in many ways.
    fn forms(&mut self) {
        let World { bad, good, index, multi, .. } = self.world;
        let (bad, good) = (bad.digest.to_string(), good.digest.to_string());
        let (index, multi) = (index.digest.to_string(), multi.digest.to_string());
        let own = |name: &str| self.world.own(name);
        let rows = [
            ("a tag of an index", own("hosted/bad-index:1"), Refused(CVE)),
            ("one platform of two", own("hosted/bad-multi:1"), Refused(CVE)),
            ("a digest", own(&format!("hosted/bad@{bad}")), Refused(CVE)),
            ("the digest of an index", own(&format!("hosted/bad-index@{index}")), Refused(CVE)),
            ("of two platforms", own(&format!("hosted/bad-multi@{multi}")), Refused(CVE)),
            ("a digest from another repository", own(&format!("hosted/good@{bad}")), Refused(CVE)),
            ("the clean tag beside it", own(&format!("hosted/good:1@{bad}")), Refused(CVE)),
            ("no such tag beside it", own(&format!("hosted/good:none@{bad}")), Refused(CVE)),
            ("a clean digest", own(&format!("hosted/good@{good}")), Allowed),
            ("a clean digest beside the tag", own(&format!("hosted/good:1@{good}")), Allowed),
            ("what counts is the digest", own(&format!("hosted/bad:1@{good}")), Allowed),
            ("two digests", own(&format!("hosted/good@{good}@{bad}")), Refused("is no image")),
            (
                "a digest in capitals",
                own(&format!("hosted/bad@{}", bad.to_uppercase())),
                Refused("is no image"),
            ),
            ("a short digest", own("hosted/bad@sha256:abc"), Refused("is no image")),
            (
                "an unknown algorithm",
                own("hosted/bad@md5:d41d8cd98f00b204e9800998ecf8427e"),
                Refused("is no image"),
            ),
            ("an empty tag", own("hosted/bad:"), Refused("is no image")),
            ("two tags", own("hosted/bad:1:1"), Refused("is no image")),
            ("a bare image id", "0123456789abcdef".repeat(4), Refused("is no image")),
            ("an image id with its algorithm", bad.clone(), Refused("is no image")),
            ("a URL", format!("https://{}", own("hosted/bad:1")), Refused("is no image")),
            ("dots in the path", own("hosted/../hosted/bad:1"), Refused("is no image")),
            ("an empty part of the path", own("hosted//bad:1"), Refused("is no image")),
            ("capitals in the repository", own("Hosted/bad:1"), Refused("is no image")),
            ("an escape in the path", own("hosted%2Fbad:1"), Refused("is no image")),
        ];
        for (name, image, expect) in rows {
            self.image(name, "lax", &image, expect);
        }
        let spaced = format!(" {}", self.world.own("hosted/bad:1"));
        self.image("white space before it", "lax", &spaced, Forbidden("whitespace"));
        self.image("no tag", "shop", &self.world.own("hosted/bad"), Refused("looked up"));
    }

    /// One registry, named in many ways.
    fn names(&mut self) {
        let port = self.world.registry.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
        let digest = self.world.bad.digest;
        let rows = [
            ("Docker Hub, in short", "bad".to_owned()),
            ("with a tag", "bad:1".to_owned()),
            ("with its namespace", "library/bad".to_owned()),
            ("with its registry", "docker.io/bad:1".to_owned()),
            ("in full", "docker.io/library/bad:1".to_owned()),
            ("by its old name", "index.docker.io/library/bad:1".to_owned()),
            ("by its API", "registry-1.docker.io/library/bad:1".to_owned()),
            ("by its API and port", "registry-1.docker.io:443/bad:1".to_owned()),
            ("by its web site", "registry.hub.docker.com/library/bad:1".to_owned()),
            ("with its port", "docker.io:443/library/bad:1".to_owned()),
            ("with capitals", "Docker.IO/library/bad:1".to_owned()),
            ("with its port, longer", "docker.io:0443/library/bad:1".to_owned()),
            ("with capitals and port", "INDEX.docker.io:443/bad".to_owned()),
            ("by digest", format!("bad@{digest}")),
            ("an upstream", "up.test/team/bad:1".to_owned()),
            ("without a tag", "up.test/team/bad".to_owned()),
            ("with the port of HTTPS", "up.test:443/team/bad:1".to_owned()),
            ("with capitals", "UP.Test/team/bad:1".to_owned()),
            ("by another of its hosts", "mirror.test/team/bad:1".to_owned()),
            ("through the registry", self.world.own("up.test/team/bad:1")),
            ("Docker Hub through the registry", self.world.own("docker.io/library/bad:1")),
            ("in short", self.world.own("docker.io/bad:1")),
            (
                "by its old name through the registry",
                self.world.own("index.docker.io/library/bad:1"),
            ),
            ("this registry as localhost", format!("localhost:{port}/hosted/bad:1")),
            ("in capitals", format!("LOCALHOST:{port}/hosted/bad:1")),
            ("as an IPv6 address of IPv4", format!("[::ffff:127.0.0.1]:{port}/hosted/bad:1")),
            ("the same in hexadecimal", format!("[::FFFF:7f00:1]:{port}/hosted/bad:1")),
            ("the same in full", format!("[0:0:0:0:0:ffff:127.0.0.1]:{port}/hosted/bad:1")),
            ("with its port, longer", format!("127.0.0.1:0{port}/hosted/bad:1")),
            ("by its other name", format!("{NAMED}/hosted/bad:1")),
            ("by its other name in capitals", "REGISTRY.test:5000/hosted/bad:1".to_owned()),
        ];
        for (name, image) in rows {
            self.image(&format!("{name}: {image}"), "lax", &image, Refused(CVE));
        }
        self.image("a clean upstream image", "lax", "up.test/team/good:1", Allowed);
        self.image("a clean tag of it", "lax", "up.test/team/bad:fine", Allowed);
        for image in [
            "docker.io./library/bad:1",
            "up.test./team/bad:1",
            "registry.test.:5000/hosted/bad:1",
            "docker.io:/library/bad:1",
            "docker.io:0/library/bad:1",
            "docker.io:99999/library/bad:1",
            "user@docker.io/library/bad:1",
            "[::1/hosted/bad:1",
            "[nonsense]/hosted/bad:1",
            // The first letter is a Cyrillic one.
            "\u{0456}ndex.docker.io/library/bad:1",
            "docker\u{3002}io/library/bad:1",
        ] {
            self.image(&format!("no host: {image}"), "lax", image, Refused("is no image"));
        }
        // Names that no rule knows: nobody can say what they stand for.
        for host in ["127.1", "127.0.0.2", "2130706433", "0x7f.1", "[::1]", "localhost.localdomain"]
        {
            let image = format!("{host}:{port}/hosted/bad:1");
            self.image(&format!("a name that no rule knows: {image}"), "shop", &image, Refused(""));
        }
        for image in ["docker.io:80/library/bad:1", "up.test:0/team/bad:1"] {
            self.image(&format!("another port: {image}"), "shop", image, Refused(""));
        }
    }

    /// Images of which nothing is known.
    fn unknown(&mut self) {
        let gone = self.world.own("hosted/gone-bad:1");
        let opaque = self.world.own("hosted/opaque:1");
        let unread = "up.test/team/unread:1";
        self.image("an image that is not there", "shop", &gone, Refused("looked up"));
        self.image("the same where errors warn", "lax", &gone, Warned("looked up"));
        self.image("the same where a namespace is strict", "strict", &gone, Refused("looked up"));
        self.image("the same where errors pass", "careless", &gone, Allowed);
        self.image("nobody could read it", "shop", unread, Refused("scanned"));
        self.image("the same where the policy waits", "lax", unread, Refused("scanned"));
        self.image("the same in a strict namespace", "strict", unread, Refused("scanned"));
        self.image("the same where that passes", "careless", unread, Allowed);
        self.image("it has no list of packages", "shop", &opaque, Refused("wholly scanned"));
        let mixed = self.world.own("hosted/bad:1");
        let both = json!({"containers": [container("a", unread), container("b", &mixed)]});
        self.create("beside one that is vulnerable", "careless", with(unread, both), Refused(CVE));
    }

    /// Words that a pod says of itself.
    fn forgeries(&mut self) {
        let bad = self.world.own("hosted/bad:1");
        let annotated = |key: &str, value: &str| marked(&bad, json!({"annotations": {key: value}}));
        let mirror = |mut metadata: Value| {
            metadata["annotations"] = json!({"kubernetes.io/config.mirror": "abc"});
            let mut object = with(&bad, json!({"nodeName": "n"}));
            object["metadata"] = metadata;
            object
        };
        let labelled = |key: &str, value: &str| marked(&bad, json!({"labels": {key: value}}));
        let rows = [
            ("the bypass without the right", annotated("kuboard.cn/bypass", "please")),
            ("a verdict", annotated("kuboard.cn/verdict", "allow")),
            ("taken out", annotated("kuboard.cn/admission", "disabled")),
            ("a static pod of a file", annotated("kubernetes.io/config.source", "file")),
            ("Kyverno's word", annotated("kyverno.io/verify-images", "{\"x\": \"pass\"}")),
            ("Sigstore's word", annotated("policy.sigstore.dev/include", "false")),
            ("a label that takes it out", labelled("kuboard.cn/admission", "disabled")),
            ("a bypass as a label", labelled("kuboard.cn/bypass", "please")),
            ("the operator's probe", labelled("kuboard.cn/probe", "abc")),
            ("a label of the operator", labelled("app.kubernetes.io/managed-by", "kuboard")),
            (
                "the name of a system namespace",
                labelled("kubernetes.io/metadata.name", "kube-system"),
            ),
            ("a name to be made", marked(&bad, json!({"generateName": "case-"}))),
            (
                "an owner",
                marked(
                    &bad,
                    json!({"ownerReferences": [{"apiVersion": "apps/v1",
                    "kind": "ReplicaSet", "name": "r", "controller": true,
                    "uid": "6d5a1a86-0000-4000-8000-000000000000"}]}),
                ),
            ),
            ("a mirror of a static pod", mirror(json!({}))),
            (
                "a mirror of a static pod, owned by its node",
                mirror(
                    json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n",
                    "controller": true, "uid": "6d5a1a86-0000-4000-8000-000000000001"}]}),
                ),
            ),
            ("critical for the cluster", with(&bad, json!({"priority": 0}))),
        ];
        for (name, object) in rows {
            self.create(name, "shop", object, Refused(CVE));
        }
    }

    /// Who may, and who may not.
    fn rights(&mut self) {
        let (bad, good) = (self.world.own("hosted/bad:1"), self.world.own("hosted/good:1"));
        let dry = ["create", "--dry-run=server", "-f", "-"];
        let mut probe = pod("shop", "{pod}", &bad);
        self.ask("a dry run", &dry, Some(probe.to_string()), Refused(CVE));
        probe["metadata"]["labels"] = json!({"kuboard.cn/probe": "abc"});
        self.ask("the probe as a dry run", &dry, Some(probe.to_string()), Refused(CVE));
        let mut bypass = pod("shop", "{pod}", &bad);
        bypass["metadata"]["annotations"] = json!({"kuboard.cn/bypass": "an outage"});
        self.ask("the bypass with the right", &dry, Some(bypass.to_string()), Allowed);
        self.by_admin();
        let plain = pod("shop", "{pod}", &bad).to_string();
        self.ask("the right without the bypass", &dry, Some(plain), Refused(CVE));
        self.by_admin();
        // What checks nodes may speak before us.
        let plain = pod("shop", "{pod}", &bad).to_string();
        let node = ["create", "-f", "-", "--as=system:node:n", "--as-group=system:nodes"];
        self.ask("a node asks for a pod", &node, Some(plain), Forbidden(""));
        self.by_admin();
        let init = json!([container("i", &bad)]).to_string();
        let old = json!({"annotations": {"pod.beta.kubernetes.io/init-containers": init.as_str(),
            "pod.alpha.kubernetes.io/init-containers": init}});
        self.create(
            "init containers as they were written once",
            "shop",
            marked(&good, old),
            Allowed,
        );
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            pod("shop", "{pod}-a", &good), pod("shop", "{pod}-b", &bad)]});
        self.ask("in a list", &["create", "-f", "-"], Some(list.to_string()), Refused(CVE));
        for verb in ["delete", "patch"] {
            let more: &[&str] = if verb == "patch" { &["-p", "{\"webhooks\":[]}"] } else { &[] };
            let arguments =
                [&[verb, "validatingwebhookconfiguration", "kuboard-admission"], more].concat();
            self.ask(&format!("{verb} the webhook"), &arguments, None, Forbidden("cannot"));
        }
        let exemption = json!({"apiVersion": "kuboard.cn/v1alpha1", "kind": "ImageExemption",
            "metadata": {"name": "mine", "namespace": "shop"}, "spec": {"vulnerabilities": ["*"],
                "reason": "mine", "expiresAt": "2999-01-01T00:00:00Z"}});
        let arguments = ["create", "-f", "-"];
        self.ask(
            "an exemption of one's own",
            &arguments,
            Some(exemption.to_string()),
            Forbidden("cannot"),
        );
        let arguments = ["-n", "shop", "delete", "imagescanpolicy", "p"];
        self.ask("delete the policy", &arguments, None, Forbidden("cannot"));
    }

    /// Labels of namespaces.
    fn namespaces(&mut self) {
        let bad = self.world.own("hosted/bad:1");
        let only = Forbidden("only who may");
        let label = |namespace: &'static str, label: &'static str| {
            ["label", "--overwrite", "namespace", namespace, label]
        };
        for (name, arguments, expect) in [
            ("take a namespace out", label("shop", "kuboard.cn/admission=disabled"), only),
            ("another word", label("shop", "kuboard.cn/admission=off"), only),
            ("bring one in", label("out", "kuboard.cn/admission-"), only),
            ("take away strict", label("strict", "kuboard.cn/enforce-"), only),
            ("something else than strict", label("strict", "kuboard.cn/enforce=open"), only),
            ("a label of one's own", label("shop", "team=shop"), Allowed),
            ("make a namespace strict", label("audited", "kuboard.cn/enforce=strict"), Allowed),
            (
                "a system namespace's name",
                label("shop", "kubernetes.io/metadata.name=kube-system"),
                NoEffect,
            ),
        ] {
            self.ask(name, &arguments, None, expect);
        }
        let out = json!({"metadata": {"labels": {"kuboard.cn/admission": "disabled"}}}).to_string();
        let patch = ["patch", "namespace", "shop", "--type", "merge", "-p", &out];
        self.ask("take it out by a patch", &patch, None, only);
        for resource in ["status", "finalize"] {
            let path = format!("/api/v1/namespaces/shop/{resource}");
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop",
                "labels": {"kuboard.cn/admission": "disabled"}}, "spec": {"finalizers": ["kubernetes"]}});
            let arguments = ["replace", "--raw", &path, "-f", "-"];
            let name = format!("take it out by the subresource {resource}");
            self.ask(&name, &arguments, Some(object.to_string()), only);
        }
        let replaced = namespace("strict", &[("other", "label")]);
        self.ask("replace the labels", &["replace", "-f", "-"], Some(replaced), only);
        let fresh = namespace("{pod}", &[("kuboard.cn/admission", "disabled")]);
        self.ask("a new namespace that is out", &["create", "-f", "-"], Some(fresh), only);
        let fresh = namespace("{pod}", &[("guarded", "yes")]);
        let both = format!("{fresh}\n---\n{}", pod("{pod}", "{pod}", &bad));
        self.ask(
            "a pod right behind its namespace",
            &["create", "-f", "-"],
            Some(both),
            Refused(CVE),
        );
        self.image("after all of this", "shop", &bad, Refused(CVE));
        self.image("and in the strict namespace", "strict", &bad, Refused("pods-strict"));
        for name in ["kube-system", "kube-public", "kuboard", "out", "free"] {
            self.image(&format!("nobody judges {name}"), name, &bad, Allowed);
        }
    }

    /// Policies and exemptions.
    fn policies(&mut self) {
        let bad = self.world.own("hosted/bad:1");
        let up = "up.test/team/bad:1";
        let digest = self.world.bad.digest;
        let by_digest = format!("up.test/team/bad@{digest}");
        for (name, namespace, image, expect) in [
            ("a cluster policy by labels", "guarded", bad.as_str(), Refused("guards")),
            ("a policy that warns", "warned", &bad, Warned(CVE)),
            ("a policy that records", "audited", &bad, Allowed),
            ("one that records beside one that refuses", "both", &bad, Refused("both/enforces")),
            ("one that records beside one that warns", "milder", &bad, Warned("milder/warns")),
            ("a policy for worse findings", "critical", &bad, Allowed),
            ("a policy that rests", "suspended", &bad, Allowed),
            ("a policy for tags", "tagged", up, Refused(CVE)),
            ("a policy for tags, by digest", "tagged", &by_digest, Refused(CVE)),
            ("a policy for other images", "tagged", &bad, Allowed),
            ("an excluded registry", "trusting", up, Allowed),
            ("excluded by another of its hosts", "trusting", "mirror.test/team/bad:1", Allowed),
            ("a registry that is not excluded", "trusting", &bad, Refused(CVE)),
            ("a host that begins like it", "trusting", "up.test.evil.test/team/bad:1", Refused("")),
            ("a host that ends like it", "trusting", "notup.test/team/bad:1", Refused("")),
            ("its port is another", "trusting", "up.test:5000/team/bad:1", Allowed),
            ("an exemption", "exempt", &bad, Allowed),
            ("an exemption that is over", "expired", &bad, Refused(CVE)),
            ("an exemption of another image", "other-image", &bad, Refused(CVE)),
            ("an exemption of another namespace", "shop", &bad, Refused(CVE)),
            ("an exemption of a tag", "by-tag", up, Allowed),
            ("an exemption of a tag, by digest", "by-tag", &by_digest, Refused(CVE)),
            ("an exemption of a tag, by another name", "by-tag", "bad:1", Refused(CVE)),
        ] {
            self.image(name, namespace, image, expect);
        }
        let both = format!("up.test/team/bad:1@{digest}");
        self.image("an exemption of a tag with its digest", "by-tag", &both, Allowed);
        let other = format!("up.test/team/bad:1@{}", self.world.other.digest);
        self.image("an exemption of a tag with another digest", "by-tag", &other, Refused(CVE));
    }

    /// What makes pods is warned of, and its pods are refused.
    fn workloads(&mut self) {
        let (bad, good) = (self.world.own("hosted/bad:1"), self.world.own("hosted/good:1"));
        let template = |image: &str, restart: &str| {
            json!({"metadata": {"labels": {"a": "b"}},
                "spec": {"restartPolicy": restart, "containers": [container("main", image)]}})
        };
        let set = |image: &str| {
            json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
                "template": template(image, "Always")})
        };
        let object = |version: &str, kind: &str, spec: Value| {
            json!({"apiVersion": version, "kind": kind,
                "metadata": {"name": "{pod}", "namespace": "shop"}, "spec": spec})
        };
        let mut daemon = set(&bad);
        let mut stateful = set(&bad);
        if let (Some(daemon), Some(stateful)) = (daemon.as_object_mut(), stateful.as_object_mut()) {
            daemon.remove("replicas");
            stateful.insert("serviceName".to_owned(), json!("s"));
        }
        let job = json!({"template": template(&bad, "Never")});
        let controller = json!({"selector": {"a": "b"}, "template": template(&bad, "Always")});
        let will = Warned("pods will be refused");
        for (name, it, expect) in [
            ("a deployment", object("apps/v1", "Deployment", set(&bad)), will),
            ("a clean deployment", object("apps/v1", "Deployment", set(&good)), Allowed),
            ("a replica set", object("apps/v1", "ReplicaSet", set(&bad)), will),
            ("a stateful set", object("apps/v1", "StatefulSet", stateful), will),
            ("a daemon set", object("apps/v1", "DaemonSet", daemon), will),
            ("a job", object("batch/v1", "Job", job.clone()), will),
            (
                "a cron job",
                object(
                    "batch/v1",
                    "CronJob",
                    json!({"schedule": "@daily", "jobTemplate": {"spec": job}}),
                ),
                will,
            ),
            ("a replication controller", object("v1", "ReplicationController", controller), will),
            (
                "a deployment of a form of old",
                object("extensions/v1beta1", "Deployment", set(&bad)),
                Forbidden("no matches for kind"),
            ),
        ] {
            self.ask(name, &["create", "-f", "-"], Some(it.to_string()), expect);
        }
        // Their pods, asked for by the controllers themselves.
        for name in ["replicaset", "job", "daemon-set", "statefulset", "replication"] {
            let who = match name {
                "replication" => "replication-controller".to_owned(),
                name => format!("{name}-controller"),
            };
            let user = format!("--as=system:serviceaccount:kube-system:{who}");
            let owned = pod("shop", "{pod}", &bad).to_string();
            let arguments = ["create", "-f", "-", &user];
            self.ask(&format!("a pod of the {who}"), &arguments, Some(owned), Refused(CVE));
            self.by_admin();
        }
    }
}
