//! The process cell as the rest of the machine sees it, in all circumstances in which it has to stand.

use instar_sandbox::Wall;
use instar_walls::{budget, lanes, walls};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const PAGE: u64 = 4096;
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// A broker whose worker waits while we look at it.
struct Scene {
    broker: Child,
    output: BufReader<ChildStdout>,
    /// The worker, or where it has no process of its own, its broker.
    worker: PathBuf,
    /// Text, end of the program, window, its end, heap, its end.
    regions: Vec<u64>,
}

impl Scene {
    fn new(circumstances: &[&str]) -> Scene {
        let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
        command.args(circumstances).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut broker = command.spawn().expect("the probe starts");
        let mut output = BufReader::new(broker.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its report");
        let number = |text| u64::from_str_radix(text, 16).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        let regions = line.split_whitespace().map(number).collect();
        let worker = match circumstances.contains(&"kvm") {
            true => Path::new("/proc").join(broker.id().to_string()),
            false => children(broker.id()).pop().expect("a worker"),
        };
        Scene { broker, output, worker, regions }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.worker.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn status(&self, key: &str) -> String {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{key}: {status}")).trim().to_owned()
    }

    /// Lets the worker go on, and asserts that the wall held in what came then.
    fn finish(mut self) {
        self.broker.stdin.take().expect("its input").write_all(b"\n").expect("it listens");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("its output");
        let want = [
            "Ok(Done)",
            "the worker tried a forbidden system call and was stopped (signal 31)",
            "the worker broke a rule of its cell and was stopped (signal 11)",
            "Done",
        ];
        assert_eq!(rest.lines().collect::<Vec<_>>(), want);
        assert!(self.broker.wait().expect("it ends").success());
        assert!(!self.worker.exists(), "the worker outlives its broker");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Its worker goes with it.
        let _ = self.broker.kill();
        let _ = self.broker.wait();
    }
}

fn children(process: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let list = tasks.flatten().map(|task| fs::read_to_string(task.path().join("children")).expect("its children"));
    list.flat_map(|l| l.split_whitespace().map(|pid| Path::new("/proc").join(pid)).collect::<Vec<_>>()).collect()
}

fn privileged() -> bool {
    let yes = rustix::process::geteuid().is_root();
    if !yes {
        eprintln!("SKIPPED: looking into a worker takes privileges");
    }
    yes
}

/// Nothing of the broker's is left to the worker, however it was made.
fn stands_alone(scene: &Scene, lanes: u64) {
    assert_eq!((scene.status("NoNewPrivs"), scene.status("Seccomp")), ("1".into(), "2".into()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(scene.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(scene.status("Threads"), lanes.to_string());
    assert_eq!(fs::read_dir(scene.worker.join("fd")).expect("its descriptors").count(), 0);
    let limits = scene.read("limits");
    for limit in ["Max open files", "Max processes", "Max file size", "Max core file size", "Max locked memory"] {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit)).expect("a limit");
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{limit}");
    }
    // What a process was started with lies in memory that the worker has given back.
    for file in ["environ", "cmdline"] {
        assert!(fs::read(scene.worker.join(file)).unwrap_or_default().iter().all(|b| *b == 0), "{file}");
    }
    holds_only_its_own(scene, lanes);
}

fn holds_only_its_own(scene: &Scene, lanes: u64) {
    let [text, image_end, window, window_end, heap, heap_end] = scene.regions[..] else {
        panic!("{:?}", scene.regions)
    };
    let arena = heap - lanes * (budget().stack_len as u64 + PAGE);
    // The filter lies behind the slots; in a default budget stacks are larger.
    let parts =
        [(text, image_end), (window, window_end + PAGE), (arena.min(heap - lanes * ((256 << 10) + PAGE)), heap_end)];
    let maps = scene.read("maps");
    let hex = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    for line in maps.lines().filter(|line| !line.ends_with("[vsyscall]")) {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().and_then(|range| range.split_once('-')).expect("a range");
        let rights = words.next().expect("rights");
        let inside = parts.iter().any(|(from, to)| (*from..*to).contains(&hex(start)) && hex(end) <= *to);
        assert!(inside, "not the worker's: {line}\nof {parts:x?}\n{maps}");
        assert!(!(rights.contains('w') && rights.contains('x')), "{line}");
        assert!(!rights.contains('x') || hex(start) == text, "{line}");
    }
}

/// Kilobytes that were in memory at most.
fn peak(scene: &Scene) -> u64 {
    let peak = scene.status("VmHWM");
    peak.strip_suffix(" kB").and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("{peak}"))
}

#[test]
fn a_bomb_fills_its_budget_and_nothing_else() {
    for wall in walls() {
        let circumstances: &[&str] = if *wall == Wall::Kvm { &["bomb", "kvm"] } else { &["bomb"] };
        let scene = Scene::new(circumstances);
        let heap = budget().heap_len as u64;
        // It tells how much it got hold of, and then waits with all of that in its hands.
        assert!((heap / 2..=heap).contains(&scene.regions[0]), "{:?}", scene.regions);
        // A machine's memory lies in its broker, whose own few pages are counted here too.
        assert!(peak(&scene) * 1024 < heap + (12 << 20), "{} kB", peak(&scene));
    }
}

#[test]
fn a_machine_fits_an_address_space_of_one_gib() {
    if walls().contains(&Wall::Kvm) {
        let mut scene = Scene::new(&["one-gib", "kvm"]);
        scene.broker.stdin.take().expect("its input").write_all(b"\n").expect("it listens");
        let mut rest = String::new();
        scene.output.read_to_string(&mut rest).expect("its output");
        assert_eq!(rest.lines().last(), Some("Done"), "{rest}");
    }
}

fn namespace(process: &Path, name: &str) -> PathBuf {
    fs::read_link(process.join("ns").join(name)).expect("a namespace")
}

#[test]
fn a_worker_of_root_has_nothing() {
    if !privileged() {
        return;
    }
    let scene = Scene::new(&[]);
    stands_alone(&scene, 1);
    assert_eq!(scene.status("CapBnd"), "0000000000000000");
    for name in NAMESPACES {
        assert_ne!(namespace(&scene.worker, name), namespace(Path::new("/proc/self"), name), "{name}");
    }
    scene.finish();
}

#[test]
fn lanes_have_nothing_either() {
    if !privileged() {
        return;
    }
    let scene = Scene::new(&["two-lanes"]);
    stands_alone(&scene, lanes(2).shape.lanes as u64);
    for task in fs::read_dir(scene.worker.join("task")).expect("its threads").flatten() {
        let status = fs::read_to_string(task.path().join("status")).expect("its status");
        assert!(status.contains("\nSeccomp:\t2\n") && status.contains("\nNoNewPrivs:\t1\n"), "{status}");
    }
    scene.finish();
}

#[test]
fn the_wall_stands_in_every_circumstance() {
    for circumstances in [
        &["nobody"][..],
        &["no-namespaces"],
        &["nobody", "no-namespaces"],
        &["one-gib"],
        &["no-exec"],
        &["nobody", "no-exec"],
        &["no-exec", "no-namespaces"],
        &["no-exec", "two-lanes"],
        &["one-gib", "nobody", "no-exec", "no-namespaces"],
    ] {
        // Becoming nobody, too, is a privilege.
        if circumstances.contains(&"nobody") && !privileged() {
            continue;
        }
        eprintln!("{circumstances:?}");
        let scene = Scene::new(circumstances);
        if rustix::process::geteuid().is_root() {
            let lanes = if circumstances.contains(&"two-lanes") { 2 } else { 1 };
            stands_alone(&scene, lanes);
        }
        if circumstances.contains(&"no-namespaces") {
            for name in NAMESPACES {
                assert_eq!(namespace(&scene.worker, name), namespace(Path::new("/proc/self"), name), "{name}");
            }
        }
        scene.finish();
    }
}
