//! The authorities and the leaf as they stand in the Secret, read and made.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, pem::Pem};

use super::decide::{AUTHORITY_LIFE_MS, DAY_MS, Held, LEAF_LIFE_MS, Life, Plan};
use crate::Error;

/// Keys of the Secret. Those of the leaf are the ones of `kubernetes.io/tls`.
const LEAF: &str = "tls.crt";
const LEAF_KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const NEXT: &str = "next-ca.crt";
const NEXT_KEY: &str = "next-ca.key";
const LAST: &str = "last-ca.crt";

/// What the Secret holds, as text. Texts that are missing are empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keyring {
    /// The leaf and the authority that signed it, PEM.
    pub chain: String,
    /// The leaf's key, PEM.
    pub key: String,
    authority: String,
    authority_key: String,
    next: String,
    next_key: String,
    /// The authority that signed before.
    last: String,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Keyring {
    /// From the data of a Secret. What is no text counts as missing.
    #[must_use]
    pub fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text = |key: &str| {
            data.get(key)
                .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            chain: text(LEAF),
            key: text(LEAF_KEY),
            authority: text(AUTHORITY),
            authority_key: text(AUTHORITY_KEY),
            next: text(NEXT),
            next_key: text(NEXT_KEY),
            last: text(LAST),
        }
    }

    /// As the data of a Secret.
    #[must_use]
    pub fn write(&self) -> BTreeMap<String, ByteString> {
        [
            (LEAF, &self.chain),
            (LEAF_KEY, &self.key),
            (AUTHORITY, &self.authority),
            (AUTHORITY_KEY, &self.authority_key),
            (NEXT, &self.next),
            (NEXT_KEY, &self.next_key),
            (LAST, &self.last),
        ]
        .into_iter()
        .map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())))
        .collect()
    }

    /// All authorities that are trusted, PEM: the one that signs, the next and the last.
    #[must_use]
    pub fn bundle(&self) -> String {
        let mut bundle = String::new();
        for pem in [&self.authority, &self.next, &self.last] {
            if life(pem).is_some() && !bundle.contains(pem.trim()) {
                bundle.push_str(pem.trim());
                bundle.push('\n');
            }
        }
        bundle
    }

    /// What is there, for [`super::what_to_do`]. `names`: host names and IP addresses.
    #[must_use]
    pub fn held(&self, names: &[String]) -> Held {
        let authority = pair(&self.authority, &self.authority_key);
        let leaf = pair(&self.chain, &self.key)
            .filter(|_| authority.is_some() && is_signed(&self.chain, &self.authority));
        Held {
            authority,
            next: pair(&self.next, &self.next_key),
            leaf,
            has_names: has_names(&self.chain, names),
        }
    }

    /// The lives of the authority that signs and of the leaf.
    #[must_use]
    pub fn lives(&self) -> (Option<Life>, Option<Life>) {
        (life(&self.authority), life(&self.chain))
    }

    /// Carries out a plan.
    ///
    /// # Errors
    /// A key could not be made or read.
    pub fn carry_out(&self, plan: Plan, names: &[String], now_ms: i64) -> Result<Self, Error> {
        let mut made = self.clone();
        match plan {
            Plan::Keep => return Ok(made),
            Plan::NewLeaf => {}
            Plan::NewNext => {
                (made.next, made.next_key) = new_authority(now_ms)?;
                return Ok(made);
            }
            Plan::Promote => {
                made.last = std::mem::take(&mut made.authority);
                made.authority = std::mem::take(&mut made.next);
                made.authority_key = std::mem::take(&mut made.next_key);
                (made.next, made.next_key) = new_authority(now_ms)?;
            }
            Plan::StartAgain => {
                made.last = String::new();
                (made.authority, made.authority_key) = new_authority(now_ms)?;
                (made.next, made.next_key) = new_authority(now_ms)?;
            }
        }
        (made.chain, made.key) = made.new_leaf(names, now_ms)?;
        Ok(made)
    }

    fn new_leaf(&self, names: &[String], now_ms: i64) -> Result<(String, String), Error> {
        let issuer =
            Issuer::from_ca_cert_pem(&self.authority, KeyPair::from_pem(&self.authority_key)?)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kuboard-webhook");
        let ends = life(&self.authority).map_or(i64::MAX, |it| it.until_ms);
        // A clock of an API server may be behind ours.
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now_ms - DAY_MS);
        params.not_after =
            date_time_ymd(1970, 1, 1) + since_1970(now_ms.saturating_add(LEAF_LIFE_MS).min(ends));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &issuer)?;
        Ok((format!("{}{}", leaf.pem(), self.authority), key.serialize_pem()))
    }
}

/// A certificate of an authority and its key, PEM. It begins long ago, for clocks that are set
/// back.
fn new_authority(now_ms: i64) -> Result<(String, String), Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Authorities of one name would be mistaken for each other; each has its moment and its key.
    let serial = key
        .public_key_raw()
        .iter()
        .rev()
        .take(4)
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Kuboard webhook authority {serial}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after =
        date_time_ymd(1970, 1, 1) + since_1970(now_ms.saturating_add(AUTHORITY_LIFE_MS));
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// A moment for the certificate library. Certificates hold years up to 9999; whatever a clock
/// shows beyond 9900 is taken for that.
fn since_1970(ms: i64) -> Duration {
    const YEAR_9900_MS: u64 = 250_246_540_800_000;
    Duration::from_millis(u64::try_from(ms).unwrap_or(0).min(YEAR_9900_MS))
}

/// The first certificate of a PEM text.
fn parsed<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let first = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    let certificate = first.parse_x509().ok()?;
    Some(look(&certificate))
}

