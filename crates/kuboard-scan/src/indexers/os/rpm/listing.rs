//! The listing that images without an rpm database have: a line a package, with tabs between name,
//! version-release, time of installation, of building, vendor, epoch, size, architecture, epoch as
//! a number, and source rpm.

use kuboard_vuln::{Ecosystem, Package};

use super::header::source_of;
use crate::indexers::os::draft::Draft;

pub(super) fn read(bytes: &[u8], draft: &mut Draft) {
    for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<_> = line.split('\t').take(10).collect();
        let [name, version, _, _, _, epoch, _, arch, epoch_number, source] = fields[..] else {
            draft.partly("a line has fewer fields than a package needs");
            continue;
        };
        let epoch = [epoch_number, epoch].into_iter().find_map(|text| text.parse().ok());
        let mut package =
            Package::new(Ecosystem::Rpm, name, &super::header::with_epoch(epoch, version));
        package.arch = Some(arch.to_owned()).filter(|arch| !arch.is_empty() && arch != "(none)");
        package.source = source_of(&package, source, epoch);
        draft.package(package);
    }
}
