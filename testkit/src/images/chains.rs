//! Images that stand on others: mixed formats, depths, and references that do not hold.

use super::patch::extension;
use super::{Kitchen, Recipe};
use crate::build::mutate::Noise;

/// All of them.
pub fn recipes(seed: u64) -> Vec<Recipe> {
    let mut all = mixed(seed);
    all.extend(references());
    all.extend(vmdk());
    all.extend(loops());
    all
}

/// Formats that can have a layer below.
const OVERLAYS: &[&str] = &["qcow2", "qed", "qcow", "qcow2", "qcow2"];
/// Formats that can be the lowest.
const BASES: &[&str] = &["raw", "qcow2", "vdi", "vpc", "vhdx", "vmdk", "parallels", "qed", "qcow"];

/// Chains of two to five layers that chance puts together.
fn mixed(seed: u64) -> Vec<Recipe> {
    let mut noise = Noise::new(seed ^ 0xc4a1);
    let mut pick = |from: usize| usize::try_from(noise.below(from as u64)).unwrap_or(0);
    let mut all = Vec::new();
    for n in 0..30 {
        let depth = 2 + n % 4;
        let mut formats = vec![BASES[n % BASES.len()]];
        formats.extend((1..depth).map(|_| OVERLAYS[pick(OVERLAYS.len())]));
        let place = ["", "./", "sub/", "file:", "ABSOLUTE"][pick(5)];
        let top = formats[depth - 1];
        let id = format!("chain {} named {place:?}", formats.join(" < "));
        all.push(Recipe::new(id, top, format!("l{}.{top}", depth - 1), move |kitchen| chain(kitchen, &formats, place)));
    }
    all
}

fn chain(kitchen: &Kitchen<'_>, formats: &[&str], place: &str) -> Result<(), String> {
    std::fs::create_dir(kitchen.path("sub")).map_err(|e| e.to_string())?;
    let folder = kitchen.folder.display().to_string();
    let mut below = String::new();
    for (at, format) in formats.iter().enumerate() {
        let name = format!("l{at}.{format}");
        let (file, reference) = match place {
            // Only the base moves away, so that the names below it are found from where it stands.
            "sub/" if at == 0 => (format!("sub/{name}"), format!("sub/{name}")),
            "sub/" => (name.clone(), name),
            "ABSOLUTE" => (name.clone(), format!("{folder}/{name}")),
            place => (name.clone(), format!("{place}{name}")),
        };
        if at == 0 {
            kitchen.create(&format!("-f {format} {file} 4M"))?;
        } else {
            let claim = formats[at - 1];
            kitchen.create(&format!("-f {format} -F {claim} -b {below} {file} {}M", 3 + at))?;
        }
        below = reference;
    }
    Ok(())
}

/// References that lead to something else than they say, or nowhere.
fn references() -> Vec<Recipe> {
    let mut all = Vec::new();
    for (word, name, format) in [
        ("missing", "nowhere.qcow2", "qcow2"),
        ("a folder", "sub", "raw"),
        ("json", "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"base.raw\"}}", "raw"),
        ("json that is broken", "json:{\"driver\":", "raw"),
        ("json of an unknown driver", "json:{\"driver\":\"nosuch\"}", "raw"),
        ("another format", "base.raw", "qcow2"),
        ("an unknown protocol", "nosuch:base.raw", "raw"),
        ("a name with a colon", "./a:b.raw", "raw"),
        ("a name with a newline", "a\nb.raw", "raw"),
        ("nothing at all", "file:", "raw"),
        ("a device", "/dev/null", "raw"),
    ] {
        for above in ["qcow2", "qed", "qcow"] {
            all.push(Recipe::new(format!("{above} over {word}"), above, "top", move |kitchen| {
                kitchen.create("-f raw base.raw 1M")?;
                kitchen.create("-f raw ./a:b.raw 1M")?;
                kitchen.file("a\nb.raw", &[7; 1024])?;
                std::fs::create_dir(kitchen.path("sub")).map_err(|e| e.to_string())?;
                kitchen.img(["create", "-q", "-u", "-f", above, "-F", format, "-b", name, "top", "1M"])
            }));
        }
    }
    all.push(Recipe::new("qcow2 over a name of 1023", "qcow2", "top", |kitchen| {
        let name = format!("{}x", "d/".repeat(511));
        kitchen.img(["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &name, "top", "1M"])
    }));
    for (word, claim) in [("no format", &b""[..]), ("an unknown format", b"xyz"), ("a protocol's format", b"nbd")] {
        all.push(Recipe::new(format!("qcow2 over a base of {word}"), "qcow2", "top", move |kitchen| {
            kitchen.create("-f raw base.raw 1M")?;
            kitchen.create("-f qcow2 -b base.raw -F raw top")?;
            let place = extension(&kitchen.path("top"), 0xe279_2aca)?;
            if claim.is_empty() { kitchen.patch(place.at - 4, &[0; 4]) } else { kitchen.patch(place.at, claim) }
        }));
    }
    for compat in ["0.10", "1.1"] {
        let line = format!("-f qcow2 -o compat={compat},backing_file=base.raw,backing_fmt=raw top");
        all.push(Recipe::new(format!("qcow2 {compat} by -o backing_file"), "qcow2", "top", move |kitchen| {
            kitchen.create("-f raw base.raw 1M")?;
            kitchen.create(&line)
        }));
    }
    all
}

/// VMDKs over VMDKs, and one that lost its parent's mark.
fn vmdk() -> Vec<Recipe> {
    let mut all = Vec::new();
    for subformat in ["monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat"] {
        all.push(
            Recipe::new(format!("vmdk over {subformat}"), "vmdk", "top.vmdk", move |kitchen| {
                kitchen.create(&format!("-f vmdk -o subformat={subformat} base.vmdk 1M"))?;
                kitchen.create("-f vmdk -b base.vmdk -F vmdk middle.vmdk")?;
                kitchen.create("-f vmdk -b middle.vmdk -F vmdk top.vmdk")
            })
            .perhaps(),
        );
    }
    all.push(Recipe::new("vmdk over another than its parent", "vmdk", "top.vmdk", |kitchen| {
        kitchen.create("-f vmdk base.vmdk 1M")?;
        kitchen.create("-f vmdk -b base.vmdk -F vmdk top.vmdk")?;
        kitchen.create("-f vmdk base.vmdk 1M")
    }));
    all.push(Recipe::new("vmdk without its extent", "vmdk", "disk.vmdk", |kitchen| {
        kitchen.create("-f vmdk -o subformat=monolithicFlat disk.vmdk 1M")?;
        std::fs::remove_file(kitchen.path("disk-flat.vmdk")).map_err(|e| e.to_string())
    }));
    all
}

/// Chains without an end.
fn loops() -> Vec<Recipe> {
    let one = Recipe::new("qcow2 over itself", "qcow2", "top", |kitchen| {
        kitchen.img(["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "./top", "top", "1M"])
    });
    let two = Recipe::new("qcow2 over its own overlay", "qcow2", "a", |kitchen| {
        kitchen.img(["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "b", "a", "1M"])?;
        kitchen.img(["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "./a", "b", "1M"])
    });
    vec![one, two]
}
