//! What a census and a map of the same image owe each other.

use crate::content::runs;
use instar_image::census::{Claim, Clusters, Finding, Witness};
use instar_image::{Chain, FileId, Image, Io, Place, Result, Scope, Source};
use std::collections::BTreeMap;

/// Whoever takes down all that is claimed of a file.
#[derive(Default)]
struct Clerk {
    claims: Vec<Claim>,
}

impl Witness for Clerk {
    fn claim(&mut self, claim: Claim) -> Result<bool> {
        self.claims.push(claim);
        Ok(true)
    }

    fn find(&mut self, _finding: Finding) -> Result<()> {
        Ok(())
    }

    fn doubt(&mut self) {}

    fn add(&mut self, _clusters: Clusters) {}
}

/// Asserts that all bytes of the layer that lie in its files are claimed there; answers how many runs of them there are.
pub fn covered(image: &dyn Image, io: &dyn Io) -> Result<usize> {
    let mut claimed: Vec<(FileId, BTreeMap<u64, u64>)> = Vec::new();
    for census in image.censuses(Scope { as_qemu: false, version: 0 }) {
        let mut clerk = Clerk::default();
        census.take(&mut clerk)?;
        claimed.push((census.space().file, joined(clerk.claims)));
    }
    let chain = Chain { layers: vec![image.layer()?] };
    let mut count = 0;
    for (len, found) in runs(&chain, io, 1024)? {
        let (place, len) = match found.source {
            Source::Raw { place, .. } => (place, len),
            // The length of a unit may be a bound.
            Source::Packed { unit, .. } => (unit.place, 1),
            _ => continue,
        };
        let Place { file, at } = place;
        // Of a file beside the image, all is the disk's.
        let Some((_, ranges)) = claimed.iter().find(|(claimed, _)| *claimed == file) else { continue };
        let within = ranges.range(..=at).next_back().is_some_and(|(_, end)| at + len <= *end);
        assert!(within, "{len} bytes of the disk at {at} of its file are claimed by nobody");
        count += 1;
    }
    Ok(count)
}

/// Where claims begin, and where they end together with those that go on from there.
fn joined(mut claims: Vec<Claim>) -> BTreeMap<u64, u64> {
    claims.sort_by_key(|claim| claim.at);
    let mut ranges: BTreeMap<u64, u64> = BTreeMap::new();
    for claim in claims {
        match ranges.last_entry() {
            Some(mut last) if *last.get() >= claim.at => {
                let end = claim.end().max(*last.get());
                last.insert(end);
            }
            _ => drop(ranges.insert(claim.at, claim.end())),
        }
    }
    ranges
}
