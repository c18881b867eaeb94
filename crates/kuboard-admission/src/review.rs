//! What the API server asks: an `AdmissionReview` (admission.k8s.io/v1) read with narrow borrowed
//! structs, and the images of the pods and pod templates in it.
//!
//! Pure, and bounded by the length of the body. Whatever can't be read becomes a [`Refusal`] that
//! still knows the request's uid if the text has one, so that the answer can be a refusal rather
//! than a fault, which a webhook that fails open would pass.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, Visitor},
};
use serde_json::value::RawValue;

/// Largest body: a request of the API server's own limit (3 MiB) twice, as an update carries the
/// old object and the new one, and what JSON adds to them.
pub const MAX_BODY_BYTES: usize = 8 << 20;
/// Most places for images in one object.
pub const MAX_USES: usize = 1000;
/// The uid of a request is looked for here if nothing else can be read.
const UID_WITHIN: usize = 64 << 10;

/// A string of the body, borrowed unless it has escapes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrowing)
    }
}

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes, or is connected to: nothing starts.
    Other,
}

impl Operation {
    /// As the API server writes it; `OTHER` for those that are not judged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Other => "OTHER",
        }
    }
}

/// Kinds with pods in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pod.
    Pod,
    /// `spec.template` holds one: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job,
    /// ReplicationController.
    Template,
    /// `spec.jobTemplate.spec.template` holds one.
    CronJob,
    /// `template` holds one.
    PodTemplate,
    /// Nothing that is known to hold a pod.
    Unknown,
}

impl Kind {
    /// The kind of a group; versions do not matter, the fields are the same in all of them.
    #[must_use]
    pub fn of(group: &str, kind: &str) -> Self {
        match (group, kind) {
            ("", "Pod") => Self::Pod,
            ("", "PodTemplate") => Self::PodTemplate,
            ("", "ReplicationController")
            | ("apps" | "extensions", "Deployment" | "ReplicaSet" | "DaemonSet")
            | ("apps", "StatefulSet")
            | ("batch", "Job") => Self::Template,
            ("batch", "CronJob") => Self::CronJob,
            _ => Self::Unknown,
        }
    }
}

/// A request for a judgement.
#[derive(Debug)]
pub struct Review<'a> {
    /// What the answer must repeat.
    pub uid: Text<'a>,
    /// What the object is.
    pub kind: Kind,
    /// The name of the kind, such as `Pod`.
    pub kind_name: Text<'a>,
    /// What is done to it.
    pub operation: Operation,
    /// Empty for the object itself.
    pub sub_resource: Text<'a>,
    /// Empty if it is in none.
    pub namespace: Text<'a>,
    /// Empty if the API server has yet to make one.
    pub name: Text<'a>,
    /// Who asks.
    pub user: Text<'a>,
    /// Whether a node asks, for one of its own static pods perhaps.
    pub by_node: bool,
    /// Nothing may remain of it.
    pub dry_run: bool,
    object: Option<&'a RawValue>,
    old_object: Option<&'a RawValue>,
}

/// Why a body is no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The request's uid, if the text shows one.
    pub uid: Option<String>,
    /// What is wrong.
    pub why: String,
}

/// An object with pods in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload<'a> {
    /// Its name, or the prefix of the name to come.
    pub name: Text<'a>,
    /// The controller that owns it, if one does.
    pub owner: Option<Owner<'a>>,
    /// The value of the label by which the operator recognises its own question, of 1 to 63
    /// characters. It never changes a verdict.
    pub probe: Option<Text<'a>>,
    /// It says that it mirrors a static pod.
    pub mirror: bool,
    /// The service account of the pod; empty for the namespace's default.
    pub service_account: Text<'a>,
    /// Names of the pod's own imagePullSecrets.
    pub pull_secrets: Vec<Text<'a>>,
    /// The images, in the order of their places.
    pub uses: Vec<Use<'a>>,
}

/// Who owns an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Group and version.
    pub api_version: Text<'a>,
    /// Kind.
    pub kind: Text<'a>,
    /// Name.
    pub name: Text<'a>,
    /// Uid.
    pub uid: Text<'a>,
}

/// Where a pod names images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `initContainers`.
    Init,
    /// `containers`.
    Container,
    /// `ephemeralContainers`.
    Ephemeral,
    /// `volumes[].image`.
    Volume,
}

impl Place {
    /// As a sentence names it, before the name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init container",
            Self::Container => "container",
            Self::Ephemeral => "ephemeral container",
            Self::Volume => "volume",
        }
    }
}

/// One use of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use<'a> {
    /// In which list.
    pub place: Place,
    /// At which index of the list.
    pub index: usize,
    /// Name of the container or volume.
    pub container: Text<'a>,
    /// The image as it is written; empty if none is.
    pub image: Text<'a>,
}

