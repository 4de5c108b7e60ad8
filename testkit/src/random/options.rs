//! Formats and their options, by chance.

use super::Dice;

/// What kind of image is made.
pub struct Kind {
    /// Its format.
    pub format: &'static str,
    /// What it is about.
    pub id: String,
    /// For `-o`; `@` stands for the image's name.
    pub options: String,
    /// The option that takes its passphrase.
    pub secret: Option<&'static str>,
    /// It can stand upon another.
    pub backs: bool,
    /// It can be written after it was made.
    pub writes: bool,
    /// It has internal snapshots.
    pub snapshots: bool,
    /// Single clusters can be written compressed.
    pub compresses: bool,
    /// The whole can be converted into a compressed one.
    pub repacks: bool,
    /// It comes about by conversion only.
    pub through_raw: bool,
    /// Length of its clusters.
    pub cluster: u64,
    /// The smallest and the largest disk worth making.
    pub size_min: u64,
    /// The largest.
    pub size_max: u64,
}

impl Kind {
    /// A raw disk.
    pub fn raw() -> Kind {
        Kind {
            format: "raw",
            id: "raw".into(),
            options: String::new(),
            secret: None,
            backs: false,
            writes: true,
            snapshots: false,
            compresses: false,
            repacks: false,
            through_raw: false,
            cluster: 512,
            size_min: 512,
            size_max: 48 << 20,
        }
    }

    fn plain(format: &'static str, options: String) -> Kind {
        let id = format!("{format} {}", options.replace(',', " "));
        Kind { format, id, options, ..Kind::raw() }
    }
}

/// A kind by chance, of those that can stand upon an image of format `base` if there is one.
pub fn kind(dice: &mut Dice, base: Option<&str>) -> Kind {
    let backs = base.is_some();
    let of = if backs { 7 } else { 22 };
    match dice.below(of) {
        0..=3 => qcow2(dice, backs),
        4 => qed(dice),
        // This one only stands upon its like.
        5 if base.is_none_or(|format| format == "vmdk") => vmdk(dice, backs),
        5 | 6 => qcow(backs, dice),
        7 | 8 => vmdk(dice, false),
        9 | 10 => vhd(dice),
        11 | 12 => vhdx(dice),
        13 => Kind { size_min: 1 << 20, ..Kind::plain("vdi", dice.one(&["", "static=on"]).into()) },
        14 => parallels(dice),
        15 => luks(dice),
        16 => Kind::raw(),
        17 => encrypted_qcow2(dice),
        18 => outside(dice),
        _ => qcow2(dice, false),
    }
}

fn qcow2(dice: &mut Dice, backs: bool) -> Kind {
    let bits = 9 + dice.below(13);
    let mut options = format!("cluster_size={}", 1u64 << bits);
    let extended = bits >= 14 && dice.once_in(3);
    if extended {
        options += ",extended_l2=on";
    }
    if !extended && dice.once_in(4) {
        options += ",compat=0.10";
    } else {
        options += &format!(",refcount_bits={}", 1 << dice.below(7));
        options += dice.one(&["", "", ",lazy_refcounts=on"]);
        options += dice.one(&["", "", ",compression_type=zstd"]);
    }
    if !backs && !extended || bits > 16 {
        options += dice.one(&["", "", "", ",preallocation=metadata", ",preallocation=falloc", ",preallocation=full"]);
    }
    let backs = !options.contains("preallocation");
    // One-bit counts take no second user of a cluster.
    let snapshots = !options.contains("refcount_bits=1,") && !options.ends_with("refcount_bits=1");
    let cluster = 1 << bits;
    let size_max = if bits < 11 { 8 << 20 } else { 48 << 20 };
    Kind { backs, snapshots, compresses: true, repacks: true, cluster, size_max, ..Kind::plain("qcow2", options) }
}

fn encrypted_qcow2(dice: &mut Dice) -> Kind {
    let suite = dice.one(&["", ",encrypt.cipher-alg=serpent-256", ",encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv"]);
    let cluster = 1u64 << (12 + dice.below(6));
    let options =
        format!("cluster_size={cluster},encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=10{suite}");
    Kind { secret: Some("encrypt.key-secret"), cluster, ..Kind::plain("qcow2", options) }
}

fn outside(dice: &mut Dice) -> Kind {
    let options = format!("data_file=@.data,data_file_raw={}", dice.one(&["on", "off"]));
    Kind { cluster: 65536, ..Kind::plain("qcow2", options) }
}

fn qed(dice: &mut Dice) -> Kind {
    let cluster = 4096u64 << dice.below(8);
    let options = format!("cluster_size={cluster},table_size={}", 2 << dice.below(4));
    Kind { backs: true, cluster, size_max: 16 << 20, ..Kind::plain("qed", options) }
}

fn qcow(backs: bool, dice: &mut Dice) -> Kind {
    let repacks = !backs && dice.once_in(2);
    Kind { backs: true, repacks, cluster: 4096, ..Kind::plain("qcow", String::new()) }
}

fn vmdk(dice: &mut Dice, backs: bool) -> Kind {
    let growing = ["monolithicSparse", "twoGbMaxExtentSparse"];
    let all = ["monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat", "twoGbMaxExtentFlat", "streamOptimized"];
    let subformat = if backs { dice.one(&growing) } else { dice.one(&all) };
    let sparse = subformat.ends_with("Sparse");
    let zeroed = if sparse && dice.once_in(2) { ",zeroed_grain=on" } else { "" };
    let options = format!("subformat={subformat}{zeroed}");
    let streamed = subformat == "streamOptimized";
    let kind = Kind::plain("vmdk", options);
    Kind { backs: sparse, writes: !streamed, through_raw: streamed, cluster: 65536, size_min: 65536, ..kind }
}

fn vhd(dice: &mut Dice) -> Kind {
    let options = format!("subformat={},force_size={}", dice.one(&["dynamic", "fixed"]), dice.one(&["on", "off"]));
    Kind { size_min: 1 << 20, ..Kind::plain("vpc", options) }
}

fn vhdx(dice: &mut Dice) -> Kind {
    let options = format!(
        "subformat={},block_size={},block_state_zero={}",
        dice.one(&["dynamic", "fixed"]),
        1u64 << (20 + dice.below(4)),
        dice.one(&["on", "off"]),
    );
    Kind { size_min: 1 << 20, ..Kind::plain("vhdx", options) }
}

fn parallels(dice: &mut Dice) -> Kind {
    let cluster = 65536u64 << dice.below(5);
    Kind { cluster, size_min: 1 << 20, ..Kind::plain("parallels", format!("cluster_size={cluster}")) }
}

fn luks(dice: &mut Dice) -> Kind {
    let suite = dice.one(&[
        "cipher-alg=aes-256,cipher-mode=xts",
        "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
        "cipher-alg=serpent-256,cipher-mode=xts,hash-alg=sha512",
        "cipher-alg=twofish-256,cipher-mode=xts,hash-alg=sha1",
        "cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=plain64",
    ]);
    let kind = Kind::plain("luks", format!("key-secret=sec0,iter-time=10,{suite}"));
    Kind { secret: Some("key-secret"), size_max: 4 << 20, ..kind }
}
