//! Writes a large, thin qcow2: `cargo run -p instar-testkit --example thin -- PATH CLUSTER_BITS SIZE TABLES EACH SPREAD LEAKED`.
#![allow(missing_docs)]

use instar_testkit::build::thin::Thin;

fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let path = words.next().expect("PATH");
    let [bits, size, tables, each, spread, leaked] =
        std::array::from_fn(|_| words.next().and_then(|word| word.parse().ok()).expect("a number"));
    let thin = Thin { cluster_bits: bits as u32, size, tables, each, spread, leaked };
    thin.write(std::path::Path::new(&path))
}
