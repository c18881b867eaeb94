//! Real files of distributions, and hostile ones.

use super::{OsRelease, ReleaseFiles};
use crate::indexers::os::tests::{index, reasons};
use proptest::prelude::proptest;

/// Fields of the distribution with a bar between them: id, version id, version, code name, name,
/// pretty name, CPE, like, variant.
#[track_caller]
fn check(path: &str, text: &str, want: &str) {
    assert_eq!(distribution(&[(path, text)]), want);
}

fn distribution(files: &[(&str, &str)]) -> String {
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let mut found = index(&OsRelease, &files);
    found.files.extend(index(&ReleaseFiles, &files).files);
    assert_eq!(found.files.len(), files.len());
    let named: Vec<_> = found.files.iter().filter_map(|file| file.distribution.as_ref()).collect();
    assert!(named.len() < 2, "{named:?}");
    let Some(d) = named.first() else { return String::new() };
    let like = d.id_like.join(" ");
    let fields = [
        &d.id,
        &d.version_id,
        &d.version,
        &d.codename,
        &d.name,
        &d.pretty_name,
        &d.cpe,
        &like,
        &d.variant,
    ];
    fields.map(String::as_str).join("|").trim_end_matches('|').to_owned()
}

#[test]
fn os_release() {
    for path in ["etc/os-release", "usr/lib/os-release"] {
        check(
            path,
            "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.10.2\nPRETTY_NAME=\"Alpine Linux v3.10\"\n",
            "alpine|3.10.2|||Alpine Linux|Alpine Linux v3.10",
        );
    }
    check(
        "etc/os-release",
        "NAME=Fedora\nVERSION=\"30 (Container Image)\"\nID=fedora\nVERSION_ID=30\n\
         VERSION_CODENAME=\nPRETTY_NAME=\"Fedora 30 (Container Image)\"\n\
         CPE_NAME=\"cpe:/o:fedoraproject:fedora:30\"\nVARIANT_ID=container\n",
        "fedora|30|30 (Container Image)||Fedora|Fedora 30 (Container Image)|\
         cpe:/o:fedoraproject:fedora:30||container",
    );
    check(
        "etc/os-release",
        "NAME='openSUSE Leap'\nVERSION=\"15.1 \"\nID=\"opensuse-leap\"\nID_LIKE=\"suse openSUSE\"\n",
        "opensuse-leap||15.1||openSUSE Leap|||suse opensuse",
    );
    check("etc/os-release", "", "");
    check("etc/os-release", "VERSION=1\n", "");
    let found = index(&OsRelease, &[("etc/os-release", b"\xff\xfe\0")]);
    assert_eq!(reasons(&found), ["partly read: it has neither an ID nor a NAME"]);
    let long = format!("ID=a\n{}", "#\n".repeat(100_000));
    let found = index(&OsRelease, &[("etc/os-release", long.as_bytes())]);
    assert_eq!(reasons(&found), ["partly read: it has 200005 bytes, more than 65536"]);
    assert_eq!(found.files[0].distribution.as_ref().unwrap().id, "a");
}

#[test]
fn files_from_before() {
    for (path, text, want) in [
        ("etc/alpine-release", "3.18.4\n", "alpine|3.18.4|||Alpine Linux|Alpine Linux 3.18.4"),
        ("etc/debian_version", "12.5\n", "debian|12|12.5||Debian GNU/Linux|Debian GNU/Linux 12.5"),
        (
            "etc/debian_version",
            "trixie/sid\n",
            "debian||trixie/sid|trixie|Debian GNU/Linux|Debian GNU/Linux trixie/sid",
        ),
        (
            "etc/lsb-release",
            "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\nDISTRIB_CODENAME=lucid\n\
             DISTRIB_DESCRIPTION=\"Ubuntu 10.04 LTS\"\n",
            "ubuntu|10.04|10.04|lucid|Ubuntu|Ubuntu 10.04 LTS",
        ),
        ("etc/lsb-release", "LSB_VERSION=1\n", ""),
        (
            "etc/redhat-release",
            "Red Hat Enterprise Linux Server release 7.4 (Maipo)\n",
            "rhel|7.4|7.4|Maipo|Red Hat Enterprise Linux Server|\
             Red Hat Enterprise Linux Server release 7.4 (Maipo)",
        ),
        (
            "etc/redhat-release",
            "Red Hat Enterprise Linux Atomic Host release 7.9",
            "rhel|7.9|7.9||Red Hat Enterprise Linux Atomic Host|\
             Red Hat Enterprise Linux Atomic Host release 7.9",
        ),
        (
            "etc/centos-release",
            "CentOS Linux release 7.9.2009 (Core)\n",
            "centos|7|7.9.2009|Core|CentOS Linux|CentOS Linux release 7.9.2009 (Core)",
        ),
        (
            "etc/system-release",
            "Amazon Linux AMI release 2018.03\n",
            "amzn|2018.03|2018.03||Amazon Linux AMI|Amazon Linux AMI release 2018.03",
        ),
        (
            "etc/rocky-release",
            "Rocky Linux release 8.5 (Green Obsidian)\n",
            "rocky|8.5|8.5|Green Obsidian|Rocky Linux|Rocky Linux release 8.5 (Green Obsidian)",
        ),
        ("etc/redhat-release", "\n", ""),
        ("etc/redhat-release", "Something else 1", ""),
    ] {
        check(path, text, want);
    }
}

#[test]
fn the_most_particular_file_wins() {
    let oracle = ("etc/oracle-release", "Oracle Linux Server release 6.10");
    let redhat = ("etc/redhat-release", "Red Hat Enterprise Linux Server release 6.10 (Santiago)");
    let want = "ol|6.10|6.10||Oracle Linux Server|Oracle Linux Server release 6.10";
    assert_eq!(distribution(&[oracle, redhat]), want);
    assert_eq!(distribution(&[redhat, oracle]), want);
    let unknown = ("etc/oracle-release", "?");
    assert!(distribution(&[unknown, redhat]).starts_with("rhel|6.10|"));
    let ubuntu = ("etc/lsb-release", "DISTRIB_ID=Ubuntu");
    let debian = ("etc/debian_version", "squeeze/sid");
    assert_eq!(distribution(&[debian, ubuntu]), "ubuntu||||Ubuntu");
}

proptest! {
    #[test]
    fn never_panics(text in "(ID|NAME|DISTRIB_ID|Rocky|release|[0-9.]|[=\"'\\\\ #\n()]|.){0,60}") {
        for path in ["etc/os-release", "etc/lsb-release", "etc/system-release", "etc/debian_version"] {
            index(&OsRelease, &[(path, text.as_bytes())]);
            index(&ReleaseFiles, &[(path, text.as_bytes())]);
        }
    }
}
