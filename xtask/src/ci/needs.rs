//! What the steps need and a fresh machine lacks.

use crate::{Done, shell};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Program → Debian package, and who needs it.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("cc", "build-essential", "links every program"),
    ("qemu-img", "qemu-utils", "stands beside ours in the benchmark"),
    ("qemu-io", "qemu-utils", "holds images open in the lock tests"),
    ("python3", "python3", "builds the images of the recorded cases"),
    ("strace", "strace", "tells what was opened, and delays single calls"),
    ("prlimit", "util-linux", "sets the limits that clouds set"),
    ("setpriv", "util-linux", "runs ours as an ordinary user"),
    ("script", "bsdutils", "runs ours on a terminal"),
    ("partx", "util-linux", "finds the partitions of what we write"),
    ("cryptsetup", "cryptsetup-bin", "opens the containers that we make"),
    ("nbdkit", "nbdkit", "reads them"),
    ("mkfs.xfs", "xfsprogs", "makes file systems whose files share what they hold"),
    ("mkfs.ext4", "e2fsprogs", "makes others, which look for space when something is written"),
    ("7zz", "7zip", "reads our VMDK, VDI, VHD, VHDX and qcow"),
];

/// Python module of the system → Debian package: who else reads our images.
const MODULES: &[(&str, &str)] =
    &[("pyvhdi", "python3-libvhdi"), ("pyvmdk", "python3-libvmdk"), ("pyqcow", "python3-libqcow")];

/// Versions without which a comparison would not be worth its name.
const VERSIONS: &[&str] = &["5.2", "7.2", "10.0"];

/// Installs the programs that are missing.
pub fn programs() -> Done {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, ..)| !shell::is_there(program)).collect();
    for (program, package, why) in &missing {
        println!("ci: {program} is missing, which {why}: installing {package}");
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    for (module, package) in MODULES.iter().filter(|(module, _)| !has_module(module)) {
        println!("ci: {module} is missing, which reads what we write: installing {package}");
        packages.push(package);
    }
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    shell::run(&mut apt(&["update"]))?;
    let install = ["install", "--yes", "--no-install-recommends"];
    shell::run(&mut apt(&[&install[..], &packages[..]].concat()))
}

/// Whether the Python of the system has a module; another Python that comes first would not find it.
fn has_module(name: &str) -> bool {
    shell::output(shell::program("/usr/bin/python3").args(["-c", &format!("import {name}")])).is_ok()
}

fn apt(arguments: &[&str]) -> Command {
    let is_root = shell::output(shell::program("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let mut command = if is_root { shell::program("apt-get") } else { shell::program("sudo") };
    if !is_root {
        command.args(["-n", "apt-get"]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet").args(arguments);
    command
}

/// The folder with the real programs, fetched if need be, and what is missing there.
pub fn oracles() -> Result<(PathBuf, Option<String>), String> {
    let own = shell::root().join(shell::target_dir()).join("oracles");
    if let Some(named) = std::env::var_os("INSTAR_ORACLES").map(PathBuf::from) {
        return lacking(&named).map_or(Ok((named.clone(), None)), |what| Err(format!("{}: {what}", named.display())));
    }
    for folder in [PathBuf::from("/var/cache/instar-oracles"), own.clone()] {
        if lacking(&folder).is_none() {
            return Ok((folder, None));
        }
    }
    let script = shell::root().join("../shared/oracles/get-oracles.sh");
    if !script.is_file() {
        return Err(format!("no oracles and no {} to fetch them: set INSTAR_ORACLES", script.display()));
    }
    // It fails when one version is not to be had; the others are good all the same.
    let fetched = shell::run(shell::program("bash").arg(&script).arg(&own));
    match lacking(&own) {
        Some(what) if programs_in(&own).is_empty() => Err(format!("{what} ({fetched:?})")),
        what => Ok((own, what)),
    }
}

/// What a folder of oracles lacks, if anything.
fn lacking(folder: &Path) -> Option<String> {
    let listed = std::fs::read_to_string(folder.join("versions.tsv")).unwrap_or_default();
    if listed.is_empty() {
        return Some("no versions.tsv: nothing has been fetched, or not to its end".into());
    }
    let there = programs_in(folder);
    let versions = listed.lines().filter_map(|line| line.split('\t').next());
    let lost =
        versions.flat_map(|v| [format!("qemu-img-{v}"), format!("qemu-io-{v}")]).find(|name| !there.contains(name));
    if let Some(name) = lost {
        return Some(format!("{name} is listed but not there"));
    }
    if let Some(dead) = listed.lines().find(|line| line.contains("DOES NOT RUN")) {
        return Some(dead.replace('\t', " "));
    }
    let has = |version: &str| there.iter().any(|name| name.starts_with(&format!("qemu-img-{version}")));
    VERSIONS.iter().find(|version| !has(version)).map(|version| format!("no qemu-img {version}"))
}

fn programs_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("bin")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
