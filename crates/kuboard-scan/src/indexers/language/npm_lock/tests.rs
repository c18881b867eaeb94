use super::super::tests::{check_wants, shown};
use super::*;

fn check(path: &str, text: &str, expected: &str) {
    let parsed = parse(path, text.as_bytes());
    let roles = parsed.packages.iter().all(|of| of.role.as_deref() == Some("lockfile"));
    assert!(roles, "{parsed:?}");
    assert_eq!(shown(&parsed).replace(" (lockfile)", ""), expected, "{text}");
}

#[test]
fn paths() {
    check_wants(
        wants,
        &[
            ("app/package-lock.json", true),
            ("npm-shrinkwrap.json", true),
            ("app/yarn.lock", true),
            ("app/pnpm-lock.yaml", true),
            ("app/node_modules/x/yarn.lock", false),
            ("app/node_modules/.package-lock.json", false),
            ("app/Pipfile.lock", false),
        ],
    );
}

#[test]
fn npm() {
    let check = |text: &str, expected: &str| check("app/package-lock.json", text, expected);
    check(
        r#"{"lockfileVersion":3,"packages":{
            "":{"name":"app","version":"1.0.0"},
            "node_modules/a":{"version":"1.2.3","license":"MIT"},
            "node_modules/a/node_modules/@s/b":{"version":"2.0.0"},
            "node_modules/alias":{"name":"real","version":"3.0.0"},
            "node_modules/dev":{"version":"1.0.0","dev":true},
            "node_modules/part":{"resolved":"parts/part","link":true},
            "parts/part":{"version":"0.1.0"}}}"#,
        "@s/b 2.0.0, a 1.2.3 [MIT], real 3.0.0",
    );
    check(
        r#"{"lockfileVersion":1,"dependencies":{
            "a":{"version":"1.2.3","dependencies":{"b":{"version":"2.0.0"},"d":{"version":"1.0.0","dev":true}}},
            "x":{"version":"npm:@s/y@4.0.0"},
            "git":{"version":"git+ssh://git@example.org/a.git#0a1b"},
            "dev":{"version":"1.0.0","dev":true}}}"#,
        "@s/y 4.0.0, a 1.2.3, b 2.0.0",
    );
    check("{}", "");
    assert_eq!(parse("package-lock.json", b"[").problems.len(), 1);
}

#[test]
fn yarn() {
    let check = |text: &str, expected: &str| check("app/yarn.lock", text, expected);
    check(
        "# yarn lockfile v1\n\n\n\"@babel/core@^7.0.0\", \"@babel/core@^7.1.0\":\n  version \"7.1.2\"\n  resolved \"https://x\"\n  dependencies:\n    version \"9\"\n\nlodash@4.x:\n  version \"4.17.21\"\n\n\"al@npm:real@^1\":\n  version \"1.5.0\"\n\n\"own@file:x\":\n  version \"0.0.0\"\n",
        "@babel/core 7.1.2, lodash 4.17.21, real 1.5.0",
    );
    check(
        "__metadata:\n  version: 6\n\n\"a@npm:^1.0.0\":\n  version: 1.2.3\n  resolution: \"a@npm:1.2.3\"\n  languageName: node\n\n\"app@workspace:.\":\n  version: 0.0.0-use.local\n  resolution: \"app@workspace:.\"\n\n\"p@patch:p@^1.0.0#x\":\n  version: 1.0.0\n  resolution: \"p@patch:p@npm%3A1.0.0#x::version=1\"\n\n\"@s/b@npm:c@1\":\n  version: 1.0.0\n  resolution: \"c@npm:1.0.0\"\n",
        "a 1.2.3, c 1.0.0",
    );
    check("", "! it is not a lockfile of yarn");
}

#[test]
fn pnpm() {
    let check = |text: &str, expected: &str| check("app/pnpm-lock.yaml", text, expected);
    check(
        "lockfileVersion: 5.4\n\ndependencies:\n  a: 1.0.0\n\npackages:\n\n  /a/1.0.0:\n    resolution: {integrity: x}\n    dev: false\n\n  /@s/b/2.0.0_peer@1.0.0:\n    dev: false\n\n  /c/3.0.0:\n    dev: true\n\n  file:own:\n    version: 1.0.0\n",
        "@s/b 2.0.0, a 1.0.0",
    );
    check(
        "lockfileVersion: '6.0'\n\npackages:\n\n  /a@1.0.0(peer@2.0.0):\n    dev: false\n\n  '/@s/b@2.0.0':\n    resolution: {integrity: x}\n\n  /c@3.0.0:\n    dev: true\n",
        "@s/b 2.0.0, a 1.0.0",
    );
    check(
        "lockfileVersion: '9.0'\n\nimporters:\n\n  .:\n    dependencies:\n      a:\n        specifier: ^1\n        version: 1.0.0(p@2.0.0)\n      other:\n        specifier: npm:x@1\n        version: x@1.0.0\n    devDependencies:\n      c:\n        specifier: ^3\n        version: 3.0.0\n\npackages:\n\n  a@1.0.0:\n    resolution: {integrity: x}\n\nsnapshots:\n\n  a@1.0.0(p@2.0.0):\n    dependencies:\n      '@s/b': 2.0.0\n\n  '@s/b@2.0.0':\n    dependencies:\n      a: 1.0.0(p@2.0.0)\n\n  c@3.0.0: {}\n\n  x@1.0.0: {}\n",
        "@s/b 2.0.0, a 1.0.0, x 1.0.0",
    );
    check("lockfileVersion: '12.0'\n", "! form 12 of pnpm's lockfile is not known");
    check("a: b\n", "! it is not a lockfile of pnpm");
}
