//! Applications of five ecosystems, built from their registries' packages by their own tools, in
//! old versions with known vulnerabilities. Each is a layer on a base of [`crate::rootfs`].
//!
//! Versions are exact, so that the images mean the same on every machine; what is in each is told
//! by the tool that built it.

pub(crate) mod go;
pub(crate) mod java;
pub(crate) mod node;
pub(crate) mod python;
pub(crate) mod rust;
