//! Bytes as files: whatever they are, `info` tells what they are or refuses, in little memory and little time.
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
    use instar_fuzz::Reader;
    use instar_fuzz::files::Files;
    use instar_ops::cx::{Alone, Cx};
    use instar_testkit::read_only::ReadOnly;
    use instar_wire::code::decode;
    use instar_wire::io::Granted;
    use instar_wire::op::{Request, Rules, Source, info};

    pub fn run(data: &[u8]) {
        let mut input = Reader(data);
        let flags = input.byte();
        let files = Files::new(input);
        let request = Request::Info(info::Request {
            top: Source::whole(Granted { suggested: (flags & 16 != 0).then(|| "dmg".into()), ..files.grant(0) }),
            rules: Rules { as_qemu: flags & 1 == 0, version: u32::from(flags >> 5) * 200 },
            chain: flags & 2 == 0,
            open_data_file: flags & 4 != 0,
            extra: flags & 8 == 0,
        });
        // Every event is one that the broker can read.
        let emit = |event: &[u8]| {
            decode::<info::Event>(event).expect("an event");
            Ok(())
        };
        let drive = ReadOnly(&files);
        let crew = Alone { drive: &drive, emit: &emit };
        let _ = instar_ops::run(&request, &Cx { io: &files, drive: &drive, crew: &crew, emit: &emit });
    }
}
