//! Writes tar archives (POSIX ustar) with nothing left to chance: no time, no owner, no order but
//! the caller's, so that equal input gives equal digests.

use std::io::{Read, Write};

use anyhow::{Result, ensure};

/// An archive being written to `W`.
pub struct Tar<W: Write> {
    to: W,
}

impl<W: Write> Tar<W> {
    /// Starts an archive.
    pub fn new(to: W) -> Tar<W> {
        Tar { to }
    }

    /// Adds a folder; `path` without a slash at its end.
    pub fn folder(&mut self, path: &str) -> Result<()> {
        self.header(&format!("{path}/"), Entry { kind: b'5', mode: 0o755, size: 0, link: "" })
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.header(path, Entry { kind: b'2', mode: 0o777, size: 0, link: target })
    }

    /// Adds a file with this content.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.stream(path, mode, content.len() as u64, content)
    }

    /// Adds a file of `size` bytes read from `content`.
    pub fn stream(
        &mut self,
        path: &str,
        mode: u32,
        size: u64,
        mut content: impl Read,
    ) -> Result<()> {
        self.header(path, Entry { kind: b'0', mode, size, link: "" })?;
        let copied = std::io::copy(&mut content, &mut self.to)?;
        ensure!(copied == size, "{path}: {copied} bytes instead of {size}");
        let over = usize::try_from(size % 512)?;
        if over != 0 {
            self.to.write_all(&[0; 512][over..])?;
        }
        Ok(())
    }

    /// Writes the end mark and gives the writer back.
    pub fn finish(mut self) -> Result<W> {
        self.to.write_all(&[0; 1024])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn header(&mut self, path: &str, entry: Entry<'_>) -> Result<()> {
        let mut block = [0u8; 512];
        let (prefix, name) = split(path)?;
        put(&mut block[0..100], name.as_bytes())?;
        put(&mut block[100..108], format!("{:07o}", entry.mode).as_bytes())?;
        put(&mut block[108..116], b"0000000")?;
        put(&mut block[116..124], b"0000000")?;
        put(&mut block[124..136], format!("{:011o}", entry.size).as_bytes())?;
        put(&mut block[136..148], b"00000000000")?;
        block[148..156].fill(b' ');
        block[156] = entry.kind;
        put(&mut block[157..257], entry.link.as_bytes())?;
        put(&mut block[257..263], b"ustar\0")?;
        put(&mut block[263..265], b"00")?;
        put(&mut block[345..500], prefix.as_bytes())?;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block[148..156], format!("{sum:06o}\0 ").as_bytes())?;
        Ok(self.to.write_all(&block)?)
    }
}

struct Entry<'a> {
    kind: u8,
    mode: u32,
    size: u64,
    link: &'a str,
}

fn put(field: &mut [u8], value: &[u8]) -> Result<()> {
    ensure!(value.len() <= field.len(), "too long for a tar header: {:?}", value.escape_ascii());
    field[..value.len()].copy_from_slice(value);
    Ok(())
}

/// A path longer than 100 bytes is split at a slash into ustar's prefix and name.
fn split(path: &str) -> Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    let cut = path
        .char_indices()
        .filter(|(at, letter)| *letter == '/' && *at <= 155 && path.len() - at - 1 <= 100)
        .map(|(at, _)| at)
        .next();
    ensure!(cut.is_some(), "too long for a tar header: {path}");
    let cut = cut.unwrap_or_default();
    Ok((&path[..cut], &path[cut + 1..]))
}

#[cfg(test)]
mod tests {
    use super::Tar;
    use crate::tool;
    use std::process::{Command, Stdio};

    #[test]
    fn the_systems_tar_reads_what_is_written() {
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        let mut archive = Tar::new(Vec::new());
        archive.folder("a").unwrap();
        archive.file("a/one", 0o640, &[7; 513]).unwrap();
        archive.link("a/two", "one").unwrap();
        archive.file(&long, 0o644, b"").unwrap();
        let folder = tool::folder("archive").unwrap();
        let file = folder.path().join("x.tar");
        std::fs::write(&file, archive.finish().unwrap()).unwrap();
        let listed = Command::new("tar").arg("tvf").arg(&file).stderr(Stdio::inherit()).output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        let seen: Vec<String> = listed
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                format!("{} {} {}", fields[0], fields[2], fields[5..].join(" "))
            })
            .collect();
        let expected = vec![
            "drwxr-xr-x 0 a/".to_owned(),
            "-rw-r----- 513 a/one".to_owned(),
            "lrwxrwxrwx 0 a/two -> one".to_owned(),
            format!("-rw-r--r-- 0 {long}"),
        ];
        assert_eq!(seen, expected);
    }
}
