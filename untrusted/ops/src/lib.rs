//! The verbs, as they run inside a cell.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod compare;
pub mod convert;
pub mod cx;
pub mod dd;
pub mod info;
pub mod open;
pub mod stripes;

use cx::Cx;
use instar_wire::error::Result;
use instar_wire::op::Request;

/// Carries out a request.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    match request {
        Request::Info(request) => info::run(request, cx),
        Request::Convert(request) => convert::run(request, cx),
        Request::Dd(request) => dd::run(request, cx),
        Request::Compare(request) => compare::run(request, cx),
    }
}
