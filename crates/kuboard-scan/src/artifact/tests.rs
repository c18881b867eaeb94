//! Round trips of the database through registries: our own small one, which has the referrers API
//! or not and misbehaves as told, and the distribution project's behind a token service.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use kuboard_oci::{Digest, Reference};
use kuboard_registry::{
    client::{Upstream, UpstreamConfig},
    credentials::{Chain, Credential, Credentials, Secret, Static},
};
use kuboard_rt::{
    Tasks,
    http::{Body, Limits, Request, Response, bind, handler_fn},
};
use kuboard_testkit::{distribution::DistributionRegistry, token::TokenIssuer};
use kuboard_vuln::DatabaseStamp;
use parking_lot::Mutex;

use super::{ARTIFACT_TYPE, Manifest, Place, SIGNATURE, SIGNATURE_TYPE, pull, push};

/// What a registry holds, by path below the repository.
#[derive(Default)]
struct Held {
    blobs: BTreeMap<String, Bytes>,
    /// By digest and by tag.
    manifests: BTreeMap<String, Bytes>,
    /// Whether it has the referrers API.
    lists: bool,
    /// Where uploads go, instead of its own path.
    elsewhere: Option<String>,
    asked: Vec<String>,
    /// `Authorization` headers that came, by request.
    authorized: Vec<String>,
    /// Whether it answers only those who say who they are.
    asks_who: bool,
    /// Half of the next blobs is sent, so often.
    cuts: usize,
}

impl Held {
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: Bytes) -> Response {
        let (kind, rest) = path.trim_start_matches("/v2/db/").split_once('/').unwrap_or_default();
        let status = |status| plain(status, Body::empty());
        match (method, kind) {
            (&Method::POST, "blobs") => {
                let own = "/v2/db/blobs/uploads/1?_state=a%3Db".to_owned();
                let location = self.elsewhere.clone().unwrap_or(own);
                with(status(StatusCode::ACCEPTED), header::LOCATION.as_str(), &location)
            }
            (&Method::PUT, "blobs") => {
                let digest = Digest::sha256(&body).to_string();
                let named = format!("digest={}", digest.replace(':', "%3A"));
                if query != format!("_state=a%3Db&{named}") {
                    return status(StatusCode::BAD_REQUEST);
                }
                self.blobs.insert(digest, body);
                status(StatusCode::CREATED)
            }
            (&Method::PUT, "manifests") => {
                let digest = Digest::sha256(&body).to_string();
                let manifest: serde_json::Value = serde_json::from_slice(&body).unwrap();
                self.manifests.insert(digest.clone(), body.clone());
                self.manifests.insert(rest.to_owned(), body);
                let answer = status(StatusCode::CREATED);
                let answer = with(answer, "docker-content-digest", &digest);
                match manifest["subject"]["digest"].as_str() {
                    Some(subject) if self.lists => with(answer, "oci-subject", subject),
                    _ => answer,
                }
            }
            (_, "referrers") if self.lists => {
                let refers = |manifest: &serde_json::Value| manifest["subject"]["digest"] == rest;
                let mut found = BTreeMap::new();
                for bytes in self.manifests.values() {
                    let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                    if refers(&manifest) {
                        found.insert(Digest::sha256(bytes).to_string(), serde_json::json!({
                            "mediaType": manifest["mediaType"], "size": bytes.len(),
                            "digest": Digest::sha256(bytes), "artifactType": manifest["artifactType"],
                        }));
                    }
                }
                let found: Vec<_> = found.into_values().collect();
                let index = serde_json::json!({"schemaVersion": 2, "manifests": found,
                    "mediaType": "application/vnd.oci.image.index.v1+json"});
                plain(StatusCode::OK, Body::full(index.to_string()))
            }
            (_, "manifests") => match self.manifests.get(rest) {
                Some(bytes) => plain(StatusCode::OK, Body::full(bytes.clone())),
                None => status(StatusCode::NOT_FOUND),
            },
            (_, "blobs") => match self.blobs.get(rest) {
                Some(bytes) if method == Method::HEAD => {
                    let length = bytes.len().to_string();
                    with(status(StatusCode::OK), header::CONTENT_LENGTH.as_str(), &length)
                }
                Some(bytes) if self.cuts > 0 => {
                    self.cuts -= 1;
                    let half = bytes.slice(..bytes.len() / 2);
                    let half =
                        futures_util::stream::iter([Ok(half), Err(std::io::Error::other("cut"))]);
                    plain(StatusCode::OK, Body::sized_stream(bytes.len() as u64, half))
                }
                Some(bytes) => plain(StatusCode::OK, Body::full(bytes.clone())),
                None => status(StatusCode::NOT_FOUND),
            },
            _ => status(StatusCode::NOT_FOUND),
        }
    }
}

