//! Repository names, tags, and tag-or-digest.

use std::collections::HashSet;

use kuboard_oci::{Digest, NameError, Reference, ReferenceError, RepositoryName, Tag, TagError};
use proptest::prelude::*;

#[track_caller]
fn name(text: &str, expected: Result<(), NameError>) {
    let read = text.parse::<RepositoryName>();
    assert_eq!(read.as_ref().map(|_| ()).map_err(Clone::clone), expected, "{text:?}");
    if let Ok(read) = read {
        assert_eq!((read.as_str(), read.to_string().as_str()), (text, text));
    }
}

#[test]
fn names() {
    let good = [
        "a",
        "0",
        "alpine",
        "library/alpine",
        "a/b/c/d/e/f/g",
        "a.b",
        "a_b",
        "a__b",
        "a-b",
        "a---b",
        "a.b/c__d/e--f",
        "xn--n3h/a",
        "docker.io/library/alpine",
    ];
    for text in good {
        name(text, Ok(()));
    }
    name(&"a".repeat(255), Ok(()));
}

#[test]
fn names_refused() {
    name("", Err(NameError::Empty));
    name(&"a".repeat(256), Err(NameError::TooLong { length: 256 }));
    let bad = [
        ("A", 0),
        ("aB", 1),
        ("/", 0),
        ("a/", 2),
        ("/a", 0),
        ("a//b", 2),
        ("a/./b", 2),
        ("..", 0),
        ("../a", 0),
        ("a/../b", 2),
        (".a", 0),
        ("a.", 2),
        ("a..b", 2),
        ("a___b", 3),
        ("a._b", 2),
        ("a-.b", 2),
        ("a-", 2),
        ("-a", 0),
        ("a b", 1),
        ("a\0b", 1),
        ("a%2fb", 1),
        ("a:b", 1),
        ("a@b", 1),
        ("a\\b", 1),
        ("é", 0),
        ("aé", 1),
        ("ab/cd/é", 6),
    ];
    for (text, at) in bad {
        name(text, Err(NameError::Grammar { at }));
    }
}

#[test]
fn tags() {
    for text in ["latest", "3.20", "_", "_-.", "V1", "0", "sha256-abc.sig", &"a".repeat(128)] {
        assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
    }
    let bad = [
        ("", TagError::Empty),
        (&"a".repeat(129), TagError::TooLong { length: 129 }),
        (".a", TagError::Grammar { at: 0 }),
        ("-a", TagError::Grammar { at: 0 }),
        ("..", TagError::Grammar { at: 0 }),
        ("a/b", TagError::Grammar { at: 1 }),
        ("a:b", TagError::Grammar { at: 1 }),
        ("a+b", TagError::Grammar { at: 1 }),
        ("a\n", TagError::Grammar { at: 1 }),
        ("aé", TagError::Grammar { at: 1 }),
    ];
    for (text, error) in bad {
        assert_eq!(text.parse::<Tag>(), Err(error), "{text:?}");
    }
}

#[test]
fn a_colon_makes_a_digest() {
    let digest = Digest::sha256(b"x");
    assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
    let tag: Tag = "v1".parse().unwrap();
    assert_eq!("v1".parse(), Ok(Reference::Tag(tag)));
    for text in ["v1:v2", "sha256:", ":", "sha384:abcd"] {
        let error = text.parse::<Reference>().unwrap_err();
        assert!(matches!(error, ReferenceError::Digest(_)), "{text:?}: {error:?}");
    }
    let error = "no tag".parse::<Reference>().unwrap_err();
    assert_eq!(error, ReferenceError::Tag(TagError::Grammar { at: 2 }));
}

#[test]
fn sets_are_searched_by_text() {
    let names: HashSet<RepositoryName> = HashSet::from(["a/b".parse().unwrap()]);
    assert!(names.contains("a/b") && !names.contains("a"));
    let json = serde_json::to_string(&names).unwrap();
    assert_eq!(json, r#"["a/b"]"#);
    assert_eq!(serde_json::from_str::<HashSet<RepositoryName>>(&json).unwrap(), names);
    assert!(serde_json::from_str::<RepositoryName>("\"A\"").is_err());
}

/// Names of up to four components, from the grammar as the specification prints it.
fn grammar() -> impl Strategy<Value = String> {
    let component = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*";
    proptest::string::string_regex(&format!("{component}(/{component}){{0,3}}")).unwrap()
}

proptest! {
    #[test]
    fn all_names_of_the_grammar_are_taken(text in grammar()) {
        let read = text.parse::<RepositoryName>();
        if text.len() <= RepositoryName::MAX_BYTES {
            prop_assert_eq!(read.unwrap().to_string(), text);
        } else {
            prop_assert_eq!(read, Err(NameError::TooLong { length: text.len() }));
        }
    }

    /// A second reading of the grammar, by splitting instead of scanning.
    #[test]
    fn only_names_of_the_grammar_are_taken(text in "[a1._/A-]{0,8}") {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let component = |part: &str| {
            part.starts_with(word)
                && part.ends_with(word)
                && part.split(word).all(|between| {
                    matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
                })
        };
        let expected = text.split('/').all(component);
        prop_assert_eq!(text.parse::<RepositoryName>().is_ok(), expected, "{}", text);
    }

    #[test]
    fn all_tags_of_the_grammar_are_taken(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
        prop_assert_eq!(text.parse::<Tag>().unwrap().to_string(), text.clone());
        prop_assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
    }

    #[test]
    fn nothing_panics(text in any::<String>()) {
        _ = text.parse::<RepositoryName>();
        _ = text.parse::<Tag>();
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string(), text);
        }
    }
}