fn life(pem: &str) -> Option<Life> {
    let ms = |time: x509_parser::time::ASN1Time| time.timestamp().saturating_mul(1_000);
    parsed(pem, |it| Life {
        from_ms: ms(it.validity().not_before),
        until_ms: ms(it.validity().not_after),
    })
}

/// The life of a certificate that has its key.
fn pair(pem: &str, key: &str) -> Option<Life> {
    let key = KeyPair::from_pem(key).ok()?;
    let is_pair =
        parsed(pem, |it| it.public_key().subject_public_key.data.as_ref() == key.public_key_raw());
    is_pair.filter(|is_pair| *is_pair).and_then(|_| life(pem))
}

/// Whether the authority's key is behind the first certificate of the chain.
fn is_signed(chain: &str, authority: &str) -> bool {
    let identifier = parsed(authority, |it| {
        it.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                Some(id.0.to_vec())
            }
            _ => None,
        })
    });
    let issuer = parsed(chain, |it| {
        it.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            _ => None,
        })
    });
    matches!((identifier, issuer), (Some(Some(a)), Some(Some(b))) if a == b)
}

fn has_names(chain: &str, names: &[String]) -> bool {
    let found = parsed(chain, |it| {
        let Ok(Some(alternatives)) = it.subject_alternative_name() else { return Vec::new() };
        alternatives
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                GeneralName::IPAddress(bytes) => address(bytes).map(|it| it.to_string()),
                _ => None,
            })
            .collect()
    });
    found.is_some_and(|found| names.iter().all(|name| found.contains(&canonical(name))))
}

/// IP addresses have several texts.
fn canonical(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_owned(), |it| it.to_string())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::Keyring;
    use crate::certificates::decide::{AUTHORITY_LIFE_MS, DAY_MS, LEAF_LIFE_MS, Plan, what_to_do};

    const NOW: i64 = 1_795_000_000_000;

    fn names() -> Vec<String> {
        ["kuboard.kuboard.svc", "127.0.0.1"].map(str::to_owned).into()
    }

    /// Carries out what is to be done until nothing is.
    fn settle(mut ring: Keyring, now_ms: i64) -> (Keyring, Vec<Plan>) {
        let mut plans = Vec::new();
        loop {
            let plan = what_to_do(now_ms, &ring.held(&names()));
            if plan == Plan::Keep {
                return (ring, plans);
            }
            assert!(plans.len() < 4, "{plans:?}");
            plans.push(plan);
            ring = ring.carry_out(plan, &names(), now_ms).unwrap();
        }
    }

    #[test]
    fn a_life_of_keys() {
        let (first, plans) = settle(Keyring::default(), NOW);
        assert_eq!(plans, [Plan::StartAgain]);
        assert_eq!(first.bundle().matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(Keyring::read(&first.write()), first);
        // Leaves come and go under one authority.
        let (second, plans) = settle(first.clone(), NOW + LEAF_LIFE_MS / 3 * 2);
        assert_eq!(plans, [Plan::NewLeaf]);
        assert_eq!(second.bundle(), first.bundle());
        // A clock that jumps by 400 days.
        let (_, plans) = settle(first.clone(), NOW + 400 * DAY_MS);
        assert_eq!(plans, [Plan::NewLeaf]);
        let (_, plans) = settle(first.clone(), NOW - 400 * DAY_MS);
        assert_eq!(plans, [Plan::NewLeaf], "back");
        // The first authority makes way for the next one, which had been trusted all the time.
        let (second, plans) = settle(second, NOW + AUTHORITY_LIFE_MS / 2);
        assert_eq!(plans, [Plan::NewNext, Plan::NewLeaf]);
        let (third, plans) = settle(second.clone(), NOW + AUTHORITY_LIFE_MS / 3 * 2);
        assert_eq!(plans, [Plan::Promote]);
        assert!(third.bundle().contains(second.authority.trim()), "the last one stays trusted");
        assert!(second.bundle().contains(third.authority.trim()), "and the next one was before");
        // Everything is over.
        let (_, plans) = settle(first, NOW + 2 * AUTHORITY_LIFE_MS);
        assert_eq!(plans, [Plan::StartAgain]);
    }

    #[test]
    fn what_is_damaged_counts_as_missing() {
        let (ring, _) = settle(Keyring::default(), NOW);
        let check = |damage: &dyn Fn(&mut Keyring), want: Plan| {
            let mut ring = ring.clone();
            damage(&mut ring);
            assert_eq!(what_to_do(NOW, &ring.held(&names())), want);
        };
        check(&|_| {}, Plan::Keep);
        check(&|ring| ring.chain.clear(), Plan::NewLeaf);
        check(&|ring| ring.key = ring.authority_key.clone(), Plan::NewLeaf);
        check(&|ring| ring.next_key = "-----BEGIN".to_owned(), Plan::NewNext);
        check(&|ring| ring.authority = "x".to_owned(), Plan::Promote);
        check(&|ring| std::mem::swap(&mut ring.authority, &mut ring.next), Plan::StartAgain);
        let mut both = ring.clone();
        std::mem::swap(&mut both.authority, &mut both.next);
        std::mem::swap(&mut both.authority_key, &mut both.next_key);
        let plan = what_to_do(NOW, &both.held(&names()));
        assert_eq!(plan, Plan::NewLeaf, "a leaf of another authority");
        let wanted = ["elsewhere.example".to_owned()];
        assert_eq!(what_to_do(NOW, &ring.held(&wanted)), Plan::NewLeaf);
        let mut data = ring.write();
        data.insert("ca.key".to_owned(), k8s_openapi::ByteString(vec![0xff, 0xfe]));
        assert_eq!(what_to_do(NOW, &Keyring::read(&data).held(&names())), Plan::Promote);
    }
}
