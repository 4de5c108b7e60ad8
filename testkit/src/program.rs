//! The program under test: built once, and called in either face, over either cell.

use crate::place::{repository, skipped, target};
use crate::run::Run;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The program, under both its names.
pub struct Program {
    folder: PathBuf,
}

/// Which wall stands around the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A jailed process.
    Process,
    /// A virtual machine.
    Kvm,
}

impl Cell {
    /// Its name in `INSTAR_CELL`.
    pub fn name(self) -> &'static str {
        match self {
            Cell::Process => "process",
            Cell::Kvm => "kvm",
        }
    }

    /// The cells that this machine can have; the missing one is mentioned.
    pub fn all() -> &'static [Cell] {
        static CELLS: OnceLock<Vec<Cell>> = OnceLock::new();
        CELLS.get_or_init(|| {
            let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
            match kvm {
                Ok(_) => vec![Cell::Process, Cell::Kvm],
                Err(e) => {
                    skipped(&format!("the KVM cell: /dev/kvm: {e}"));
                    vec![Cell::Process]
                }
            }
        })
    }
}

/// Builds the program if need be.
pub fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let path = std::env::var_os("INSTAR_PROGRAM").map_or_else(build, PathBuf::from);
        let path = path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Program::link(&path)
    })
}

fn build() -> PathBuf {
    let target = target();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--package", "instar", "--target-dir"]).arg(&target);
    let status = command.current_dir(repository()).status().expect("cargo");
    assert!(status.success(), "the program cannot be built");
    let places = [target.join("x86_64-unknown-linux-gnu/release/instar"), target.join("release/instar")];
    places.into_iter().find(|path| path.exists()).expect("cargo build --release leaves a program")
}

impl Program {
    /// Puts two names of `path` side by side in a folder that any user may enter.
    fn link(path: &Path) -> Program {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        (path, std::fs::metadata(path).ok().and_then(|m| m.modified().ok())).hash(&mut hasher);
        let folder = std::env::temp_dir().join(format!("instar-program-{:016x}", hasher.finish()));
        if !folder.is_dir() {
            let making = folder.with_extension(std::process::id().to_string());
            std::fs::create_dir_all(&making).expect("a folder for the program");
            // Not by us: what another thread starts at that moment would have it open, and then it is busy.
            Run::new("cp").arg(path).arg(making.join("instar")).must();
            std::os::unix::fs::symlink("instar", making.join("qemu-img")).expect("its other name");
            // Another test program may have been faster; its copy is as good.
            if std::fs::rename(&making, &folder).is_err() {
                let _ = std::fs::remove_dir_all(&making);
            }
        }
        Program { folder }
    }

    /// Its path under the name of its qemu-img face.
    pub fn as_qemu_img(&self) -> PathBuf {
        self.folder.join("qemu-img")
    }

    /// The instar face.
    pub fn native(&self, cell: Cell) -> Run {
        let run = Run::new(self.folder.join("instar")).called("instar");
        alone(run).env("INSTAR_CELL", cell.name())
    }

    /// The qemu-img face of a version, with its safe ways.
    pub fn qemu(&self, version: &str, cell: Cell) -> Run {
        let run = Run::new(self.as_qemu_img()).called("qemu-img");
        alone(run).env("INSTAR_CELL", cell.name()).env("INSTAR_FACE", "qemu-img").env("INSTAR_QEMU_VERSION", version)
    }

    /// The qemu-img face of a version, in all its ways.
    pub fn quirky(&self, version: &str, cell: Cell) -> Run {
        self.qemu(version, cell).env("INSTAR_UNSAFE_QUIRKS", "1")
    }
}

/// Without whatever configuration the machine has.
fn alone(run: Run) -> Run {
    run.env("INSTAR_CONFIG", "/dev/null").env("HOME", "/nonexistent")
}
