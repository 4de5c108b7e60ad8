//! Opening what the user named: an image, and below it the images that it stands upon.

use crate::cx::Cx;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_image::layer::Estranged;
use instar_image::{
    Bytes, Chain, Error, File, Format, Granted, Image, Kind, Layer, Options, Order, Purpose, Repair, Report, Result,
    Role, Scope, Summary, info,
};
use instar_wire::op::check::Finding;
use instar_wire::op::convert::Pick;
use instar_wire::op::{self, Below, Part, Rules, Source};

/// A way down a chain, layer after layer.
pub struct Descent<'a, 'r> {
    cx: &'r Cx<'a>,
    rules: &'r Rules,
    layer: Granted,
    part: Option<Part>,
    options: Options,
    /// The files are read as they are now, whatever was read of them before.
    is_anew: bool,
    /// What the user says of the layer below.
    below: Below,
}

/// A layer, opened.
pub struct Opened<'a> {
    /// Its file, and the format that was demanded for it.
    pub granted: Granted,
    /// The part of the file that it is.
    pub file: File<'a>,
    /// What it is.
    pub format: &'static dyn Format,
    /// The image.
    pub image: Box<dyn Image + 'a>,
    /// What it says of itself.
    pub told: info::Image,
}

impl<'a, 'r> Descent<'a, 'r> {
    /// From what the user named.
    pub fn new(cx: &'r Cx<'a>, source: &Source, rules: &'r Rules, purpose: Purpose) -> Self {
        let options = Options {
            purpose,
            as_qemu: rules.as_qemu,
            version: rules.version,
            key: None,
            beside: None,
            raw_offset: None,
            raw_size: None,
        };
        let mut descent = Descent {
            cx,
            rules,
            layer: source.file.clone(),
            part: None,
            options,
            is_anew: false,
            below: Below::AsStored,
        };
        descent.turn_to(source);
        descent
    }

    /// Goes on with what the user named.
    fn turn_to(&mut self, source: &Source) {
        let Source { file, part, raw, key, beside, below } = source.clone();
        (self.layer, self.part, self.below) = (file, part, below);
        (self.options.key, self.options.beside) = (key, beside);
        (self.options.raw_offset, self.options.raw_size) = (raw.offset, raw.size);
    }

    /// Opens the layer it has come to. `extra`: also tells what qemu-img hides.
    pub fn open(&mut self, extra: bool) -> Result<Opened<'a>> {
        let now = Cx { io: self.cx.drive, ..*self.cx };
        let cx = if self.is_anew { &now } else { self.cx };
        let file = cx.file(&self.layer, self.part.take())?;
        let format = cx.format_of(&self.layer, &file, self.rules)?;
        let image = format.open(file, &self.options)?;
        let told = image.describe(extra)?;
        Ok(Opened { granted: self.layer.clone(), file, format, image, told })
    }

    /// Goes down to the layer below; false if there is none.
    pub fn descend(&mut self, from: &Opened<'a>) -> Result<bool> {
        let claim = from.told.backing.as_ref().and_then(|backing| backing.format.as_ref());
        // What the user said of the top is said of nothing below.
        let said = core::mem::replace(&mut self.below, Below::AsStored);
        let Options { purpose, as_qemu, version, .. } = self.options;
        let purpose = match purpose {
            Purpose::Write | Purpose::WriteOver | Purpose::WriteToStand => Purpose::Read,
            Purpose::Repair => Purpose::Check,
            other => other,
        };
        self.options = Options { purpose, as_qemu, version, ..Options::default() };
        match said {
            Below::None => return Ok(false),
            Below::AsStored => {
                let Some(granted) = self.stored(from)? else { return Ok(false) };
                self.layer = granted;
                return self.heed_claim(claim).map(|()| true);
            }
            Below::Over(over) => {
                let missing = match over.format {
                    Some(_) => "A block device must be specified for \"file\"",
                    None => "Must specify either driver or file",
                };
                let stored = self.stored(from)?;
                let mut granted = stored.ok_or_else(|| Kind::Unsupported.what(missing))?;
                granted.pinned = over.format.or(granted.pinned);
                self.layer = granted;
                (self.options.key, self.below) = (over.key, over.below);
                (self.options.raw_offset, self.options.raw_size) = (over.raw.offset, over.raw.size);
            }
            Below::Instead(source) => self.turn_to(&source),
        }
        if self.layer.pinned.is_none() {
            self.heed_claim(claim)?;
        }
        Ok(true)
    }

    /// The layer that an image names.
    fn stored(&self, from: &Opened<'a>) -> Result<Option<Granted>> {
        let Some(backing) = &from.told.backing else { return from.image.parent() };
        // A layer that cannot be had is told as the one at fault, not the one that names it.
        let related = self.cx.io.related(from.granted.id, Role::Backing, &backing.name.0);
        related.map(Some).map_err(|e| Error { file: None, ..e })
    }

    /// A format name in an image is a claim: in qemu-img's ways it is obeyed, otherwise the bytes must bear it out.
    fn heed_claim(&mut self, claim: Option<&Bytes>) -> Result<()> {
        let Some(claim) = claim else { return Ok(()) };
        if self.rules.as_qemu {
            self.layer.pinned = Some(claim.clone());
            return Ok(());
        }
        let file = self.cx.file(&self.layer, self.part.clone())?;
        let found = self.cx.format_of(&self.layer, &file, self.rules)?;
        if found.name().as_bytes() == claim.0 {
            return Ok(());
        }
        Err(Kind::Refused
            .what("the overlay calls it '{}', its bytes say '{}'")
            .file(self.layer.id)
            .arg(claim.clone())
            .arg(found.name()))
    }
}

