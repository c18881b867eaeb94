//! One severity out of many judgements, by a rule that does not flap.
//!
//! For a package of a distribution, the first of these that says anything:
//! 1. the vendor's own word,
//! 2. the vendor's CVSS (4, then 3, then 2),
//! 3. NVD's CVSS (4, 3, 2),
//! 4. anyone else's: CVSS 4, 3, a word, CVSS 2.
//!
//! For a package of a language: the advisory's CVSS 4, CVSS 3, word, CVSS 2, then NVD's, then
//! anyone else's in the same order.
//!
//! Where several judgements stand on the same step, the most severe counts, then the first source
//! by name. A word that rates nothing (`not yet assigned`, `untriaged`, `N/A`) says nothing.
//!
//! Words of all sources, without regard to case: Debian's urgency (`unimportant`, `low`,
//! `medium`, `high`), Red Hat's, AlmaLinux's, Rocky's, Oracle's and SUSE's impact (`low`,
//! `moderate`, `important`, `critical`), Ubuntu's priority (`negligible` to `critical`), Amazon's
//! (`low`, `medium`, `important`, `critical`), GitHub's (`LOW`, `MODERATE`, `HIGH`, `CRITICAL`),
//! and base scores written as plain numbers.

use crate::{Rating, Severity, SeverityScore};

/// The severity that counts, and who said so (empty for `Unknown`). `own` are the judgements of
/// the advisories that matched, `others` those that raters give of the vulnerability.
#[must_use]
pub fn decide(is_os: bool, own: &[SeverityScore], others: &[SeverityScore]) -> (Severity, String) {
    use Rating::{CvssV2, CvssV3, CvssV4, Word};
    let order = if is_os { [Word, CvssV4, CvssV3, CvssV2] } else { [CvssV4, CvssV3, Word, CvssV2] };
    let is_nvd = |score: &&SeverityScore| score.source == "nvd";
    let all = || own.iter().chain(others);
    let step = |rating: Rating, group: u8| -> Option<(Severity, &str)> {
        let mut scores: Vec<&SeverityScore> = match group {
            0 => own.iter().filter(|score| !is_nvd(score)).collect(),
            1 => all().filter(is_nvd).collect(),
            _ => others.iter().filter(|score| !is_nvd(score)).collect(),
        };
        scores.retain(|score| score.rating == rating);
        most_severe(&scores)
    };
    for rating in order {
        if let Some((severity, source)) = step(rating, 0) {
            return (severity, source.to_owned());
        }
    }
    for group in [1, 2] {
        for rating in [CvssV4, CvssV3, Word, CvssV2] {
            if let Some((severity, source)) = step(rating, group) {
                return (severity, source.to_owned());
            }
        }
    }
    (Severity::Unknown, String::new())
}

fn most_severe<'a>(scores: &[&'a SeverityScore]) -> Option<(Severity, &'a str)> {
    let rated = scores.iter().filter_map(|score| Some((of_score(score)?, score.source.as_str())));
    rated.max_by(|(one, from), (two, other)| one.cmp(two).then_with(|| other.cmp(from)))
}

/// What one judgement means; `None` if it says nothing or cannot be read.
#[must_use]
pub fn of_score(score: &SeverityScore) -> Option<Severity> {
    match score.rating {
        Rating::Word => of_word(&score.value),
        Rating::CvssV2 | Rating::CvssV3 | Rating::CvssV4 => base_score(score).map(of_base_score),
    }
}

/// The score of a vector, 0.0 to 10.0; `None` for words and for vectors that cannot be read.
#[must_use]
pub fn base_score(score: &SeverityScore) -> Option<f64> {
    if score.value.len() > 512 {
        return None;
    }
    let vector = score.value.trim();
    let number = match score.rating {
        Rating::CvssV2 => {
            let vector = vector.trim_start_matches('(').trim_end_matches(')');
            vector.parse::<cvss::v2::Vector>().ok()?.score().value()
        }
        Rating::CvssV3 => vector.parse::<cvss::v3::Vector>().ok()?.score().value(),
        Rating::CvssV4 => vector.parse::<cvss::v4::Vector>().ok()?.score().value(),
        Rating::Word => return None,
    };
    (0.0..=10.0).contains(&number).then_some(number)
}

