//! LUKS2 containers: headers that cryptsetup would write, around a payload of zeroes. Checksums are left out.

/// The text of a container with one key slot under Argon2id.
pub const TEXT: &str = r#"{
  "keyslots": {
    "0": {
      "type": "luks2",
      "key_size": 64,
      "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
      "area": {"type": "raw", "offset": "32768", "size": "258048", "encryption": "aes-xts-plain64", "key_size": 64},
      "kdf": {"type": "argon2id", "time": 4, "memory": 1048576, "cpus": 4, "salt": "AAAA"}
    },
    "10": {
      "type": "luks2",
      "key_size": 64,
      "priority": 2,
      "area": {"type": "raw", "offset": "290816", "size": "258048", "encryption": "aes-xts-plain64", "key_size": 64},
      "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1774240, "salt": "AAAA"}
    }
  },
  "tokens": {},
  "segments": {
    "0": {
      "type": "crypt",
      "offset": "1048576",
      "size": "dynamic",
      "iv_tweak": "0",
      "encryption": "aes-xts-plain64",
      "sector_size": 4096
    }
  },
  "digests": {"0": {"type": "pbkdf2", "keyslots": ["0", "10"], "segments": ["0"], "hash": "sha256", "iterations": 1000}},
  "config": {"json_size": "12288", "keyslots_size": "16744448"}
}"#;

/// Both copies of a header of `header_len` bytes with `text` as their text, in a file of `len` bytes.
pub fn container(len: usize, header_len: usize, text: &str) -> Vec<u8> {
    let mut file = vec![0; len.max(2 * header_len)];
    for (at, magic) in [(0, b"LUKS\xba\xbe"), (header_len, b"SKUL\xba\xbe")] {
        let mut put = |offset: usize, bytes: &[u8]| file[at + offset..at + offset + bytes.len()].copy_from_slice(bytes);
        put(0, magic);
        put(6, &2u16.to_be_bytes());
        put(8, &(header_len as u64).to_be_bytes());
        put(16, &3u64.to_be_bytes());
        put(24, b"the label");
        put(72, b"sha256");
        put(168, b"01234567-89ab-cdef-0123-456789abcdef");
        put(256, &(at as u64).to_be_bytes());
        put(4096, text.as_bytes());
    }
    file
}

/// A container of 2 MiB with the usual header of 16 KiB and [`TEXT`].
pub fn usual() -> Vec<u8> {
    container(2 << 20, 16 << 10, TEXT)
}