/// Opens an image and all below it, telling every step before it is taken or as it is done.
pub fn stack<'a>(
    cx: &Cx<'a>,
    source: &Source,
    rules: &Rules,
    tell: &dyn Fn(op::Step) -> Result<()>,
) -> Result<Vec<Opened<'a>>> {
    opened(Descent::new(cx, source, rules, Purpose::Read), tell)
}

/// The same, of which the first is opened for another purpose than to be read.
pub fn stack_for<'a>(
    cx: &Cx<'a>,
    source: &Source,
    rules: &Rules,
    purpose: Purpose,
    tell: &dyn Fn(op::Step) -> Result<()>,
) -> Result<Vec<Opened<'a>>> {
    let mut stack = stack_unrepaired(cx, source, rules, purpose, tell)?;
    if matches!(purpose, Purpose::Write | Purpose::WriteOver) {
        sound(cx, source, rules, purpose, &mut stack, tell)?;
    }
    Ok(stack)
}

/// The same, but whatever was left undone stays so.
pub fn stack_unrepaired<'a>(
    cx: &Cx<'a>,
    source: &Source,
    rules: &Rules,
    purpose: Purpose,
    tell: &dyn Fn(op::Step) -> Result<()>,
) -> Result<Vec<Opened<'a>>> {
    opened(Descent::new(cx, source, rules, purpose), tell)
}

/// An image with all that is named below it, whose files may have become longer or shorter.
pub fn as_they_are(source: &Source, cx: &Cx<'_>) -> Result<Source> {
    let source = source.as_it_is(cx.drive.length(source.file.id)?);
    Ok(match &source.below {
        Below::Instead(below) => Source { below: Below::Instead(Box::new(as_they_are(below, cx)?)), ..source },
        _ => source,
    })
}

/// Opens the first layer of a stack again after it was changed.
pub fn again<'a>(
    cx: &Cx<'a>,
    source: &Source,
    rules: &Rules,
    purpose: Purpose,
    before: &Opened<'a>,
) -> Result<Opened<'a>> {
    let mut source = source.clone();
    source.file.len = cx.drive.length(source.file.id)?;
    // Files that belong to it are open.
    let beside = before.told.children.iter().find(|child| child.name.0 == b"data-file");
    if let (None, Some(child)) = (&source.beside, beside) {
        let len = cx.drive.length(child.file)?;
        let granted = Granted {
            id: child.file,
            len,
            allocated: len,
            writable: before.granted.writable,
            pinned: None,
            suggested: None,
        };
        source.beside = Some(granted);
    }
    let mut descent = Descent { is_anew: true, ..Descent::new(cx, &source, rules, purpose) };
    descent.open(false)
}

/// Repairs what whoever wrote to an image last has left undone, so that it can be written to.
fn sound<'a>(
    cx: &Cx<'a>,
    source: &Source,
    rules: &Rules,
    purpose: Purpose,
    stack: &mut [Opened<'a>],
    tell: &dyn Fn(op::Step) -> Result<()>,
) -> Result<()> {
    let Some(top) = stack.first_mut().filter(|top| top.image.must_be_repaired()) else { return Ok(()) };
    let scope = Scope { as_qemu: rules.as_qemu, version: rules.version };
    let order = Order { drive: cx.drive, extent: Repair::All, scope };
    let search = &mut |report: Report<'_>| top.image.repair(&order, report);
    let summary = in_batches(&|findings| tell(op::Step::Found(findings)), search)?;
    if summary.failures > 0 {
        return Err(Kind::Corrupt.what("Could not repair dirty image: Input/output error").file(top.granted.id));
    }
    *top = again(cx, source, rules, purpose, top)?;
    Ok(())
}

