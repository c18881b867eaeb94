//! Archives and layouts that are damaged or lie.

use std::{fs, io::Write, path::Path};

use kuboard_oci::Digest;

use super::{Contents, LayoutContents, SourceErrorKind, archive::TarFile, open_docker_archive};

fn header(name: &str, size: &[u8; 12], kind: u8) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..136].copy_from_slice(size);
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    header
}

fn octal(size: usize) -> [u8; 12] {
    format!("{size:011o}\0").into_bytes().try_into().unwrap()
}

fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, &octal(content.len()), kind).to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn open(archive: &[u8]) -> Result<TarFile, super::SourceError> {
    let folder = tempfile::tempdir().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(archive).unwrap();
    TarFile::open(file.path(), folder.path())
}

#[test]
fn archives_that_lie_are_refused() {
    let base256 = |bytes: [u8; 12]| header("a", &bytes, b'0').to_vec();
    let mut negative = [0xff; 12];
    negative[11] = 0;
    let mut huge = [0; 12];
    huge[..3].copy_from_slice(&[0x80, 0, 1]);
    let mut nearly = [0xff; 12];
    nearly[..4].copy_from_slice(&[0x80, 0, 0, 0]);
    let cut = &member("a", b'0', &[7; 2000])[..1024];
    let pax = [member("x", b'x', b"29 size=18446744073709551615\n"), member("a", b'0', b"")];
    for (archive, said) in [
        (base256(negative), "bad header"),
        (base256(huge), "bad header"),
        (base256(nearly), "cut off"),
        (cut.to_vec(), "cut off"),
        (pax.concat(), "cut off"),
        ([1; 600].to_vec(), "bad header"),
    ] {
        let error = open(&archive).err().expect(said);
        assert_eq!(error.kind, SourceErrorKind::Invalid);
        assert!(error.message.contains(said), "{error}");
    }
}

#[test]
fn members_are_found_by_the_names_and_sizes_that_pax_gives() {
    let mut records = b"22 SCHILY.xattr.a=\xff\xfe\n\n13 path=long\n".to_vec();
    records.extend_from_slice(b"10 size=3\n");
    let mut archive = member("x", b'x', &records);
    // The header itself has no room for the size.
    archive.extend_from_slice(&header("short", &octal(0), b'0'));
    archive.extend_from_slice(b"abc");
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive.extend_from_slice(&member("next", b'0', b"d"));
    let tar = open(&archive).unwrap();
    assert_eq!(tar.bytes("long", 10).unwrap(), b"abc");
    assert_eq!(tar.bytes("next", 10).unwrap(), b"d");
}

#[test]
fn links_of_archives_lead_nowhere_else() {
    let link = |name: &str, target: &str| {
        let mut header = header(name, &octal(0), b'2');
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.to_vec()
    };
    let archive = [
        member("b/layer.tar", b'0', b"layer"),
        link("a/layer.tar", "../b/layer.tar"),
        link("one", "two"),
        link("two", "one"),
        link("out", "../../etc/passwd"),
    ];
    let tar = open(&archive.concat()).unwrap();
    assert_eq!(tar.bytes("a/layer.tar", 10).unwrap(), b"layer");
    assert!(!tar.has("one") && !tar.has("two") && !tar.has("out"));
}

#[test]
fn images_of_too_many_layers_are_refused() {
    let list = serde_json::json!([{ "Config": "c", "Layers": vec!["c"; 1025] }]).to_string();
    let archive = [member("manifest.json", b'0', list.as_bytes()), member("c", b'0', b"{}")];
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&archive.concat()).unwrap();
    let spill = tempfile::tempdir().unwrap();
    let error = open_docker_archive(file.path(), None, spill.path()).err().unwrap();
    assert!(error.message.contains("more than 1024"), "{error}");
}

#[tokio::test]
async fn blobs_of_layouts_may_be_links_but_not_pipes() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(folder.path().join("index.json"), "{}").unwrap();
    fs::write(folder.path().join("elsewhere"), "linked").unwrap();
    let (linked, pipe, device) =
        (Digest::sha256(b"linked"), Digest::sha256(b"pipe"), Digest::sha256(b"device"));
    let path = |digest: &Digest| blobs.join(digest.hex());
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), path(&linked)).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path(&device)).unwrap();
    make_pipe(&path(&pipe));
    let layout = LayoutContents::open(folder.path()).unwrap();
    assert!(layout.blob(&linked).await.is_ok());
    for refused in [pipe, device] {
        let error = layout.blob(&refused).await.err().unwrap();
        assert!(error.message.contains("no regular file"), "{error}");
    }
}

/// A named pipe, which nobody writes to.
fn make_pipe(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}
