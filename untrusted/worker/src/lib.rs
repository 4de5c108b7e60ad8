//! The program inside a cell: it takes a request, carries it out, and says how that ended.
#![no_std]
#![cfg_attr(not(freestanding), forbid(unsafe_code))]
extern crate alloc;

mod crew;
pub mod port;
#[cfg(freestanding)]
pub mod rt;

use crew::Lanes;
use instar_image::cache::Cache;
use instar_ops::cx::Cx;
use instar_wire::code::{decode, encode};
use instar_wire::error::{Kind, Result};
use instar_wire::op::{Outcome, Request};
use port::{Door, Lens, Port};

/// Carries out the one request this worker lives for.
pub fn main(door: &dyn Door) {
    let port = Port::new(door, Lens::new());
    let outcome = match serve(&port) {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(error),
    };
    port.finish(&encode(&outcome));
}

fn serve(port: &Port<'_>) -> Result<()> {
    let request: Request =
        decode(&port.request()?).map_err(|_| Kind::Unsupported.what("the request is not one this worker knows"))?;
    for granted in request.files() {
        port.know(granted);
    }
    let cache = Cache::new(port);
    let cx = Cx { io: &cache, drive: port, crew: &Lanes(port), emit: &|event| port.emit(event) };
    instar_ops::run(&request, &cx)
}
