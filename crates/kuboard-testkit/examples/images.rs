//! Makes the images of `kuboard_testkit::rootfs` and says where they lie:
//! `cargo run -p kuboard-testkit --example images -- [NAME...]`, all when none is named.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use anyhow::Result;
use kuboard_testkit::rootfs;

fn main() -> Result<()> {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        wanted = rootfs::names().map(str::to_owned).collect();
    }
    for name in wanted {
        let image = rootfs::image(&name)?;
        let bytes: u64 = image.layers.iter().map(|layer| layer.size).sum();
        let tar: u64 = image.layers.iter().map(|layer| layer.tar_size).sum();
        println!(
            "{name}\t{} packages\t{bytes} bytes of {tar}\t{}",
            image.packages().len(),
            image.layout().display()
        );
    }
    Ok(())
}
