//! What stands in a request's `Authorization` header.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, HeaderMap};

/// Longest header that is read, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials as they were sent. It holds secrets: no `Debug`.
#[derive(PartialEq, Eq)]
pub(crate) enum Presented {
    None,
    Basic { user: String, secret: String },
    Bearer(String),
}

/// Reads the header; the error says what is wrong with it without repeating it.
pub(crate) fn presented(headers: &HeaderMap) -> Result<Presented, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(Presented::None) };
    if values.next().is_some() {
        return Err("more than one Authorization header");
    }
    let value = value.to_str().map_err(|_| "the Authorization header is not ASCII")?;
    if value.len() > MAX_BYTES {
        return Err("the Authorization header is longer than 16 KiB");
    }
    let (scheme, rest) = value.trim().split_once(' ').ok_or("malformed Authorization header")?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Presented::Bearer(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err("the scheme of the Authorization header is neither Basic nor Bearer");
    }
    let decoded = BASE64.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.ok_or("malformed Basic credentials")?;
    let (user, secret) = decoded.split_once(':').ok_or("malformed Basic credentials")?;
    if user.is_empty() && secret.is_empty() {
        // What some clients send when they have nothing to send.
        return Ok(Presented::None);
    }
    Ok(Presented::Basic { user: user.to_owned(), secret: secret.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_or_refused() {
        let check = |values: &[&str], expected: Result<&str, &str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            let read = presented(&headers).map(|presented| match presented {
                Presented::None => "nothing".to_owned(),
                Presented::Basic { user, secret } => format!("{user} with {secret}"),
                Presented::Bearer(token) => format!("token {token}"),
            });
            match (&read, expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read, expected),
                (Err(read), Err(expected)) => assert!(read.contains(expected), "{read}"),
                _ => panic!("{values:?}: {read:?}"),
            }
        };
        check(&[], Ok("nothing"));
        check(&["Basic YW5uOnBhc3M="], Ok("ann with pass"));
        check(&["basic YW5uOnBhc3M"], Ok("ann with pass"));
        check(&["Basic YW5uOmE6Yg=="], Ok("ann with a:b"));
        check(&["Basic Og=="], Ok("nothing"));
        check(&["Bearer abc.def"], Ok("token abc.def"));
        check(&["bearer  abc"], Ok("token abc"));
        check(&["Basic"], Err("malformed"));
        check(&["Basic ///"], Err("malformed Basic"));
        check(&["Basic YW5u"], Err("malformed Basic"));
        check(&["Negotiate abc"], Err("neither"));
        check(&["Bearer a", "Bearer b"], Err("more than one"));
        check(&[&format!("Bearer {}", "a".repeat(20_000))], Err("longer"));
    }
}