impl<'a> Review<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no `AdmissionReview` of admission.k8s.io/v1 with a request.
    pub fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        let refused = |why: String| Refusal { uid: uid_of(body), why };
        let envelope: Envelope<'a> = serde_json::from_slice(body)
            .map_err(|fault| refused(format!("the AdmissionReview can't be read: {fault}")))?;
        let (version, kind) = (envelope.api_version.as_str(), envelope.kind.as_str());
        if version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
            return Err(refused(format!(
                "not an AdmissionReview of admission.k8s.io/v1: {} {}; hint: the webhook's \
                 admissionReviewVersions is [v1]",
                cut(version),
                cut(kind)
            )));
        }
        let Some(request) = envelope.request else {
            return Err(refused("an AdmissionReview without a request".to_owned()));
        };
        if request.uid.0.is_empty() || request.uid.0.len() > 256 {
            return Err(refused("a request without a uid".to_owned()));
        }
        let operation = match request.operation.as_str() {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            _ => Operation::Other,
        };
        let user = request.user_info.unwrap_or_default();
        let by_node = user.username.as_str().starts_with("system:node:")
            && user.groups.unwrap_or_default().iter().any(|it| it.as_str() == "system:nodes");
        Ok(Self {
            uid: request.uid,
            kind: Kind::of(request.kind.group.as_str(), request.kind.kind.as_str()),
            kind_name: request.kind.kind,
            operation,
            sub_resource: request.sub_resource.unwrap_or_default(),
            namespace: request.namespace.unwrap_or_default(),
            name: request.name.unwrap_or_default(),
            user: user.username,
            by_node,
            dry_run: request.dry_run.unwrap_or_default(),
            object: request.object,
            old_object: request.old_object,
        })
    }

    /// The object, or nothing if it is of no kind that holds pods or is not there.
    ///
    /// # Errors
    /// It is of such a kind and can't be read, or has more than [`MAX_USES`] images.
    pub fn workload(&self) -> Result<Option<Workload<'a>>, String> {
        read(self.kind, self.object)
    }

    /// The images that the object had before, as they were written; of a new one, none.
    ///
    /// # Errors
    /// As [`Review::workload`].
    pub fn old_images(&self) -> Result<BTreeSet<Cow<'a, str>>, String> {
        if self.operation != Operation::Update {
            return Ok(BTreeSet::new());
        }
        let old = read(self.kind, self.old_object)?.unwrap_or_default();
        Ok(old.uses.into_iter().map(|it| it.image.0).collect())
    }
}

fn read(kind: Kind, object: Option<&RawValue>) -> Result<Option<Workload<'_>>, String> {
    let Some(object) = object else { return Ok(None) };
    let faulty = |fault: serde_json::Error| format!("the object can't be read: {fault}");
    let text = object.get();
    let (metadata, pod) = match kind {
        Kind::Unknown => return Ok(None),
        Kind::Pod => {
            let pod: Pod<'_> = serde_json::from_str(text).map_err(faulty)?;
            (pod.metadata, pod.spec)
        }
        Kind::Template => {
            let it: Templated<'_> = serde_json::from_str(text).map_err(faulty)?;
            (it.metadata, it.spec.and_then(|it| it.template).and_then(|it| it.spec))
        }
        Kind::PodTemplate => {
            let it: PodTemplate<'_> = serde_json::from_str(text).map_err(faulty)?;
            (it.metadata, it.template.and_then(|it| it.spec))
        }
        Kind::CronJob => {
            let it: CronJob<'_> = serde_json::from_str(text).map_err(faulty)?;
            let job = it.spec.and_then(|it| it.job_template).and_then(|it| it.spec);
            (it.metadata, job.and_then(|it| it.template).and_then(|it| it.spec))
        }
    };
    workload(metadata.unwrap_or_default(), pod.unwrap_or_default()).map(Some)
}

