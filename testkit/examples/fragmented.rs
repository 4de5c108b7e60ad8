//! Writes a large, fragmented qcow2: `cargo run -p instar-testkit --example fragmented -- PATH CLUSTER_BITS CLUSTERS
//! [SPREAD]`.
#![allow(missing_docs)]

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let ([_, path, bits, clusters], spread) = (match &words[..] {
        [head @ .., spread] if words.len() == 5 => (head, Some(spread)),
        all => (all, None),
    }) else {
        panic!("PATH CLUSTER_BITS CLUSTERS [SPREAD]")
    };
    let number = |word: &String| word.parse().expect("a number");
    let clusters = number(clusters);
    let image = instar_testkit::build::fragmented::Fragmented {
        cluster_bits: number(bits) as u32,
        clusters,
        spread: clusters.min(spread.map_or(clusters, number)),
    };
    image.write(std::path::Path::new(path))
}
