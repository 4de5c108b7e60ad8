//! `dd`: copies a part of an image, block by block.

use crate::Told;
use crate::args::Parsed;
use crate::args::node::Named;
use crate::asking::Asking;
use crate::convert::{Copying, is_file};
use crate::making::{Making, Wanted};
use crate::opening::{self, Opened};
use crate::render::json;
use crate::render::progress::Progress;
use crate::settings::{Face, Settings};
use crate::setup;
use instar_broker::{Session, spool};
use instar_wire::fact::Fact;
use instar_wire::op;
use instar_wire::op::convert::{Bitmaps, Progress as Counted, Request, Share};
use instar_wire::op::dd::{self, Part};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes in a block, if nothing else is said.
const BLOCK: u64 = 512;
/// Runs of zeroes of this length are left out.
const SPARSE: u32 = 4096;

/// Runs the verb.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut session = setup::session(settings, !parsed.has("force-share"));
    let operands = Operands::new(parsed, settings)?;
    let image = operands.open(parsed, &mut session, settings)?;
    let wanted = operands.wanted();
    let mut making = Making::new(wanted, parsed, &mut session, settings);
    let copy = Request {
        sources: vec![image.content()],
        rules: setup::rules(settings),
        snapshot: parsed.bytes("snapshot").map(setup::pick),
        share: Share::Whole,
        target: making.request(),
        sparse: SPARSE,
        salvage: false,
        offload: false,
        bitmaps: Bitmaps::None,
        progress: Counted::Passed,
    };
    let part = operands.part();
    let mut progress = Progress::new(false);
    progress.begin(0);
    let images = [image];
    let copying = Copying(Asking { session: &session, images: &images, parsed, settings });
    let wrap = |copy| op::Request::Dd(dd::Request { copy, part });
    let told = copying.run(copy, wrap, &mut making, &mut progress)?;
    let lens = making.publish(&session)?;
    if parsed.bytes("output") != Some(b"json") || operands.writes_out {
        return Ok(told);
    }
    let text = |bytes: &[u8]| Fact::Text(bytes.into());
    let facts = Fact::fields([
        ("filename", text(&operands.target)),
        ("format", text(b"raw")),
        ("source", text(&operands.source)),
        ("bytes_copied", lens.copied.into()),
        ("file_size_after", lens.file.into()),
    ]);
    Ok(Told { stdout: json::pretty(&facts), ..told })
}

/// What the words of the command line mean.
struct Operands {
    source: Vec<u8>,
    target: Vec<u8>,
    /// The source is standard input, and not a file.
    reads_in: bool,
    /// The target is standard output.
    writes_out: bool,
    /// Bytes in a block.
    block: u64,
    count: Option<u64>,
    skip: u64,
    /// Bytes of the target that are passed over.
    seek: u64,
    isize: Option<u64>,
    osize: Option<u64>,
}

impl Operands {
    fn new(parsed: &Parsed, settings: &Settings) -> Result<Operands, Told> {
        let native = settings.face == Face::Native;
        let name = |key, stream: &[u8]| {
            let given = parsed.bytes(key).filter(|name| !native || *name != b"-");
            given.unwrap_or(stream).to_vec()
        };
        let (source, target) = (name("if", b"/dev/stdin"), name("of", b"/dev/stdout"));
        let block = parsed.number("bs").unwrap_or(BLOCK);
        let writes_out =
            native && target == b"/dev/stdout" && (parsed.bytes("of") != Some(&target) || !is_file(&target));
        let seek = parsed.number("seek").unwrap_or(0).checked_mul(block);
        let seek = seek.ok_or_else(|| Told::failure(settings, b"seek leads beyond the end of any file"))?;
        if writes_out && seek > 0 {
            return Err(Told::failure(settings, b"nothing of standard output can be passed over"));
        }
        Ok(Operands {
            reads_in: native && source == b"/dev/stdin" && !is_file(&source),
            source,
            target,
            writes_out,
            block,
            count: parsed.number("count"),
            skip: parsed.number("skip").unwrap_or(0),
            seek,
            isize: parsed.number("isize"),
            osize: parsed.number("osize"),
        })
    }

    /// The part of the source that is copied.
    fn part(&self) -> Part {
        // What no number can hold lies behind the end of any disk.
        let from = self.skip.saturating_mul(self.block);
        let counted = self.count.map(|count| count.saturating_mul(self.block));
        let room = self.osize.map(|osize| from.saturating_add(osize.saturating_sub(self.seek)));
        Part { from, until: [counted, room, self.isize].into_iter().flatten().min() }
    }

    fn wanted(&self) -> Wanted {
        Wanted { name: self.target.clone(), is_stream: self.writes_out, seek: self.seek, len: self.osize }
    }

    fn open(&self, parsed: &Parsed, session: &mut Session, settings: &Settings) -> Result<Opened, Told> {
        let named = Named {
            name: &self.source,
            image_opts: parsed.has("image-opts"),
            format: parsed.bytes("format"),
            force_share: parsed.has("force-share"),
        };
        if !self.reads_in {
            return opening::open_named(parsed, &named, session, settings);
        }
        let failed = |error: std::io::Error| {
            let words = error.to_string();
            let words = words.split(" (os error").next().unwrap_or_default();
            Told::failure(settings, format!("error while reading from input image file: {words}").as_bytes())
        };
        let most = self.part().until.unwrap_or(u64::MAX);
        let (file, len) = spool::standard_input(&self.beside(), most).map_err(failed)?;
        // Whoever says how much there is does not want to go on with less.
        let least = self.isize.or(self.osize).map_or(0, |least| least.min(most));
        if len < least {
            return Err(Told::failure(settings, b"Input ended unexpectedly"));
        }
        opening::take_in(parsed, &named, file, session, settings)
    }

    /// The directory that standard input is kept in: where its bytes will go, if that is a file.
    fn beside(&self) -> PathBuf {
        let path = Path::new(OsStr::from_bytes(&self.target));
        let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let is_file = !self.writes_out && path.metadata().map_or(true, |about| about.is_file());
        parent.filter(|_| is_file).map_or_else(std::env::temp_dir, Path::to_path_buf)
    }
}
