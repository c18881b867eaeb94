//! What a client can take: media types by `Accept`, compression by `Accept-Encoding` (RFC 9110).

use std::io::{self, Write};

use http::{
    HeaderMap, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING},
};

use super::answer::Refusal;

/// Entries of a header that are looked at.
const MAX_ENTRIES: usize = 64;

/// An entry of such a header: name, and weight in 1/1000.
fn entries(headers: &HeaderMap, name: http::HeaderName) -> Vec<(String, u16)> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut entries: Vec<(String, u16)> = values
        .flat_map(|value| value.split(','))
        .filter(|entry| !entry.trim().is_empty())
        .take(MAX_ENTRIES)
        .map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            (name, parts.find_map(weight).unwrap_or(1000))
        })
        .collect();
    // Stable: among equals the client's order counts.
    entries.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    entries
}

/// The weight that a parameter states.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let weight: f32 = value.trim().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    Some((weight.clamp(0.0, 1.0) * 1000.0) as u16)
}

/// The first of `offered` that the client likes best; the first of all if it says nothing.
///
/// # Errors
/// 415 if it takes none of them (so Clair), 400 if the header can't be read.
pub(super) fn choose<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Result<&'a str, Refusal> {
    let accepted = entries(headers, ACCEPT);
    let first = offered.first().copied().unwrap_or_default();
    if accepted.is_empty() {
        return Ok(first);
    }
    for (name, weight) in accepted {
        let Some((kind, subtype)) = name.split_once('/') else {
            return Err(Refusal::bad(format!("malformed request: {name:?} is no media type")));
        };
        if weight == 0 {
            continue;
        }
        let fits = |one: &&&str| {
            let (offered_kind, offered_subtype) = one.split_once('/').unwrap_or_default();
            (kind == "*" && subtype == "*")
                || (kind == offered_kind && (subtype == "*" || subtype == offered_subtype))
        };
        if let Some(found) = offered.iter().find(fits) {
            return Ok(found);
        }
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("unable to negotiate common media type for {offered:?}"),
    ))
}

/// How a body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    Identity,
    Zstd,
    Gzip,
    Deflate,
}

impl Encoding {
    /// What the client likes best; ours among its equals is zstd, then gzip.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepted = entries(headers, ACCEPT_ENCODING);
        let weight_of = |name: &str| {
            let named = accepted.iter().find(|(one, _)| one == name);
            let any = accepted.iter().find(|(one, _)| one == "*");
            named.or(any).map_or(0, |(_, weight)| *weight)
        };
        let weights = [
            (Self::Zstd, weight_of("zstd")),
            (Self::Gzip, weight_of("gzip").max(weight_of("x-gzip"))),
            (Self::Deflate, weight_of("deflate")),
        ];
        let mut best = (Self::Identity, 0);
        for (encoding, weight) in weights {
            if weight > best.1 {
                best = (encoding, weight);
            }
        }
        let plain = accepted.iter().find(|(name, _)| name == "identity");
        match plain {
            Some((_, weight)) if *weight > best.1 => Self::Identity,
            _ => best.0,
        }
    }

    /// Its name in `Content-Encoding`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The bytes, compressed the fast way.
    pub(super) fn compress(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let fast = flate2::Compression::fast();
        match self {
            Self::Identity => Ok(bytes.to_vec()),
            Self::Zstd => zstd::bulk::compress(bytes, 1),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), fast);
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, StatusCode, header};

    use super::{Encoding, choose};

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn media_types_are_chosen() {
        let offered = ["application/vnd.a+json", "application/json"];
        for (accept, chosen) in [
            (&[][..], Ok(offered[0])),
            (&["*/*"], Ok(offered[0])),
            (&["application/*"], Ok(offered[0])),
            (&["application/json"], Ok(offered[1])),
            (&["text/html, application/json;q=0.5, */*;q=0.1"], Ok(offered[1])),
            (&["application/vnd.a+json;q=0.1", "application/json"], Ok(offered[1])),
            (&["application/json;q=0"], Err(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
            (&["text/html"], Err(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
            (&["json"], Err(StatusCode::BAD_REQUEST)),
        ] {
            let got = choose(&headers(header::ACCEPT, accept), &offered);
            assert_eq!(got.map_err(|refusal| refusal.status), chosen, "{accept:?}");
        }
    }

    #[test]
    fn encodings_are_chosen_and_inflate_again() {
        for (accept, chosen) in [
            ("", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("gzip, zstd;q=0.9", Encoding::Gzip),
            ("deflate;q=0.5", Encoding::Deflate),
            ("*", Encoding::Zstd),
            ("*;q=0", Encoding::Identity),
            ("identity, gzip;q=0.5", Encoding::Identity),
            ("zstd;q=0, gzip", Encoding::Gzip),
            ("br", Encoding::Identity),
        ] {
            assert_eq!(
                Encoding::of(&headers(header::ACCEPT_ENCODING, &[accept])),
                chosen,
                "{accept}"
            );
        }
        let text = b"all the same, ".repeat(100);
        let inflate = |encoding: Encoding| -> Vec<u8> {
            let bytes = encoding.compress(&text).unwrap();
            let mut out = Vec::new();
            let mut reader: Box<dyn std::io::Read> = match encoding {
                Encoding::Identity => Box::new(&bytes[..]),
                Encoding::Zstd => Box::new(zstd::stream::read::Decoder::new(&bytes[..]).unwrap()),
                Encoding::Gzip => Box::new(flate2::read::GzDecoder::new(&bytes[..])),
                Encoding::Deflate => Box::new(flate2::read::ZlibDecoder::new(&bytes[..])),
            };
            reader.read_to_end(&mut out).unwrap();
            out
        };
        for encoding in [Encoding::Identity, Encoding::Zstd, Encoding::Gzip, Encoding::Deflate] {
            assert_eq!(inflate(encoding), text, "{encoding:?}");
        }
    }
}
