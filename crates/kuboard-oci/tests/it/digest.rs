//! Digests: the one text of each value, and hashing in pieces.

use kuboard_oci::{Algorithm, Digest, DigestError, Hasher};
use proptest::prelude::*;

/// Of no bytes at all.
const EMPTY_256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const EMPTY_512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                         47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

#[track_caller]
fn refused(text: &str, expected: &DigestError) {
    assert_eq!(text.parse::<Digest>().as_ref(), Err(expected), "{text:?}");
}

#[test]
fn known_answers() {
    assert_eq!(Digest::sha256(b"").to_string(), EMPTY_256);
    assert_eq!(Digest::of(Algorithm::Sha512, b"").to_string(), EMPTY_512);
    assert_eq!(
        Digest::sha256(b"abc").hex(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    for (text, algorithm) in [(EMPTY_256, Algorithm::Sha256), (EMPTY_512, Algorithm::Sha512)] {
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest, Digest::of(algorithm, b""));
        assert_eq!(digest.algorithm(), algorithm);
        assert_eq!(digest.bytes().len(), algorithm.len());
        assert_eq!(format!("{digest:?}"), text);
    }
}

#[test]
fn malformed() {
    let hex = EMPTY_256.strip_prefix("sha256:").unwrap();
    let texts = [
        "",
        ":",
        "sha256",
        "sha256:",
        hex,
        &format!(":{hex}"),
        &format!("SHA256:{hex}"),
        &format!("sha256::{hex}"),
        &format!(" sha256:{hex}"),
        &format!("sha256:{hex} "),
        &format!("sha256:{hex}\n"),
        &format!("sha256:{}/", &hex[1..]),
        &format!("sha256:{}é", &hex[2..]),
        &format!("sha256+:{hex}"),
        &format!("sha256..b:{hex}"),
        "sha256:../../../etc/passwd",
        "sha256:sha256:sha256",
    ];
    for text in texts {
        refused(text, &DigestError::Malformed);
    }
}

#[test]
fn other_algorithms_are_a_kind_of_their_own() {
    for name in ["sha384", "blake3", "md5", "multihash+base58", "a.b_c-d"] {
        let unsupported = DigestError::Unsupported { algorithm: name.to_owned() };
        refused(&format!("{name}:abc123="), &unsupported);
    }
    let long = format!("{}:00", "a".repeat(5000));
    let error = long.parse::<Digest>().unwrap_err();
    assert!(matches!(error, DigestError::Unsupported { .. }) && error.to_string().len() < 120);
}

#[test]
fn length_and_case() {
    let hex = EMPTY_256.strip_prefix("sha256:").unwrap();
    let length = |algorithm, expected, actual| DigestError::Length { algorithm, expected, actual };
    refused("sha256:00", &length("sha256", 64, 2));
    refused(&format!("sha256:{hex}0"), &length("sha256", 64, 65));
    refused(&format!("sha512:{hex}"), &length("sha512", 128, 64));
    refused(&format!("sha256:{}", hex.to_uppercase()), &DigestError::NotLowerHex);
    refused(&format!("sha256:{}g", &hex[1..]), &DigestError::NotLowerHex);
    refused(&format!("sha256:{}=", &hex[1..]), &DigestError::NotLowerHex);
}

#[test]
fn serde_is_the_text() {
    let digest = Digest::sha256(b"");
    let json = serde_json::to_string(&digest).unwrap();
    assert_eq!(json, format!("\"{EMPTY_256}\""));
    assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    assert!(serde_json::from_str::<Digest>("\"sha256:00\"").is_err());
    assert!(serde_json::from_str::<Digest>("7").is_err());
}

proptest! {
    #[test]
    fn text_round_trip(hex in "[0-9a-f]{64}|[0-9a-f]{128}") {
        let text = format!("{}:{hex}", if hex.len() == 64 { "sha256" } else { "sha512" });
        let digest: Digest = text.parse().unwrap();
        prop_assert_eq!(digest.hex(), hex);
        prop_assert_eq!(digest.to_string(), text);
    }

    #[test]
    fn what_parses_is_its_own_text(text in "(sha256|sha512|[a-z+.]{0,9}):?[0-9a-fA-F=_]{0,130}") {
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), text);
        }
    }

    #[test]
    fn hashing_in_pieces_is_hashing_at_once(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
        fork in 0_usize..8,
    ) {
        for algorithm in Algorithm::ALL {
            let mut hasher = Hasher::new(algorithm);
            for (position, piece) in pieces.iter().enumerate() {
                if position == fork {
                    let mut other = hasher.clone();
                    other.update(b"a clone goes its own way");
                }
                hasher.update(piece);
            }
            prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &pieces.concat()));
        }
    }
}
