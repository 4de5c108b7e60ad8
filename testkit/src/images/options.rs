//! Every option of `qemu-img create`, alone, in pairs, and every odd size.

use super::Recipe;
use crate::build::mutate::Noise;

/// A format and the options it is tried with, each with its values.
type Options = (&'static str, &'static [(&'static str, &'static [&'static str])]);

/// What is tried of each format. The options of encryption and of backing files have places of their own.
pub const OPTIONS: &[Options] = &[
    ("raw", &[("preallocation", &["off", "falloc", "full"]), ("nocow", &["off"]), ("extent_size_hint", &["0"])]),
    (
        "qcow2",
        &[
            ("cluster_size", &["512", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M", "2M"]),
            ("compat", &["0.10", "1.1", "v2", "v3"]),
            ("compression_type", &["zlib", "zstd"]),
            ("data_file", &["other.data"]),
            ("data_file_raw", &["off", "on,data_file=raw.data"]),
            ("keep_data_file", &["off"]),
            ("extended_l2", &["off", "on", "on,cluster_size=16k", "on,cluster_size=2M"]),
            ("lazy_refcounts", &["off", "on"]),
            ("preallocation", &["off", "metadata", "falloc", "full"]),
            ("refcount_bits", &["1", "2", "4", "8", "16", "32", "64"]),
            ("encryption", &["off", "on,encrypt.key-secret=sec0"]),
        ],
    ),
    ("qcow", &[("encryption", &["off", "on,encrypt.key-secret=sec0"])]),
    (
        "qed",
        &[("cluster_size", &["4k", "8k", "32k", "64k", "256k", "1M"]), ("table_size", &["1", "2", "4", "8", "16"])],
    ),
    (
        "vmdk",
        &[
            ("adapter_type", &["ide", "lsilogic", "buslogic", "legacyESX"]),
            ("compat6", &["off", "on"]),
            ("hwversion", &["4", "14", "undefined"]),
            (
                "subformat",
                &[
                    "monolithicSparse",
                    "monolithicFlat",
                    "twoGbMaxExtentSparse",
                    "twoGbMaxExtentFlat",
                    "streamOptimized",
                ],
            ),
            ("toolsversion", &["2147483647", "1"]),
            ("zeroed_grain", &["off", "on"]),
        ],
    ),
    ("vpc", &[("force_size", &["off", "on"]), ("subformat", &["dynamic", "fixed"])]),
    (
        "vhdx",
        &[
            ("block_size", &["0", "1M", "2M", "4M", "8M", "16M", "64M", "256M"]),
            ("block_state_zero", &["off", "on"]),
            ("log_size", &["1M", "2M", "8M"]),
            ("subformat", &["dynamic", "fixed"]),
        ],
    ),
    ("vdi", &[("static", &["off", "on"])]),
    ("parallels", &[("cluster_size", &["64k", "512k", "1M", "2M", "4M"])]),
];

/// Options that other modules try: their beginnings.
pub const ELSEWHERE: &[&str] = &["size", "backing_file", "backing_fmt", "encrypt."];

/// What is written into some images, so that not all are empty.
const WRITES: &[&str] = &["write -P 17 0 64k", "write -P 34 512k 32k", "write -z 256k 64k"];

/// An image of these options, with data in it if `filled`.
fn recipe(id: String, format: &'static str, options: String, size: &str, filled: bool) -> Recipe {
    let line = format!("-f {format} -o {options} @ {size}");
    let writable = filled && !options.contains("streamOptimized") && !options.contains("encryption=on");
    Recipe::new(id, format, format!("disk.{format}"), move |kitchen| {
        if line.contains("keep_data_file") {
            kitchen.with("11.1.3")?.create(&line)?;
        } else {
            kitchen.create(&line)?;
        }
        if writable { kitchen.io(format, kitchen.name, WRITES) } else { Ok(()) }
    })
}

/// Each option alone with each of its values.
pub fn alone() -> Vec<Recipe> {
    let mut all = Vec::new();
    for (format, options) in OPTIONS {
        for (option, values) in *options {
            for value in *values {
                let id = format!("{format} {option}={value}");
                let filled = all.len() % 2 == 0 && *format != "raw";
                all.push(recipe(id, format, format!("{option}={value}"), "1M", filled));
            }
        }
    }
    all
}

/// Each format at sizes that are not round.
pub fn sizes() -> Vec<Recipe> {
    let mut all = Vec::new();
    let common = ["0", "512", "1000", "1025k", "3G", "1T"];
    for format in ["raw", "qcow2", "qcow", "qed", "vmdk", "vpc", "vhdx", "vdi", "parallels"] {
        for size in common {
            all.push(Recipe::create(format!("{format} of {size}"), format, format!("-f {format} @ {size}")).perhaps());
        }
    }
    for (format, size) in
        [("qcow2", "64T"), ("raw", "8T"), ("qcow2", "2305843009213693952"), ("vhdx", "64T"), ("qed", "64T")]
    {
        all.push(Recipe::create(format!("{format} of {size}"), format, format!("-f {format} @ {size}")).perhaps());
    }
    for (format, more) in [("vmdk", "-o subformat=twoGbMaxExtentSparse"), ("vmdk", "-o subformat=twoGbMaxExtentFlat")] {
        all.push(Recipe::create(format!("{format} {more} of 5G"), format, format!("-f {format} {more} @ 5G")));
    }
    for size in ["2G", "127G", "2040G", "2041G"] {
        let line = format!("-f vpc -o force_size=on @ {size}");
        all.push(Recipe::create(format!("vpc forced to {size}"), "vpc", line).perhaps());
    }
    all.push(Recipe::new("a streamOptimized vmdk with data", "vmdk", "disk.vmdk", |kitchen| {
        kitchen.create("-f raw source 1M")?;
        kitchen.io("raw", "source".as_ref(), WRITES)?;
        kitchen.img(["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "source", "disk.vmdk"])
    }));
    all
}

/// Pairs of options that chance brings together; not every pair is possible.
pub fn pairs(seed: u64) -> Vec<Recipe> {
    let mut noise = Noise::new(seed);
    let mut pick = |from: usize| usize::try_from(noise.below(from as u64)).unwrap_or(0);
    let many: Vec<&Options> = OPTIONS.iter().filter(|(_, options)| options.len() > 1).collect();
    let mut all = Vec::new();
    while all.len() < 80 {
        // Half of them are qcow2, which has most to say.
        let (format, options) = many[if pick(2) == 0 { 1 } else { pick(many.len()) }];
        let (one, other) = (pick(options.len()), pick(options.len()));
        if one == other {
            continue;
        }
        let words: Vec<String> =
            [one, other].map(|at| format!("{}={}", options[at].0, options[at].1[pick(options[at].1.len())])).to_vec();
        let size = ["1M", "65537k", "7G"][pick(3)];
        let full = words.iter().any(|w| w.contains("full") || w.contains("falloc") || w.contains("Flat"));
        let full = full || words.iter().any(|w| w.contains("fixed") || w.contains("static"));
        let size = if full { "1M" } else { size };
        let id = format!("{format} {} of {size}", words.join(","));
        all.push(recipe(id, format, words.join(","), size, false).perhaps());
    }
    all
}
