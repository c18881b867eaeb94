//! Amounts with a unit: durations as `30` or `"30s"`, sizes in gigabytes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::schema::{Described, Shape};

/// A duration whose bare number counts units of `UNIT` seconds; a text (`"30s"`, `"5m"`,
/// `"1h30m"`, `"2d"`) names its own.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span<const UNIT: u64>(u64);

/// A duration, in seconds when it is a bare number.
pub type Seconds = Span<1>;
/// A duration, in minutes when it is a bare number.
pub type Minutes = Span<60>;
/// A duration, in days when it is a bare number.
pub type Days = Span<86_400>;

/// No configured duration is longer: a hundred years, which no sum of them can overflow.
const LONGEST_SECONDS: u64 = 100 * 365 * 86_400;

impl<const UNIT: u64> Span<UNIT> {
    /// `count` units.
    pub const fn of(count: u64) -> Self {
        Self(count.saturating_mul(UNIT))
    }

    /// As a [`Duration`].
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// True for 0, which most keys read as "never" or "off".
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    fn bounded(seconds: Option<u64>) -> Result<Self, String> {
        match seconds {
            Some(seconds) if seconds <= LONGEST_SECONDS => Ok(Self(seconds)),
            _ => Err("the duration is longer than a hundred years".to_owned()),
        }
    }
}

const HOW: &str = "\nhint: write a number, or a text such as \"30s\", \"5m\", \"1h30m\" or \"2d\"";

impl<const UNIT: u64> FromStr for Span<UNIT> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a duration: \"{text}\"{HOW}");
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(bad());
        }
        let mut total = Some(0_u64);
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, after) = rest.split_at(digits);
            let count: u64 = number.parse().map_err(|_| bad())?;
            let unit = match after.as_bytes().first() {
                Some(b's') => 1,
                Some(b'm') if !after.starts_with("ms") => 60,
                Some(b'h') => 3_600,
                Some(b'd') => 86_400,
                // A bare number in quotes counts like one without.
                None if number.len() == text.trim().len() => UNIT,
                _ => return Err(bad()),
            };
            total = total.and_then(|sum| sum.checked_add(count.checked_mul(unit)?));
            rest = after.get(1..).unwrap_or_default();
        }
        Self::bounded(total)
    }
}

impl<const UNIT: u64> fmt::Display for Span<UNIT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds > 0 && seconds % 86_400 == 0 => write!(f, "{}d", seconds / 86_400),
            seconds if seconds > 0 && seconds % 3_600 == 0 => write!(f, "{}h", seconds / 3_600),
            seconds if seconds > 0 && seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

impl<'de, const UNIT: u64> Deserialize<'de> for Span<UNIT> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Amount<const UNIT: u64>;
        impl<const UNIT: u64> Visitor<'_> for Amount<UNIT> {
            type Value = Span<UNIT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration")
            }

            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Self::Value, E> {
                Span::bounded(count.checked_mul(UNIT)).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Self::Value, E> {
                let count = u64::try_from(count)
                    .map_err(|_| E::custom(format!("a duration cannot be negative: {count}")))?;
                self.visit_u64(count)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Amount)
    }
}

impl<const UNIT: u64> Serialize for Span<UNIT> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(UNIT) {
            to.serialize_u64(self.0 / UNIT)
        } else {
            to.collect_str(self)
        }
    }
}

impl<const UNIT: u64> Described for Span<UNIT> {
    fn shape() -> Shape {
        let unit = match UNIT {
            1 => "seconds",
            60 => "minutes",
            _ => "days",
        };
        Shape::Value(format!("duration ({unit})"))
    }
}

/// A size in gigabytes of 10⁹ bytes; fractions are allowed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gigabytes(u64);

impl Gigabytes {
    const ONE: u64 = 1_000_000_000;

    /// `count` gigabytes.
    pub const fn of(count: u64) -> Self {
        Self(count.saturating_mul(Self::ONE))
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Gigabytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = Gigabytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of gigabytes")
            }

            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Self::Value, E> {
                self.visit_f64(count as f64)
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Self::Value, E> {
                self.visit_f64(count as f64)
            }

            fn visit_f64<E: serde::de::Error>(self, count: f64) -> Result<Self::Value, E> {
                // A billion gigabytes is more than any disk and far from the end of u64.
                if !(0.0..=1e9).contains(&count) {
                    return Err(E::custom(format!("not a size in gigabytes: {count}")));
                }
                Ok(Gigabytes((count * Gigabytes::ONE as f64).round() as u64))
            }
        }
        from.deserialize_any(Size).map_err(D::Error::custom)
    }
}

impl Serialize for Gigabytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(Self::ONE) {
            to.serialize_u64(self.0 / Self::ONE)
        } else {
            to.serialize_f64(self.0 as f64 / Self::ONE as f64)
        }
    }
}

impl Described for Gigabytes {
    fn shape() -> Shape {
        Shape::Value("number (GB)".to_owned())
    }
}
