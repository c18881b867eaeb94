//! When a certificate ends.

use x509_parser::pem::Pem;

/// The end of the first certificate of a PEM text, milliseconds since 1970.
pub(crate) fn end_ms(pem: &[u8]) -> Option<i64> {
    let first = Pem::iter_from_buffer(pem).next()?.ok()?;
    let certificate = first.parse_x509().ok()?;
    certificate.validity().not_after.timestamp().checked_mul(1000)
}