fn plain(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn with(mut response: Response, name: &str, value: &str) -> Response {
    let name: header::HeaderName = name.parse().unwrap();
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

struct Registry {
    held: Arc<Mutex<Held>>,
    place: Place,
    tasks: Tasks,
    folder: tempfile::TempDir,
}

impl Registry {
    async fn start(lists: bool) -> Self {
        let held = Arc::new(Mutex::new(Held { lists, ..Held::default() }));
        let tasks = Tasks::default();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = bind(address, None, Limits::default()).await.unwrap();
        let address = bound.local_addr().unwrap().to_string();
        let seen = held.clone();
        let handler = handler_fn(move |request: Request| {
            let held = seen.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect(64 << 20).await.unwrap();
                let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
                let mut held = held.lock();
                held.asked.push(format!("{} {path}", head.method));
                let header = head.headers.get(header::AUTHORIZATION);
                if header.is_none() && held.asks_who {
                    let answer = plain(StatusCode::UNAUTHORIZED, Body::empty());
                    return with(answer, "www-authenticate", "Basic realm=\"x\"");
                }
                held.authorized.extend(header.map(|one| one.to_str().unwrap().to_owned()));
                held.answer(&head.method, path, query, body)
            }
        });
        let stop = tasks.shutdown();
        tasks.spawn("registry", async move {
            bound.serve(handler, stop, Duration::ZERO).await.unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let place = place(&address, Arc::new(Chain::default()));
        Self { held, place, tasks, folder }
    }

    async fn push(&self, generation: u64, key: Option<&[u8]>) -> anyhow::Result<Digest> {
        let stamp = stamp(generation);
        push(&self.place, &tag(), bundle(generation), &stamp, key).await
    }

    async fn pull(&self, key: Option<&[u8]>) -> Result<u64, String> {
        let pulled = pull(&self.place, &tag(), key, self.folder.path()).await;
        let mut file = pulled.map_err(|error| format!("{error:#}"))?;
        assert_eq!(std::fs::read_dir(self.folder.path()).unwrap().count(), 0);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let found = (1..10).find(|generation| bundle(*generation) == bytes);
        Ok(found.unwrap())
    }

    async fn stop(self) {
        self.tasks.drain(Duration::ZERO).await;
    }
}

fn place(address: &str, credentials: Arc<dyn Credentials>) -> Place {
    let url = url::Url::parse(&format!("http://{address}")).unwrap();
    let config = UpstreamConfig::new(address, vec![url]);
    let metrics = prometheus::Registry::new();
    let upstream = Upstream::new(config, credentials, &metrics).unwrap();
    Place { upstream, repository: "db".parse().unwrap() }
}

fn tag() -> Reference {
    "latest".parse().unwrap()
}

fn bundle(generation: u64) -> Bytes {
    format!("KBADVEX {generation} ").repeat(20_000).into()
}

fn stamp(generation: u64) -> DatabaseStamp {
    DatabaseStamp { generation, built_ms: 1_700_000_000_000, ..DatabaseStamp::default() }
}

/// A private and its public key.
fn keys() -> (Vec<u8>, Vec<u8>) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let private = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
    let spki = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    (private, [&spki[..], pair.public_key().as_ref()].concat())
}

#[tokio::test]
async fn what_is_pushed_is_pulled() {
    for lists in [true, false] {
        let registry = Registry::start(lists).await;
        let (private, public) = keys();
        let (other_private, other) = keys();
        registry.push(1, None).await.unwrap();
        assert_eq!(registry.pull(None).await, Ok(1));
        let refused = registry.pull(Some(&public)).await.unwrap_err();
        assert!(
            refused.contains("nobody signed sha256:") && refused.contains("hint: "),
            "{refused}"
        );

        let digest = registry.push(2, Some(&private)).await.unwrap();
        assert_eq!(registry.pull(None).await, Ok(2));
        assert_eq!(registry.pull(Some(&public)).await, Ok(2));
        let refused = registry.pull(Some(&other)).await.unwrap_err();
        assert!(
            refused.contains("none of 1 signatures") && refused.contains("hint: "),
            "{refused}"
        );

        // The same, signed once more by somebody else, and by the first again.
        assert_eq!(registry.push(2, Some(&other_private)).await.unwrap(), digest);
        assert_eq!(registry.push(2, Some(&private)).await.unwrap(), digest);
        assert_eq!(registry.pull(Some(&public)).await, Ok(2));
        assert_eq!(registry.pull(Some(&other)).await, Ok(2));
        let fallback = format!("sha256-{}", digest.hex());
        assert_eq!(registry.held.lock().manifests.contains_key(&fallback), !lists);
        let manifest = registry.held.lock().manifests["latest"].clone();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest.artifact_type.as_deref(), Some(ARTIFACT_TYPE));
        let annotations: Vec<_> =
            manifest.annotations.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            annotations,
            [
                "cn.kuboard.advisories.format=1",
                "cn.kuboard.advisories.generation=2",
                "org.opencontainers.image.created=2023-11-14T22:13:20Z",
            ]
        );
        registry.stop().await;
    }
}

