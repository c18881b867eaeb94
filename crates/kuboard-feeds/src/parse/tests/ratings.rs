//! Scores, exploitation and ends of life.

use super::{Kept, data};
use crate::parse::{ParseError, eol, epss, kev, nvd};

#[test]
fn nvd_scores() {
    let mut kept = Kept::default();
    let summary = nvd::parse(&*data("nvd.json.gz"), &mut kept).unwrap();
    assert_eq!((summary.advisories, summary.ignored, summary.skipped_count), (2, 1, 0));
    insta::assert_snapshot!(kept.lines.join("\n"), @r"
    CVE-2016-2781 cisa-adp CVSS:3.1/AV:L/AC:L/PR:L/UI:R/S:C/C:L/I:L/A:N
    CVE-2016-2781 nvd CVSS:3.0/AV:L/AC:L/PR:L/UI:N/S:C/C:N/I:H/A:N
    CVE-2016-2781 nvd AV:L/AC:L/Au:N/C:N/I:P/A:N
    CVE-2016-3674 nvd CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N
    CVE-2016-3674 nvd AV:N/AC:L/Au:N/C:P/I:N/A:N
    ");
}

#[test]
fn epss_scores() {
    let mut kept = Kept::default();
    let summary = epss::parse(&*data("epss.csv.gz"), &mut kept).unwrap();
    assert_eq!(summary.advisories, 5);
    assert_eq!(summary.newest_modified_ms, Some(1_740_009_600_000));
    insta::assert_snapshot!(kept.lines.join("\n"), @r"
    CVE-1999-0001 383 73075
    CVE-1999-0002 1328 85996
    CVE-1999-0003 4409 92440
    CVE-1999-0004 917 82963
    CVE-1999-0005 91963 99214
    ");
    let mut kept = Kept::default();
    let other = "#model_version:v2023.03.01\ninvalid,header,format\nCVE-2024-6775,0.1,0.1\n";
    assert!(matches!(epss::parse(other.as_bytes(), &mut kept), Err(ParseError::Format { .. })));
    let odd = "cve,epss,percentile\nCVE-2024-1,1.5,0.1\nCVE-2024-2,0.1,0.1\nCVE-2024-3,NaN,0\nCVE-2024-4,1,1\n";
    let summary = epss::parse(odd.as_bytes(), &mut kept).unwrap();
    assert_eq!((summary.advisories, summary.skipped_count), (2, 2));
    assert_eq!(kept.lines, ["CVE-2024-2 10000 10000", "CVE-2024-4 100000 100000"]);
}

#[test]
fn known_exploited() {
    let mut kept = Kept::default();
    let summary = kev::parse(&*data("kev.json"), &mut kept).unwrap();
    assert_eq!(summary.advisories, 3);
    insta::assert_snapshot!(kept.lines.join("\n"), @r"
    CVE-2025-0108 2025-02-18
    CVE-2024-53704 2025-02-18
    CVE-2024-57727 2025-02-13
    ");
}

#[test]
fn ends_of_life() {
    let mut kept = Kept::default();
    let summary = eol::parse(&*data("eol.json"), &mut kept).unwrap();
    assert_eq!((summary.advisories, summary.ignored), (3, 3));
    insta::assert_snapshot!(kept.lines.join("\n"), @r"
    ubuntu:24.04 2029-04-25
    ubuntu:22.04 2027-04-21
    ubuntu:18.04 2023-04-26
    ");
}
