//! `--object`: secrets and throttle groups that the user defines for a run.
mod secret;
mod throttle;

use std::fmt;
use std::io;

use super::json::{self, Value};
use super::keyval;
use super::number;
use super::stop::{Complaint, Note, say};
use crate::profile::Profile;

/// Reads the file named in `file=`.
pub type ReadFile<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<Vec<u8>>;

/// Bytes that never show themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Vec<u8>);

impl Passphrase {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Passphrase {
        Passphrase(bytes)
    }

    /// The bytes, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

impl Drop for Passphrase {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

/// A secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The name by which options refer to it.
    pub id: Vec<u8>,
    /// What it holds.
    pub bytes: Passphrase,
}

/// A throttle group; its limits only matter while a device is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleGroup {
    /// The name by which options refer to it.
    pub id: Vec<u8>,
    /// The limits given.
    pub limits: Vec<(Vec<u8>, i64)>,
}

/// All objects of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// The secrets, in the order of definition.
    pub secrets: Vec<Secret>,
    /// The throttle groups, in the order of definition.
    pub groups: Vec<ThrottleGroup>,
    announced: Vec<Vec<u8>>,
}

/// What defining an object led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defined {
    /// The object is there.
    Made,
    /// Help was asked for; this is its text.
    Help(Vec<u8>),
}

/// The type names that qemu knows; those it can make for us are `secret` and `throttle-group`.
const TYPES: &[&str] = &[
    "authz-list",
    "authz-list-file",
    "authz-pam",
    "authz-simple",
    "can-bus",
    "can-host-socketcan",
    "colo-compare",
    "cryptodev-backend",
    "cryptodev-backend-builtin",
    "cryptodev-vhost-user",
    "dbus-vmstate",
    "filter-buffer",
    "filter-dump",
    "filter-mirror",
    "filter-redirector",
    "filter-replay",
    "filter-rewriter",
    "input-barrier",
    "input-linux",
    "iothread",
    "main-loop",
    "memory-backend-file",
    "memory-backend-memfd",
    "memory-backend-ram",
    "pef-guest",
    "pr-manager-helper",
    "qtest",
    "rng-builtin",
    "rng-egd",
    "rng-random",
    "s390-pv-guest",
    "secret",
    "secret_keyring",
    "sev-guest",
    "thread-context",
    "throttle-group",
    "tls-cipher-suites",
    "tls-creds-anon",
    "tls-creds-psk",
    "tls-creds-x509",
    "x-remote-object",
    "x-vfio-user-server",
];

/// The parameters of a definition, as written and not looked at yet.
struct Params {
    entries: Vec<(Vec<u8>, Value)>,
    json: bool,
}

impl Objects {
    /// The secret called `id`.
    pub fn secret(&self, id: &[u8]) -> Option<&Secret> {
        self.secrets.iter().find(|secret| secret.id == id)
    }

    /// The throttle group called `id`.
    pub fn group(&self, id: &[u8]) -> Option<&ThrottleGroup> {
        self.groups.iter().find(|group| group.id == id)
    }

    /// What the oldest versions refuse while they still read options: bad and repeated names.
    pub fn announce(&mut self, text: &[u8]) -> Result<(), Complaint> {
        let options = keyval::options(text, Some("qom-type"), false);
        let Some(id) = options.entries.iter().find(|(key, _)| key == b"id").map(|(_, id)| id) else {
            return Ok(());
        };
        check_id(id)?;
        if self.announced.contains(id) {
            return Err(Complaint::new(&[b"Duplicate ID '", id, b"' for object"]));
        }
        self.announced.push(id.clone());
        Ok(())
    }

    /// Makes the object that `text` describes.
    pub fn define(&mut self, text: &[u8], profile: &Profile, read: ReadFile<'_>) -> Result<Defined, Complaint> {
        let modern = profile.schema_objects();
        let (mut params, help) = if modern { modern_params(text, profile)? } else { old_params(text) };
        if help || params.is_help(text) {
            return Ok(Defined::Help(Objects::help(&params, profile)));
        }
        let kind = params.take_text("qom-type")?.ok_or_else(|| missing("qom-type"))?;
        let known = TYPES.iter().any(|name| name.as_bytes() == kind);
        if modern && !known {
            return Err(not_accepted("qom-type", &kind));
        }
        let id = params.take_text("id")?.ok_or_else(|| missing("id"))?;
        match kind.as_slice() {
            b"secret" => {
                let draft = secret::Draft::read(&mut params, profile)?;
                params.nothing_left("secret", modern)?;
                self.claim(&id)?;
                self.secrets.push(draft.complete(id, self, read)?);
            }
            b"throttle-group" => {
                let limits = throttle::limits(&mut params, modern)?;
                params.nothing_left("throttle-group", modern)?;
                self.claim(&id)?;
                throttle::check(&limits)?;
                self.groups.push(ThrottleGroup { id, limits });
            }
            _ => return Err(Complaint::new(&[b"invalid object type: ", &kind])),
        }
        Ok(Defined::Made)
    }