#[tokio::test]
async fn the_tag_comes_last_and_blobs_once() {
    let registry = Registry::start(true).await;
    let (private, _) = keys();
    registry.push(1, Some(&private)).await.unwrap();
    let puts = |registry: &Registry| -> Vec<String> {
        let held = registry.held.lock();
        held.asked.iter().filter(|one| one.starts_with("PUT")).cloned().collect()
    };
    let first = puts(&registry);
    assert_eq!(first.last().unwrap(), "PUT /v2/db/manifests/latest");
    assert_eq!(first.iter().filter(|one| one.ends_with("/latest")).count(), 1);
    registry.held.lock().asked.clear();
    registry.push(1, Some(&private)).await.unwrap();
    assert!(puts(&registry).iter().all(|one| one.contains("/manifests/")));
    let digest: Reference = Digest::sha256(b"x").to_string().parse().unwrap();
    let error = push(&registry.place, &digest, bundle(1), &stamp(1), None).await.unwrap_err();
    assert!(error.to_string().contains("is no tag"), "{error}");
    registry.stop().await;
}

/// Changes what the registry holds of a signed generation 1; how the pull with the key ends then.
async fn check(situation: &str, change: impl Fn(&mut Held, &Digest), expected: Result<u64, &str>) {
    let registry = Registry::start(true).await;
    let (private, public) = keys();
    let digest = registry.push(1, Some(&private)).await.unwrap();
    change(&mut registry.held.lock(), &digest);
    let outcome = registry.pull(Some(&public)).await;
    match (&outcome, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{situation}"),
        (Err(error), Err(part)) => assert!(error.contains(part), "{situation}: {error}"),
        _ => panic!("{situation}: {outcome:?}, not {expected:?}"),
    }
    registry.stop().await;
}

/// The key of the one manifest that signs.
fn signing(held: &Held) -> String {
    let is_signing = |bytes: &Bytes| {
        let manifest: Manifest = serde_json::from_slice(bytes).unwrap();
        manifest.artifact_type.as_deref() == Some(SIGNATURE_TYPE)
    };
    held.manifests.iter().find(|(_, bytes)| is_signing(bytes)).unwrap().0.clone()
}

/// Puts another manifest in place of one, under its own digest.
fn change_signing(held: &mut Held, change: impl Fn(&mut Manifest)) {
    let key = signing(held);
    let bytes = held.manifests.remove(&key).unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    change(&mut manifest);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    held.manifests.insert(Digest::sha256(&bytes).to_string(), bytes.into());
}

fn flip(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
    bytes.into()
}

