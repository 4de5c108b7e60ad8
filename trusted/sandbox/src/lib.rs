//! The two cells: a micro-VM without an operating system, and a process that can do next to nothing.
