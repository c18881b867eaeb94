use super::{OPTIONS, sample, written};
use crate::report::{Format, WriteOptions};
use kuboard_vuln::{Outcome, Report};
use unicode_width::UnicodeWidthStr;

fn table(report: &Report, width: Option<u16>) -> String {
    written(report, Format::Table, &WriteOptions { width, ..OPTIONS })
}

#[test]
fn wide() {
    insta::assert_snapshot!(table(&sample::ordinary(), Some(160)), @r#"
    Image         registry.example.org/team/app:1.2 (linux/amd64)
    Digest        sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f
    Distribution  Debian GNU/Linux 12 (bookworm), supported until 2028-06-30
    Advisories    generation 12, of 2026-08-21 09:00 UTC, 3 hours old
    Packages      5
    Outcome       complete

    debian 12 (deb): 3 (CRITICAL: 2, NEGLIGIBLE: 1)

    Package   Vulnerability   Severity    Status        Installed       Fixed in        Title
    ────────  ──────────────  ──────────  ────────────  ──────────────  ──────────────  ───────────────────────────────────────────────────
    libc6     CVE-2024-2961   CRITICAL    fixed         2.36-9+deb12u4  2.36-9+deb12u7  The iconv() function may overflow the output buffer
              KEV: exploited  by nvd
              EPSS 93 %
    libc-bin  CVE-2024-2961   CRITICAL    fixed         2.36-9+deb12u4  2.36-9+deb12u7  The iconv() function may overflow the output buffer
              KEV: exploited  by nvd
              EPSS 93 %
    libc6     CVE-2010-4756   NEGLIGIBLE  will not fix  2.36-9+deb12u4
                              by debian

    Go in usr/bin/app: 1 (MEDIUM: 1)

    Package           Vulnerability   Severity  Status  Installed  Fixed in  Title
    ────────────────  ──────────────  ────────  ──────  ─────────  ────────  ─────────────────────────
    golang.org/x/net  CVE-2023-45288  MEDIUM    fixed   v0.22.0    v0.23.0   HTTP/2 CONTINUATION flood
                                      by ghsa

    Total: 4 (CRITICAL: 2, MEDIUM: 1, NEGLIGIBLE: 1)
    Suppressed: 1 (MEDIUM: 1)
       - 1 x VEX not_affected (vulnerable_code_not_in_execute_path) by security@example.org
    "#);
}

#[test]
fn narrow() {
    let text = table(&sample::ordinary(), Some(60));
    assert!(text.lines().all(|line| line.width() <= 60), "{text}");
    insta::assert_snapshot!(text, @r#"
    Image         registry.example.org/team/app:1.2
                  (linux/amd64)
    Digest        sha256:05b3abf2579a5eb66403cd78be557fd860633a1
                  fe2103c7642030defe32c657f
    Distribution  Debian GNU/Linux 12 (bookworm), supported
                  until 2028-06-30
    Advisories    generation 12, of 2026-08-21 09:00 UTC, 3
                  hours old
    Packages      5
    Outcome       complete

    debian 12 (deb): 3 (CRITICAL: 2, NEGLIGIBLE: 1)

    Package   Vulnerability   Severity    Installed   Fixed in
    ────────  ──────────────  ──────────  ──────────  ──────────
    libc6     CVE-2024-2961   CRITICAL    2.36-9+deb  2.36-9+deb
              KEV: exploited  by nvd      12u4        12u7
              EPSS 93 %
    libc-bin  CVE-2024-2961   CRITICAL    2.36-9+deb  2.36-9+deb
              KEV: exploited  by nvd      12u4        12u7
              EPSS 93 %
    libc6     CVE-2010-4756   NEGLIGIBLE  2.36-9+deb  will not
                              by debian   12u4        fix

    Go in usr/bin/app: 1 (MEDIUM: 1)

    Package        Vulnerability   Severity  Installed  Fixed in
    ─────────────  ──────────────  ────────  ─────────  ────────
    golang.org/x/  CVE-2023-45288  MEDIUM    v0.22.0    v0.23.0
    net                            by ghsa

    Total: 4 (CRITICAL: 2, MEDIUM: 1, NEGLIGIBLE: 1)
    Suppressed: 1 (MEDIUM: 1)
       - 1 x VEX not_affected
         (vulnerable_code_not_in_execute_path) by
         security@example.org
    "#);
}

#[test]
fn chinese() {
    let mut report = sample::ordinary();
    for finding in &mut report.findings {
        finding.summary = "字符集转换函数可能写出缓冲区边界之外的内存".to_owned();
    }
    report.findings.truncate(1);
    report.suppressed.clear();
    let text = table(&report, Some(100));
    assert!(text.lines().all(|line| line.width() <= 100), "{text}");
    insta::assert_snapshot!(text, @r#"
    Image         registry.example.org/team/app:1.2 (linux/amd64)
    Digest        sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f
    Distribution  Debian GNU/Linux 12 (bookworm), supported until 2028-06-30
    Advisories    generation 12, of 2026-08-21 09:00 UTC, 3 hours old
    Packages      5
    Outcome       complete

    debian 12 (deb): 1 (CRITICAL: 1)

    Package  Vulnerability   Severity  Status  Installed       Fixed in        Title
    ───────  ──────────────  ────────  ──────  ──────────────  ──────────────  ─────────────────────────
    libc6    CVE-2024-2961   CRITICAL  fixed   2.36-9+deb12u4  2.36-9+deb12u7  字符集转换函数可能写出缓
             KEV: exploited  by nvd                                            冲区边界之外的内存
             EPSS 93 %

    Total: 1 (CRITICAL: 1)
    "#);
}

#[test]
fn clean() {
    insta::assert_snapshot!(table(&sample::clean(), Some(80)), @r#"
    Image         registry.example.org/team/app:1.2 (linux/amd64)
    Digest        sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32
                  c657f
    Distribution  Debian GNU/Linux 12 (bookworm), supported until 2028-06-30
    Advisories    generation 12, of 2026-08-21 09:00 UTC, 3 hours old
    Packages      5
    Outcome       complete

    no known vulnerabilities in 5 packages
    "#);
}

#[test]
fn partly_read() {
    insta::assert_snapshot!(table(&sample::partial(), Some(80)), @r#"
    Image         registry.example.org/team/app:1.2 (linux/amd64)
    Digest        sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32
                  c657f
    Distribution  Debian GNU/Linux 12 (bookworm), supported until 2028-06-30
    Advisories    generation 12, of 2026-08-21 09:00 UTC, 3 hours old
    Packages      5
    Outcome       PARTLY READ

    !! PARTLY READ: there may be more vulnerabilities than are shown
       - opt/app/lib0.jar: partly read: it is cut off (java)
       - opt/app/lib1.jar: partly read: it is cut off (java)
       - opt/app/lib2.jar: partly read: it is cut off (java)
       - opt/app/lib3.jar: partly read: it is cut off (java)
       - opt/app/lib4.jar: partly read: it is cut off (java)
       - opt/app/lib5.jar: partly read: it is cut off (java)
       - opt/app/lib6.jar: partly read: it is cut off (java)
       - opt/app/lib7.jar: partly read: it is cut off (java)
       - opt/app/lib8.jar: partly read: it is cut off (java)
       - opt/app/lib9.jar: partly read: it is cut off (java)
         and 2 more

    no known vulnerabilities in the 5 packages that could be read

    !! PARTLY READ: there may be more vulnerabilities than are shown
       - opt/app/lib0.jar: partly read: it is cut off (java)
       - opt/app/lib1.jar: partly read: it is cut off (java)
       - opt/app/lib2.jar: partly read: it is cut off (java)
       - opt/app/lib3.jar: partly read: it is cut off (java)
       - opt/app/lib4.jar: partly read: it is cut off (java)
       - opt/app/lib5.jar: partly read: it is cut off (java)
       - opt/app/lib6.jar: partly read: it is cut off (java)
       - opt/app/lib7.jar: partly read: it is cut off (java)
       - opt/app/lib8.jar: partly read: it is cut off (java)
       - opt/app/lib9.jar: partly read: it is cut off (java)
         and 2 more
    "#);
}

#[test]
fn unsupported_and_old() {
    let mut report = sample::clean();
    let reason = "no advisories cover nixos 24.05".to_owned();
    report.outcome = Outcome::Unsupported { reason };
    report.end_of_life = Some("2025-12-31".to_owned());
    report.database.built_ms -= 20 * 86_400_000;
    insta::assert_snapshot!(table(&report, Some(80)), @r#"
    Image         registry.example.org/team/app:1.2 (linux/amd64)
    Digest        sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32
                  c657f
    Distribution  Debian GNU/Linux 12 (bookworm): END OF LIFE since 2025-12-31, no
                  more security fixes
    Advisories    generation 12, of 2026-08-01 09:00 UTC, 20 days old: OUT OF DATE
    Packages      5
    Outcome       UNSUPPORTED

    !! UNSUPPORTED: nothing can be said of this image: no advisories cover nixos
       24.05

    no vulnerabilities could be looked for

    !! UNSUPPORTED: nothing can be said of this image: no advisories cover nixos
       24.05
    "#);
}

#[test]
fn every_width_is_kept() {
    for width in 46..180 {
        for report in [sample::ordinary(), sample::hostile(), sample::partial()] {
            let text = table(&report, Some(width));
            let worst = text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0);
            assert!(worst <= usize::from(width), "{worst} of {width}:\n{text}");
        }
    }
}

#[test]
fn colours_only_where_wanted() {
    let options = WriteOptions { color: true, width: Some(120), ..OPTIONS };
    let colored = written(&sample::ordinary(), Format::Table, &options);
    assert!(colored.contains("\u{1b}[1;31mCRITICAL\u{1b}[0m"), "{colored}");
    assert!(!table(&sample::ordinary(), Some(120)).contains('\u{1b}'));
}

#[test]
fn the_same_at_several_places_is_one_row() {
    let mut report = sample::ordinary();
    let mut again = report.findings[0].clone();
    again.path = "elsewhere".to_owned();
    report.findings.insert(1, again);
    let text = table(&report, None);
    assert!(text.contains("in 2 places"), "{text}");
    assert!(text.contains("Total: 5 (CRITICAL: 3"), "{text}");
}
