//! Writes a large, fragmented qcow2: `cargo run -p instar-testkit --example fragmented -- PATH CLUSTER_BITS CLUSTERS`.
#![allow(missing_docs)]

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let [_, path, bits, clusters] = &words[..] else { panic!("PATH CLUSTER_BITS CLUSTERS") };
    let number = |word: &String| word.parse().expect("a number");
    let image =
        instar_testkit::build::fragmented::Fragmented { cluster_bits: number(bits) as u32, clusters: number(clusters) };
    image.write(std::path::Path::new(path))
}
