//! `-o help`: what can be asked of a new image.

use crate::Told;
use crate::args::node::drivers;
use crate::settings::Settings;

const SIZE: (&str, &str) = ("size=<size>", "Virtual disk size");
/// What can be asked of a plain file.
const FILE: &[(&str, &str)] = &[
    ("extent_size_hint=<size>", "Extent size hint for the image file, 0 to disable"),
    ("nocow=<bool (on/off)>", "Turn off copy-on-write (valid only on btrfs)"),
    ("preallocation=<str>", "Preallocation mode (allowed values: off, falloc, full)"),
    SIZE,
];
const DEVICE: &[(&str, &str)] = &[("preallocation=<str>", "Preallocation mode (allowed values: off)"), SIZE];

/// The list for a format; `named`: of a target that is named, so that what its file can do is listed with it.
pub(crate) fn told(format: &[u8], named: bool, settings: &Settings) -> Result<Told, Told> {
    let list = match (format, named) {
        (b"raw", false) => &[SIZE][..],
        (b"raw" | b"file", _) => FILE,
        (b"host_device", _) => DEVICE,
        _ => {
            let sentence = match drivers::driver(format, &settings.profile) {
                Some(_) => [b"Format driver '", format, b"' does not support image creation"].concat(),
                None => [b"Unknown file format '", format, b"'"].concat(),
            };
            return Err(Told::failure(settings, &sentence));
        }
    };
    let format = String::from_utf8_lossy(format);
    let (head, tail) = match named {
        true => ("Supported options:\n".to_owned(), ""),
        false => (
            format!("Supported {format} options:\n"),
            "\nThe protocol level may support further options.\n\
             Specify the target filename to include those options.\n",
        ),
    };
    let lines: String = list.iter().map(|(key, about)| format!("  {key:<22} - {about}\n")).collect();
    Ok(Told { stdout: [head, lines, tail.to_owned()].concat().into_bytes(), ..Told::default() })
}