    fn claim(&self, id: &[u8]) -> Result<(), Complaint> {
        check_id(id)?;
        match self.secret(id).is_some() || self.group(id).is_some() {
            true => {
                Err(Complaint::new(&[b"attempt to add duplicate property '", id, b"' to object (type 'container')"]))
            }
            false => Ok(()),
        }
    }

    fn help(params: &Params, profile: &Profile) -> Vec<u8> {
        let named = params.entries.iter().find(|(key, _)| key == b"qom-type");
        let kind = named.and_then(|(_, kind)| kind.text()).filter(|kind| *kind != b"help");
        let (title, lines): (&str, Vec<String>) = match kind {
            Some(b"secret") => ("secret options", secret::help(profile)),
            Some(b"throttle-group") => ("throttle-group options", throttle::help()),
            _ => ("List of user creatable objects", vec!["secret".into(), "throttle-group".into()]),
        };
        let body: String = lines.iter().map(|line| format!("  {line}\n")).collect();
        format!("{title}:\n{body}").into_bytes()
    }
}

fn modern_params(text: &[u8], profile: &Profile) -> Result<(Params, bool), Complaint> {
    if text.first() == Some(&b'{') {
        return match json::parse(text, profile)? {
            Value::Dict(entries) => Ok((Params { entries, json: true }, false)),
            _ => Err(Complaint::new(&[b"JSON object expected"])),
        };
    }
    let tree = keyval::tree(text, "qom-type")?;
    Ok((Params { entries: tree.root, json: false }, tree.help))
}

fn old_params(text: &[u8]) -> (Params, bool) {
    let mut entries: Vec<(Vec<u8>, Value)> = Vec::new();
    for (key, value) in keyval::options(text, Some("qom-type"), false).entries {
        let repeated = key == b"id" && entries.iter().any(|(k, _)| *k == key);
        if !repeated {
            entries.retain(|(k, _)| *k != key);
            entries.push((key, Value::Text(value)));
        }
    }
    (Params { entries, json: false }, false)
}

impl Params {
    fn is_help(&self, text: &[u8]) -> bool {
        !self.json && matches!(text, b"help" | b"?")
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.entries.iter().position(|(k, _)| k == key.as_bytes())?;
        Some(self.entries.remove(at).1)
    }

    fn take_text(&mut self, key: &str) -> Result<Option<Vec<u8>>, Complaint> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) if self.json => Err(wrong_type(key, "string")),
            Some(_) => Err(Complaint::new(&[b"Parameters '", key.as_bytes(), b".*' are unexpected"])),
        }
    }

    /// Refuses what nobody asked for.
    fn nothing_left(&self, kind: &str, modern: bool) -> Result<(), Complaint> {
        let mut left: Vec<(&[u8], &Value)> = self.entries.iter().map(|(key, value)| (key.as_slice(), value)).collect();
        super::qdict::order(&mut left);
        match (left.first(), modern) {
            (None, _) => Ok(()),
            (Some((key, Value::Dict(_))), true) if !self.json => {
                Err(Complaint::new(&[b"Parameters '", key, b".*' are unexpected"]))
            }
            (Some((key, _)), true) => Err(unexpected(key)),
            (Some((key, _)), false) => {
                Err(Complaint::new(&[b"Property '", kind.as_bytes(), b".", key, b"' not found"]))
            }
        }
    }
}

/// Refuses names that are no identifiers.
pub fn check_id(id: &[u8]) -> Result<(), Complaint> {
    const HINT: &[u8] = b"Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";
    let body = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    match id.first().is_some_and(u8::is_ascii_alphabetic) && id.iter().all(body) {
        true => Ok(()),
        false => Err(Complaint::new(&[b"Parameter 'id' expects an identifier"]).then(Note::Bare(HINT.into()))),
    }
}

fn missing(key: &str) -> Complaint {
    Complaint::new(&[b"Parameter '", key.as_bytes(), b"' is missing"])
}

fn unexpected(key: &[u8]) -> Complaint {
    Complaint::new(&[b"Parameter '", key, b"' is unexpected"])
}

fn not_accepted(key: &str, value: &[u8]) -> Complaint {
    Complaint::new(&[b"Parameter '", key.as_bytes(), b"' does not accept value '", value, b"'"])
}

fn wrong_type(key: &str, expected: &str) -> Complaint {
    let sentence = say(&[b"Invalid parameter type for '", key.as_bytes(), b"', expected: "]);
    Complaint::new(&[&sentence, expected.as_bytes()])
}

#[cfg(test)]
mod tests;