#[tokio::test]
async fn forged_and_damaged_artifacts_are_refused() {
    check("as it was", |_, _| (), Ok(1)).await;
    check(
        "no signature",
        |held, _| drop(held.manifests.remove(&signing(held))),
        Err("nobody signed"),
    )
    .await;
    let forge = |held: &mut Held, digest: &Digest| {
        // Another bundle under the tag, with the signature of the first pointed at it.
        let (old, new) = (bundle(1), bundle(2));
        let text = String::from_utf8(held.manifests["latest"].to_vec()).unwrap();
        let text = text.replace(&Digest::sha256(&old).hex(), &Digest::sha256(&new).hex());
        held.blobs.insert(Digest::sha256(&new).to_string(), new);
        let forged = Bytes::from(text);
        let (was, now) = (digest.hex(), Digest::sha256(&forged));
        held.manifests.insert("latest".to_owned(), forged.clone());
        held.manifests.insert(now.to_string(), forged);
        change_signing(held, |manifest| {
            let text = serde_json::to_string(&manifest).unwrap().replace(&was, &now.hex());
            *manifest = serde_json::from_str(&text).unwrap();
        });
    };
    check("the signature of another artifact", forge, Err("it was made for another artifact"))
        .await;
    let strange = |held: &mut Held, _: &Digest| {
        change_signing(held, |manifest| {
            manifest.annotations.insert(SIGNATURE.to_owned(), "AAAA".to_owned());
        });
    };
    check("another signature", strange, Err("its signature is not of that key")).await;
    let unsigned = |held: &mut Held, _: &Digest| {
        change_signing(held, |manifest| manifest.annotations.clear());
    };
    check("a signature without one", unsigned, Err("it holds no signature")).await;
    let long = |held: &mut Held, _: &Digest| {
        change_signing(held, |manifest| manifest.layers[0].size = 1 << 40);
    };
    check("an endless payload", long, Err("its payload has 1099511627776 bytes")).await;
    let payload = |held: &mut Held, _: &Digest| {
        for bytes in held.blobs.values_mut().filter(|bytes| bytes.len() < 1000) {
            *bytes = flip(bytes);
        }
    };
    check("a damaged payload", payload, Err("its payload is damaged")).await;
    let damaged = |held: &mut Held, _: &Digest| {
        for bytes in held.blobs.values_mut().filter(|bytes| bytes.len() > 1000) {
            *bytes = flip(bytes);
        }
    };
    check("a damaged bundle", damaged, Err("the bundle is damaged")).await;
    let longer = |held: &mut Held, _: &Digest| {
        for bytes in held.blobs.values_mut().filter(|bytes| bytes.len() > 1000) {
            *bytes = bundle(1).repeat(2).into();
        }
    };
    check("a longer bundle", longer, Err("longer than its manifest says")).await;
    let image = |held: &mut Held, _: &Digest| {
        let text = String::from_utf8(held.manifests["latest"].to_vec()).unwrap();
        held.manifests.insert("latest".to_owned(), text.replace(ARTIFACT_TYPE, "x/y").into());
    };
    check("an image", image, Err("holds no advisories under latest; hint: ")).await;
    let newer = |held: &mut Held, _: &Digest| {
        let text = String::from_utf8(held.manifests["latest"].to_vec()).unwrap();
        let text = text.replace("format\":\"1\"", "format\":\"2\"");
        held.manifests.insert("latest".to_owned(), text.into());
    };
    check("a newer format", newer, Err("have format 2")).await;
    check("gone", |held, _| drop(held.manifests.remove("latest")), Err("404")).await;
}

#[tokio::test]
async fn a_broken_download_is_taken_up_again() {
    let registry = Registry::start(true).await;
    registry.push(1, None).await.unwrap();
    registry.held.lock().cuts = 2;
    assert_eq!(registry.pull(None).await, Ok(1));
    assert_eq!(registry.held.lock().cuts, 0);
    registry.stop().await;
}

/// The credentials of a registry are for it alone, wherever it sends uploads to.
#[tokio::test]
async fn credentials_do_not_follow_an_upload_elsewhere() {
    let storage = Registry::start(true).await;
    let registry = Registry::start(true).await;
    registry.held.lock().asks_who = true;
    let password = Secret::new("s3cret");
    let login = Credential::Basic { user: "robot".to_owned(), password };
    let (address, other) = (name(&registry), name(&storage));
    let place = place(&address, Arc::new(Static::new(&*address, login)));
    let elsewhere = format!("http://{other}/v2/db/blobs/uploads/1?_state=a%3Db");
    registry.held.lock().elsewhere = Some(elsewhere);
    push(&place, &tag(), bundle(1), &stamp(1), None).await.unwrap();
    assert_eq!(storage.held.lock().blobs.len(), 2);
    assert_eq!(storage.held.lock().authorized, Vec::<String>::new());
    assert!(registry.held.lock().authorized.len() > 4);
    for bad in ["ftp://x/", "", "http://u:p@127.0.0.1/", "http://[bad"] {
        registry.held.lock().elsewhere = Some(bad.to_owned());
        assert!(push(&place, &tag(), bundle(2), &stamp(2), None).await.is_err(), "{bad}");
    }
    storage.stop().await;
    registry.stop().await;
}

fn name(registry: &Registry) -> String {
    registry.place.upstream.name().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_distribution_registry_takes_it_too() {
    let issuer = TokenIssuer::start("robot", "s3cret").unwrap();
    let registry = DistributionRegistry::builder().token(&issuer).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let address = registry.address();
    let password = Secret::new("s3cret");
    let login = Credential::Basic { user: "robot".to_owned(), password };
    let mine = place(address, Arc::new(Static::new(address, login)));
    let (private, public) = keys();
    // A reader's token is not enough to push, which the registry says when it is asked.
    assert!(pull(&mine, &tag(), None, folder.path()).await.is_err());
    push(&mine, &tag(), bundle(1), &stamp(1), Some(&private)).await.unwrap();
    let mut bytes = Vec::new();
    let pulled = pull(&mine, &tag(), Some(&public), folder.path()).await;
    pulled.unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, bundle(1));
    let stranger = place(address, Arc::new(Chain::default()));
    let refused = push(&stranger, &tag(), bundle(1), &stamp(1), None).await.unwrap_err();
    assert!(format!("{refused:#}").contains("401"), "{refused:#}");
}
