//! What people read when a file is wrong: every message in one snapshot.

use kuboard_api::Config;

const WRONG: &[(&str, &str)] = &[
    ("syntax", "[cache\nenable = true"),
    ("a value without quotes", "dataDir = /var/lib/kuboard"),
    ("a key twice", "[cache]\nenable = true\nenable = false"),
    ("wrong case", "[cache]\ncacheSizeGb = 200"),
    ("snake case", "[cache]\nstorage_class = \"fast\""),
    ("a typing error", "[sever]\nlisten = \"127.0.0.1:5000\""),
    ("a key in the wrong table", "cacheSizeGB = 200"),
    ("a key nobody knows", "[cache]\ncolour = \"blue\""),
    ("two at once, in lines", "[gc]\ninterval = 3\n[log]\nfomat = \"json\""),
    ("a table instead of a list", "[upstream]\nname = \"quay.io\""),
    ("a value instead of a table", "cache = true"),
    ("the wrong type", "[cache]\nenable = \"yes\""),
    ("the wrong type in a list", "[[upstream]]\nname = \"quay.io\"\nallow = \"library/*\""),
    ("a size that is none", "[cache]\ncacheSizeGB = \"200G\""),
    ("a negative size", "[cache]\ncacheSizeGB = -1"),
    ("no size", "[cache]\ncacheSizeGB = 0"),
    ("a duration that is none", "[cache]\npeerDiscoveryInterval = \"30 seconds\""),
    ("a negative duration", "[server]\ndrainSeconds = -1"),
    ("an endless duration", "[gc]\nuntaggedDays = 99999999"),
    ("an address that is none", "[server]\nlisten = \"5000\""),
    ("a word that is none", "[access]\nanonymous = \"write\""),
    ("a word misspelt", "[server.tls]\nmode = \"selfmade\""),
    ("a URL that is none", "[server]\nexternalUrl = \"registry.example.com\""),
    ("a URL with a password", "[server]\nexternalUrl = \"https://u:pa55@registry.example.com\""),
    ("a registry below a path", "[server]\nexternalUrl = \"https://example.com/registry\""),
    ("half of the TLS files", "[server.tls]\nmode = \"files\"\ncert = \"chain.pem\""),
    ("TLS files that nobody reads", "[server.tls]\ncert = \"chain.pem\"\nkey = \"key.pem\""),
    ("ACME without names", "[server.tls]\nmode = \"acme\""),
    (
        "http-01 without a plain address",
        "[server.tls]\nmode = \"acme\"\nacme = { domains = [\"r.example.com\"], challenge = \"http-01\" }",
    ),
    ("storage that is a folder", "[storage]\nurl = \"/mnt/blobs\""),
    ("half of an access key", "[storage]\nurl = \"s3://b\"\naccessKeyId = \"id\""),
    ("storage without TLS", "[storage]\nurl = \"s3://b\"\nendpoint = \"http://10.0.0.1:9000\""),
    ("a catalogue that is none", "[catalog]\nurl = \"mysql://root:pa55@db/kuboard\""),
    ("an upstream without a name", "[[upstream]]\nendpoints = [\"https://r.example.com\"]"),
    ("an upstream named by its URL", "[[upstream]]\nname = \"https://r.example.com\""),
    ("an upstream named by a path", "[[upstream]]\nname = \"r.example.com/team\""),
    ("an upstream with odd characters", "[[upstream]]\nname = \"r example\""),
    ("a family of everything", "[[upstream]]\nname = \"*.com\""),
    ("a family by half a label", "[[upstream]]\nname = \"eu*.r.example.com\""),
    (
        "two entries for one upstream",
        "[[upstream]]\nname = \"quay.io\"\n[[upstream]]\nname = \"QUAY.io:443\"",
    ),
    (
        "two entries by alias",
        "[[upstream]]\nname = \"docker.io\"\n\n[[upstream]]\nname = \"index.docker.io\"",
    ),
    ("an alias of another", "[[upstream]]\nname = \"r.example.com\"\naliases = [\"docker.io\"]"),
    (
        "a host of two",
        "[[upstream]]\nname = \"a.example.com\"\nhosts = [\"r.internal\"]\n\
         [[upstream]]\nname = \"b.example.com\"\nhosts = [\"R.internal:5000\"]",
    ),
    ("a host of a family", "[[upstream]]\nname = \"*.example.com\"\nhosts = [\"r.internal\"]"),
    ("no endpoints", "[[upstream]]\nname = \"r.example.com\"\nendpoints = []"),
    (
        "an endpoint without scheme",
        "[[upstream]]\nname = \"r.example.com\"\nendpoints = [\"10.0.0.1:5000\"]",
    ),
    ("mirrors that nobody knows", "[[upstream]]\nname = \"r.example.com\"\nmirrors = \"cn\""),
    ("a pattern that is none", "[[upstream]]\nname = \"quay.io\"\nallow = [\"team/[\"]"),
    ("an upstream never asked", "[[upstream]]\nname = \"quay.io\"\nconcurrency = 0"),
    (
        "two default upstreams",
        "[[upstream]]\nname = \"docker.io\"\ndefaultUpstream = true\n\
         [[upstream]]\nname = \"quay.io\"\ndefaultUpstream = true",
    ),
    ("a family as default", "[[upstream]]\nname = \"*.pkg.dev\"\ndefaultUpstream = true"),
    (
        "incomplete credentials",
        "[[upstream]]\nname = \"quay.io\"\n[upstream.credentials]\nkind = \"basic\"\nuser = \"me\"",
    ),
    (
        "stray credentials",
        "[[upstream]]\nname = \"quay.io\"\n[upstream.credentials]\nuser = \"me\"",
    ),
    (
        "a password in the file",
        "[[upstream]]\nname = \"quay.io\"\n[upstream.credentials]\npassword = \"pa55\"",
    ),
];

/// Right in itself, but not with the rest.
const WRONG_TOGETHER: &[(&str, &str)] = &[
    ("open to the network", "[server]\nlisten = \"0.0.0.0:5000\""),
    (
        "two listeners, one address",
        "[server]\nplainListen = \"127.0.0.1:5000\"\n[server.tls]\nmode = \"selfMade\"",
    ),
    ("a plain listener beside a plain one", "[server]\nplainListen = \"127.0.0.1:80\""),
];

#[test]
fn messages_say_where_what_and_what_to_do() {
    let mut page = String::new();
    let mut show = |title: &str, error: kuboard_api::ConfigError| {
        assert!(!error.to_string().contains("pa55"), "{title}: a secret is shown: {error}");
        for problem in error.problems() {
            assert!(problem.line.is_some(), "{title}: no line: {problem:?}");
        }
        page.push_str(&format!("# {title}\n{error}\n\n"));
    };
    for (title, text) in WRONG {
        match Config::parse(text) {
            Err(error) => show(title, error),
            Ok(_) => panic!("{title}: read without complaint"),
        }
    }
    for (title, text) in WRONG_TOGETHER {
        let config = Config::parse_file("/etc/kuboard.toml", text).unwrap();
        show(title, config.validate().unwrap_err());
    }
    insta::assert_snapshot!("messages", page);
}

/// Values that a command line brought have no line; they are named by their key.
#[test]
fn without_a_file_the_key_is_named() {
    let mut config = Config::default();
    config.server.listen = "0.0.0.0:5000".parse().unwrap();
    let message = config.validate().unwrap_err().to_string();
    assert!(message.starts_with("kuboard.toml: server.listen: 0.0.0.0:5000"), "{message}");
}