/// Findings that are told at once.
const BATCH: usize = 256;

/// Tells what is found, some at once.
pub fn in_batches(
    tell: &dyn Fn(Vec<Finding>) -> Result<()>,
    search: &mut dyn FnMut(Report<'_>) -> Result<Summary>,
) -> Result<Summary> {
    let batch: RefCell<Vec<Finding>> = RefCell::default();
    let ended = search(&mut |finding| {
        batch.borrow_mut().push(finding);
        let is_full = batch.borrow().len() >= BATCH;
        if is_full { tell(batch.take()) } else { Ok(()) }
    });
    // What was found before it could not go on is told as well.
    let rest = batch.take();
    if !rest.is_empty() {
        tell(rest)?;
    }
    ended
}

/// Opens an image and nothing below it.
pub fn alone<'a>(
    cx: &Cx<'a>,
    source: &Source,
    rules: &Rules,
    purpose: Purpose,
    tell: &dyn Fn(op::Step) -> Result<()>,
) -> Result<Opened<'a>> {
    tell(op::Step::Image)?;
    let mut opened = layer(&mut Descent::new(cx, source, rules, purpose), tell)?;
    if purpose == Purpose::Write {
        sound(cx, source, rules, purpose, core::slice::from_mut(&mut opened), tell)?;
    }
    Ok(opened)
}

/// Opens the layer that a way down has come to.
fn layer<'a>(descent: &mut Descent<'a, '_>, tell: &dyn Fn(op::Step) -> Result<()>) -> Result<Opened<'a>> {
    let opened = descent.open(false)?;
    if descent.options.purpose != Purpose::Describe {
        opened.image.unlock()?;
    }
    tell(op::Step::Layer(op::Layer {
        file: opened.granted.id,
        format: opened.format.name().into(),
        virtual_size: opened.told.virtual_size,
        warnings: opened.told.warnings.clone(),
    }))?;
    Ok(opened)
}

fn opened<'a>(mut descent: Descent<'a, '_>, tell: &dyn Fn(op::Step) -> Result<()>) -> Result<Vec<Opened<'a>>> {
    tell(op::Step::Image)?;
    let mut layers = Vec::new();
    loop {
        let opened = layer(&mut descent, tell)?;
        let goes_on = descent.descend(&opened);
        layers.push(opened);
        if !goes_on? {
            return Ok(layers);
        }
    }
}

/// The maps of a stack's layers. `top`: the map to read instead of the top layer's own, as of a snapshot.
pub fn chain(stack: &[Opened<'_>], top: Option<Box<dyn Layer>>) -> Result<Chain<'static>> {
    let mut layers = Vec::new();
    let below = usize::from(top.is_some());
    layers.extend(top);
    for (depth, opened) in stack.iter().enumerate().skip(below) {
        let layer = opened.image.layer().map_err(|e| Error { file: e.file.or(Some(opened.granted.id)), ..e })?;
        let next = stack.get(depth.saturating_add(1));
        layers.push(match next.map_or(Ok(()), |next| opened.image.stands_on(&next.told)) {
            Ok(()) => layer,
            Err(error) => Box::new(Estranged { layer, error }),
        });
    }
    Ok(Chain { layers })
}

/// The map of a snapshot of the top layer.
pub fn snapshot(stack: &[Opened<'_>], pick: &Pick) -> Result<Box<dyn Layer>> {
    let missing = || Kind::Unsupported.what("Failed to load snapshot: Can't find snapshot");
    let top = stack.first().ok_or_else(missing)?;
    if !top.image.can_have_snapshots() {
        let words = "Failed to load snapshot: Block format '{}' used by device '' does not support temporarily loading \
                     internal snapshots";
        return Err(Kind::Unsupported.what(words).arg(top.format.name()));
    }
    let mut all: Vec<info::Snapshot> = Vec::new();
    top.image.snapshots(&mut |some| {
        all.extend(some);
        Ok(())
    })?;
    let by = |wanted: &dyn Fn(&info::Snapshot) -> bool| all.iter().position(wanted);
    let number = match pick {
        Pick::Either(word) => by(&|s| s.id == *word).or_else(|| by(&|s| s.name == *word)),
        Pick::Both(named) => by(&|s| {
            named.id.as_ref().is_none_or(|id| s.id == *id) && named.name.as_ref().is_none_or(|name| s.name == *name)
        }),
    };
    top.image.snapshot(number.ok_or_else(missing)?)
}
