//! What a child that is forked is to have in its hands.

use std::os::fd::RawFd;

/// From where to where the descriptors are that are none of these.
pub fn all_but(mut held: Vec<RawFd>) -> Vec<[u32; 2]> {
    held.sort_unstable();
    let (mut others, mut from) = (Vec::new(), 0);
    for fd in held.into_iter().map(RawFd::cast_unsigned) {
        if fd > from {
            others.push([from, fd - 1]);
        }
        from = fd + 1;
    }
    others.push([from, u32::MAX]);
    others
}

#[cfg(test)]
mod tests {
    use super::all_but;

    #[test]
    fn all_others_are_named_once() {
        assert_eq!(all_but(vec![]), [[0, u32::MAX]]);
        assert_eq!(all_but(vec![0, 1]), [[2, u32::MAX]]);
        assert_eq!(all_but(vec![7, 3, 4]), [[0, 2], [5, 6], [8, u32::MAX]]);
    }
}
