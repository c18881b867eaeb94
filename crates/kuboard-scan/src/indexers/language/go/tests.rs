use super::super::tests::shown;
use super::*;

const START: &[u8; 16] = b"0123456789abcdef";

/// A module list between its marks.
fn marked(list: &str) -> Vec<u8> {
    [START.as_slice(), list.as_bytes(), START].concat()
}

fn prefixed(text: &[u8]) -> Vec<u8> {
    let mut length = text.len();
    let mut bytes = Vec::new();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    [bytes.as_slice(), text].concat()
}

/// What Go 1.18 and later put into the section.
fn inline_info(toolchain: &str, list: &str) -> Vec<u8> {
    let mut info = [MAGIC, &[8, 2]].concat();
    info.resize(32, 0);
    info.extend(prefixed(toolchain.as_bytes()));
    info.extend(prefixed(&marked(list)));
    info
}

/// An ELF file of 64 bits with one data segment (at 0x1000 + its offset) and, if it has a name,
/// one section.
pub(in super::super) fn elf(data: &[u8], section: Option<&str>) -> Vec<u8> {
    const DATA: u64 = 128;
    let mut file = vec![0; DATA as usize];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    let sections = DATA + data.len() as u64;
    put(0, b"\x7fELF\x02\x01\x01");
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &1_u32.to_le_bytes());
    put(68, &6_u32.to_le_bytes());
    put(72, &DATA.to_le_bytes());
    put(80, &(0x1000 + DATA).to_le_bytes());
    put(96, &(data.len() as u64).to_le_bytes());
    if section.is_some() {
        put(40, &sections.to_le_bytes());
        put(58, &64_u16.to_le_bytes());
        put(60, &3_u16.to_le_bytes());
        put(62, &2_u16.to_le_bytes());
    }
    file.extend(data);
    if let Some(name) = section {
        let names = sections + 3 * 64;
        let header = |name: u32, kind: u32, offset: u64, size: u64| {
            let mut header = vec![0; 64];
            header[0..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            header
        };
        file.extend(header(0, 0, 0, 0));
        file.extend(header(1, 1, DATA, data.len() as u64));
        file.extend(header(0, 3, names, name.len() as u64 + 2));
        file.extend([b"\0", name.as_bytes(), b"\0"].concat());
    }
    file
}

/// A PE file with one section of writable data.
fn pe(data: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(60, &64_u32.to_le_bytes());
    put(64, b"PE\0\0");
    put(70, &1_u16.to_le_bytes());
    put(84, &112_u16.to_le_bytes());
    put(88, &0x20b_u16.to_le_bytes());
    put(200, b".data");
    put(208, &(data.len() as u32).to_le_bytes());
    put(216, &(data.len() as u32).to_le_bytes());
    put(220, &512_u32.to_le_bytes());
    put(236, &0xc000_0040_u32.to_le_bytes());
    file.extend(data);
    file
}

/// A Mach-O file of 64 bits with one section of data.
fn macho(data: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 256];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\xcf\xfa\xed\xfe");
    put(16, &1_u32.to_le_bytes());
    put(20, &152_u32.to_le_bytes());
    put(32, &0x19_u32.to_le_bytes());
    put(36, &152_u32.to_le_bytes());
    put(40, b"__DATA");
    put(96, &1_u32.to_le_bytes());
    put(104, b"__go_buildinfo");
    put(144, &(data.len() as u64).to_le_bytes());
    put(152, &256_u32.to_le_bytes());
    file.extend(data);
    file
}

const LIST: &str = "path\texample.org/app\nmod\texample.org/app\t(devel)\t\ndep\ta.org/one\tv1.2.3\th1:x=\ndep\ta.org/two\tv0.1.0\n=>\tb.org/fork\tv0.2.0\th1:y=\ndep\ta.org/here\tv0.0.0\n=>\t./here\t(devel)\nbuild\t-ldflags=\"-X main.version=1.0.1\"\nbuild\tCGO_ENABLED=0\n";
const FOUND: &str = "example.org/app v1.0.1 (main), a.org/one v1.2.3, b.org/fork v0.2.0, a.org/here v0.0.0 (local), stdlib 1.22.3";

pub(in super::super) fn samples() -> Vec<Vec<u8>> {
    let info = inline_info("go1.22.3", LIST);
    vec![elf(&info, Some(".go.buildinfo")), elf(&info, None), pe(&info), macho(&info), pointed()]
}

/// A program as Go 1.17 built it: the header points to Go strings.
fn pointed() -> Vec<u8> {
    let base = 0x1000 + 128_u64;
    let mut data = [MAGIC, &[8, 0]].concat();
    let list = marked(LIST);
    for number in [base + 32, base + 48, base + 64, 8, base + 72, list.len() as u64] {
        data.extend(number.to_le_bytes());
    }
    data.extend(b"go1.22.3");
    data.extend(list);
    elf(&data, None)
}

struct Bytes(Vec<u8>);

impl Content for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.as_slice().read_at(offset, into)
    }

    fn in_memory(&self) -> Option<&[u8]> {
        None
    }
}

fn check(file: Vec<u8>, expected: &str) {
    assert_eq!(shown(&parse(&Bytes(file))), expected);
}

#[test]
fn formats() {
    for sample in samples() {
        check(sample, FOUND);
    }
    let info = inline_info("go1.22.3", LIST);
    // In a fat file, behind a slice for a processor that it is not for.
    let mut fat = vec![0; 512];
    fat[..8].copy_from_slice(b"\xca\xfe\xba\xbe\0\0\0\x02");
    fat[16..20].copy_from_slice(&400_u32.to_be_bytes());
    fat[36..40].copy_from_slice(&512_u32.to_be_bytes());
    let mut inner = macho(&info);
    // Offsets count from the slice.
    fat.append(&mut inner);
    check(fat, FOUND);
    // Aligned, but not at the start.
    check(elf(&[&[0; 64], info.as_slice()].concat(), None), FOUND);
    check(elf(&[&[0; 60], info.as_slice()].concat(), None), "");
    // Over the edge of what is searched at once.
    check(elf(&[&vec![0; (1 << 20) - 16], info.as_slice()].concat(), None), FOUND);
}

#[test]
fn others() {
    check(Vec::new(), "");
    check(b"MZ".to_vec(), "");
    check(b"\x7fELF".to_vec(), "");
    check(elf(b"data", Some(".data")), "");
    check(elf(&inline_info("go1.22.3", ""), Some(".go.buildinfo")), "stdlib 1.22.3");
    check(
        elf(&inline_info("", LIST), Some(".go.buildinfo")),
        "! its Go build information is damaged",
    );
    let mut lying = inline_info("go1.22.3", LIST);
    lying[32] = 0xff;
    lying[33] = 0xff;
    check(elf(&lying, Some(".go.buildinfo")), "! its Go build information is damaged");
    let whole = elf(&inline_info("go1.22.3", LIST), Some(".go.buildinfo"));
    check(whole[..300].to_vec(), "! its Go build information is damaged");
    // What names the sections is cut off, the data is not.
    check(whole[..whole.len() - 4].to_vec(), FOUND);
    let other = elf(&[0; 400], Some(".data"));
    check(other[..300].to_vec(), "! its section table lies outside of the file");
}
