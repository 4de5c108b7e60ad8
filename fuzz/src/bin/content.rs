//! Bytes as images: whatever they are, where their content lies is told, and read, or refused; always in the same way.
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
    use instar_fuzz::files::Files;
    use instar_fuzz::guest::content;
    use instar_image::source::Piece;
    use instar_image::tally::check_in_windows;
    use instar_image::{Chain, Found, Granted, Io, Kind, Purpose, Reader, Scope, Walk};
    use instar_ops::cx::{Alone, Cx};
    use instar_ops::open::{chain, stack, stack_for};
    use instar_testkit::read_only::ReadOnly;
    use instar_wire::code::Secret;
    use instar_wire::op::{Rules, Source};

    /// Runs that are looked at: a few kilobytes can tell of more than anybody has time for.
    const RUNS: usize = 1500;
    /// Findings that are listened to.
    const FINDINGS: u64 = 5000;
    /// Bytes that are read in all.
    const READ: u64 = 1 << 20;
    /// Bytes that are read of a run.
    const PIECE: u64 = 20_000;

    pub fn run(data: &[u8]) {
        let mut input = Input(data);
        let (flags, format, place) = (input.byte(), usize::from(input.byte()), input.number());
        let files = Files::new(input);
        let drive = ReadOnly(&files);
        let emit = |_: &[u8]| Ok(());
        let crew = Alone { drive: &drive, emit: &emit };
        let cx = Cx { io: &files, drive: &drive, crew: &crew, emit: &emit };
        let pinned = FORMATS.get(format).map(|format| format.name().into());
        // Whoever knows the passphrase is led further.
        let key = (flags & 16 != 0).then(|| Secret(b"123456".to_vec()));
        let top = Source { key, ..Source::whole(Granted { pinned, ..files.grant(0) }) };
        let rules = Rules { as_qemu: flags & 1 == 0, version: u32::from(flags >> 5) * 200 };
        checked(&cx, &top, &rules);
        let Ok(stack) = stack(&cx, &top, &rules, &|_| Ok(())) else { return };
        let snapshot = (flags & 2 != 0).then(|| stack[0].image.snapshot(usize::from(flags >> 2 & 3)));
        let Ok(chain) = snapshot.transpose().and_then(|snapshot| chain(&stack, snapshot)) else { return };
        let size = chain.size();
        let told = [0, place.min(size)].map(|from| walked(&chain, &files, from));
        told.iter().for_each(|told| read_twice(&chain, &files, told));
        let (at, len) = (place.min(size), (size - place.min(size)).min(PIECE));
        same_in_pieces(&chain, &files, at, len);
    }

    /// Whatever is wrong in it is found in the same way twice, and in parts of the file as in the whole.
    fn checked(cx: &Cx<'_>, top: &Source, rules: &Rules) {
        let Ok(stack) = stack_for(cx, top, rules, Purpose::Check, &|_| Ok(())) else { return };
        let scope = Scope { as_qemu: rules.as_qemu, version: rules.version };
        for census in stack.iter().flat_map(|opened| opened.image.censuses(scope)) {
            let find = |window: u64| {
                let mut left = FINDINGS;
                check_in_windows(&*census, scope, window, &mut |_| {
                    left -= 1;
                    // As whoever listens may do.
                    if left == 0 { Err(Kind::Broken.what("enough")) } else { Ok(()) }
                })
            };
            let (once, parts) = (find(1 << 20), find(1 << 10));
            if let (Ok(once), Ok(parts)) = (once, parts) {
                assert_eq!((once.clusters, once.end), (parts.clusters, parts.end));
            }
        }
    }

    /// The runs from `from` on, which must not depend on how many are asked for at once.
    fn walked(chain: &Chain<'_>, io: &dyn Io, from: u64) -> Vec<(u64, Found)> {
        let (many, ended) = runs(chain, io, from, 1024, RUNS);
        let (one, other) = runs(chain, io, from, 1, RUNS / 5);
        let bytes = |runs: &[(u64, Found)]| runs.iter().map(|(len, _)| len).sum::<u64>();
        // Where the one was cut short by its length, the other goes on.
        assert!(bytes(&one) <= bytes(&many) || !ended, "{one:x?} and {many:x?}");
        for (n, ((len, what), (of_many, same))) in one.iter().zip(&many).enumerate() {
            let is_last = n + 1 == one.len().min(many.len());
            assert!((len == of_many || is_last) && what == same, "run {n}: {len} {what:x?}, {of_many} {same:x?}");
        }
        assert!(!(ended && other) || bytes(&one) == bytes(&many), "{one:x?} and {many:x?}");
        many
    }

    /// Runs, joined, and whether they reach the end or an error.
    fn runs(chain: &Chain<'_>, io: &dyn Io, from: u64, room: usize, most: usize) -> (Vec<(u64, Found)>, bool) {
        let mut walk = Walk::with_room(chain, io, from, chain.size(), room);
        let mut runs: Vec<(u64, Found)> = Vec::new();
        for _ in 0..most {
            let Ok(Some((len, found))) = walk.peek() else { return (runs, true) };
            assert!(len > 0 && len <= chain.size() - walk.at(), "{len} at {} of {}", walk.at(), chain.size());
            match runs.last_mut() {
                Some(last) if last.1.joins(last.0, &found) => last.0 += len,
                _ => runs.push((len, found)),
            }
            walk.advance(len);
        }
        (runs, false)
    }

    /// The first and the last bytes of runs read the same when they are read again after others.
    fn read_twice(chain: &Chain<'_>, io: &dyn Io, runs: &[(u64, Found)]) {
        let read = |reader: &mut Reader<'_>, found: &Found, len: u64| {
            let mut buf = vec![0xa5; len as usize];
            reader.read(found, &mut buf).ok().map(|()| buf)
        };
        let (mut one, mut left) = (Reader::new(chain, io), READ);
        for (len, found) in runs {
            let Some(rest) = left.checked_sub(2 * PIECE) else { return };
            let part = PIECE.min(*len);
            left = rest.max(left.saturating_sub(2 * part));
            for found in [*found, found.cut(len - part)] {
                let first = read(&mut one, &found, part);
                let alone = read(&mut Reader::new(chain, io), &found, part);
                assert!(first == alone, "{part} bytes of {found:x?}");
            }
        }
    }

    /// A range read whole, and read in pieces of all lengths.
    fn same_in_pieces(chain: &Chain<'_>, io: &dyn Io, at: u64, len: u64) {
        let Ok(whole) = content(chain, io, at, len) else { return };
        let (mut from, mut step) = (0, 1);
        while from < len {
            let piece = content(chain, io, at + from, step.min(len - from)).expect("a part of what can be read");
            assert!(whole[from as usize..][..piece.len()] == piece, "{step} bytes from {}", at + from);
            (from, step) = (from + step, step * 3 % 4099);
        }
    }
}
