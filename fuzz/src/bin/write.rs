//! Images that are written to: whatever their bytes are, it is refused or done; and if nothing was wrong with an image,
//! then it holds afterwards what was written and, everywhere else, what it held before.
#![cfg_attr(fuzzing, no_main)]

#[cfg(not(fuzzing))]
fn main() {
    for path in std::env::args_os().skip(1) {
        target::run(&std::fs::read(path).expect("a readable input"));
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

mod target {
    use instar_formats::FORMATS;
    use instar_fuzz::Reader as Input;
    use instar_fuzz::disk::{Disk, File};
    use instar_fuzz::guest::content;
    use instar_image::tally::check;
    use instar_image::{Granted, Purpose, Result, Scope, Walk};
    use instar_ops::convert::copy;
    use instar_ops::cx::{Alone, Cx};
    use instar_ops::open::{chain, stack, stack_for};
    use instar_testkit::build::{vhd, vhdx};
    use instar_wire::code::Secret;
    use instar_wire::op::check::Weight;
    use instar_wire::op::convert::{Bitmaps, Goal, Progress, Request, Target};
    use instar_wire::op::{Part, Rules, Source};

    /// Writes, at most.
    const WRITES: u8 = 3;
    /// Bytes of one.
    const LEN_MAX: u64 = 192 << 10;
    /// What is read around a write, and at both ends of the disk.
    const AROUND: u64 = 160 << 10;
    /// Runs of which the first and the last bytes are looked at.
    const RUNS: usize = 200;

    /// How images are opened, and what they are written with.
    struct Ways {
        format: usize,
        key: Option<Secret>,
        rules: Rules,
        packed: bool,
        is_clean: bool,
        sparse: u32,
        stage_len: usize,
    }

    /// Something to be written.
    struct Write {
        at: u64,
        bytes: Vec<u8>,
    }

    pub fn run(data: &[u8]) {
        let mut input = Input(data);
        let (flags, format) = (input.byte(), usize::from(input.byte()));
        let ways = Ways {
            format,
            key: (flags & 1 != 0).then(|| Secret(b"123456".to_vec())),
            rules: Rules { as_qemu: flags & 2 != 0, version: 0 },
            packed: flags & 4 != 0,
            is_clean: flags & 8 == 0,
            sparse: if flags & 16 == 0 { 4096 } else { 0 },
            stage_len: if flags & 32 == 0 { 64 << 10 } else { 2 << 20 },
        };
        let writes: Vec<(u64, Vec<u8>)> = (0..input.byte() % WRITES + 1).map(|_| write(&mut input)).collect();
        let mut files = Vec::new();
        for _ in 0..input.byte() % 3 {
            let len = input.take(3).iter().rev().fold(0, |len, byte| len << 8 | usize::from(*byte));
            files.push(File::from_input(Input(input.take(len))));
        }
        files.insert(0, File::from_input(input));
        if flags & 64 == 0 {
            mend_sums(&mut files[0]);
        }
        for (place, bytes) in writes {
            match ways.write(files, place, bytes) {
                Some(written) => files = written,
                None => return,
            }
        }
    }

    /// A place, and bytes to go there: noise, a pattern, or zeroes, in parts.
    fn write(input: &mut Input<'_>) -> (u64, Vec<u8>) {
        let place = input.number();
        let mut bytes = Vec::new();
        for _ in 0..input.byte() % 3 + 1 {
            let (kind, sectors) = (input.byte(), 1 + usize::from(input.byte()));
            let from = bytes.len();
            bytes.resize(from + sectors * 512, 0);
            let part = &mut bytes[from..];
            match kind % 3 {
                0 => {}
                1 => part.fill(kind),
                _ => part
                    .iter_mut()
                    .enumerate()
                    .for_each(|(n, b)| *b = ((n as u32).wrapping_mul(2_654_435_761) >> 13) as u8 ^ kind),
            }
        }
        bytes.truncate(LEN_MAX as usize);
        (place, bytes)
    }

    /// Sums keep nobody out who can reckon: those of VHD and VHDX are set right.
    fn mend_sums(image: &mut File) {
        let end = image.len.saturating_sub(512);
        let mut seal = |at: u64, len: usize, mark: &[u8], seal: &dyn Fn(&mut [u8])| {
            let mut bytes = image.bytes(at, len);
            if at + len as u64 <= image.len && bytes.starts_with(mark) {
                seal(&mut bytes);
                image.write(at, &bytes);
            }
        };
        [0, end].iter().for_each(|at| seal(*at, 512, b"conectix", &|bytes| vhd::seal(bytes, 64)));
        seal(512, 1024, b"cxsparse", &|bytes| vhd::seal(bytes, 36));
        [1u64, 2].iter().for_each(|n| seal(n << 16, 4096, b"head", &vhdx::seal));
        [3u64, 4].iter().for_each(|n| seal(n << 16, 65536, b"regi", &vhdx::seal));
    }

    impl Ways {
        fn top(&self, disk: &Disk) -> Source {
            let pinned = FORMATS.get(self.format).map(|format| format.name().into());
            let pinned = pinned.or_else(|| (self.format == 200).then(|| "raw".into()));
            Source { key: self.key.clone(), ..Source::whole(Granted { pinned, ..disk.grant(0) }) }
        }

        /// Writes, if that can be done; the files as they are afterwards.
        fn write(&self, files: Vec<File>, place: u64, bytes: Vec<u8>) -> Option<Vec<File>> {
            let (size, places) = self.look(&files, place, bytes.len() as u64)?;
            let write = Write { at: places[0].0, bytes };
            let end = write.at.checked_add(write.bytes.len() as u64).filter(|end| *end <= size);
            let write = if end.is_some() { write } else { fitted(write, size)? };
            let is_sound = self.faults(&files, true) == Some(0);
            let before: Vec<_> = places.iter().map(|(at, len)| self.read(&files, *at, *len)).collect();
            let after = self.copy(files, &write)?;
            if !is_sound {
                return Some(after);
            }
            assert_eq!(self.faults(&after, false), Some(0), "it is broken");
            for ((at, len), before) in places.iter().zip(before) {
                let Some(mut want) = before else { continue };
                let (from, until) = (write.at.max(*at), (write.at + write.bytes.len() as u64).min(at + len));
                if from < until {
                    let part = &write.bytes[(from - write.at) as usize..(until - write.at) as usize];
                    want[(from - at) as usize..(until - at) as usize].copy_from_slice(part);
                }
                let got = self.read(&after, *at, *len).expect("it can be read");
                if let Some(bad) = want.iter().zip(&got).position(|(want, got)| want != got) {
                    let wrote = (write.at, write.bytes.len());
                    panic!("{} is {}, not {}; {wrote:?} was written", at + bad as u64, got[bad], want[bad]);
                }
            }
            Some(after)
        }

        /// Does something with the files.
        fn with<T>(&self, files: Vec<File>, act: impl FnOnce(&Cx<'_>, &Disk) -> Option<T>) -> (Option<T>, Vec<File>) {
            // The last one is what is written, which no image can name.
            let disk = Disk::new(files.clone(), files.len().saturating_sub(1), self.stage_len);
            let emit = |_: &[u8]| Ok(());
            let crew = Alone { drive: &disk, emit: &emit };
            let cx = Cx { io: &disk, drive: &disk, crew: &crew, emit: &emit };
            let done = act(&cx, &disk);
            (done, disk.into_files())
        }

        /// How large the disk is, and the places that are looked at: where is written, and others.
        fn look(&self, files: &[File], place: u64, len: u64) -> Option<(u64, Vec<(u64, u64)>)> {
            let looked = self.with(spare(files, &[]), |cx, disk| {
                let stack = stack(cx, &self.top(disk), &self.rules, &|_| Ok(())).ok()?;
                let chain = chain(&stack, None).ok()?;
                let size = chain.size();
                // Small numbers are sectors, so that what is far from the beginning is met.
                let wanted = if place < 200 { place * 7919 * 512 } else { place } / 512 * 512;
                let last = (size / 512).saturating_sub(len / 512);
                let at = wanted % (last * 512).saturating_add(512);
                let mut places = vec![(at, len.min(size.saturating_sub(at)))];
                let from = at.saturating_sub(AROUND);
                places.push((from, (len + 2 * AROUND).min(size.saturating_sub(from))));
                places.push((0, AROUND.min(size)));
                places.push((size.saturating_sub(AROUND), AROUND.min(size)));
                let mut walk = Walk::new(&chain, disk, 0, size);
                for _ in 0..RUNS {
                    let Ok(Some((len, found))) = walk.peek() else { break };
                    if !found.source.is_zero() {
                        let part = len.min(100);
                        places.extend([(walk.at(), part), (walk.at() + len - part, part)]);
                    }
                    walk.advance(len);
                }
                Some((size, places))
            });
            looked.0
        }

        /// How many faults are found; none if that cannot be said. `all`: leaks as well.
        fn faults(&self, files: &[File], all: bool) -> Option<u64> {
            let found = self.with(spare(files, &[]), |cx, disk| {
                let stack = stack_for(cx, &self.top(disk), &self.rules, Purpose::Check, &|_| Ok(()));
                let stack = stack.inspect_err(|error| tell(&error)).ok()?;
                let scope = Scope { as_qemu: false, version: 0 };
                let mut faults = 0;
                for opened in &stack {
                    let censuses = opened.image.censuses(scope);
                    // Of the others nothing is known.
                    if censuses.is_empty() && opened.format.name() != "raw" && opened.format.name() != "luks" {
                        return None;
                    }
                    for census in censuses {
                        let told = check(&*census, scope, &mut |finding| {
                            let counts = matches!(finding.weight, Weight::Corruption | Weight::Failure) || all;
                            if counts {
                                tell(&finding);
                            }
                            faults += u64::from(counts);
                            Ok(())
                        });
                        told.inspect_err(|error| tell(&error)).ok()?;
                    }
                }
                Some(faults)
            });
            found.0
        }

        fn read(&self, files: &[File], at: u64, len: u64) -> Option<Vec<u8>> {
            let read = self.with(spare(files, &[]), |cx, disk| {
                let stack = stack(cx, &self.top(disk), &self.rules, &|_| Ok(())).ok()?;
                content(&chain(&stack, None).ok()?, disk, at, len).ok()
            });
            read.0
        }

        /// Writes as `convert -n` does.
        fn copy(&self, files: Vec<File>, write: &Write) -> Option<Vec<File>> {
            let (copied, mut files) = self.with(spare(&files, &write.bytes), |cx, disk| {
                let last = disk.files() - 1;
                let raw = Granted { pinned: Some("raw".into()), ..disk.grant(last) };
                let whole = Part { offset: None, size: Some(write.bytes.len() as u64) };
                let request = Request {
                    sources: vec![Source { raw: whole, ..Source::whole(raw) }],
                    rules: self.rules.clone(),
                    snapshot: None,
                    share: instar_wire::op::convert::Share::Whole,
                    target: Target {
                        goal: Goal::There(Box::new(self.top(disk))),
                        at: write.at,
                        len: None,
                        is_zero: false,
                        is_clean: self.is_clean,
                        compress: self.packed,
                    },
                    sparse: self.sparse,
                    salvage: false,
                    offload: false,
                    bitmaps: Bitmaps::None,
                    progress: Progress::Passed,
                };
                let copied: Result<()> = copy(&request, None, cx);
                tell(&(write.bytes.len(), write.at, &copied));
                copied.ok()
            });
            files.pop();
            copied.map(|()| files)
        }
    }

    /// Tells it if it is wanted.
    fn tell(what: &dyn core::fmt::Debug) {
        if std::env::var_os("INSTAR_TELL").is_some() {
            eprintln!("{what:?}");
        }
    }

    /// What of it has room in a disk.
    fn fitted(mut write: Write, size: u64) -> Option<Write> {
        let room = size.checked_sub(write.at).filter(|room| *room > 0)?;
        write.bytes.truncate(room.min(write.bytes.len() as u64) as usize);
        Some(write)
    }

    /// The files, and one more.
    fn spare(files: &[File], bytes: &[u8]) -> Vec<File> {
        files.iter().cloned().chain([File::of(bytes)]).collect()
    }
}
