//! Images of qcow2 that are written to, and that mean no good.

use crate::qcow2::Qcow2;
use crate::qcow2::disk::{L2_COPIED, REFCOUNT_TABLE_OFFSET};
use alloc::vec;
use instar_image::{Drive, Kind, Result};
use instar_testkit::folder::Folder;
use instar_testkit::made::options;
use instar_testkit::place::Scratch;
use instar_testkit::workshop::{Order, Pour, bytes};

const CLUSTER: usize = 4096;

/// Where the header says that something lies.
fn field(image: &[u8], at: usize) -> usize {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap()) as usize
}

/// Writes to an image in which one word is another.
fn poured(change: impl Fn(&mut [u8])) -> (Result<()>, usize, usize) {
    let scratch = Scratch::new("qcow2-behind");
    let folder = Folder::new(scratch.path());
    let order = Order { options: options("cluster_size=4096,preallocation=metadata"), ..Order::plain(&Qcow2, 1 << 20) };
    order.create(&folder, "a").unwrap();
    let mut image = bytes(scratch.path(), "a");
    change(&mut image);
    scratch.put("a", &image);
    scratch.put("in", vec![7; 3 * CLUSTER]);
    let done = Pour::there("a", &[&Qcow2], "in").go(&folder);
    (done, image.len(), bytes(scratch.path(), "a").len())
}

/// Puts a word in the place of one of the image.
fn put(image: &mut [u8], at: usize, word: u64) {
    image[at..at + 8].copy_from_slice(&word.to_be_bytes());
}

#[test]
fn what_lies_behind_the_end_of_the_file_is_not_written_to() {
    const FAR: u64 = 1 << 50;
    let l1 = |image: &[u8]| field(image, 40);
    let l2 = |image: &[u8]| field(image, l1(image)) & !(L2_COPIED as usize);
    let counts = |image: &[u8]| field(image, 48);
    let (done, before, after) = poured(|_| ());
    assert_eq!((done, before), (Ok(()), after));
    type Change<'c> = (&'c str, &'c dyn Fn(&mut [u8]));
    let changes: [Change<'_>; 5] = [
        ("a table", &|image| put(image, l1(image), FAR | L2_COPIED)),
        ("a cluster", &|image| put(image, l2(image) + 8, FAR | L2_COPIED)),
        ("a cluster that is none", &|image| put(image, l2(image) + 8, 512 | L2_COPIED)),
        ("counts", &|image| {
            put(image, l2(image) + 8, 0);
            put(image, counts(image), FAR & REFCOUNT_TABLE_OFFSET);
        }),
        ("counted clusters", &|image| put(image, counts(image) + CLUSTER - 8, field(image, counts(image)) as u64)),
    ];
    for (what, change) in changes {
        let (done, before, after) = poured(change);
        assert_eq!(done.map_err(|error| error.kind), Err(Kind::Corrupt), "{what}");
        // The file is no longer than for another cluster or two.
        assert!(after <= before + 4 * CLUSTER, "{what}: {after} bytes, and {before} before");
    }
}

#[test]
fn a_block_of_counts_is_looked_at_once_however_often_it_is_named() {
    // A table of counts as long as it may be, of which every entry leads to the same long block without a count.
    const LEN: usize = 2 << 20;
    let scratch = Scratch::new("qcow2-counts");
    let folder = Folder::new(scratch.path());
    Order { options: options("cluster_size=2M"), ..Order::plain(&Qcow2, 1 << 20) }.create(&folder, "a").unwrap();
    let mut image = bytes(scratch.path(), "a");
    let table = image.len().next_multiple_of(LEN);
    image.resize(table + 5 * LEN, 0);
    (0..LEN / 2).for_each(|n| put(&mut image, table + 8 * n, (table + 4 * LEN) as u64));
    put(&mut image, 48, table as u64);
    image[56..60].copy_from_slice(&4u32.to_be_bytes());
    scratch.put("a", &image);
    scratch.put("in", vec![7; CLUSTER]);
    let began = folder.clock().unwrap();
    assert_eq!(Pour::there("a", &[&Qcow2], "in").go(&folder), Ok(()));
    let seconds = (folder.clock().unwrap() - began) / 1_000_000_000;
    assert!(seconds < 20, "{seconds} s");
}
