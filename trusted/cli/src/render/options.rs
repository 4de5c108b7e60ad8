//! `-o help`: what can be asked of a new image.

use crate::Told;
use crate::args::creation::{Ground, Schema};
use crate::args::node::drivers;
use crate::settings::Settings;

/// The list for a format; `named`: of a target that is named, so that what its file can do is listed with it.
pub(crate) fn told(format: &[u8], named: bool, settings: &Settings) -> Result<Told, Told> {
    list(format, if named { Ground::File } else { Ground::Nowhere }, settings)
}

/// The list for a format, where it is put.
pub(crate) fn list(format: &[u8], ground: Ground, settings: &Settings) -> Result<Told, Told> {
    let profile = &settings.profile;
    let known = drivers::driver(format, profile).is_some();
    // A plain file's list is that of the ground it lies on.
    let ground = if format == b"host_device" && ground == Ground::File { Ground::Device } else { ground };
    let schema = Schema::on(format, ground, profile).filter(|_| known).ok_or_else(|| {
        let sentence = match known {
            true => [b"Format driver '", format, b"' does not support image creation"].concat(),
            false => [b"Unknown file format '", format, b"'"].concat(),
        };
        Told::failure(settings, &crate::stderr_text(settings).show(&sentence))
    })?;
    let schema = schema.of_face(settings.face);
    if ground != Ground::Nowhere {
        return Ok(Told { stdout: schema.help(), ..Told::default() });
    }
    let head = [b"Supported ", format, b" options:\n"].concat();
    let tail = b"\nThe protocol level may support further options.\n\
                 Specify the target filename to include those options.\n";
    Ok(Told { stdout: [&head, &schema.lines()[..], tail].concat(), ..Told::default() })
}