/// The step of a base score; the limits are those of CVSS 3 and 4, also for CVSS 2.
#[must_use]
pub fn of_base_score(score: f64) -> Severity {
    match score {
        s if s >= 9.0 => Severity::Critical,
        s if s >= 7.0 => Severity::High,
        s if s >= 4.0 => Severity::Medium,
        s if s > 0.0 => Severity::Low,
        _ => Severity::Negligible,
    }
}

/// What a word means; `None` for words that rate nothing.
#[must_use]
pub fn of_word(word: &str) -> Option<Severity> {
    // Debian marks a guess with an asterisk.
    let word = word.trim().trim_end_matches('*').to_ascii_lowercase();
    Some(match word.as_str() {
        "critical" | "crit" => Severity::Critical,
        "high" | "important" | "severe" => Severity::High,
        "medium" | "moderate" => Severity::Medium,
        "low" | "minor" => Severity::Low,
        "negligible" | "unimportant" | "none" | "informational" | "info" => Severity::Negligible,
        number => {
            let score: f64 = number.parse().ok()?;
            return (0.0..=10.0).contains(&score).then(|| of_base_score(score));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{decide, of_word};
    use crate::Rating::{CvssV2, CvssV3, CvssV4, Word};
    use crate::{Rating, Severity, SeverityScore};

    const HIGH3: &str = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H";
    const CRITICAL3: &str = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H";
    const MEDIUM4: &str = "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N";
    const HIGH2: &str = "AV:N/AC:L/Au:N/C:P/I:P/A:P";

    fn scores(all: &[(&str, Rating, &str)]) -> Vec<SeverityScore> {
        all.iter()
            .map(|&(source, rating, value)| SeverityScore {
                source: source.to_owned(),
                rating,
                value: value.to_owned(),
            })
            .collect()
    }

    fn check(
        is_os: bool,
        own: &[(&str, Rating, &str)],
        others: &[(&str, Rating, &str)],
        want: (Severity, &str),
    ) {
        let (severity, source) = decide(is_os, &scores(own), &scores(others));
        assert_eq!((severity, source.as_str()), want, "{own:?} {others:?}");
    }

    #[test]
    fn the_nearest_judge_counts() {
        use Severity::{Critical, High, Low, Medium, Negligible, Unknown};
        let nvd = [("nvd", CvssV3, CRITICAL3)];
        check(true, &[], &[], (Unknown, ""));
        check(true, &[("debian", Word, "unimportant")], &nvd, (Negligible, "debian"));
        check(true, &[("debian", Word, "not yet assigned")], &nvd, (Critical, "nvd"));
        check(
            true,
            &[("redhat", CvssV3, CRITICAL3), ("redhat", Word, "Moderate")],
            &nvd,
            (Medium, "redhat"),
        );
        check(true, &[("redhat", CvssV3, HIGH3)], &nvd, (High, "redhat"));
        check(true, &[("nvd", CvssV3, HIGH3), ("ubuntu", Word, "low")], &[], (Low, "ubuntu"));
        check(true, &[], &[("cna", CvssV3, HIGH3)], (High, "cna"));
        check(true, &[], &[("nvd", CvssV2, HIGH2)], (High, "nvd"));
        check(
            false,
            &[("ghsa", Word, "LOW"), ("ghsa", CvssV3, HIGH3), ("ghsa", CvssV4, MEDIUM4)],
            &nvd,
            (Medium, "ghsa"),
        );
        check(false, &[("ghsa", Word, "MODERATE"), ("x", CvssV3, "junk")], &nvd, (Medium, "ghsa"));
        check(false, &[], &nvd, (Critical, "nvd"));
        check(
            false,
            &[("b", CvssV3, HIGH3), ("a", CvssV3, HIGH3), ("c", CvssV3, CRITICAL3)],
            &[],
            (Critical, "c"),
        );
        check(false, &[("b", CvssV3, HIGH3), ("a", CvssV3, HIGH3)], &[], (High, "a"));
    }

    #[test]
    fn words_mean_steps() {
        for (word, want) in [
            ("Important", Some(Severity::High)),
            ("MODERATE", Some(Severity::Medium)),
            ("low**", Some(Severity::Low)),
            ("9.8", Some(Severity::Critical)),
            ("0", Some(Severity::Negligible)),
            ("11", None),
            ("NaN", None),
            ("end-of-life", None),
            ("untriaged", None),
            ("", None),
        ] {
            assert_eq!(of_word(word), want, "{word}");
        }
    }
}
