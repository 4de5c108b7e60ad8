//! Settings: what configuration files, the environment and the command line say, later ones over earlier ones.

use crate::profile::Profile;
use instar_sandbox::Choice;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// As what the program presents itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Face {
    /// As itself.
    Native,
    /// As qemu-img.
    Qemu,
}

impl Face {
    /// The word at the beginning of its messages.
    pub fn prefix(self) -> &'static str {
        match self {
            Face::Native => "instar",
            Face::Qemu => "qemu-img",
        }
    }
}

/// Where a setting comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(&'static str),
    /// The command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display().to_string().escape_debug()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::CommandLine => f.write_str("command line"),
        }
    }
}

/// A setting's name in files, its variable in the environment, and what may stand there.
pub struct Key {
    /// In a configuration file and in messages.
    pub name: &'static str,
    /// In the environment, if it may be set there.
    pub variable: Option<&'static str>,
    /// What it may be.
    pub expects: &'static str,
    set: fn(&mut Settings, &str) -> Option<()>,
    show: fn(&Settings) -> String,
}

/// Every setting there is.
pub const KEYS: &[Key] = &[
    Key {
        name: "cell",
        variable: Some("INSTAR_CELL"),
        expects: "auto, kvm or process",
        set: |s, text| {
            s.cell = match text {
                "auto" => Choice::Auto,
                "kvm" => Choice::Kvm,
                "process" => Choice::Process,
                _ => return None,
            };
            Some(())
        },
        show: |s| format!("{:?}", s.cell).to_lowercase(),
    },
    Key {
        name: "face",
        variable: Some("INSTAR_FACE"),
        expects: "instar or qemu-img",
        set: |s, text| {
            s.face = match text {
                "instar" => Face::Native,
                "qemu-img" => Face::Qemu,
                _ => return None,
            };
            Some(())
        },
        show: |s| s.face.prefix().into(),
    },
    Key {
        name: "qemu-version",
        variable: Some("INSTAR_QEMU_VERSION"),
        expects: "a version of qemu-img from 5.2 on, such as 10.2",
        set: |s, text| {
            s.profile = Profile::parse(text).ok()?;
            s.qemu_version = text.into();
            Some(())
        },
        show: |s| s.qemu_version.clone(),
    },
    Key {
        name: "unsafe-quirks",
        variable: Some("INSTAR_UNSAFE_QUIRKS"),
        expects: "true or false (1 or 0)",
        set: |s, text| truth(text).map(|value| s.unsafe_quirks = value),
        show: |s| s.unsafe_quirks.to_string(),
    },
    Key {
        name: "ignore-quirks",
        variable: Some("INSTAR_IGNORE_QUIRKS"),
        expects: "true or false (1 or 0)",
        set: |s, text| truth(text).map(|value| s.ignore_quirks = value),
        show: |s| s.ignore_quirks.to_string(),
    },
    Key {
        name: "allow",
        variable: Some("INSTAR_ALLOW"),
        expects: "absolute directories, separated by colons",
        set: |s, text| {
            let directories: Vec<PathBuf> = text.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect();
            directories.iter().all(|d| d.is_absolute()).then(|| s.allow.extend(directories))
        },
        show: |s| s.allow.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(":"),
    },
    Key {
        name: "cpu-seconds",
        variable: None,
        expects: "a number of seconds from 1 to 86400",
        set: |s, text| {
            s.cpu = Duration::from_secs(text.parse().ok().filter(|n| (1..=86400).contains(n))?);
            Some(())
        },
        show: |s| s.cpu.as_secs().to_string(),
    },
    Key {
        name: "memory-mib",
        variable: None,
        expects: "a number of mebibytes from 16 to 65536",
        set: |s, text| {
            s.memory_mib = text.parse().ok().filter(|n| (16..=65536).contains(n))?;
            Some(())
        },
        show: |s| s.memory_mib.to_string(),
    },
];

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" | "" => Some(false),
        _ => None,
    }
}

/// All settings and where each comes from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which wall to put around a worker.
    pub cell: Choice,
    /// As what the program presents itself.
    pub face: Face,
    /// The emulated version, as it was given.
    pub qemu_version: String,
    /// The emulated version.
    pub profile: Profile,
    /// Do as qemu-img does even where that is dangerous.
    pub unsafe_quirks: bool,
    /// Print plain truth where qemu-img rounds.
    pub ignore_quirks: bool,
    /// Directories in which images may name other files.
    pub allow: Vec<PathBuf>,
    /// Processor time a worker may use.
    pub cpu: Duration,
    /// Memory a worker may use.
    pub memory_mib: usize,
    origins: Vec<Origin>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cell: Choice::Auto,
            face: Face::Native,
            qemu_version: "10.2".into(),
            profile: Profile::default(),
            unsafe_quirks: false,
            ignore_quirks: false,
            allow: Vec::new(),
            cpu: Duration::from_secs(30),
            memory_mib: 128,
            origins: vec![Origin::Default; KEYS.len()],
        }
    }
}

impl Settings {
    /// Sets one setting from text; the error is a sentence.
    pub fn set(&mut self, name: &str, text: &str, origin: &Origin) -> Result<(), String> {
        let found = KEYS.iter().position(|key| key.name == name);
        let Some((index, key)) = found.and_then(|i| Some((i, KEYS.get(i)?))) else {
            return Err(format!("{origin}: there is no setting '{}'", name.escape_debug()));
        };
        if (key.set)(self, text).is_none() {
            return Err(format!("{origin}: '{name}' must be {}, not '{}'", key.expects, text.escape_debug()));
        }
        self.origins[index] = origin.clone();
        Ok(())
    }