fn workload<'a>(metadata: Metadata<'a>, spec: PodSpec<'a>) -> Result<Workload<'a>, String> {
    let mut uses = Vec::new();
    let lists = [
        (Place::Init, spec.init_containers),
        (Place::Container, spec.containers),
        (Place::Ephemeral, spec.ephemeral_containers),
    ];
    for (place, list) in lists {
        for (index, one) in list.unwrap_or_default().into_iter().enumerate() {
            let (container, image) = (one.name, one.image.unwrap_or_default());
            uses.push(Use { place, index, container: container.unwrap_or_default(), image });
        }
    }
    for (index, volume) in spec.volumes.unwrap_or_default().into_iter().enumerate() {
        if let Some(source) = volume.image {
            let (container, image) = (volume.name, source.reference.unwrap_or_default());
            let container = container.unwrap_or_default();
            uses.push(Use { place: Place::Volume, index, container, image });
        }
    }
    if uses.len() > MAX_USES {
        return Err(format!("{} images in one object; hint: at most {MAX_USES}", uses.len()));
    }
    let annotations = metadata.annotations.unwrap_or_default();
    let mut owners = metadata.owner_references.unwrap_or_default();
    let controller = owners.iter().position(|it| it.controller == Some(true));
    let owner = controller.map(|at| owners.swap_remove(at)).map(|it| Owner {
        api_version: it.api_version,
        kind: it.kind,
        name: it.name,
        uid: it.uid,
    });
    let name = metadata.name.filter(|it| !it.0.is_empty());
    Ok(Workload {
        name: name.or(metadata.generate_name).unwrap_or_default(),
        owner,
        probe: metadata.labels.unwrap_or_default().probe.filter(|it| is_nonce(it.as_str())),
        mirror: annotations.mirror.is_some(),
        service_account: spec.service_account_name.unwrap_or_default(),
        pull_secrets: spec
            .image_pull_secrets
            .unwrap_or_default()
            .into_iter()
            .filter_map(|it| it.name)
            .collect(),
        uses,
    })
}

fn is_nonce(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(fits)
}

/// The uid of the request in a text that may be cut off or broken.
#[must_use]
pub fn uid_of(body: &[u8]) -> Option<String> {
    let head = body.get(..UID_WITHIN).unwrap_or(body);
    let key = b"\"uid\"";
    let at = head.windows(key.len()).position(|it| it == key)? + key.len();
    let mut rest = head.get(at..)?.iter().copied().skip_while(u8::is_ascii_whitespace);
    if rest.next() != Some(b':') {
        return None;
    }
    let mut rest = rest.skip_while(u8::is_ascii_whitespace);
    if rest.next() != Some(b'"') {
        return None;
    }
    let mut uid = String::new();
    for byte in rest {
        match byte {
            b'"' if !uid.is_empty() => return Some(uid),
            b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' if uid.len() < 128 => {
                uid.push(char::from(byte));
            }
            _ => return None,
        }
    }
    None
}

/// What a message repeats of a stranger's text: one short line.
#[must_use]
pub fn cut(text: &str) -> String {
    let line = |it: char| if it.is_control() { '\u{fffd}' } else { it };
    let mut shown: String = text.chars().take(200).map(line).collect();
    if text.chars().nth(200).is_some() {
        shown.push('…');
    }
    shown
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow, default)]
    api_version: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    kind: GroupKind<'a>,
    #[serde(borrow, default)]
    sub_resource: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    operation: Text<'a>,
    #[serde(borrow, default)]
    user_info: Option<UserInfo<'a>>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Deserialize)]
struct GroupKind<'a> {
    #[serde(borrow, default)]
    group: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
}

#[derive(Default, Deserialize)]
struct UserInfo<'a> {
    #[serde(borrow, default)]
    username: Text<'a>,
    #[serde(borrow, default)]
    groups: Option<Vec<Text<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    generate_name: Option<Text<'a>>,
    #[serde(default)]
    annotations: Option<Annotations>,
    #[serde(borrow, default)]
    labels: Option<Labels<'a>>,
    #[serde(borrow, default)]
    owner_references: Option<Vec<OwnerReference<'a>>>,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(default, rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct Labels<'a> {
    #[serde(borrow, default, rename = "kuboard.cn/probe")]
    probe: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference<'a> {
    #[serde(borrow, default)]
    api_version: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    uid: Text<'a>,
    #[serde(default)]
    controller: Option<bool>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    spec: Option<PodSpec<'a>>,
}

#[derive(Deserialize)]
struct Templated<'a> {
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    spec: Option<TemplateOf<'a>>,
}

#[derive(Deserialize)]
struct TemplateOf<'a> {
    #[serde(borrow, default)]
    template: Option<Template<'a>>,
}

#[derive(Deserialize)]
struct PodTemplate<'a> {
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    template: Option<Template<'a>>,
}

#[derive(Deserialize)]
struct CronJob<'a> {
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    spec: Option<CronJobSpec<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CronJobSpec<'a> {
    #[serde(borrow, default)]
    job_template: Option<JobTemplate<'a>>,
}

#[derive(Deserialize)]
struct JobTemplate<'a> {
    #[serde(borrow, default)]
    spec: Option<TemplateOf<'a>>,
}

#[derive(Deserialize)]
struct Template<'a> {
    #[serde(borrow, default)]
    spec: Option<PodSpec<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec<'a> {
    #[serde(borrow, default)]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    ephemeral_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    volumes: Option<Vec<Volume<'a>>>,
    #[serde(borrow, default)]
    service_account_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    image_pull_secrets: Option<Vec<Named<'a>>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    image: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Volume<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    image: Option<ImageSource<'a>>,
}

#[derive(Deserialize)]
struct ImageSource<'a> {
    #[serde(borrow, default)]
    reference: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
}
