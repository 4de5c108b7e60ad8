//! The verbs, as they run inside a cell.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod ahead;
pub mod amend;
pub mod bench;
pub mod bitmap;
pub mod check;
pub mod commit;
pub mod compare;
pub mod convert;
pub mod create;
pub mod cx;
pub mod dd;
pub mod flights;
pub mod goal;
pub mod info;
pub mod ledger;
pub mod load;
pub mod map;
pub mod marks;
pub mod measure;
pub mod open;
pub mod pace;
pub mod pieces;
pub mod rebase;
pub mod resize;
pub mod rows;
pub mod snapshot;
pub mod state;
pub mod stripes;
pub mod turns;

use cx::Cx;
use instar_wire::error::Result;
use instar_wire::op::Request;

/// Carries out a request.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    match request {
        Request::Check(request) => check::run(request, cx),
        Request::Info(request) => info::run(request, cx),
        Request::Convert(request) => convert::run(request, cx),
        Request::Create(request) => create::run(request, cx),
        Request::Dd(request) => dd::run(request, cx),
        Request::Compare(request) => compare::run(request, cx),
        Request::Snapshot(request) => snapshot::run(request, cx),
        Request::Bench(request) => bench::run(request, cx),
        Request::Map(request) => map::run(request, cx),
        Request::Measure(request) => measure::run(request, cx),
        Request::Resize(request) => resize::run(request, cx),
        Request::Rebase(request) => rebase::run(request, cx),
        Request::Commit(request) => commit::run(request, cx),
        Request::Amend(request) => amend::run(request, cx),
        Request::Bitmap(request) => bitmap::run(request, cx),
    }
}
