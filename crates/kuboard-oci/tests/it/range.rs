//! Byte ranges, as asked for and as answered.

use kuboard_oci::{ByteRange, ContentRange, ContentRangeError, RangeError, Unsatisfiable};
use proptest::prelude::*;

/// Begin and end of the bytes to send, nothing where the header is ignored, or why it is refused.
type Outcome<E> = Result<Option<(u64, u64)>, E>;

/// The bytes of a content of 1000 that `header` means: `None` if it is ignored.
fn of_thousand(header: &str) -> Outcome<String> {
    match ByteRange::parse(header) {
        Ok(None) => Ok(None),
        Ok(Some(range)) => match range.resolve(1000) {
            Ok(bytes) => Ok(Some((bytes.start, bytes.end))),
            Err(error) => Err(error.content_range()),
        },
        Err(RangeError::Malformed) => Err("malformed".to_owned()),
        Err(RangeError::Backwards { .. }) => Err("backwards".to_owned()),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn asked_for() {
    let outside = "bytes */1000";
    let beyond_64_bits = "99999999999999999999999999";
    let table: &[(&str, Outcome<&str>)] = &[
        ("bytes=0-0", Ok(Some((0, 1)))),
        ("bytes=0-499", Ok(Some((0, 500)))),
        ("bytes=500-999", Ok(Some((500, 1000)))),
        ("bytes=500-", Ok(Some((500, 1000)))),
        ("bytes=999-", Ok(Some((999, 1000)))),
        ("bytes=-1", Ok(Some((999, 1000)))),
        ("bytes=-500", Ok(Some((500, 1000)))),
        ("bytes=-5000", Ok(Some((0, 1000)))),
        ("bytes=900-5000", Ok(Some((900, 1000)))),
        ("bytes=900-18446744073709551615", Ok(Some((900, 1000)))),
        (&format!("bytes=900-{beyond_64_bits}"), Ok(Some((900, 1000)))),
        (&format!("bytes=-{beyond_64_bits}"), Ok(Some((0, 1000)))),
        ("Bytes=0-9", Ok(Some((0, 10)))),
        (" bytes = 0 - 9 ", Ok(Some((0, 10)))),
        ("bytes=007-0009", Ok(Some((7, 10)))),
        ("bytes=1000-", Err(outside)),
        ("bytes=1000-1000", Err(outside)),
        ("bytes=2000-3000", Err(outside)),
        (&format!("bytes={beyond_64_bits}-"), Err(outside)),
        ("bytes=-0", Err(outside)),
        ("bytes=500-0", Err("backwards")),
        ("bytes=0-1,5-6", Ok(None)),
        ("bytes=0-1,", Ok(None)),
        ("bytes=,", Ok(None)),
        ("items=0-9", Ok(None)),
        ("items=whatever", Ok(None)),
        ("bytes", Err("malformed")),
        ("bytes 0-9", Err("malformed")),
        ("bytes 0-9/10=", Err("malformed")),
        ("bytes=", Err("malformed")),
        ("bytes=-", Err("malformed")),
        ("bytes=9", Err("malformed")),
        ("bytes=a-b", Err("malformed")),
        ("bytes=0-9-", Err("malformed")),
        ("bytes=--9", Err("malformed")),
        ("bytes=+1-9", Err("malformed")),
        ("bytes=0x1-9", Err("malformed")),
        ("bytes=0.0-9", Err("malformed")),
        ("bytes=١-٢", Err("malformed")),
        ("=0-9", Err("malformed")),
        ("", Err("malformed")),
    ];
    for (header, expected) in table {
        let expected = expected.map_err(str::to_owned);
        assert_eq!(of_thousand(header), expected, "{header:?}");
    }
}

#[test]
fn nothing_of_an_empty_content() {
    for header in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"] {
        let range = ByteRange::parse(header).unwrap().unwrap();
        assert_eq!(range.resolve(0), Err(Unsatisfiable { len: 0 }), "{header}");
    }
}

#[test]
fn asking() {
    let text = |first, last| ByteRange::new(first, last).map(|range| range.to_string());
    assert_eq!(text(5, None), Ok("bytes=5-".to_owned()));
    assert_eq!(text(5, Some(5)), Ok("bytes=5-5".to_owned()));
    assert_eq!(text(5, Some(4)), Err(RangeError::Backwards { first: 5, last: 4 }));
    assert_eq!(ByteRange::parse("bytes=7-9").unwrap().unwrap().first(), Some(7));
    assert_eq!(ByteRange::parse("bytes=-9").unwrap().unwrap().first(), None);
}

#[test]
fn answered() {
    use ContentRangeError::{Contradiction, Malformed};
    let of = |start, end_inclusive, total| Ok(ContentRange { start, end_inclusive, total });
    let table = [
        ("0-99", of(0, 99, None)),
        ("0-0", of(0, 0, None)),
        ("100-199", of(100, 199, None)),
        ("bytes 0-99/1234", of(0, 99, Some(1234))),
        ("bytes 0-99/100", of(0, 99, Some(100))),
        ("bytes 0-99/*", of(0, 99, None)),
        ("Bytes  0-99/1234", of(0, 99, Some(1234))),
        ("0-9223372036854775806", of(0, 9_223_372_036_854_775_806, None)),
        ("0-9223372036854775807", Err(Contradiction)),
        ("0-18446744073709551616", Err(Contradiction)),
        ("bytes 0-9/18446744073709551615", Err(Contradiction)),
        ("99-0", Err(Contradiction)),
        ("bytes 0-100/100", Err(Contradiction)),
        ("bytes 0-0/0", Err(Contradiction)),
        ("", Err(Malformed)),
        ("-", Err(Malformed)),
        ("0-", Err(Malformed)),
        ("-9", Err(Malformed)),
        ("a-b", Err(Malformed)),
        ("0-99/1234", Err(Malformed)),
        ("bytes 0-99", Err(Malformed)),
        ("bytes */1234", Err(Malformed)),
        ("bytes=0-99", Err(Malformed)),
        ("items 0-99/100", Err(Malformed)),
        ("0-99-100", Err(Malformed)),
        ("0 - 99", Err(Malformed)),
    ];
    for (header, expected) in table {
        assert_eq!(header.parse::<ContentRange>(), expected, "{header:?}");
    }
}

#[test]
fn answering() {
    let range = ContentRange::of(&(0..100), Some(1234)).unwrap();
    assert_eq!(range.to_string(), "bytes 0-99/1234");
    assert_eq!((range.to_upload().as_str(), range.len()), ("0-99", 100));
    assert_eq!(ContentRange::of(&(5..6), None).unwrap().to_string(), "bytes 5-5/*");
    assert_eq!(ContentRange::of(&(0..0), None), None);
    assert_eq!(ContentRange::of(&(7..7), Some(9)), None);
    assert_eq!(ContentRange::of(&(0..10), Some(9)), None);
}

proptest! {
    #[test]
    fn resolved_ranges_stay_inside(
        first in proptest::option::of(0_u64..2000),
        last in proptest::option::of(0_u64..2000),
        len in prop_oneof![0_u64..2000, Just(u64::MAX)],
    ) {
        let text = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let header = format!("bytes={}-{}", text(first), text(last));
        if let Ok(Some(range)) = ByteRange::parse(&header) {
            prop_assert_eq!(ByteRange::parse(&range.to_string()), Ok(Some(range)));
            match range.resolve(len) {
                Ok(bytes) => {
                    prop_assert!(bytes.start < bytes.end && bytes.end <= len);
                    prop_assert!(first.is_none_or(|first| first == bytes.start));
                    prop_assert!(first.is_none() || last.is_none_or(|last| bytes.end <= last + 1));
                }
                Err(error) => {
                    prop_assert_eq!(error, Unsatisfiable { len });
                    prop_assert!(len == 0 || first.map_or(last == Some(0), |first| first >= len));
                }
            }
        }
    }

    #[test]
    fn content_ranges_round_trip(start in 0..1_u64 << 62, more in 0..1_u64 << 61, rest in 1..1_u64 << 60) {
        for total in [None, Some(start + more + rest)] {
            let range = ContentRange { start, end_inclusive: start + more, total };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
            prop_assert_eq!(range.to_upload().parse(), Ok(ContentRange { total: None, ..range }));
            prop_assert_eq!(range.len(), more + 1);
        }
    }

    #[test]
    fn nothing_panics(header in "(bytes[ =])?[0-9a-z=,/* -]{0,50}|\\PC{0,50}") {
        _ = ByteRange::parse(&header);
        _ = header.parse::<ContentRange>();
    }
}
