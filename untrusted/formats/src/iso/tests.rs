//! ISO 9660 file systems: recognised quietly, and as long as their file.

use super::Iso;
use alloc::vec;
use instar_image::probe::Claim;
use instar_image::{File, Format, Options};
use instar_testkit::mem::MemIo;

#[test]
fn mark_decides() {
    let mut bytes = vec![0; 40000];
    bytes[32769..32774].copy_from_slice(b"CD001");
    for (len, claim) in [(40000, Claim::Quiet), (32774, Claim::Quiet), (32773, Claim::No), (0, Claim::No)] {
        let io = MemIo::new(bytes[..len].to_vec());
        assert_eq!(Iso.probe(&File::new(&io, &io.top())).unwrap(), claim);
        let opened = Iso.open(File::new(&io, &io.top()), &Options::default());
        assert_eq!(opened.is_ok(), claim == Claim::Quiet);
        if let Ok(image) = opened {
            assert_eq!(image.describe(false).unwrap().virtual_size, (len as u64).next_multiple_of(512));
        }
    }
}
