//! Image references as Docker reads them.

use kuboard_oci::{ImageReference, ImageReferenceError, NameError};
use proptest::prelude::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[track_caller]
fn check(text: &str, expected: &str) {
    let read: ImageReference =
        text.parse().unwrap_or_else(|error| panic!("{text:?} was refused: {error}"));
    assert_eq!(read.to_string(), expected, "{text:?}");
    assert_eq!(read.to_string().parse(), Ok(read), "{text:?}");
}

#[test]
fn defaults_of_docker() {
    let table = [
        ("alpine", "docker.io/library/alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("team/app", "docker.io/team/app"),
        ("library/alpine", "docker.io/library/alpine"),
        ("docker.io/alpine", "docker.io/library/alpine"),
        ("Docker.IO/alpine", "docker.io/library/alpine"),
        ("index.docker.io/alpine:1", "docker.io/library/alpine:1"),
        ("index.docker.io/team/app", "docker.io/team/app"),
        ("localhost", "docker.io/library/localhost"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("host.example:5000", "docker.io/library/host.example:5000"),
    ];
    for (text, expected) in table {
        check(text, expected);
    }
}

#[test]
fn hosts() {
    let table = [
        ("localhost/app", "localhost/app"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("host:5000/app", "host:5000/app"),
        ("ghcr.io/team/app", "ghcr.io/team/app"),
        ("GHCR.io/team/app", "ghcr.io/team/app"),
        ("LOCALHOST/app", "localhost/app"),
        ("MYHOST/app", "MYHOST/app"),
        ("MYHOST:80/app", "myhost:80/app"),
        ("a.b.c:65535/app", "a.b.c:65535/app"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
        ("[::1]/app", "[::1]/app"),
        ("[::1]:5000/app:v1", "[::1]:5000/app:v1"),
        ("[2001:DB8::1]:5000/app", "[2001:db8::1]:5000/app"),
        ("host:80/docker.io/library/alpine:1", "host:80/docker.io/library/alpine:1"),
    ];
    for (text, expected) in table {
        check(text, expected);
    }
}

#[test]
fn digests() {
    let by_digest = format!("docker.io/library/alpine@sha256:{HEX}");
    check(&format!("alpine@sha256:{HEX}"), &by_digest);
    let both = format!("[::1]:5000/a/b:v1@sha256:{HEX}");
    check(&both, &both);
    let read: ImageReference = both.parse().unwrap();
    assert_eq!(read.registry, "[::1]:5000");
    assert_eq!(read.repository.as_str(), "a/b");
    assert_eq!(read.tag.unwrap().as_str(), "v1");
    assert_eq!(read.digest.unwrap().hex(), HEX);
}

#[test]
fn refused() {
    use ImageReferenceError as E;
    type Expected = fn(&E) -> bool;
    let table: &[(&str, Expected)] = &[
        ("", |e| matches!(e, E::Name(NameError::Empty))),
        ("https://ghcr.io/app", |e| matches!(e, E::Scheme)),
        ("docker://alpine", |e| matches!(e, E::Scheme)),
        (HEX, |e| matches!(e, E::Identifier)),
        ("ghcr.io/", |e| matches!(e, E::Name(NameError::Empty))),
        ("docker.io/", |e| matches!(e, E::Name(NameError::Empty))),
        (":v1", |e| matches!(e, E::Name(NameError::Empty))),
        ("alpine:", |e| matches!(e, E::Tag(_))),
        ("alpine:v1:v2", |e| matches!(e, E::Name(NameError::Grammar { at: 6 }))),
        ("Alpine", |e| matches!(e, E::Name(NameError::Grammar { at: 0 }))),
        ("docker.io/Alpine", |e| matches!(e, E::Name(NameError::Grammar { at: 0 }))),
        ("a b", |e| matches!(e, E::Name(NameError::Grammar { at: 1 }))),
        ("alpine@", |e| matches!(e, E::Digest(_))),
        ("alpine@v1", |e| matches!(e, E::Digest(_))),
        ("user:secret@ghcr.io/app", |e| matches!(e, E::Digest(_))),
        ("-bad.host/app", |e| matches!(e, E::Host)),
        ("bad..host/app", |e| matches!(e, E::Host)),
        ("under_score.host/app", |e| matches!(e, E::Host)),
        ("host:/app", |e| matches!(e, E::Host)),
        ("host:0/app", |e| matches!(e, E::Host)),
        ("host:65536/app", |e| matches!(e, E::Host)),
        ("host:+80/app", |e| matches!(e, E::Host)),
        ("host:80:81/app", |e| matches!(e, E::Host)),
        ("::1/app", |e| matches!(e, E::Host)),
        ("[::1/app", |e| matches!(e, E::Host)),
        ("[::1]80/app", |e| matches!(e, E::Host)),
        ("[::1]:/app", |e| matches!(e, E::Host)),
        ("[]:80/app", |e| matches!(e, E::Host)),
        ("[fe80::1%25eth0]:80/app", |e| matches!(e, E::Host)),
        ("é.example/app", |e| matches!(e, E::Host)),
        ("../app", |e| matches!(e, E::Host)),
    ];
    for (text, expected) in table {
        match text.parse::<ImageReference>() {
            Err(error) => assert!(expected(&error), "{text:?}: {error:?}"),
            Ok(read) => panic!("{text:?} was read as {read}"),
        }
    }
}

#[test]
fn a_long_host_is_refused() {
    let host = format!("{}.example", "a".repeat(300));
    assert_eq!(format!("{host}/app").parse::<ImageReference>(), Err(ImageReferenceError::Host));
}

proptest! {
    #[test]
    fn the_full_form_reads_as_itself(
        host in "localhost|[A-Z]{1,4}|[a-z]{1,5}\\.[a-zA-Z]{2}(:[1-9][0-9]{0,3})?|\\[::[0-9a-fA-F]{1,4}\\]:1",
        name in "[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,2}",
        tag in "(:[a-zA-Z0-9_][a-zA-Z0-9._-]{0,9})?",
        digest in "(@sha256:[0-9a-f]{64})?",
    ) {
        let read: ImageReference = format!("{host}/{name}{tag}{digest}").parse().unwrap();
        prop_assert_eq!(read.to_string().parse::<ImageReference>().unwrap(), read.clone());
        let rest = format!("{name}{tag}{digest}");
        prop_assert!(read.to_string().ends_with(&rest));
        prop_assert!(read.registry.eq_ignore_ascii_case(&host));
    }

    #[test]
    fn nothing_panics(text in "[a-zA-Z0-9:@/.\\[\\]_é-]{0,40}") {
        if let Ok(read) = text.parse::<ImageReference>() {
            prop_assert_eq!(read.to_string().parse::<ImageReference>(), Ok(read));
        }
    }
}