    /// Allows one more directory, whatever its name.
    pub fn allow_directory(&mut self, directory: PathBuf, origin: &Origin) -> Result<(), String> {
        if !directory.is_absolute() {
            let shown = directory.display().to_string();
            return Err(format!("{origin}: 'allow' must be absolute directories, not '{}'", shown.escape_debug()));
        }
        self.allow.push(directory);
        if let Some(index) = KEYS.iter().position(|key| key.name == "allow") {
            self.origins[index] = origin.clone();
        }
        Ok(())
    }

    /// Everything that files and environment say. `variable` looks a variable up.
    pub fn load(variable: &dyn Fn(&str) -> Option<String>) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for path in files(variable) {
            settings.load_file(path)?;
        }
        for key in KEYS {
            if let Some((name, text)) = key.variable.and_then(|name| Some((name, variable(name)?))) {
                settings.set(key.name, &text, &Origin::Environment(name))?;
            }
        }
        Ok(settings)
    }

    fn load_file(&mut self, (path, need): (PathBuf, Need)) -> Result<(), String> {
        let shown = path.display().to_string();
        let shown = shown.escape_debug();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if need.is_met_without(e.kind()) => return Ok(()),
            Err(e) => return Err(format!("cannot read the configuration file {shown}: {e}")),
        };
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| format!("the configuration file {shown} is not valid: {}", e.message()))?;
        let origin = Origin::File(path);
        for (name, value) in &table {
            let text = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                toml::Value::Array(parts) if name == "allow" && parts.iter().all(toml::Value::is_str) => {
                    let mut directories = parts.iter().filter_map(toml::Value::as_str).map(PathBuf::from);
                    directories.try_for_each(|directory| self.allow_directory(directory, &origin))?;
                    continue;
                }
                _ => return Err(format!("{shown}: '{}' is of a kind no setting has", name.escape_debug())),
            };
            self.set(name, &text, &origin)?;
        }
        Ok(())
    }

    /// A line a setting: name, value, origin.
    pub fn show(&self) -> String {
        KEYS.iter()
            .zip(&self.origins)
            .map(|(key, origin)| format!("{} = {} ({origin})\n", key.name, (key.show)(self).escape_debug()))
            .collect()
    }
}

/// How much depends on a configuration file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The user named it, so it must be there.
    There,
    /// It is the machine's: if it is there, it must be read.
    Obeyed,
    /// It is the user's own; a service may run with a home that is another's and closed to it.
    Own,
}

impl Need {
    /// Whether one can do without the file for this reason.
    fn is_met_without(self, reason: io::ErrorKind) -> bool {
        match reason {
            io::ErrorKind::NotFound => self != Need::There,
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => self == Need::Own,
            _ => false,
        }
    }
}

/// The configuration files in order, and how much depends on each.
fn files(variable: &dyn Fn(&str) -> Option<String>) -> Vec<(PathBuf, Need)> {
    let mut files = vec![(PathBuf::from("/etc/instar/config.toml"), Need::Obeyed)];
    match (variable("INSTAR_CONFIG"), variable("HOME")) {
        (Some(path), _) => files.push((path.into(), Need::There)),
        (None, Some(home)) if !home.is_empty() => {
            files.push((PathBuf::from(home).join(".config/instar/config.toml"), Need::Own));
        }
        (None, _) => {}
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.toml");
        let mut all: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        if let Some(text) = file {
            std::fs::write(&path, text).expect("a file");
            all.push(("INSTAR_CONFIG".into(), path.display().to_string()));
        }
        Settings::load(&|name| all.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn later_sources_win_and_are_told() {
        let file = "cell = \"kvm\"\nunsafe-quirks = true\nallow = [\"/a\", \"/b\"]\nqemu-version = \"8.2\"\n";
        let settings = load(Some(file), &[("INSTAR_CELL", "process"), ("INSTAR_ALLOW", "/c:/d")]).expect("valid");
        assert_eq!(settings.cell, Choice::Process);
        assert!(settings.unsafe_quirks && !settings.ignore_quirks);
        assert_eq!(settings.allow, ["/a", "/b", "/c", "/d"].map(PathBuf::from));
        let shown = settings.show();
        assert!(shown.contains("cell = process (environment variable INSTAR_CELL)\n"), "{shown}");
        assert!(shown.contains("config.toml)\n") && shown.contains("memory-mib = 128 (default)\n"), "{shown}");
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        for (file, variable, words) in [
            (Some("cell = "), None, "is not valid"),
            (Some("cell = \"none\"\n"), None, "'cell' must be auto, kvm or process, not 'none'"),
            (Some("nosuch = 1\n"), None, "there is no setting 'nosuch'"),
            (Some("allow = [\"relative\"]\n"), None, "absolute directories"),
            (Some("cpu-seconds = 0\n"), None, "a number of seconds"),
            (Some("cell = { a = 1 }\n"), None, "of a kind no setting has"),
            (None, Some(("INSTAR_UNSAFE_QUIRKS", "maybe")), "true or false"),
            (None, Some(("INSTAR_QEMU_VERSION", "4.1")), "a version of qemu-img"),
            (None, Some(("INSTAR_CONFIG", "/nosuch/file")), "cannot read the configuration file"),
        ] {
            let error = load(file, variable.as_slice()).expect_err("refused");
            assert!(error.contains(words), "{error}");
        }
    }
}
