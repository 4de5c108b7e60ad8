//! The `secret` object: where its bytes come from and how they are written.
use super::{Complaint, Objects, Params, Passphrase, Profile, ReadFile, Secret, not_accepted};
use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, KeyInit};

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The properties of a secret before they are looked at together.
pub struct Draft {
    data: Option<Vec<u8>>,
    file: Option<Vec<u8>>,
    base64: bool,
    key: Option<Vec<u8>>,
    iv: Option<Vec<u8>>,
}

/// The lines of `--object secret,help`.
pub fn help(profile: &Profile) -> Vec<String> {
    let loaded = (!profile.secret_without_loaded()).then_some("loaded=<bool>");
    let lines = ["data=<string>", "file=<string>", "format=<QCryptoSecretFormat>", "iv=<string>", "keyid=<string>"];
    lines.into_iter().chain(loaded).map(str::to_owned).collect()
}

impl Draft {
    /// Takes the properties of a secret out of `params`.
    pub fn read(params: &mut Params, profile: &Profile) -> Result<Draft, Complaint> {
        let base64 = match params.take_text("format")? {
            None => false,
            Some(format) => match format.as_slice() {
                b"raw" => false,
                b"base64" => true,
                _ if profile.enum_words() => return Err(not_accepted("format", &format)),
                _ => return Err(Complaint::new(&[b"Invalid parameter '", &format, b"'"])),
            },
        };
        if !profile.schema_objects() {
            params.take("loaded");
        } else if !profile.since(8, 0, 0) && params.take("loaded").is_some() {
            return Err(Complaint::new(&[b"Property 'secret.loaded' is not writable"]));
        }
        Ok(Draft {
            data: params.take_text("data")?,
            file: params.take_text("file")?,
            base64,
            key: params.take_text("keyid")?,
            iv: params.take_text("iv")?,
        })
    }

    /// Fetches the bytes and deciphers them.
    pub fn complete(self, id: Vec<u8>, objects: &Objects, read: ReadFile<'_>) -> Result<Secret, Complaint> {
        let written = match (self.data, self.file) {
            (Some(_), Some(_)) => return Err(Complaint::new(&[b"'file' and 'data' are mutually exclusive"])),
            (None, None) => return Err(Complaint::new(&[b"Either 'file' or 'data' must be provided"])),
            (Some(data), None) => data,
            (None, Some(file)) => read(&file).map_err(|error| unreadable(&file, &error))?,
        };
        let seal = match self.key {
            Some(key) => Some(seal(&key, self.iv, objects)?),
            None => None,
        };
        let bytes = if self.base64 { decode(&written)? } else { written };
        let bytes = match seal {
            Some(seal) => seal.open(bytes)?,
            None => bytes,
        };
        Ok(Secret { id, bytes: Passphrase::new(bytes) })
    }
}

/// How the bytes of a secret are enciphered: AES-256-CBC under another secret.
struct Seal {
    cipher: Aes256,
    iv: [u8; 16],
}

impl Seal {
    /// Deciphers the bytes and takes off their padding.
    fn open(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, Complaint> {
        let len = bytes.len();
        if !len.is_multiple_of(16) {
            return Err(Complaint::new(&[format!("Length {len} must be a multiple of block size 16").as_bytes()]));
        }
        let mut previous = self.iv;
        for block in bytes.as_chunks_mut::<16>().0 {
            let enciphered = *block;
            self.cipher.decrypt_block(block.into());
            block.iter_mut().zip(previous).for_each(|(byte, before)| *byte ^= before);
            previous = enciphered;
        }
        let padding = bytes.last().copied().unwrap_or(0);
        if padding > 16 {
            let sentence = format!("Incorrect number of padding bytes ({padding}) found on decrypted data");
            return Err(Complaint::new(&[sentence.as_bytes()]));
        }
        bytes.truncate(len - usize::from(padding));
        Ok(bytes)
    }
}

fn seal(key: &[u8], iv: Option<Vec<u8>>, objects: &Objects) -> Result<Seal, Complaint> {
    let unknown = || Complaint::new(&[b"No secret with id '", key, b"'"]);
    let key = &objects.secret(key).ok_or_else(unknown)?.bytes;
    let short = |_| Complaint::new(&[b"Key should be 32 bytes in length"]);
    let cipher = Aes256::new_from_slice(key.expose()).map_err(short)?;
    let iv = iv.ok_or_else(|| Complaint::new(&[b"IV is required to decrypt secret"]))?;
    let iv = decode(&iv)?;
    let sentence = format!("IV should be 16 bytes in length not {}", iv.len());
    let iv = iv.try_into().map_err(|_| Complaint::new(&[sentence.as_bytes()]))?;
    Ok(Seal { cipher, iv })
}

fn unreadable(file: &[u8], error: &std::io::Error) -> Complaint {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or_default();
    let quoted = [b"Failed to open file \xe2\x80\x9c", file, b"\xe2\x80\x9d: "].concat();
    Complaint::new(&[b"Unable to read ", file, b": ", &quoted, reason.as_bytes()])
}

/// Base64 in groups of four letters; what does not fill a group is dropped.
fn decode(text: &[u8]) -> Result<Vec<u8>, Complaint> {
    let value = |b: &u8| BASE64.iter().position(|letter| letter == b);
    let allowed = |b: &u8| value(b).is_some() || matches!(b, b'=' | b'\n');
    if !text.iter().all(allowed) {
        return Err(Complaint::new(&[b"Base64 data contains invalid characters"]));
    }
    let letters: Vec<u8> = text.iter().copied().filter(|b| *b != b'\n').collect();
    let mut out = Vec::new();
    for group in letters.chunks_exact(4) {
        let bits = group.iter().fold(0u32, |sum, b| sum << 6 | value(b).unwrap_or(0) as u32);
        let [_, bytes @ ..] = bits.to_be_bytes();
        let padding = group[2..].iter().filter(|b| **b == b'=').count();
        out.extend(&bytes[..3 - padding]);
    }
    Ok(out)
}
