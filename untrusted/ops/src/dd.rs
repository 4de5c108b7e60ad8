//! `dd`: a part of a chain's bytes, copied as `convert` copies.

use crate::convert;
use crate::cx::Cx;
use instar_image::Result;
use instar_wire::op::dd::Request;

/// Copies, and tells of it.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    convert::copy(&request.copy, Some(&request.part), cx)
}
