//! What a written file is compared by: its length and a hash, as the recorder stored them.

use instar_codec::hash::Hash;
use rustix::fs::{SeekFrom, seek};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Files up to this length are hashed whole.
const WHOLE_MAX: u64 = 256 << 20;
/// Of longer ones, blocks of this length that are not all zeroes.
const BLOCK: u64 = 64 << 10;

/// A file's length and hash; null if it is not there.
pub fn digest(path: &Path) -> Value {
    let Ok(file) = File::open(path) else { return Value::Null };
    let size = file.metadata().expect("its length").len();
    if size > WHOLE_MAX {
        return json!({ "size": size, "sha256-nonzero-64k-blocks": hash(&blocks(&file, size)) });
    }
    let (bytes, masked) = mask(std::fs::read(path).expect("its bytes"));
    let mut value = json!({ "size": bytes.len(), "sha256": hash(&bytes) });
    if let Some(words) = masked {
        value["masked"] = words.into();
    }
    value
}

fn hash(bytes: &[u8]) -> String {
    let sha256 = Hash::by_name(b"sha256").expect("a hash");
    sha256.digest(&[bytes]).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every block with something in it, behind its number.
fn blocks(file: &File, size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(data) = seek(file, SeekFrom::Data(at)) else { break };
        let end = seek(file, SeekFrom::Hole(data)).expect("an end");
        at = data / BLOCK * BLOCK;
        while at < end {
            let mut block = vec![0; BLOCK.min(size - at) as usize];
            file.read_exact_at(&mut block, at).expect("a block");
            if block.iter().any(|byte| *byte != 0) {
                out.extend((at / BLOCK).to_be_bytes());
                out.extend(block);
            }
            at += BLOCK;
        }
    }
    out
}

/// Blanks the fields that are random in some formats, and says so.
fn mask(mut bytes: Vec<u8>) -> (Vec<u8>, Option<&'static str>) {
    let len = bytes.len();
    let starts = bytes.starts_with(b"conectix");
    let ends = len >= 512 && bytes[len - 512..].starts_with(b"conectix");
    if starts || ends {
        for at in [0].into_iter().filter(|_| starts).chain([len - 512]) {
            bytes[at + 24..at + 28].fill(0);
            bytes[at + 64..at + 84].fill(0);
        }
        return (bytes, Some("vpc: time stamp, checksum and uuid zeroed"));
    }
    if bytes.get(64..68) == Some(b"\x7f\x10\xda\xbe") {
        bytes[392..424].fill(0);
        return (bytes, Some("vdi: image and last-snapshot uuid zeroed"));
    }
    if bytes.starts_with(b"KDMV") || bytes.starts_with(b"# Disk DescriptorFile") {
        return (without_cid(bytes), Some("vmdk: CID replaced by 00000000"));
    }
    (bytes, None)
}

/// Blanks the random number in a descriptor of a VMware disk. It may have less than eight digits: what follows is moved.
fn without_cid(mut bytes: Vec<u8>) -> Vec<u8> {
    let find = |from: usize, what: &[u8]| {
        let at = bytes[from..].windows(what.len()).position(|window| window == what);
        at.map(|at| from + at)
    };
    let Some(at) = find(0, b"\nCID=").map(|at| at + 5) else { return bytes };
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let short = 8 - digits.min(8);
    let end = find(at, b"\0");
    let room = end.filter(|end| bytes[*end..].iter().take(short).all(|byte| *byte == 0));
    if let Some(room) = room {
        bytes.drain(room..room + short);
    }
    bytes.splice(at..at + digits, *b"00000000");
    bytes
}
