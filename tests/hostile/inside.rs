//! Damaged images given straight to the code that runs inside a cell, by the hundred thousand.

use crate::fields::{fields, mended};
use crate::overlay::Overlay;
use crate::seeds::{Seed, seeds};
use instar_ops::cx::{Alone, Cx};
use instar_testkit::build::mutate::Noise;
use instar_testkit::read_only::ReadOnly;
use instar_wire::code::decode;
use instar_wire::op::{Rules, Source, info};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A case that takes longer hangs.
const HANGS: Duration = Duration::from_secs(10);
/// What one image may make the worker hold.
const MEMORY_MAX_KIB: u64 = 256 << 10;
/// What one image may make the worker say.
const SAID_MAX: usize = 64 << 20;
/// How far into an image truncation is tried.
const CUT_MAX: usize = 64 << 10;

/// One piece of work: a part of what can be done to a seed.
#[derive(Clone, Copy)]
enum Work {
    Cuts(&'static Seed),
    Fields(&'static Seed),
    Sweep(&'static Seed, usize, usize),
    Noise(&'static Seed),
}

/// What a thread is doing, and since when.
type Doing = Arc<Mutex<Option<(Instant, String)>>>;

struct Bench {
    doing: Doing,
    faults: Arc<Mutex<Vec<String>>>,
    cases: Arc<AtomicUsize>,
    turn: Cell<usize>,
}

#[test]
fn nothing_inside_a_cell_panics_hangs_or_grows() {
    let before = memory_kib("VmHWM");
    let work = Arc::new(Mutex::new(all_work()));
    let faults = Arc::new(Mutex::new(Vec::new()));
    let cases = Arc::new(AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    std::panic::set_hook(Box::new(|_| {}));
    let workers: Vec<(Doing, std::thread::JoinHandle<()>)> = (0..threads)
        .map(|_| {
            let doing = Doing::default();
            let bench =
                Bench { doing: doing.clone(), faults: faults.clone(), cases: cases.clone(), turn: Cell::new(0) };
            let work = work.clone();
            let next = move || work.lock().expect("the work").pop();
            (
                doing,
                std::thread::spawn(move || {
                    while let Some(piece) = next() {
                        bench.do_piece(piece)
                    }
                }),
            )
        })
        .collect();
    let hanging = watch(&workers);
    let _ = std::panic::take_hook();
    let faults = faults.lock().map(|list| list.clone()).unwrap_or_default();
    let grown = memory_kib("VmHWM").saturating_sub(before);
    eprintln!("inside: {} cases, {} faults, grew by {grown} KiB", cases.load(Ordering::Relaxed), faults.len());
    assert!(hanging.is_none(), "hangs: {hanging:?}");
    assert!(grown <= MEMORY_MAX_KIB, "all cases together grew by {grown} KiB");
    assert!(faults.is_empty(), "{} faults, such as:\n{}", faults.len(), faults[..faults.len().min(20)].join("\n"));
}

/// Waits for the workers; answers the case that hangs.
fn watch(workers: &[(Doing, std::thread::JoinHandle<()>)]) -> Option<String> {
    while workers.iter().any(|(_, worker)| !worker.is_finished()) {
        for (doing, _) in workers {
            let now = doing.lock().map(|doing| doing.clone()).unwrap_or_default();
            if let Some((since, what)) = now
                && since.elapsed() > HANGS
            {
                return Some(what);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

fn memory_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

fn all_work() -> Vec<Work> {
    let mut all = Vec::new();
    for seed in seeds() {
        all.extend([Work::Cuts(seed), Work::Fields(seed), Work::Noise(seed)]);
        for range in &seed.metadata {
            let pieces = range.clone().step_by(256);
            all.extend(pieces.map(|at| Work::Sweep(seed, at, (at + 256).min(range.end))));
        }
    }
    all
}

impl Bench {
    fn do_piece(&self, piece: Work) {
        match piece {
            Work::Cuts(seed) => self.cuts(seed),
            Work::Fields(seed) => self.fields(seed),
            Work::Sweep(seed, from, to) => self.sweep(seed, from, to),
            Work::Noise(seed) => self.noise(seed),
        }
    }

    fn cuts(&self, seed: &Seed) {
        for cut in (0..seed.bytes.len().min(CUT_MAX)).step_by(512) {
            for len in [cut.saturating_sub(1), cut, cut + 1] {
                self.case(seed, Overlay::new(&seed.bytes).cut(len), &|| format!("cut to {len}"));
            }
        }
    }

    fn fields(&self, seed: &Seed) {
        let mut noise = Noise::new(3);
        for (at, width) in fields(seed.format) {
            let Some(at) = at.of(seed.bytes.len()) else { continue };
            let mut values = vec![vec![0; width], vec![0xff; width]];
            values.extend((0..6).map(|_| (0..width).map(|_| noise.next() as u8).collect()));
            for value in values {
                self.change(seed, at, &value);
            }
        }
    }

    fn sweep(&self, seed: &Seed, from: usize, to: usize) {
        let mut noise = Noise::new(from as u64);
        for width in [1usize, 2, 4, 8] {
            for at in (from..to).step_by(width) {
                for fill in [0x00, 0xff, 0x7f, 0x80] {
                    self.change(seed, at, &vec![fill; width]);
                }
                let small = noise.next() >> noise.below(60);
                self.change(seed, at, &noise.next().to_le_bytes()[..width]);
                self.change(seed, at, &small.to_be_bytes()[8 - width..]);
                self.change(seed, at, &small.to_le_bytes()[..width]);
            }
        }
    }

    fn noise(&self, seed: &Seed) {
        let mut noise = Noise::new(5);
        for round in 0..500 {
            let mut overlay = Overlay::new(&seed.bytes);
            for _ in 0..=noise.below(6) {
                let range = &seed.metadata[noise.below(seed.metadata.len() as u64) as usize];
                let at = range.start + noise.below(range.len().max(1) as u64) as usize;
                overlay = overlay.with(at, &[noise.next() as u8]);
            }
            self.case(seed, overlay, &|| format!("noise {round}"));
        }
    }

    /// One field changed: as it is, and where there are checksums, with those made good again.
    fn change(&self, seed: &Seed, at: usize, value: &[u8]) {
        let overlay = Overlay::new(&seed.bytes).with(at, value);
        let told = || format!("{at:#x}: {}", value.escape_ascii());
        if ["vpc", "vhdx"].contains(&seed.format) {
            let mut good = overlay.clone();
            for (at, sum) in mended(seed.format, &overlay, at) {
                good = good.with(at, &sum);
            }
            self.case(seed, good, &|| format!("{} mended", told()));
        }
        self.case(seed, overlay, &told);
    }

    fn case(&self, seed: &Seed, overlay: Overlay<'_>, told: &dyn Fn() -> String) {
        self.cases.fetch_add(1, Ordering::Relaxed);
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let what = format!("{}, {}, way {}", seed.id, told(), turn % 4);
        *self.doing.lock().expect("what is done") = Some((Instant::now(), what.clone()));
        let pinned = turn.is_multiple_of(2).then_some(seed.format);
        let request = info::Request {
            top: Source::whole(overlay.granted(pinned)),
            rules: Rules { as_qemu: turn % 4 < 2, version: 0 },
            chain: true,
            open_data_file: turn % 4 == 3,
            extra: true,
        };
        let said = Cell::new(0);
        let emit = |event: &[u8]| {
            said.set(said.get() + event.len());
            assert!(decode::<info::Event>(event).is_ok(), "an event that cannot be read");
            assert!(said.get() <= SAID_MAX, "events without end");
            Ok(())
        };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let drive = ReadOnly(&overlay);
            let crew = Alone { drive: &drive, emit: &emit };
            let _ = instar_ops::info::run(&request, &Cx { io: &overlay, drive: &drive, crew: &crew, emit: &emit });
        }));
        if let Err(why) = ran {
            let words = why.downcast_ref::<String>().cloned();
            let words = words.or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
            self.faults.lock().expect("the faults").push(format!("{what}: {words}"));
        }
        *self.doing.lock().expect("what is done") = None;
    }
}
