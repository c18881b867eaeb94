//! `WWW-Authenticate` as registries send it.

use kuboard_oci::challenge::{Challenge, ChallengeError, MAX_BYTES, parse};
use proptest::prelude::*;

#[track_caller]
fn check(header: &str, expected: &[Challenge]) {
    assert_eq!(parse(header).as_deref(), Ok(expected), "{header:?}");
}

#[track_caller]
fn refused(header: &str, expected: &ChallengeError) {
    assert_eq!(parse(header).as_ref(), Err(expected), "{header:?}");
}

fn bearer() -> Challenge {
    Challenge::new("bearer")
}

fn basic() -> Challenge {
    Challenge::new("basic")
}

#[test]
fn of_registries() {
    check(
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push""#,
        &[bearer()
            .with("realm", "https://auth.docker.io/token")
            .with("service", "registry.docker.io")
            .with("scope", "repository:library/alpine:pull,push")],
    );
    check(
        r#"Basic realm="Sonatype Nexus Repository Manager""#,
        &[basic().with("realm", "Sonatype Nexus Repository Manager")],
    );
    check(
        r#"BEARER Realm="https://quay.io/v2/auth" , SERVICE=quay.io, error="invalid_token""#,
        &[bearer()
            .with("realm", "https://quay.io/v2/auth")
            .with("service", "quay.io")
            .with("error", "invalid_token")],
    );
    check(
        "Bearer realm=https://a.example/token?x=1,service=a",
        &[bearer().with("realm", "https://a.example/token?x=1").with("service", "a")],
    );
}

#[test]
fn several() {
    check(
        r#"Bearer realm="a",service="b", Basic realm="c, d""#,
        &[bearer().with("realm", "a").with("service", "b"), basic().with("realm", "c, d")],
    );
    check("Negotiate, Basic realm=x", &[Challenge::new("negotiate"), basic().with("realm", "x")]);
    check(",, Basic realm=x ,, , Bearer ,", &[basic().with("realm", "x"), bearer()]);
    let token = Challenge { token68: Some("YII/+=".to_owned()), ..Challenge::new("negotiate") };
    check("Negotiate YII/+= , Basic realm=x", &[token, basic().with("realm", "x")]);
}

#[test]
fn quotes() {
    check(r#"Basic realm="a \"b\" \\c""#, &[basic().with("realm", r#"a "b" \c"#)]);
    check(r#"Basic realm="""#, &[basic().with("realm", "")]);
    check("Basic realm=\"é\tü\"", &[basic().with("realm", "é\tü")]);
    check("Basic realm = \"a\"", &[basic().with("realm", "a")]);
    refused(r#"Basic realm="a"#, &ChallengeError::OpenQuote);
    refused(r#"Basic realm="a\"#, &ChallengeError::OpenQuote);
    refused(r#"Basic realm="a\""#, &ChallengeError::OpenQuote);
    refused("Basic realm=\"a\r\nb\"", &ChallengeError::Malformed { at: 14 });
}

#[test]
fn malformed() {
    refused("", &ChallengeError::Empty);
    refused(" , ,", &ChallengeError::Empty);
    let table = [
        ("realm=\"x\"", 5),
        ("=", 0),
        ("\"Basic\"", 0),
        ("Basic realm=x service=y", 14),
        ("Basic realm=\"x\"y", 15),
        ("Basic realm==\"x\"", 13),
        ("Basic one two", 6),
        ("Basic realm=x,=y", 14),
        ("Basic realm=\"x\", service=", 25),
        ("Bäsic realm=x", 1),
        ("Basic é", 6),
        ("Basic\nrealm=x", 5),
    ];
    for (header, at) in table {
        refused(header, &ChallengeError::Malformed { at });
    }
}

#[test]
fn bounded() {
    refused(&"a".repeat(MAX_BYTES + 1), &ChallengeError::TooLarge);
    refused(&"a,".repeat(17), &ChallengeError::TooLarge);
    assert_eq!(parse(&"a,".repeat(16)).unwrap().len(), 16);
    let params = |count| format!("a {}", vec!["b=c"; count].join(","));
    refused(&params(33), &ChallengeError::TooLarge);
    assert_eq!(parse(&params(32)).unwrap()[0].params.len(), 32);
}

#[test]
fn the_first_of_a_name_counts() {
    let read = parse("Bearer REALM=a,realm=b").unwrap();
    assert_eq!((read[0].get("realm"), read[0].get("scope")), (Some("a"), None));
}

proptest! {
    #[test]
    fn what_is_written_reads_as_itself(
        list in proptest::collection::vec(
            ("[a-z]{1,8}", proptest::collection::vec(("[a-z_]{1,8}", "\\PC{0,20}"), 0..4)),
            1..4,
        ),
    ) {
        let list: Vec<Challenge> = list
            .into_iter()
            .map(|(scheme, params)| Challenge { scheme, params, token68: None })
            .collect();
        let header = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        prop_assert_eq!(parse(&header).unwrap(), list, "{}", header);
    }

    #[test]
    fn nothing_panics(header in "[A-Za-z=,\" \\\\é/]{0,60}|\\PC{0,60}") {
        if let Ok(list) = parse(&header) {
            let again = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            prop_assert_eq!(parse(&again).unwrap(), list);
        }
    }
}
