//! The census of a QED image: which clusters of the file its tables use.

use super::disk::ZERO_CLUSTER;
use super::open::Checked;
use instar_image::census::{
    Census, Claim, Clusters, Finding, Irregular, Owner, Scope, Space, Weight, Witness, finding,
};
use instar_image::{Bytes, Drive, Error, File, Kind, Result, Table};

/// Who has the clusters that a table fills.
const TABLE: Owner = Owner::Image("the second table");

/// An image's census.
pub struct Roll<'r, 'a> {
    /// The file.
    pub file: &'r File<'a>,
    /// What the image says of itself.
    pub checked: &'r Checked,
    /// What is to be told.
    pub scope: Scope,
    /// Entries that lead nowhere are emptied with this.
    pub mend: Option<&'r dyn Drive>,
}

impl Census for Roll<'_, '_> {
    fn space(&self) -> Space {
        // A last cluster that is not whole is none for qemu-img.
        let len = if self.scope.as_qemu { self.checked.clusters.end } else { self.file.len() };
        Space { file: self.file.id(), len, unit: self.len(), lead: 0, slack: 0, most: u64::MAX }
    }

    fn take(&self, out: &mut dyn Witness) -> Result<()> {
        let checked = self.checked;
        let total = checked.size.div_ceil(self.len());
        out.add(Clusters { total, ..Clusters::NONE });
        self.clusters(Owner::Image("the header"), 0, checked.header_clusters, out)?;
        self.clusters(Owner::Image("the first table"), checked.l1_at, checked.table_clusters, out)?;
        let (mut first, mut second) = (self.table(), self.table());
        first.each(self.file.place(checked.l1_at).at, self.entries(), |index, entry| match u64::from_le_bytes(*entry) {
            0 => Ok(()),
            at if !checked.clusters.has_table(at) => {
                let error = self.corrupt("entry {} of the first table leads where no table can be: offset {}");
                self.wrong(error.arg(index).at(at), at, checked.l1_at.saturating_add(index.saturating_mul(8)), out)
            }
            // A table that is something else as well is not followed.
            at if self.clusters(TABLE, at, checked.table_clusters, out)? => self.second(&mut second, index, at, out),
            _ => Ok(()),
        })
    }

    fn words(&self, irregular: &Irregular) -> Option<Finding> {
        let said = match irregular {
            Irregular::Unused(unused) => self.space().lost(unused, self.len()),
            _ => self.space().words(irregular, "cluster")?,
        };
        Some(Finding { what: self.silent(said.what), ..said })
    }
}

impl Roll<'_, '_> {
    /// Length of a cluster.
    fn len(&self) -> u64 {
        self.checked.cluster_len.into()
    }

    /// Entries of a table.
    fn entries(&self) -> u64 {
        self.len().saturating_mul(self.checked.table_clusters.into()) / 8
    }

    fn table(&self) -> Table<'_, 8> {
        Table::new(self.file.io(), self.file.id())
    }

    fn corrupt(&self, phrase: &'static str) -> Error {
        Kind::Corrupt.what(phrase).file(self.file.id())
    }

    /// qemu-img counts what is wrong, and does not say it.
    fn silent(&self, error: Error) -> Error {
        if self.scope.as_qemu { Error { what: "".into(), ..error } } else { error }
    }

    /// An entry, which stands at `place`, leads where nothing can be.
    fn wrong(&self, error: Error, at: u64, place: u64, out: &mut dyn Witness) -> Result<()> {
        let Some(drive) = self.mend else {
            return out.find(finding(Weight::Corruption, self.silent(error.arg(at))));
        };
        drive.write(self.file.place(place), &[0; 8])?;
        let what = Bytes([b"repaired: ", &error.what.0[..]].concat());
        out.find(finding(Weight::Mended, self.silent(Error { what, ..error }.arg(at))))
    }

    /// Claims each cluster by itself, as each counts; whether all of them are free.
    fn clusters(&self, owner: Owner, at: u64, count: u32, out: &mut dyn Witness) -> Result<bool> {
        let mut all = true;
        for number in 0..u64::from(count) {
            let at = at.saturating_add(number.saturating_mul(self.len()));
            all &= out.claim(Claim::alone(owner, at, self.len()))?;
        }
        Ok(all)
    }

    /// The table that an entry of the first one leads to.
    fn second(&self, table: &mut Table<'_, 8>, index: u64, at: u64, out: &mut dyn Witness) -> Result<()> {
        let (count, start) = (self.entries(), at);
        let mut clusters = Clusters::NONE;
        let mut before = 0;
        table.each(self.file.place(at).at, count, |number, entry| {
            let at = u64::from_le_bytes(*entry);
            if at == 0 || at == ZERO_CLUSTER {
                return Ok(());
            }
            let is_there = self.checked.clusters.has(at);
            let block = index.saturating_mul(count).saturating_add(number);
            if !is_there {
                let error = self.corrupt("cluster {} lies where no cluster can be: offset {}");
                self.wrong(error.arg(block).at(at), at, start.saturating_add(number.saturating_mul(8)), out)?;
                if self.mend.is_some() {
                    return Ok(());
                }
            }
            clusters.allocated = clusters.allocated.saturating_add(1);
            if before != 0 && self.len().wrapping_add(before) != at {
                clusters.fragmented = clusters.fragmented.saturating_add(1);
            }
            before = at;
            match is_there {
                true => out.claim(Claim::alone(Owner::Block(block), at, self.len())).map(drop),
                false => Ok(()),
            }
        })?;
        out.add(clusters);
        Ok(())
    }
}
